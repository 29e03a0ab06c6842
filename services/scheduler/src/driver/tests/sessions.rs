//! Reports of executors on their way into the core.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use windlass_api::dispatch::v1::ExecutorHello;
use windlass_ids::Timestamp;
use windlass_scheduling::{Decision, Event, ExecutorView};

use super::super::batch::Live;
use super::super::command::{Command, Disconnected, Report};
use super::super::{Driver, Recovered, recover};
use super::{bench, build};
use crate::executors::{Hello, Session, open_session};
use crate::store::Store;

fn hello(resume_epoch: u64) -> Hello {
    let hello = ExecutorHello {
        incarnation: "00000000-0000-4000-8000-000000000001".to_owned(),
        protocol_min: 1,
        protocol_max: 1,
        cluster_uid: "uid".to_owned(),
        cluster_alias: "prod".to_owned(),
        resume_epoch,
        ..ExecutorHello::default()
    };
    Hello::check(hello).expect("a good Hello")
}

#[tokio::test]
async fn i2_a_session_that_the_core_has_given_up_begins_anew_even_before_anybody_was_told() {
    let data = tempfile::tempdir().expect("a folder");
    let bench = bench(data.path()).await;
    let partition = bench.shared.partition().expect("open");
    let hello = hello(partition.epoch);
    // The core does not know it, and nothing has taken it away yet.
    let given_up = Arc::new(Session::new(&hello, partition.epoch));
    bench.shared.executors.install(Arc::clone(&given_up));

    let (session, resumed) = open_session(&bench.shared, &partition, &hello).await.expect("opens");
    assert!(!resumed);
    assert!(given_up.is_retired());
    assert!(!Arc::ptr_eq(&session, &given_up));
    let (again, resumed) = open_session(&bench.shared, &partition, &hello).await.expect("opens");
    assert!(resumed && Arc::ptr_eq(&session, &again), "the core knows this one");
    bench.shutdown.cancel();
    bench.driving.await.expect("no panic").expect("ends well");
}

/// A driver with one executor, that applies commands when the test says so.
struct Table {
    driver: Driver,
    store: Arc<dyn Store>,
    live: Live,
    session: Arc<Session>,
}

impl Table {
    /// With an executor that connected `age` ago.
    async fn new(data: &std::path::Path, age: Duration) -> Self {
        let driver = build(data).driver;
        let Recovered { mut live, store, .. } = recover(&driver.open, &driver.core, &driver.shared)
            .await
            .expect("opens");
        let session = Arc::new(Session::new(&hello(0), 1));
        let connected = Event::ExecutorConnected {
            incarnation: session.incarnation,
            cluster: session.cluster.clone(),
            alias: session.alias.clone(),
            credit: 1,
            resumed: false,
        };
        let now = driver.shared.clock.now().as_millis();
        let then = Timestamp::from_millis(now - i64::try_from(age.as_millis()).expect("short"));
        live.core
            .handle(then, connected, &mut Decision::default())
            .expect("accepted");
        Self {
            driver,
            store,
            live,
            session,
        }
    }

    /// Applies a command and commits what comes of it.
    async fn apply(&mut self, command: Command) {
        let (mut commands, mut held) = (vec![command], VecDeque::new());
        self.driver
            .apply(&self.store, &mut self.live, &mut commands, &mut held)
            .await
            .expect("commits");
        self.driver.drain(&mut self.live, held).await;
    }

    fn executor(&self) -> Option<ExecutorView> {
        self.live.core.executors().next()
    }

    fn credit(&self, sequence: u64, credit: u32) -> Command {
        let incarnation = self.session.incarnation;
        let mut report = Report::new(Arc::clone(&self.session), sequence);
        report.events.push(Event::CreditChanged { incarnation, credit });
        Command::Report(Box::new(report))
    }

    fn acknowledged(&self) -> u64 {
        self.session.tell(|outbox| outbox.received())
    }
}

#[tokio::test]
async fn i1_a_report_that_was_lost_on_its_way_to_the_core_is_taken_when_it_is_sent_again() {
    let data = tempfile::tempdir().expect("a folder");
    let mut table = Table::new(data.path(), Duration::ZERO).await;
    // Its stream ended while it waited for room.
    drop(table.credit(1, 7));
    assert_eq!(table.acknowledged(), 0);
    table.apply(table.credit(1, 7)).await;
    assert_eq!(table.executor().expect("known").credit, 7);
    assert_eq!(table.acknowledged(), 1);
    table.apply(table.credit(2, 8)).await;
    table.apply(table.credit(1, 7)).await;
    assert_eq!(table.executor().expect("known").credit, 8, "once, and in order");
    assert_eq!(table.acknowledged(), 2);
}

#[tokio::test]
async fn i2_no_lease_ends_while_a_report_of_its_executor_waits() {
    let data = tempfile::tempdir().expect("a folder");
    // The driver stood still for longer than a lease.
    let mut table = Table::new(data.path(), Duration::from_secs(3_600)).await;
    table.apply(table.credit(1, 7)).await;
    assert_eq!(table.executor().expect("kept").credit, 7);
    assert!(!table.session.is_retired());
}

#[tokio::test]
async fn i3_the_end_of_an_older_stream_says_nothing_of_the_next_one() {
    let data = tempfile::tempdir().expect("a folder");
    let mut table = Table::new(data.path(), Duration::ZERO).await;
    let (older, _) = table.session.attach(Timestamp::default());
    let gone = |stream| {
        Command::Disconnected(Disconnected {
            session: Arc::clone(&table.session),
            stream,
        })
    };
    let (late, current) = (gone(older), gone(table.session.attach(Timestamp::default()).0));
    table.apply(late).await;
    assert!(table.executor().expect("known").connected);
    table.apply(current).await;
    assert!(!table.executor().expect("known").connected);
}

#[tokio::test]
async fn i2_reports_of_a_session_that_has_ended_are_neither_taken_nor_acknowledged() {
    let data = tempfile::tempdir().expect("a folder");
    let mut table = Table::new(data.path(), Duration::ZERO).await;
    table.session.retire();
    let (stream, token) = table.session.attach(Timestamp::default());
    assert!(token.is_cancelled(), "no stream goes on with it");
    let session = Arc::clone(&table.session);
    table
        .apply(Command::Disconnected(Disconnected { session, stream }))
        .await;
    assert!(table.executor().expect("known").connected);
    table.apply(table.credit(1, 7)).await;
    assert_eq!(table.executor().expect("known").credit, 1);
    assert_eq!(table.acknowledged(), 0);
}
