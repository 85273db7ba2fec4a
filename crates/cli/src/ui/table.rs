//! Aligned columns.
//!
//! Widths are counted in characters as a terminal shows them for ordinary text; the last column is never
//! padded, so that a line has no trailing spaces.

/// Rows of cells under headings.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    right: Vec<usize>,
}

impl Table {
    /// With headings; none when the slice is empty.
    pub(crate) fn new(headings: &[&str]) -> Self {
        let head: Vec<String> = headings.iter().map(|h| (*h).to_owned()).collect();
        Self {
            rows: if head.is_empty() {
                Vec::new()
            } else {
                vec![head]
            },
            right: Vec::new(),
        }
    }

    /// Aligns a column to the right.
    pub(crate) fn right(mut self, column: usize) -> Self {
        self.right.push(column);
        self
    }

    /// Adds a row.
    pub(crate) fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// Whether it has no rows.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The lines, two spaces between columns.
    pub(crate) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|c| {
                self.rows
                    .iter()
                    .filter_map(|r| r.get(c))
                    .map(|t| width(t))
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        let mut out = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (c, cell) in row.iter().enumerate() {
                let pad = " ".repeat(widths[c].saturating_sub(width(cell)));
                if c > 0 {
                    line.push_str("  ");
                }
                if self.right.contains(&c) {
                    line.push_str(&pad);
                    line.push_str(cell);
                } else {
                    line.push_str(cell);
                    line.push_str(&pad);
                }
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

/// Characters, not counting escape sequences for colour.
fn width(text: &str) -> usize {
    let mut n = 0;
    let mut inside = false;
    for c in text.chars() {
        match c {
            '\x1b' => inside = true,
            'm' if inside => inside = false,
            _ if inside => {}
            _ => n += 1,
        }
    }
    n
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_whatever_their_colour() {
        let mut table = Table::new(&["ID", "SIZE", "PATH"]).right(1);
        table.row(["\x1b[31mc1\x1b[0m", "9 B", "a"]);
        table.row(["c200", "12.4 KiB", "größe"]);
        assert_eq!(
            table.render(),
            "ID        SIZE  PATH\n\x1b[31mc1\x1b[0m         9 B  a\nc200  12.4 KiB  größe\n"
        );
    }
}
