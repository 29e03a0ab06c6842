//! List and watch of one kind, as raw bytes.
//!
//! Lists are consistent (never `resourceVersion=0`) and come in pages; watches have bookmarks, resume at the last version and begin
//! anew, with jitter, when that is too old.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use rand::Rng as _;
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use windlass_service::{Backoff, BackoffSettings};

use super::api::{Api, ApiError, Call};
use super::query::Query;
use super::requests::PAGE;

/// Length of one watch request: between this and twice this, so that many of them do not end together.
const WATCH_SECONDS: u64 = 300;
/// How long a watch may say nothing: bookmarks come every minute, so that its connection has died without a sign.
const MAX_SILENCE: Duration = Duration::from_secs(180);
const BACKOFF: BackoffSettings = BackoffSettings {
    initial: Duration::from_millis(100),
    factor: 2.0,
    max: Duration::from_secs(10),
};

/// What is listed and watched.
#[derive(Clone, Debug)]
pub struct Target {
    /// Path of the collection.
    pub path: &'static str,
    /// Label selector; empty for all.
    pub selector: String,
}

/// What a reflector or a single list delivers.
#[derive(Debug)]
pub enum Delivery {
    /// A list begins: the receiver notes what it knows, and answers with the number under which it does.
    ListBegins(oneshot::Sender<u32>),
    /// A page of the list.
    Page(Bytes),
    /// The list is complete.
    Listed {
        /// The receiver's number.
        generation: u32,
        /// Its resource version.
        resource_version: String,
    },
    /// An event of the watch: a line of JSON with type and object.
    Event(Bytes),
    /// The cluster answers again.
    Sees,
    /// The cluster does not answer, or not what was asked.
    Blind(ApiError),
}

/// The receiver is gone.
#[derive(Debug)]
struct Closed;

/// Why a list or watch ended.
enum Broken {
    Closed,
    Api(ApiError),
}

impl From<Closed> for Broken {
    fn from(_: Closed) -> Self {
        Self::Closed
    }
}

impl From<ApiError> for Broken {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

/// Lists and watches until `stop` or until nobody receives.
pub async fn reflect<T>(
    api: Api,
    target: Target,
    out: mpsc::Sender<T>,
    wrap: impl Fn(Delivery) -> T + Send + Sync,
    stop: CancellationToken,
) where
    T: Send,
{
    let reflector = Reflector { api, target, out, wrap };
    tokio::select! {
        () = stop.cancelled() => {}
        Closed = reflector.run() => {}
    }
}

/// Lists once, delivering like a reflector.
pub async fn list_once<T: Send>(
    api: Api,
    target: Target,
    out: mpsc::Sender<T>,
    wrap: impl Fn(Delivery) -> T + Send + Sync,
) {
    let reflector = Reflector { api, target, out, wrap };
    if let Err(Broken::Api(error)) = reflector.list().await {
        drop(reflector.deliver(Delivery::Blind(error)).await);
    }
}

struct Reflector<T, W> {
    api: Api,
    target: Target,
    out: mpsc::Sender<T>,
    wrap: W,
}

impl<T: Send, W: Fn(Delivery) -> T + Send + Sync> Reflector<T, W> {
    async fn run(&self) -> Closed {
        let mut backoff = Backoff::new(BACKOFF);
        loop {
            match self.list().await {
                Ok(version) => {
                    backoff.reset();
                    if let Broken::Closed = self.watch(version).await {
                        return Closed;
                    }
                    // Too old: a relist, not at the same moment as everybody else.
                    pause(&mut backoff, None).await;
                }
                Err(Broken::Closed) => return Closed,
                Err(Broken::Api(error)) => {
                    let wait = error.retry_after();
                    if self.deliver(Delivery::Blind(error)).await.is_err() {
                        return Closed;
                    }
                    pause(&mut backoff, wait).await;
                }
            }
        }
    }

    async fn list(&self) -> Result<String, Broken> {
        let (reply, generation) = oneshot::channel();
        self.deliver(Delivery::ListBegins(reply)).await?;
        let generation = generation.await.map_err(|_| Closed)?;
        let mut rest = String::new();
        loop {
            let page = self.page(&rest).await?;
            let head: PageHead = parse(&page)?;
            self.deliver(Delivery::Page(page)).await?;
            rest = head.metadata.rest;
            if rest.is_empty() {
                let resource_version = head.metadata.resource_version;
                self.deliver(Delivery::Sees).await?;
                let version = resource_version.clone();
                self.deliver(Delivery::Listed {
                    generation,
                    resource_version,
                })
                .await?;
                return Ok(version);
            }
        }
    }

    async fn page(&self, rest: &str) -> Result<Bytes, ApiError> {
        let mut query = Query::new(self.target.path.to_owned()).with("limit", &PAGE.to_string());
        if !self.target.selector.is_empty() {
            query = query.with("labelSelector", &self.target.selector);
        }
        if !rest.is_empty() {
            query = query.with("continue", rest);
        }
        let call = Call::new("list", Method::GET, query.build()).timeout(Duration::from_secs(60));
        self.api.call(call).await
    }

    /// Watches until the version is too old.
    async fn watch(&self, mut version: String) -> Broken {
        let mut backoff = Backoff::new(BACKOFF);
        loop {
            let before = version.clone();
            match self.watch_once(&mut version).await {
                Ok(()) => {}
                Err(Broken::Closed) => return Broken::Closed,
                Err(Broken::Api(error)) if error.code() == Some(410) => return Broken::Api(error),
                Err(Broken::Api(error)) => {
                    let wait = error.retry_after();
                    if error.is_blindness() && self.deliver(Delivery::Blind(error)).await.is_err() {
                        return Broken::Closed;
                    }
                    pause(&mut backoff, wait).await;
                    continue;
                }
            }
            if version == before {
                // Ended without a word: not in a tight loop.
                pause(&mut backoff, None).await;
            } else {
                backoff.reset();
            }
        }
    }

    async fn watch_once(&self, version: &mut String) -> Result<(), Broken> {
        let seconds = rand::rng().random_range(WATCH_SECONDS..WATCH_SECONDS * 2);
        let mut query = Query::new(self.target.path.to_owned())
            .with("watch", "true")
            .with("allowWatchBookmarks", "true")
            .with("timeoutSeconds", &seconds.to_string())
            .with("resourceVersion", version);
        if !self.target.selector.is_empty() {
            query = query.with("labelSelector", &self.target.selector);
        }
        let mut stream = self.api.stream(Call::new("watch", Method::GET, query.build())).await?;
        self.deliver(Delivery::Sees).await?;
        let deadline = tokio::time::Instant::now() + Duration::from_secs(seconds + 30);
        let mut last = None;
        let result = self.events(&mut stream, deadline, &mut last).await;
        if let Some(line) = last {
            let event: EventHead = parse(&line)?;
            *version = event.object.metadata.resource_version;
        }
        result
    }

    async fn events(
        &self,
        stream: &mut super::api::Stream,
        deadline: tokio::time::Instant,
        last: &mut Option<Bytes>,
    ) -> Result<(), Broken> {
        let silence = || tokio::time::Instant::now() + MAX_SILENCE;
        while let Ok(line) = tokio::time::timeout_at(deadline.min(silence()), stream.line()).await {
            let Some(line) = line? else { return Ok(()) };
            let head = &line[..line.len().min(24)];
            if contains(head, b"\"ERROR\"") {
                return Err(Broken::Api(error_event(&line)));
            }
            if line.is_empty() {
                continue;
            }
            *last = Some(line.clone());
            if !contains(head, b"\"BOOKMARK\"") {
                self.deliver(Delivery::Event(line)).await?;
            }
        }
        Ok(())
    }

    async fn deliver(&self, delivery: Delivery) -> Result<(), Closed> {
        self.out.send((self.wrap)(delivery)).await.map_err(|_| Closed)
    }
}

async fn pause(backoff: &mut Backoff, least: Option<Duration>) {
    let delay = backoff.next_delay(&mut rand::rng());
    tokio::time::sleep(least.map_or(delay, |least| least.max(delay))).await;
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn error_event(line: &[u8]) -> ApiError {
    #[derive(Deserialize)]
    struct ErrorEvent<'a> {
        #[serde(borrow)]
        object: &'a serde_json::value::RawValue,
    }
    #[derive(Deserialize)]
    struct Code {
        code: u16,
    }
    let event: Result<ErrorEvent<'_>, _> = serde_json::from_slice(line);
    let Ok(event) = event else {
        return ApiError::Malformed("an error event".to_owned());
    };
    let body = event.object.get().as_bytes();
    let code: Option<Code> = serde_json::from_slice(body).ok();
    let status = code.and_then(|code| http::StatusCode::from_u16(code.code).ok());
    let status = status.unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    ApiError::Refused(Box::new(super::api::refusal(status, None, body)))
}

fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, ApiError> {
    serde_json::from_slice(bytes).map_err(|error| ApiError::Malformed(error.to_string()))
}

#[derive(Deserialize)]
struct PageHead {
    metadata: PageMeta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PageMeta {
    resource_version: String,
    #[serde(default, rename = "continue")]
    rest: String,
}

#[derive(Deserialize)]
struct EventHead {
    object: EventObject,
}

#[derive(Deserialize)]
struct EventObject {
    metadata: EventMeta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EventMeta {
    resource_version: String,
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};
    use http_body_util::{BodyExt as _, Full, StreamBody};
    use kube::client::Body;

    use super::*;

    /// A list of nothing, and watches that say nothing and do not end.
    fn silent_api() -> (Api, mpsc::UnboundedReceiver<tokio::time::Instant>) {
        let (began, watches) = mpsc::unbounded_channel();
        let service = tower::service_fn(move |request: Request<Body>| {
            let watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
            let body = if watch {
                began.send(tokio::time::Instant::now()).ok();
                type Frame = Result<http_body::Frame<Bytes>, std::io::Error>;
                StreamBody::new(futures::stream::pending::<Frame>()).boxed_unsync()
            } else {
                let list = r#"{"metadata": {"resourceVersion": "7"}, "items": []}"#;
                let never = |never: std::convert::Infallible| match never {};
                Full::new(Bytes::from(list)).map_err(never).boxed_unsync()
            };
            std::future::ready(Ok::<_, std::io::Error>(Response::new(body)))
        });
        (Api::new(kube::Client::new(service, "default")), watches)
    }

    #[tokio::test(start_paused = true)]
    async fn i10_a_watch_whose_connection_died_without_a_sign_is_begun_anew() {
        let (api, mut watches) = silent_api();
        let target = Target {
            path: "/api/v1/pods",
            selector: String::new(),
        };
        let (out, mut deliveries) = mpsc::channel(8);
        tokio::spawn(reflect(api, target, out, |delivery| delivery, CancellationToken::new()));
        tokio::spawn(async move {
            while let Some(delivery) = deliveries.recv().await {
                if let Delivery::ListBegins(reply) = delivery {
                    reply.send(1).ok();
                }
            }
        });
        let first = watches.recv().await.expect("a watch");
        let second = watches.recv().await.expect("another one");
        assert!(second - first < Duration::from_secs(200), "{:?}", second - first);
    }
}
