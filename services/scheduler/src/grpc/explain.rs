//! ExplainRun.

use tokio::sync::oneshot;
use windlass_api::convert::{duration_to_proto, timestamp_to_proto};
use windlass_api::run::v1 as wire;
use windlass_ids::StepIndex;
use windlass_scheduling::StepState;

use super::Api;
use crate::driver::{Command, ExplainOrder, Refusal};
use crate::errors::{ChangeError, LookupError, Unavailable};
use crate::explain::{Text, explain};
use crate::lookup;
use crate::read_model::RunEntry;

/// Waiting steps that the explanation of a run lists.
const MAX_STEPS: usize = 20;

impl Api {
    pub(super) async fn explain(
        &self,
        request: wire::ExplainRunRequest,
    ) -> Result<wire::ExplainRunResponse, ChangeError> {
        let namespace = lookup::namespace(&request.namespace)?;
        let entry = lookup::entry(&self.shared, &namespace, &request.run).await?;
        let meta = entry.meta();
        let step = match request.step.as_str() {
            "" => None,
            name => Some(
                meta.definition
                    .find_step(name)
                    .ok_or_else(|| LookupError::UnknownStep {
                        run: meta.header.name.clone(),
                        step: name.to_owned(),
                    })?,
            ),
        };
        let (reply, answer) = oneshot::channel();
        let order = ExplainOrder {
            run: meta.header.id,
            step,
            steps: MAX_STEPS,
            reply,
        };
        self.shared.inbox.send(Command::Explain(order)).await?;
        let explanations = match answer.await.map_err(|_| Unavailable::ShuttingDown)? {
            Ok(explanations) => explanations,
            Err(Refusal::Unavailable(error)) => return Err(error.into()),
            Err(Refusal::Rejected(_) | Refusal::NotEnded) => Vec::new(),
        };
        let executor = |incarnation| self.shared.executors.name(incarnation);
        let texts: Vec<Text> = match explanations.is_empty() {
            // The core has forgotten the run: it has ended.
            true => vec![ended(&entry, step)],
            false => explanations
                .iter()
                .map(|explanation| match explanation.step_state {
                    // Its record knows whose work it uses.
                    Some(StepState::Cached) => ended(&entry, explanation.step),
                    _ => explain(meta, explanation, &executor),
                })
                .collect(),
        };
        Ok(wire::ExplainRunResponse {
            explanations: texts.into_iter().map(|text| self.message(text)).collect(),
        })
    }

    fn message(&self, text: Text) -> wire::Explanation {
        let waited = self.shared.clock.now().since(text.since);
        wire::Explanation {
            step: text.step,
            state: text.state,
            blocker: text.blocker.to_owned(),
            message: text.message,
            since: Some(timestamp_to_proto(text.since)),
            until: text.until.map(timestamp_to_proto),
            then: text.then,
            suggestion: text.suggestion,
            waited: Some(duration_to_proto(waited)),
        }
    }
}

/// What an ended run, or a step of it, says.
fn ended(entry: &RunEntry, step: Option<StepIndex>) -> Text {
    crate::explain::ended(entry.meta(), &entry.record(), step)
}
