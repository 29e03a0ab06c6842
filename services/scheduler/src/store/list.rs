//! Lists of runs: filters, pages and their tokens.

use sha2::{Digest, Sha256};
use windlass_ids::{Namespace, RunId, Timestamp};
use windlass_scheduling::RunState;

use super::RunHeader;

/// Most runs on a page.
pub const MAX_PAGE: usize = 500;

/// Which runs to list. All terms must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunFilter {
    /// In this namespace; in all when `None`.
    pub namespace: Option<Namespace>,
    /// In one of these namespaces; in any when `None`. It limits what a caller sees, and is no part of what page tokens are bound to.
    pub among: Option<Vec<Namespace>>,
    /// In one of these states; in any when empty.
    pub states: Vec<RunState>,
    /// Of this pipeline.
    pub pipeline: Option<String>,
    /// Submitted by.
    pub submitted_by: Option<String>,
    /// With all of these labels.
    pub labels: Vec<(String, String)>,
    /// With this name.
    pub name: Option<NamePattern>,
    /// That ended before this time.
    pub ended_before: Option<Timestamp>,
}

/// A term on the name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamePattern {
    /// Exactly this name.
    Exact(String),
    /// Names that begin with this (`churn-*`).
    Prefix(String),
}

/// One page of runs, newest first.
#[derive(Clone, Debug, PartialEq)]
pub struct RunPage {
    /// The runs.
    pub runs: Vec<RunHeader>,
    /// Where the next page begins; `None` on the last one.
    pub next: Option<PageToken>,
}

/// Where a page begins; opaque to clients and bound to its filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageToken {
    filter: [u8; 8],
    before: RunId,
}

/// A text that is not a page token, or one of another filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageTokenError {
    /// Not a token of this server.
    #[error("is not a page token of this server")]
    Malformed,
    /// Made for another filter.
    #[error("belongs to a list with another filter")]
    OtherFilter,
}

const VERSION: u8 = 1;

impl PageToken {
    pub(crate) fn new(filter: &RunFilter, before: RunId) -> Self {
        Self {
            filter: filter.fingerprint(),
            before,
        }
    }

    /// The run that the page begins after.
    pub(crate) fn before(&self) -> RunId {
        self.before
    }

    /// As clients see it.
    pub fn encode(&self) -> String {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.filter);
        bytes.extend_from_slice(self.before.as_bytes());
        hex::encode(bytes)
    }

    /// Reads a client's text and checks that it was made for `filter`.
    pub fn decode(text: &str, filter: &RunFilter) -> Result<Self, PageTokenError> {
        let bytes = hex::decode(text).map_err(|_| PageTokenError::Malformed)?;
        let (VERSION, rest) = bytes
            .split_first()
            .map(|(v, rest)| (*v, rest))
            .ok_or(PageTokenError::Malformed)?
        else {
            return Err(PageTokenError::Malformed);
        };
        let (fingerprint, id) = rest.split_first_chunk::<8>().ok_or(PageTokenError::Malformed)?;
        let before = RunId::from_slice(id).ok_or(PageTokenError::Malformed)?;
        if *fingerprint != filter.fingerprint() {
            return Err(PageTokenError::OtherFilter);
        }
        Ok(Self {
            filter: *fingerprint,
            before,
        })
    }
}

impl RunFilter {
    /// The order of terms does not matter.
    fn fingerprint(&self) -> [u8; 8] {
        let mut terms = Vec::new();
        let mut term = |key: &str, value: &str| terms.push(format!("{}:{key}{}:{value}", key.len(), value.len()));
        if let Some(namespace) = &self.namespace {
            term("namespace", namespace.as_str());
        }
        for state in &self.states {
            term("state", &format!("{state:?}"));
        }
        if let Some(pipeline) = &self.pipeline {
            term("pipeline", pipeline);
        }
        if let Some(submitted_by) = &self.submitted_by {
            term("submittedBy", submitted_by);
        }
        for (key, value) in &self.labels {
            term(&format!("label.{key}"), value);
        }
        match &self.name {
            None => {}
            Some(NamePattern::Exact(name)) => term("name", name),
            Some(NamePattern::Prefix(prefix)) => term("name*", prefix),
        }
        if let Some(time) = self.ended_before {
            term("endedBefore", &time.as_millis().to_string());
        }
        terms.sort();
        let digest = Sha256::digest(terms.concat().as_bytes());
        std::array::from_fn(|index| digest[index])
    }
}

/// What a client's `run` field stands for.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "made once a request and taken apart at once")]
pub enum FoundRun {
    /// This run.
    One(RunHeader),
    /// No run.
    None,
    /// The prefix fits several; the first of them, newest first.
    Ambiguous(Vec<RunHeader>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_belongs_to_its_filter() {
        let filter = RunFilter {
            pipeline: Some("churn".to_owned()),
            labels: vec![("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())],
            ..RunFilter::default()
        };
        let token = PageToken::new(&filter, RunId::from_bytes([7; 16]));
        assert_eq!(PageToken::decode(&token.encode(), &filter), Ok(token.clone()));
        let reordered = RunFilter {
            labels: filter.labels.iter().rev().cloned().collect(),
            ..filter.clone()
        };
        assert_eq!(PageToken::decode(&token.encode(), &reordered), Ok(token.clone()));
        assert_eq!(
            PageToken::decode(&token.encode(), &RunFilter::default()),
            Err(PageTokenError::OtherFilter)
        );
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for text in [
            "",
            "zz",
            "01",
            "02000000000000000000000000000000000000000000000000",
            "01ff",
        ] {
            assert_eq!(
                PageToken::decode(text, &RunFilter::default()),
                Err(PageTokenError::Malformed),
                "{text:?}"
            );
        }
    }
}
