//! One create: the lease first, then the POST, then what its answer means (I2).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use windlass_ids::{AttemptId, InstallationId};
use windlass_manifest::{Attempt, OwnerRef, Run, Settings, pod, pod_name};
use windlass_pipeline::{ResolvedTemplate, StepOverlay};

use super::launcher::Queued;
use crate::attempts::identity::attempt_of;
use crate::attempts::wire::SlimPod;
use crate::connect::Lease;
use crate::kubernetes::refusal::{Verdict, judge};
use crate::kubernetes::{Api, ApiError};

/// What came of a create.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The pod is there, made now or before.
    Exists(Bytes),
    /// The lease is too short for a create: nothing was sent.
    LeaseTooShort,
    /// The API server refuses for the time being.
    Refused {
        /// Why.
        reason: &'static str,
        /// For people.
        message: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
        /// Whether it may still be carried out: no answer said what became of it.
        is_open: bool,
    },
    /// It never can succeed, and a quorum read found no pod.
    Rejected {
        /// Why.
        reason: &'static str,
        /// For people.
        message: String,
    },
}

/// Everything that a create needs.
#[derive(Debug)]
pub(crate) struct Post {
    /// The API server.
    pub(crate) api: Api,
    /// Under which it is done.
    pub(crate) lease: Arc<Lease>,
    /// What the operator decides.
    pub(crate) settings: Arc<Settings>,
    /// The run.
    pub(crate) run: Arc<Run>,
    /// Uid of its owner object.
    pub(crate) owner: String,
    /// The template.
    pub(crate) template: Arc<ResolvedTemplate>,
    /// The launch.
    pub(crate) launch: Queued,
    /// Bound on the POST.
    pub(crate) timeout: Duration,
}

impl Post {
    /// Does it.
    pub(crate) async fn run(&self) -> Outcome {
        let body = match self.manifest() {
            Ok(body) => body,
            Err(message) => {
                return Outcome::Rejected {
                    reason: "InvalidManifest",
                    message,
                };
            }
        };
        if !self.lease.holds_for(self.timeout, Instant::now()) {
            return Outcome::LeaseTooShort;
        }
        match self.api.create_pod(&self.run.namespace, body, self.timeout).await {
            Ok(pod) => Outcome::Exists(pod),
            Err(error) => self.refused(error).await,
        }
    }

    fn manifest(&self) -> Result<Vec<u8>, String> {
        let overlay: StepOverlay = if self.launch.overlay.is_empty() {
            StepOverlay::default()
        } else {
            serde_json::from_slice(&self.launch.overlay).map_err(|error| error.to_string())?
        };
        let spec = self.template.spec(&self.launch.step_name, &overlay);
        let step = windlass_manifest::step(&spec).map_err(|error| error.to_string())?;
        let attempt = Attempt {
            id: self.launch.attempt,
            step_name: &self.launch.step_name,
        };
        let owner = OwnerRef {
            uid: self.owner.clone(),
        };
        let pod = pod(&self.settings, &self.run, &step, attempt, Some(&owner)).map_err(|error| error.to_string())?;
        serde_json::to_vec(&pod).map_err(|error| error.to_string())
    }

    /// Admission runs before storage, so that any refusal may hide a pod that exists: only a quorum read tells.
    async fn refused(&self, error: ApiError) -> Outcome {
        let name = pod_name(&self.run.name, &self.launch.step_name, self.launch.attempt);
        match self.api.get_pod(&self.run.namespace, &name).await {
            Ok(Some(pod)) if is_ours(&pod, self.launch.attempt, self.run.installation) => Outcome::Exists(pod),
            Ok(Some(_)) => Outcome::Rejected {
                reason: "NameTaken",
                message: format!("a pod {name} of somebody else is in the namespace"),
            },
            Ok(None) => verdict(&error),
            // Not even the read works: nothing is known.
            Err(read) => Outcome::Refused {
                reason: "ApiUnavailable",
                message: read.to_string(),
                retry_after: read.retry_after().or(error.retry_after()),
                is_open: error.is_open(),
            },
        }
    }
}

fn verdict(error: &ApiError) -> Outcome {
    match judge(error) {
        Verdict::Wait(reason) => Outcome::Refused {
            reason,
            message: error.to_string(),
            retry_after: error.retry_after(),
            is_open: error.is_open(),
        },
        Verdict::Reject(reason) => Outcome::Rejected {
            reason,
            message: error.to_string(),
        },
    }
}

fn is_ours(pod: &[u8], attempt: AttemptId, installation: InstallationId) -> bool {
    let pod: Result<SlimPod<'_>, _> = serde_json::from_slice(pod);
    pod.is_ok_and(|pod| attempt_of(&pod.metadata.labels, installation) == Some(attempt))
}
