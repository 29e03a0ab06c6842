//! A real S3 server over a folder, as tests/cluster builds it.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::binaries::repository;
use crate::ports::Port;
use crate::wait::until;

/// The key of the server.
pub const ACCESS_KEY: &str = "windlass-tests";
/// Its secret, which must show up nowhere.
pub const SECRET_KEY: &str = "canary-2f1c9e77-of-the-store";
/// The only bucket.
pub const BUCKET: &str = "logs";

/// An S3 server. It is killed and its folder is removed when it is dropped.
#[derive(Debug)]
pub struct ObjectStore {
    folder: TempDir,
    port: Port,
    process: Option<Child>,
}

impl ObjectStore {
    /// Starts one with an empty bucket.
    ///
    /// # Panics
    /// When it does not start; `tests/cluster/build.sh --s3` builds it.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir_all(folder.path().join("data").join(BUCKET)).expect("a bucket");
        let mut store = Self {
            folder,
            port: Port::take(),
            process: None,
        };
        store.revive().await;
        store
    }

    /// Starts it again on the same data.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn revive(&mut self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"))
            .expect("a log file");
        let program = program();
        let process = Command::new(&program)
            .args([
                "--port",
                &format!("127.0.0.1:{}", self.port.number()),
                "--quiet",
                "--access-log",
            ])
            .arg(self.access_log())
            .arg("posix")
            .arg(self.folder.path().join("data"))
            .env("ROOT_ACCESS_KEY", ACCESS_KEY)
            .env("ROOT_SECRET_KEY", SECRET_KEY)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| {
                panic!(
                    "{} does not start: {error}; tests/cluster/build.sh --s3 builds it",
                    program.display()
                )
            });
        self.process = Some(process);
        let address = ("127.0.0.1", self.port.number());
        until("the S3 server listens", async || {
            tokio::net::TcpStream::connect(address)
                .await
                .map(drop)
                .map_err(|error| error.to_string())
        })
        .await;
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().ok();
            process.wait().ok();
        }
    }

    /// The archive's URL with a prefix.
    pub fn url(&self, prefix: &str) -> String {
        format!("s3://{BUCKET}/{prefix}")
    }

    /// What a relay has in its environment to get in.
    pub fn environment(&self) -> BTreeMap<String, String> {
        [
            ("AWS_ENDPOINT", format!("http://127.0.0.1:{}", self.port.number())),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// Names of the objects below a prefix of the bucket.
    pub fn objects(&self, prefix: &str) -> Vec<String> {
        let root = self.folder.path().join("data").join(BUCKET);
        let mut objects = Vec::new();
        let mut folders = vec![root.join(prefix)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let name = path.strip_prefix(&root).expect("below it");
                    objects.push(name.display().to_string());
                }
            }
        }
        objects.sort();
        objects
    }

    /// Requests since the start by operation, such as `PutObject`, as the server logged them.
    pub fn requests(&self) -> BTreeMap<String, usize> {
        let log = std::fs::read_to_string(self.access_log()).unwrap_or_default();
        let mut requests = BTreeMap::new();
        let words = log.lines().flat_map(str::split_whitespace);
        for operation in words.filter_map(|word| word.strip_prefix("s3_")) {
            *requests.entry(operation.to_owned()).or_default() += 1;
        }
        requests
    }

    fn access_log(&self) -> PathBuf {
        self.folder.path().join("access.log")
    }
}

impl Drop for ObjectStore {
    fn drop(&mut self) {
        self.kill();
    }
}

fn program() -> PathBuf {
    match std::env::var_os("WINDLASS_TEST_S3") {
        Some(path) => Path::new(&path).to_owned(),
        None => repository().join("target/cluster/bin/versitygw"),
    }
}
