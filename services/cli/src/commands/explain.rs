//! `windlass explain`.

use console::Style;
use serde_json::json;
use windlass_api::run::v1::{ExplainRunRequest, Explanation};
use windlass_ids::Timestamp;

use crate::args::ExplainArgs;
use crate::client::{Patience, Session};
use crate::errors::{Exit, Result};
use crate::output::{self, clock_time, duration, millis, to_json};

pub(super) async fn run(session: &Session, args: &ExplainArgs) -> Result<Exit> {
    let run = session.get_run(&args.run).await?;
    let request = ExplainRunRequest {
        namespace: session.namespace.clone(),
        run: run.id.clone(),
        step: args.step.clone().unwrap_or_default(),
    };
    let response = session
        .call(Patience::USUAL, |mut client| {
            let request = request.clone();
            async move { client.explain_run(request).await }
        })
        .await?;
    let value = json!({"explanations": response.explanations.iter().map(to_json).collect::<Vec<_>>()});
    let now = session.clock.now();
    output::data(args.output.output, &value, || {
        let texts = response.explanations.iter().map(|one| text(one, &run.name, now));
        texts.collect::<Vec<_>>().join("\n")
    })?;
    Ok(Exit::Succeeded)
}

fn text(explanation: &Explanation, run: &str, now: Timestamp) -> String {
    let subject = match explanation.step.as_str() {
        "" => format!("run {run}"),
        step => format!("step {step}"),
    };
    let blocker = match explanation.blocker.as_str() {
        "" => String::new(),
        blocker => format!(", {blocker}"),
    };
    let mut text = format!(
        "{} is {}{blocker}",
        Style::new().bold().apply_to(subject),
        explanation.state
    );
    for (name, value) in [
        ("what", explanation.message.clone()),
        ("since", since(explanation, now)),
        ("until", until(explanation, now)),
        ("help", explanation.suggestion.clone()),
    ] {
        if !value.is_empty() {
            text.push_str(&format!("\n  {name:<5}  {}", value.replace('\n', "\n         ")));
        }
    }
    text
}

fn since(explanation: &Explanation, now: Timestamp) -> String {
    explanation.since.map_or_else(String::new, |since| {
        let since = millis(since);
        format!("{}, {} ago", clock_time(since), duration(now.since(since)))
    })
}

fn until(explanation: &Explanation, now: Timestamp) -> String {
    let until = explanation.until.map(|until| {
        let until = millis(until);
        format!("{}, in {}", clock_time(until), duration(until.since(now)))
    });
    match (until, explanation.then.as_str()) {
        (None, then) => then.to_owned(),
        (Some(until), "") => until,
        (Some(until), then) => format!("{until}; then {then}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explanation_says_what_since_until_and_what_helps() {
        let time = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let explanation = Explanation {
            step: "train.3".to_owned(),
            state: "STARTING".to_owned(),
            blocker: "UNSCHEDULABLE".to_owned(),
            message: "0/9 nodes have a free GPU".to_owned(),
            since: time(1_000),
            until: time(1_600),
            then: "it fails with STARTUP_TIMEOUT".to_owned(),
            suggestion: "ask for fewer GPUs".to_owned(),
            waited: None,
        };
        let text = text(&explanation, "churn-7k2m", Timestamp::from_millis(1_064_000));
        let text = console::strip_ansi_codes(&text).into_owned();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "step train.3 is STARTING, UNSCHEDULABLE");
        assert_eq!(lines[1], "  what   0/9 nodes have a free GPU");
        assert!(lines[2].ends_with(", 1m04s ago"), "{}", lines[2]);
        assert!(
            lines[3].ends_with(", in 8m56s; then it fails with STARTUP_TIMEOUT"),
            "{}",
            lines[3]
        );
        assert_eq!(lines[4], "  help   ask for fewer GPUs");
    }
}
