//! What the scheduler asks about the cluster, for clients that wait: whether steps can run in a namespace. Nothing is changed by it.

pub mod rights;

use futures::StreamExt as _;
use tokio::time::Instant;
use windlass_api::cluster::v1 as wire;
use windlass_api::cluster::v1::ClusterProblemKind as Problem;
use windlass_api::convert::duration_to_proto;
use windlass_api::dispatch::v1 as dispatch;
use windlass_api::refusal::shorten;

use self::rights::{RIGHTS, Right, Scope};
use crate::kubernetes::checks::NamespaceHead;
use crate::kubernetes::{Api, ApiError};

/// Reviews at a time.
const REVIEWS: usize = 4;
/// Most bytes of the API server's words that are told.
const MAX_TEXT: usize = 1024;

/// Who looks.
#[derive(Clone, Debug)]
pub(crate) struct Checker {
    /// The API server.
    pub(crate) api: Api,
    /// The namespace that this executor lives in.
    pub(crate) own_namespace: Option<String>,
    /// What it holds.
    pub(crate) load: wire::ExecutorLoad,
}

impl Checker {
    /// Looks at the cluster until the deadline; what was not heard by then is not known.
    pub(crate) async fn answer(&self, call: dispatch::ClusterCall, deadline: Instant) -> dispatch::ClusterAnswer {
        let mut check = wire::ClusterCheck {
            namespace: call.namespace.clone(),
            load: Some(self.load),
            ..wire::ClusterCheck::default()
        };
        match self.look(&call.namespace, &mut check, deadline).await {
            Ok(()) => judge(&mut check),
            Err(error) => check.problems.push(problem(Problem::Unreachable, unreachable(&error))),
        }
        if self.own_namespace.as_ref() == Some(&call.namespace) {
            let text = format!(
                "namespace {} is the executor's own, in which no steps run; name another one",
                call.namespace
            );
            check.problems.push(problem(Problem::ExecutorNamespace, text));
        }
        dispatch::ClusterAnswer {
            call: call.call,
            check: Some(check),
        }
    }

    /// Asks what there is to ask.
    ///
    /// # Errors
    /// When the API server does not answer at all.
    async fn look(&self, namespace: &str, check: &mut wire::ClusterCheck, deadline: Instant) -> Result<(), ApiError> {
        let asked = Instant::now();
        check.server_version = match in_time(deadline, self.api.server_version()).await {
            Ok(version) => shorten(&version, MAX_TEXT),
            // It answers, but does not say that to everybody.
            Err(error) if error.code() == Some(403) => String::new(),
            Err(error) => return Err(error),
        };
        check.latency = Some(duration_to_proto(asked.elapsed()));
        let state = match in_time(deadline, self.api.namespace(namespace)).await {
            Ok(Some(NamespaceHead::Active)) => wire::NamespaceState::Active,
            Ok(Some(NamespaceHead::Terminating)) => wire::NamespaceState::Terminating,
            Ok(None) => wire::NamespaceState::Absent,
            Err(_) => wire::NamespaceState::Unspecified,
        };
        check.set_namespace_state(state);
        let reviews = futures::stream::iter(RIGHTS).map(|right| self.review(right, namespace, deadline));
        check.rights = reviews.buffered(REVIEWS).collect().await;
        Ok(())
    }

    async fn review(&self, right: Right, namespace: &str, deadline: Instant) -> wire::RightReview {
        let namespace = match right.scope {
            Scope::Cluster => "",
            Scope::Namespace => namespace,
        };
        let reviewed = in_time(deadline, self.api.may(right.verb, right.resource, namespace)).await;
        let (state, reason) = match reviewed {
            Ok(review) if review.allowed => (wire::RightState::Allowed, review.reason),
            Ok(review) => (wire::RightState::Missing, review.reason),
            Err(error) => (wire::RightState::Unspecified, error.to_string()),
        };
        wire::RightReview {
            verb: right.verb.to_owned(),
            resource: right.resource.to_owned(),
            namespace: namespace.to_owned(),
            purpose: right.purpose.to_owned(),
            optional: right.optional,
            state: state.into(),
            reason: shorten(&reason, MAX_TEXT),
        }
    }
}

async fn in_time<T>(deadline: Instant, asked: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
    let late = |_| Err(ApiError::NoAnswer("not in time".to_owned()));
    tokio::time::timeout_at(deadline, asked).await.unwrap_or_else(late)
}

/// What is wrong with what was seen.
fn judge(check: &mut wire::ClusterCheck) {
    let namespace = &check.namespace;
    let mut problems = Vec::new();
    match check.namespace_state() {
        wire::NamespaceState::Absent => problems.push(problem(
            Problem::NamespaceAbsent,
            format!("the cluster has no namespace {namespace}; create it, or name another one"),
        )),
        wire::NamespaceState::Terminating => problems.push(problem(
            Problem::NamespaceTerminating,
            format!("namespace {namespace} is being deleted: nothing can be created in it"),
        )),
        wire::NamespaceState::Active | wire::NamespaceState::Unspecified => {}
    }
    let needed = |state| {
        let rights = check.rights.iter().filter(|right| !right.optional);
        rights.filter(move |right| right.state() == state)
    };
    let missing: Vec<_> = needed(wire::RightState::Missing).collect();
    if !missing.is_empty() {
        let text = format!(
            "the executor has no right to {}; the chart gives it in the namespaces of `stepNamespaces`",
            names(&missing)
        );
        problems.push(problem(Problem::RightsMissing, text));
    }
    let unknown: Vec<_> = needed(wire::RightState::Unspecified).collect();
    if let Some(one) = unknown.first() {
        let text = format!(
            "the API server does not say whether the executor may {}: {}",
            names(&unknown),
            one.reason
        );
        problems.push(problem(Problem::RightsUnknown, text));
    }
    check.problems.extend(problems);
}

/// Verbs and resources: those of the whole cluster first, then those of the namespace.
fn names(rights: &[&wire::RightReview]) -> String {
    let named = |right: &&wire::RightReview| match right.namespace.as_str() {
        "" => format!("{} {} in the cluster", right.verb, right.resource),
        namespace => format!("{} {} in {namespace}", right.verb, right.resource),
    };
    rights.iter().map(named).collect::<Vec<_>>().join(", ")
}

fn problem(kind: Problem, message: String) -> wire::ClusterProblem {
    wire::ClusterProblem {
        kind: kind.into(),
        message: shorten(&message, 4 * MAX_TEXT),
    }
}

fn unreachable(error: &ApiError) -> String {
    match error.code() {
        Some(401) => format!("the API server does not know the executor; look at its credentials: {error}"),
        Some(_) | None => format!("the API server does not answer the executor: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn right(verb: &str, optional: bool, state: wire::RightState) -> wire::RightReview {
        wire::RightReview {
            verb: verb.to_owned(),
            resource: "pods".to_owned(),
            namespace: "ml".to_owned(),
            optional,
            state: state.into(),
            reason: "no answer".to_owned(),
            ..wire::RightReview::default()
        }
    }

    fn judged(namespace: wire::NamespaceState, rights: Vec<wire::RightReview>) -> Vec<(Problem, String)> {
        let mut check = wire::ClusterCheck {
            namespace: "ml".to_owned(),
            namespace_state: namespace.into(),
            rights,
            ..wire::ClusterCheck::default()
        };
        judge(&mut check);
        let problems = check.problems.into_iter();
        problems.map(|problem| (problem.kind(), problem.message)).collect()
    }

    #[test]
    fn v8_what_is_wrong_is_told_with_every_right_that_runs_need() {
        use wire::NamespaceState::{Absent, Active, Terminating};
        use wire::RightState::{Allowed, Missing, Unspecified};
        let good = vec![right("create", false, Allowed), right("list", true, Missing)];
        assert_eq!(judged(Active, good), [], "a right that runs do without is no problem");
        let found = judged(
            Absent,
            vec![
                right("create", false, Missing),
                right("get", false, Missing),
                right("patch", false, Unspecified),
                right("list", true, Unspecified),
            ],
        );
        let kinds: Vec<_> = found.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(
            kinds,
            [Problem::NamespaceAbsent, Problem::RightsMissing, Problem::RightsUnknown]
        );
        assert!(found[1].1.contains("create pods in ml, get pods in ml;"), "{found:?}");
        assert!(found[2].1.ends_with("may patch pods in ml: no answer"), "{found:?}");
        assert_eq!(judged(Terminating, Vec::new())[0].0, Problem::NamespaceTerminating);
    }

    #[tokio::test]
    async fn a_cluster_that_does_not_answer_is_told_and_so_is_the_executors_own_namespace() {
        let nobody = kube::Config::new("http://127.0.0.1:9".parse().expect("an address"));
        let checker = Checker {
            api: Api::new(kube::Client::try_from(nobody).expect("a client")),
            own_namespace: Some("windlass".to_owned()),
            load: wire::ExecutorLoad::default(),
        };
        let call = dispatch::ClusterCall {
            call: 3,
            namespace: "windlass".to_owned(),
            timeout: None,
        };
        let answer = checker
            .answer(call.clone(), crate::connect::deadline(call.timeout))
            .await;
        let check = answer.check.expect("a check");
        let kinds: Vec<_> = check.problems.iter().map(wire::ClusterProblem::kind).collect();
        assert_eq!(kinds, [Problem::Unreachable, Problem::ExecutorNamespace]);
        assert_eq!((answer.call, check.rights.len()), (3, 0));
    }
}
