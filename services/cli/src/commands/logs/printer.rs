//! How lines and marks of logs are printed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use windlass_api::log::v1::{EndReason, Mark, MarkKind};

use crate::args::{LogFormat, LogsArgs};
use crate::client::{Cursor, SourceKey, Tail, TailItem};
use crate::errors::{CliError, Exit, Result};
use crate::output::{self, Prefixes, log_time};
use crate::progress::terminal::coloured;

/// Prints what comes out of a tail.
pub(super) struct Printer<'a> {
    args: &'a LogsArgs,
    run: String,
    prefix: bool,
    prefixes: Prefixes,
    /// Whether standard output is a terminal.
    terminal: bool,
    unsaved: Option<Cursor>,
}

impl<'a> Printer<'a> {
    pub(super) fn new(args: &'a LogsArgs, run: &str, prefix: bool) -> Self {
        Self {
            args,
            run: run.to_owned(),
            prefix,
            prefixes: Prefixes::default(),
            terminal: console::Term::stdout().is_term(),
            unsaved: None,
        }
    }

    pub(super) async fn print(&mut self, tail: &mut Tail) -> Result<Exit> {
        while let Some(item) = tail.next().await {
            match item? {
                TailItem::Line {
                    source,
                    number,
                    time,
                    content,
                    partial,
                } => self.line(&source, number, time, &content, partial)?,
                TailItem::Mark { source, mark } if self.args.output == LogFormat::Json => {
                    output::line(json_of_mark(source.as_ref(), &mark).to_string())?;
                }
                TailItem::Mark { source, mark } => {
                    if let Some(text) = mark_text(source.as_ref(), &mark) {
                        output::note(text);
                    }
                }
                TailItem::Checkpoint(cursor) => {
                    self.unsaved = Some(cursor);
                    self.save()?;
                }
                TailItem::Lost { cause } => output::note(format!("the logs stopped coming ({cause}), trying again")),
                TailItem::Back => output::note("the logs go on"),
                TailItem::End {
                    cursor,
                    reason,
                    run_state,
                } => {
                    self.unsaved = Some(cursor);
                    if reason == EndReason::CaughtUp && !run_state.is_empty() {
                        output::note(
                            "the run has ended, but not all of its logs are here yet; --follow waits for the rest",
                        );
                    }
                    return Ok(Exit::Succeeded);
                }
            }
        }
        Err(CliError::failed("the log stream stopped"))
    }

    fn line(
        &mut self,
        source: &SourceKey,
        number: u64,
        time: Option<prost_types::Timestamp>,
        content: &[u8],
        partial: bool,
    ) -> Result<()> {
        let mut text = Vec::with_capacity(content.len() + 48);
        match self.args.output {
            LogFormat::Json => {
                text.extend_from_slice(json_of_line(source, number, time, content).to_string().as_bytes())
            }
            LogFormat::Raw => text.extend_from_slice(content),
            LogFormat::Text => {
                if self.prefix {
                    text.extend_from_slice(self.prefixes.prefix(source).as_bytes());
                }
                if self.args.timestamps {
                    text.extend_from_slice(time.map(log_time).unwrap_or_default().as_bytes());
                    text.push(b' ');
                }
                if self.terminal {
                    text.extend_from_slice(coloured(content, console::colors_enabled()).as_bytes());
                } else {
                    text.extend_from_slice(content);
                }
            }
        }
        if !partial || self.args.output != LogFormat::Raw {
            text.push(b'\n');
        }
        output::raw(&text)
    }

    pub(super) fn save(&mut self) -> Result<()> {
        match (&self.args.cursor_file, self.unsaved.take()) {
            (Some(path), Some(cursor)) => cursor.save(path, &self.run),
            _ => Ok(()),
        }
    }
}

/// What a mark says to people; most marks say nothing.
pub(in crate::commands) fn mark_text(source: Option<&SourceKey>, mark: &Mark) -> Option<String> {
    let place = source.map(|source| format!("{}: ", source.step)).unwrap_or_default();
    match mark.kind() {
        MarkKind::Lost => {
            let lines = mark
                .lost_lines
                .map_or_else(|| "lines".to_owned(), |lines| format!("{lines} lines"));
            let why = if mark.message.is_empty() {
                String::new()
            } else {
                format!(" ({})", mark.message)
            };
            Some(format!("{place}{lines} are lost{why}"))
        }
        MarkKind::ContainerRestarted => Some(format!("{place}the container was restarted")),
        MarkKind::Unspecified
        | MarkKind::AttemptStarted
        | MarkKind::Rotated
        | MarkKind::Switched
        | MarkKind::Masked
        | MarkKind::SourceEnded => None,
    }
}

fn json_of_source(source: &SourceKey) -> Value {
    json!({
        "step": source.step,
        "attempt": source.attempt,
        "container": source.container,
        "podUid": source.pod_uid,
    })
}

/// A line: `text` when it is UTF-8, else `base64`.
fn json_of_line(source: &SourceKey, number: u64, time: Option<prost_types::Timestamp>, content: &[u8]) -> Value {
    let mut line = json_of_source(source);
    line["line"] = number.into();
    line["time"] = time.map(log_time).into();
    match std::str::from_utf8(content) {
        Ok(text) => line["text"] = text.into(),
        Err(_) => line["base64"] = BASE64.encode(content).into(),
    }
    line
}

fn json_of_mark(source: Option<&SourceKey>, mark: &Mark) -> Value {
    let mut object = source.map_or_else(|| json!({}), json_of_source);
    let kind = mark.kind().as_str_name();
    object["mark"] = kind.strip_prefix("MARK_KIND_").unwrap_or(kind).into();
    if let Some(lost) = mark.lost_lines {
        object["lostLines"] = lost.into();
    }
    if !mark.message.is_empty() {
        object["message"] = mark.message.as_str().into();
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> SourceKey {
        SourceKey {
            step: "train.2".to_owned(),
            attempt: 1,
            container: "main".to_owned(),
            pod_uid: "uid".to_owned(),
        }
    }

    #[test]
    fn i7_lost_lines_are_said() {
        let mark = Mark {
            kind: MarkKind::Lost.into(),
            lost_lines: Some(3),
            message: "rotated away".to_owned(),
            ..Mark::default()
        };
        assert_eq!(
            mark_text(None, &mark).as_deref(),
            Some("3 lines are lost (rotated away)")
        );
        let object = json_of_mark(Some(&source()), &mark);
        assert_eq!((&object["mark"], &object["lostLines"]), (&json!("LOST"), &json!(3)));
    }

    #[test]
    fn json_keeps_every_byte() {
        let time = Some(prost_types::Timestamp {
            seconds: 7,
            nanos: 123_456_789,
        });
        let line = json_of_line(&source(), 4, time, "größer\u{0}".as_bytes());
        assert_eq!(line["text"], "größer\u{0}");
        assert_eq!(line["time"], "1970-01-01T00:00:07.123456789Z");
        let line = json_of_line(&source(), 4, time, b"\xff\xfe");
        assert_eq!((line.get("text"), &line["base64"]), (None, &json!("//4=")));
    }
}
