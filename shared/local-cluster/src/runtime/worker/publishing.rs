//! What the API is told.

use super::super::status::{self, PodFailure, Record, Role};
use super::Worker;
use crate::error::ApiError;
use crate::objects::{self, DeleteOptions};
use crate::store::Outcome;

impl Worker {
    /// Writes the status when it changed. `true` when nothing is left to do for this pod.
    pub(super) async fn publish(&mut self) -> bool {
        if self.gone {
            return self.live.is_empty();
        }
        let policy = self.policy();
        let mut phase = status::phase(&self.records, &policy);
        let failure = self.ending.as_ref().and_then(|e| e.failure.clone());
        if !self.live.is_empty() && matches!(phase, "Succeeded" | "Failed") {
            phase = "Running";
        } else if self.ending.is_some() && self.live.is_empty() {
            let clean = failure.is_none() && self.mains().all(|r| r.ended().is_some_and(|e| e.exit_code == 0));
            phase = if clean { "Succeeded" } else { "Failed" };
        }
        let over = matches!(phase, "Succeeded" | "Failed");
        let failure = failure.filter(|_| over);
        let written = self.write_status(phase, failure.as_ref()).await;
        if let Err(error) = written {
            if error.reason == "NotFound" {
                self.gone = true;
                return self.live.is_empty();
            }
            tracing::warn!(%error, pod = self.key.name, "pod status not written");
            return false;
        }
        self.over = over;
        over && self.finish_deletion().await
    }

    pub(super) fn mains(&self) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(|r| r.role == Role::Main)
    }

    pub(super) async fn write_status(&mut self, phase: &str, failure: Option<&PodFailure>) -> Result<(), ApiError> {
        let mut expected = self.pod.clone();
        status::write(&mut expected, &self.records, phase, failure, self.started);
        if self.written.as_ref() == Some(&expected["status"]) && self.pod["status"] == expected["status"] {
            return Ok(());
        }
        let (records, started, uid) = (&self.records, self.started, &self.uid);
        let stored = self.context.store.update(&self.key, |old, pod| {
            if old.uid != *uid {
                return Err(ApiError::not_found(old.key.resource, &old.key.name));
            }
            status::write(pod, records, phase, failure, started);
            Ok(Outcome::Keep)
        });
        self.pod = stored.await?.value();
        self.written = Some(self.pod["status"].clone());
        Ok(())
    }

    /// A pod whose processes have ended may go, once its finalizers let it.
    pub(super) async fn finish_deletion(&self) -> bool {
        if !self.pod["metadata"]["deletionTimestamp"].is_string() {
            return true;
        }
        let options = DeleteOptions {
            grace_seconds: Some(0),
            uid: Some(self.uid.clone()),
            ..DeleteOptions::default()
        };
        match objects::delete(&self.context.store, &self.key, &options).await {
            Ok(_) => true,
            Err(error) if matches!(error.reason, "NotFound" | "Conflict") => true,
            Err(error) => {
                tracing::warn!(%error, pod = self.key.name, "pod not deleted");
                false
            }
        }
    }
}
