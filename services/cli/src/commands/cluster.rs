//! `windlass cluster`.

use std::time::Duration;

use windlass_api::cluster::v1::{
    ApiServerSight, CheckClusterRequest, ClusterCheck, ListClustersRequest, NamespaceState, RightReview, RightState,
};
use windlass_ids::Timestamp;

use crate::args::{ClusterArgs, ClusterCheckArgs, ClusterCommand, ClusterListArgs, Format, GlobalArgs};
use crate::client::{Patience, Session, retrying};
use crate::errors::{CliError, Exit, Result};
use crate::output::{self, Table, age, duration, millis, to_json};

pub(super) async fn run(global: &GlobalArgs, args: &ClusterArgs) -> Result<Exit> {
    match &args.command {
        ClusterCommand::List(args) => super::with_session(global, async |session| list(session, args).await).await,
        ClusterCommand::Check(args) => super::with_session(global, async |session| check(session, args).await).await,
        ClusterCommand::CreateServiceAccount(args) => super::service_account::create(global, args).await,
        ClusterCommand::DeleteServiceAccount(args) => super::service_account::delete(global, args).await,
        ClusterCommand::Purge(args) => super::purge::run(global, args).await,
    }
}

async fn list(session: &Session, args: &ClusterListArgs) -> Result<Exit> {
    let listed = retrying(session.address(), Patience::SHORT, || {
        let mut client = session.clusters();
        async move { client.list_clusters(ListClustersRequest {}).await }
    })
    .await?;
    let now = session.clock.now();
    output::data(args.output.output, &to_json(&listed), || {
        if listed.clusters.is_empty() {
            return String::new();
        }
        let mut table = Table::new(&[
            "CLUSTER",
            "EXECUTOR",
            "VERSION",
            "CONNECTED",
            "SHARDS",
            "CREDIT",
            "SIGHT",
        ]);
        for cluster in &listed.clusters {
            let alias = match cluster.local {
                true => format!("{} (local)", cluster.alias),
                false => cluster.alias.clone(),
            };
            for executor in &cluster.executors {
                table.row([
                    alias.clone(),
                    executor.name.clone(),
                    executor.version.clone(),
                    age(now.since(executor.connect_time.map_or(now, millis))),
                    format!("{}/256", executor.leased_shards),
                    executor.credit.to_string(),
                    sight(executor.sight.as_ref(), now),
                ]);
            }
        }
        table.render()
    })?;
    if listed.clusters.is_empty() && args.output.output == Format::Table {
        output::note("no executor is connected: nothing can run");
    }
    Ok(Exit::Succeeded)
}

async fn check(session: &Session, args: &ClusterCheckArgs) -> Result<Exit> {
    let request = CheckClusterRequest {
        namespace: session.namespace.clone(),
        cluster: args.alias.clone().unwrap_or_default(),
    };
    let checked = retrying(session.address(), Patience::SHORT, || {
        let (request, mut client) = (request.clone(), session.clusters());
        async move { client.check_cluster(request).await }
    })
    .await
    .map_err(|error| match error.hint.as_deref() {
        Some("--cluster names one") => error.hint("`windlass cluster check ALIAS` names one"),
        _ => error,
    })?;
    let check = checked
        .check
        .ok_or_else(|| CliError::failed("the server answered without the check"))?;
    let now = session.clock.now();
    output::data(args.output.output, &to_json(&check), || text(&check, now))?;
    match check.problems.is_empty() {
        true => Ok(Exit::Succeeded),
        false => Ok(Exit::Failed),
    }
}

/// What was found, for people.
fn text(check: &ClusterCheck, now: Timestamp) -> String {
    let mut lines = facts(check, now);
    if !check.rights.is_empty() {
        let mut rights: Vec<_> = check.rights.iter().collect();
        // What is missing comes first.
        rights.sort_by_key(|right| (right.state() == RightState::Allowed, right.optional));
        let mut table = Table::new(&["VERB", "RESOURCE", "NAMESPACE", "RIGHT", "WHAT FOR"]);
        for right in rights {
            let namespace = match right.namespace.as_str() {
                "" => "(cluster)".to_owned(),
                namespace => namespace.to_owned(),
            };
            table.row([
                right.verb.clone(),
                right.resource.clone(),
                namespace,
                state(right).to_owned(),
                right.purpose.clone(),
            ]);
        }
        lines.extend([String::new(), table.render(), String::new()]);
    }
    if check.problems.is_empty() {
        lines.push(format!(
            "nothing is wrong: steps can run in namespace {}",
            check.namespace
        ));
    }
    for problem in &check.problems {
        lines.push(format!("wrong: {}", problem.message));
    }
    lines.join("\n")
}

fn facts(check: &ClusterCheck, now: Timestamp) -> Vec<String> {
    let executor = check.executor.as_ref();
    let name = executor.map_or("", |executor| &executor.name);
    let load = check.load.unwrap_or_default();
    let mut lines = vec![
        format!("cluster     {} ({})", check.alias, check.uid),
        format!(
            "executor    {name} {}: {} pods, {} launches queued, {} creates in flight{}",
            executor.map_or("", |executor| &executor.version),
            load.pods,
            load.queued,
            load.creates_in_flight,
            if load.draining { ", draining" } else { "" },
        ),
        format!(
            "sight       {}",
            sight(executor.and_then(|executor| executor.sight.as_ref()), now)
        ),
    ];
    if let Some(latency) = check.latency.and_then(|latency| Duration::try_from(latency).ok()) {
        let version = match check.server_version.as_str() {
            "" => "of a version that it does not say",
            version => version,
        };
        let millis = latency.as_secs_f64() * 1000.0;
        lines.push(format!("API server  {version}, answered within {millis:.1} ms"));
        lines.push(format!(
            "namespace   {} {}",
            check.namespace,
            namespace(check.namespace_state())
        ));
    }
    if check.local {
        lines.push("note        a local cluster has one user, who may do everything".to_owned());
    }
    lines
}

fn namespace(state: NamespaceState) -> &'static str {
    match state {
        NamespaceState::Active => "is there",
        NamespaceState::Terminating => "is being deleted",
        NamespaceState::Absent => "is not there",
        NamespaceState::Unspecified => "may be there: the API server does not say",
    }
}

fn state(right: &RightReview) -> &'static str {
    match (right.state(), right.optional) {
        (RightState::Allowed, _) => "yes",
        (RightState::Missing, false) => "MISSING",
        (RightState::Missing, true) => "no (optional)",
        (RightState::Unspecified, _) => "not known",
    }
}

fn sight(sight: Option<&ApiServerSight>, now: Timestamp) -> String {
    let Some(sight) = sight else {
        return "not told yet".to_owned();
    };
    let since = now.since(sight.since_time.map_or(now, millis));
    let since = duration(Duration::from_secs(since.as_secs()));
    match sight.visible {
        true => format!("visible for {since}"),
        false => format!("not visible for {since}: {}", sight.message),
    }
}

#[cfg(test)]
mod tests {
    use windlass_api::cluster::v1::{ClusterProblem, ConnectedExecutor, ExecutorLoad};

    use super::*;

    fn right(verb: &str, namespace: &str, optional: bool, state: RightState) -> RightReview {
        RightReview {
            verb: verb.to_owned(),
            resource: "pods".to_owned(),
            namespace: namespace.to_owned(),
            purpose: "to start steps".to_owned(),
            optional,
            state: state.into(),
            ..RightReview::default()
        }
    }

    #[test]
    fn v8_what_is_missing_comes_first_with_what_it_is_for() {
        let check = ClusterCheck {
            alias: "prod".to_owned(),
            uid: "uid".to_owned(),
            executor: Some(ConnectedExecutor {
                name: "exec-1".to_owned(),
                version: "0.1.0".to_owned(),
                sight: Some(ApiServerSight {
                    visible: false,
                    message: "no answer".to_owned(),
                    ..ApiServerSight::default()
                }),
                ..ConnectedExecutor::default()
            }),
            namespace: "ml".to_owned(),
            namespace_state: NamespaceState::Active.into(),
            server_version: "v1.33.1".to_owned(),
            latency: Some(prost_types::Duration {
                seconds: 0,
                nanos: 2_340_000,
            }),
            rights: vec![
                right("list", "", false, RightState::Allowed),
                right("get", "ml", true, RightState::Missing),
                right("create", "ml", false, RightState::Missing),
            ],
            problems: vec![ClusterProblem {
                message: "the executor has no right to create pods in ml".to_owned(),
                ..ClusterProblem::default()
            }],
            load: Some(ExecutorLoad {
                pods: 3,
                draining: true,
                ..ExecutorLoad::default()
            }),
            ..ClusterCheck::default()
        };
        let text = text(&check, Timestamp::from_millis(5_000));
        insta::assert_snapshot!(console::strip_ansi_codes(&text), @r"
        cluster     prod (uid)
        executor    exec-1 0.1.0: 3 pods, 0 launches queued, 0 creates in flight, draining
        sight       not visible for <1s: no answer
        API server  v1.33.1, answered within 2.3 ms
        namespace   ml is there

        VERB    RESOURCE  NAMESPACE  RIGHT          WHAT FOR
        create  pods      ml         MISSING        to start steps
        get     pods      ml         no (optional)  to start steps
        list    pods      (cluster)  yes            to start steps

        wrong: the executor has no right to create pods in ml
        ");
    }
}
