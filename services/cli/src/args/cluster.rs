//! The arguments of `cluster`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use windlass_ids::InstallationId;

use super::OutputArgs;

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
    /// Create a service account for steps, with the rights of Roles that are there.
    CreateServiceAccount(AccountCreateArgs),
    /// Delete a service account that `create-service-account` has made.
    DeleteServiceAccount(AccountDeleteArgs),
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

/// Arguments that say which account, and where.
#[derive(Args, Debug)]
pub struct AccountArgs {
    /// Name of the service account.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// The installation that it belongs to, as the label windlass.dev/installation says; that of the server when absent.
    #[arg(long, value_name = "UUID")]
    pub installation: Option<InstallationId>,
    /// Kubeconfig of the cluster; where kubectl looks when absent.
    #[arg(long, env = "WINDLASS_KUBECONFIG", hide_env_values = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig; its current one when absent.
    #[arg(long, env = "WINDLASS_KUBE_CONTEXT", hide_env_values = true, value_name = "NAME")]
    pub context: Option<String>,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  windlass cluster create-service-account trainer -n team-a
  windlass cluster create-service-account trainer -n team-a --role read-config-maps

It is made with the rights of the kubeconfig's user and never by itself: neither the scheduler nor an
executor makes accounts or gives rights. Without --role it has none; a Role must be there, and
Kubernetes lets nobody give rights that he has not. Its token is mounted only in steps that ask for it.
What is there already as it should be is left as it is; what others have made is not touched.

Steps may use it once the scheduler's policy has it among serviceAccounts.")]
/// Arguments of `cluster create-service-account`.
pub struct AccountCreateArgs {
    /// Which, and where.
    #[command(flatten)]
    pub account: AccountArgs,
    /// Role of the namespace that is bound to it; may be given more than once.
    #[arg(long = "role", value_name = "NAME")]
    pub roles: Vec<String>,
    /// How to print it.
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  windlass cluster delete-service-account trainer -n team-a

Only an account of the installation is deleted, and the bindings that were made with it go with it. Steps
that run with it go on; those that start later wait for it.")]
/// Arguments of `cluster delete-service-account`.
pub struct AccountDeleteArgs {
    /// Which, and where.
    #[command(flatten)]
    pub account: AccountArgs,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  windlass cluster purge                                    lists the installations that own something
  windlass cluster purge --installation UUID                lists what would be removed, removes nothing
  windlass cluster purge --installation UUID --yes          removes it and waits until it is gone

Every object in any namespace with the label windlass.dev/installation=UUID goes: pods (the finalizer
windlass.dev/observed is taken off first), then cron jobs, role bindings, roles, service accounts, Secrets
and ConfigMaps. Nothing without that label is touched, nor anything of another installation. It works with
the rights of the kubeconfig's user, and needs no scheduler.

Only purge an installation whose scheduler is gone for good: what a living one runs is killed, and how it
ended is lost. So it is refused for the installation of the server that --server names or of the
`windlass dev` on the data folder; and while a pod may still run, or something was made in the last ten
minutes, it also wants --force.

Exit status: 0 done (or only listed), 1 something could not be removed, 2 bad input or refused, 3 the cluster
or the server was not reached, 4 not gone within --timeout.")]
/// Arguments of `cluster purge`.
pub struct PurgeArgs {
    /// The installation, as the label windlass.dev/installation says; without it, installations are listed.
    #[arg(long, value_name = "UUID")]
    pub installation: Option<InstallationId>,
    /// Remove it; otherwise it is only listed.
    #[arg(long, requires = "installation")]
    pub yes: bool,
    /// Remove it although there are signs that the installation lives.
    #[arg(long, requires = "yes")]
    pub force: bool,
    /// Kubeconfig of the cluster; where kubectl looks when absent.
    #[arg(long, env = "WINDLASS_KUBECONFIG", hide_env_values = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig; its current one when absent.
    #[arg(long, env = "WINDLASS_KUBE_CONTEXT", hide_env_values = true, value_name = "NAME")]
    pub context: Option<String>,
    /// How long to wait until all is gone (exit status 4).
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "2m")]
    pub timeout: Duration,
    /// How to print it.
    #[command(flatten)]
    pub output: OutputArgs,
}
