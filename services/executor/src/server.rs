//! Putting the parts together.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use windlass_service::{Access, Backoff, BackoffSettings, ChannelSettings, Clock, ServeSettings, ServerTls};

use crate::Config;
use crate::agent::{Agent, AgentParts, AgentSettings};
use crate::connect::{Introduction, Lease, Outbox, Session};
use crate::feed;
use crate::kubernetes::Api;

/// Events that wait for the agent; more make their senders wait.
const EVENTS: usize = 1024;

/// Runs an executor until `shutdown`, and then until it is drained.
///
/// `client` reaches the cluster; [`crate::kubernetes::connect`] makes one. `listener` serves health and reflection.
///
/// # Errors
/// When settings cannot work, or serving fails.
pub async fn run(
    config: Config,
    client: kube::Client,
    listener: Option<TcpListener>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    config.check()?;
    let api = Api::new(client);
    let token = config.token()?;
    let tls = config.tls.server()?;
    let serving = listener.map(|listener| tokio::spawn(serve(listener, tls.clone(), shutdown.clone())));
    let Some(cluster_uid) = cluster_uid(&api, &shutdown).await else {
        return Ok(());
    };
    let incarnation = uuid::Uuid::new_v4().to_string();
    tracing::info!(executor_id = %incarnation, cluster = %config.cluster, %cluster_uid, "executor started");
    let (events, inbox) = mpsc::channel(EVENTS);
    let (relays, named_relays) = watch::channel(Vec::new());
    let outbox = Arc::new(Outbox::default());
    let lease = Arc::new(Lease::default());
    let known = Arc::<feed::Known>::default();
    let dialer = feed::Dialer {
        token: token.clone(),
        tls: config.tls.client(),
        incarnation: incarnation.clone(),
        cluster_uid: cluster_uid.clone(),
        sources: feed::Sources {
            api: api.clone(),
            agent: events.clone(),
            clock: Clock::system(),
            known: Arc::clone(&known),
        },
    };
    let agent = Agent::new(
        agent_settings(&config)?,
        AgentParts {
            api,
            outbox: outbox.clone(),
            lease: lease.clone(),
            clock: Clock::system(),
            events: events.clone(),
            relays,
            known,
        },
    );
    let session = Session {
        channel: ChannelSettings {
            address: config.scheduler.clone(),
            token,
            user: None,
            tls: config.tls.client(),
        },
        introduction: introduction(&config, incarnation, cluster_uid),
        outbox,
        lease,
        agent: events,
        epoch: 0,
    };
    let stop = CancellationToken::new();
    let _guard = stop.clone().drop_guard();
    let session = tokio::spawn(session.run(stop.clone()));
    let feeding = tokio::spawn(feed::run(dialer, named_relays, stop.clone()));
    agent.run(inbox, shutdown).await;
    stop.cancel();
    feeding.await.context("feeding the log relays ended badly")?;
    session.await.context("the session ended badly")??;
    if let Some(serving) = serving {
        serving.await.context("serving ended badly")??;
    }
    Ok(())
}

fn agent_settings(config: &Config) -> Result<AgentSettings, crate::ConfigError> {
    Ok(AgentSettings {
        manifest: Arc::new(config.manifest_settings()?),
        policy: config.policy(),
        creates: config.creates_in_flight,
        create_timeout: config.create_timeout,
        api_timeout: config.api_timeout,
        own_namespace: config.own_namespace(),
        namespace_policy: config.namespace_policy,
        inventory_interval: config.inventory_interval,
        strip_after: config.strip_after,
        installation: config.installation,
        drain: config.drain,
        stuck_after: config.stuck_after,
    })
}

fn introduction(config: &Config, incarnation: String, cluster_uid: String) -> Introduction {
    let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned());
    Introduction {
        incarnation,
        name: config
            .name
            .clone()
            .or_else(|| host().ok())
            .unwrap_or_else(|| "executor".to_owned()),
        cluster_uid,
        cluster_alias: config.cluster.clone(),
        credit: config.credit,
        local_cluster: config.local_cluster,
        installation: config.installation,
    }
}

/// The identity of the cluster, as soon as its API server answers; nothing when told to stop first.
async fn cluster_uid(api: &Api, shutdown: &CancellationToken) -> Option<String> {
    let mut backoff = Backoff::new(BackoffSettings {
        max: Duration::from_secs(5),
        ..BackoffSettings::default()
    });
    loop {
        let asked = tokio::select! {
            () = shutdown.cancelled() => return None,
            asked = api.cluster_uid() => asked,
        };
        let error = match asked {
            Ok(uid) => return Some(uid),
            Err(error) => error,
        };
        let delay = backoff.next_delay(&mut rand::rng());
        tracing::warn!(%error, retry_in = ?delay, "the cluster does not answer");
        tokio::select! {
            () = shutdown.cancelled() => return None,
            () = tokio::time::sleep(delay) => {}
        }
    }
}

async fn serve(
    listener: TcpListener,
    tls: Option<ServerTls>,
    shutdown: CancellationToken,
) -> Result<(), windlass_service::ServeError> {
    let settings = ServeSettings {
        services: vec!["windlass.executor"],
        descriptors: windlass_api::DESCRIPTORS,
        access: Access::Open,
        tls,
        // Nothing but health and reflection.
        insecure: true,
    };
    windlass_service::serve(Routes::default(), settings, listener, shutdown).await
}
