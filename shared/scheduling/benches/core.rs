//! Measures the core against a bare Kahn loop in the same process (performance P1, P6, P11).
//!
//! `cargo bench -p windlass-scheduling`. Only the ratios count; a ratio above its goal is printed as MISSED.

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use windlass_ids::{AttemptId, Incarnation, RunId, StepIndex, Timestamp};
use windlass_scheduling::*;

const PAIRS: usize = 7;
const ME: Incarnation = Incarnation::from_bytes([1; 16]);

fn main() {
    println!("P1: per node, core over bare Kahn loop, median of {PAIRS} pairs (goal: at most 8 at 100k nodes)");
    let mut growth = Vec::new();
    for (name, steps) in graphs() {
        let spec = spec(&steps);
        let mut ratios: Vec<(f64, f64, f64)> = (0..PAIRS).map(|_| pair(&spec)).collect();
        ratios.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (ratio, ours, bare) = ratios[PAIRS / 2];
        println!(
            "  {name:<22} {ratio:>5.1}x   {ours:>4.0} ns against {bare:>3.0} ns {}",
            verdict(ratio <= 8.0)
        );
        growth.push((name, ours, bare));
    }
    fan_out();
    memory();
}

fn verdict(met: bool) -> &'static str {
    if met { "" } else { "MISSED" }
}

type Upstream = Vec<Vec<StepIndex>>;

fn graphs() -> Vec<(&'static str, Upstream)> {
    vec![
        ("chain 1k", chain(1_000)),
        ("chain 100k", chain(100_000)),
        ("fan 1k", fan(1_000)),
        ("fan 50k", fan(50_000)),
        ("layered 100x100x20", layered(100, 100, 20)),
        ("random 1k, 3 each", random(1_000)),
        ("random 100k, 3 each", random(100_000)),
        ("random 1M, 3 each", random(1_000_000)),
    ]
}

fn chain(steps: u32) -> Upstream {
    (0..steps)
        .map(|step| step.checked_sub(1).map(StepIndex).into_iter().collect())
        .collect()
}

fn fan(steps: u32) -> Upstream {
    (0..steps)
        .map(|step| if step == 0 { vec![] } else { vec![StepIndex(0)] })
        .collect()
}

fn layered(layers: u32, width: u32, degree: u32) -> Upstream {
    let upstream = |step: u32| {
        let (layer, place) = (step / width, step % width);
        if layer == 0 {
            return Vec::new();
        }
        (0..degree)
            .map(|edge| StepIndex((layer - 1) * width + (place + edge * 7) % width))
            .collect()
    };
    (0..layers * width).map(upstream).collect()
}

/// Three different earlier steps each, from a fixed seed.
fn random(steps: u32) -> Upstream {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move |bound: u32| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        StepIndex(u32::try_from(state % u64::from(bound)).expect("below the bound"))
    };
    let mut upstream = |step: u32| {
        let mut row: Vec<StepIndex> = (0..3.min(step)).map(|_| next(step)).collect();
        row.sort_unstable();
        row.dedup();
        row
    };
    (0..steps).map(&mut upstream).collect()
}

fn spec(upstream: &Upstream) -> Arc<RunSpec> {
    let parameters = RunParameters::new(RunId::from_bytes([7; 16]), "bench".into());
    let steps = upstream.iter().map(|upstream| StepSpec {
        policy: 0,
        upstream: upstream.clone(),
    });
    Arc::new(RunSpec::new(parameters, vec![StepPolicy::default()], steps).expect("a graph"))
}

/// One run of each, interleaved: ratio, ours and bare in nanoseconds a node.
fn pair(spec: &Arc<RunSpec>) -> (f64, f64, f64) {
    let ours = whole_run(spec);
    let bare = kahn(spec.graph());
    let per_node = |time: Duration| time.as_nanos() as f64 / spec.steps() as f64;
    (ours.as_secs_f64() / bare.as_secs_f64(), per_node(ours), per_node(bare))
}

/// The bare loop: counters, a queue, every node once.
fn kahn(graph: &Graph) -> Duration {
    let started = Instant::now();
    let mut remaining: Vec<u32> = graph.indices().map(|step| graph.upstream(step).len() as u32).collect();
    let mut ready: VecDeque<StepIndex> = graph.indices().filter(|step| remaining[step.as_usize()] == 0).collect();
    let mut done = 0;
    while let Some(step) = ready.pop_front() {
        done += 1;
        for next in graph.downstream(step) {
            let left = &mut remaining[next.as_usize()];
            *left -= 1;
            if *left == 0 {
                ready.push_back(*next);
            }
        }
    }
    assert_eq!(black_box(done), graph.steps());
    started.elapsed()
}

fn now() -> Timestamp {
    Timestamp::from_millis(1_000_000)
}

fn core() -> (Scheduler, Decision) {
    let mut core = Scheduler::new(Config::default());
    let mut decision = Decision::default();
    let connected = Event::ExecutorConnected {
        incarnation: ME,
        cluster: "uid".into(),
        alias: "bench".into(),
        credit: u32::MAX,
        resumed: false,
    };
    core.handle(now(), connected, &mut decision).expect("accepted");
    decision.clear();
    (core, decision)
}

fn success(attempt: AttemptId, grant: u32) -> Event {
    let mut seen = Observation::new(attempt, grant, None, AttemptPhase::Ended);
    seen.end = Some(AttemptEnd::success(now()));
    Event::AttemptObserved {
        by: ME,
        observation: seen,
    }
}

/// Submission to the end, every launch answered with success: all changes are made and read by the caller.
fn whole_run(spec: &Arc<RunSpec>) -> Duration {
    let (mut core, mut decision) = core();
    let mut queue: VecDeque<(AttemptId, u32)> = VecDeque::new();
    let mut changes = 0;
    let mut succeeded = 0;
    let started = Instant::now();
    let submitted = Event::RunSubmitted { spec: Arc::clone(spec) };
    core.handle(now(), submitted, &mut decision).expect("accepted");
    loop {
        for effect in decision.effects.drain(..) {
            if let Effect::Launch(launch) = effect {
                queue.push_back((launch.attempt, launch.grant));
            }
        }
        for change in decision.changes.drain(..) {
            changes += 1;
            succeeded += usize::from(matches!(change.kind, ChangeKind::AttemptSucceeded { .. }));
        }
        let Some((attempt, grant)) = queue.pop_front() else {
            break;
        };
        core.handle(now(), success(attempt, grant), &mut decision)
            .expect("accepted");
    }
    let elapsed = started.elapsed();
    assert_eq!(succeeded, spec.steps(), "every step ran once");
    assert_eq!(black_box(changes), 3 * spec.steps() + 3);
    elapsed
}

/// P6: the last predecessor of many steps ends.
fn fan_out() {
    println!("P6: hand-over of a fan-out (goal: 5,000 steps in 10 ms, and 100,000 as well)");
    for steps in [5_000, 100_000] {
        let spec = spec(&fan(steps + 1));
        let mut times: Vec<Duration> = (0..PAIRS)
            .map(|_| {
                let (mut core, mut decision) = core();
                let submitted = Event::RunSubmitted {
                    spec: Arc::clone(&spec),
                };
                core.handle(now(), submitted, &mut decision).expect("accepted");
                let root = AttemptId {
                    run: spec.run(),
                    step: StepIndex(0),
                    number: 1,
                };
                // The driver's buffers are warm: it uses them again and again.
                decision.changes.reserve(2 * steps as usize + 8);
                decision.effects.reserve(steps as usize + 8);
                let started = Instant::now();
                core.handle(now(), success(root, 1), &mut decision).expect("accepted");
                let elapsed = started.elapsed();
                let launched = decision
                    .effects
                    .iter()
                    .filter(|effect| matches!(effect, Effect::Launch(_)));
                assert_eq!(launched.count(), steps as usize + 1);
                elapsed
            })
            .collect();
        times.sort();
        let time = times[PAIRS / 2];
        println!(
            "  {steps:>7} steps {time:>12.2?} {}",
            verdict(time <= Duration::from_millis(10))
        );
    }
}

/// P11: bytes a step with everything in flight, and half done.
fn memory() {
    println!("P11: bytes a step, graph included, random graph with 3 edges a step (goal: at most 300)");
    for steps in [10_000_u32, 100_000] {
        let spec = spec(&random(steps));
        let (mut core, mut decision) = core();
        let submitted = Event::RunSubmitted {
            spec: Arc::clone(&spec),
        };
        core.handle(now(), submitted, &mut decision).expect("accepted");
        let per_step = |core: &Scheduler| core.memory_usage() / steps as usize;
        let loaded = per_step(&core);
        let mut queue: VecDeque<AttemptId> = VecDeque::new();
        let mut worst = loaded;
        let mut handled = 0;
        loop {
            queue.extend(decision.effects.drain(..).filter_map(|effect| match effect {
                Effect::Launch(launch) => Some(launch.attempt),
                _ => None,
            }));
            decision.clear();
            let Some(attempt) = queue.pop_front() else { break };
            core.handle(now(), success(attempt, 1), &mut decision)
                .expect("accepted");
            handled += 1;
            if handled % 1000 == 0 {
                worst = worst.max(per_step(&core));
            }
        }
        let fan = whole_fan_in_flight(steps);
        println!(
            "  {steps:>7} steps: {loaded} loaded, {worst} at most on the way, {fan} with all in flight {}",
            verdict(worst.max(fan) <= 300)
        );
    }
}

/// All steps of a fan live at a time, with pods and nodes.
fn whole_fan_in_flight(steps: u32) -> usize {
    let spec = spec(&vec![Vec::new(); steps as usize]);
    let (mut core, mut decision) = core();
    let submitted = Event::RunSubmitted {
        spec: Arc::clone(&spec),
    };
    core.handle(now(), submitted, &mut decision).expect("accepted");
    core.memory_usage() / steps as usize
}
