//! The Secrets of runs and schedules: made before these are acknowledged, deleted when nothing can need them any more. Others' are not
//! touched, whatever their names.

use std::future::Future;

use tokio::time::Instant;
use windlass_api::dispatch::v1 as dispatch;
use windlass_api::dispatch::v1::SecretFault as Fault;
use windlass_api::dispatch::v1::{run_secret_call, schedule_secret_call};
use windlass_ids::{RunId, ScheduleId, ScheduleSecretId};
use windlass_manifest::{SecretOf, SecretOwner};

use super::refusal::{fault, refusal};
use super::values::Values;
use super::{Result, Secrets};
use crate::kubernetes::secrets::SecretHead;

/// What is asked for.
enum Action {
    Make(dispatch::RunSecretMake),
    Delete,
}

impl Secrets {
    /// As [`Secrets::answer`].
    pub(crate) async fn answer_run(
        &self,
        call: dispatch::RunSecretCall,
        deadline: Instant,
    ) -> dispatch::RunSecretAnswer {
        let of = RunId::from_slice(&call.run_id).map(SecretOf::Run);
        let owner = self.owner(of, call.run_name, call.namespace);
        let action = call.action.map(|action| match action {
            run_secret_call::Action::Make(make) => Action::Make(make),
            run_secret_call::Action::Delete(_) => Action::Delete,
        });
        dispatch::RunSecretAnswer {
            call: call.call,
            refusal: self.carry_out_for(owner, action, deadline).await.err(),
        }
    }

    /// As [`Secrets::answer`].
    pub(crate) async fn answer_schedule(
        &self,
        call: dispatch::ScheduleSecretCall,
        deadline: Instant,
    ) -> dispatch::ScheduleSecretAnswer {
        let ids = ScheduleId::from_slice(&call.schedule_id).zip(ScheduleSecretId::from_slice(&call.secret_id));
        let of = ids.map(|(schedule, secret)| SecretOf::Schedule { schedule, secret });
        let owner = self.owner(of, call.schedule, call.namespace);
        let action = call.action.map(|action| match action {
            schedule_secret_call::Action::Make(make) => Action::Make(make),
            schedule_secret_call::Action::Delete(_) => Action::Delete,
        });
        dispatch::ScheduleSecretAnswer {
            call: call.call,
            refusal: self.carry_out_for(owner, action, deadline).await.err(),
        }
    }

    fn owner(&self, of: Option<SecretOf>, owner_name: String, namespace: String) -> Option<SecretOwner> {
        Some(SecretOwner {
            of: of?,
            owner_name,
            namespace,
            installation: self.installation,
        })
    }

    async fn carry_out_for(&self, owner: Option<SecretOwner>, action: Option<Action>, deadline: Instant) -> Result<()> {
        let (Some(owner), Some(action)) = (owner, action) else {
            let text = "this executor does not know the call; upgrade it";
            return Err(refusal(Fault::Unreachable, text.to_owned()));
        };
        if self.own_namespace.as_ref() == Some(&owner.namespace) {
            return Err(refusal(Fault::OwnNamespace, String::new()));
        }
        let is_deletion = matches!(action, Action::Delete);
        let carried = async {
            let done = match action {
                Action::Make(make) => self.make(&owner, make).await,
                Action::Delete => self.delete_of(&owner).await,
            };
            let Err(refused) = done else {
                return Ok(());
            };
            match self.explained(&owner.namespace, refused).await {
                // Nothing can be left there.
                refused if is_deletion && refused.fault() == Fault::NamespaceNotFound => Ok(()),
                refused => Err(refused),
            }
        };
        in_time(carried, deadline).await
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
