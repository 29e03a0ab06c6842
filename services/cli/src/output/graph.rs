//! Drawing a DAG as text, Mermaid or Graphviz.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// A step in a graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Name after expansion.
    pub name: String,
    /// Name in the file; empty when it is the same.
    pub group: String,
    /// Names of upstream steps.
    pub upstream: Vec<String>,
    /// State, when the graph is that of a run.
    pub state: Option<String>,
    /// `runIf`, unless it is the default.
    pub condition: Option<String>,
}

/// A DAG of steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Graph {
    name: String,
    nodes: Vec<Node>,
}

impl Graph {
    /// From its steps.
    pub fn new(name: String, nodes: impl IntoIterator<Item = Node>) -> Self {
        Self {
            name,
            nodes: nodes.into_iter().collect(),
        }
    }

    /// With one node for all steps of a matrix, `train ×5`.
    #[must_use]
    pub fn folded(self) -> Self {
        let group_of: BTreeMap<String, String> = self
            .nodes
            .iter()
            .map(|node| (node.name.clone(), group(node).to_owned()))
            .collect();
        let mut order = Vec::new();
        let mut groups: BTreeMap<String, Vec<Node>> = BTreeMap::new();
        for node in self.nodes {
            let key = group(&node).to_owned();
            let members = groups.entry(key.clone()).or_default();
            if members.is_empty() {
                order.push(key);
            }
            members.push(node);
        }
        let mut labels = BTreeMap::new();
        for (name, members) in &groups {
            let expanded = members.len() > 1 || members[0].name != *name;
            let label = if expanded {
                format!("{name} ×{}", members.len())
            } else {
                name.clone()
            };
            labels.insert(name.clone(), label);
        }
        let nodes = order.iter().map(|name| {
            let members = &groups[name];
            let upstream: BTreeSet<_> = members
                .iter()
                .flat_map(|member| &member.upstream)
                .map(|upstream| {
                    let group = group_of.get(upstream).unwrap_or(upstream);
                    labels.get(group).unwrap_or(group).clone()
                })
                .collect();
            Node {
                name: labels[name].clone(),
                group: String::new(),
                upstream: upstream.into_iter().collect(),
                state: folded_state(members),
                condition: members[0].condition.clone(),
            }
        });
        Self {
            name: self.name,
            nodes: nodes.collect(),
        }
    }

    /// For a terminal: layer by layer, each step with what it comes after.
    pub fn text(&self) -> String {
        let layers = self.layers();
        let last = layers.values().max().copied().unwrap_or(0);
        let mut table = super::Table::default();
        for layer in 0..=last {
            for node in self.nodes.iter().filter(|node| layers[&node.name] == layer) {
                let after = if node.upstream.is_empty() {
                    String::new()
                } else {
                    format!("← {}", node.upstream.join(", "))
                };
                let condition = node.condition.as_ref().map(|condition| format!("runIf {condition}"));
                let more = [node.state.clone(), condition];
                let marker = if layer == 0 {
                    String::new()
                } else {
                    format!("{}└ ", "  ".repeat(layer - 1))
                };
                table.row([
                    format!("{marker}{}", node.name),
                    after,
                    more.into_iter().flatten().collect::<Vec<_>>().join("  "),
                ]);
            }
        }
        format!("{}\n", table.render())
    }

    /// A Mermaid flow chart.
    pub fn mermaid(&self) -> String {
        let mut text = String::from("flowchart TD\n");
        let ids = self.ids();
        for node in &self.nodes {
            let label = label(node, "<br/>").replace('"', "&quot;");
            let class = node
                .state
                .as_ref()
                .map(|state| format!(":::{}", state.to_ascii_lowercase()));
            push(
                &mut text,
                format_args!(
                    "    s{}[\"{label}\"]{}\n",
                    ids[node.name.as_str()],
                    class.unwrap_or_default()
                ),
            );
        }
        for (from, to) in self.edges(&ids) {
            push(&mut text, format_args!("    s{from} --> s{to}\n"));
        }
        let states: BTreeSet<_> = self.nodes.iter().filter_map(|node| node.state.as_deref()).collect();
        for state in states {
            let class = state.to_ascii_lowercase();
            push(&mut text, format_args!("    classDef {class} fill:{}\n", fill(state)));
        }
        text
    }

    /// Graphviz.
    pub fn dot(&self) -> String {
        let quote = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
        let mut text = format!(
            "digraph {} {{\n    node [shape=box, style=\"rounded,filled\", fillcolor=white];\n",
            quote(&self.name)
        );
        let ids = self.ids();
        for node in &self.nodes {
            let label = quote(&label(node, "\n")).replace('\n', "\\n");
            let color = node
                .state
                .as_deref()
                .map(|state| format!(", fillcolor=\"{}\"", fill(state)));
            push(
                &mut text,
                format_args!(
                    "    s{} [label={label}{}];\n",
                    ids[node.name.as_str()],
                    color.unwrap_or_default()
                ),
            );
        }
        for (from, to) in self.edges(&ids) {
            push(&mut text, format_args!("    s{from} -> s{to};\n"));
        }
        text.push_str("}\n");
        text
    }

    fn ids(&self) -> BTreeMap<&str, usize> {
        self.nodes
            .iter()
            .enumerate()
            .map(|(index, node)| (node.name.as_str(), index))
            .collect()
    }

    fn edges(&self, ids: &BTreeMap<&str, usize>) -> Vec<(usize, usize)> {
        let edges = self.nodes.iter().enumerate().flat_map(|(to, node)| {
            let from = node.upstream.iter().filter_map(|upstream| ids.get(upstream.as_str()));
            from.map(move |from| (*from, to))
        });
        edges.collect()
    }

    /// The longest way from a step without upstream to each step.
    fn layers(&self) -> BTreeMap<String, usize> {
        let mut layers: BTreeMap<String, usize> = self.nodes.iter().map(|node| (node.name.clone(), 0)).collect();
        // Steps usually stand after their upstream, so few rounds suffice; a cycle cannot make more rounds than there are steps.
        for _ in 0..self.nodes.len() {
            let mut changed = false;
            for node in &self.nodes {
                let deepest = node.upstream.iter().filter_map(|upstream| layers.get(upstream)).max();
                let layer = deepest.map_or(0, |deepest| deepest + 1);
                if layers[&node.name] < layer {
                    layers.insert(node.name.clone(), layer);
                    changed = true;
                }
            }
            if !changed {
                break;
            }
        }
        layers
    }
}

fn group(node: &Node) -> &str {
    if node.group.is_empty() { &node.name } else { &node.group }
}

fn folded_state(members: &[Node]) -> Option<String> {
    let states: BTreeSet<_> = members.iter().filter_map(|member| member.state.as_deref()).collect();
    for state in [
        "FAILED",
        "LOST_CONTACT",
        "RETRY_WAIT",
        "RUNNING",
        "STARTING",
        "CANCELLED",
    ] {
        if states.contains(state) {
            return Some(state.to_owned());
        }
    }
    if states.len() > 1 && states.contains("SUCCEEDED") {
        return Some("RUNNING".to_owned());
    }
    states.first().map(|state| (*state).to_owned())
}

fn label(node: &Node, newline: &str) -> String {
    let condition = node
        .condition
        .as_ref()
        .map(|condition| format!("{newline}runIf {condition}"));
    format!("{}{}", node.name, condition.unwrap_or_default())
}

fn fill(state: &str) -> &'static str {
    match state {
        "SUCCEEDED" | "CACHED" => "#c8e6c9",
        "FAILED" => "#ffcdd2",
        "RUNNING" | "STARTING" => "#bbdefb",
        "LOST_CONTACT" | "RETRY_WAIT" => "#ffe0b2",
        "SKIPPED" | "CANCELLED" => "#e0e0e0",
        _ => "#ffffff",
    }
}

fn push(text: &mut String, more: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    text.write_fmt(more).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn churn() -> Graph {
        let node = |name: &str, group: &str, upstream: &[&str]| Node {
            name: name.to_owned(),
            group: group.to_owned(),
            upstream: upstream.iter().map(|name| (*name).to_owned()).collect(),
            state: None,
            condition: (name == "report").then(|| "ALWAYS".to_owned()),
        };
        Graph::new(
            "churn".to_owned(),
            [
                node("extract", "extract", &[]),
                node("train.0", "train", &["extract"]),
                node("train.1", "train", &["extract"]),
                node("report", "report", &["train.0", "train.1"]),
            ],
        )
    }

    #[test]
    fn text_shows_layers_and_what_comes_before() {
        insta::assert_snapshot!(churn().folded().text(), @r"
        extract
        └ train ×2  ← extract
          └ report  ← train ×2  runIf ALWAYS
        ");
    }

    #[test]
    fn mermaid_and_dot_draw_every_edge() {
        insta::assert_snapshot!(churn().mermaid(), @r#"
        flowchart TD
            s0["extract"]
            s1["train.0"]
            s2["train.1"]
            s3["report<br/>runIf ALWAYS"]
            s0 --> s1
            s0 --> s2
            s1 --> s3
            s2 --> s3
        "#);
        insta::assert_snapshot!(churn().folded().dot(), @r#"
        digraph "churn" {
            node [shape=box, style="rounded,filled", fillcolor=white];
            s0 [label="extract"];
            s1 [label="train ×2"];
            s2 [label="report\nrunIf ALWAYS"];
            s0 -> s1;
            s1 -> s2;
        }
        "#);
    }
}
