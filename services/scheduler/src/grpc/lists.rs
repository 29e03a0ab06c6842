//! ListRuns and ListSteps.

use windlass_api::run::v1 as wire;
use windlass_ids::{Namespace, StepIndex};

use super::Api;
use super::filter::{StepFilter, run_filter};
use super::page::{PageScope, PageTokenError};
use crate::errors::ListError;
use crate::history::failed;
use crate::lookup;
use crate::read_model::render::{self, StepDetail};
use crate::store::{self, PageToken};

const DEFAULT_RUNS: u32 = 50;
const MAX_RUNS: u32 = 500;
const DEFAULT_STEPS: u32 = 200;
const MAX_STEPS: u32 = 1_000;
/// Bytes of a page: below what clients receive, with room for the rest of the message.
const MAX_PAGE_BYTES: usize = windlass_api::MAX_RESPONSE_BYTES - 64 * 1024;

impl Api {
    /// Runs of one namespace, or of those of `among`, all when `None`.
    pub(super) async fn runs(
        &self,
        request: wire::ListRunsRequest,
        among: Option<Vec<Namespace>>,
    ) -> Result<wire::ListRunsResponse, ListError> {
        let mut filter = run_filter(&request.filter)?;
        filter.among = among;
        if request.namespace != "*" {
            filter.namespace = Some(lookup::namespace(&request.namespace)?);
        }
        let token = match request.page_token.as_str() {
            "" => None,
            text => Some(PageToken::decode(text, &filter).map_err(|error| match error {
                store::PageTokenError::Malformed => PageTokenError::Malformed,
                store::PageTokenError::OtherFilter => PageTokenError::OtherRequest,
            })?),
        };
        let limit = size(request.page_size, DEFAULT_RUNS, MAX_RUNS);
        let store = self.shared.store()?;
        let page = store
            .list_runs(&filter, token.as_ref(), limit)
            .await
            .map_err(|error| failed(&error))?;
        let (mut runs, mut bytes) = (Vec::with_capacity(page.runs.len()), 0);
        for (index, header) in page.runs.iter().enumerate() {
            let run = self.run_of(header);
            bytes += prost::Message::encoded_len(&run);
            if bytes > MAX_PAGE_BYTES && index > 0 {
                return Ok(wire::ListRunsResponse {
                    runs,
                    next_page_token: PageToken::new(&filter, page.runs[index - 1].id).encode(),
                });
            }
            runs.push(run);
        }
        Ok(wire::ListRunsResponse {
            runs,
            next_page_token: page.next.map(|token| token.encode()).unwrap_or_default(),
        })
    }

    pub(super) async fn steps(&self, request: wire::ListStepsRequest) -> Result<wire::ListStepsResponse, ListError> {
        let filter = StepFilter::parse(&request.filter)?;
        let namespace = lookup::namespace(&request.namespace)?;
        let entry = lookup::entry(&self.shared, &namespace, &request.run).await?;
        let scope = PageScope::of(&["steps", &entry.meta().header.id.to_string(), &request.filter]);
        let first = scope.position::<4>(&request.page_token)?.map_or(0, u32::from_be_bytes);
        let limit = size(request.page_size, DEFAULT_STEPS, MAX_STEPS);
        let (meta, record) = (entry.meta(), entry.record());
        let (mut steps, mut bytes) = (Vec::new(), 0);
        for index in first.. {
            let Some(step) = record.step(StepIndex(index)) else {
                break;
            };
            if !filter.matches(render::step_state(step.state), || meta.definition.step_name(step.index)) {
                continue;
            }
            let step = render::step(meta, &record, &step, StepDetail::Full);
            bytes += prost::Message::encoded_len(&step);
            if steps.len() == limit || (bytes > MAX_PAGE_BYTES && !steps.is_empty()) {
                return Ok(wire::ListStepsResponse {
                    steps,
                    next_page_token: scope.token(&index.to_be_bytes()),
                });
            }
            steps.push(step);
        }
        Ok(wire::ListStepsResponse {
            steps,
            next_page_token: String::new(),
        })
    }
}

fn size(asked: u32, default: u32, most: u32) -> usize {
    let size = if asked == 0 { default } else { asked.min(most) };
    size as usize
}
