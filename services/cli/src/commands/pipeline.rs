//! What commands do with a pipeline file without a server.

use std::path::Path;

use windlass_pipeline::RunIf;

use crate::errors::Result;
use crate::output::graph::{Graph, Node};
use crate::pipeline_file::PipelineFile;

/// The graph of a pipeline file.
pub(super) fn graph(path: &Path) -> Result<Graph> {
    let file = PipelineFile::open(path)?;
    // Parameters without a default have no value here, and need none for the graph.
    let resolved = file
        .check_without_parameters()
        .map_err(|violations| file.error(&violations))?;
    let names: Vec<String> = resolved.step_names().collect();
    let nodes = names.iter().enumerate().map(|(index, name)| {
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        let upstream = resolved
            .upstream(index)
            .iter()
            .filter_map(|upstream| names.get(*upstream as usize));
        let run_if = resolved
            .template(index)
            .and_then(|template| template.merged.run_if)
            .unwrap_or_default();
        Node {
            name: name.clone(),
            group: resolved
                .source(index)
                .map(|source| source.name.clone())
                .unwrap_or_default(),
            upstream: upstream.cloned().collect(),
            state: None,
            condition: (run_if != RunIf::default()).then(|| run_if.to_string()),
        }
    });
    Ok(Graph::new(resolved.name.clone(), nodes.collect::<Vec<_>>()))
}
