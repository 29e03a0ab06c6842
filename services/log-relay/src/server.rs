//! The relay put together: storage, the session with the scheduler, and the gRPC server.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use windlass_api::feed::v1::feed_service_server::FeedServiceServer;
use windlass_api::relay::v1::relay_service_server::RelayServiceServer;
use windlass_service::{Access, ChannelSettings, ServeSettings, Tokens, connect_lazy, serve};

use crate::config::Config;
use crate::feed::{Feed, MAX_REQUEST_BYTES};
use crate::follow::Follow;
use crate::hub::{Hub, HubParts, SEALERS};
use crate::outbox::Outbox;
use crate::store::archive::Archive;
use crate::store::folder::DataFolder;
use crate::tail::{LogEndpoint, Logs, Owned};
use crate::writer::{Writer, WriterHandle};

/// Serves until `shutdown`, then lets streams end by themselves.
///
/// # Errors
/// When the data folder or the archive cannot be used or is in use (a store that cannot be reached is waited for), a token file cannot
/// be read, an address does not parse, or the transport fails.
pub async fn run(config: Config, listener: TcpListener, shutdown: CancellationToken) -> anyhow::Result<()> {
    let folder = DataFolder::open(&config.data_dir)?;
    let archive = Archive::open(config.archive.as_deref(), &folder.archive())?;
    let usable = archive.is_usable().await?;
    let access = Access::open(config.access_file.as_deref(), config.token_file.as_deref())?;
    let token = config.token_file.as_deref().map(Tokens::first_in_file).transpose()?;
    let tls = config.tls.server()?;
    let address = listener.local_addr().context("the listener has no address")?;
    let advertised = config
        .advertised_address
        .unwrap_or_else(|| format!("{}://{address}", config.tls.scheme()));
    let settings = ChannelSettings {
        address: config.scheduler,
        token,
        user: None,
        tls: config.tls.client(),
    };
    let channel = connect_lazy(&settings)?;

    let (writer, jobs) = WriterHandle::new(config.write_buffer);
    let hub = Arc::new(Hub::new(HubParts {
        relay: folder.relay_id()?,
        advertised: advertised.clone(),
        live: folder.live(),
        archive,
        writer,
        outbox: Arc::new(Outbox::default()),
        peers: settings,
        shutdown: shutdown.clone(),
    }));
    // Dropped before the folder, so that the lock outlives the last write.
    let writing = Writer::start(Arc::clone(&hub), jobs).context("no thread for the log writer")?;

    let follow = Follow {
        hub: Arc::clone(&hub),
        channel,
        name: config.name.unwrap_or(advertised),
        epoch: AtomicU64::new(0),
    };
    hub.tasks.spawn(follow.run());
    if !usable {
        hub.tasks.spawn(Arc::clone(&hub).wait_for_archive());
    }
    for _ in 0..SEALERS {
        hub.tasks.spawn(Arc::clone(&hub).run_sealer());
    }

    let feed = FeedServiceServer::new(Feed { hub: Arc::clone(&hub) }).max_decoding_message_size(MAX_REQUEST_BYTES);
    let routes = Routes::new(LogEndpoint::new(Logs::new(Arc::clone(&hub), config.max_readers)))
        .add_service(feed)
        .add_service(RelayServiceServer::new(Owned { hub: Arc::clone(&hub) }));
    let settings = ServeSettings {
        services: vec![
            "windlass.log.v1.LogService",
            "windlass.feed.v1.FeedService",
            "windlass.relay.v1.RelayService",
        ],
        descriptors: windlass_api::DESCRIPTORS,
        access,
        tls,
        insecure: config.insecure,
    };
    let served = serve(routes, settings, listener, shutdown.clone()).await;
    shutdown.cancel();
    hub.tasks.close();
    hub.tasks.wait().await;
    drop(writing);
    drop(folder);
    Ok(served?)
}
