//! The arguments of the commands that start runs.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::OutputArgs;

/// Arguments that say which pipeline.
#[derive(Args, Clone, Debug)]
pub struct PipelineArgs {
    /// The pipeline file (YAML or JSON); `-` reads standard input.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Value of a parameter; may be given more than once.
    #[arg(short, long = "param", value_name = "NAME=VALUE")]
    pub params: Vec<String>,
}

/// Secrets of a run, which steps name in `runSecretKeyRef`. Values come from files, the environment and standard input, never from arguments.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Secrets of the run")]
pub struct RunSecretArgs {
    /// Secret of the run with the content of a file; may be given more than once.
    #[arg(long, value_name = "KEY=PATH")]
    pub secret_file: Vec<String>,
    /// Secret of the run with the value that this environment variable of `windlass` has; may be given more than once.
    #[arg(long, value_name = "KEY")]
    pub secret_env: Vec<String>,
    /// Secrets of the run from a file of KEY=VALUE lines; may be given more than once.
    #[arg(long, value_name = "PATH")]
    pub secret_env_file: Vec<PathBuf>,
    /// Secret of the run with what standard input has; a terminal is asked without showing what is typed.
    #[arg(long, value_name = "KEY")]
    pub secret_stdin: Option<String>,
}

impl RunSecretArgs {
    /// Whether any is given.
    pub fn any(&self) -> bool {
        let Self {
            secret_file,
            secret_env,
            secret_env_file,
            secret_stdin,
        } = self;
        !secret_file.is_empty() || !secret_env.is_empty() || !secret_env_file.is_empty() || secret_stdin.is_some()
    }
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  windlass run --local pipeline.yaml
  windlass run pipeline.yaml -p LEARNING_RATE=0.5 --logs
  windlass run pipeline.yaml --detach          prints the run's name and returns
  windlass run pipeline.yaml --secret-file API_TOKEN=token.txt

Ctrl-C detaches from a server, and the run goes on; under --local it cancels the run.")]
/// Arguments of `run`.
pub struct RunArgs {
    /// Which pipeline, with which parameters.
    #[command(flatten)]
    pub pipeline: PipelineArgs,
    /// Name of the run; made from the pipeline's name when absent.
    #[arg(long)]
    pub name: Option<String>,
    /// Label of the run; may be given more than once.
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<String>,
    /// Its secrets.
    #[command(flatten)]
    pub secrets: RunSecretArgs,
    /// Makes submission repeatable: the same id with the same content answers with the same run.
    #[arg(long, value_name = "ID")]
    pub request_id: Option<String>,
    /// Start although a Secret, or a key of one, that the pipeline refers to is not there yet.
    #[arg(long)]
    pub no_check_references: bool,
    /// Print the steps' logs between the progress.
    #[arg(long)]
    pub logs: bool,
    /// Return once the run is accepted, and print its name.
    #[arg(short, long)]
    pub detach: bool,
    /// Stop watching after this time (exit status 4); the run goes on, but under --local it is cancelled.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub timeout: Option<Duration>,
    /// How to print it.
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  windlass retry churn-7k2m
  windlass retry @latest --dry-run       only says which steps would run again
  windlass retry churn-7k2m --from load  runs load again, too, and what comes after it
  windlass retry churn-7k2m --detach     prints the new run's name and returns
  windlass retry churn-7k2m --secret-env API_TOKEN

A step is reused when it succeeded and all steps before it are reused; everything else runs
again, clean-up steps that ran because of a failure included. The new run has the pipeline and the
parameters of the old one, and goes on in its workspace; the old run stays as it is.

The secrets of the old run are gone: those that steps need which run again are given anew. A run of a
schedule has those of its schedule again, unless others are given.

A step that failed as NODE_LOST may still live: who retries it answers for two copies of it.

To run all of it again, submit its pipeline, with the parameters that `windlass get` shows:
  windlass get churn-7k2m --pipeline | windlass run - -p EPOCHS=20")]
/// Arguments of `retry`.
pub struct RetryArgs {
    /// Name, id or unique prefix of a run that failed or was cancelled, or @latest.
    pub run: String,
    /// Name of the new run; made from the pipeline's name when absent.
    #[arg(long)]
    pub name: Option<String>,
    /// Its secrets.
    #[command(flatten)]
    pub secrets: RunSecretArgs,
    /// Makes the request repeatable: the same id for the same run answers with the same new run.
    #[arg(long, value_name = "ID")]
    pub request_id: Option<String>,
    /// Start although a Secret, or a key of one, that a step refers to is not there yet.
    #[arg(long)]
    pub no_check_references: bool,
    /// Run this step again although it succeeded, with everything after it; may be given more than once.
    #[arg(long = "from", value_name = "STEP")]
    pub from: Vec<String>,
    /// Only say which steps would be reused and which would run again.
    #[arg(long, conflicts_with_all = ["name", "request_id", "logs", "detach", "timeout"])]
    pub dry_run: bool,
    /// Print the steps' logs between the progress.
    #[arg(long)]
    pub logs: bool,
    /// Return once the new run is accepted, and print its name.
    #[arg(short, long)]
    pub detach: bool,
    /// Stop watching after this time (exit status 4); the run goes on, but under --local it is cancelled.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub timeout: Option<Duration>,
    /// How to print it.
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  windlass run-step --image python:3.13 -- python -c 'print(6 * 7)'
  windlass run-step --image alpine --memory 2Gi -e N=9 -- sh -c 'seq $N' > numbers
  windlass run-step --image trainer:v3 --pod gpu.yaml --timeout 4h --detach
  windlass run-step --image fetcher:v1 --secret-env API_TOKEN       the step has it in $API_TOKEN

It is a run of one step: it goes on when this command or a service dies, and `windlass logs`,
`explain` and `retry` work on it. What it prints goes to standard output as it is (Kubernetes keeps
standard output and error together), everything else to standard error. It gets no standard input.

Exit status: 0 it succeeded, 1 it failed (its own exit code is in the message), 2 bad input, 3 the
server was not reached, 4 it took longer than --timeout, 5 it was cancelled, 130 interrupted.
Ctrl-C detaches from a server, and the command goes on; under --local it cancels it.")]
/// Arguments of `run-step`.
pub struct RunStepArgs {
    /// Image; not used on the local cluster, whose steps are processes of its machine.
    #[arg(long, value_name = "IMAGE")]
    pub image: String,
    /// Name of the run; made from the command when absent.
    #[arg(long)]
    pub name: Option<String>,
    /// Environment variable; may be given more than once. `NAME={{SECRET.KEY}}` takes it from a Secret that is kept. Not for secrets
    /// themselves, since arguments are seen by others: see below.
    #[arg(short, long = "env", value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// CPU that it asks for, such as `500m` or `2`.
    #[arg(long, value_name = "QUANTITY", conflicts_with = "pod")]
    pub cpu: Option<String>,
    /// Memory that it asks for and may use at most, such as `2Gi`.
    #[arg(long, value_name = "QUANTITY", conflicts_with = "pod")]
    pub memory: Option<String>,
    /// File (YAML or JSON) with pod settings, as `pod` in a pipeline file: resources, node selector, volumes, service account, …; `-` reads
    /// standard input.
    #[arg(long, value_name = "FILE")]
    pub pod: Option<PathBuf>,
    /// Cluster to run it on, by its executors' alias; needed when there are several.
    #[arg(long, value_name = "ALIAS")]
    pub cluster: Option<String>,
    /// Stop the command after this time, also when nobody watches.
    #[arg(long, value_name = "DURATION")]
    pub timeout: Option<String>,
    /// Label of the run; may be given more than once.
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<String>,
    /// Secrets of the run, each an environment variable of the same name.
    #[command(flatten)]
    pub secrets: RunSecretArgs,
    /// Makes submission repeatable: the same id with the same content answers with the same run.
    #[arg(long, value_name = "ID")]
    pub request_id: Option<String>,
    /// Start although a Secret, or a key of one, that the command refers to is not there yet.
    #[arg(long)]
    pub no_check_references: bool,
    /// Return once the run is accepted, and print its name.
    #[arg(short, long)]
    pub detach: bool,
    /// The command with its arguments; the image's own when absent.
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}
