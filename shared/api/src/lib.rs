//! The gRPC API: generated code, the descriptor set for reflection, and conversions between messages and the domain.
//!
//! Requests of the public packages are decoded by [`strict::StrictCodec`], which refuses field numbers that this version does not
//! know (I9); the internal protocols tolerate them, so that versions can differ while an installation is upgraded.

pub mod convert;
mod redacted;
pub mod refusal;
pub mod strict;

/// The descriptor set of every package, with comments, for reflection and for the generated reference.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Version of the public protocol, as `GetServerInfo` states it.
pub const PUBLIC_PROTOCOL: u32 = 1;

/// Version of the internal protocols (Connect, Feed, Follow) that this build speaks at most.
pub const INTERNAL_PROTOCOL: u32 = 1;

/// The least version of the internal protocols that this build speaks.
pub const INTERNAL_PROTOCOL_MIN: u32 = 1;

/// Capability of an executor that carries out SecretCalls.
pub const SECRETS_CAPABILITY: &str = "secrets";

/// Capability of an executor that carries out RunSecretCalls, and makes pods that refer to a run's secrets.
pub const RUN_SECRETS_CAPABILITY: &str = "run-secrets";

/// Capability of an executor that carries out ScheduleSecretCalls.
pub const SCHEDULE_SECRETS_CAPABILITY: &str = "schedule-secrets";

/// Capability of an executor that carries out ClusterCalls.
pub const CLUSTER_CHECK_CAPABILITY: &str = "cluster-check";

/// All capabilities of this release, which both ends of a dispatch session tell each other.
pub const DISPATCH_CAPABILITIES: [&str; 4] = [
    SECRETS_CAPABILITY,
    RUN_SECRETS_CAPABILITY,
    SCHEDULE_SECRETS_CAPABILITY,
    CLUSTER_CHECK_CAPABILITY,
];

/// Bound on a SubmitRun request, in bytes.
pub const MAX_SUBMIT_BYTES: usize = 64 * 1024 * 1024;

/// Bound on any response, in bytes: clients receive 4 MiB by default, and we stay far below.
pub const MAX_RESPONSE_BYTES: usize = 1024 * 1024;

macro_rules! package {
    ($($module:ident: $folder:literal, $package:literal, $doc:literal;)*) => {$(
        #[doc = $doc]
        pub mod $module {
            /// Version 1.
            pub mod v1 {
                #![allow(missing_docs, unreachable_pub, clippy::all, clippy::allow_attributes_without_reason, clippy::unwrap_used, missing_debug_implementations, reason = "generated")]
                include!(concat!(env!("OUT_DIR"), "/", $folder, "/", $package, ".rs"));
            }
        }
    )*};
}

package! {
    run: "public", "windlass.run.v1", "Runs.";
    pipeline: "public", "windlass.pipeline.v1", "The pipeline model.";
    log: "public", "windlass.log.v1", "Logs.";
    secret: "public", "windlass.secret.v1", "Secrets.";
    cluster: "public", "windlass.cluster.v1", "Clusters.";
    schedule: "public", "windlass.schedule.v1", "Schedules.";
    server: "public", "windlass.server.v1", "The server itself.";
    dispatch: "internal", "windlass.dispatch.v1", "Between scheduler and executors.";
    feed: "internal", "windlass.feed.v1", "Between executors and log relays.";
    relay: "internal", "windlass.relay.v1", "Between log relays.";
    journal: "internal", "windlass.journal.v1", "The stored encoding of the scheduler's store.";
    follow: "internal", "windlass.follow.v1", "Between scheduler and log relays.";
}
