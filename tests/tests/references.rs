//! The generated references in `docs/` are those of the present sources.

use std::process::Command;

use windlass_tests::binaries::{binary, repository};

/// behaviours P1: with no server and no configuration.
#[test]
fn p1_the_schema_is_printed_without_a_server() {
    let output = Command::new(binary("windlass"))
        .arg("schema")
        .env_clear()
        .output()
        .expect("windlass runs");
    assert!(output.status.success(), "{output:?}");
    let printed: serde_json::Value = serde_json::from_slice(&output.stdout).expect("json");
    assert_eq!(printed, windlass_pipeline::schema::json_schema());
}

#[test]
fn the_references_are_up_to_date() {
    for subject in ["cli", "file", "api"] {
        let output = Command::new(binary("windlass"))
            .args(["reference", subject])
            .output()
            .expect("windlass runs");
        let committed =
            std::fs::read_to_string(repository().join("docs").join(format!("{subject}.md"))).expect("a reference");
        let generated = String::from_utf8(output.stdout).expect("text");
        assert!(
            generated == committed,
            "docs/{subject}.md is old: windlass reference {subject} > docs/{subject}.md"
        );
    }
}
