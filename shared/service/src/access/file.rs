//! The access file: tokens by their hashes, each with its roles.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde_saphyr::Spanned;

use super::{ALL_NAMESPACES, Grants, Rights, Role};
use crate::reload::{ReadError, Reloaded};

/// Longest name of a namespace.
const MAX_NAMESPACE: usize = 63;

/// An access file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AccessFileError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It is not what an access file is.
    #[error("the access file {path} cannot be used: {problem}")]
    Shape {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
        problem: String,
    },
    /// A value cannot be used.
    #[error("the access file {path} cannot be used: line {line}: {field}: {problem}")]
    Value {
        /// The file.
        path: PathBuf,
        /// Where.
        line: u64,
        /// Path of the field, such as `[2].roles[0].role`.
        field: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
}

/// An access file that is read again when it changes; a new version that cannot be used is refused, and the old one stays.
#[derive(Clone, Debug)]
pub struct AccessFile(Reloaded<Entries>);

type Entries = BTreeMap<[u8; 32], (String, Rights)>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: Spanned<String>,
    sha256: Spanned<String>,
    roles: Spanned<Vec<RoleEntry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RoleEntry {
    role: Spanned<String>,
    namespaces: Option<Vec<Spanned<String>>>,
}

impl AccessFile {
    /// Reads the file. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When it cannot be read or used.
    pub fn open(path: &Path) -> Result<Self, AccessFileError> {
        let named = path.to_owned();
        let make = move |contents: &[Vec<u8>]| parse(&named, &contents[0]);
        Reloaded::open("access file", vec![path.to_owned()], make).map(Self)
    }

    /// Checks the text of an access file.
    ///
    /// # Errors
    /// With what is wrong about it.
    pub fn check(text: &str) -> Result<(), AccessFileError> {
        parse(Path::new("(text)"), text.as_bytes()).map(drop)
    }

    /// Name and rights of a token, by its hash.
    pub(crate) fn find(&self, digest: &[u8; 32]) -> Option<(String, Rights)> {
        self.0.get().get(digest).cloned()
    }
}

fn parse(path: &Path, content: &[u8]) -> Result<Entries, AccessFileError> {
    let shape = |problem: String| AccessFileError::Shape {
        path: path.to_owned(),
        problem,
    };
    let text = std::str::from_utf8(content).map_err(|error| shape(error.to_string()))?;
    let list: Vec<Entry> = serde_saphyr::from_str(text).map_err(|error| shape(error.to_string()))?;
    if list.is_empty() {
        return Err(shape(
            "it lists nobody; `windlass token NAME --role ROLE=NAMESPACE` makes an entry".to_owned(),
        ));
    }
    let (mut names, mut entries) = (BTreeSet::new(), Entries::new());
    for (index, entry) in list.iter().enumerate() {
        let at = |field: &str| format!("[{index}].{field}");
        if entry.name.value.trim().is_empty() {
            return Err(wrong(path, &entry.name, at("name"), "must not be empty"));
        }
        if !names.insert(&entry.name.value) {
            return Err(wrong(
                path,
                &entry.name,
                at("name"),
                "is there twice; give each token a name of its own",
            ));
        }
        let mut digest = [0; 32];
        if hex::decode_to_slice(entry.sha256.value.trim(), &mut digest).is_err() {
            let problem = "must be the SHA-256 of the token, 64 hexadecimal digits";
            return Err(wrong(path, &entry.sha256, at("sha256"), problem));
        }
        let rights = Rights::Granted(Arc::new(grants(path, index, &entry.roles)?));
        if entries.insert(digest, (entry.name.value.clone(), rights)).is_some() {
            return Err(wrong(
                path,
                &entry.sha256,
                at("sha256"),
                "is there twice; a token has one entry",
            ));
        }
    }
    Ok(entries)
}

fn grants(path: &Path, entry: usize, roles: &Spanned<Vec<RoleEntry>>) -> Result<Grants, AccessFileError> {
    if roles.value.is_empty() {
        return Err(wrong(
            path,
            roles,
            format!("[{entry}].roles"),
            "must name at least one role",
        ));
    }
    let mut grants = Grants::default();
    for (index, given) in roles.value.iter().enumerate() {
        let at = |field: &str| format!("[{entry}].roles[{index}].{field}");
        let name = given.role.value.as_str();
        if name == "service" {
            if given.namespaces.is_some() {
                let problem = "must be absent: the role service is for the whole installation";
                return Err(wrong(path, &given.role, at("namespaces"), problem));
            }
            grants.service = true;
            continue;
        }
        let Some(role) = Role::ALL.into_iter().find(|role| role.name() == name) else {
            let problem = format!("{name:?} is not a role; known roles: viewer, submitter, admin, service");
            return Err(wrong(path, &given.role, at("role"), &problem));
        };
        let namespaces = given.namespaces.as_deref().unwrap_or_default();
        if namespaces.is_empty() {
            let problem = "must name at least one namespace, or \"*\" for all";
            return Err(wrong(path, &given.role, at("namespaces"), problem));
        }
        for (number, namespace) in namespaces.iter().enumerate() {
            if namespace.value != ALL_NAMESPACES && !is_label(&namespace.value) {
                let problem = format!("{:?} is no name of a namespace; \"*\" means all", namespace.value);
                return Err(wrong(path, namespace, at(&format!("namespaces[{number}]")), &problem));
            }
            grants.roles.push((role, namespace.value.clone()));
        }
    }
    Ok(grants)
}

fn is_label(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty()
        && text.len() <= MAX_NAMESPACE
        && text.chars().all(plain)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn wrong<T>(path: &Path, place: &Spanned<T>, field: String, problem: &str) -> AccessFileError {
    AccessFileError::Value {
        path: path.to_owned(),
        line: place.referenced.line(),
        field,
        problem: problem.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

    fn problem(text: &str) -> String {
        parse(Path::new("access.yaml"), text.as_bytes())
            .expect_err("refused")
            .to_string()
    }

    #[test]
    fn roles_are_read_with_their_namespaces() {
        let text = format!(
            "- name: ana\n  sha256: {HASH}\n  roles:\n  - {{role: admin, namespaces: [a]}}\n  - role: viewer\n    namespaces: [\"*\"]\n"
        );
        let entries = parse(Path::new("access.yaml"), text.as_bytes()).expect("usable");
        let (name, rights) = entries.values().next().expect("one");
        assert_eq!(name, "ana");
        assert_eq!(rights.role_in("a"), Some(Role::Admin));
        assert_eq!(rights.role_in("b"), Some(Role::Viewer));
        assert!(!rights.is_service());
    }

    #[test]
    fn i9_a_bad_file_names_line_and_field() {
        let entry = |rest: &str| format!("# comment\n- name: ana\n  sha256: {HASH}\n  roles:\n{rest}");
        for (text, expected) in [
            (
                entry("  - {role: owner, namespaces: [a]}\n"),
                "line 5: [0].roles[0].role: \"owner\" is not a role",
            ),
            (
                entry("  - {role: viewer}\n"),
                "line 5: [0].roles[0].namespaces: must name",
            ),
            (
                entry("  - {role: viewer, namespaces: [a, B_]}\n"),
                "line 5: [0].roles[0].namespaces[1]: \"B_\" is no name",
            ),
            (
                entry("  - {role: service, namespaces: [a]}\n"),
                "line 5: [0].roles[0].namespaces: must be absent",
            ),
            (
                format!("- name: ana\n  sha256: {HASH}\n  roles: []\n"),
                "[0].roles: must name at least one",
            ),
            (
                "- name: x\n  sha256: abc\n  roles: []\n".to_owned(),
                "line 2: [0].sha256: must be the SHA-256",
            ),
            (
                entry("  - {role: viewer, namespaces: [a]}\n").repeat(2),
                "line 7: [1].name: is there twice",
            ),
            ("[]".to_owned(), "it lists nobody"),
            ("- nam: x\n".to_owned(), "nam"),
        ] {
            let said = problem(&text);
            assert!(said.contains(expected), "{text}\n{said}");
            assert!(said.starts_with("the access file access.yaml"), "{said}");
        }
    }
}
