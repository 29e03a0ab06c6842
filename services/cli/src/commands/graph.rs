//! `windlass graph`.

use std::collections::BTreeMap;
use std::path::Path;

use windlass_api::run::v1::Step;

use crate::args::{GlobalArgs, GraphArgs, GraphFormat};
use crate::client::Session;
use crate::errors::{CliError, Exit, Result};
use crate::output;
use crate::output::graph::{Graph, Node};
use crate::progress::model::step_state_name;

/// Most steps that are fetched.
const ALL_STEPS: usize = 1_000_000;

pub(super) async fn run(global: &GlobalArgs, args: &GraphArgs) -> Result<Exit> {
    let path = Path::new(&args.subject);
    let is_file = args.subject == "-" || path.is_file();
    if !is_file && looks_like_a_file(&args.subject) {
        return Err(
            CliError::bad_input(format!("cannot read {}: no such file", args.subject))
                .hint("give a pipeline file, or the name of a run"),
        );
    }
    let graph = if is_file {
        super::pipeline::graph(path)?
    } else {
        of_run(global, &args.subject, args.expand).await?
    };
    let graph = if args.expand { graph } else { graph.folded() };
    output::raw(
        match args.format {
            GraphFormat::Text => graph.text(),
            GraphFormat::Mermaid => graph.mermaid(),
            GraphFormat::Dot => graph.dot(),
        }
        .as_bytes(),
    )?;
    Ok(Exit::Succeeded)
}

fn looks_like_a_file(subject: &str) -> bool {
    subject.contains('/') || [".yaml", ".yml", ".json"].iter().any(|end| subject.ends_with(end))
}

async fn of_run(global: &GlobalArgs, name: &str, expand: bool) -> Result<Graph> {
    let session = Session::open(global).await?;
    let found: Result<(String, Vec<Step>)> = async {
        let run = session.get_run(name).await?;
        let steps = session.list_steps(&run.id, "", ALL_STEPS).await?;
        Ok((run.pipeline, steps))
    }
    .await;
    session.close().await?;
    let (pipeline, steps) = found?;
    let instances = if expand { instances(&steps) } else { BTreeMap::new() };
    let nodes = steps.into_iter().map(|step| Node {
        state: Some(step_state_name(step.state()).to_owned()),
        group: step.source_step,
        name: step.name,
        // Where a step comes after very many, the server names matrix steps instead of their instances.
        upstream: step
            .upstream
            .into_iter()
            .flat_map(|name| instances.get(&name).cloned().unwrap_or_else(|| vec![name]))
            .collect(),
        condition: None,
    });
    Ok(Graph::new(pipeline, nodes))
}

/// The instances of each matrix step.
fn instances(steps: &[Step]) -> BTreeMap<String, Vec<String>> {
    let mut instances: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for step in steps.iter().filter(|step| step.name != step.source_step) {
        instances
            .entry(step.source_step.clone())
            .or_default()
            .push(step.name.clone());
    }
    instances
}
