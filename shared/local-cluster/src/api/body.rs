//! Answers.

use std::convert::Infallible;

use bytes::Bytes;
use futures::Stream;
use http::{HeaderValue, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use serde_json::Value;

use crate::error::ApiError;

/// The connection is cut on purpose.
#[derive(Debug, thiserror::Error)]
#[error("the connection is cut by a fault")]
pub(crate) struct Cut;

pub(super) type Body = UnsyncBoxBody<Bytes, Cut>;
pub(super) type Answer = Response<Body>;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

pub(super) fn bytes(code: StatusCode, kind: HeaderValue, content: Bytes) -> Answer {
    let body = Full::new(content)
        .map_err(|never: Infallible| match never {})
        .boxed_unsync();
    let mut answer = Response::new(body);
    *answer.status_mut() = code;
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}

pub(super) fn json_bytes(code: StatusCode, content: Bytes) -> Answer {
    bytes(code, JSON, content)
}

pub(super) fn json(code: StatusCode, value: &Value) -> Answer {
    json_bytes(code, Bytes::from(serde_json::to_vec(value).unwrap_or_default()))
}

pub(super) fn text(content: impl Into<Bytes>) -> Answer {
    bytes(StatusCode::OK, HeaderValue::from_static("text/plain"), content.into())
}

pub(super) fn stream(kind: &'static str, chunks: impl Stream<Item = Result<Bytes, Cut>> + Send + 'static) -> Answer {
    use futures::StreamExt as _;
    let body = StreamBody::new(chunks.map(|chunk| chunk.map(Frame::data))).boxed_unsync();
    let mut answer = Response::new(body);
    answer
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

pub(super) fn refusal(error: &ApiError) -> Answer {
    let mut answer = json(error.code, &error.to_value());
    if let Some(seconds) = error.retry_after_seconds {
        answer
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    answer
}
