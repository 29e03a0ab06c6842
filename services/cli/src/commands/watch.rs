//! `windlass watch`.

use super::follow::{Follow, FollowOptions, OnInterrupt};
use crate::args::{GlobalArgs, WatchArgs};
use crate::client::Session;
use crate::errors::{Exit, Result};

pub(super) async fn run(session: &Session, global: &GlobalArgs, args: &WatchArgs) -> Result<Exit> {
    let run = session.get_run(&args.run).await?;
    let options = FollowOptions {
        logs: args.logs,
        timeout: args.timeout,
        interrupt: OnInterrupt::Detach,
        quiet: false,
        flags: super::same_server(global),
    };
    Follow::new(session, run, options).run().await
}
