//! Tables for people: columns as wide as their widest cell, the last one open.

use console::{Alignment, measure_text_width, pad_str};

/// A table that is built row by row.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with a header.
    pub fn new(header: &[&str]) -> Self {
        Self {
            rows: vec![
                header
                    .iter()
                    .map(|cell| console::style(cell).dim().to_string())
                    .collect(),
            ],
        }
    }

    /// Adds a row; it has as many cells as the header.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The text, without the last newline and without blanks at the ends of lines.
    pub fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<_> = (0..columns)
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                cells.map(|cell| measure_text_width(cell)).max().unwrap_or(0)
            })
            .collect();
        let lines = self.rows.iter().map(|row| {
            let cells = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| pad_str(cell, *width, Alignment::Left, None).into_owned());
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_have_no_tail() {
        let mut table = Table::new(&["RUN", "STATE"]);
        table.row(["churn-7k2m".to_owned(), "FAILED".to_owned()]);
        table.row(["é".to_owned(), String::new()]);
        assert_eq!(
            console::strip_ansi_codes(&table.render()),
            "RUN         STATE\nchurn-7k2m  FAILED\né"
        );
    }
}
