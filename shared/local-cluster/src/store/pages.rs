//! Lists in pages, all pages from one moment.

use std::collections::VecDeque;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::ListRequest;
use super::object::Object;
use super::state::State;
use crate::error::ApiError;

const KEPT_SNAPSHOTS: usize = 64;

/// One page.
#[derive(Debug)]
pub(crate) struct ListPage {
    /// The moment that all pages of the list show.
    pub version: u64,
    /// The selected objects, ordered by namespace and name.
    pub items: Vec<Arc<Object>>,
    /// Token for the next page, empty after the last.
    pub token: String,
    /// How many objects follow on later pages.
    pub remaining: usize,
}

/// What later pages of running lists will show: references only, a bounded number of lists.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    next: u64,
    kept: VecDeque<Snapshot>,
}

#[derive(Debug)]
struct Snapshot {
    id: u64,
    version: u64,
    items: Arc<Vec<Arc<Object>>>,
}

pub(super) fn list(state: &mut State, request: &ListRequest<'_>) -> Result<ListPage, ApiError> {
    let (id, version, items, offset) = if request.token.is_empty() {
        let mut items = state.list(request.resource, request.namespace);
        items.retain(|o| o.selected(request.labels, request.fields));
        (None, state.version, Arc::new(items), 0)
    } else {
        let (id, offset) = decode(request.token)?;
        let kept = state.snapshots.kept.iter().find(|s| s.id == id).ok_or_else(expired)?;
        (Some(id), kept.version, kept.items.clone(), offset)
    };
    let end = match request.limit {
        0 => items.len(),
        limit => items.len().min(offset.saturating_add(limit)),
    };
    let page = items.get(offset..end).unwrap_or_default().to_vec();
    let remaining = items.len() - end;
    let token = if remaining == 0 {
        String::new()
    } else {
        let id = id.unwrap_or_else(|| state.snapshots.keep(version, items));
        encode(id, end)
    };
    Ok(ListPage {
        version,
        items: page,
        token,
        remaining,
    })
}

impl Snapshots {
    fn keep(&mut self, version: u64, items: Arc<Vec<Arc<Object>>>) -> u64 {
        if self.kept.len() >= KEPT_SNAPSHOTS {
            self.kept.pop_front();
        }
        self.next += 1;
        self.kept.push_back(Snapshot {
            id: self.next,
            version,
            items,
        });
        self.next
    }

    pub(super) fn clear(&mut self) {
        self.kept.clear();
    }
}

impl super::Store {
    /// Forgets the moments of running lists: their next page gets 410.
    pub(crate) fn forget_snapshots(&self) {
        self.lock().snapshots.clear();
    }
}

fn encode(id: u64, offset: usize) -> String {
    URL_SAFE_NO_PAD.encode(format!("{}:{id}:{offset}", std::process::id()))
}

fn decode(token: &str) -> Result<(u64, usize), ApiError> {
    let bad = || ApiError::bad_request("continue key is not valid");
    let text = URL_SAFE_NO_PAD
        .decode(token)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(bad)?;
    let mut parts = text.split(':');
    let mut number = || parts.next().and_then(|p| p.parse::<u64>().ok()).ok_or_else(bad);
    let (process, id, offset) = (number()?, number()?, number()?);
    if process != u64::from(std::process::id()) {
        return Err(expired());
    }
    Ok((id, usize::try_from(offset).map_err(|_| bad())?))
}

fn expired() -> ApiError {
    ApiError::expired(
        "The provided continue parameter is too old to display a consistent list result. You must start a new list without the continue parameter.",
    )
}
