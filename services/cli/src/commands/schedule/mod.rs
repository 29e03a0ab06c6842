//! `windlass schedule`.

mod export;
mod show;
mod spec;

use std::path::Path;

use serde_json::json;
use tonic::{Response, Status};
use windlass_api::convert::{parameters_to_proto, pipeline_to_proto};
use windlass_api::schedule::v1 as wire;
use windlass_api::schedule::v1::schedule_service_client::ScheduleServiceClient;
use windlass_service::AuthenticatedChannel;

use crate::args::{
    Format, GlobalArgs, PipelineArgs, ScheduleArgs, ScheduleCommand, ScheduleCreateArgs, ScheduleGetArgs,
    ScheduleListArgs, ScheduleNamesArgs, ScheduleTriggerArgs, ScheduleUpdateArgs,
};
use crate::client::{Patience, Session, retrying};
use crate::errors::{CliError, Exit, Result};
use crate::output::{self, to_json};
use crate::pipeline_file::PipelineFile;

/// Page size of the list.
const PAGE: u32 = 500;

type Client = ScheduleServiceClient<AuthenticatedChannel>;

pub(super) async fn run(global: &GlobalArgs, args: &ScheduleArgs) -> Result<Exit> {
    if global.local {
        return Err(
            CliError::bad_input("--local ends with its command, and a schedule needs a server that stays")
                .hint("start `windlass dev` in another terminal, and leave --local out"),
        );
    }
    match &args.command {
        ScheduleCommand::Create(args) => create(global, args).await,
        ScheduleCommand::Update(args) => update(global, args).await,
        other => super::with_session(global, async |session| with_server(session, other).await).await,
    }
}

async fn with_server(session: &Session, command: &ScheduleCommand) -> Result<Exit> {
    match command {
        ScheduleCommand::Get(args) => get(session, args).await,
        ScheduleCommand::List(args) => list(session, args).await,
        ScheduleCommand::Delete(args) => each(args, async |name| delete(session, name).await).await,
        ScheduleCommand::Pause(args) => each(args, async |name| pause(session, name).await).await,
        ScheduleCommand::Resume(args) => each(args, async |name| resume(session, name).await).await,
        ScheduleCommand::Trigger(args) => trigger(session, args).await,
        ScheduleCommand::Export(args) => export::run(session, args).await,
        ScheduleCommand::Create(_) | ScheduleCommand::Update(_) => Ok(Exit::Succeeded),
    }
}

/// Runs one call, again while the server is away.
async fn call<T, Fut>(session: &Session, once: impl Fn(Client) -> Fut) -> Result<T>
where
    Fut: Future<Output = std::result::Result<Response<T>, Status>>,
{
    let client = || {
        session
            .schedules()
            .max_encoding_message_size(windlass_api::MAX_SUBMIT_BYTES)
    };
    retrying(session.address(), Patience::USUAL, || once(client())).await
}

/// What is called for one request.
macro_rules! call {
    ($session:expr, $method:ident, $request:expr) => {{
        let request = $request;
        call($session, |mut client| {
            let request = request.clone();
            async move { client.$method(request).await }
        })
        .await
    }};
}

async fn create(global: &GlobalArgs, args: &ScheduleCreateArgs) -> Result<Exit> {
    // Everything is checked before anything is reached.
    let is_stdin = args.pipeline.file == Path::new("-");
    super::secret::check_stdin(&args.secrets, is_stdin.then_some("FILE"))?;
    let file = read(&args.pipeline)?;
    let secrets = super::secret::of_run(&args.secrets)?;
    let spec = spec::of(&args.timing)?;
    if spec.timing.is_none() {
        return Err(
            CliError::bad_input("when should it fire?").hint("give --cron PATTERN, --every DURATION or --at TIME")
        );
    }
    super::with_session(global, async |session| {
        let request = wire::CreateScheduleRequest {
            namespace: session.namespace.clone(),
            request_id: super::request_id(),
            schedule: args.name.clone(),
            spec: Some(spec.clone()),
            pipeline: Some(pipeline_to_proto(file.pipeline())),
            parameters: parameters_to_proto(file.parameters()),
            paused: args.paused,
            secrets: secrets.clone(),
        };
        let made = call!(session, create_schedule, request).map_err(|error| spec::locate(error, Some(&file)))?;
        let schedule = present(made.schedule)?;
        print(args.output.output, &schedule, "is made")
    })
    .await
}

async fn update(global: &GlobalArgs, args: &ScheduleUpdateArgs) -> Result<Exit> {
    let is_stdin = args.file.as_deref() == Some(Path::new("-"));
    super::secret::check_stdin(&args.secrets, is_stdin.then_some("FILE"))?;
    let file = args.file.as_ref().map(|file| {
        read(&PipelineArgs {
            file: file.clone(),
            params: args.params.clone(),
        })
    });
    let file = file.transpose()?;
    let (spec, paths) = spec::changes(args)?;
    if paths.is_empty() {
        return Err(CliError::bad_input("nothing to change")
            .hint("`windlass schedule update --help` lists what can be changed"));
    }
    let secrets = super::secret::of_run(&args.secrets)?;
    super::with_session(global, async |session| {
        let request = wire::UpdateScheduleRequest {
            namespace: session.namespace.clone(),
            request_id: super::request_id(),
            schedule: args.name.clone(),
            spec: Some(spec.clone()),
            pipeline: file.as_ref().map(|file| pipeline_to_proto(file.pipeline())),
            parameters: file
                .as_ref()
                .map(|file| parameters_to_proto(file.parameters()))
                .unwrap_or_default(),
            paused: false,
            update_mask: Some(prost_types::FieldMask { paths: paths.clone() }),
            secrets: secrets.clone(),
        };
        let changed = call!(session, update_schedule, request).map_err(|error| spec::locate(error, file.as_ref()))?;
        let schedule = present(changed.schedule)?;
        print(args.output.output, &schedule, "is changed")
    })
    .await
}

fn read(args: &PipelineArgs) -> Result<PipelineFile> {
    let file = PipelineFile::read(args)?;
    file.check().map_err(|violations| file.error(&violations))?;
    Ok(file)
}

async fn get(session: &Session, args: &ScheduleGetArgs) -> Result<Exit> {
    if args.pipeline {
        output::raw(&pipeline(session, &args.name).await?)?;
        return Ok(Exit::Succeeded);
    }
    let request = wire::GetScheduleRequest {
        namespace: session.namespace.clone(),
        schedule: args.name.clone(),
        next_count: args.next,
    };
    let schedule = present(call!(session, get_schedule, request)?.schedule)?;
    let now = session.clock.now();
    output::data(args.output.output, &to_json(&schedule), || show::all(&schedule, now))?;
    Ok(Exit::Succeeded)
}

async fn pipeline(session: &Session, name: &str) -> Result<Vec<u8>> {
    let request = wire::GetSchedulePipelineRequest {
        namespace: session.namespace.clone(),
        schedule: name.to_owned(),
    };
    let mut stream = call!(session, get_schedule_pipeline, request)?;
    let mut text = Vec::new();
    while let Some(part) = stream
        .message()
        .await
        .map_err(|status| CliError::from_status(&status))?
    {
        text.extend_from_slice(&part.chunk);
    }
    Ok(text)
}

async fn list(session: &Session, args: &ScheduleListArgs) -> Result<Exit> {
    let (mut schedules, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = wire::ListSchedulesRequest {
            namespace: if args.all_namespaces {
                "*".to_owned()
            } else {
                session.namespace.clone()
            },
            page_size: PAGE,
            page_token: page_token.clone(),
        };
        let page = call!(session, list_schedules, request)?;
        schedules.extend(page.schedules);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let value = json!({"schedules": schedules.iter().map(to_json).collect::<Vec<_>>()});
    output::data(args.output.output, &value, || {
        if schedules.is_empty() {
            return String::new();
        }
        show::table(&schedules, args.all_namespaces)
    })?;
    if schedules.is_empty() && args.output.output == Format::Table {
        output::note(if args.all_namespaces {
            "no schedules".to_owned()
        } else {
            format!("no schedules in namespace {}", session.namespace)
        });
    }
    Ok(Exit::Succeeded)
}

async fn trigger(session: &Session, args: &ScheduleTriggerArgs) -> Result<Exit> {
    let request = wire::TriggerScheduleRequest {
        namespace: session.namespace.clone(),
        request_id: args.request_id.clone().unwrap_or_else(super::request_id),
        schedule: args.name.clone(),
        obey_overlap_policy: args.obey_overlap,
    };
    let triggered = match call!(session, trigger_schedule, request) {
        // That is what the policy is for.
        Err(error) if error.reason.as_deref() == Some("OVERLAPPED") => {
            output::note(format!("skipped: {}", error.message));
            return Ok(Exit::Succeeded);
        }
        triggered => triggered?,
    };
    if !triggered.created {
        output::note("an earlier request with this id had created the run");
    }
    let run = triggered
        .run
        .ok_or_else(|| CliError::failed("the server answered without the run"))?;
    if !args.wait {
        output::data(args.output.output, &to_json(&run), || run.name.clone())?;
        return Ok(Exit::Succeeded);
    }
    output::note(format!("run {} is accepted", run.name));
    let ended = super::wait::ended(session, &run).await?;
    output::data(args.output.output, &to_json(&ended), || super::wait::summary(&ended))?;
    Ok(super::exit_of(&ended))
}

/// A schedule afterwards; none of one that is deleted, with what is said about it.
type Done = (Option<wire::Schedule>, &'static str);

async fn delete(session: &Session, name: &str) -> Result<Done> {
    let request = wire::DeleteScheduleRequest {
        namespace: session.namespace.clone(),
        request_id: super::request_id(),
        schedule: name.to_owned(),
    };
    call!(session, delete_schedule, request)?;
    Ok((None, "is deleted; its runs stay"))
}

async fn pause(session: &Session, name: &str) -> Result<Done> {
    let request = wire::PauseScheduleRequest {
        namespace: session.namespace.clone(),
        request_id: super::request_id(),
        schedule: name.to_owned(),
    };
    Ok((
        Some(present(call!(session, pause_schedule, request)?.schedule)?),
        "is paused",
    ))
}

async fn resume(session: &Session, name: &str) -> Result<Done> {
    let request = wire::ResumeScheduleRequest {
        namespace: session.namespace.clone(),
        request_id: super::request_id(),
        schedule: name.to_owned(),
    };
    Ok((
        Some(present(call!(session, resume_schedule, request)?.schedule)?),
        "is resumed",
    ))
}

/// Does the same with each schedule; of several failures all are told.
async fn each(args: &ScheduleNamesArgs, work: impl AsyncFn(&str) -> Result<Done>) -> Result<Exit> {
    let mut failure: Option<CliError> = None;
    for name in &args.names {
        match work(name).await {
            Ok((Some(schedule), did)) => drop(print(args.output.output, &schedule, did)?),
            Ok((None, did)) => {
                let value = json!({"name": name, "deleted": true});
                output::data(args.output.output, &value, || format!("schedule {name} {did}"))?;
            }
            Err(error) => {
                if let Some(earlier) = failure.replace(error) {
                    output::note(earlier.render());
                }
            }
        }
    }
    failure.map_or(Ok(Exit::Succeeded), Err)
}

fn print(format: Format, schedule: &wire::Schedule, did: &str) -> Result<Exit> {
    output::data(format, &to_json(schedule), || show::line(schedule, did))?;
    Ok(Exit::Succeeded)
}

fn present(schedule: Option<wire::Schedule>) -> Result<wire::Schedule> {
    schedule.ok_or_else(|| CliError::failed("the server answered without the schedule"))
}

/// Whether a path names the pipeline of a request.
fn is_of_pipeline(path: &str) -> bool {
    ["pipeline", "parameters"].iter().any(|root| {
        path.strip_prefix(root)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    })
}
