//! RunService with WatchRun answered in encoded messages, so that thousands of watchers of a run share the bytes of its events.
//!
//! The generated service encodes every message for every watcher. This one takes WatchRun out by its path and leaves the rest to it.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut as _, Bytes};
use futures::Stream;
use tonic::body::Body;
use tonic::codec::{Codec, EncodeBuf, Encoder};
use tonic::server::{Grpc, NamedService, ServerStreamingService};
use tonic::{Request, Response, Status};
use tower::Service;
use windlass_api::run::v1::run_service_server::SERVICE_NAME;
use windlass_api::run::v1::{WatchRunRequest, WatchRunResponse};
use windlass_api::strict::{StrictCodec, StrictDecoder};

use super::Api;
use super::rights::permitted;

/// The path of WatchRun.
const WATCH_RUN: &str = "/windlass.run.v1.RunService/WatchRun";

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct EncodedWatch<S> {
    pub(super) inner: S,
    pub(super) api: Api,
}

impl<S> NamedService for EncodedWatch<S> {
    const NAME: &'static str = SERVICE_NAME;
}

type Answer = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

impl<S> Service<http::Request<Body>> for EncodedWatch<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Answer {
        if request.uri().path() != WATCH_RUN {
            return Box::pin(self.inner.call(request));
        }
        let method = Method(self.api.clone());
        Box::pin(async move { Ok(Grpc::new(EncodedCodec).server_streaming(method, request).await) })
    }
}

/// The RPC.
struct Method(Api);

/// A stream of encoded messages.
pub(super) type Frames = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

impl ServerStreamingService<WatchRunRequest> for Method {
    type Response = Bytes;
    type ResponseStream = Frames;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Frames>, Status>> + Send>>;

    fn call(&mut self, request: Request<WatchRunRequest>) -> Self::Future {
        let api = self.0.clone();
        Box::pin(async move { Ok(Response::new(api.watch(permitted(request)?).await?)) })
    }
}

/// Decodes requests strictly and passes encoded messages on.
#[derive(Clone, Copy, Debug)]
struct EncodedCodec;

impl Codec for EncodedCodec {
    type Encode = Bytes;
    type Decode = WatchRunRequest;
    type Encoder = EncodedEncoder;
    type Decoder = StrictDecoder<WatchRunRequest>;

    fn encoder(&mut self) -> EncodedEncoder {
        EncodedEncoder
    }

    fn decoder(&mut self) -> Self::Decoder {
        StrictCodec::<WatchRunResponse, WatchRunRequest>::default().decoder()
    }
}

/// Copies bytes into the connection's buffer.
#[derive(Clone, Copy, Debug)]
struct EncodedEncoder;

impl Encoder for EncodedEncoder {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}
