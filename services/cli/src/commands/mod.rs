//! One file for each command.

mod cancel;
mod cluster;
mod completion;
mod confirm_dead;
mod delete;
mod dev;
mod explain;
mod follow;
mod get;
mod graph;
mod list;
mod local_cluster;
mod logs;
mod pipeline;
mod purge;
mod reference;
mod render;
mod retry;
mod run;
mod run_step;
mod schedule;
mod schema;
mod secret;
mod service_account;
mod token;
mod validate;
mod wait;
mod watch;

use crate::args::{Cli, Command, GlobalArgs};
use crate::client::Session;
use crate::errors::{Exit, Result};

/// What is said first under `--local`.
const LOCAL_STEPS: &str = "steps run as processes of this machine: images and resource amounts are not used";

/// Carries out a command; its exit status.
pub(crate) async fn run(cli: Cli) -> Result<Exit> {
    let global = &cli.global;
    match &cli.command {
        Command::Run(args) => run::run(global, args).await,
        Command::RunStep(args) => run_step::run(global, args).await,
        Command::Validate(args) => validate::run(global, args).await,
        Command::Render(args) => render::run(global, args),
        Command::List(args) => with_session(global, async |session| list::run(session, args).await).await,
        Command::Get(args) => with_session(global, async |session| get::run(session, args).await).await,
        Command::Watch(args) => with_session(global, async |session| watch::run(session, global, args).await).await,
        Command::Wait(args) => with_session(global, async |session| wait::run(session, args).await).await,
        Command::Logs(args) => with_session(global, async |session| logs::run(session, args).await).await,
        Command::Cancel(args) => with_session(global, async |session| cancel::run(session, args).await).await,
        Command::Retry(args) => retry::run(global, args).await,
        Command::Explain(args) => with_session(global, async |session| explain::run(session, args).await).await,
        Command::Delete(args) => with_session(global, async |session| delete::run(session, args).await).await,
        Command::ConfirmDead(args) => {
            with_session(global, async |session| confirm_dead::run(session, args).await).await
        }
        Command::Graph(args) => graph::run(global, args).await,
        Command::Schema(_) => schema::run(),
        Command::Secret(args) => secret::run(global, args).await,
        Command::Schedule(args) => schedule::run(global, args).await,
        Command::Cluster(args) => cluster::run(global, args).await,
        Command::Completion(args) => completion::run(args),
        Command::Token(args) => token::run(args),
        Command::Dev(args) => dev::run(global, args).await,
        Command::LocalCluster(args) => local_cluster::run(global, args).await,
        Command::Reference(args) => reference::run(args),
    }
}

/// Opens a session, does the work, and closes it in any case.
async fn with_session(global: &GlobalArgs, work: impl AsyncFnOnce(&Session) -> Result<Exit>) -> Result<Exit> {
    let session = Session::open(global).await?;
    let result = work(&session).await;
    if result.as_ref().is_err_and(|error| error.exit == Exit::Interrupted) {
        session.abandon().await;
        return result;
    }
    let closed = session.close().await;
    let exit = result?;
    closed?;
    Ok(exit)
}

/// Options that make a printed command reach the same server.
fn same_server(global: &GlobalArgs) -> String {
    let mut flags = String::new();
    if let Some(server) = &global.server
        && std::env::var("WINDLASS_SERVER").as_ref() != Ok(server)
    {
        flags.push_str(&format!(" --server {server}"));
    }
    if let Some(file) = &global.token_file
        && std::env::var_os("WINDLASS_TOKEN_FILE").is_none_or(|set| set != *file)
    {
        flags.push_str(&format!(" --token-file {}", file.display()));
    }
    for (flag, variable, file) in [
        ("--ca", "WINDLASS_CA", &global.ca),
        ("--client-cert", "WINDLASS_CLIENT_CERT", &global.client_cert),
        ("--client-key", "WINDLASS_CLIENT_KEY", &global.client_key),
    ] {
        if let Some(file) = file
            && std::env::var_os(variable).is_none_or(|set| set != *file)
        {
            flags.push_str(&format!(" {flag} {}", file.display()));
        }
    }
    if global.local {
        flags.push_str(" --local");
    }
    if let Some(folder) = &global.data_dir
        && std::env::var_os("WINDLASS_DATA_DIR").is_none_or(|set| set != *folder)
    {
        flags.push_str(&format!(" --data-dir {}", folder.display()));
    }
    if global.namespace != "default" && std::env::var("WINDLASS_NAMESPACE").as_ref() != Ok(&global.namespace) {
        flags.push_str(&format!(" -n {}", global.namespace));
    }
    flags
}

/// Exit status of an ended run.
fn exit_of(run: &windlass_api::run::v1::Run) -> Exit {
    use windlass_api::run::v1::RunState;
    match run.state() {
        RunState::Succeeded => Exit::Succeeded,
        RunState::Cancelled => Exit::Cancelled,
        _ => Exit::Failed,
    }
}

/// An id for a request, so that a repeated one is recognised.
fn request_id() -> String {
    uuid::Uuid::new_v4().to_string()
}
