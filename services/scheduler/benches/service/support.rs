//! The scheduler as a process of its own, and what the kernel says about it.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use windlass_service::{AuthenticatedChannel, ChannelSettings, connect_lazy};

/// Connections that submissions share.
const CONNECTIONS: usize = 4;

/// A child process that serves gRPC; it ends with its handle.
pub(crate) struct Scheduler {
    pub(crate) address: String,
    child: Child,
    channels: OnceLock<Vec<AuthenticatedChannel>>,
}

impl Scheduler {
    /// The real scheduler with a store in `data`.
    pub(crate) fn start(data: &Path) -> Self {
        let address = free_address();
        let child = Command::new(env!("CARGO_BIN_EXE_windlass-scheduler"))
            .args([
                "--listen",
                &address,
                "--seal-deadline",
                "0s",
                "--reserve-bytes",
                "0",
                "--log",
                "warn",
            ])
            .arg("--data-dir")
            .arg(data)
            .stdin(Stdio::null())
            .spawn()
            .expect("the scheduler is built beside its benchmark");
        Self::ready(address, child)
    }

    /// This program again, as a bare echo of submissions.
    pub(crate) fn echo() -> Self {
        let address = free_address();
        let child = Command::new(std::env::current_exe().expect("this program"))
            .env(super::ECHO, &address)
            .stdin(Stdio::null())
            .spawn()
            .expect("this program starts again");
        Self::ready(address, child)
    }

    fn ready(address: String, child: Child) -> Self {
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(&address).is_err() {
            assert!(Instant::now() < deadline, "nobody listens at {address}");
            std::thread::sleep(Duration::from_millis(5));
        }
        Self {
            address,
            child,
            channels: OnceLock::new(),
        }
    }

    /// One of a few shared connections.
    pub(crate) fn channel_of(&self, number: usize) -> AuthenticatedChannel {
        let channels = self
            .channels
            .get_or_init(|| (0..CONNECTIONS).map(|_| self.channel()).collect());
        channels[number % CONNECTIONS].clone()
    }

    pub(crate) fn channel(&self) -> AuthenticatedChannel {
        let settings = ChannelSettings {
            address: self.address.clone(),
            ..ChannelSettings::default()
        };
        connect_lazy(&settings).expect("an address")
    }

    /// User and system time so far.
    pub(crate) fn cpu(&self) -> Duration {
        cpu(self.child.id())
    }

    /// Resident memory in bytes.
    pub(crate) fn rss(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line");
        let kib: u64 = line
            .split_whitespace()
            .nth(1)
            .and_then(|kib| kib.parse().ok())
            .expect("a number");
        kib * 1024
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// User and system time of a process: fields 14 and 15 of its stat, in hundredths of a second.
pub(crate) fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let after_name = stat.rsplit_once(')').expect("a name in brackets").1;
    let ticks: u64 = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|ticks| ticks.parse::<u64>().ok())
        .sum();
    Duration::from_millis(ticks * 10)
}

fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").to_string()
}
