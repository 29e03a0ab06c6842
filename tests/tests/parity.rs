//! What Windlass has of the system that it replaces: `docs/parity.md`, made from the tests that cite a row and the list in
//! `tests/parity.yaml`.
//!
//! A test cites rows by `behaviours K8, E29` (or `PS1 to PS14`) in its doc comment or in a comment of its body, or by the first words
//! of its name, `e29_…`. Names that begin with `p` and a number are those of performance goals and cite nothing.
//! `UPDATE_PARITY=1 cargo test -p windlass-tests --test parity` writes the page anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::LazyLock;

use regex::Regex;
use serde::Deserialize;
use windlass_tests::binaries::repository;

/// Where tests are.
const SOURCES: [&str; 3] = ["shared", "services", "tests"];

/// Tests that are named in a row; the others are counted.
const MOST_NAMED: usize = 5;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    title: String,
    rows: Vec<Row>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    id: String,
    title: String,
    /// Why it has no meaning here.
    absent: Option<String>,
    /// What is still to come.
    planned: Option<String>,
    /// What should be known beside the tests.
    note: Option<String>,
}

static FUNCTION: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^(\s*)(?:async )?fn (\w+)").expect("a pattern"));

/// What follows the word: rows, lists and ranges of them.
static ROWS: LazyLock<Regex> = LazyLock::new(|| {
    let row = "[A-Z]{1,2}[0-9]+";
    Regex::new(&format!(
        r"behaviours?\s+({row}(?:(?:,\s*and|,|\s+and|\s+to)\s+{row})*)"
    ))
    .expect("a pattern")
});

static ROW: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"(to\s+)?([A-Z]{1,2})([0-9]+)").expect("a pattern"));

static WORD: LazyLock<Regex> = LazyLock::new(|| Regex::new("^([a-z]{1,2})([0-9]+)$").expect("a pattern"));

/// A test with the file that holds it.
type Test = (String, String);

fn list() -> Vec<Section> {
    let text = std::fs::read_to_string(repository().join("tests/parity.yaml")).expect("the list");
    serde_saphyr::from_str(&text).expect("the list reads")
}

/// The tests of a source file, each with what it says of itself: its name, its doc comment and the comments of its body.
fn tests_of(source: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let (mut before, mut is_test) = (String::new(), false);
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        let text = line.trim();
        if let Some(doc) = text.strip_prefix("///") {
            before.push_str(doc);
        } else if text.starts_with("#[") {
            is_test |= text.starts_with("#[test]") || text.starts_with("#[tokio::test");
        } else {
            if is_test && let Some(name) = FUNCTION.captures(line) {
                let end = format!("{}}}", &name[1]);
                let is_open = !line.ends_with('}');
                let body = lines
                    .by_ref()
                    .take_while(|line| *line != end)
                    .take(if is_open { usize::MAX } else { 0 });
                let comments = body.filter_map(|line| line.trim().strip_prefix("//"));
                let said = comments.fold(before.clone(), |said, comment| said + comment);
                found.push((name[2].to_owned(), said));
            }
            (before, is_test) = (String::new(), false);
        }
    }
    found
}

/// The rows that a test cites.
fn cited(name: &str, said: &str) -> BTreeSet<String> {
    let mut rows = BTreeSet::new();
    for list in ROWS.captures_iter(said) {
        let mut last = 0;
        for row in ROW.captures_iter(&list[1]) {
            let number: u32 = row[3].parse().expect("digits");
            let first = if row.get(1).is_some() { last + 1 } else { number };
            rows.extend((first..=number).map(|number| format!("{}{number}", &row[2])));
            last = number;
        }
    }
    let words = name.split('_').map_while(|part| WORD.captures(part));
    rows.extend(
        words
            .filter(|word| !matches!(&word[1], "p" | "i"))
            .map(|word| word[0].to_uppercase()),
    );
    rows
}

fn sources(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Every cited row with its tests.
fn citations() -> BTreeMap<String, BTreeSet<Test>> {
    let mut files = Vec::new();
    for folder in SOURCES {
        sources(&repository().join(folder), &mut files);
    }
    let mut citations: BTreeMap<String, BTreeSet<Test>> = BTreeMap::new();
    for path in files {
        let text = std::fs::read_to_string(&path).expect("a source");
        let file = path.strip_prefix(repository()).expect("below the repository");
        for (name, said) in tests_of(&text) {
            for row in cited(&name, &said) {
                let test = (name.clone(), file.display().to_string());
                citations.entry(row).or_default().insert(test);
            }
        }
    }
    citations
}

fn page(sections: &[Section], citations: &BTreeMap<String, BTreeSet<Test>>) -> String {
    let rows = || sections.iter().flat_map(|section| &section.rows);
    let is_tested = |row: &&Row| citations.contains_key(&row.id);
    let tested = rows().filter(is_tested).count();
    let absent = rows().filter(|row| !is_tested(row) && row.absent.is_some()).count();
    let mut text = format!(
        "# What the tests cover\n\n\
        Made from the tests that cite a row and from `tests/parity.yaml`: `UPDATE_PARITY=1 cargo test -p windlass-tests --test parity`;\n\
        do not edit.\n\n\
        Windlass does what ZenML's Kubernetes integration does, without its faults. Each row is a behaviour of it, a fault of it, or a\n\
        thing that its users ask for: {} rows, of which {tested} have tests, {absent} have no meaning here, and {} are still to come.\n",
        rows().count(),
        rows().count() - tested - absent,
    );
    for section in sections {
        writeln!(
            text,
            "\n## {}\n\n| row | what | here |\n| --- | --- | --- |",
            section.title
        )
        .expect("a string takes it");
        for row in &section.rows {
            writeln!(text, "| {} | {} | {} |", row.id, row.title, answer(row, citations)).expect("a string takes it");
        }
    }
    text
}

fn answer(row: &Row, citations: &BTreeMap<String, BTreeSet<Test>>) -> String {
    let Some(tests) = citations.get(&row.id) else {
        return match (&row.absent, &row.planned) {
            (Some(why), _) => format!("no meaning here: {why}"),
            (None, Some(what)) => format!("**planned**: {what}"),
            (None, None) => "**nothing**".to_owned(),
        };
    };
    let mut names: Vec<String> = tests
        .iter()
        .take(MOST_NAMED)
        .map(|(name, file)| format!("[`{name}`](../{file})"))
        .collect();
    if tests.len() > MOST_NAMED {
        names.push(format!("and {} more", tests.len() - MOST_NAMED));
    }
    let note = row.note.as_ref().map(|note| format!("; {note}")).unwrap_or_default();
    format!("{}{note}", names.join(", "))
}

#[test]
fn every_row_has_a_test_or_a_word_on_why_not() {
    let citations = citations();
    let bare: Vec<String> = list()
        .iter()
        .flat_map(|section| &section.rows)
        .filter(|row| !citations.contains_key(&row.id) && row.absent.is_none() && row.planned.is_none())
        .map(|row| format!("{}: {}", row.id, row.title))
        .collect();
    assert!(
        bare.is_empty(),
        "no test cites, and tests/parity.yaml does not explain:\n{}",
        bare.join("\n")
    );
}

#[test]
fn every_cited_row_exists_and_none_is_missing_in_the_list() {
    let sections = list();
    let mut numbers: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for row in sections.iter().flat_map(|section| &section.rows) {
        let (letters, number) = row
            .id
            .split_at(row.id.find(|c: char| c.is_ascii_digit()).expect("a number"));
        numbers
            .entry(letters.to_owned())
            .or_default()
            .push(number.parse().expect("a number"));
    }
    for (letters, numbers) in &numbers {
        let count = u32::try_from(numbers.len()).expect("few rows");
        assert_eq!(*numbers, (1..=count).collect::<Vec<_>>(), "rows {letters}");
    }
    for (row, tests) in citations() {
        let (letters, number) = row.split_at(row.find(|c: char| c.is_ascii_digit()).expect("a number"));
        // What the latest release changed (A1 to A51) has its faults and demands in the list, and no rows of its own.
        let known = letters == "A"
            || numbers
                .get(letters)
                .is_some_and(|rows| rows.contains(&number.parse().expect("a number")));
        assert!(known, "there is no row {row}, which {tests:?} cite");
    }
}

#[test]
fn docs_parity_is_up_to_date() {
    let path = repository().join("docs/parity.md");
    let made = page(&list(), &citations());
    if std::env::var_os("UPDATE_PARITY").is_some() {
        std::fs::write(&path, &made).expect("written");
        return;
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        made == committed,
        "docs/parity.md is old: UPDATE_PARITY=1 cargo test -p windlass-tests --test parity"
    );
}

#[test]
fn citations_are_found_where_tests_make_them() {
    // The bars keep this from being read as tests.
    let source = "
        |/// behaviours H1, H2 and H3: read.
        |/// More (behaviours PS1 to PS3).
        |#[tokio::test(flavor = \"multi_thread\")]
        |async fn e13_e14_x() {
        |    // behaviours X6: kept.
        |    let _ = 1;
        |}
        |
        |/// behaviours Z9 of something that is no test.
        |fn helper() {}
        |    #[test]
        |    fn p4_x14() {}
    "
    .replace("        |", "");
    let found: Vec<(String, Vec<String>)> = tests_of(&source)
        .into_iter()
        .map(|(name, said)| (name.clone(), cited(&name, &said).into_iter().collect()))
        .collect();
    let wanted = ["E13", "E14", "H1", "H2", "H3", "PS1", "PS2", "PS3", "X6"];
    assert_eq!(found[0], ("e13_e14_x".to_owned(), wanted.map(str::to_owned).to_vec()));
    assert_eq!(found[1], ("p4_x14".to_owned(), vec!["X14".to_owned()]));
    assert_eq!(found.len(), 2);
}
