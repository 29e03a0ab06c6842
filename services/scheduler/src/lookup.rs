//! From what a request names to a namespace and a run.

use std::sync::Arc;

use windlass_ids::Namespace;

use crate::admission::name_fault;
use crate::errors::LookupError;
use crate::history::failed;
use crate::read_model::RunEntry;
use crate::shared::Shared;
use crate::store::{DeletionCause, FoundRun, RunHeader, Store};

/// The namespace of requests that name none.
pub(crate) const DEFAULT_NAMESPACE: &str = "default";
/// Candidates that an ambiguous reference lists.
const MAX_CANDIDATES: usize = 10;

/// The namespace that a request means.
///
/// # Errors
/// When it cannot be the name of a namespace.
pub(crate) fn namespace(text: &str) -> Result<Namespace, LookupError> {
    match text {
        "" => Ok(DEFAULT_NAMESPACE.into()),
        text if name_fault(text).is_none() => Ok(text.into()),
        text => Err(LookupError::BadNamespace(text.to_owned())),
    }
}

/// The header of the run that a request means: an id, a name, a unique prefix of either, or `@latest`.
///
/// # Errors
/// When there is none, or more than one.
pub(crate) async fn header(shared: &Shared, namespace: &Namespace, run: &str) -> Result<RunHeader, LookupError> {
    if run.is_empty() {
        return Err(LookupError::EmptyRun);
    }
    let store = shared.store()?;
    match store
        .find_run(Some(namespace), run)
        .await
        .map_err(|error| failed(&error))?
    {
        FoundRun::One(header) => Ok(header),
        FoundRun::None => Err(missing(store.as_ref(), namespace, run).await),
        FoundRun::Ambiguous(headers) => Err(LookupError::Ambiguous {
            prefix: run.to_owned(),
            candidates: headers
                .into_iter()
                .take(MAX_CANDIDATES)
                .map(|header| header.name.0)
                .collect(),
        }),
    }
}

/// What is said of a run that is not there.
pub(crate) async fn missing(store: &dyn Store, namespace: &Namespace, run: &str) -> LookupError {
    match store.deleted_run(namespace, run).await {
        Ok(Some(gone)) => {
            let (namespace, run, time) = (gone.namespace, gone.name, gone.time);
            match gone.cause {
                DeletionCause::Requested => LookupError::RunDeleted { namespace, run, time },
                DeletionCause::Expired => LookupError::RunExpired { namespace, run, time },
            }
        }
        Ok(None) => LookupError::UnknownRun {
            namespace: namespace.clone(),
            run: run.to_owned(),
        },
        Err(error) => failed(&error),
    }
}

/// The run that a request means, with its steps.
///
/// # Errors
/// As for [`header`], and when its history is kept no longer.
pub(crate) async fn entry(shared: &Shared, namespace: &Namespace, run: &str) -> Result<Arc<RunEntry>, LookupError> {
    let header = header(shared, namespace, run).await?;
    entry_of(shared, &header).await
}

/// The run of a header, with its steps.
///
/// # Errors
/// When its history is kept no longer, or cannot be read.
pub(crate) async fn entry_of(shared: &Shared, header: &RunHeader) -> Result<Arc<RunEntry>, LookupError> {
    match shared.runs.get(header.id) {
        Some(entry) => Ok(entry),
        None => {
            let store = shared.store()?;
            match shared.history.load(store.as_ref(), header).await {
                // It was deleted since its header was read.
                Err(LookupError::UnknownRun { namespace, run }) => Err(missing(store.as_ref(), &namespace, &run).await),
                loaded => loaded,
            }
        }
    }
}
