//! The small process between the cluster and a container: it outlives the cluster, keeps the container's log, and
//! records how it ended.
//!
//! It is started with a folder as its argument and reads what to run from its standard input. SIGTERM is passed on to
//! the container's process group, SIGUSR1 kills everything. When the first process ends, all others below it go, too.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, setsid};
use tokio::signal::unix::{SignalKind, signal};

use crate::runtime::cri::{Framer, Stream};
use crate::runtime::folders::RunFolder;
use crate::runtime::process::{ExitRecord, Identity, Launch, Started, claim_record, descendants, write_record};

/// The first argument with which a cluster calls its own executable to become a shim.
pub const SHIM_ARGUMENT: &str = "local-cluster-shim";

/// What containerd reports for a command that cannot be started.
const START_ERROR_CODE: i32 = 128;
/// After the last process is gone the streams end; this bounds the wait for one that somebody else holds.
const DRAIN: Duration = Duration::from_secs(2);

/// Runs one container; `args` are the arguments after [`SHIM_ARGUMENT`]. To be called first thing in `main`.
pub fn shim_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let Some(folder) = args.into_iter().next() else {
        return ExitCode::from(2);
    };
    // A thread of its own: whatever `main` has set up does not matter then.
    let run = std::thread::spawn(move || run(&RunFolder(folder.into())));
    match run.join() {
        Ok(Ok(())) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn run(folder: &RunFolder) -> io::Result<()> {
    let mut order = Vec::new();
    io::stdin().read_to_end(&mut order)?;
    // A cluster that died while writing leaves half an order, which does not parse.
    let order: Launch = serde_json::from_slice(&order)?;
    let signals = catch_signals()?;
    // It may lead a session already, when it was started from a shell.
    let _already_leader = setsid();
    set_child_subreaper(true)?;
    let pid = i32::try_from(std::process::id()).unwrap_or_default();
    let me = Identity::of(pid).ok_or_else(|| io::Error::other("no /proc"))?;
    if !claim_record(&folder.claim(), &me)? {
        return Err(io::Error::other("another shim runs this container"));
    }
    let log = File::options().create(true).append(true).open(folder.log())?;
    let started_at = crate::clock::timestamp();
    let record = match start(&order) {
        Err(error) => {
            tell(
                folder,
                &Started {
                    at: started_at,
                    child: None,
                },
            )?;
            ExitRecord {
                exit_code: START_ERROR_CODE,
                started_at,
                finished_at: crate::clock::timestamp(),
                start_error: Some(error),
            }
        }
        Ok(mut child) => {
            let log = Arc::new(Mutex::new(log));
            let streams = [
                child.stdout.take().map(|s| follow(s, Stream::Stdout, log.clone())),
                child.stderr.take().map(|s| follow(s, Stream::Stderr, log.clone())),
            ];
            let main = i32::try_from(child.id()).unwrap_or_default();
            if signals.send(Pid::from_raw(main)).is_err() {
                return Err(io::Error::other("signals are not caught"));
            }
            tell(
                folder,
                &Started {
                    at: started_at,
                    child: Identity::of(main),
                },
            )?;
            let exit_code = wait(Pid::from_raw(main))?;
            for ended in streams.into_iter().flatten() {
                // Either it has ended, or somebody outside holds the stream open: both are fine.
                let _ended = ended.recv_timeout(DRAIN);
            }
            ExitRecord {
                exit_code,
                started_at,
                finished_at: crate::clock::timestamp(),
                start_error: None,
            }
        }
    };
    write_record(&folder.exit(), &record)
}

fn start(order: &Launch) -> Result<std::process::Child, String> {
    let (program, args) = order.command.split_first().ok_or("no command")?;
    let folder = Path::new(&order.working_dir);
    if !folder.is_dir() {
        let why = if folder.exists() {
            "not a directory"
        } else {
            "no such file or directory"
        };
        return Err(format!(
            "chdir to cwd ({:?}) set in config.json failed: {why}",
            order.working_dir
        ));
    }
    Command::new(program)
        .args(args)
        .env_clear()
        .envs(order.env.iter().map(|(k, v)| (k, v)))
        .current_dir(&order.working_dir)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound if !program.contains('/') => {
                format!("exec: {program:?}: executable file not found in $PATH")
            }
            io::ErrorKind::NotFound => format!("exec: {program:?}: stat {program}: no such file or directory"),
            io::ErrorKind::PermissionDenied => format!("exec: {program:?}: permission denied"),
            _ => format!("exec: {program:?}: {error}"),
        })
}

/// Says that the container runs. The cluster may be gone already, the record stays.
fn tell(folder: &RunFolder, started: &Started) -> io::Result<()> {
    write_record(&folder.started(), started)?;
    let mut line = serde_json::to_vec(started)?;
    line.push(b'\n');
    let mut out = io::stdout();
    if out.write_all(&line).and_then(|()| out.flush()).is_err() {
        // Nobody listens any more.
    }
    Ok(())
}

/// Copies a stream to the log in a thread; the channel closes at its end.
fn follow(mut source: impl Read + Send + 'static, stream: Stream, log: Arc<Mutex<File>>) -> Receiver<()> {
    let (done, ended) = channel::<()>();
    std::thread::spawn(move || {
        let mut framer = Framer::new(stream);
        let mut buffer = vec![0; 64 * 1024];
        let mut entries = Vec::new();
        loop {
            let count = match source.read(&mut buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => 0,
            };
            // The time is taken under the lock, so that the times of both streams are in the order of the file.
            let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
            match count {
                0 => framer.finish(crate::clock::timestamp(), &mut entries),
                _ => framer.push(crate::clock::timestamp(), &buffer[..count], &mut entries),
            }
            if log.write_all(&entries).is_err() {
                // A full disk loses lines, as it does for a container runtime; the container goes on.
            }
            entries.clear();
            if count == 0 {
                drop(done);
                return;
            }
        }
    });
    ended
}

/// Catches the signals of the cluster from now on; the sender takes the process that they are for.
///
/// They are caught and not blocked, since a blocked signal would stay blocked in the container.
fn catch_signals() -> io::Result<Sender<Pid>> {
    let (main, main_known) = channel::<Pid>();
    let (ready, is_ready) = channel::<io::Result<()>>();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
        let result = runtime.and_then(|runtime| runtime.block_on(pass_on(&main_known, &ready)));
        if let Err(error) = result
            && ready.send(Err(error)).is_err()
        {
            // Only a failure before `ready` matters, and then somebody waits.
        }
    });
    is_ready.recv().map_err(io::Error::other)??;
    Ok(main)
}

async fn pass_on(main_known: &Receiver<Pid>, ready: &Sender<io::Result<()>>) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut kill_all = signal(SignalKind::user_defined1())?;
    if ready.send(Ok(())).is_err() {
        return Ok(());
    }
    let Ok(main) = main_known.recv() else {
        return Ok(());
    };
    loop {
        tokio::select! {
            _ = kill_all.recv() => kill_everything(),
            _ = terminate.recv() => terminate_group(main),
            _ = interrupt.recv() => terminate_group(main),
            _ = hangup.recv() => terminate_group(main),
        }
    }
}

fn terminate_group(main: Pid) {
    if killpg(main, Signal::SIGTERM).is_err() {
        // It has just ended.
    }
}

fn kill_everything() {
    let me = i32::try_from(std::process::id()).unwrap_or_default();
    for pid in descendants(me) {
        if kill(Pid::from_raw(pid), Signal::SIGKILL).is_err() {
            // It has just ended.
        }
    }
}

/// Reaps until nobody is left; the exit code is that of the first process, with which the others go.
fn wait(main: Pid) -> io::Result<i32> {
    let mut exit_code = None;
    loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, code)) if pid == main => exit_code = Some(code),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == main => exit_code = Some(128 + signal as i32),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(Errno::ECHILD) => return Ok(exit_code.unwrap_or(137)),
            Err(error) => return Err(error.into()),
        }
        if exit_code.is_some() {
            kill_everything();
        }
    }
}
