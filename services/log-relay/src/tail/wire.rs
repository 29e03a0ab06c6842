//! How log streams are put on the wire: lines are encoded once per block and shared by all readers, not once per reader.
//!
//! The generated server encodes every message for every client. This one takes encoded lines as they are; what travels is the same.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut as _, Bytes};
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codec::{BufferSettings, Codec, EncodeBuf, Encoder};
use tonic::server::{Grpc, NamedService, ServerStreamingService};
use tonic::{Code, Request, Response, Status};
use windlass_api::log::v1::log_service_server::SERVICE_NAME;
use windlass_api::log::v1::tail_logs_response::Message;
use windlass_api::log::v1::{TailLogsRequest, TailLogsResponse};
use windlass_api::strict::{StrictCodec, StrictDecoder};

use windlass_service::Caller;

use super::Logs;

/// Number of `lines` in `TailLogsResponse`.
const LINES_FIELD: u32 = 1;
const PATH: &str = "/windlass.log.v1.LogService/TailLogs";

/// A message of a log stream.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// Fields of a `Lines` message, encoded.
    Lines(Vec<Bytes>),
    /// Anything else.
    Message(Message),
}

/// Encodes [`Outgoing`]; decodes requests strictly, as the generated code does.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TailCodec;

impl Codec for TailCodec {
    type Encode = Outgoing;
    type Decode = TailLogsRequest;
    type Encoder = TailEncoder;
    type Decoder = StrictDecoder<TailLogsRequest>;

    fn encoder(&mut self) -> TailEncoder {
        TailEncoder
    }

    fn decoder(&mut self) -> Self::Decoder {
        StrictCodec::<TailLogsResponse, TailLogsRequest>::default().decoder()
    }
}

/// See [`TailCodec`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct TailEncoder;

impl Encoder for TailEncoder {
    type Item = Outgoing;
    type Error = Status;

    fn encode(&mut self, item: Outgoing, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        match item {
            Outgoing::Lines(parts) => {
                let length: usize = parts.iter().map(Bytes::len).sum();
                out.reserve(1 + encoded_len_varint(length as u64) + length);
                encode_key(LINES_FIELD, WireType::LengthDelimited, out);
                encode_varint(length as u64, out);
                parts.into_iter().for_each(|part| out.put(part));
                Ok(())
            }
            Outgoing::Message(message) => {
                let response = TailLogsResponse { message: Some(message) };
                response
                    .encode(out)
                    .map_err(|error| Status::internal(error.to_string()))
            }
        }
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(64 * 1024, 32 * 1024)
    }
}

/// The log service as the server takes it.
#[derive(Clone, Debug)]
pub(crate) struct LogEndpoint {
    logs: Arc<Logs>,
}

impl LogEndpoint {
    pub(crate) fn new(logs: Logs) -> Self {
        Self { logs: Arc::new(logs) }
    }
}

impl NamedService for LogEndpoint {
    const NAME: &'static str = SERVICE_NAME;
}

impl tower::Service<http::Request<Body>> for LogEndpoint {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let logs = Arc::clone(&self.logs);
        Box::pin(async move {
            if request.uri().path() != PATH {
                return Ok(Status::new(Code::Unimplemented, "there is no such method").into_http());
            }
            Ok(Grpc::new(TailCodec).server_streaming(Tail(logs), request).await)
        })
    }
}

struct Tail(Arc<Logs>);

impl ServerStreamingService<TailLogsRequest> for Tail {
    type Response = Outgoing;
    type ResponseStream = ReceiverStream<Result<Outgoing, Status>>;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Self::ResponseStream>, Status>> + Send>>;

    fn call(&mut self, request: Request<TailLogsRequest>) -> Self::Future {
        let logs = Arc::clone(&self.0);
        Box::pin(async move {
            {
                let caller = request.extensions().get::<Caller>().cloned();
                Ok(Response::new(logs.tail(caller, request.into_inner()).await?))
            }
        })
    }
}
