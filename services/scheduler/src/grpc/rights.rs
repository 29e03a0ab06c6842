//! Whether a caller may have its request carried out: asked once for every request that names a namespace, before anything is looked up.
//!
//! Runs are looked up inside the namespace that was checked and nowhere else, whatever they are named by, so that a request cannot name
//! one namespace and reach into another.

use tonic::{Request, Status};
use windlass_api::cluster::v1::CheckClusterRequest;
use windlass_api::pipeline::v1::{RenderPipelineRequest, ValidatePipelineRequest};
use windlass_api::run::v1 as wire;
use windlass_api::schedule::v1 as schedule;
use windlass_api::secret::v1::{DeleteSecretRequest, ListSecretsRequest, PutSecretRequest};
use windlass_ids::Namespace;
use windlass_service::{ALL_NAMESPACES, Caller, Denied, Visible};

use crate::errors::LookupError;
use crate::lookup::DEFAULT_NAMESPACE;

/// A request about a namespace, or about a run in one.
pub(super) trait Scoped {
    fn namespace(&self) -> &str;
    /// The run that it names. To who may not see the namespace, it is not there.
    fn run(&self) -> Option<&str>;
}

macro_rules! of_runs {
    ($($request:ty),* $(,)?) => {$(
        impl Scoped for $request {
            fn namespace(&self) -> &str {
                &self.namespace
            }

            fn run(&self) -> Option<&str> {
                Some(&self.run)
            }
        }
    )*};
}

macro_rules! of_namespaces {
    ($($request:ty),* $(,)?) => {$(
        impl Scoped for $request {
            fn namespace(&self) -> &str {
                &self.namespace
            }

            fn run(&self) -> Option<&str> {
                None
            }
        }
    )*};
}

of_runs! {
    wire::GetRunRequest,
    wire::ListStepsRequest,
    wire::WatchRunRequest,
    wire::CancelRunRequest,
    wire::RetryRunRequest,
    wire::DeleteRunRequest,
    wire::ConfirmDeadRequest,
    wire::GetRunPipelineRequest,
    wire::ExplainRunRequest,
}

of_namespaces! {
    wire::SubmitRunRequest,
    wire::ListRunsRequest,
    ValidatePipelineRequest,
    RenderPipelineRequest,
    PutSecretRequest,
    ListSecretsRequest,
    DeleteSecretRequest,
    CheckClusterRequest,
    schedule::CreateScheduleRequest,
    schedule::GetScheduleRequest,
    schedule::ListSchedulesRequest,
    schedule::UpdateScheduleRequest,
    schedule::DeleteScheduleRequest,
    schedule::PauseScheduleRequest,
    schedule::ResumeScheduleRequest,
    schedule::TriggerScheduleRequest,
    schedule::GetSchedulePipelineRequest,
    schedule::ExportScheduleRequest,
}

/// The message of a request that its caller may make.
///
/// # Errors
/// PERMISSION_DENIED with the missing role; NOT_FOUND, as for a run that is not there, where the caller sees nothing.
pub(super) fn permitted<T: Scoped>(request: Request<T>) -> Result<T, Status> {
    let caller = caller(&request)?;
    let message = request.get_ref();
    let namespace = match message.namespace() {
        "" => DEFAULT_NAMESPACE,
        namespace => namespace,
    };
    match (caller.check(namespace), message.run()) {
        (Ok(()), _) => Ok(request.into_inner()),
        (Err(Denied::Hidden(_)), Some(run)) => Err(LookupError::UnknownRun {
            namespace: namespace.into(),
            run: run.to_owned(),
        }
        .into()),
        (Err(Denied::Hidden(missing) | Denied::Missing(missing)), _) => Err(missing.into()),
    }
}

/// As [`permitted`], for a list that may be of all namespaces: those among which it may look, all when `None`.
///
/// # Errors
/// As [`permitted`].
pub(super) fn permitted_list<T: Scoped>(request: Request<T>) -> Result<(T, Option<Vec<Namespace>>), Status> {
    if request.get_ref().namespace() != ALL_NAMESPACES {
        return Ok((permitted(request)?, None));
    }
    let among = match caller(&request)?.identity.rights.visible() {
        Visible::All => None,
        Visible::Only(namespaces) => Some(namespaces.iter().map(|name| name.as_str().into()).collect()),
    };
    Ok((request.into_inner(), among))
}

fn caller<T>(request: &Request<T>) -> Result<&Caller, Status> {
    let caller = request.extensions().get();
    caller.ok_or_else(|| Status::permission_denied("the rights of the caller are not known"))
}
