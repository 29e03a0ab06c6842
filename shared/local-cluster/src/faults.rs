//! Faults that tests ask for: what a network, an overloaded API server or a failing node does to its clients.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::error::ApiError;

/// A fault that requests meet: which requests, after how many, how often.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// `get list watch create update patch delete deletecollection log`; every verb when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verb: Option<String>,
    /// Plural of the kind, such as `pods`; every kind when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// Part of the object's name; every name when absent. A create with a generated name never matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name_contains: Option<String>,
    /// How many matching requests pass before the fault begins.
    #[serde(default)]
    pub skip: u32,
    /// How many requests it then meets; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// What happens to them.
    pub action: Action,
}

/// What a fault does to a request.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Action {
    /// The request is carried out and the connection cut instead of an answer.
    LoseReply,
    /// The request is carried out at once and answered later.
    #[serde(rename_all = "camelCase")]
    LateReply {
        /// By how much.
        milliseconds: u64,
    },
    /// The connection is cut before anything is done.
    Cut,
    /// The request is carried out later.
    #[serde(rename_all = "camelCase")]
    Delay {
        /// By how much.
        milliseconds: u64,
    },
    /// 429.
    #[serde(rename_all = "camelCase")]
    TooManyRequests {
        /// `Retry-After`.
        retry_after_seconds: u32,
    },
    /// Any other refusal, such as 500 `InternalError` or 403 `Forbidden`.
    Refuse {
        /// HTTP status.
        code: u16,
        /// Reason in the `Status`.
        reason: RefusalReason,
        /// Text in the `Status`.
        message: String,
    },
    /// A list or watch gets 410.
    Expire,
}

/// Reasons that a refusal can carry.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[allow(missing_docs, reason = "these are Kubernetes' own names")]
pub enum RefusalReason {
    InternalError,
    Forbidden,
    Conflict,
    Invalid,
    BadRequest,
    NotFound,
    Timeout,
    ServerTimeout,
    ServiceUnavailable,
    Unauthorized,
}

/// An image that cannot be pulled.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BadImage {
    /// Part of the image's name.
    pub contains: String,
    /// The error text, as a registry would give it.
    #[serde(default = "default_pull_error")]
    pub message: String,
}

fn default_pull_error() -> String {
    "failed to resolve reference: not found".to_owned()
}

/// The faults that are set at start or through the control endpoint.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct FaultConfig {
    /// Faults of requests.
    pub rules: Vec<Rule>,
    /// Images whose pods stay in `ErrImagePull` and `ImagePullBackOff`.
    pub bad_images: Vec<BadImage>,
}

/// What becomes of a request.
#[derive(Debug, Default)]
pub struct Verdict {
    /// It is carried out so much later, also for a client that gives up meanwhile.
    pub delay: Option<Duration>,
    /// It is refused.
    pub refuse: Option<ApiError>,
    /// The connection is cut before anything is done.
    pub cut: bool,
    /// It is carried out, and the connection is cut instead of an answer.
    pub lose_reply: bool,
    /// It is carried out, and answered so much later.
    pub late_reply: Option<Duration>,
}

/// Control over the faults of a running cluster; cheap to clone.
#[derive(Debug, Clone)]
pub struct Faults(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    config: Mutex<FaultConfig>,
    watches: watch::Sender<u64>,
    changed: watch::Sender<u64>,
}

impl Faults {
    /// Faults for whoever asks [`Faults::judge`]: a local cluster has its own, a proxy in front of a real one may have these.
    pub fn new(config: FaultConfig) -> Self {
        Self(Arc::new(Shared {
            config: Mutex::new(config),
            watches: watch::Sender::new(0),
            changed: watch::Sender::new(0),
        }))
    }

    /// Replaces all faults.
    pub fn set(&self, config: FaultConfig) {
        *self.lock() = config;
        self.0.changed.send_modify(|n| *n += 1);
    }

    /// Adds a fault of requests.
    pub fn add(&self, rule: Rule) {
        self.lock().rules.push(rule);
    }

    /// Adds an image that cannot be pulled.
    pub fn add_bad_image(&self, image: BadImage) {
        self.lock().bad_images.push(image);
        self.0.changed.send_modify(|n| *n += 1);
    }

    /// What is set, with the counts that are left.
    pub fn current(&self) -> FaultConfig {
        self.lock().clone()
    }

    /// Cuts every open watch, in the middle of its stream.
    pub fn break_watches(&self) {
        self.0.watches.send_modify(|n| *n += 1);
    }

    /// Changes with every [`Faults::break_watches`].
    pub fn watch_breaks(&self) -> watch::Receiver<u64> {
        self.0.watches.subscribe()
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// The error text for an image that cannot be pulled.
    pub(crate) fn pull_error(&self, image: &str) -> Option<String> {
        let config = self.lock();
        let bad = config.bad_images.iter().find(|b| image.contains(&b.contains))?;
        Some(bad.message.clone())
    }

    /// What becomes of a request with this verb (see [`Rule::verb`]), plural of a kind, and name.
    pub fn judge(&self, verb: &str, resource: &str, name: &str) -> Verdict {
        let mut verdict = Verdict::default();
        let mut config = self.lock();
        for rule in &mut config.rules {
            if rule.takes(verb, resource, name) {
                rule.action.apply(&mut verdict);
            }
        }
        config.rules.retain(|rule| rule.count != Some(0));
        verdict
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, FaultConfig> {
        self.0.config.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rule {
    /// A fault for every request; narrow it with the fields.
    pub fn new(action: Action) -> Self {
        Self {
            verb: None,
            resource: None,
            name_contains: None,
            skip: 0,
            count: None,
            action,
        }
    }

    fn takes(&mut self, verb: &str, resource: &str, name: &str) -> bool {
        let fits = self.verb.as_deref().is_none_or(|v| v == verb)
            && self.resource.as_deref().is_none_or(|r| r == resource)
            && self.name_contains.as_deref().is_none_or(|n| name.contains(n));
        if !fits {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        match &mut self.count {
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
            None => true,
        }
    }
}

impl Action {
    fn apply(&self, verdict: &mut Verdict) {
        match self {
            Self::LoseReply => verdict.lose_reply = true,
            Self::LateReply { milliseconds } => verdict.late_reply = Some(Duration::from_millis(*milliseconds)),
            Self::Cut => verdict.cut = true,
            Self::Delay { milliseconds } => {
                let delay = verdict.delay.unwrap_or_default() + Duration::from_millis(*milliseconds);
                verdict.delay = Some(delay);
            }
            Self::TooManyRequests { retry_after_seconds } => {
                verdict.refuse = Some(ApiError::too_many_requests(*retry_after_seconds));
            }
            Self::Refuse { code, reason, message } => {
                let code = StatusCode::from_u16(*code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                verdict.refuse = Some(ApiError::new(code, reason.text(), message.clone()));
            }
            Self::Expire => {
                verdict.refuse = Some(ApiError::expired(
                    "The resourceVersion for the provided watch is too old.",
                ));
            }
        }
    }
}

impl RefusalReason {
    fn text(self) -> &'static str {
        match self {
            Self::InternalError => "InternalError",
            Self::Forbidden => "Forbidden",
            Self::Conflict => "Conflict",
            Self::Invalid => "Invalid",
            Self::BadRequest => "BadRequest",
            Self::NotFound => "NotFound",
            Self::Timeout => "Timeout",
            Self::ServerTimeout => "ServerTimeout",
            Self::ServiceUnavailable => "ServiceUnavailable",
            Self::Unauthorized => "Unauthorized",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_skips_counts_and_goes() {
        let faults = Faults::new(FaultConfig::default());
        faults.add(Rule {
            verb: Some("create".into()),
            resource: Some("pods".into()),
            skip: 1,
            count: Some(1),
            ..Rule::new(Action::LoseReply)
        });
        let lost = |verb: &str| faults.judge(verb, "pods", "a").lose_reply;
        assert!(!lost("get"));
        assert!(!lost("create"), "the first passes");
        assert!(lost("create"), "the second is lost");
        assert!(!lost("create"), "the third passes");
        assert!(faults.current().rules.is_empty());
    }

    #[test]
    fn the_file_form_reads() {
        let text = r#"{"rules": [{"verb": "list", "count": 2, "action": {"tooManyRequests": {"retryAfterSeconds": 1}}},
                                 {"action": "loseReply"}],
                       "badImages": [{"contains": "broken"}]}"#;
        let config: FaultConfig = serde_json::from_str(text).expect("reads");
        let faults = Faults::new(config);
        assert_eq!(
            faults.pull_error("x/broken:1").as_deref(),
            Some("failed to resolve reference: not found")
        );
        assert_eq!(faults.judge("list", "nodes", "").refuse.expect("refused").code, 429);
    }
}
