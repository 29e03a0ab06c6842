//! The file of webhooks.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_saphyr::Spanned;
use windlass_scheduling::RunState;

use super::send::Endpoint;
use super::signature::Secret;
use super::{Target, Webhooks};

/// Most webhooks.
const MOST: usize = 32;

/// A file of webhooks that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WebhooksError {
    /// It cannot be read.
    #[error("the webhooks file {path} cannot be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not what such a file is.
    #[error("the webhooks file {path} cannot be used: {problem}")]
    Shape {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
        problem: String,
    },
    /// A value cannot be used.
    #[error("the webhooks file {path} cannot be used: line {line}: {field}: {problem}")]
    Value {
        /// The file.
        path: PathBuf,
        /// Where.
        line: u64,
        /// Path of the field, such as `webhooks[0].url`.
        field: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    webhooks: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Entry {
    name: Spanned<String>,
    url: Spanned<String>,
    secret_file: Option<Spanned<PathBuf>>,
    secret_env: Option<Spanned<String>>,
    ca_file: Option<Spanned<PathBuf>>,
    namespaces: Option<Vec<Spanned<String>>>,
    states: Option<Vec<Spanned<String>>>,
}

impl Webhooks {
    /// Reads a file; paths in it are relative to its folder.
    ///
    /// # Errors
    /// See [`WebhooksError`].
    pub(crate) fn read(path: &Path) -> Result<Self, WebhooksError> {
        let text = std::fs::read_to_string(path).map_err(|source| WebhooksError::Read {
            path: path.to_owned(),
            source,
        })?;
        parse(path, &text).map(Self::new)
    }
}

fn parse(path: &Path, text: &str) -> Result<Vec<Target>, WebhooksError> {
    let shape = |problem: String| WebhooksError::Shape {
        path: path.to_owned(),
        problem,
    };
    // Without the lines themselves: a URL may be a secret.
    let file: File = serde_saphyr::from_str(text).map_err(|error| shape(error.without_snippet().to_string()))?;
    if file.webhooks.len() > MOST {
        return Err(shape(format!("it has more than {MOST} webhooks")));
    }
    let mut names = BTreeSet::new();
    let entries = file.webhooks.iter().enumerate();
    entries
        .map(|(index, entry)| {
            let target = target(path, index, entry)?;
            if names.insert(&entry.name.value) {
                return Ok(target);
            }
            Err(wrong(path, index, "name", &entry.name, "is given twice".to_owned()))
        })
        .collect()
}

fn target(path: &Path, index: usize, entry: &Entry) -> Result<Target, WebhooksError> {
    if let Some(fault) = crate::admission::name_fault(&entry.name.value) {
        return Err(wrong(path, index, "name", &entry.name, fault.to_string()));
    }
    let near = |file: &PathBuf| path.parent().unwrap_or(Path::new("")).join(file);
    let ca = entry.ca_file.as_ref().map(|file| near(&file.value));
    let endpoint = Endpoint::parse(&entry.url.value, ca);
    let endpoint = endpoint.map_err(|problem| wrong(path, index, "url", &entry.url, problem.to_owned()))?;
    let secret = match (&entry.secret_file, &entry.secret_env) {
        (Some(file), None) => {
            let secret = Secret::File(near(&file.value));
            let read = secret.read();
            read.map_err(|error| wrong(path, index, "secretFile", file, error.to_string()))?;
            secret
        }
        (None, Some(name)) => {
            let secret = Secret::Env(name.value.clone());
            let read = secret.read();
            read.map_err(|error| wrong(path, index, "secretEnv", name, error.to_string()))?;
            secret
        }
        _ => {
            let problem = "needs either secretFile or secretEnv, which say where its secret is".to_owned();
            return Err(wrong(path, index, "name", &entry.name, problem));
        }
    };
    let mut namespaces = None;
    for name in entry.namespaces.iter().flatten() {
        if let Some(fault) = crate::admission::name_fault(&name.value) {
            return Err(wrong(path, index, "namespaces", name, fault.to_string()));
        }
        namespaces.get_or_insert_with(Vec::new).push(name.value.clone());
    }
    let ends = || RunState::ALL.iter().copied().filter(|state| state.is_terminal());
    let mut states = Vec::new();
    for word in entry.states.iter().flatten() {
        let Some(state) = ends().find(|state| state.as_str() == word.value) else {
            let known = Vec::from_iter(ends().map(|state| state.as_str())).join(", ");
            return Err(wrong(path, index, "states", word, format!("must be of {known}")));
        };
        states.push(state);
    }
    if states.is_empty() {
        states.extend(ends());
    }
    Ok(Target {
        name: entry.name.value.clone(),
        endpoint,
        secret,
        namespaces,
        states,
    })
}

fn wrong<T>(path: &Path, index: usize, field: &str, at: &Spanned<T>, problem: String) -> WebhooksError {
    WebhooksError::Value {
        path: path.to_owned(),
        line: at.referenced.line(),
        field: format!("webhooks[{index}].{field}"),
        problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("secret"), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").expect("written");
        std::fs::write(folder.path().join("short"), "whsec_c2hvcnQ=").expect("written");
        let path = folder.path().join("webhooks.yaml");
        std::fs::write(&path, text).expect("written");
        let error = Webhooks::read(&path).map(|_| ()).expect_err(text).to_string();
        error.replace(&folder.path().display().to_string(), "DIR")
    }

    #[test]
    fn i9_what_a_file_of_webhooks_may_not_say_is_refused_with_its_place() {
        let with = |more: &str| format!("webhooks:\n- name: chat\n  url: https://example.com/hook\n{more}");
        let right = "  secretFile: secret\n";
        for (text, expected) in [
            (
                with(""),
                "line 2: webhooks[0].name: needs either secretFile or secretEnv",
            ),
            (
                with("  secretFile: short\n"),
                "line 4: webhooks[0].secretFile: it is no secret for webhooks",
            ),
            (
                with("  secretFile: none\n"),
                "line 4: webhooks[0].secretFile: DIR/none cannot be read",
            ),
            (
                with(&format!("{right}  states: [FAILED, RUNNING]\n")),
                "line 5: webhooks[0].states: must be of SUCCEEDED, FAILED, CANCELLED",
            ),
            (
                with(&format!("{right}  namespaces: [ML]\n")),
                "line 5: webhooks[0].namespaces:",
            ),
            (with(&format!("{right}  retries: 3\n")), "retries"),
            (
                with(right).replace("https://", "ftp://"),
                "line 3: webhooks[0].url: must begin with https:// or http://",
            ),
            (
                format!("{}{}", with(right), &with(right)["webhooks:\n".len()..]),
                "line 5: webhooks[1].name: is given twice",
            ),
        ] {
            let error = refused(&text);
            assert!(error.contains(expected), "{error}\nis not\n{expected}");
        }
    }
}
