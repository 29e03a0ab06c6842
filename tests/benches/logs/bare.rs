//! What a relay is measured beside: a tonic server that sends the same bytes, and one that forwards each line by itself.

use std::pin::Pin;
use std::sync::Arc;

use futures::{AsyncBufReadExt as _, StreamExt as _};
use kube::api::{Api, LogParams};
use tokio::sync::{Semaphore, broadcast};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use windlass_api::log::v1::log_service_server::{LogService, LogServiceServer};
use windlass_api::log::v1::tail_logs_response::Message;
use windlass_api::log::v1::{Checkpoint, Line, Lines, TailLogsRequest, TailLogsResponse};
use windlass_tests::raw_codec::Raw;

/// A server with a runtime of its own, whose threads have its name.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: String,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.runtime.take().expect("it runs").shutdown_background();
    }
}

fn serve(threads: &str, service: impl LogService) -> Server {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name(threads)
        .enable_all()
        .build()
        .expect("a runtime");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a socket");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    runtime.spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
        // As the relay's: a small message waits for no answer to the one before.
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        tonic::transport::Server::builder()
            .add_service(LogServiceServer::new(service))
            .serve_with_incoming(incoming)
            .await
    });
    Server {
        address,
        runtime: Some(runtime),
    }
}

type Responses = Pin<Box<dyn Stream<Item = Result<TailLogsResponse, Status>> + Send>>;

struct Chunks {
    bytes: usize,
}

/// Sends so many bytes in messages of 64 KiB.
pub(crate) fn chunks(bytes: usize) -> Server {
    serve("bare", Chunks { bytes })
}

#[tonic::async_trait]
impl LogService for Chunks {
    type TailLogsStream = Responses;

    async fn tail_logs(&self, _: Request<TailLogsRequest>) -> Result<Response<Responses>, Status> {
        let (out, stream) = tokio::sync::mpsc::channel(1);
        let messages = self.bytes.div_ceil(64 * 1024);
        tokio::spawn(async move {
            for _ in 0..messages {
                let message = Some(Message::Checkpoint(Checkpoint {
                    cursor: vec![b'x'; 64 * 1024],
                }));
                if out.send(Ok(TailLogsResponse { message })).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

struct Forwarder {
    lines: Arc<broadcast::Sender<Vec<u8>>>,
    /// One for each reader that has come.
    arrived: Arc<Semaphore>,
}

/// Follows a pod's log and sends each line by itself, at once, to whoever has come by then; it begins when `readers` are there.
pub(crate) fn forwarder(client: kube::Client, pod: String, readers: usize) -> Server {
    let lines = Arc::new(broadcast::Sender::new(1 << 16));
    let arrived = Arc::new(Semaphore::new(0));
    let server = serve(
        "forward",
        Forwarder {
            lines: Arc::clone(&lines),
            arrived: Arc::clone(&arrived),
        },
    );
    let runtime = server.runtime.as_ref().expect("it runs");
    runtime.spawn(async move {
        let all = u32::try_from(readers).expect("a number");
        arrived.acquire_many(all).await.expect("never closed").forget();
        let params = LogParams {
            follow: true,
            timestamps: true,
            ..LogParams::default()
        };
        let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::default_namespaced(client);
        let log = pods.log_stream(&pod, &params).await.expect("a log");
        let mut read = log.lines();
        while let Some(line) = read.next().await {
            // Who has gone need not be told.
            lines.send(line.expect("a line").into_bytes()).ok();
        }
        lines.send(Vec::new()).ok();
    });
    server
}

#[tonic::async_trait]
impl LogService for Forwarder {
    type TailLogsStream = Responses;

    async fn tail_logs(&self, _: Request<TailLogsRequest>) -> Result<Response<Responses>, Status> {
        let mut lines = self.lines.subscribe();
        self.arrived.add_permits(1);
        let (out, stream) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move {
            loop {
                let line = lines.recv().await.expect("no line is missed");
                if line.is_empty() {
                    return;
                }
                let line = Line {
                    content: line[31..].to_vec().into(),
                    ..Line::default()
                };
                let lines = Lines {
                    lines: vec![line],
                    ..Lines::default()
                };
                let message = Some(Message::Lines(lines));
                if out.send(Ok(TailLogsResponse { message })).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

/// The lines of a log that is read without anybody in between, with the moment of each.
pub(crate) async fn direct(client: kube::Client, pod: String, mut line: impl FnMut(&[u8])) {
    let params = LogParams {
        follow: true,
        timestamps: true,
        ..LogParams::default()
    };
    let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::default_namespaced(client);
    let mut lines = pods.log_stream(&pod, &params).await.expect("a log").lines();
    while let Some(read) = lines.next().await {
        line(&read.expect("a line").as_bytes()[31..]);
    }
}

/// Reads a stream to its end without looking at it; its bytes.
pub(crate) async fn drain(channel: windlass_service::AuthenticatedChannel, request: TailLogsRequest) -> usize {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.expect("a connection");
    let path = http::uri::PathAndQuery::from_static("/windlass.log.v1.LogService/TailLogs");
    let request = Request::new(prost::Message::encode_to_vec(&request));
    let answer = client.server_streaming(request, path, Raw).await;
    let mut messages = answer.expect("accepted").into_inner();
    let mut bytes = 0;
    while let Some(message) = messages.message().await.expect("no failure") {
        bytes += message.len();
    }
    bytes
}
