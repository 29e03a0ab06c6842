//! Progress on a terminal: a block at the bottom that is drawn anew, with lines that stay above it.

use std::io::Write as _;

use console::{Style, Term};
use windlass_ids::Timestamp;

use super::model::Model;
use super::rows::{View, foot, head, tree};
use crate::errors::Result;

/// The live block.
#[derive(Debug)]
pub struct Terminal {
    term: Term,
    drawn: usize,
    last: Vec<String>,
    hint: &'static str,
}

impl Terminal {
    /// Begins to draw; `hint` stands at the right of the head.
    pub fn new(hint: &'static str) -> Self {
        Self {
            term: Term::stdout(),
            drawn: 0,
            last: Vec::new(),
            hint,
        }
    }

    /// Draws the present state, unless it is already there.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn draw(&mut self, model: &Model, now: Timestamp, note: Option<&str>) -> Result<()> {
        let (height, width) = self.term.size();
        let (height, width) = (usize::from(height), usize::from(width));
        let view = View {
            max_rows: height.saturating_sub(5).max(3),
            width: width.saturating_sub(1),
            fold: true,
        };
        let mut lines = vec![self.head_line(model, width)];
        lines.extend(tree(model, now, view));
        lines.push(console::truncate_str(&foot(model, now), view.width, "…").into_owned());
        if let Some(note) = note {
            let note = console::truncate_str(note, view.width, "…").into_owned();
            lines.push(Style::new().yellow().apply_to(note).to_string());
        }
        if lines == self.last {
            return Ok(());
        }
        let mut text = self.erase();
        text.push_str(&lines.join("\n"));
        text.push('\n');
        self.drawn = lines.len();
        self.last = lines;
        self.write(&text)
    }

    /// Prints lines that stay, above the block.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn above(&mut self, lines: &[String]) -> Result<()> {
        let mut text = self.erase();
        self.drawn = 0;
        for line in lines {
            text.push_str(line);
            text.push('\n');
        }
        text.push_str(&self.last.join("\n"));
        if !self.last.is_empty() {
            text.push('\n');
        }
        self.drawn = self.last.len();
        self.write(&text)
    }

    /// Replaces the block by the whole tree, which stays.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn finish(&mut self, model: &Model, now: Timestamp, max_rows: usize) -> Result<()> {
        let width = usize::from(self.term.size().1);
        let view = View {
            max_rows,
            width: width.saturating_sub(1),
            fold: true,
        };
        let mut text = self.erase();
        text.push_str(&head(model));
        text.push('\n');
        for line in tree(model, now, view) {
            text.push_str(&line);
            text.push('\n');
        }
        self.drawn = 0;
        self.last.clear();
        self.write(&text)
    }

    /// Leaves the block as it is; what comes next begins at the start of a line, also where the terminal echoed `^C`.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn leave(&mut self) -> Result<()> {
        self.drawn = 0;
        self.last.clear();
        self.write("\r\x1b[K")
    }

    fn head_line(&self, model: &Model, width: usize) -> String {
        let head = head(model);
        let used = console::measure_text_width(&head);
        let room = width.saturating_sub(1).min(80);
        let gap = room.saturating_sub(used + self.hint.len());
        if gap < 2 {
            return console::truncate_str(&head, width.saturating_sub(1), "…").into_owned();
        }
        format!("{head}{}{}", " ".repeat(gap), Style::new().dim().apply_to(self.hint))
    }

    fn erase(&self) -> String {
        match self.drawn {
            0 => String::new(),
            // Up to the first line of the block, then erase to the end of the screen.
            drawn => format!("\r\x1b[{drawn}A\x1b[J"),
        }
    }

    fn write(&mut self, text: &str) -> Result<()> {
        self.term.write_all(text.as_bytes())?;
        self.term.flush()?;
        Ok(())
    }
}

/// A line of a step's log as it may stand on a terminal: the last state of a redrawn line, without control sequences.
pub fn printable(content: &[u8]) -> String {
    let text = String::from_utf8_lossy(content);
    let text = text.trim_end_matches(['\r', '\n']);
    let text = text.rsplit('\r').next().unwrap_or(text);
    let text = console::strip_ansi_codes(text);
    text.chars()
        .map(|c| if c == '\t' || !c.is_control() { c } else { '\u{fffd}' })
        .collect()
}

/// Like [`printable`], but with the line's own colours, which end with it.
pub fn coloured(content: &[u8], colours: bool) -> String {
    if !colours || !content.contains(&0x1b) {
        return printable(content);
    }
    let text = String::from_utf8_lossy(content);
    let text = text.trim_end_matches(['\r', '\n']);
    let text = text.rsplit('\r').next().unwrap_or(text);
    let mut out = String::with_capacity(text.len() + RESET.len());
    for (part, is_sequence) in console::AnsiCodeIterator::new(text) {
        match is_sequence {
            true if part.starts_with("\x1b[") && part.ends_with('m') => out.push_str(part),
            true => {}
            false => out.push_str(&printable(part.as_bytes())),
        }
    }
    out.push_str(RESET);
    out
}

/// Ends all colours.
const RESET: &str = "\x1b[0m";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_cannot_move_the_cursor() {
        assert_eq!(printable(b"10%\r50%\r100%\n"), "100%");
        assert_eq!(printable(b"\x1b[31mred\x1b[0m\x07"), "red\u{fffd}");
        assert_eq!(
            coloured(b"\x1b[2J\x1b[31mred\x1b]0;title\x07\x1b[3A", true),
            "\x1b[31mred\x1b[0m"
        );
        assert_eq!(coloured(b"\x1b[31mred", false), "red");
    }
}
