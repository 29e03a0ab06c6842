//! `windlass schedule export`.

use serde_json::Value;
use windlass_api::convert::duration_to_proto;
use windlass_api::schedule::v1 as wire;

use super::{Client, call, pause, spec};
use crate::args::{Format, ScheduleExportArgs};
use crate::client::Session;
use crate::errors::{CliError, Exit, Result};
use crate::output;

/// Flags by the fields of the request that they set.
const FLAGS: [(&str, &str); 9] = [
    ("image", "--image"),
    ("server", "--pod-server"),
    ("secret", "--secret"),
    ("secretHasCa", "--secret-ca"),
    ("secretHasCertificate", "--secret-cert"),
    ("serviceAccount", "--service-account"),
    ("successfulJobsHistoryLimit", "--keep-succeeded"),
    ("failedJobsHistoryLimit", "--keep-failed"),
    ("ttlAfterFinished", "--ttl"),
];

pub(super) async fn run(session: &Session, args: &ScheduleExportArgs) -> Result<Exit> {
    if args.output == Format::Table {
        return Err(CliError::bad_input("a CronJob has no table").hint("leave -o out, or give -o json"));
    }
    let request = request(session, args)?;
    let exported = call(session, |mut client: Client| {
        let request = request.clone();
        async move { client.export_schedule(request).await }
    });
    let exported = exported.await.map_err(locate)?;
    let cron_job: Value = serde_json::from_str(&exported.cron_job_json)
        .map_err(|error| CliError::failed(format!("the server's CronJob cannot be read: {error}")))?;
    if args.pause {
        pause(session, &args.name).await?;
        output::note(format!(
            "schedule {} is paused; its CronJob fires in its place",
            args.name
        ));
    } else {
        warn(&args.name, exported.state(), &cron_job);
    }
    output::data(args.output, &cron_job, String::new)?;
    Ok(Exit::Succeeded)
}

fn request(session: &Session, args: &ScheduleExportArgs) -> Result<wire::ExportScheduleRequest> {
    let cron_job = args.cron_job.clone();
    let server = match cron_job.pod_server {
        Some(server) => server,
        None if is_loopback(session.address()) => {
            return Err(
                CliError::bad_input(format!("pods do not reach the server at {}", session.address()))
                    .hint("give --pod-server URL, such as https://windlass-scheduler.windlass.svc:7600"),
            );
        }
        None => session.address().to_owned(),
    };
    Ok(wire::ExportScheduleRequest {
        namespace: session.namespace.clone(),
        schedule: args.name.clone(),
        image: cron_job.image,
        server,
        secret: cron_job.secret.unwrap_or_default(),
        secret_has_ca: cron_job.secret_ca,
        secret_has_certificate: cron_job.secret_cert,
        service_account: cron_job.service_account.unwrap_or_default(),
        suspend: cron_job.suspend.or(args.pause.then_some(false)),
        detach: cron_job.detach,
        successful_jobs_history_limit: cron_job.keep_succeeded,
        failed_jobs_history_limit: cron_job.keep_failed,
        ttl_after_finished: cron_job.ttl.map(duration_to_proto),
    })
}

/// Says when the schedule and its CronJob would both fire, or neither.
fn warn(name: &str, state: wire::ScheduleState, cron_job: &Value) {
    let suspended = cron_job["spec"]["suspend"] == Value::Bool(true);
    match state {
        wire::ScheduleState::Active if !suspended => output::note(format!(
            "schedule {name} goes on firing by itself, too: `windlass schedule pause {name}`, or export it with --pause"
        )),
        wire::ScheduleState::Paused if suspended => output::note(format!(
            "schedule {name} is paused, so its CronJob is suspended; --suspend=false lets it fire"
        )),
        _ => {}
    }
}

fn is_loopback(address: &str) -> bool {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    rest.starts_with("127.") || rest.starts_with("localhost") || rest.starts_with("[::1]")
}

/// A refusal with the flags of its fields.
fn locate(mut error: CliError) -> CliError {
    for (path, wrong) in &mut error.fields {
        *wrong = spec::with_flags(wrong);
        *path = match FLAGS.iter().find(|(field, _)| field == path) {
            Some((_, flag)) => (*flag).to_owned(),
            None => spec::flag(path),
        };
    }
    match error.reason.as_deref() {
        Some("NOT_EXPORTABLE") => "the schedule cannot be a CronJob".clone_into(&mut error.message),
        Some("INVALID_EXPORT") => "the CronJob was refused".clone_into(&mut error.message),
        _ => {}
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_do_not_reach_this_machines_loopback() {
        assert!(is_loopback("http://127.0.0.1:7610") && is_loopback("localhost:7610") && is_loopback("http://[::1]:1"));
        assert!(!is_loopback("https://windlass-scheduler.windlass.svc:7600"));
    }
}
