//! `docs/failures.md` is in step with the tests that show what it says, and with the failure classes.

use std::collections::BTreeSet;
use std::path::Path;

use regex::Regex;
use windlass_scheduling::{Budget, FailureClass};
use windlass_tests::binaries::repository;

/// Folders whose tests all stand in the table.
const FOLDERS: [&str; 2] = ["tests/tests/real_pods", "tests/tests/real_faults"];

/// Where tests may be that a row names.
const SOURCES: [&str; 3] = ["tests/tests", "services", "shared"];

/// The columns of a row: what happens, Kubernetes, Windlass, what follows, tests.
struct Row {
    line: String,
    columns: Vec<String>,
}

impl Row {
    fn says(&self, class: FailureClass) -> bool {
        let words = Regex::new(r"[A-Z_]{2,}").expect("a pattern");
        words
            .find_iter(&self.columns[2])
            .any(|word| word.as_str() == class.as_str())
    }

    /// The class that the step ends with, which is the last one that is named.
    fn last_class(&self) -> Option<FailureClass> {
        let place = |class: &&FailureClass| self.columns[2].rfind(class.as_str());
        let named = FailureClass::ALL.iter().filter(|class| self.says(**class));
        named.max_by_key(place).copied()
    }

    fn tests(&self) -> Vec<String> {
        let names = Regex::new("`([a-z0-9_]+)`").expect("a pattern");
        let found = names.captures_iter(&self.columns[4]);
        found.map(|name| name[1].to_owned()).collect()
    }
}

fn rows() -> Vec<Row> {
    let path = repository().join("docs/failures.md");
    let text = std::fs::read_to_string(path).expect("the table");
    let lines = text.lines().filter(|line| line.starts_with("| "));
    let rows: Vec<Row> = lines
        .filter(|line| !line.starts_with("| what happens") && !line.starts_with("| ---"))
        .map(|line| Row {
            line: line.to_owned(),
            columns: line
                .trim_matches('|')
                .split('|')
                .map(|text| text.trim().to_owned())
                .collect(),
        })
        .collect();
    for row in &rows {
        assert_eq!(row.columns.len(), 5, "columns of {}", row.line);
    }
    rows
}

/// Names of the tests in the Rust files below a folder; none when there is no such folder.
fn tests_below(folder: &Path) -> BTreeSet<String> {
    let attribute =
        Regex::new(r"#\[(?:tokio::)?test\b[^\n]*\]\n(?:\s*#\[[^\n]*\n)*\s*(?:async )?fn (\w+)").expect("a pattern");
    let mut names = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("a source");
                names.extend(attribute.captures_iter(&text).map(|name| name[1].to_owned()));
            }
        }
    }
    names
}

#[test]
fn every_row_names_tests_that_exist() {
    let known: BTreeSet<String> = SOURCES
        .iter()
        .flat_map(|folder| tests_below(&repository().join(folder)))
        .collect();
    for row in rows() {
        let tests = row.tests();
        assert!(!tests.is_empty(), "no test in {}", row.line);
        for test in tests {
            assert!(known.contains(&test), "there is no test {test}: {}", row.line);
        }
    }
}

#[test]
fn every_test_with_real_containers_is_in_the_table() {
    let named: BTreeSet<String> = rows().iter().flat_map(Row::tests).collect();
    let mut count = 0;
    for folder in FOLDERS {
        for test in tests_below(&repository().join(folder)) {
            assert!(
                named.contains(&test),
                "docs/failures.md has no row for {test} of {folder}"
            );
            count += 1;
        }
    }
    assert!(count > 50, "only {count} tests were found");
}

#[test]
fn i5_every_failure_class_is_in_the_table() {
    let rows = rows();
    for class in FailureClass::ALL {
        assert!(rows.iter().any(|row| row.says(*class)), "no row for {class}");
    }
}

#[test]
fn every_row_says_what_the_class_spends() {
    for row in rows() {
        let Some(class) = row.last_class() else { continue };
        let follows = &row.columns[3];
        // The end of contact is the one loss that nothing replaces.
        let expected = match class.budget() {
            Some(Budget::User) => "`user` budget",
            Some(Budget::Infrastructure) if row.columns[2].contains("LOST_CONTACT") => "never replaced",
            Some(Budget::Infrastructure) => "`infrastructure` budget",
            None => "final",
        };
        assert!(
            follows.contains(expected),
            "{expected} is not what follows in {}",
            row.line
        );
    }
}
