//! How many files a process may have open.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// More are of no use, and some programs that a process starts go through all of them.
const ENOUGH: u64 = 1 << 20;

/// Raises the bound on open files to what the system allows: every followed log and every stream is a connection, and the usual
/// 1,024 are there for programs of old that cannot count further. What is allowed at most stays as it is.
pub fn raise_open_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        let wanted = hard.min(ENOUGH).max(soft);
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).map(|()| wanted)
    });
    match raised {
        Ok(files) => tracing::debug!(files, "open files allowed"),
        Err(error) => tracing::warn!(%error, "open files stay bounded as they are"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i11_as_many_files_may_be_open_as_the_system_allows() {
        raise_open_files();
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("limits");
        assert!(soft >= hard.min(ENOUGH), "{soft} of {hard}");
    }
}
