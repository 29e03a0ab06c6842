//! What the command line prints, good and bad, against golden files: `tests/transcripts/NAME.txt`.
//!
//! `UPDATE_TRANSCRIPTS=1 cargo test -p windlass-tests --test transcripts` writes them anew. Names, ids, times and ports are normalised,
//! and the lines of progress, whose number depends on the machine, are left out.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use regex::Regex;
use windlass_tests::binaries::{binary, repository};

/// Commands that need no server, by the name of their golden file.
const WITHOUT_SERVER: &[(&str, &str)] = &[
    ("version", "--version"),
    ("help", "--help"),
    ("help-run", "run --help"),
    ("help-logs", "logs --help"),
    ("help-schema", "schema --help"),
    ("help-retry", "retry --help"),
    ("help-run-step", "run-step --help"),
    ("run-step-no-image", "run-step -- true"),
    (
        "run-step-wrong",
        "run-step --image busybox --cpu many --timeout soon -e A -- true",
    ),
    (
        "run-step-wrong-values",
        "run-step --image busybox --cpu many --timeout soon -e 1=a -- true",
    ),
    ("run-step-wrong-pod", "run-step --image busybox --pod pod.yaml -- true"),
    (
        "run-step-detach-local",
        "run-step --image busybox --local --detach -- true",
    ),
    ("usage-unknown-command", "rnu hello.yaml"),
    ("usage-unknown-flag", "list --sort age"),
    ("validate", "validate hello.yaml"),
    ("validate-json", "validate hello.yaml -o json"),
    ("validate-wrong", "validate wrong.yaml"),
    ("validate-wrong-json", "validate cycle.yaml -o json"),
    ("validate-syntax", "validate syntax.yaml"),
    ("validate-cycle", "validate cycle.yaml"),
    ("validate-files", "validate files.yaml"),
    ("validate-no-file", "validate nothing.yaml"),
    ("validate-folder", "validate ."),
    ("validate-parameter-missing", "validate required.yaml"),
    ("validate-parameter-unknown", "validate hello.yaml -p GRETING=hi"),
    ("validate-parameter-type", "validate hello.yaml -p TIMES=many"),
    ("validate-parameter-form", "validate hello.yaml -p TIMES"),
    ("render", "render hello.yaml --step greet.0"),
    ("render-explain", "render hello.yaml --step report --explain"),
    ("render-explain-pod", "render pods.yaml --explain"),
    ("render-unknown-step", "render hello.yaml --step reprot"),
    ("graph", "graph hello.yaml"),
    ("graph-expanded", "graph fails.yaml --expand"),
    ("graph-mermaid", "graph fails.yaml --format mermaid"),
    ("graph-dot", "graph hello.yaml --format dot"),
    ("graph-no-file", "graph nothing.yaml"),
    ("no-server", "list --server http://127.0.0.1:9"),
    ("no-server-run", "run hello.yaml --server 127.0.0.1:9"),
    ("bad-address", "list --server http://"),
    ("no-token-file", "list --token-file nothing"),
    ("detach-local", "run hello.yaml --local --detach"),
    ("help-secret-put", "secret put --help"),
    ("secret-put-nothing", "secret put warehouse"),
    ("secret-put-literal", "secret put warehouse password=hunter2"),
    (
        "secret-put-no-file",
        "secret put warehouse --from-file password=nothing",
    ),
    ("secret-put-no-pair", "secret put warehouse --from-file password"),
    ("secret-put-no-pairs", "secret put warehouse --env-file hello.yaml"),
    ("help-schedule", "schedule --help"),
    ("help-schedule-create", "schedule create --help"),
    ("help-schedule-export", "schedule export --help"),
    ("schedule-local", "schedule list --local"),
    ("schedule-no-timing", "schedule create nightly hello.yaml"),
    (
        "schedule-two-timings",
        "schedule create nightly hello.yaml --cron @daily --every 1h",
    ),
    (
        "schedule-time-anywhere",
        "schedule create nightly hello.yaml --at 2126-12-01T09:00",
    ),
];

/// Commands against one `windlass dev`, in this order.
const WITH_SERVER: &[(&str, &str)] = &[
    ("list-empty", "list"),
    ("latest-of-none", "get @latest"),
    ("run", "run hello.yaml --name hello-one -p GREETING=hi --label team=ml"),
    ("run-name-taken", "run hello.yaml --name hello-one"),
    ("get", "get hello-one"),
    ("get-prefix", "get hello-o report"),
    ("get-yaml", "get hello-one report -o yaml"),
    ("get-pipeline", "get hello-one --pipeline"),
    ("get-unknown-step", "get hello-one reprot"),
    ("logs", "logs hello-one report"),
    ("logs-tail", "logs hello-one report --tail 1 --prefix always"),
    ("logs-contains", "logs hello-one --contains second"),
    ("logs-unknown-step", "logs hello-one reprot"),
    ("logs-follow", "logs hello-one report -f --timestamps"),
    (
        "logs-grep",
        "logs hello-one --grep (?i)SECOND --grep third --exclude ^t --prefix always",
    ),
    ("logs-grep-wrong", "logs hello-one --grep a --grep (b"),
    ("logs-json", "logs hello-one report -o json"),
    ("logs-raw", "logs hello-one report --prefix always --timestamps -o raw"),
    ("logs-container", "logs hello-one report --container proxy"),
    ("logs-since", "logs hello-one --since 2126-01-01T00:00:00Z"),
    ("logs-since-wrong", "logs hello-one --since yesterday"),
    ("logs-cursor", "logs hello-one report --cursor-file DATA/cursor"),
    ("logs-cursor-again", "logs hello-one report --cursor-file DATA/cursor"),
    (
        "logs-cursor-json",
        "logs hello-one report --cursor-file DATA/cursor-of-json -o json",
    ),
    (
        "logs-cursor-tail",
        "logs hello-one report --cursor-file DATA/cursor --tail 1",
    ),
    ("logs-cursor-none", "logs hello-one report --cursor-file hello.yaml"),
    ("logs-attempt", "logs hello-one report --attempt 1"),
    ("logs-attempt-wrong", "logs hello-one --attempt 0"),
    ("watch-ended", "watch hello-one"),
    ("wait-ended", "wait hello-one"),
    ("explain-ended", "explain hello-one"),
    ("graph-of-run", "graph hello-one"),
    (
        "run-detached",
        "run hello.yaml --name hello-two --request-id one --detach",
    ),
    (
        "run-repeated",
        "run hello.yaml --name hello-two --request-id one --detach",
    ),
    ("run-request-id-reused", "run fails.yaml --request-id one --detach"),
    ("wait-detached", "wait hello-two"),
    ("logs-cursor-other", "logs hello-two --cursor-file DATA/cursor"),
    ("run-fails", "run fails.yaml --name fails-one"),
    ("explain-failed", "explain fails-one load"),
    ("run-flaky", "run flaky.yaml --name flaky-one"),
    ("logs-of-attempts", "logs flaky-one fetch"),
    ("logs-previous", "logs flaky-one --previous --prefix always"),
    ("logs-previous-none", "logs flaky-one report --previous"),
    ("logs-previous-follow", "logs flaky-one --previous --follow"),
    ("list", "list"),
    ("list-filtered", "list --state failed"),
    ("list-filtered-none", "list --pipeline nothing"),
    ("list-bad-filter", "list --filter colour=red"),
    ("run-waits", "run waits.yaml --name waits-one --timeout 1s"),
    ("run-halfway", "run halfway.yaml --name halfway-one"),
    ("run-secret-missing", "run secretive.yaml --secret-file PIN=pin.txt"),
    (
        "run-secret-unused",
        "run secretive.yaml --secret-file PIN=pin.txt --secret-file API_TOKEN=pin.txt --secret-file MORE=pin.txt",
    ),
    (
        "run-secret",
        "run secretive.yaml --name secret-one --secret-file PIN=pin.txt --secret-file API_TOKEN=pin.txt",
    ),
    ("retry-secret-dry-run", "retry secret-one --dry-run"),
    ("retry-secret-missing", "retry secret-one"),
    ("retry-running", "retry waits-one"),
    ("retry-succeeded", "retry hello-one"),
    ("retry-dry-run", "retry halfway-one --dry-run"),
    ("retry-from", "retry halfway-one --from fetch --dry-run"),
    ("retry-from-unknown", "retry halfway-one --from fetsh"),
    ("retry-dry-run-json", "retry halfway-one --dry-run -o json"),
    ("retry", "retry halfway-one --name halfway-two"),
    ("retry-name-taken", "retry halfway-one --name halfway-two"),
    (
        "retry-detached",
        "retry halfway-two --name halfway-three --request-id again --detach",
    ),
    (
        "retry-repeated",
        "retry halfway-two --name halfway-three --request-id again --detach",
    ),
    (
        "retry-request-id-reused",
        "retry halfway-one --request-id again --detach",
    ),
    ("wait-retried", "wait halfway-three"),
    ("get-retried", "get halfway-three"),
    ("get-reused", "get halfway-three fetch"),
    ("explain-reused", "explain halfway-three fetch"),
    ("logs-reused", "logs halfway-three fetch"),
    ("logs-of-retried", "logs halfway-three"),
    (
        "run-step",
        "run-step --image busybox --name step-one -- echo all is well",
    ),
    (
        "run-step-fails",
        "run-step --image busybox --name step-two -e A=b -- printenv A B",
    ),
    ("get-run-step", "get step-two step"),
    ("retry-run-step", "retry step-two --name step-three"),
    (
        "run-step-timeout",
        "run-step --image busybox --name step-four --timeout 500ms -- sleep 60",
    ),
    (
        "run-step-not-found",
        "run-step --image busybox --name step-five -- no-such-program",
    ),
    (
        "run-step-detached",
        "run-step --image busybox --name step-six --detach -- echo later",
    ),
    (
        "run-step-name-taken",
        "run-step --image busybox --name step-six -- true",
    ),
    ("wait-run-step", "wait step-six"),
    ("logs-run-step", "logs step-six"),
    ("wait-timeout", "wait waits-one --timeout 200ms"),
    ("explain-waiting", "explain waits-one big"),
    ("explain-upstream", "explain waits-one next"),
    ("delete-running", "delete waits-one"),
    ("confirm-dead-alive", "confirm-dead waits-one big"),
    ("cancel", "cancel waits-one --reason tired"),
    ("wait-cancelled", "wait waits-one"),
    ("cancel-ended", "cancel waits-one"),
    ("delete-older-none", "delete --older-than 1d --yes"),
    ("delete-older-count", "delete --older-than 1ms --filter name=waits-one"),
    ("delete-older-bad-filter", "delete --older-than 7d --filter pipelines=x"),
    ("delete-filter-alone", "delete waits-one --filter state=FAILED"),
    ("delete", "delete waits-one fails-one"),
    ("get-deleted", "get fails-one"),
    ("delete-retried", "delete halfway-one halfway-two"),
    ("logs-reused-deleted", "logs halfway-three fetch"),
    ("secret-list-empty", "secret list"),
    ("secret-put", "secret put warehouse --env-file warehouse.env"),
    (
        "secret-put-again",
        "secret put warehouse --create-only --env-file warehouse.env",
    ),
    ("secret-put-remove", "secret put warehouse --remove USER -o yaml"),
    ("secret-put-name", "secret put Ware_House --env-file warehouse.env"),
    (
        "secret-put-absent",
        "secret put lake --update-only --env-file warehouse.env",
    ),
    ("secret-put-empty", "secret put lake --from-stdin password"),
    ("secret-list", "secret list"),
    ("secret-list-json", "secret list -o json"),
    ("secret-delete", "secret delete warehouse lake"),
    ("schedule-list-empty", "schedule list"),
    (
        "schedule-create",
        "schedule create nightly hello.yaml --cron @daily -p GREETING=hi --label team=ml",
    ),
    ("schedule-exists", "schedule create nightly hello.yaml --every 1h"),
    (
        "schedule-refused",
        "schedule create other hello.yaml --cron @nightly --start-deadline 0s --time-zone Europe/Berln",
    ),
    ("schedule-bad-cron", "schedule create other hello.yaml --cron 61"),
    ("schedule-get", "schedule get nightly"),
    ("schedule-unknown", "schedule get nightlie"),
    (
        "schedule-update",
        "schedule update nightly --every 6h --overlap replace --catch-up last",
    ),
    ("schedule-update-nothing", "schedule update nightly"),
    ("schedule-list", "schedule list"),
    (
        "schedule-export-refused",
        "schedule export nightly --image w --pod-server https://w:1",
    ),
    (
        "schedule-export-wrong",
        "schedule export nightly --image w --pod-server w:1 --secret s --secret-ca --ttl 1ms --keep-failed 2000",
    ),
    ("schedule-export-loopback", "schedule export nightly --image w"),
    (
        "schedule-update-cron",
        "schedule update nightly --cron @daily --catch-up none",
    ),
    (
        "schedule-export",
        "schedule export nightly --image w --pod-server http://w:1",
    ),
    ("schedule-pause", "schedule pause nightly"),
    ("schedule-trigger", "schedule trigger nightly --request-id t1"),
    ("schedule-trigger-repeated", "schedule trigger nightly --request-id t1"),
    (
        "schedule-trigger-wait",
        "schedule trigger nightly --request-id t2 --wait --obey-overlap",
    ),
    (
        "schedule-export-paused",
        "schedule export nightly --image w --pod-server http://w:1 --pause",
    ),
    ("schedule-delete", "schedule delete nightly nightlie"),
    ("wrong-token", "list --token-file hello.yaml"),
    ("dev-held", "dev"),
];

struct Terminal {
    data: tempfile::TempDir,
}

impl Terminal {
    fn new() -> Self {
        Self {
            data: tempfile::tempdir().expect("a folder"),
        }
    }

    fn data(&self) -> PathBuf {
        self.data.path().join("data")
    }

    fn windlass(&self, args: &str) -> Command {
        let mut command = Command::new(binary("windlass"));
        command
            .args(
                args.replace("DATA", &self.data().display().to_string())
                    .split_whitespace(),
            )
            .current_dir(golden_folder().join("pipelines"))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.data.path())
            .env("USER", "ana")
            .env("TZ", "UTC")
            .env("WINDLASS_DATA_DIR", self.data())
            .stdin(Stdio::null());
        command
    }

    fn transcript(&self, args: &str) -> String {
        let output = self.windlass(args).output().expect("windlass runs");
        let status = output
            .status
            .code()
            .map_or_else(|| "by signal".to_owned(), |code| code.to_string());
        let mut text = format!("$ windlass {args}\n");
        for (name, bytes) in [("", &output.stdout), ("stderr:\n", &output.stderr)] {
            let printed = self.normalise(&String::from_utf8_lossy(bytes));
            if !printed.is_empty() {
                text.push_str(name);
                text.push_str(&printed);
            }
        }
        writeln!(text, "exit status {status}").expect("a string takes it");
        text
    }

    fn normalise(&self, text: &str) -> String {
        let text = text.replace(&self.data().display().to_string(), "DATA");
        let text = text.replace("~/data", "DATA");
        let rules = [
            // Lines of progress: how many there are depends on the machine.
            (r"(?m)^\d\d:\d\d:\d\d  .*\n", ""),
            (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "TIMESTAMP"),
            (r"\d\d:\d\d:\d\d", "TIME"),
            (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "ID"),
            (r"-[0-9a-z]{16}\b", "-HASH"),
            (r"nightly-[0-9a-z]{4}\b", "nightly-NAME"),
            (r"127\.0\.0\.1:\d{4,5}", "127.0.0.1:PORT"),
            (r"process \d+", "process PID"),
            (r"(<1s|\b\d+m\d\ds|\b\d+(\.\d)?s)\b", "DURATION"),
            (r"(?m)^(\S+  .*)\bnow\b", "${1}DURATION"),
            (r"(?m)(\S)  +", "$1  "),
            (r"(?m) +$", ""),
        ];
        rules.iter().fold(text, |text, (pattern, by)| {
            let pattern = Regex::new(pattern).expect("a pattern");
            pattern.replace_all(&text, *by).into_owned()
        })
    }

    fn check(&self, name: &str, args: &str, wrong: &mut Vec<String>) {
        let printed = self.transcript(args);
        let path = golden_folder().join(format!("{name}.txt"));
        if std::env::var_os("UPDATE_TRANSCRIPTS").is_some() {
            std::fs::write(&path, &printed).expect("the golden file is written");
            return;
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        if printed != expected {
            wrong.push(format!("{}:\nexpected\n{expected}\nfound\n{printed}", path.display()));
        }
    }
}

fn golden_folder() -> PathBuf {
    repository().join("tests/transcripts")
}

/// A `windlass dev` that ends with the test.
struct Dev(Child);

impl Dev {
    fn start(terminal: &Terminal) -> Self {
        let any = "127.0.0.1:0";
        let child = terminal
            .windlass(&format!(
                "dev --listen {any} --relay-listen {any} --cluster-listen {any}"
            ))
            .stdout(Stdio::null())
            .spawn()
            .expect("windlass dev starts");
        let dev = Self(child);
        let file = terminal.data().join("dev.json");
        wait_until("windlass dev is ready", || file.exists());
        dev
    }

    fn stop(&mut self) -> bool {
        let pid = i32::try_from(self.0.id()).expect("a pid");
        kill(Pid::from_raw(pid), Signal::SIGTERM).expect("windlass dev is there");
        self.0.wait().expect("windlass dev ends").success()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // It may have ended.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "waited 60 s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn assert_golden(wrong: &[String]) {
    assert!(
        wrong.is_empty(),
        "{} transcripts differ; UPDATE_TRANSCRIPTS=1 writes them anew\n\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// behaviours E41
#[test]
fn commands_without_a_server_print_what_the_golden_files_say() {
    let terminal = Terminal::new();
    let mut wrong = Vec::new();
    for (name, args) in WITHOUT_SERVER {
        terminal.check(name, args, &mut wrong);
    }
    assert_golden(&wrong);
}

/// behaviours S1, E1, K14, M13, Q5, SO5, T10, U2
#[test]
fn commands_against_a_server_print_what_the_golden_files_say() {
    let terminal = Terminal::new();
    let mut dev = Dev::start(&terminal);
    let mut wrong = Vec::new();
    for (name, args) in WITH_SERVER {
        terminal.check(name, args, &mut wrong);
    }
    assert!(dev.stop(), "windlass dev ends in order");
    assert_golden(&wrong);
}

#[test]
fn a_port_in_use_and_a_stopped_server_are_one_clear_line_each() {
    let terminal = Terminal::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address");
    let mut wrong = Vec::new();
    let output = terminal
        .windlass(&format!("dev --listen {address}"))
        .output()
        .expect("windlass runs");
    let printed = terminal.normalise(&String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(2), "{printed}");
    assert!(
        printed.starts_with("error: the scheduler cannot listen on 127.0.0.1:PORT: the port is in use\n"),
        "{printed}"
    );

    let mut dev = Dev::start(&terminal);
    assert!(dev.stop(), "windlass dev ends in order");
    let gone = terminal.data().join("dev.json");
    assert!(!gone.exists(), "nobody is sent to a server that ended");

    let mut dev = Dev::start(&terminal);
    dev.0.kill().expect("killed");
    dev.0.wait().expect("reaped");
    terminal.check("killed-server", "list", &mut wrong);
    assert_golden(&wrong);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let terminal = Terminal::new();
    let mut child = terminal
        .windlass("reference api")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("windlass runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(141));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn every_golden_file_belongs_to_a_command() {
    let mut known: Vec<&str> = WITHOUT_SERVER
        .iter()
        .chain(WITH_SERVER)
        .map(|(name, _)| *name)
        .collect();
    known.push("killed-server");
    let files = std::fs::read_dir(golden_folder()).expect("the golden files");
    let names = files.filter_map(|file| {
        let path = file.expect("an entry").path();
        let is_golden = path.extension().is_some_and(|end| end == "txt");
        is_golden.then(|| {
            path.file_stem()
                .map(Path::new)
                .and_then(Path::to_str)
                .map(str::to_owned)
        })?
    });
    let names: Vec<_> = names.collect();
    assert!(names.len() >= 30, "{} transcripts", names.len());
    let strays: Vec<_> = names.iter().filter(|name| !known.contains(&name.as_str())).collect();
    assert!(strays.is_empty(), "{strays:?}");
}
