//! The Secret of a run: made before the run is queued, deleted when it has ended. Others' are not touched, whatever their names.

use std::future::Future;

use tokio::time::Instant;
use windlass_api::dispatch::v1 as dispatch;
use windlass_api::dispatch::v1::SecretFault as Fault;
use windlass_api::dispatch::v1::run_secret_call::Action;
use windlass_ids::RunId;
use windlass_manifest::SecretOwner;

use super::refusal::{fault, refusal};
use super::values::Values;
use super::{Result, Secrets};
use crate::kubernetes::secrets::SecretHead;

impl Secrets {
    /// As [`Secrets::answer`].
    pub(crate) async fn answer_run(
        &self,
        call: dispatch::RunSecretCall,
        deadline: Instant,
    ) -> dispatch::RunSecretAnswer {
        let (number, namespace) = (call.call, call.namespace.clone());
        let is_deletion = matches!(call.action, Some(Action::Delete(_)));
        let carried = async {
            let Err(refused) = self.carry_out_of_run(call).await else {
                return Ok(());
            };
            match self.explained(&namespace, refused).await {
                // Nothing can be left there.
                refused if is_deletion && refused.fault() == Fault::NamespaceNotFound => Ok(()),
                refused => Err(refused),
            }
        };
        let done = in_time(carried, deadline).await;
        dispatch::RunSecretAnswer {
            call: number,
            refusal: done.err(),
        }
    }

    async fn carry_out_of_run(&self, call: dispatch::RunSecretCall) -> Result<()> {
        if self.own_namespace.as_ref() == Some(&call.namespace) {
            return Err(refusal(Fault::OwnNamespace, String::new()));
        }
        let Some(run) = RunId::from_slice(&call.run_id) else {
            return Err(refusal(Fault::Unreachable, "the call names no run".to_owned()));
        };
        let owner = SecretOwner {
            run,
            run_name: call.run_name,
            namespace: call.namespace,
            installation: self.installation,
        };
        match call.action {
            Some(Action::Make(make)) => self.make(&owner, make).await,
            Some(Action::Delete(_)) => self.delete_of(&owner).await,
            None => Err(refusal(
                Fault::Unreachable,
                "this executor does not know the call; upgrade it".to_owned(),
            )),
        }
    }

    async fn make(&self, owner: &SecretOwner, make: dispatch::RunSecretMake) -> Result<()> {
        let secret = owner.secret(make.data.clone());
        let Err(error) = self.api.post_secret(&owner.namespace, &secret).await else {
            return Ok(());
        };
        let refused = fault(&error, &Values::of(&make.data));
        match refused.fault() {
            // Admission runs before storage: a full quota hides that it is there already.
            Fault::Exists | Fault::Quota | Fault::Denied => match self.look_for(owner).await? {
                Some(head) if owner.is_of(&head.metadata.labels) => Ok(()),
                Some(_) => Err(refusal(Fault::NotManaged, String::new())),
                None => Err(refused),
            },
            _ => Err(refused),
        }
    }

    async fn delete_of(&self, owner: &SecretOwner) -> Result<()> {
        let Some(head) = self.look_for(owner).await? else {
            return Ok(());
        };
        if !owner.is_of(&head.metadata.labels) {
            return Ok(());
        }
        let uid = &head.metadata.uid;
        let deleted = self.api.delete_secret(&owner.namespace, &owner.name(), uid).await;
        match deleted.map_err(|error| fault(&error, &Values::none())) {
            Err(refused) if refused.fault() != Fault::NotFound => Err(refused),
            _ => Ok(()),
        }
    }

    /// Nothing, too, where the namespace is gone.
    async fn look_for(&self, owner: &SecretOwner) -> Result<Option<SecretHead>> {
        self.look(&owner.namespace, &owner.name()).await
    }
}

/// What came of something that is waited for until the deadline; it is not begun when that is over.
pub(super) async fn in_time<T>(work: impl Future<Output = Result<T>>, deadline: Instant) -> Result<T> {
    let late = || Err(refusal(Fault::Unreachable, "not done in time".to_owned()));
    let done = match Instant::now() < deadline {
        true => tokio::time::timeout_at(deadline, work).await,
        false => return late(),
    };
    done.unwrap_or_else(|_| late()).inspect_err(
        |refusal| tracing::debug!(fault = ?refusal.fault(), right = refusal.right, "call about a secret refused"),
    )
}
