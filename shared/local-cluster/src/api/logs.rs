//! The log endpoint.

use std::io::SeekFrom;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use http::{HeaderValue, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::sync::CancellationToken;

use super::Api;
use super::body::{self, Answer, Cut};
use super::route::{Query, Target};
use crate::error::ApiError;
use crate::resources::PODS;
use crate::runtime::cri::Entry;
use crate::runtime::folders::{RunFolder, last_start};
use crate::runtime::process::{Identity, read_record};

const PLAIN: HeaderValue = HeaderValue::from_static("text/plain");
const READ_SIZE: usize = 64 * 1024;
/// An active log is looked at this often, a silent one less and less.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// What the query asks for.
#[derive(Debug, Default)]
struct LogOptions {
    follow: bool,
    timestamps: bool,
    since: Option<Timestamp>,
    tail: Option<usize>,
    limit: Option<u64>,
}

impl LogOptions {
    fn parse(query: &Query) -> Result<Self, ApiError> {
        let whole = |name: &str| -> Result<Option<u64>, ApiError> {
            let value = query.number(name)?;
            value
                .map(|n| u64::try_from(n).map_err(|_| ApiError::bad_request(format!("{name}: must be 0 or more"))))
                .transpose()
        };
        let since_seconds = whole("sinceSeconds")?;
        let since_time = match query.text("sinceTime") {
            "" => None,
            text => Some(
                text.parse::<Timestamp>()
                    .map_err(|error| ApiError::bad_request(format!("sinceTime: {error}")))?,
            ),
        };
        if since_seconds.is_some() && since_time.is_some() {
            return Err(ApiError::bad_request(
                "at most one of `sinceTime` or `sinceSeconds` may be specified",
            ));
        }
        let ago =
            |s: u64| crate::clock::timestamp() - SignedDuration::from_secs(i64::try_from(s).unwrap_or(i64::MAX / 2));
        Ok(Self {
            follow: query.flag("follow"),
            timestamps: query.flag("timestamps"),
            since: since_time.or_else(|| since_seconds.map(ago)),
            tail: whole("tailLines")?.map(|n| usize::try_from(n).unwrap_or(usize::MAX)),
            limit: whole("limitBytes")?,
        })
    }
}

impl Api {
    pub(super) async fn log(&self, query: &Query, target: &Target) -> Result<Answer, ApiError> {
        if target.resource != PODS {
            return Err(ApiError::no_such_path());
        }
        let options = LogOptions::parse(query)?;
        let found = self.store.get(&target.key()).await?;
        let pod = found.ok_or_else(|| ApiError::not_found(PODS, target.name()))?;
        let value = pod.value();
        let container = container_name(&value, query.text("container"))?;
        let folder = self.node.pod_folder(&pod.uid);
        let last = last_start(&folder, &container);
        let start = match (last, query.flag("previous")) {
            (Some(last), false) => last,
            (Some(last), true) if last > 0 => last - 1,
            (_, true) => {
                return Err(ApiError::bad_request(format!(
                    "previous terminated container {container:?} in pod {:?} not found",
                    target.name()
                )));
            }
            (None, false) if value["spec"]["nodeName"].as_str().unwrap_or_default().is_empty() => {
                // Nobody to ask: an API server answers with nothing.
                return Ok(body::bytes(StatusCode::NO_CONTENT, PLAIN, Bytes::new()));
            }
            // Completed without a process, which wrote nothing.
            (None, false) if has_ended(&value, &container) => {
                return Ok(body::bytes(StatusCode::OK, PLAIN, Bytes::new()));
            }
            (None, false) => return Err(not_started(&value, target.name(), &container)),
        };
        let run = RunFolder::new(&folder, &container, start);
        let file = match File::open(run.log()).await {
            Ok(file) => file,
            Err(_) => return Err(not_started(&value, target.name(), &container)),
        };
        let reader = LogReader::new(file, &run, options, self.stop.clone())
            .await
            .map_err(internal)?;
        Ok(body::stream("text/plain", reader.stream()))
    }
}

fn internal(error: std::io::Error) -> ApiError {
    ApiError::internal(format!("the log cannot be read: {error}"))
}

fn container_name(pod: &Value, asked: &str) -> Result<String, ApiError> {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let names = |list: &str| -> Vec<String> {
        let containers = pod["spec"][list].as_array().into_iter().flatten();
        containers
            .filter_map(|c| c["name"].as_str().map(str::to_owned))
            .collect()
    };
    let (main, init) = (names("containers"), names("initContainers"));
    if !asked.is_empty() {
        return match main.iter().chain(&init).any(|n| n == asked) {
            true => Ok(asked.to_owned()),
            false => Err(ApiError::bad_request(format!(
                "container {asked} is not valid for pod {name}"
            ))),
        };
    }
    match main.as_slice() {
        [only] if init.is_empty() => Ok(only.clone()),
        [] => Err(ApiError::bad_request(format!("pod {name} has no containers"))),
        many => {
            let mut text = format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                many.join(" ")
            );
            if !init.is_empty() {
                text.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            Err(ApiError::bad_request(text))
        }
    }
}

/// Whether a container was started and has ended.
fn has_ended(pod: &Value, container: &str) -> bool {
    let mut statuses = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
    let status = statuses.find(|status| status["name"] == container);
    status.is_some_and(|status| {
        let id = status["containerID"].as_str().unwrap_or_default();
        status["state"]["terminated"]["startedAt"].is_string() && !id.is_empty()
    })
}

/// Why there is no log, in the words of a kubelet.
fn not_started(pod: &Value, name: &str, container: &str) -> ApiError {
    let statuses = ["containerStatuses", "initContainerStatuses"]
        .iter()
        .flat_map(|list| pod["status"][*list].as_array().into_iter().flatten());
    for status in statuses.filter(|s| s["name"] == container) {
        if let Some(reason) = status["state"]["waiting"]["reason"].as_str() {
            let detail = match reason {
                "ErrImagePull" | "ImagePullBackOff" => "trying and failing to pull image",
                "ContainerCreating" => "ContainerCreating",
                "PodInitializing" => "PodInitializing",
                other => other,
            };
            return ApiError::bad_request(format!(
                "container {container:?} in pod {name:?} is waiting to start: {detail}"
            ));
        }
        if status["state"]["terminated"].is_object() {
            return ApiError::bad_request(format!("container {container:?} in pod {name:?} is terminated"));
        }
    }
    ApiError::bad_request(format!("container {container:?} in pod {name:?} is not available"))
}

struct LogReader {
    file: File,
    exit: PathBuf,
    claim: PathBuf,
    options: LogOptions,
    stop: CancellationToken,
    held: Vec<u8>,
    at_line_start: bool,
    left: u64,
    ended: bool,
    pause: Duration,
}

impl LogReader {
    async fn new(
        mut file: File,
        run: &RunFolder,
        options: LogOptions,
        stop: CancellationToken,
    ) -> std::io::Result<Self> {
        if let Some(lines) = options.tail {
            seek_to_tail(&mut file, lines).await?;
        }
        Ok(Self {
            file,
            exit: run.exit(),
            claim: run.claim(),
            left: options.limit.unwrap_or(u64::MAX),
            options,
            stop,
            held: Vec::new(),
            at_line_start: true,
            ended: false,
            pause: SHORTEST_PAUSE,
        })
    }

    fn stream(self) -> impl Stream<Item = Result<Bytes, Cut>> {
        futures::stream::unfold(self, |mut reader| async move {
            let chunk = reader.next().await?;
            Some((Ok(chunk), reader))
        })
    }

    async fn next(&mut self) -> Option<Bytes> {
        while !self.ended && self.left > 0 {
            // Asked before reading: what was written until the end is read afterwards.
            let over = !self.options.follow || ended(&self.exit, &self.claim);
            let mut buffer = vec![0; READ_SIZE];
            let count = match self.file.read(&mut buffer).await {
                Ok(count) => count,
                Err(error) => {
                    tracing::warn!(%error, "log cannot be read");
                    return None;
                }
            };
            if count > 0 {
                self.pause = SHORTEST_PAUSE;
                let shown = self.show(&buffer[..count]);
                if !shown.is_empty() {
                    return Some(shown);
                }
            } else if over {
                self.ended = true;
            } else {
                self.wait().await?;
            }
        }
        None
    }

    async fn wait(&mut self) -> Option<()> {
        tokio::select! {
            () = self.stop.cancelled() => return None,
            () = tokio::time::sleep(self.pause) => {}
        }
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Some(())
    }

    /// The entries that are complete, as they were asked for.
    fn show(&mut self, bytes: &[u8]) -> Bytes {
        self.held.extend_from_slice(bytes);
        let complete = self.held.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let rest = self.held.split_off(complete);
        let lines = std::mem::replace(&mut self.held, rest);
        let mut out = Vec::with_capacity(lines.len());
        for line in lines.split_inclusive(|b| *b == b'\n') {
            let Some(entry) = Entry::parse(line.strip_suffix(b"\n").unwrap_or(line)) else {
                continue;
            };
            if let Some(since) = self.options.since
                && entry.time.parse::<Timestamp>().is_ok_and(|time| time < since)
            {
                continue;
            }
            // Writing into memory does not fail.
            if entry
                .show(self.options.timestamps, self.at_line_start, &mut out)
                .is_ok()
            {
                self.at_line_start = !entry.partial;
            }
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        out.truncate(most);
        self.left -= out.len() as u64;
        Bytes::from(out)
    }
}

/// Whether nothing will be written any more: the container's end is recorded, its folder is gone, or the process that wrote is.
fn ended(exit: &Path, claim: &Path) -> bool {
    exit.exists() || read_record::<Identity>(claim).is_none_or(|shim| !shim.alive())
}

/// Moves to the start of the last `lines` entries, reading backwards.
async fn seek_to_tail(file: &mut File, lines: usize) -> std::io::Result<()> {
    let mut position = file.seek(SeekFrom::End(0)).await?;
    if lines == 0 {
        return Ok(());
    }
    let mut found = 0;
    let mut buffer = vec![0; READ_SIZE];
    while position > 0 {
        let size = position.min(READ_SIZE as u64);
        position -= size;
        file.seek(SeekFrom::Start(position)).await?;
        let chunk = &mut buffer[..usize::try_from(size).unwrap_or(READ_SIZE)];
        file.read_exact(chunk).await?;
        for (at, _) in chunk.iter().enumerate().rev().filter(|(_, b)| **b == b'\n') {
            found += 1;
            // The newline after the wanted entries is the one before them.
            if found == lines + 1 {
                file.seek(SeekFrom::Start(position + at as u64 + 1)).await?;
                return Ok(());
            }
        }
    }
    file.seek(SeekFrom::Start(0)).await?;
    Ok(())
}
