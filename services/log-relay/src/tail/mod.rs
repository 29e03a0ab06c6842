//! TailLogs: merged, resumable log streams for clients.

mod batch;
mod owned;
mod selection;
mod source;
mod stream;
mod wire;

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};
use windlass_api::log::v1::TailLogsRequest;
use windlass_service::{Caller, Denied};

pub(crate) use self::owned::Owned;
use self::selection::Selection;
use self::stream::Reader;
pub(crate) use self::wire::LogEndpoint;
use self::wire::Outgoing;
use crate::error::TailError;
use crate::hub::Hub;
use crate::metrics;

/// The log service.
#[derive(Clone, Debug)]
pub(crate) struct Logs {
    hub: Arc<Hub>,
    readers: Arc<Semaphore>,
    limit: usize,
}

impl Logs {
    /// Serves at most `limit` readers.
    pub(crate) fn new(hub: Arc<Hub>, limit: usize) -> Self {
        let limit = limit.min(Semaphore::MAX_PERMITS);
        Self {
            hub,
            readers: Arc::new(Semaphore::new(limit)),
            limit,
        }
    }
}

impl Logs {
    /// Begins a stream. The scheduler looks the run up in the namespace that is checked here, and nowhere else.
    async fn tail(
        &self,
        caller: Option<Caller>,
        request: TailLogsRequest,
    ) -> Result<ReceiverStream<Result<Outgoing, Status>>, TailError> {
        let selection = Selection::parse(request)?;
        permit(caller.as_ref(), &selection)?;
        if self.hub.shutdown.is_cancelled() {
            return Err(TailError::ShuttingDown);
        }
        let Ok(place) = Arc::clone(&self.readers).try_acquire_owned() else {
            metrics::reader_refused();
            return Err(TailError::TooManyReaders { limit: self.limit });
        };
        // One message waits while the next is made: a stalled reader holds no more than these two.
        let (messages, stream) = mpsc::channel(1);
        let mut reader = Reader::begin(Arc::clone(&self.hub), selection, messages).await?;
        let hub = Arc::clone(&self.hub);
        self.hub.tasks.spawn(async move {
            hub.reader_came();
            reader.run().await;
            reader.leave().await;
            hub.reader_left();
            drop(place);
        });
        Ok(ReceiverStream::new(stream))
    }
}

/// Whether a caller may read a run's logs: to who does not see its namespace, the run is not there.
fn permit(caller: Option<&Caller>, selection: &Selection) -> Result<(), TailError> {
    let unknown = || TailError::RunRefused {
        code: Code::NotFound as u32,
        message: format!("no run {:?} in namespace {}", selection.run, selection.namespace),
    };
    match caller.ok_or_else(unknown)?.check(&selection.namespace) {
        Ok(()) => Ok(()),
        Err(Denied::Hidden(_)) => Err(unknown()),
        Err(Denied::Missing(missing)) => Err(TailError::RoleMissing(missing)),
    }
}
