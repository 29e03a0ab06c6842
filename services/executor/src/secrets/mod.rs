//! What the scheduler asks about Secrets, for clients that wait. Only Secrets of the installation are touched: those of a run or schedule
//! by calls about it, all others by the other calls.

mod owned;
mod refusal;
mod values;

use futures::{StreamExt as _, TryStreamExt as _};
use tokio::time::Instant;
use windlass_api::dispatch::v1 as dispatch;
use windlass_api::dispatch::v1::SecretFault as Fault;
use windlass_api::dispatch::v1::secret_answer::Outcome;
use windlass_api::dispatch::v1::secret_call::CallKind;
use windlass_api::secret::v1::{PutSecretMode, Secret};
use windlass_ids::InstallationId;
use windlass_manifest::{Annotation, Label};

use self::owned::in_time;
use self::refusal::{fault, refusal};
use self::values::Values;
use crate::kubernetes::secrets::{SecretHead, SecretHeads};
use crate::kubernetes::{Api, ApiError};

/// How often an UPSERT looks again when others create or delete the Secret between its look and its write.
const TRIES: usize = 5;
/// Secrets of one list; each may have more than 1 MiB.
const LIST: u32 = 20;
/// Secrets that are looked for at a time.
const LOOKS: usize = 8;
/// Most bytes of the names of keys that are told of one Secret.
const MAX_KEY_BYTES: usize = 8 * 1024;

type Result<T> = std::result::Result<T, dispatch::SecretRefusal>;

/// Who carries calls out.
#[derive(Clone, Debug)]
pub(crate) struct Secrets {
    /// The API server.
    pub(crate) api: Api,
    /// Whose Secrets are touched.
    pub(crate) installation: InstallationId,
    /// The namespace that this executor lives in.
    pub(crate) own_namespace: Option<String>,
}

impl Secrets {
    /// Carries a call out that is waited for until the deadline; what came of it. One whose deadline is over is not begun.
    pub(crate) async fn answer(&self, call: dispatch::SecretCall, deadline: Instant) -> dispatch::SecretAnswer {
        let (number, namespace) = (call.call, call.namespace.clone());
        let carried = async {
            match self.carry_out(call).await {
                Err(refused) => Err(self.explained(&namespace, refused).await),
                done => done,
            }
        };
        let done = in_time(carried, deadline).await;
        dispatch::SecretAnswer {
            call: number,
            outcome: Some(done.unwrap_or_else(Outcome::Refusal)),
        }
    }

    async fn carry_out(&self, call: dispatch::SecretCall) -> Result<Outcome> {
        let namespace = call.namespace;
        if self.own_namespace.as_ref() == Some(&namespace) {
            return Err(refusal(Fault::OwnNamespace, String::new()));
        }
        match call.call_kind {
            Some(CallKind::Put(put)) => self.put(&namespace, &put).await.map(Outcome::Put),
            Some(CallKind::List(list)) => self.list(&namespace, &list).await.map(Outcome::Page),
            Some(CallKind::Delete(delete)) => self.delete(&namespace, &delete.name).await.map(Outcome::Deleted),
            Some(CallKind::Lookup(lookup)) => self.look_up(&namespace, lookup).await.map(Outcome::Looked),
            None => Err(refusal(
                Fault::Unreachable,
                "this executor does not know the call; upgrade it".to_owned(),
            )),
        }
    }

    /// Where a right is missing it may be the namespace that is not there: rights are given in those that are.
    async fn explained(&self, namespace: &str, refused: dispatch::SecretRefusal) -> dispatch::SecretRefusal {
        let is_missing = refused.fault() == Fault::RightMissing;
        if is_missing && matches!(self.api.namespace(namespace).await, Ok(None)) {
            return refusal(Fault::NamespaceNotFound, String::new());
        }
        refused
    }

    async fn put(&self, namespace: &str, put: &dispatch::SecretPut) -> Result<dispatch::SecretPutDone> {
        match put.mode() {
            PutSecretMode::Create => match self.create(namespace, put).await? {
                Made::New(head) => Ok(done(&head, true)),
                Made::Before => self.made_before(namespace, put).await,
            },
            PutSecretMode::Update => {
                let head = self.ours(namespace, &put.name).await?;
                let head = head.ok_or_else(|| refusal(Fault::NotFound, String::new()))?;
                self.change(namespace, put, &head).await
            }
            PutSecretMode::Upsert | PutSecretMode::Unspecified => self.upsert(namespace, put).await,
        }
    }

    /// A look decides between a create and a change; when others are quicker than we, the next look sees what they did.
    async fn upsert(&self, namespace: &str, put: &dispatch::SecretPut) -> Result<dispatch::SecretPutDone> {
        let mut changed = refusal(Fault::Changed, String::new());
        for _ in 0..TRIES {
            match self.ours(namespace, &put.name).await? {
                None => {
                    if let Made::New(head) = self.create(namespace, put).await? {
                        return Ok(done(&head, true));
                    }
                }
                Some(head) => match self.change(namespace, put, &head).await {
                    Err(again) if matches!(again.fault(), Fault::NotFound | Fault::Changed) => changed = again,
                    finished => return finished,
                },
            }
        }
        changed.set_fault(Fault::Changed);
        Err(changed)
    }

    async fn create(&self, namespace: &str, put: &dispatch::SecretPut) -> Result<Made> {
        let created = self
            .api
            .create_secret(namespace, &put.name, self.installation, &put.request_id, &put.data);
        let error = match created.await {
            Ok(head) => return Ok(Made::New(head)),
            Err(error) => error,
        };
        let refused = fault(&error, &Values::of(&put.data));
        match refused.fault() {
            Fault::Exists => Ok(Made::Before),
            // Admission runs before storage: a full quota hides that it is there already.
            Fault::Quota | Fault::Denied if matches!(self.look(namespace, &put.name).await, Ok(Some(_))) => {
                Ok(Made::Before)
            }
            _ => Err(refused),
        }
    }

    /// One that is there already is success when the same request has made it.
    async fn made_before(&self, namespace: &str, put: &dispatch::SecretPut) -> Result<dispatch::SecretPutDone> {
        let exists = || refusal(Fault::Exists, String::new());
        let head = self.look(namespace, &put.name).await?.ok_or_else(exists)?;
        let made_by = head.metadata.annotations.get(Annotation::REQUEST_ID);
        if put.request_id.is_empty() || made_by != Some(&put.request_id) || !self.is_ours(&head) {
            return Err(exists());
        }
        let keys: Vec<_> = put.data.keys().map(String::as_str).collect();
        Ok(dispatch::SecretPutDone {
            secret: Some(described(&head, keys.into_iter())),
            created: true,
        })
    }

    async fn change(
        &self,
        namespace: &str,
        put: &dispatch::SecretPut,
        head: &SecretHead,
    ) -> Result<dispatch::SecretPutDone> {
        let uid = &head.metadata.uid;
        let changed = self
            .api
            .change_secret(namespace, &put.name, uid, &put.data, &put.remove_keys);
        match changed.await {
            Ok(head) => Ok(done(&head, false)),
            Err(error) => Err(fault(&error, &Values::of(&put.data))),
        }
    }

    async fn delete(&self, namespace: &str, name: &str) -> Result<dispatch::SecretDeleted> {
        let head = self.ours(namespace, name).await?;
        let head = head.ok_or_else(|| refusal(Fault::NotFound, String::new()))?;
        let deleted = self.api.delete_secret(namespace, name, &head.metadata.uid).await;
        deleted.map_err(|error| fault(&error, &Values::none()))?;
        Ok(dispatch::SecretDeleted {})
    }

    async fn list(&self, namespace: &str, list: &dispatch::SecretList) -> Result<dispatch::SecretPage> {
        let mut page = dispatch::SecretPage {
            secrets: Vec::new(),
            continue_token: list.continue_token.clone(),
        };
        loop {
            let wanted = (list.page_size as usize).saturating_sub(page.secrets.len());
            let limit = u32::try_from(wanted).unwrap_or(LIST).clamp(1, LIST);
            let found = self
                .api
                .list_secrets(namespace, self.installation, limit, &page.continue_token);
            let found: SecretHeads = found.await.map_err(|error| match fault(&error, &Values::none()) {
                // Nothing else of it can be wrong.
                refused if refused.fault() == Fault::Invalid => refusal(Fault::Expired, String::new()),
                refused => refused,
            })?;
            let secrets = found.items.iter().map(|head| described(head, head.keys()));
            page.secrets.extend(secrets);
            page.continue_token = found.next();
            if page.continue_token.is_empty() || page.secrets.len() >= list.page_size as usize {
                return Ok(page);
            }
        }
    }

    /// Whether Secrets and their keys are there, whoever has made them.
    async fn look_up(&self, namespace: &str, lookup: dispatch::SecretLookup) -> Result<dispatch::SecretLooked> {
        let looks = lookup.secrets.into_iter().map(async |wanted| {
            let found = self.api.secret_with_keys(namespace, &wanted.name).await;
            let found = match found.map_err(|error| fault(&error, &Values::none())) {
                Err(refused) => match self.explained(namespace, refused).await {
                    nothing if nothing.fault() == Fault::NamespaceNotFound => None,
                    refused => return Err(refused),
                },
                Ok(found) => found,
            };
            Ok(self.seen(wanted, found.as_ref()))
        });
        let looks = futures::stream::iter(looks).buffered(LOOKS);
        let secrets = looks.try_collect().await?;
        Ok(dispatch::SecretLooked { secrets })
    }

    fn seen(&self, wanted: dispatch::SecretWanted, found: Option<&SecretHead>) -> dispatch::SecretSeen {
        let has = |key: &String| found.is_some_and(|head| head.keys().any(|known| known == key));
        let missing_keys: Vec<_> = wanted.keys.into_iter().filter(|key| !has(key)).collect();
        let lacking = found.filter(|_| !missing_keys.is_empty());
        let lacking = lacking.map(|head| described(head, head.keys()));
        dispatch::SecretSeen {
            name: wanted.name,
            found: found.is_some(),
            managed: found.is_some_and(|head| self.is_ours(head)),
            missing_keys,
            keys: lacking.map(|secret| secret.keys).unwrap_or_default(),
        }
    }

    /// The Secret, when it is there and ours.
    async fn ours(&self, namespace: &str, name: &str) -> Result<Option<SecretHead>> {
        match self.look(namespace, name).await? {
            Some(head) if !self.is_ours(&head) => Err(refusal(Fault::NotManaged, String::new())),
            found => Ok(found),
        }
    }

    async fn look(&self, namespace: &str, name: &str) -> Result<Option<SecretHead>> {
        let found: std::result::Result<_, ApiError> = self.api.secret_head(namespace, name).await;
        found.map_err(|error| fault(&error, &Values::none()))
    }

    /// Whether this installation has made it, for no run and no schedule.
    fn is_ours(&self, head: &SecretHead) -> bool {
        let labels = &head.metadata.labels;
        let is_owned = [Label::RUN_ID, Label::SECRET_ID]
            .iter()
            .any(|label| labels.contains_key(*label));
        labels.get(Label::INSTALLATION) == Some(&self.installation.to_string()) && !is_owned
    }
}

/// What came of a create.
#[derive(Debug)]
enum Made {
    New(SecretHead),
    /// One of this name was there.
    Before,
}

fn done(head: &SecretHead, created: bool) -> dispatch::SecretPutDone {
    dispatch::SecretPutDone {
        secret: Some(described(head, head.keys())),
        created,
    }
}

fn described<'a>(head: &SecretHead, keys: impl ExactSizeIterator<Item = &'a str>) -> Secret {
    let (count, mut room) = (keys.len(), MAX_KEY_BYTES);
    let told = keys.take_while(|key| {
        let fits = key.len() <= room;
        room = room.saturating_sub(key.len());
        fits
    });
    let time: Option<jiff::Timestamp> = head.metadata.creation_timestamp.parse().ok();
    Secret {
        name: head.metadata.name.clone(),
        keys: told.map(str::to_owned).collect(),
        key_count: u32::try_from(count).unwrap_or(u32::MAX),
        create_time: time.map(|time| prost_types::Timestamp {
            seconds: time.as_second(),
            nanos: 0,
        }),
        ..Secret::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_whose_deadline_is_over_is_not_begun() {
        let nobody = kube::Config::new("http://127.0.0.1:9".parse().expect("an address"));
        let secrets = Secrets {
            api: Api::new(kube::Client::try_from(nobody).expect("a client")),
            installation: InstallationId::from_bytes([1; 16]),
            own_namespace: Some("windlass".to_owned()),
        };
        let call = || dispatch::SecretCall {
            call: 3,
            namespace: "windlass".to_owned(),
            ..dispatch::SecretCall::default()
        };
        let fault = |answer: dispatch::SecretAnswer| match answer.outcome {
            Some(Outcome::Refusal(refusal)) => refusal.fault(),
            other => panic!("not refused: {other:?}"),
        };
        let answer = secrets.answer(call(), Instant::now()).await;
        assert_eq!((answer.call, fault(answer)), (3, Fault::Unreachable));
        let answer = secrets.answer(call(), crate::connect::deadline(None)).await;
        assert_eq!(fault(answer), Fault::OwnNamespace, "this one is looked at");
    }

    #[test]
    fn i11_the_keys_that_are_told_are_bounded_and_counted() {
        let keys: Vec<String> = (0..100).map(|index| format!("{index:0>200}")).collect();
        let secret = described(&SecretHead::default(), keys.iter().map(String::as_str));
        assert_eq!((secret.keys.len(), secret.key_count), (MAX_KEY_BYTES / 200, 100));
    }
}
