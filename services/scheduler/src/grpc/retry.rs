//! RetryRun.

use std::collections::BTreeSet;

use windlass_api::run::v1 as wire;

use super::Api;
use crate::admission::{self, Plan, Submitter};
use crate::definition::RunDefinition;
use crate::errors::{LookupError, RetryError};
use crate::lookup;

/// Most names of steps in each list of an answer.
const MAX_NAMES: usize = 100;

impl Api {
    pub(super) async fn retry(
        &self,
        submitter: Submitter,
        request: wire::RetryRunRequest,
    ) -> Result<wire::RetryRunResponse, RetryError> {
        let namespace = lookup::namespace(&request.namespace)?;
        if request.validate_only {
            let (plan, entry, keys) = admission::plan(&self.shared, &namespace, &request).await?;
            return Ok(wire::RetryRunResponse {
                secret_keys: keys.into_iter().take(MAX_NAMES).collect(),
                ..answer(&plan, &entry.meta().definition)
            });
        }
        let retried = admission::retry(&self.shared, self.checker(), submitter, namespace, request).await?;
        let run = Some(self.run_of(&retried.header));
        let created = retried.created;
        match lookup::entry_of(&self.shared, &retried.header).await {
            Ok(entry) => {
                let (plan, definition) = (Plan::of_retried(&entry), &entry.meta().definition);
                let keys: BTreeSet<&str> = match retried.header.fixed.secret {
                    Some(_) => BTreeSet::new(),
                    None => plan
                        .rerun
                        .iter()
                        .flat_map(|step| definition.resolved().run_secrets(step.0))
                        .collect(),
                };
                Ok(wire::RetryRunResponse {
                    run,
                    created,
                    secret_keys: keys.into_iter().take(MAX_NAMES).map(str::to_owned).collect(),
                    ..answer(&plan, definition)
                })
            }
            // Asked for long ago: that it was made is all that is known.
            Err(LookupError::HistoryGone { .. }) => Ok(wire::RetryRunResponse {
                run,
                created,
                ..wire::RetryRunResponse::default()
            }),
            Err(error) => Err(error.into()),
        }
    }
}

fn answer(plan: &Plan, definition: &RunDefinition) -> wire::RetryRunResponse {
    let count = |steps: &[_]| u32::try_from(steps.len()).unwrap_or(u32::MAX);
    wire::RetryRunResponse {
        run: None,
        created: false,
        reused_count: count(&plan.reused),
        reused_steps: definition.source_names(&plan.reused, MAX_NAMES),
        rerun_count: count(&plan.rerun),
        rerun_steps: definition.source_names(&plan.rerun, MAX_NAMES),
        secret_keys: Vec::new(),
    }
}
