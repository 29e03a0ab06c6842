//! I1 on a real process: what was acknowledged outlives `kill -9` at any moment.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use windlass_scheduler::store::Store;
use windlass_scheduler::store::sqlite::{SqliteOptions, SqliteStore};

use crate::script::{self, Tally};
use crate::support::{options, start};

/// Folder of the process that is to be killed.
const CHILD: &str = "WINDLASS_TEST_STORE_CHILD";
/// How often to kill; a few times by default.
const KILLS: &str = "WINDLASS_TEST_KILLS";
/// Repeats a failed test.
const SEED: &str = "WINDLASS_TEST_SEED";

/// Batches in flight at once.
const IN_FLIGHT: usize = 4;

/// Folds and makes snapshots all the time, so that a kill meets them.
fn busy(folder: &Path) -> SqliteOptions {
    SqliteOptions {
        fold_bytes: 1,
        fold_idle: Duration::from_millis(1),
        snapshot_changes: 10,
        snapshots: Some(Arc::new(Tally)),
        ..options(folder)
    }
}

/// The process that is killed: the test executable once more. By itself it has nothing to do.
#[tokio::test]
async fn the_process_that_is_killed() {
    let Ok(folder) = std::env::var(CHILD) else {
        return;
    };
    let (store, _, runs) = start(busy(Path::new(&folder))).await;
    let mut n = script::committed(&runs);
    let mut flight = std::collections::VecDeque::new();
    loop {
        while flight.len() < IN_FLIGHT {
            n += 1;
            flight.push_back((n, store.commit(script::batch(n)).await.expect("queued")));
        }
        let (acknowledged, ticket) = flight.pop_front().expect("in flight");
        ticket.await.expect("commits");
        let mut out = std::io::stdout().lock();
        writeln!(out, "acknowledged {acknowledged}").expect("writes");
        out.flush().expect("flushes");
    }
}

#[tokio::test]
async fn i1_acknowledged_batches_outlive_kill_9_whole() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number(SEED).unwrap_or_else(|| rand::rng().random());
    println!("repeat with {SEED}={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let folder = tempfile::tempdir().expect("a folder");
    let mut before = 0;
    for kill in 0..number(KILLS).unwrap_or(20) {
        let acknowledged = kill_somewhere(folder.path(), &mut random);
        let (store, _, runs) = start(busy(folder.path())).await;
        let found = script::committed(&runs);
        println!("kill {kill}: {acknowledged:?} acknowledged, {found} found");
        assert!(found >= acknowledged.unwrap_or(before), "seed {seed}, kill {kill}");
        script::check(&store, found).await;
        store.fold().await.expect("folds");
        assert_eq!(left_behind(&store), 0, "of deleted runs, seed {seed}, kill {kill}");
        before = found;
    }
    assert!(before > 0, "no process came far enough to commit");
}

/// Lets a process work and kills it: after some acknowledgements and a little, or, now and then, while it starts.
///
/// The last batch that it acknowledged.
fn kill_somewhere(folder: &Path, random: &mut StdRng) -> Option<u64> {
    let mut child = spawn(folder);
    let out = child.stdout.take().expect("piped");
    let mut acknowledgements = BufReader::new(out).lines().map_while(Result::ok).filter_map(|line| {
        let (_, number) = line.split_once("acknowledged ")?;
        number.parse::<u64>().ok()
    });
    let mut last = None;
    let delay = if random.random_ratio(1, 4) {
        random.random_range(0..40_000)
    } else {
        let count = random.random_range(1..60);
        last = acknowledgements.by_ref().take(count).last();
        assert!(last.is_some(), "the process ended by itself");
        random.random_range(0..3_000)
    };
    // No synchronisation: the moment is what the test is about.
    std::thread::sleep(Duration::from_micros(delay));
    child.kill().expect("kills");
    child.wait().expect("ended");
    acknowledgements.last().or(last)
}

fn spawn(folder: &Path) -> Child {
    Command::new(std::env::current_exe().expect("the test executable"))
        .args(["--exact", "kills::the_process_that_is_killed", "--nocapture"])
        .env(CHILD, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("starts")
}

/// Rows of runs that are not there, and deletions that are not done.
fn left_behind(store: &SqliteStore) -> i64 {
    let connection = rusqlite::Connection::open(store.path()).expect("opens");
    let count = |what: &str| -> i64 {
        let sql = format!("SELECT count(*) FROM {what}");
        connection.query_row(&sql, [], |row| row.get(0)).expect("counts")
    };
    ["run_history", "definition", "snapshot"]
        .map(|table| count(&format!("{table} WHERE run NOT IN (SELECT id FROM run)")))
        .into_iter()
        .chain([count("deleted_run WHERE swept = 0")])
        .sum()
}
