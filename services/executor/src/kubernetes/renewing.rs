//! A client that finds its credentials again when they are refused or about to expire: the kubeconfig and all files are read and plugins
//! are run anew. Tokens with a known end are renewed before it by `kube` itself; this is for everything else that may change.
//!
//! What comes is held in memory alone (behaviours E25).

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use tokio::sync::Mutex;
use tokio::time::Instant;
use windlass_service::Clock;

use super::connect::{ConnectError, Source};

/// Least time between two renewals: who is refused for good asks no plugin again and again.
const PAUSE: Duration = Duration::from_secs(10);
/// How long before its end a certificate is renewed.
const AHEAD_MS: i64 = 60_000;
/// Longest that finding credentials may take: a plugin may wait for somebody.
const LONGEST: Duration = Duration::from_secs(60);

/// Credentials as they were found at one time.
#[derive(Clone)]
struct Generation {
    number: u64,
    client: Client,
}

struct Renewing {
    source: Source,
    current: RwLock<Generation>,
    /// When they were looked for last. Its holder is the only one who looks.
    looked: Mutex<Option<Instant>>,
    clock: Clock,
}

/// A client with the credentials of a source, today's and later ones.
///
/// # Errors
/// See [`ConnectError`].
pub(super) async fn client(source: Source) -> Result<Client, ConnectError> {
    let first = find(&source).await?;
    let namespace = first.default_namespace().to_owned();
    let renewing = Arc::new(Renewing {
        source,
        current: RwLock::new(Generation {
            number: 0,
            client: first,
        }),
        looked: Mutex::new(None),
        clock: Clock::system(),
    });
    let service = tower::service_fn(move |request| Arc::clone(&renewing).send(request));
    Ok(Client::new(service, namespace))
}

async fn find(source: &Source) -> Result<Client, ConnectError> {
    let config = source.config().await?;
    // It runs plugins, and waits for them.
    let made = tokio::task::spawn_blocking(move || Client::try_from(config));
    let made = tokio::time::timeout(LONGEST, made).await;
    let made = made.map_err(|_| ConnectError::TooSlow(LONGEST))?;
    Ok(made.map_err(|_| ConnectError::Broken)??)
}

impl Renewing {
    async fn send(self: Arc<Self>, request: Request<Body>) -> Result<Response<Body>, kube::Error> {
        let mut generation = self.current();
        if self.is_ending(&generation.client)
            && let Some(renewed) = self.renewed(generation.number).await
        {
            generation = renewed;
        }
        let Some(again) = copy(&request) else {
            return generation.client.send(request).await;
        };
        let response = generation.client.send(request).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        // Nothing was done, so that the same request may be sent again: once.
        match self.renewed(generation.number).await {
            Some(renewed) => renewed.client.send(again).await,
            None => Ok(response),
        }
    }

    fn current(&self) -> Generation {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is_ending(&self, client: &Client) -> bool {
        let end = client.valid_until().as_ref().map(|end| end.as_millisecond());
        end.is_some_and(|end| end - AHEAD_MS <= self.clock.now().as_millis())
    }

    /// Newer credentials than those of `number`: somebody else's, or what is found now.
    async fn renewed(&self, number: u64) -> Option<Generation> {
        let mut looked = self.looked.lock().await;
        let current = self.current();
        if current.number != number {
            return Some(current);
        }
        if looked.is_some_and(|last| last.elapsed() < PAUSE) {
            return None;
        }
        let found = find(&self.source).await;
        *looked = Some(Instant::now());
        match found {
            Ok(client) => {
                let renewed = Generation {
                    number: number + 1,
                    client,
                };
                tracing::info!("credentials of the API server were found again");
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = renewed.clone();
                Some(renewed)
            }
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(
                    error,
                    "credentials of the API server cannot be found again, those of before stay"
                );
                None
            }
        }
    }
}

/// The same request; none when its body is a stream.
fn copy(request: &Request<Body>) -> Option<Request<Body>> {
    let mut copy = Request::new(request.body().try_clone()?);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}
