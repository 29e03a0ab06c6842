//! The arguments of `cluster`; those of `cluster purge` are with the others that need no server.

use clap::{Args, Subcommand};

use super::{OutputArgs, PurgeArgs};

#[derive(Args, Debug)]
#[command(
    arg_required_else_help = true,
    after_help = "\
Examples:
  windlass cluster list
  windlass cluster check -n team-a           whether steps can run in team-a
  windlass cluster check prod -o json

A cluster is known as long as an executor of it is connected. One executor serves one cluster,
which it reaches by its own kubeconfig, pod or flags (`windlass-executor --help`); several clusters
are several executors."
)]
/// Arguments of `cluster`.
pub struct ClusterArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ClusterCommand,
}

/// The commands about a cluster.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// List the clusters and their connected executors.
    #[command(visible_alias = "ls")]
    List(ClusterListArgs),
    /// Look whether steps can run in a namespace of a cluster, and which rights are missing.
    Check(ClusterCheckArgs),
    /// Remove what an installation that is gone left in a cluster.
    Purge(PurgeArgs),
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  windlass cluster list
  windlass cluster list -o json | jq -r '.clusters[].alias'

Pipelines name a cluster by its alias. SIGHT says how the executor sees the API server of its
cluster.")]
/// Arguments of `cluster list`.
pub struct ClusterListArgs {
    /// How to print it.
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  windlass cluster check
  windlass cluster check prod -n team-a
  windlass cluster check -o json | jq '.rights[] | select(.state == \"MISSING\")'

An executor of the cluster looks: whether its API server answers, whether the namespace is there,
and whether the executor has every right that it uses, which it asks the API server for by
SelfSubjectAccessReview. Nothing is changed. An optional right is one that runs do without: nothing
is wrong when only those are missing.

Exit status: 0 nothing is wrong, 1 something is missing or wrong, 2 bad input or refused, 3 the
server was not reached, or no executor of the cluster is connected.")]
/// Arguments of `cluster check`.
pub struct ClusterCheckArgs {
    /// Alias of the cluster; not needed where only one is connected.
    #[arg(value_name = "ALIAS")]
    pub alias: Option<String>,
    /// How to print it.
    #[command(flatten)]
    pub output: OutputArgs,
}
