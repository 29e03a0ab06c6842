//! The command line as clap sees it.

mod cluster;
mod dev;
mod run;
mod schedule;
mod secret;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use cluster::{
    AccountArgs, AccountCreateArgs, AccountDeleteArgs, ClusterArgs, ClusterCheckArgs, ClusterCommand, ClusterListArgs,
    PurgeArgs,
};
pub use dev::{DevArgs, LocalClusterArgs};
pub use run::{PipelineArgs, RetryArgs, RunArgs, RunSecretArgs, RunStepArgs};
pub use schedule::{
    CatchUpChoice, CronJobArgs, OverlapChoice, ScheduleArgs, ScheduleCommand, ScheduleCreateArgs, ScheduleExportArgs,
    ScheduleGetArgs, ScheduleListArgs, ScheduleNamesArgs, ScheduleTriggerArgs, ScheduleUpdateArgs, TimingArgs,
};
pub use secret::{ClusterOfSecrets, SecretArgs, SecretCommand, SecretDeleteArgs, SecretListArgs, SecretPutArgs};

/// Windlass runs pipelines (DAGs of container steps) on Kubernetes, or on this machine.
#[derive(Debug, Parser)]
#[command(
    name = "windlass",
    version,
    max_term_width = 100,
    arg_required_else_help = true,
    subcommand_required = true,
    after_help = "Try: windlass run --local PIPELINE.yaml\nMore about a command: windlass help COMMAND",
    after_long_help = ROOT_HELP
)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const ROOT_HELP: &str = "\
Examples:
  windlass run --local examples/iris/pipeline.yaml   run a pipeline with nothing installed
  windlass dev                                       start a server on this machine
  windlass run pipeline.yaml -p EPOCHS=20 --logs     submit, watch, show the logs
  windlass logs @latest -f                           follow the newest run's logs

A run is given by its name, its id, a unique prefix of either, or @latest.

Exit status: 0 succeeded, 1 the run failed, 2 bad input, 3 the server was not reached,
4 timeout, 5 cancelled, 130 interrupted.";

/// Options of every command.
#[derive(Args, Clone, Debug)]
pub struct GlobalArgs {
    /// Address of the scheduler; without it, the `windlass dev` that runs on the data folder.
    #[arg(
        long,
        global = true,
        env = "WINDLASS_SERVER",
        hide_env_values = true,
        value_name = "URL",
        help_heading = "Global options"
    )]
    pub server: Option<String>,
    /// File that holds the server's token (its first line); WINDLASS_TOKEN holds the token itself.
    #[arg(
        long,
        global = true,
        env = "WINDLASS_TOKEN_FILE",
        hide_env_values = true,
        value_name = "FILE",
        help_heading = "Global options"
    )]
    pub token_file: Option<PathBuf>,
    /// Authority (PEM) of a server at `https://`; the system's when absent.
    #[arg(
        long,
        global = true,
        env = "WINDLASS_CA",
        hide_env_values = true,
        value_name = "FILE",
        help_heading = "Global options"
    )]
    pub ca: Option<PathBuf>,
    /// Certificate chain (PEM) that is shown to the server.
    #[arg(
        long,
        global = true,
        env = "WINDLASS_CLIENT_CERT",
        hide_env_values = true,
        value_name = "FILE",
        requires = "client_key",
        help_heading = "Global options"
    )]
    pub client_cert: Option<PathBuf>,
    /// Private key (PEM) of the certificate that is shown.
    #[arg(
        long,
        global = true,
        env = "WINDLASS_CLIENT_KEY",
        hide_env_values = true,
        value_name = "FILE",
        requires = "client_cert",
        help_heading = "Global options"
    )]
    pub client_key: Option<PathBuf>,
    /// Namespace of the runs.
    #[arg(
        short,
        long,
        global = true,
        env = "WINDLASS_NAMESPACE",
        hide_env_values = true,
        default_value = "default",
        value_name = "NAME",
        help_heading = "Global options"
    )]
    pub namespace: String,
    /// Run everything inside this process: steps are processes of this machine, images are not used.
    #[arg(long, global = true, conflicts_with = "server", help_heading = "Global options")]
    pub local: bool,
    /// Folder that `dev` and `--local` keep everything in [default: the user's data folder].
    #[arg(
        long,
        global = true,
        env = "WINDLASS_DATA_DIR",
        hide_env_values = true,
        value_name = "FOLDER",
        help_heading = "Global options"
    )]
    pub data_dir: Option<PathBuf>,
    /// Whether to colour the output; NO_COLOR is respected.
    #[arg(long, global = true, value_enum, default_value_t = ColorChoice::Auto, value_name = "WHEN", help_heading = "Global options")]
    pub color: ColorChoice,
}

/// When to colour the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How data is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// One JSON document.
    Json,
    /// YAML.
    Yaml,
}

/// How data is printed.
#[derive(Args, Clone, Copy, Debug)]
pub struct OutputArgs {
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t = Format::Table, value_name = "FORMAT")]
    pub output: Format,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Submit a pipeline and watch it to its end.
    Run(RunArgs),
    /// Run one command in a pod, and print what it prints.
    RunStep(RunStepArgs),
    /// Find every problem of a pipeline file, without running it.
    Validate(ValidateArgs),
    /// Print the pods that a pipeline would make.
    Render(RenderArgs),
    /// List runs, newest first.
    #[command(visible_alias = "runs", visible_alias = "ls")]
    List(ListArgs),
    /// Show a run and its steps, or one step and its attempts.
    Get(GetArgs),
    /// Watch a run to its end.
    Watch(WatchArgs),
    /// Wait until runs have ended.
    Wait(WaitArgs),
    /// Print the logs of a run.
    Logs(LogsArgs),
    /// Cancel a run.
    Cancel(CancelArgs),
    /// Run what failed again, in a new run that reuses what succeeded.
    Retry(RetryArgs),
    /// Say what a run or step waits for, since when, until when, and what would help.
    Explain(ExplainArgs),
    /// Delete ended runs and their history.
    Delete(DeleteArgs),
    /// Say that an attempt which lost contact is dead, so that it can be replaced.
    ConfirmDead(ConfirmDeadArgs),
    /// Draw the steps of a pipeline file or of a run.
    Graph(GraphArgs),
    /// Print the JSON Schema of the pipeline file, with which editors complete and check it.
    Schema(SchemaArgs),
    /// Keep values for steps in Kubernetes Secrets.
    Secret(SecretArgs),
    /// Run pipelines at times.
    #[command(visible_alias = "schedules")]
    Schedule(ScheduleArgs),
    /// Look after a Kubernetes cluster.
    Cluster(ClusterArgs),
    /// Print a completion script for a shell.
    Completion(CompletionArgs),
    /// Make a token with roles, and its entry for the access file of a server.
    Token(TokenArgs),
    /// Start scheduler, executor, log relay and a local cluster in one process.
    Dev(DevArgs),
    /// Serve the local cluster alone: a Kubernetes API whose pods are processes of this machine.
    LocalCluster(LocalClusterArgs),
    /// Print the reference of the command line, the pipeline file or the API as Markdown.
    #[command(hide = true)]
    Reference(ReferenceArgs),
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  windlass validate pipeline.yaml
  windlass validate --server http://127.0.0.1:7610 pipeline.yaml   asks the server as well")]
/// Arguments of `validate`.
pub struct ValidateArgs {
    /// Which pipeline, with which parameters.
    #[command(flatten)]
    pub pipeline: PipelineArgs,
    /// How to print it.
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  windlass render pipeline.yaml | kubectl apply --dry-run=server -f -
  windlass render pipeline.yaml --step train --explain")]
/// Arguments of `render`.
pub struct RenderArgs {
    /// Which pipeline, with which parameters.
    #[command(flatten)]
    pub pipeline: PipelineArgs,
    /// Only this step (before or after matrix expansion); may be given more than once.
    #[arg(long = "step", value_name = "STEP")]
    pub steps: Vec<String>,
    /// Say where each setting came from, as comments.
    #[arg(long, visible_alias = "provenance")]
    pub explain: bool,
    /// How to print the pods.
    #[arg(short, long, value_enum, default_value_t = Format::Yaml, value_name = "FORMAT")]
    pub output: Format,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  windlass list
  windlass list --state FAILED --pipeline churn
  windlass list --filter 'label.team=ml submittedBy=ana' -o json")]
/// Arguments of `list`.
pub struct ListArgs {
    /// Only runs in this state, such as FAILED.
    #[arg(long, value_name = "STATE")]
    pub state: Option<String>,
    /// Only runs of this pipeline.
    #[arg(long, value_name = "NAME")]
    pub pipeline: Option<String>,
    /// Terms that must all hold, such as `state=FAILED label.team=ml submittedBy=ana name=churn-* schedule=nightly`.
    #[arg(long, value_name = "TERMS")]
    pub filter: Option<String>,
    /// Runs of all namespaces.
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// At most so many runs.
    #[arg(long, default_value_t = 50, value_name = "N")]
    pub limit: usize,
    /// How to print it.
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  windlass get @latest
  windlass get churn-7k2m train.2
  windlass get churn-7k2m --pipeline > again.yaml      the file as submitted")]
/// Arguments of `get`.
pub struct GetArgs {
    /// Name, id or unique prefix of the run, or @latest.
    pub run: String,
    /// Name of a step.
    pub step: Option<String>,
    /// Print the pipeline as it was submitted; it can be submitted again.
    #[arg(long, conflicts_with_all = ["step", "output"])]
    pub pipeline: bool,
    /// How to print it.
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  windlass watch @latest
  windlass watch churn-7k2m --logs

The exit status is the run's: 0 succeeded, 1 failed, 5 cancelled. Ctrl-C stops watching only.")]
/// Arguments of `watch`.
pub struct WatchArgs {
    /// Name, id or unique prefix of the run, or @latest.
    pub run: String,
    /// Print the steps' logs between the progress.
    #[arg(long)]
    pub logs: bool,
    /// Stop watching after this time (exit status 4).
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub timeout: Option<Duration>,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  windlass wait churn-7k2m churn-9qd4 --timeout 30m

The exit status is 0 when all succeeded, 1 when one failed, 5 when one was cancelled, 4 at the timeout.")]
/// Arguments of `wait`.
pub struct WaitArgs {
    /// Names, ids or unique prefixes of runs, or @latest.
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<String>,
    /// Give up after this time (exit status 4).
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub timeout: Option<Duration>,
    /// How to print it.
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  windlass logs @latest
  windlass logs churn-7k2m train -f            all steps of a matrix; follows until the run ends
  windlass logs churn-7k2m train.2 --tail 20 --timestamps
  windlass logs churn-7k2m --since 10m --grep '(?i)error|warn' --exclude heartbeat
  windlass logs churn-7k2m train.2 --previous  what the attempt before the newest wrote
  windlass logs churn-7k2m -o json | jq .text")]
/// Arguments of `logs`.
pub struct LogsArgs {
    /// Name, id or unique prefix of the run, or @latest.
    pub run: String,
    /// Names of steps, before or after matrix expansion; all when absent.
    #[arg(value_name = "STEP")]
    pub steps: Vec<String>,
    /// Wait for more until the run (or the steps named) ended.
    #[arg(short, long)]
    pub follow: bool,
    /// Only the last N lines of each container.
    #[arg(long, value_name = "N", conflicts_with = "since")]
    pub tail: Option<u64>,
    /// Only lines since this time ago (`10m`), or since a time (`2026-01-31T12:00:00Z`).
    #[arg(long, value_name = "WHEN")]
    pub since: Option<String>,
    /// Container; `*` for all.
    #[arg(short, long, default_value = "main", value_name = "NAME")]
    pub container: String,
    /// Only this attempt; all when absent.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub attempt: Option<u32>,
    /// Only the attempt before the newest one of each step.
    #[arg(long, conflicts_with_all = ["attempt", "follow"])]
    pub previous: bool,
    /// Print the time before each line.
    #[arg(short, long)]
    pub timestamps: bool,
    /// Whether to print the step before each line; `auto` does so for more than one step.
    #[arg(long, value_enum, default_value_t = PrefixChoice::Auto, value_name = "WHEN")]
    pub prefix: PrefixChoice,
    /// Only lines that contain this text.
    #[arg(long, value_name = "TEXT")]
    pub contains: Option<String>,
    /// Only lines that this regular expression matches; repeated, one of them.
    #[arg(long, visible_alias = "include", value_name = "REGEX")]
    pub grep: Vec<String>,
    /// No lines that this regular expression matches; may be repeated.
    #[arg(long, value_name = "REGEX")]
    pub exclude: Vec<String>,
    /// How lines are printed.
    #[arg(short, long, value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    pub output: LogFormat,
    /// Go on where this file says, and keep it up to date.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["tail", "since"])]
    pub cursor_file: Option<PathBuf>,
}

/// How lines of logs are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people: with prefixes; on a terminal without control sequences other than colours.
    Text,
    /// The bytes that the containers wrote, and nothing else.
    Raw,
    /// One JSON object for each line and each mark.
    Json,
}

/// Whether lines are prefixed with their step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PrefixChoice {
    /// When lines of more than one step can come.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  windlass cancel @latest
  windlass cancel churn-7k2m --reason 'wrong data' --grace 5s --wait")]
/// Arguments of `cancel`.
pub struct CancelArgs {
    /// Names, ids or unique prefixes of runs, or @latest.
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<String>,
    /// Why; kept with the run.
    #[arg(long, default_value = "")]
    pub reason: String,
    /// Time between SIGTERM and SIGKILL; each step's own when absent.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub grace: Option<Duration>,
    /// Wait until the runs have ended.
    #[arg(long)]
    pub wait: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  windlass explain @latest
  windlass explain churn-7k2m train.3")]
/// Arguments of `explain`.
pub struct ExplainArgs {
    /// Name, id or unique prefix of the run, or @latest.
    pub run: String,
    /// Name of a step; without it the run and the steps that wait.
    pub step: Option<String>,
    /// How to print it.
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  windlass delete churn-7k2m churn-9qd4
  windlass delete --older-than 7d --filter 'pipeline=churn state=FAILED' --yes")]
/// Arguments of `delete`.
pub struct DeleteArgs {
    /// Names, ids or unique prefixes of ended runs.
    #[arg(required_unless_present = "older_than", value_name = "RUN")]
    pub runs: Vec<String>,
    /// All runs of the namespace that ended before so long.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, conflicts_with = "runs")]
    pub older_than: Option<Duration>,
    /// Only those of them that fit, as in `list --filter`.
    #[arg(long, value_name = "FILTER", requires = "older_than", conflicts_with = "runs")]
    pub filter: Option<String>,
    /// Do delete what --older-than finds; without it the runs are only counted.
    #[arg(long)]
    pub yes: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  windlass confirm-dead churn-7k2m train.3

Only say so when you know that the pod's processes are gone (for example, the node is switched off):
the step may start again, and two copies of it would then run.")]
/// Arguments of `confirm-dead`.
pub struct ConfirmDeadArgs {
    /// Name, id or unique prefix of the run, or @latest.
    pub run: String,
    /// Name of the step that lost contact.
    pub step: String,
    /// Number of the attempt; the current one when absent.
    #[arg(long, value_name = "NUMBER", default_value_t = 0, hide_default_value = true)]
    pub attempt: u32,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  windlass graph pipeline.yaml
  windlass graph pipeline.yaml --format dot | dot -Tsvg > pipeline.svg
  windlass graph @latest --format mermaid          coloured by state")]
/// Arguments of `graph`.
pub struct GraphArgs {
    /// A pipeline file, else a run.
    #[arg(value_name = "FILE|RUN")]
    pub subject: String,
    /// How to draw it.
    #[arg(long, value_enum, default_value_t = GraphFormat::Text, value_name = "FORMAT")]
    pub format: GraphFormat,
    /// Draw every step of a matrix by itself.
    #[arg(long)]
    pub expand: bool,
}

/// How a graph is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GraphFormat {
    /// For a terminal.
    Text,
    /// A Mermaid flow chart.
    Mermaid,
    /// Graphviz.
    Dot,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  windlass schema > pipeline.schema.json
  windlass schema | jq '.[\"$defs\"].PodSettings.properties | keys'

In Visual Studio Code, and wherever else yaml-language-server runs, let a pipeline file begin with
  # yaml-language-server: $schema=pipeline.schema.json
or say it for all of them in the settings of the YAML extension:
  \"yaml.schemas\": {\"./pipeline.schema.json\": \"*.pipeline.yaml\"}

No server is needed; a server offers the schema of its own release as GetPipelineSchema. A schema
knows names, types and ranges, also inside Kubernetes fragments; `windlass validate` finds the rest.")]
/// Arguments of `schema`.
pub struct SchemaArgs {}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  source <(windlass completion bash)
  windlass completion zsh > ~/.zfunc/_windlass
  windlass completion fish > ~/.config/fish/completions/windlass.fish")]
/// Arguments of `completion`.
pub struct CompletionArgs {
    /// The shell.
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  windlass token ana --role submitter=team-a,team-b --role viewer='*' >> access.yaml
  windlass token executor --role service --out executor.token >> access.yaml

Roles: viewer looks at runs and logs; submitter also submits, retries, cancels and keeps schedules; admin also
deletes runs, keeps secrets and confirms the death of attempts; service is for executors and log relays, in the
whole installation.
The entry goes to standard output and holds a hash only. The token is shown this once, on standard error.")]
/// Arguments of `token`.
pub struct TokenArgs {
    /// Whose token it is; the runs that are submitted with it bear this name.
    pub name: String,
    /// A role in namespaces (`*` for all), or `service`; may be given more than once.
    #[arg(long = "role", value_name = "ROLE=NAMESPACES", required = true)]
    pub roles: Vec<String>,
    /// Write the token to this new file, which only its owner can read, and show it nowhere.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

#[derive(Args, Debug)]
/// Arguments of `reference`.
pub struct ReferenceArgs {
    /// Which reference.
    #[arg(value_enum)]
    pub subject: ReferenceSubject,
}

/// Which reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReferenceSubject {
    /// The command line.
    Cli,
    /// The pipeline file.
    File,
    /// The gRPC API.
    Api,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
