//! What each RPC needs: the one table that every service enforces. An RPC that is not in it is refused.

use super::Role;

/// What a caller of an RPC needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing, not even a token: probes have none.
    Nothing,
    /// To be known.
    Known,
    /// This role in the namespace of the request.
    InNamespace(Role),
    /// To be an executor or a log relay.
    Service,
}

/// The full path of every RPC with what it needs; those of health and reflection by their service.
pub const NEEDS: &[(&str, Need)] = &[
    ("/grpc.health.v1.Health/", Need::Nothing),
    ("/grpc.reflection.v1.ServerReflection/", Need::Known),
    ("/grpc.reflection.v1alpha.ServerReflection/", Need::Known),
    ("/windlass.server.v1.ServerService/GetServerInfo", Need::Known),
    ("/windlass.server.v1.ServerService/GetPipelineSchema", Need::Known),
    ("/windlass.cluster.v1.ClusterService/ListClusters", Need::Known),
    ("/windlass.run.v1.RunService/GetRun", Need::InNamespace(Role::Viewer)),
    ("/windlass.run.v1.RunService/ListRuns", Need::InNamespace(Role::Viewer)),
    ("/windlass.run.v1.RunService/ListSteps", Need::InNamespace(Role::Viewer)),
    ("/windlass.run.v1.RunService/WatchRun", Need::InNamespace(Role::Viewer)),
    (
        "/windlass.run.v1.RunService/GetRunPipeline",
        Need::InNamespace(Role::Viewer),
    ),
    (
        "/windlass.run.v1.RunService/ExplainRun",
        Need::InNamespace(Role::Viewer),
    ),
    ("/windlass.log.v1.LogService/TailLogs", Need::InNamespace(Role::Viewer)),
    (
        "/windlass.run.v1.RunService/SubmitRun",
        Need::InNamespace(Role::Submitter),
    ),
    (
        "/windlass.run.v1.RunService/CancelRun",
        Need::InNamespace(Role::Submitter),
    ),
    (
        "/windlass.run.v1.RunService/RetryRun",
        Need::InNamespace(Role::Submitter),
    ),
    (
        "/windlass.pipeline.v1.PipelineService/ValidatePipeline",
        Need::InNamespace(Role::Submitter),
    ),
    (
        "/windlass.pipeline.v1.PipelineService/RenderPipeline",
        Need::InNamespace(Role::Submitter),
    ),
    (
        "/windlass.secret.v1.SecretService/ListSecrets",
        Need::InNamespace(Role::Submitter),
    ),
    (
        "/windlass.cluster.v1.ClusterService/CheckCluster",
        Need::InNamespace(Role::Submitter),
    ),
    ("/windlass.run.v1.RunService/DeleteRun", Need::InNamespace(Role::Admin)),
    (
        "/windlass.run.v1.RunService/ConfirmDead",
        Need::InNamespace(Role::Admin),
    ),
    (
        "/windlass.secret.v1.SecretService/PutSecret",
        Need::InNamespace(Role::Admin),
    ),
    (
        "/windlass.secret.v1.SecretService/DeleteSecret",
        Need::InNamespace(Role::Admin),
    ),
    (
        "/windlass.schedule.v1.ScheduleService/GetSchedule",
        Need::InNamespace(Role::Viewer),
    ),
    (
        "/windlass.schedule.v1.ScheduleService/ListSchedules",
        Need::InNamespace(Role::Viewer),
    ),
    (
        "/windlass.schedule.v1.ScheduleService/GetSchedulePipeline",
        Need::InNamespace(Role::Viewer),
    ),
    (
        "/windlass.schedule.v1.ScheduleService/ExportSchedule",
        Need::InNamespace(Role::Viewer),
    ),
    (
        "/windlass.schedule.v1.ScheduleService/CreateSchedule",
        Need::InNamespace(Role::Submitter),
    ),
    (
        "/windlass.schedule.v1.ScheduleService/UpdateSchedule",
        Need::InNamespace(Role::Submitter),
    ),
    (
        "/windlass.schedule.v1.ScheduleService/DeleteSchedule",
        Need::InNamespace(Role::Submitter),
    ),
    (
        "/windlass.schedule.v1.ScheduleService/PauseSchedule",
        Need::InNamespace(Role::Submitter),
    ),
    (
        "/windlass.schedule.v1.ScheduleService/ResumeSchedule",
        Need::InNamespace(Role::Submitter),
    ),
    (
        "/windlass.schedule.v1.ScheduleService/TriggerSchedule",
        Need::InNamespace(Role::Submitter),
    ),
    ("/windlass.dispatch.v1.DispatchService/Connect", Need::Service),
    ("/windlass.follow.v1.FollowService/Follow", Need::Service),
    ("/windlass.feed.v1.FeedService/Feed", Need::Service),
    ("/windlass.relay.v1.RelayService/Read", Need::Service),
];

/// What an RPC needs; `None` for one that is not in the table.
pub fn need(path: &str) -> Option<Need> {
    let fits = |known: &str| known == path || (known.ends_with('/') && path.starts_with(known));
    NEEDS.iter().find(|(known, _)| fits(known)).map(|(_, need)| *need)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use super::*;

    #[test]
    fn every_rpc_is_in_the_table_once_and_nothing_else() {
        let set = FileDescriptorSet::decode(windlass_api::DESCRIPTORS).expect("descriptors");
        let mut paths = BTreeSet::new();
        for file in &set.file {
            for service in &file.service {
                for method in &service.method {
                    paths.insert(format!("/{}.{}/{}", file.package(), service.name(), method.name()));
                }
            }
        }
        let ours = || NEEDS.iter().filter(|(path, _)| path.starts_with("/windlass."));
        let known: BTreeSet<_> = ours().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(known, paths);
        assert_eq!(known.len(), ours().count(), "a path is there twice");
        assert_eq!(need("/windlass.run.v1.RunService/Unheard"), None);
    }

    #[test]
    fn the_documented_table_is_this_one() {
        let text = include_str!("../../../../docs/access.md");
        let documented: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with("| `") && line.contains(".v1"))
            .collect();
        let rows = NEEDS.iter().map(|(path, need)| {
            let need = match need {
                Need::Nothing => "nothing",
                Need::Known => "a token",
                Need::InNamespace(role) => role.name(),
                Need::Service => "service",
            };
            format!("| `{}` | {need} |", path.trim_matches('/'))
        });
        assert_eq!(documented, rows.collect::<Vec<_>>());
    }
}
