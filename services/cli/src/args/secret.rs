//! The arguments of `secret`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::OutputArgs;

#[derive(Args, Debug)]
#[command(
    arg_required_else_help = true,
    after_help = "\
Examples:
  windlass secret put warehouse --from-stdin password        asks for it, or reads a pipe to its end
  windlass secret put warehouse --from-file ca.pem=certs/ca.pem --env-file warehouse.env
  windlass secret list
  windlass secret delete warehouse

A step reaches a key by reference:
  env:
    - name: DB_PASSWORD
      valueFrom: {secretKeyRef: {name: warehouse, key: password}}

Values are kept by Kubernetes alone, as Secrets in the namespace of -n, and nothing reads them back. Only Secrets that
Windlass has made are listed, changed and deleted."
)]
/// Arguments of `secret`.
pub struct SecretArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: SecretCommand,
}

/// The commands about secrets.
#[derive(Debug, Subcommand)]
pub enum SecretCommand {
    /// Create a secret, or set and remove keys of one.
    Put(SecretPutArgs),
    /// List the secrets that Windlass manages, with their keys.
    #[command(visible_alias = "ls")]
    List(SecretListArgs),
    /// Delete secrets that Windlass manages.
    Delete(SecretDeleteArgs),
}

/// Which cluster.
#[derive(Args, Debug)]
pub struct ClusterOfSecrets {
    /// Alias of the cluster; not needed where only one is connected.
    #[arg(long, value_name = "ALIAS")]
    pub cluster: Option<String>,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  windlass secret put warehouse --from-stdin password        asks for it, or reads a pipe to its end
  pass show warehouse | windlass secret put warehouse --from-stdin password
  windlass secret put warehouse --from-file ca.pem=certs/ca.pem --env-file warehouse.env
  windlass secret put warehouse --remove old-password --update-only

Keys that are not named keep their values; an empty value of a file is kept as such. Values are never taken from the command line,
which every user of the machine can read and shells keep: they come from files or standard input, byte by byte, with the
newline that `echo` adds. An env file has KEY=VALUE lines; what stands behind the first `=` is the value as it is, empty
lines and those that begin with # are passed over.")]
/// Arguments of `secret put`.
pub struct SecretPutArgs {
    /// Name of the secret, such as warehouse.
    pub name: String,
    /// Set a key to the content of a file; may be given more than once.
    #[arg(long, value_name = "KEY=PATH")]
    pub from_file: Vec<String>,
    /// Set a key to what standard input has; a terminal is asked without showing what is typed.
    #[arg(long, value_name = "KEY")]
    pub from_stdin: Option<String>,
    /// Take nothing from standard input for an empty value.
    #[arg(long, requires = "from_stdin")]
    pub allow_empty: bool,
    /// Set the keys of a file of KEY=VALUE lines; may be given more than once.
    #[arg(long, value_name = "PATH")]
    pub env_file: Vec<PathBuf>,
    /// Remove a key; may be given more than once.
    #[arg(long, value_name = "KEY")]
    pub remove: Vec<String>,
    /// Fail when the secret is there already.
    #[arg(long, conflicts_with_all = ["update_only", "remove"])]
    pub create_only: bool,
    /// Fail when the secret is not there.
    #[arg(long)]
    pub update_only: bool,
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterOfSecrets,
    /// How to print it.
    #[command(flatten)]
    pub output: OutputArgs,
    /// What people try first; it is refused with what works.
    #[arg(long, hide = true, value_name = "KEY=VALUE")]
    pub from_literal: Vec<String>,
    /// The same.
    #[arg(hide = true, value_name = "KEY=VALUE")]
    pub literals: Vec<String>,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  windlass secret list -n team-a
  windlass secret list -o json

Shown are names and keys of the secrets that Windlass has made, never values. Those that others have made in the namespace
can be used by steps as well, but are not shown.")]
/// Arguments of `secret list`.
pub struct SecretListArgs {
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterOfSecrets,
    /// How to print it.
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  windlass secret delete warehouse

A secret that Windlass has not made is left alone. Pods that run keep the values that they started with; one that starts
later waits for the secret, and fails when it does not come.")]
/// Arguments of `secret delete`.
pub struct SecretDeleteArgs {
    /// Names of secrets.
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterOfSecrets,
}
