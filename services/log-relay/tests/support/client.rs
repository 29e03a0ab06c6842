//! A client: it reads a stream and checks what every stream must keep to.

use std::collections::{BTreeMap, BTreeSet};

use tokio_stream::StreamExt as _;
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use windlass_api::log::v1::log_service_client::LogServiceClient;
use windlass_api::log::v1::tail_logs_response::Message;
use windlass_api::log::v1::*;
use windlass_log_relay::cursor::Tracker;

use super::within;

/// What a client has got, over any number of streams.
#[derive(Default)]
pub struct Client {
    /// Contents by source name, `step/attempt/container`.
    pub lines: BTreeMap<String, Vec<String>>,
    /// Number of the next line of each source.
    pub next: BTreeMap<String, u64>,
    pub marks: Vec<(MarkKind, String, Option<u64>)>,
    pub end: Option<End>,
    pub checkpoints: usize,
    pub received: usize,
    pub tracker: Tracker,
    pub names: BTreeMap<u32, String>,
    pub described: BTreeSet<u32>,
    /// Whether lines may be missing, since the request filters.
    pub filtered: bool,
}

pub fn request() -> TailLogsRequest {
    TailLogsRequest {
        run: "run-1".to_owned(),
        follow: true,
        ..TailLogsRequest::default()
    }
}

pub async fn open(channel: Channel, request: TailLogsRequest) -> Result<Streaming<TailLogsResponse>, Status> {
    let mut client = LogServiceClient::new(channel);
    within(client.tail_logs(request)).await.map(tonic::Response::into_inner)
}

/// Reads a whole stream.
pub async fn tail(channel: Channel, request: TailLogsRequest) -> Client {
    let mut client = Client {
        filtered: !request.contains.is_empty()
            || !request.include.is_empty()
            || !request.exclude.is_empty()
            || request.from.is_some(),
        ..Client::default()
    };
    let mut stream = open(channel, request).await.expect("accepted");
    client.read_all(&mut stream).await;
    client
}

impl Client {
    /// Reads to the end.
    pub async fn read_all(&mut self, stream: &mut Streaming<TailLogsResponse>) {
        while let Some(message) = within(stream.next()).await {
            self.take(message.expect("no failure"));
        }
        assert!(self.end.is_some(), "a stream ends with an end");
    }

    /// Reads until so many lines have come in all.
    pub async fn read_lines(&mut self, stream: &mut Streaming<TailLogsResponse>, count: usize) {
        while self.received < count {
            let message = within(stream.next()).await.expect("more").expect("no failure");
            self.take(message);
        }
    }

    /// A new stream: sources have new numbers.
    pub fn restart(&mut self) {
        self.names.clear();
        self.described.clear();
        self.end = None;
        self.tracker.restart();
    }

    pub fn take(&mut self, response: TailLogsResponse) {
        self.tracker.observe(&response).expect("readable cursors");
        assert!(self.end.is_none(), "nothing comes after the end");
        match response.message.expect("a message") {
            Message::Lines(lines) => {
                lines.sources.iter().for_each(|source| self.describe(source));
                lines.lines.into_iter().for_each(|line| self.take_line(line));
            }
            Message::Mark(mark) => {
                if let Some(source) = &mark.source_description {
                    self.describe(source);
                }
                let name = self.names.get(&mark.source).cloned().unwrap_or_default();
                self.marks.push((mark.kind(), name, mark.lost_lines));
            }
            Message::Checkpoint(_) => self.checkpoints += 1,
            Message::KeepAlive(_) => {}
            Message::End(end) => self.end = Some(end),
        }
    }

    fn describe(&mut self, source: &Source) {
        assert!(self.described.insert(source.id), "a source is described once");
        let name = format!("{}/{}/{}", source.step, source.attempt, source.container);
        self.names.insert(source.id, name);
    }

    fn take_line(&mut self, line: Line) {
        let name = self
            .names
            .get(&line.source)
            .expect("described before its first line")
            .clone();
        let number = line.position.expect("a position").line;
        let next = self.next.entry(name.clone()).or_default();
        if self.filtered {
            assert!(number >= *next, "{name}: line {number} came after {next}");
        } else {
            assert_eq!(number, *next, "{name}: no line lost, none twice");
        }
        *next = number + 1;
        self.received += 1;
        let text = String::from_utf8(line.content.to_vec()).expect("UTF-8");
        self.lines.entry(name).or_default().push(text);
    }

    pub fn of(&self, name: &str) -> &[String] {
        self.lines.get(name).map_or(&[], Vec::as_slice)
    }

    pub fn reason(&self) -> EndReason {
        self.end.as_ref().expect("an end").reason()
    }

    pub fn count(&self, kind: MarkKind) -> usize {
        self.marks.iter().filter(|(other, ..)| *other == kind).count()
    }
}
