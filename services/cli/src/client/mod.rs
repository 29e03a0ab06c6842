//! The connection to a server: which one, as whom, and what happens when it does not answer.

mod call;
mod position;
mod session;
mod tail;
mod target;
mod watch;

pub use call::Patience;
pub(crate) use call::retrying;
pub use position::{Cursor, SourceKey};
pub use session::Session;
pub use tail::{Tail, TailItem, TailOptions};
pub(crate) use target::settings;
pub use target::{data_dir, display_path};
pub use watch::{Watch, WatchItem};

/// A task that ends with its owner.
#[derive(Debug)]
pub(crate) struct OwnedTask(tokio::task::JoinHandle<()>);

impl OwnedTask {
    pub(crate) fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(future))
    }
}

impl Drop for OwnedTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}
