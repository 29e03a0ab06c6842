//! Requests to the API server, with the raw answer: what a `Status` says matters, and so does not knowing.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde::Deserialize;

use crate::metrics;

/// Longest line of a watch.
const MAX_LINE: usize = 8 * 1024 * 1024;
/// Longest answer that is read into memory; a page of 500 pods is about 5 MiB.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// An answer that is not what was asked for.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ApiError {
    /// The API server said no.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// The connection failed, or no answer came in time: whether it was done is unknown.
    #[error("no answer: {0}")]
    NoAnswer(String),
    /// The answer does not parse.
    #[error("the answer cannot be read: {0}")]
    Malformed(String),
}

/// What the API server said.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
#[error("{code} {reason}: {message}")]
pub struct Refusal {
    /// HTTP status.
    pub code: u16,
    /// Machine-readable reason.
    pub reason: String,
    /// For people.
    pub message: String,
    /// When to come again.
    pub retry_after: Option<Duration>,
    /// Reasons of the causes.
    pub causes: Vec<String>,
    /// Fields that the causes name.
    pub fields: Vec<String>,
}

impl ApiError {
    /// The refusal, when it is one.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            Self::NoAnswer(_) | Self::Malformed(_) => None,
        }
    }

    /// Whether what was asked for may still be done: there was no answer, or one of a server in trouble.
    pub fn is_open(&self) -> bool {
        self.code().is_none_or(|code| code >= 500)
    }

    /// The HTTP status of a refusal.
    pub fn code(&self) -> Option<u16> {
        self.refusal().map(|refusal| refusal.code)
    }

    /// When the API server wants to be asked again.
    pub fn retry_after(&self) -> Option<Duration> {
        self.refusal().and_then(|refusal| refusal.retry_after)
    }

    /// Whether the cluster cannot be seen: no answer, or the API server is in trouble.
    pub fn is_blindness(&self) -> bool {
        self.code()
            .is_none_or(|code| code >= 500 || matches!(code, 401 | 403 | 429))
    }
}

/// A call to the API server.
pub struct Call {
    /// Name of the verb for metrics.
    pub verb: &'static str,
    /// Method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// Type of the body.
    pub content_type: &'static str,
    /// Types of answers that are understood.
    pub accept: &'static str,
    /// Body.
    pub body: Vec<u8>,
    /// How long to wait for the whole answer; for a stream, for its begin.
    pub timeout: Duration,
}

impl std::fmt::Debug for Call {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A body may be a Secret (I8).
        write!(
            formatter,
            "Call({} {}, {} bytes)",
            self.method,
            self.path,
            self.body.len()
        )
    }
}

impl Call {
    /// A call without a body.
    pub fn new(verb: &'static str, method: Method, path: String) -> Self {
        Self {
            verb,
            method,
            path,
            content_type: "application/json",
            accept: "application/json",
            body: Vec::new(),
            timeout: Duration::from_secs(30),
        }
    }

    /// With a body.
    #[must_use]
    pub fn body(self, content_type: &'static str, body: Vec<u8>) -> Self {
        Self {
            content_type,
            body,
            ..self
        }
    }

    /// With another bound on its time.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }
}

/// The API server of a cluster.
#[derive(Clone)]
pub struct Api {
    client: kube::Client,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Api")
    }
}

impl Api {
    /// Through this client, which must not retry by itself.
    pub fn new(client: kube::Client) -> Self {
        Self { client }
    }

    /// Makes a call and reads the whole answer.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn call(&self, call: Call) -> Result<Bytes, ApiError> {
        let (verb, timeout) = (call.verb, call.timeout);
        let answer = async { collect(self.begin(call).await?).await };
        in_time(verb, timeout, answer).await
    }

    /// Makes a call and streams the answer.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn stream(&self, call: Call) -> Result<Stream, ApiError> {
        let (verb, timeout) = (call.verb, call.timeout);
        let begin = async { self.begin(call).await.map(Stream::new) };
        in_time(verb, timeout, begin).await
    }

    /// Sends a call; the body of a success.
    async fn begin(&self, call: Call) -> Result<Body, ApiError> {
        let request = Request::builder()
            .method(call.method)
            .uri(call.path)
            .header(header::CONTENT_TYPE, call.content_type)
            .header(header::ACCEPT, call.accept)
            .body(Body::from(call.body))
            .map_err(|error| ApiError::Malformed(error.to_string()))?;
        let sent = self.client.send(request).await;
        let response = sent.map_err(|error| ApiError::NoAnswer(chain(&error)))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response.into_body());
        }
        let retry_after = retry_after(&response);
        let bytes = collect(response.into_body()).await?;
        Err(ApiError::Refused(Box::new(refusal(status, retry_after, &bytes))))
    }
}

async fn in_time<T>(
    verb: &'static str,
    timeout: Duration,
    answer: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, ApiError> {
    let result = tokio::time::timeout(timeout, answer).await;
    let result = result.unwrap_or_else(|_| Err(ApiError::NoAnswer(format!("none within {timeout:?}"))));
    metrics::api_request(verb, result.as_ref().err());
    result
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

async fn collect(mut body: Body) -> Result<Bytes, ApiError> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| ApiError::NoAnswer(chain(&error)))?;
        if let Ok(data) = frame.into_data() {
            bytes.extend_from_slice(&data);
        }
        if bytes.len() > MAX_ANSWER {
            return Err(ApiError::Malformed(format!("longer than {MAX_ANSWER} bytes")));
        }
    }
    Ok(bytes.freeze())
}

fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let seconds = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    seconds.parse().ok().map(Duration::from_secs)
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    reason: String,
    message: String,
    details: Option<Details>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Details {
    retry_after_seconds: u64,
    causes: Vec<Cause>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Cause {
    reason: String,
    field: String,
}

/// Reads a `Status`, or what a proxy in between says.
pub(crate) fn refusal(status: StatusCode, retry_after: Option<Duration>, body: &[u8]) -> Refusal {
    let parsed: Status = serde_json::from_slice(body).unwrap_or_default();
    let details = parsed.details.unwrap_or_default();
    let from_details = (details.retry_after_seconds > 0).then(|| Duration::from_secs(details.retry_after_seconds));
    let message = if parsed.message.is_empty() {
        String::from_utf8_lossy(&body[..body.len().min(512)]).into_owned()
    } else {
        parsed.message
    };
    Refusal {
        code: status.as_u16(),
        reason: parsed.reason,
        message,
        retry_after: retry_after.or(from_details),
        fields: details.causes.iter().map(|cause| cause.field.clone()).collect(),
        causes: details.causes.into_iter().map(|cause| cause.reason).collect(),
    }
}

/// A streamed answer.
#[derive(Debug)]
pub struct Stream {
    body: Body,
    buffer: BytesMut,
    /// How much of the buffer has no newline.
    searched: usize,
}

impl Stream {
    fn new(body: Body) -> Self {
        Self {
            body,
            buffer: BytesMut::new(),
            searched: 0,
        }
    }

    /// The next line without its newline; nothing at a clean end, where an unfinished line is dropped.
    ///
    /// # Errors
    /// When the connection breaks, or a line is too long.
    pub async fn line(&mut self) -> Result<Option<Bytes>, ApiError> {
        loop {
            let newline = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n');
            if let Some(position) = newline {
                let line = self.buffer.split_to(self.searched + position + 1).freeze();
                self.searched = 0;
                return Ok(Some(line.slice(..line.len() - 1)));
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > MAX_LINE {
                return Err(ApiError::Malformed(format!("a line longer than {MAX_LINE} bytes")));
            }
            match self.chunk().await? {
                Some(data) => self.buffer.extend_from_slice(&data),
                None => return Ok(None),
            }
        }
    }

    /// The next bytes as they come; nothing at a clean end.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ApiError> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|error| ApiError::NoAnswer(chain(&error)))?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}
