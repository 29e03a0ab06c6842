//! The audit log of a real API server: who asked for what, and when.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};
use std::path::PathBuf;

use jiff::Timestamp;
use serde::Deserialize;

use crate::real_cluster::RealCluster;
use crate::usage::Requests;

/// How the user agent of an executor begins.
pub const EXECUTOR: &str = "windlass-executor/";

/// An audit log from some moment on.
#[derive(Clone, Debug)]
pub struct Audit {
    file: PathBuf,
    from: u64,
}

/// What one client asked for.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// By `VERB resource` or `VERB resource/subresource`.
    pub requests: Requests,
    /// When the first and the last pod was created.
    pub creates: Option<(Timestamp, Timestamp)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    #[serde(default)]
    user_agent: String,
    verb: String,
    stage: String,
    #[serde(default)]
    object_ref: Object,
    stage_timestamp: Timestamp,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Object {
    resource: String,
    subresource: String,
}

impl Audit {
    /// What comes from now on.
    ///
    /// # Panics
    /// When the cluster keeps no audit log: `up.sh --fake-nodes` makes it keep one.
    pub fn begin(cluster: &RealCluster) -> Self {
        let file = cluster.folder().join("logs/audit.log");
        let from = std::fs::metadata(&file).expect("an audit log").len();
        Self { file, from }
    }

    /// What the clients have asked for whose user agent begins so.
    ///
    /// # Panics
    /// When the log cannot be read.
    pub fn asked(&self, user_agent: &str) -> Asked {
        let mut file = File::open(&self.file).expect("an audit log");
        file.seek(SeekFrom::Start(self.from)).expect("a file");
        let mut counts = BTreeMap::new();
        let mut creates: Option<(Timestamp, Timestamp)> = None;
        for line in BufReader::new(file).lines() {
            // The last line may be half written.
            let Ok(event) = serde_json::from_str::<Event>(&line.expect("text")) else {
                continue;
            };
            // A watch counts when it begins, all else when it is answered.
            let counted = match event.verb.as_str() {
                "watch" => event.stage == "ResponseStarted",
                _ => event.stage == "ResponseComplete",
            };
            if !counted || !event.user_agent.starts_with(user_agent) {
                continue;
            }
            let of = match event.object_ref.subresource.as_str() {
                "" => event.object_ref.resource.clone(),
                subresource => format!("{}/{subresource}", event.object_ref.resource),
            };
            let verb = match event.verb.as_str() {
                "create" => "POST".to_owned(),
                "update" => "PUT".to_owned(),
                verb => verb.to_uppercase(),
            };
            if verb == "POST" && of == "pods" {
                let at = event.stage_timestamp;
                creates = Some(creates.map_or((at, at), |(first, last)| (first.min(at), last.max(at))));
            }
            *counts.entry(format!("{verb} {of}")).or_default() += 1;
        }
        Asked {
            requests: Requests(counts),
            creates,
        }
    }
}

impl Asked {
    /// Pods created a second, from the first to the last.
    ///
    /// # Panics
    /// When there were none.
    pub fn creates_per_second(&self) -> f64 {
        let (first, last) = self.creates.expect("pods were created");
        let created = self.requests.of("POST pods");
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let created = created as f64;
        created / (last - first).total(jiff::Unit::Second).expect("seconds").max(1e-3)
    }
}
