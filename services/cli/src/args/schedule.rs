//! Arguments of `schedule`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::{OutputArgs, PipelineArgs, RunSecretArgs};

#[derive(Args, Debug)]
#[command(
    arg_required_else_help = true,
    after_help = "\
Examples:
  windlass schedule create nightly churn.yaml --cron '30 2 * * *' --time-zone Europe/Berlin
  windlass schedule get nightly                      next times and newest fires
  windlass schedule trigger nightly                  runs it now
  windlass list --filter schedule=nightly            its runs

docs/schedules.md tells the rules: time zones and changing clocks, overlaps, late and missed fires."
)]
/// Arguments of `schedule`.
pub struct ScheduleArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ScheduleCommand,
}

/// The commands about schedules.
#[derive(Debug, Subcommand)]
pub enum ScheduleCommand {
    /// Run a pipeline at times: by a cron pattern, at an interval, or once.
    Create(ScheduleCreateArgs),
    /// Show a schedule, its next times and its newest fires.
    Get(ScheduleGetArgs),
    /// List schedules with their next times.
    #[command(visible_alias = "ls")]
    List(ScheduleListArgs),
    /// Change when a schedule fires, or what it runs.
    Update(ScheduleUpdateArgs),
    /// Delete schedules; their runs stay.
    Delete(ScheduleNamesArgs),
    /// Let schedules fire no more until they are resumed; what runs goes on.
    Pause(ScheduleNamesArgs),
    /// Let paused schedules fire again; what came due meanwhile is not caught up.
    Resume(ScheduleNamesArgs),
    /// Run the pipeline of a schedule now.
    Trigger(ScheduleTriggerArgs),
    /// Print a CronJob whose Jobs trigger a schedule, for `kubectl apply`.
    Export(ScheduleExportArgs),
}

/// When a schedule fires.
#[derive(Args, Clone, Debug, Default)]
pub struct TimingArgs {
    /// Cron pattern: minute, hour, day of month, month, day of week; or @hourly, @daily, @weekly, @monthly, @yearly.
    #[arg(long, value_name = "PATTERN", conflicts_with_all = ["every", "at"])]
    pub cron: Option<String>,
    /// Time from one fire to the next, such as 90s or 6h; counted from --start, or from now.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, conflicts_with = "at")]
    pub every: Option<Duration>,
    /// Fire once, at this time.
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,
    /// IANA time zone of the pattern, and of times without an offset, such as Europe/Berlin [default: UTC].
    #[arg(long, value_name = "ZONE")]
    pub time_zone: Option<String>,
    /// Fire nothing before this time, such as 2026-12-01T08:00:00Z or 2026-12-01T09:00:00+01:00.
    #[arg(long, value_name = "TIME")]
    pub start: Option<String>,
    /// Fire nothing after this time.
    #[arg(long, value_name = "TIME")]
    pub end: Option<String>,
    /// What to do when a run of the schedule has not ended at the next fire [default: skip].
    #[arg(long, value_enum, value_name = "POLICY")]
    pub overlap: Option<OverlapChoice>,
    /// A fire that is later than this is missed [default: 5m].
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub start_deadline: Option<Duration>,
    /// What to do about missed fires [default: none].
    #[arg(long, value_enum, value_name = "POLICY")]
    pub catch_up: Option<CatchUpChoice>,
    /// Catch up only what was missed within this time [default: 1h].
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub catch_up_window: Option<Duration>,
    /// Label of the runs; may be given more than once.
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<String>,
}

/// What to do when a run of a schedule has not ended at the next fire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OverlapChoice {
    /// Run both.
    Allow,
    /// Skip the fire.
    Skip,
    /// Cancel what runs, and start the new run.
    Replace,
}

/// What to do about missed fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CatchUpChoice {
    /// Skip them.
    None,
    /// Run the newest one.
    Last,
    /// Run all, oldest first, at most the newest 1000.
    All,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  windlass schedule create nightly churn.yaml --cron '30 2 * * MON-FRI' --time-zone Europe/Berlin
  windlass schedule create refresh churn.yaml --every 6h --catch-up last --catch-up-window 1d
  windlass schedule create launch churn.yaml -p FULL=true --at 2026-12-24T18:00:00+01:00
  windlass schedule create nightly churn.yaml --cron @daily --secret-file API_TOKEN=token.txt

The pipeline is checked now and kept as it is: later changes of the file need `schedule update`.
Steps are told when their fire was due in WINDLASS_SCHEDULED_TIME.
Its runs share its secrets, which are deleted with it, after the last of them.")]
/// Arguments of `schedule create`.
pub struct ScheduleCreateArgs {
    /// Name of the schedule, unique in the namespace: lower-case letters, digits and dashes.
    pub name: String,
    /// Which pipeline, with which parameters.
    #[command(flatten)]
    pub pipeline: PipelineArgs,
    /// When it fires.
    #[command(flatten)]
    pub timing: TimingArgs,
    /// Secrets that its runs share.
    #[command(flatten)]
    pub secrets: RunSecretArgs,
    /// Do not fire until it is resumed.
    #[arg(long)]
    pub paused: bool,
    /// How to print it.
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  windlass schedule get nightly --next 20
  windlass schedule get nightly --pipeline > again.yaml      the pipeline that it runs")]
/// Arguments of `schedule get`.
pub struct ScheduleGetArgs {
    /// Name of the schedule.
    pub name: String,
    /// How many of the next times to show, at most 100.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub next: u32,
    /// Print the pipeline that it runs.
    #[arg(long, conflicts_with_all = ["output", "next"])]
    pub pipeline: bool,
    /// How to print it.
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Args, Debug)]
/// Arguments of `schedule list`.
pub struct ScheduleListArgs {
    /// Schedules of all namespaces.
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// How to print them.
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  windlass schedule update nightly --cron '0 3 * * *'
  windlass schedule update nightly churn.yaml -p FULL=true      another pipeline, with its parameters
  windlass schedule update nightly --overlap replace --no-end
  windlass schedule update nightly --secret-env API_TOKEN       another value; runs that have begun keep theirs

Secrets are replaced as a whole: give the values of all keys that the pipeline names. Without any the present
ones stay.

Only what is given changes. With other times, fires that are due and have not started are dropped.")]
/// Arguments of `schedule update`.
pub struct ScheduleUpdateArgs {
    /// Name of the schedule.
    pub name: String,
    /// Another pipeline file; it and its parameters replace the old ones. `-` reads standard input.
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Value of a parameter of the new pipeline; may be given more than once.
    #[arg(short, long = "param", value_name = "NAME=VALUE", requires = "file")]
    pub params: Vec<String>,
    /// When it fires.
    #[command(flatten)]
    pub timing: TimingArgs,
    /// Other secrets for its next runs.
    #[command(flatten)]
    pub secrets: RunSecretArgs,
    /// Take --start back.
    #[arg(long, conflicts_with = "start")]
    pub no_start: bool,
    /// Take --end back.
    #[arg(long, conflicts_with = "end")]
    pub no_end: bool,
    /// Take all labels back.
    #[arg(long, conflicts_with = "labels")]
    pub no_labels: bool,
    /// How to print it.
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Args, Debug)]
/// Names of schedules.
pub struct ScheduleNamesArgs {
    /// Names of schedules.
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
    /// How to print them.
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  windlass schedule trigger nightly
  windlass watch $(windlass schedule trigger nightly)
  windlass schedule trigger nightly --wait           exits as the run does

It runs whatever the schedule's times and overlap policy say, and also while it is paused.")]
/// Arguments of `schedule trigger`.
pub struct ScheduleTriggerArgs {
    /// Name of the schedule.
    pub name: String,
    /// Makes the trigger repeatable: the same id answers with the same run.
    #[arg(long, value_name = "ID")]
    pub request_id: Option<String>,
    /// Do as when it fires: nothing (and no failure) with `skip` while a run of it has not ended; with `replace` that run is cancelled.
    #[arg(long)]
    pub obey_overlap: bool,
    /// Wait for the end of the run, and exit as it did.
    #[arg(long)]
    pub wait: bool,
    /// How to print the run.
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  windlass schedule export nightly --image ghcr.io/acme/windlass:1.2 \\
    --pod-server https://windlass-scheduler.windlass.svc:7600 --secret windlass-client --secret-ca \\
    --pause | kubectl apply -f -
  kubectl create secret generic windlass-client -n default --from-file token --from-file ca.crt

Each Job triggers the schedule once, with its uid as request id, however many pods it needs; it ends as the
run does. The schedule's overlap policy is obeyed by the server, and counts all runs of the schedule.
With --pause the schedule fires no more by itself, and the CronJob does.")]
/// Arguments of `schedule export`.
pub struct ScheduleExportArgs {
    /// Name of the schedule.
    pub name: String,
    /// Pause the schedule, so that only the CronJob fires.
    #[arg(long)]
    pub pause: bool,
    /// What the CronJob is like.
    #[command(flatten)]
    pub cron_job: CronJobArgs,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t = super::Format::Yaml, value_name = "FORMAT")]
    pub output: super::Format,
}

/// What a CronJob is like.
#[derive(Args, Clone, Debug)]
pub struct CronJobArgs {
    /// Image that has `windlass`.
    #[arg(long, value_name = "IMAGE")]
    pub image: String,
    /// Address of the server as pods reach it [default: the address that this command uses].
    #[arg(long, value_name = "URL")]
    pub pod_server: Option<String>,
    /// Secret whose key `token` has the token that the pods show; in the namespace of the schedule.
    #[arg(long, value_name = "NAME")]
    pub secret: Option<String>,
    /// The Secret's key `ca.crt` is the authority of the server.
    #[arg(long, requires = "secret")]
    pub secret_ca: bool,
    /// The Secret's keys `tls.crt` and `tls.key` are a certificate that is shown to the server.
    #[arg(long, requires = "secret")]
    pub secret_cert: bool,
    /// Service account of the pods, which get none of its tokens [default: the namespace's].
    #[arg(long, value_name = "NAME")]
    pub service_account: Option<String>,
    /// Whether the CronJob starts no Jobs [default: as the schedule is paused; false with --pause].
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub suspend: Option<bool>,
    /// Jobs end when their run is accepted, and do not wait for its end.
    #[arg(long)]
    pub detach: bool,
    /// How many Jobs that succeeded are kept [default: 3].
    #[arg(long, value_name = "N")]
    pub keep_succeeded: Option<u32>,
    /// How many Jobs that failed are kept [default: 3].
    #[arg(long, value_name = "N")]
    pub keep_failed: Option<u32>,
    /// How long a Job that has ended is kept [default: 7d].
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub ttl: Option<Duration>,
}
