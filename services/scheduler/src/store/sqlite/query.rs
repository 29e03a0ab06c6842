//! Lists and look-ups of headers.

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};
use windlass_ids::{Namespace, RunId};

use super::rows::{self, RowError, collect, first};
use crate::store::{FoundRun, MAX_PAGE, NamePattern, PageToken, RunFilter, RunHeader, RunPage};

/// Most runs that an ambiguous reference names.
const MAX_AMBIGUOUS: usize = 6;

/// A statement that is put together from terms; every value is a parameter.
#[derive(Debug, Default)]
struct Conditions {
    tables: String,
    terms: Vec<String>,
    values: Vec<Value>,
}

impl Conditions {
    fn of(namespace: Option<&Namespace>) -> Self {
        let mut conditions = Self::default();
        if let Some(namespace) = namespace {
            conditions.add("run.namespace = ?", [text(namespace.as_str())]);
        }
        conditions
    }

    fn add(&mut self, term: &str, values: impl IntoIterator<Item = Value>) {
        self.terms.push(term.to_owned());
        self.values.extend(values);
    }

    fn prefix(&mut self, prefix: &str) {
        let end = format!("{prefix}\u{10FFFF}");
        self.add("run.name >= ? AND run.name < ?", [text(prefix), text(&end)]);
    }

    fn filter(filter: &RunFilter) -> Self {
        let mut conditions = Self::of(filter.namespace.as_ref());
        if let Some(namespaces) = &filter.among {
            let marks = vec!["?"; namespaces.len()].join(", ");
            conditions.add(
                &format!("+run.namespace IN ({marks})"),
                namespaces.iter().map(|namespace| text(namespace.as_str())),
            );
        }
        match filter.states.as_slice() {
            [] => {}
            [state] => conditions.add("run.state = ?", [Value::from(state.code())]),
            states => {
                // The plus keeps the planner from the index by state, whose parts it would have to sort.
                let marks = vec!["?"; states.len()].join(", ");
                conditions.add(
                    &format!("+run.state IN ({marks})"),
                    states.iter().map(|state| Value::from(state.code())),
                );
            }
        }
        if let Some(pipeline) = &filter.pipeline {
            conditions.add("run.pipeline = ?", [text(pipeline)]);
        }
        if let Some(submitted_by) = &filter.submitted_by {
            conditions.add("run.submitted_by = ?", [text(submitted_by)]);
        }
        match &filter.name {
            None => {}
            Some(NamePattern::Exact(name)) => conditions.add("run.name = ?", [text(name)]),
            Some(NamePattern::Prefix(prefix)) => conditions.prefix(prefix),
        }
        if let Some(time) = filter.ended_before {
            // By id all the same: what is listed is ordered by it.
            conditions.add("+run.ended < ?", [Value::from(time.as_millis())]);
        }
        for (number, (key, value)) in filter.labels.iter().enumerate() {
            let table = format!("label{number}");
            conditions.tables += &format!(", run_label AS {table}");
            conditions.add(
                &format!("{table}.key = ? AND {table}.value = ? AND {table}.run = run.id"),
                [text(key), text(value)],
            );
        }
        conditions
    }

    /// Newest first.
    fn read(self, connection: &Connection, limit: usize) -> Result<Vec<RunHeader>, RowError> {
        let condition = if self.terms.is_empty() {
            "1".to_owned()
        } else {
            self.terms.join(" AND ")
        };
        let sql = format!(
            "SELECT {} FROM run{} WHERE {condition} ORDER BY run.id DESC LIMIT {limit}",
            rows::HEADER,
            self.tables
        );
        let statement = connection.prepare_cached(&sql)?;
        collect(statement, params_from_iter(self.values), rows::header)
    }
}

fn text(text: &str) -> Value {
    Value::from(text.to_owned())
}

fn id(run: RunId) -> Value {
    Value::from(run.as_bytes().to_vec())
}

pub(super) fn run(connection: &Connection, run: RunId) -> Result<Option<RunHeader>, RowError> {
    let sql = format!("SELECT {} FROM run WHERE id = ?1", rows::HEADER);
    first(connection, &sql, [run.as_bytes()], rows::header)
}

pub(super) fn list(
    connection: &Connection,
    filter: &RunFilter,
    token: Option<&PageToken>,
    limit: usize,
) -> Result<RunPage, RowError> {
    let limit = limit.clamp(1, MAX_PAGE);
    let mut conditions = Conditions::filter(filter);
    if let Some(token) = token {
        conditions.add("run.id < ?", [id(token.before())]);
    }
    let mut runs = conditions.read(connection, limit + 1)?;
    let more = runs.len() > limit;
    runs.truncate(limit);
    let last = runs.last().filter(|_| more);
    let next = last.map(|last| PageToken::new(filter, last.id));
    Ok(RunPage { runs, next })
}

pub(super) fn find(
    connection: &Connection,
    namespace: Option<&Namespace>,
    reference: &str,
) -> Result<FoundRun, RowError> {
    if reference.is_empty() {
        return Ok(FoundRun::None);
    }
    if reference == "@latest" {
        let newest = Conditions::of(namespace).read(connection, 1)?;
        return Ok(newest.into_iter().next().map_or(FoundRun::None, FoundRun::One));
    }
    if let Ok(run) = reference.parse::<RunId>() {
        let mut conditions = Conditions::of(namespace);
        conditions.add("run.id = ?", [id(run)]);
        if let Some(found) = conditions.read(connection, 1)?.pop() {
            return Ok(FoundRun::One(found));
        }
    }
    let mut exact = Conditions::of(namespace);
    exact.add("run.name = ?", [text(reference)]);
    let found = exact.read(connection, MAX_AMBIGUOUS)?;
    if !found.is_empty() {
        return Ok(unambiguous(found));
    }
    by_prefix(connection, namespace, reference)
}

fn by_prefix(connection: &Connection, namespace: Option<&Namespace>, reference: &str) -> Result<FoundRun, RowError> {
    let mut names = Conditions::of(namespace);
    names.prefix(reference);
    let mut found = names.read(connection, MAX_AMBIGUOUS)?;
    if let Some((first, last)) = id_range(reference) {
        let mut ids = Conditions::of(namespace);
        ids.add("run.id BETWEEN ? AND ?", [id(first), id(last)]);
        found.extend(ids.read(connection, MAX_AMBIGUOUS)?);
    }
    found.sort_by_key(|header| std::cmp::Reverse(header.id));
    found.dedup_by_key(|header| header.id);
    found.truncate(MAX_AMBIGUOUS);
    Ok(unambiguous(found))
}

fn unambiguous(mut found: Vec<RunHeader>) -> FoundRun {
    match found.len() {
        0 | 1 => found.pop().map_or(FoundRun::None, FoundRun::One),
        _ => FoundRun::Ambiguous(found),
    }
}

/// The first and the last id that begin with a text.
fn id_range(prefix: &str) -> Option<(RunId, RunId)> {
    let digits: String = prefix.chars().filter(|character| *character != '-').collect();
    if digits.is_empty() || digits.len() > 32 {
        return None;
    }
    let padded = |pad: char| {
        format!("{digits}{}", pad.to_string().repeat(32 - digits.len()))
            .parse()
            .ok()
    };
    Some((padded('0')?, padded('f')?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_of_an_id_is_a_range() {
        let (first, last) = id_range("0193ab03-04").expect("hexadecimal");
        assert_eq!(first.to_string(), "0193ab03-0400-0000-0000-000000000000");
        assert_eq!(last.to_string(), "0193ab03-04ff-ffff-ffff-ffffffffffff");
        assert_eq!(id_range("churn"), None);
        assert_eq!(id_range("-"), None);
    }
}
