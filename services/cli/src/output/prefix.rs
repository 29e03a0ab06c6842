//! The coloured prefix that tells the lines of several steps apart.

use std::collections::BTreeMap;

use console::{Color, Style};

use crate::client::SourceKey;

const COLORS: [Color; 6] = [
    Color::Cyan,
    Color::Yellow,
    Color::Green,
    Color::Magenta,
    Color::Blue,
    Color::Red,
];

/// Gives every step a colour, in the order in which they first speak.
#[derive(Debug, Default)]
pub struct Prefixes {
    steps: BTreeMap<String, usize>,
    width: usize,
}

impl Prefixes {
    /// The prefix of a line: `train.2 | `, with the attempt from the second on and the container unless it is the main one.
    pub fn prefix(&mut self, source: &SourceKey) -> String {
        let next = self.steps.len();
        let number = *self.steps.entry(source.step.clone()).or_insert(next);
        let mut name = source.step.clone();
        if source.attempt > 1 {
            name.push_str(&format!("#{}", source.attempt));
        }
        if source.container != "main" && !source.container.is_empty() {
            name.push_str(&format!("/{}", source.container));
        }
        self.width = self.width.max(console::measure_text_width(&name)).min(32);
        let width = self.width;
        let style = Style::new().fg(COLORS[number % COLORS.len()]);
        style.apply_to(format!("{name:<width$} | ")).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// behaviours E12
    #[test]
    fn a_prefix_says_step_attempt_and_container() {
        let mut prefixes = Prefixes::default();
        let mut source = SourceKey {
            step: "train.2".to_owned(),
            attempt: 1,
            container: "main".to_owned(),
            pod_uid: String::new(),
        };
        let plain = |text: String| console::strip_ansi_codes(&text).into_owned();
        assert_eq!(plain(prefixes.prefix(&source)), "train.2 | ");
        source.attempt = 2;
        source.container = "proxy".to_owned();
        assert_eq!(plain(prefixes.prefix(&source)), "train.2#2/proxy | ");
    }
}
