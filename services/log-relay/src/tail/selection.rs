//! What a client wants to read: the request, checked.

use std::borrow::Cow;
use std::sync::Arc;

use memchr::memmem::Finder;
use regex::bytes::{RegexSet, RegexSetBuilder};
use windlass_api::follow::v1::{LogSource, StepName};
use windlass_api::log::v1::tail_logs_request::From as Begin;
use windlass_api::log::v1::{EndWhen, TailLogsRequest};

use crate::cursor::{Cursor, MAX_CURSOR_BYTES};
use crate::error::TailError;
use crate::hub::runs::RunView;
use crate::store::block::LineRecord;

const MAX_STEPS: usize = 1_000;
const MAX_TEXT: usize = 4_096;
const MAX_PATTERNS: usize = 32;
/// What the compiled regular expressions of one field may take, in bytes.
const MAX_PATTERN_BYTES: usize = 1024 * 1024;

/// Which containers are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Containers {
    /// All of them.
    All,
    /// Those of one name.
    Named(String),
}

/// Which attempts are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempts {
    /// All of them.
    All,
    /// The one with this number.
    Numbered(u32),
    /// The one before the newest.
    Previous,
}

/// Where reading begins.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum From {
    /// At the start.
    Start,
    /// Where an earlier stream stopped.
    Cursor(Box<Cursor>),
    /// At the last lines of each source.
    Tail(u64),
    /// At a time, nanoseconds since 1970.
    Since(i64),
}

/// When a following stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// With the run.
    Run,
    /// With the selected steps.
    Selection,
    /// Never.
    Never,
}

/// A checked request.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    pub(crate) namespace: String,
    pub(crate) run: String,
    steps: Vec<String>,
    attempts: Attempts,
    pub(crate) containers: Containers,
    pub(crate) from: From,
    pub(crate) follow: bool,
    contains: Finder<'static>,
    include: RegexSet,
    exclude: RegexSet,
    pub(crate) max_lines: u64,
    pub(crate) max_bytes: u64,
    pub(crate) until: Until,
}

impl Selection {
    /// Checks a request.
    ///
    /// # Errors
    /// With the path of the first field that cannot be used.
    pub(crate) fn parse(request: TailLogsRequest) -> Result<Self, TailError> {
        let invalid = |field: &'static str, problem: String| {
            Err(TailError::Invalid {
                field: field.into(),
                problem,
            })
        };
        if request.run.is_empty() {
            return invalid("run", "must not be empty".to_owned());
        }
        if request.steps.len() > MAX_STEPS {
            return invalid("steps", format!("at most {MAX_STEPS} names are allowed"));
        }
        for (field, length) in [
            ("run", request.run.len()),
            ("namespace", request.namespace.len()),
            ("container", request.container.len()),
            ("contains", request.contains.len()),
            ("steps", request.steps.iter().map(String::len).max().unwrap_or_default()),
        ] {
            if length > MAX_TEXT {
                return invalid(field, format!("at most {MAX_TEXT} bytes are allowed"));
            }
        }
        let until = match EndWhen::try_from(request.end_when) {
            Ok(EndWhen::Unspecified | EndWhen::RunFinished) => Until::Run,
            Ok(EndWhen::SelectionFinished) => Until::Selection,
            Ok(EndWhen::Never) => Until::Never,
            Err(_) => return invalid("end_when", format!("{} is not known", request.end_when)),
        };
        let attempts = match (request.previous, request.attempt) {
            (false, 0) => Attempts::All,
            (false, number) => Attempts::Numbered(number),
            (true, 0) if !request.follow => Attempts::Previous,
            (true, 0) => return invalid("previous", "cannot be followed: nothing more comes of it".to_owned()),
            (true, _) => return invalid("previous", "cannot be combined with attempt".to_owned()),
        };
        Ok(Self {
            namespace: or_default(request.namespace, "default"),
            run: request.run,
            steps: request.steps,
            attempts,
            containers: match or_default(request.container, "main").as_str() {
                "*" => Containers::All,
                name => Containers::Named(name.to_owned()),
            },
            from: begin(request.from)?,
            follow: request.follow,
            contains: Finder::new(&request.contains).into_owned(),
            include: patterns("include", &request.include)?,
            exclude: patterns("exclude", &request.exclude)?,
            max_lines: request.max_lines,
            max_bytes: request.max_bytes,
            until,
        })
    }

    /// Whether an attempt is read, as far as the source itself tells.
    pub(crate) fn takes(&self, source: &LogSource) -> bool {
        let named = |step: &String| *step == source.step_name || *step == source.source_step;
        let numbered = match self.attempts {
            Attempts::All | Attempts::Previous => true,
            Attempts::Numbered(number) => source.attempt == number,
        };
        numbered && (self.steps.is_empty() || self.steps.iter().any(named))
    }

    /// Leaves out the sources that only the others tell to be none of the selection.
    pub(crate) fn narrow(&self, sources: &mut Vec<Arc<LogSource>>, view: &RunView) {
        if self.attempts == Attempts::Previous {
            sources.retain(|source| view.newest_attempt(source.step) == Some(source.attempt + 1));
        }
    }

    /// Whether a step is read.
    fn takes_step(&self, step: &StepName) -> bool {
        let named = |name: &String| *name == step.name || *name == step.source_step;
        self.steps.is_empty() || self.steps.iter().any(named)
    }

    /// Whether all selected steps have ended.
    pub(crate) fn is_over(&self, view: &RunView) -> bool {
        let mut steps = view.steps.values().filter(|step| self.takes_step(step));
        view.ended_state.is_some() || (view.steps.values().next().is_some() && steps.all(|step| step.ended))
    }

    /// Whether a container is read.
    pub(crate) fn takes_container(&self, name: &str) -> bool {
        match &self.containers {
            Containers::All => true,
            Containers::Named(wanted) => wanted == name,
        }
    }

    /// Checks the names against the run.
    ///
    /// # Errors
    /// When a step is not known, with the nearest name, or no ended run has such a container.
    pub(crate) fn check(&self, view: &RunView) -> Result<(), TailError> {
        if let From::Cursor(cursor) = &self.from
            && let Some(run) = view.run
            && cursor.run != run
        {
            return Err(TailError::ForeignCursor {
                cursor: cursor.run.to_string(),
                run: run.to_string(),
            });
        }
        for (index, name) in self.steps.iter().enumerate() {
            let mut known = view.steps.values().flat_map(|step| [&step.name, &step.source_step]);
            if !known.any(|other| other == name) {
                return Err(TailError::UnknownStep {
                    run: view.name.clone(),
                    step: name.clone(),
                    hint: nearest(
                        name,
                        view.steps.values().flat_map(|step| [&step.name, &step.source_step]),
                    ),
                    field: format!("steps[{index}]"),
                });
            }
        }
        let (mut sources, _) = view.news_since(0);
        self.narrow(&mut sources, view);
        let selected: Vec<_> = sources.iter().filter(|source| self.takes(source)).collect();
        if self.attempts == Attempts::Previous && selected.is_empty() {
            return Err(TailError::NoPreviousAttempt { run: view.name.clone() });
        }
        let Containers::Named(name) = &self.containers else {
            return Ok(());
        };
        let mut names = selected.iter().flat_map(|source| &source.containers);
        if view.ended_state.is_none() || selected.is_empty() || names.any(|other| other == name) {
            return Ok(());
        }
        Err(TailError::UnknownContainer {
            run: view.name.clone(),
            container: name.clone(),
            hint: nearest(name, selected.iter().flat_map(|source| &source.containers)),
        })
    }
}

impl Selection {
    /// Whether every line is sent, however many there are.
    pub(crate) fn is_unfiltered(&self) -> bool {
        let unlimited = self.max_lines == 0 && self.max_bytes == 0;
        let any = self.contains.needle().is_empty() && self.include.is_empty() && self.exclude.is_empty();
        unlimited && any && !matches!(self.from, From::Since(_))
    }

    /// Whether a line is sent.
    pub(crate) fn wants(&self, line: &LineRecord) -> bool {
        let late = match self.from {
            From::Since(time) => line.time >= time,
            From::Start | From::Cursor(_) | From::Tail(_) => true,
        };
        late && (self.contains.needle().is_empty() || self.contains.find(&line.content).is_some())
            && (self.include.is_empty() || self.include.is_match(&line.content))
            && !self.exclude.is_match(&line.content)
    }
}

/// Compiles regular expressions.
fn patterns(field: &'static str, patterns: &[String]) -> Result<RegexSet, TailError> {
    let invalid = |field: Cow<'static, str>, problem| Err(TailError::Invalid { field, problem });
    if patterns.len() > MAX_PATTERNS {
        return invalid(
            field.into(),
            format!("at most {MAX_PATTERNS} regular expressions are allowed"),
        );
    }
    let compile = |patterns: &[String]| RegexSetBuilder::new(patterns).size_limit(MAX_PATTERN_BYTES).build();
    for (index, pattern) in patterns.iter().enumerate() {
        let field = || format!("{field}[{index}]").into();
        if pattern.len() > MAX_TEXT {
            return invalid(field(), format!("at most {MAX_TEXT} bytes are allowed"));
        }
        if let Err(error) = compile(std::slice::from_ref(pattern)) {
            let why = reason(&error);
            return invalid(
                field(),
                format!("{pattern:?} is no regular expression that can be used: {why}"),
            );
        }
    }
    compile(patterns).or_else(|error| invalid(field.into(), reason(&error)))
}

/// What is wrong with regular expressions, in one line.
fn reason(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(limit) => format!("more than {limit} bytes when compiled"),
        other => {
            let text = other.to_string();
            let last = text.lines().last().unwrap_or_default();
            last.strip_prefix("error: ").unwrap_or(last).to_owned()
        }
    }
}

fn or_default(text: String, default: &str) -> String {
    if text.is_empty() { default.to_owned() } else { text }
}

fn begin(from: Option<Begin>) -> Result<From, TailError> {
    match from {
        None => Ok(From::Start),
        // An empty cursor is what a client holds that was told none yet.
        Some(Begin::Cursor(bytes)) if bytes.is_empty() => Ok(From::Start),
        Some(Begin::Cursor(bytes)) if bytes.len() > MAX_CURSOR_BYTES => Err(TailError::Invalid {
            field: "cursor".into(),
            problem: format!("at most {MAX_CURSOR_BYTES} bytes are allowed"),
        }),
        Some(Begin::Cursor(bytes)) => Ok(From::Cursor(Box::new(Cursor::decode(&bytes)?))),
        Some(Begin::TailLines(lines)) => Ok(From::Tail(lines)),
        Some(Begin::Since(time)) => {
            let nanos = time
                .seconds
                .checked_mul(1_000_000_000)
                .and_then(|nanos| nanos.checked_add(i64::from(time.nanos)));
            nanos.map(From::Since).ok_or_else(|| TailError::Invalid {
                field: "since".into(),
                problem: "is out of range".to_owned(),
            })
        }
    }
}

/// A hint at the name that was probably meant.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a String>) -> String {
    known
        .map(|other| (strsim::damerau_levenshtein(name, other), other))
        .min()
        .map(|(_, other)| format!("; the nearest is {other:?}"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use windlass_api::follow::v1::RunUpdate;

    use super::*;

    fn request() -> TailLogsRequest {
        TailLogsRequest {
            run: "churn-7k2m".to_owned(),
            ..TailLogsRequest::default()
        }
    }

    fn refused(request: TailLogsRequest) -> String {
        Selection::parse(request).expect_err("refused").to_string()
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_its_field() {
        assert!(refused(TailLogsRequest::default()).starts_with("run: "));
        assert!(
            refused(TailLogsRequest {
                end_when: 9,
                ..request()
            })
            .starts_with("end_when: ")
        );
        let contains = "x".repeat(MAX_TEXT + 1);
        assert!(refused(TailLogsRequest { contains, ..request() }).starts_with("contains: "));
        let include = vec!["ok".to_owned(), "a(b".to_owned()];
        let text = refused(TailLogsRequest { include, ..request() });
        assert!(
            text.starts_with("include[1]: ") && text.ends_with(": unclosed group"),
            "{text}"
        );
        let exclude = vec![r"(\w{100}){100}".to_owned()];
        let text = refused(TailLogsRequest { exclude, ..request() });
        assert!(
            text.starts_with("exclude[0]: ") && text.contains("when compiled"),
            "{text}"
        );
        let exclude = vec![String::new(); MAX_PATTERNS + 1];
        assert!(refused(TailLogsRequest { exclude, ..request() }).starts_with("exclude: "));
        for (attempt, follow) in [(1, false), (0, true)] {
            let previous = TailLogsRequest {
                attempt,
                follow,
                previous: true,
                ..request()
            };
            assert!(refused(previous).starts_with("previous: "));
        }
        let from = Some(Begin::Cursor(vec![1, 2, 3]));
        assert!(refused(TailLogsRequest { from, ..request() }).contains("cursor"));
        let from = Some(Begin::Cursor(vec![1; MAX_CURSOR_BYTES + 1]));
        assert!(refused(TailLogsRequest { from, ..request() }).starts_with("cursor: "));
        let seconds = i64::MAX;
        let from = Some(Begin::Since(prost_types::Timestamp { seconds, nanos: 0 }));
        assert!(refused(TailLogsRequest { from, ..request() }).starts_with("since: "));
    }

    #[test]
    fn an_unknown_step_is_refused_with_the_nearest_name() {
        let runs = crate::hub::runs::Runs::new(std::sync::Arc::default());
        let watch = runs.watch("default", "churn-7k2m");
        let step = StepName {
            name: "train[1]".to_owned(),
            source_step: "train".to_owned(),
            ..StepName::default()
        };
        runs.update(RunUpdate {
            subscription: 1,
            steps: vec![step],
            ..RunUpdate::default()
        });
        let parse = |steps: &[&str]| {
            let steps = steps.iter().map(|step| (*step).to_owned()).collect();
            Selection::parse(TailLogsRequest { steps, ..request() }).expect("parses")
        };
        assert_eq!(parse(&["train"]).check(&watch.view()), Ok(()));
        assert_eq!(parse(&["train[1]"]).check(&watch.view()), Ok(()));
        let error = parse(&["train", "trian"]).check(&watch.view()).expect_err("unknown");
        assert!(error.to_string().contains("the nearest is \"train\""), "{error}");
        assert!(matches!(error, TailError::UnknownStep { field, .. } if field == "steps[1]"));
    }
}
