//! The generated references in `docs/` are those of the present sources.

use std::process::Command;

use windlass_tests::binaries::{binary, repository};

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
