//! The coloured prefix that tells the lines of several steps apart.

use console::{Color, Style};

use crate::client::SourceKey;

/// All but black and white, which may be the terminal's own.
const COLORS: [Color; 6] = [
    Color::Cyan,
    Color::Yellow,
    Color::Green,
    Color::Magenta,
    Color::Blue,
    Color::Red,
];

/// Gives every step a colour, the same each time.
#[derive(Debug, Default)]
pub struct Prefixes {
    width: usize,
}

impl Prefixes {
    /// The prefix of a line: `train.2 | `, with the attempt from the second on and the container unless it is the main one.
    pub fn prefix(&mut self, source: &SourceKey) -> String {
        let mut name = source.step.clone();
        if source.attempt > 1 {
            name.push_str(&format!("#{}", source.attempt));
        }
        if source.container != "main" && !source.container.is_empty() {
            name.push_str(&format!("/{}", source.container));
        }
        self.width = self.width.max(console::measure_text_width(&name)).min(32);
        let width = self.width;
        let number = number_of(&source.step) % (2 * COLORS.len());
        let style = Style::new().fg(COLORS[number / 2]);
        let style = if number % 2 == 1 { style.bright() } else { style };
        style.apply_to(format!("{name:<width$} | ")).to_string()
    }
}

/// FNV-1a (<https://datatracker.ietf.org/doc/html/draft-eastlake-fnv>): the same on every machine and in every release.
fn number_of(name: &str) -> usize {
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    hash as usize
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
