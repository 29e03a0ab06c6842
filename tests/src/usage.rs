//! What processes take of the machine, and what they ask of the API server.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::deployment::{Deployment, Part};

/// Of one process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// User and system time so far.
    pub cpu: Duration,
    /// Memory in use, bytes.
    pub resident: u64,
    /// The most that it was, bytes.
    pub peak: u64,
}

/// Reads the process tables.
///
/// # Panics
/// When the process is gone.
pub fn usage(pid: u32) -> Usage {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).expect("the process is there");
    let status = read("status");
    let kibibytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        number.unwrap_or(0) * 1024
    };
    let stat = read("stat");
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |index: usize| {
        fields
            .get(index)
            .and_then(|field| field.parse::<u64>().ok())
            .unwrap_or(0)
    };
    // utime and stime, in the 100 ticks a second that Linux shows to programs on every machine.
    Usage {
        cpu: Duration::from_millis((ticks(11) + ticks(12)) * 10),
        resident: kibibytes("VmRSS:"),
        peak: kibibytes("VmHWM:"),
    }
}

/// Requests that the API server has answered, by `VERB resource` or `VERB resource/subresource`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests(pub BTreeMap<String, u64>);

impl Requests {
    /// Of one kind, such as `POST pods`.
    pub fn of(&self, kind: &str) -> u64 {
        self.0.get(kind).copied().unwrap_or(0)
    }

    /// All that change something.
    pub fn writes(&self) -> u64 {
        let reading = |kind: &str| ["GET ", "LIST ", "WATCH "].iter().any(|verb| kind.starts_with(verb));
        let writes = self.0.iter().filter(|(kind, _)| !reading(kind));
        writes.map(|(_, count)| count).sum()
    }

    /// All reads but watches and followed logs.
    pub fn reads(&self) -> u64 {
        let plain = |kind: &str| kind.starts_with("LIST ") || (kind.starts_with("GET ") && !kind.ends_with("/log"));
        let reads = self.0.iter().filter(|(kind, _)| plain(kind));
        reads.map(|(_, count)| count).sum()
    }
}

impl Deployment {
    /// What a part takes.
    pub fn usage(&self, part: Part) -> Usage {
        usage(self.pid(part))
    }

    /// A client of its cluster.
    ///
    /// # Panics
    /// When its kubeconfig cannot be read.
    pub async fn kube(&self) -> kube::Client {
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig()).expect("a kubeconfig");
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await;
        kube::Client::try_from(config.expect("a configuration")).expect("a client")
    }

    /// What the services have asked of the API server, as its metrics say.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn requests(&self) -> Requests {
        let request = http::Request::get("/metrics").body(Vec::new()).expect("a request");
        let text = self.kube().await.request_text(request).await.expect("metrics");
        let mut requests = BTreeMap::new();
        for line in text.lines().filter(|line| line.starts_with("apiserver_request_total{")) {
            let label = |name: &str| {
                let (_, rest) = line.split_once(&format!("{name}=\"")).unwrap_or_default();
                rest.split('"').next().unwrap_or_default()
            };
            let count = line.rsplit(' ').next().and_then(|count| count.parse::<u64>().ok());
            let of = match label("subresource") {
                "" => format!("{} {}", label("verb"), label("resource")),
                subresource => format!("{} {}/{subresource}", label("verb"), label("resource")),
            };
            *requests.entry(of).or_default() += count.unwrap_or(0);
        }
        Requests(requests)
    }
}
