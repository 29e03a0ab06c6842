//! Names of attempts and containers, in memory and in storage.

use std::fmt;
use std::path::PathBuf;

use windlass_ids::RunId;

/// One attempt of a step, with the pod that carries it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct AttemptKey {
    pub(crate) run: RunId,
    pub(crate) step: u32,
    pub(crate) attempt: u32,
    pub(crate) pod_uid: String,
}

impl AttemptKey {
    /// `run/step/attempt/pod uid`, safe as a path and as an object name for every input.
    pub(crate) fn folder(&self) -> String {
        format!(
            "{}/{}/{}/{}",
            self.run,
            self.step,
            self.attempt,
            component(&self.pod_uid)
        )
    }
}

impl fmt::Display for AttemptKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.folder())
    }
}

/// One container of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ContainerKey {
    pub(crate) attempt: AttemptKey,
    pub(crate) container: String,
}

impl ContainerKey {
    /// Where its live log lies below the folder of live logs.
    pub(crate) fn live_path(&self) -> PathBuf {
        PathBuf::from(self.attempt.folder()).join(format!("{}.log", component(&self.container)))
    }
}

impl fmt::Display for ContainerKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.attempt, self.container)
    }
}

/// A text as one component of a path: other characters than letters, digits, `-`, `_` and inner `.` become `=XX`.
pub(crate) fn component(text: &str) -> String {
    if text.is_empty() {
        return "=".to_owned();
    }
    let mut safe = String::with_capacity(text.len());
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => safe.push(char::from(byte)),
            b'.' if index > 0 => safe.push('.'),
            other => safe.push_str(&format!("={other:02X}")),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leaves_its_folder() {
        assert_eq!(component("main"), "main");
        assert_eq!(component("../../etc/passwd"), "=2E.=2F..=2Fetc=2Fpasswd");
        assert_eq!(component(".."), "=2E.");
        assert_eq!(component(""), "=");
        assert_ne!(component("a=2F"), component("a/"));
    }
}
