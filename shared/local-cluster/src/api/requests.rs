//! How many requests came, as an API server tells it: `apiserver_request_total` under `/metrics`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use http::StatusCode;

use super::route::Target;

/// What requests are told apart by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    verb: &'static str,
    resource: &'static str,
    subresource: String,
    code: u16,
}

/// Requests for objects that were answered.
#[derive(Debug, Default)]
pub(super) struct Requests(Mutex<BTreeMap<Kind, u64>>);

impl Requests {
    /// A request was answered, or its connection was cut.
    pub(super) fn count(&self, target: &Target, answered: Option<StatusCode>) {
        let kind = Kind {
            verb: verb(target.verb),
            resource: target.resource.plural,
            subresource: if target.verb == "log" {
                "log".to_owned()
            } else {
                target.subresource.clone()
            },
            code: answered.map_or(0, |code| code.as_u16()),
        };
        *self.lock().entry(kind).or_default() += 1;
    }

    /// In the text format of Prometheus.
    pub(super) fn text(&self) -> String {
        let mut text = String::from("# TYPE apiserver_request_total counter\n");
        for (kind, count) in self.lock().iter() {
            let Kind {
                verb,
                resource,
                subresource,
                code,
            } = kind;
            writeln!(
                text,
                "apiserver_request_total{{code=\"{code}\",resource=\"{resource}\",subresource=\"{subresource}\",verb=\"{verb}\"}} {count}"
            )
            .ok();
        }
        text
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Kind, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A verb as an API server's metrics name it.
fn verb(verb: &'static str) -> &'static str {
    match verb {
        "list" => "LIST",
        "watch" => "WATCH",
        "get" | "log" => "GET",
        "update" => "PUT",
        "patch" => "PATCH",
        "delete" => "DELETE",
        "deletecollection" => "DELETECOLLECTION",
        _ => "POST",
    }
}
