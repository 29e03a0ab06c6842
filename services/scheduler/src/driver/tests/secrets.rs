//! Secrets of schedules in the driver: nothing begins to need one that is going (behaviours M12, E31).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::oneshot;
use windlass_api::journal::v1::ScheduledPipeline;
use windlass_ids::ScheduleSecretId;

use super::schedules::{ID, create, until};
use super::{Bench, bench};
use crate::admission::{Checker, Made, Scheduled, scheduled};
use crate::driver::{Command, MakeSecretOrder, Refusal, ScheduleRefusal, Submission};
use crate::errors::{SubmitError, Unavailable};
use crate::schedules::Changed;
use crate::store::{RunSchedule, RunSecret, ScheduleSecret, SecretOwner};

fn secret(number: u8) -> ScheduleSecret {
    ScheduleSecret {
        id: ScheduleSecretId::from_bytes([number; 16]),
        keys: ["TOKEN".to_owned()].into(),
        clusters: [("uid".into(), "prod".into())].into(),
    }
}

/// Puts one on record, as before it is made.
async fn begin(bench: &Bench, secret: &ScheduleSecret) -> Result<(), Refusal> {
    let (reply, answer) = oneshot::channel();
    let owner = SecretOwner::Schedule {
        secret: secret.id,
        schedule: ID,
    };
    let records = secret.clusters.iter().map(|(cluster, alias)| RunSecret {
        owner,
        owner_name: "ticks".to_owned(),
        cluster: cluster.clone(),
        alias: alias.clone(),
        namespace: "ml".into(),
    });
    let order = MakeSecretOrder {
        id: secret.id,
        schedule: ID,
        records: records.collect(),
        reply,
    };
    bench.shared.inbox.send(Command::MakeSecret(order)).await.expect("open");
    answer.await.expect("an answer")
}

/// Hands over a run that uses secrets of the schedule.
async fn run_with(bench: &Bench, secret: ScheduleSecret) -> Result<(), SubmitError> {
    let file = "{name: churn, steps: [{name: a, image: i, command: ['true'], \
        env: [{name: T, valueFrom: {runSecretKeyRef: {key: TOKEN}}}]}]}";
    let pipeline = windlass_pipeline::source::parse(file).into_pipeline().expect("one");
    let pipeline = ScheduledPipeline {
        pipeline: Some(windlass_api::convert::pipeline_to_proto(&pipeline)),
        ..ScheduledPipeline::default()
    };
    let of = Scheduled {
        namespace: "ml".into(),
        labels: BTreeMap::new(),
        of: RunSchedule {
            id: ID,
            name: "ticks".to_owned(),
            time: None,
        },
        user: String::new(),
        traceparent: String::new(),
        time: bench.shared.clock.now(),
        secret: Some(secret),
    };
    let made = scheduled(&bench.shared, Checker::default(), of, pipeline).await;
    let (made, named) = made.expect("a run");
    let Made {
        header,
        definition,
        packed,
        reused,
    } = made;
    let (reply, answer) = oneshot::channel();
    let submission = Submission {
        header,
        definition: Arc::new(definition),
        packed,
        request: None,
        reused,
        obeys_overlap: false,
        secrets: BTreeMap::new(),
        reservations: vec![named],
        reply,
    };
    bench.shared.inbox.submit(Box::new(submission)).expect("room");
    answer.await.expect("an answer")
}

#[tokio::test]
async fn i8_neither_a_schedule_nor_a_run_gets_secrets_that_are_going() {
    let data = tempfile::tempdir().expect("a folder");
    let bench = bench(data.path()).await;
    let replaced = SubmitError::SecretsReplaced {
        schedule: "ticks".to_owned(),
    };
    begin(&bench, &secret(1)).await.expect("on record");
    assert!(bench.shared.run_secrets.keeps(secret(1).id));
    let abandon = Command::AbandonSecret(secret(1).id);
    bench.shared.inbox.send(abandon).await.expect("open");
    let refused = create(&bench, true, Some(secret(1))).await.expect_err("it is going");
    assert_eq!(refused, ScheduleRefusal::Refused(Changed::SecretGone));
    assert!(!bench.shared.run_secrets.keeps(secret(1).id));
    assert_eq!(run_with(&bench, secret(1)).await, Err(replaced.clone()));

    begin(&bench, &secret(2)).await.expect("on record");
    create(&bench, true, Some(secret(2))).await.expect("made");
    run_with(&bench, secret(2)).await.expect("accepted");
    // One that is refused for its name takes its own with it, and not those of the other.
    begin(&bench, &secret(3)).await.expect("on record");
    let refused = create(&bench, true, Some(secret(3)))
        .await
        .expect_err("the name is taken");
    assert_eq!(refused, ScheduleRefusal::Refused(Changed::NameTaken));
    until("the third to go", || !bench.shared.run_secrets.keeps(secret(3).id)).await;
    assert!(bench.shared.run_secrets.keeps(secret(2).id));
    assert_eq!(run_with(&bench, secret(3)).await, Err(replaced));
    bench.shutdown.cancel();
    bench.driving.await.expect("no panic").expect("ends well");
}

#[tokio::test]
async fn i1_i8_secrets_whose_schedule_was_not_committed_are_needed_by_nobody_after_the_recovery() {
    let data = tempfile::tempdir().expect("a folder");
    let bench = bench(data.path()).await;
    begin(&bench, &secret(1)).await.expect("on record");
    let opened = bench.opened.load(Ordering::SeqCst);
    bench.broken.store(true, Ordering::SeqCst);
    let failed = create(&bench, true, Some(secret(1)))
        .await
        .expect_err("the commit failed");
    assert_eq!(failed, ScheduleRefusal::Unavailable(Unavailable::OutcomeUnknown));
    until("the recovery", || {
        bench.opened.load(Ordering::SeqCst) > opened && bench.shared.partition().is_ok()
    })
    .await;
    assert!(
        !bench.shared.run_secrets.keeps(secret(1).id),
        "it is on record, and to go"
    );
    let refused = create(&bench, true, Some(secret(1))).await.expect_err("it is going");
    assert_eq!(refused, ScheduleRefusal::Refused(Changed::SecretGone));

    // What is committed is there after a recovery, and what a run uses.
    begin(&bench, &secret(2)).await.expect("on record");
    create(&bench, true, Some(secret(2))).await.expect("made");
    let opened = bench.opened.load(Ordering::SeqCst);
    bench.broken.store(true, Ordering::SeqCst);
    begin(&bench, &secret(3)).await.expect_err("the commit failed");
    until("the recovery", || {
        bench.opened.load(Ordering::SeqCst) > opened && bench.shared.partition().is_ok()
    })
    .await;
    assert!(bench.shared.run_secrets.keeps(secret(2).id));
    assert!(!bench.shared.run_secrets.keeps(secret(3).id));
    run_with(&bench, secret(2)).await.expect("accepted");
    bench.shutdown.cancel();
    bench.driving.await.expect("no panic").expect("ends well");
}
