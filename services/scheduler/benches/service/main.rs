//! The scheduler as a process with a real store, real gRPC and an executor that answers at once.
//!
//! Goals P2, P8, P10 and P11 of the performance table, each beside a limit measured in the same run:
//! `cargo bench -p windlass-scheduler --bench service -- [pairs] [steps]`.

#[path = "../../tests/service/executor.rs"]
#[allow(dead_code, reason = "tests look at more of it than the benchmark")]
mod executor;
mod probe;
mod support;

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};
use windlass_api::pipeline::v1 as pipeline;
use windlass_api::pipeline::v1::pipeline_service_client::PipelineServiceClient;
use windlass_api::pipeline::v1::pipeline_service_server::{PipelineService, PipelineServiceServer};
use windlass_api::run::v1 as run;
use windlass_api::run::v1::run_service_client::RunServiceClient;

use crate::executor::{Executor, Identity, Play};
use crate::support::Scheduler;

/// Set in the process that echoes.
const ECHO: &str = "WINDLASS_BENCH_ECHO";
/// Submissions in flight.
const IN_FLIGHT: usize = 64;
/// Submissions of one half of a pair.
const SUBMISSIONS: usize = 4_000;

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    if let Ok(address) = std::env::var(ECHO) {
        return runtime.block_on(serve_echo(&address));
    }
    let numbers: Vec<usize> = std::env::args().filter_map(|word| word.parse().ok()).collect();
    let pairs = numbers.first().copied().unwrap_or(3);
    let steps = numbers.get(1).copied().unwrap_or(20_000);
    runtime.block_on(async {
        transitions(pairs, steps).await;
        submissions(pairs).await;
        memory().await;
    });
}

/// P2 and P10: a fan of steps from submission to end.
async fn transitions(pairs: usize, steps: usize) {
    println!("P2, P10: {steps} independent steps, executor answers at once, {pairs} pairs");
    let (mut cpu, mut ratios) = (Vec::new(), Vec::new());
    for _ in 0..pairs {
        let data = tempfile::tempdir().expect("a folder");
        let limit = probe::appended_per_second(data.path(), 1_000);
        let scheduler = Scheduler::start(data.path());
        let executor = Executor::new(
            Identity {
                credit: 4_000,
                ..Identity::new(1)
            },
            |_, _| Play::Succeed,
        );
        let playing = tokio::spawn({
            let (executor, channel) = (executor.clone(), scheduler.channel());
            async move { executor.run(channel).await }
        });
        let mut client = RunServiceClient::new(scheduler.channel());
        let (before, begun) = (scheduler.cpu(), Instant::now());
        let submitted = client
            .submit_run(submission("fan", wide(steps, 0)))
            .await
            .expect("accepted");
        let run = ended(&mut client, &submitted.into_inner().run.expect("a run").name).await;
        let (elapsed, used) = (begun.elapsed(), scheduler.cpu() - before);
        assert_eq!(run.state(), run::RunState::Succeeded);
        assert_eq!(executor.seen().launches.len(), steps, "every step ran exactly once");
        let rate = run.last_sequence as f64 / elapsed.as_secs_f64();
        let each = used.as_secs_f64() * 1e6 / steps as f64;
        println!(
            "  {each:6.1} us CPU a step · {:.0} steps/s · {rate:.0} transitions/s · {:.3} of append + fdatasync ({limit:.0}/s in groups of 1000)",
            steps as f64 / elapsed.as_secs_f64(),
            rate / limit,
        );
        cpu.push(each);
        ratios.push(rate / limit);
        playing.abort();
    }
    println!("P2:  median {:.1} us a step (goal 20)", median(&mut cpu));
    println!(
        "P10: median {:.3} of append + fdatasync (goal 0.25)",
        median(&mut ratios)
    );
}

/// P8: submissions of 10 steps, 64 in flight, beside a bare unary echo of the same pipeline.
async fn submissions(pairs: usize) {
    println!("P8: {SUBMISSIONS} submissions of 10 steps, {IN_FLIGHT} in flight, {pairs} pairs");
    let mut ratios = Vec::new();
    for _ in 0..pairs {
        let data = tempfile::tempdir().expect("a folder");
        let scheduler = Scheduler::start(data.path());
        let before = scheduler.cpu();
        let ours = rate(|number| {
            let mut client = RunServiceClient::new(scheduler.channel_of(number));
            async move {
                client
                    .submit_run(submission(&format!("r{number}"), wide(10, 700)))
                    .await
                    .map(drop)
            }
        })
        .await;
        let each = (scheduler.cpu() - before).as_secs_f64() * 1e6 / SUBMISSIONS as f64;
        drop(scheduler);
        let echo = Scheduler::echo();
        let bare = rate(|number| {
            let mut client = PipelineServiceClient::new(echo.channel_of(number));
            async move {
                let request = pipeline::ValidatePipelineRequest {
                    pipeline: Some(wide(10, 700)),
                    ..pipeline::ValidatePipelineRequest::default()
                };
                client.validate_pipeline(request).await.map(drop)
            }
        })
        .await;
        println!(
            "  {ours:.0} submits/s, {each:.0} us CPU each · echo {bare:.0}/s · {:.3}",
            ours / bare
        );
        ratios.push(ours / bare);
    }
    println!("P8:  median {:.3} of a bare unary echo (goal 0.4)", median(&mut ratios));
}

async fn rate<F: Future<Output = Result<(), Status>>>(call: impl Fn(usize) -> F) -> f64 {
    let begun = Instant::now();
    let mut calls = futures::stream::iter((0..SUBMISSIONS).map(call)).buffer_unordered(IN_FLIGHT);
    while let Some(answer) = calls.next().await {
        answer.expect("accepted");
    }
    SUBMISSIONS as f64 / begun.elapsed().as_secs_f64()
}

/// P11: resident memory of loaded runs.
async fn memory() {
    println!("P11: resident memory with one loaded run, 3 upstream steps each");
    let mut measured = Vec::new();
    for steps in [1_000, 10_000, 100_000] {
        let data = tempfile::tempdir().expect("a folder");
        let scheduler = Scheduler::start(data.path());
        let mut client = RunServiceClient::new(scheduler.channel());
        let base = scheduler.rss();
        client
            .submit_run(submission("layers", layers(steps)))
            .await
            .expect("accepted");
        let submitted = scheduler.rss();
        drop(scheduler);
        let scheduler = Scheduler::start(data.path());
        let mut client = RunServiceClient::new(scheduler.channel());
        let begun = Instant::now();
        let request = run::GetRunRequest {
            namespace: "bench".to_owned(),
            run: "@latest".to_owned(),
        };
        client.get_run(request).await.expect("recovered");
        let recovered = scheduler.rss();
        println!(
            "  {steps:7} steps: base {:.1} MB · submitted {:.1} MB · recovered {:.1} MB, first answer after {:?}",
            mb(base),
            mb(submitted),
            mb(recovered),
            begun.elapsed(),
        );
        measured.push((steps as f64, recovered as f64));
    }
    println!(
        "P11: {:.0} bytes a step, slope over the three (goal 300)",
        slope(&measured)
    );
}

fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let above: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    let below: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    above / below
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

async fn ended(client: &mut RunServiceClient<windlass_service::AuthenticatedChannel>, name: &str) -> run::Run {
    loop {
        let request = run::GetRunRequest {
            namespace: "bench".to_owned(),
            run: name.to_owned(),
        };
        let run = client
            .get_run(request)
            .await
            .expect("answers")
            .into_inner()
            .run
            .expect("a run");
        if run.end_time.is_some() {
            return run;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn submission(request_id: &str, pipeline: pipeline::Pipeline) -> run::SubmitRunRequest {
    run::SubmitRunRequest {
        namespace: "bench".to_owned(),
        request_id: request_id.to_owned(),
        pipeline: Some(pipeline),
        ..run::SubmitRunRequest::default()
    }
}

/// Independent steps; `padding` bytes of environment make a submission as large as a real one.
fn wide(steps: usize, padding: usize) -> pipeline::Pipeline {
    let one = |step: String| pipeline::Step {
        name: step,
        command: vec!["python".to_owned(), "-m".to_owned(), "churn.train".to_owned()],
        ..pipeline::Step::default()
    };
    let written = if steps <= 10 {
        (0..steps).map(|number| one(format!("step-{number}"))).collect()
    } else {
        vec![pipeline::Step {
            matrix: vec![pipeline::MatrixAxis {
                name: "FOLD".to_owned(),
                values: (0..steps)
                    .map(|number| prost_types::Value::from(number as f64))
                    .collect(),
            }],
            ..one("fold".to_owned())
        }]
    };
    with_steps(written, padding)
}

/// Steps in layers of 100, each after three of the layer before.
fn layers(steps: usize) -> pipeline::Pipeline {
    let written = (0..steps).map(|number| {
        let above = number.checked_sub(100);
        let first = above.map(|above| above - above % 100);
        let upstream =
            (0..3).filter_map(|offset| first.map(|first| format!("s{}", first + (number * 7 + offset) % 100)));
        pipeline::Step {
            name: format!("s{number}"),
            upstream: upstream.collect(),
            command: vec!["true".to_owned()],
            ..pipeline::Step::default()
        }
    });
    with_steps(written.collect(), 0)
}

fn with_steps(steps: Vec<pipeline::Step>, padding: usize) -> pipeline::Pipeline {
    pipeline::Pipeline {
        name: "bench".to_owned(),
        defaults: Some(pipeline::StepDefaults {
            image: Some("ghcr.io/acme/churn:v3".to_owned()),
            env: vec![pipeline::EnvVar {
                name: "PADDING".to_owned(),
                value: Some("x".repeat(padding)),
                value_from: None,
            }],
            ..pipeline::StepDefaults::default()
        }),
        steps,
        ..pipeline::Pipeline::default()
    }
}

/// Answers a pipeline with nothing done.
struct Echo;

#[tonic::async_trait]
impl PipelineService for Echo {
    type RenderPipelineStream = futures::stream::Empty<Result<pipeline::RenderPipelineResponse, Status>>;

    async fn validate_pipeline(
        &self,
        request: Request<pipeline::ValidatePipelineRequest>,
    ) -> Result<Response<pipeline::ValidatePipelineResponse>, Status> {
        let steps = request.into_inner().pipeline.map_or(0, |pipeline| pipeline.steps.len());
        Ok(Response::new(pipeline::ValidatePipelineResponse {
            violations: Vec::new(),
            step_count: u32::try_from(steps).unwrap_or(u32::MAX),
        }))
    }

    async fn render_pipeline(
        &self,
        _request: Request<pipeline::RenderPipelineRequest>,
    ) -> Result<Response<Self::RenderPipelineStream>, Status> {
        Ok(Response::new(futures::stream::empty()))
    }
}

async fn serve_echo(address: &str) {
    let listener = tokio::net::TcpListener::bind(address).await.expect("the port is free");
    tonic::transport::Server::builder()
        .tcp_nodelay(true)
        .add_service(PipelineServiceServer::new(Echo))
        .serve_with_incoming(TcpListenerStream::new(listener))
        .await
        .expect("serves until it is killed");
}
