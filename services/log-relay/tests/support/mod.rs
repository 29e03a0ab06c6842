//! A scripted scheduler, scripted executors and clients, around the real relay.
#![allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    reason = "every test file uses a part of it"
)]

pub mod client;
pub mod executor;
pub mod scheduler;

use std::path::Path;
use std::time::Duration;

use clap::Parser as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use windlass_log_relay::{Config, server};

/// Bound on every wait.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The run that the tests read.
pub const RUN: [u8; 16] = [7; 16];

/// The real relay in a runtime of its own, so that it can be killed with everything that it runs.
pub struct Relay {
    runtime: Option<tokio::runtime::Runtime>,
    pub address: String,
    shutdown: CancellationToken,
    done: Option<tokio::task::JoinHandle<anyhow::Result<()>>>,
}

impl Relay {
    pub async fn start(folder: &Path, scheduler: &str) -> Self {
        Self::start_at(folder, scheduler, "127.0.0.1:0", &[]).await
    }

    pub async fn start_at(folder: &Path, scheduler: &str, listen: &str, more: &[&str]) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("relay")
            .enable_all()
            .build()
            .expect("runtime");
        let mut arguments = vec![
            "relay",
            "--scheduler",
            scheduler,
            "--data-dir",
            folder.to_str().expect("UTF-8"),
        ];
        arguments.extend(more);
        let config = Config::parse_from(arguments);
        let listen = listen.to_owned();
        let bind = runtime.spawn(async move { bind(&listen).await });
        let listener = bind.await.expect("bound");
        let address = format!("http://{}", listener.local_addr().expect("address"));
        let shutdown = CancellationToken::new();
        let done = runtime.spawn(server::run(config, listener, shutdown.clone()));
        Self {
            runtime: Some(runtime),
            address,
            shutdown,
            done: Some(done),
        }
    }

    /// As `kill -9` would: nothing is finished or told.
    pub async fn kill(mut self) {
        let runtime = self.runtime.take().expect("running");
        tokio::task::spawn_blocking(move || drop(runtime))
            .await
            .expect("dropped");
    }

    /// Asks it to stop and waits until it has.
    pub async fn stop(mut self) {
        self.shutdown.cancel();
        let done = self.done.take().expect("running");
        within(done).await.expect("no panic").expect("an orderly end");
        self.kill().await;
    }

    pub fn begin_shutdown(&self) {
        self.shutdown.cancel();
    }

    pub fn channel(&self) -> Channel {
        channel(&self.address)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn bind(address: &str) -> TcpListener {
    // After a kill the port may be busy for a moment.
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub fn channel(address: &str) -> Channel {
    Endpoint::from_shared(address.to_owned())
        .expect("address")
        .connect_lazy()
}

/// Waits for a future, bounded.
pub async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("in time")
}

/// Waits until a condition holds, bounded.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
