//! Columns of text, as Go's tabwriter sets them, which is what kubectl's readers are used to.

use super::is_full;

/// Cells of a line; what is behind them is the last one. Each is a call within a call.
const CELLS: usize = 64;

/// Sets the cells of each line, which tabs end, in columns: as wide as their widest cell and `padding`, at
/// least `least`. What stands behind a line's last tab is in no column; lines without a cell end a column.
pub(crate) fn align(text: &str, least: usize, padding: usize) -> String {
    let mut lines = Lines { text, ends: Vec::new(), firsts: vec![0] };
    for line in text.split('\n') {
        let begin = lines.ends.last().map_or(0, |end| *end as usize + 1);
        let tabs = line.match_indices('\t').map(|(place, _)| place).take(CELLS - 1);
        lines.ends.extend(tabs.chain([line.len()]).map(|end| (begin + end) as u32));
        lines.firsts.push(lines.ends.len() as u32);
    }
    let count = lines.firsts.len() - 1;
    let mut set =
        Set { lines: &lines, least, padding, widths: Vec::new(), out: String::with_capacity(2 * text.len()) };
    set.block(0, count);
    // The text's own end.
    set.out.pop();
    set.out
}

/// The cells of lines, which may be millions.
struct Lines<'a> {
    text: &'a str,
    /// Where each cell ends, with one sign between it and the next.
    ends: Vec<u32>,
    /// The first cell of each line, and of one behind the last.
    firsts: Vec<u32>,
}

impl<'a> Lines<'a> {
    fn cells(&self, line: usize) -> usize {
        (self.firsts[line + 1] - self.firsts[line]) as usize
    }

    fn cell(&self, line: usize, column: usize) -> &'a str {
        let cell = self.firsts[line] as usize + column;
        let begin = cell.checked_sub(1).map_or(0, |before| self.ends[before] as usize + 1);
        &self.text[begin..self.ends[cell] as usize]
    }
}

struct Set<'a> {
    lines: &'a Lines<'a>,
    least: usize,
    padding: usize,
    widths: Vec<usize>,
    out: String,
}

impl Set<'_> {
    /// Writes lines whose columns left of this one have their widths.
    fn block(&mut self, from: usize, to: usize) {
        let column = self.widths.len();
        let lines = self.lines;
        let has = |line: usize| column + 1 < lines.cells(line);
        let (mut written, mut line) = (from, from);
        while line < to {
            if !has(line) {
                line += 1;
                continue;
            }
            self.write(written, line);
            let begin = line;
            let mut width = self.least;
            while line < to && has(line) {
                let cell = lines.cell(line, column).chars().count();
                width = width.max(cell + self.padding);
                line += 1;
            }
            self.widths.push(width);
            self.block(begin, line);
            self.widths.pop();
            written = line;
        }
        self.write(written, to);
    }

    fn write(&mut self, from: usize, to: usize) {
        for line in from..to {
            // One wide cell makes all lines wide; what is beyond is cut, and said, by who asked for it.
            if is_full(&self.out) {
                return;
            }
            let count = self.lines.cells(line);
            for column in 0..count {
                let cell = self.lines.cell(line, column);
                self.out.push_str(cell);
                if column + 1 < count
                    && let Some(width) = self.widths.get(column)
                {
                    let blanks = width.saturating_sub(cell.chars().count());
                    self.out.extend(std::iter::repeat_n(' ', blanks));
                }
            }
            self.out.push('\n');
        }
    }
}

/// A table of `kubectl get`: at least six wide, three apart.
pub(crate) fn columns(rows: impl IntoIterator<Item = impl AsRef<[String]>>) -> String {
    aligned(&rows.into_iter().map(|row| row.as_ref().join("\t") + "\n").collect::<String>())
}

/// The same of lines whose cells tabs end.
pub(crate) fn aligned(lines: &str) -> String {
    align(lines, 6, 3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::command::OUTPUT_BYTES;

    #[test]
    fn one_wide_cell_does_not_make_a_table_without_an_end() {
        let rows: Vec<Vec<String>> =
            (0..1000).map(|n| vec!["x".repeat(if n == 0 { 1 << 20 } else { 1 }), "y".to_owned()]).collect();
        let shown = columns(&rows);
        assert!((OUTPUT_BYTES..OUTPUT_BYTES + (2 << 20)).contains(&shown.len()), "{}", shown.len());
    }

    #[test]
    fn cells_are_set_in_columns() {
        let rows = |rows: &[&[&str]]| {
            rows.iter()
                .map(|row| row.iter().map(|cell| (*cell).to_owned()).collect())
                .collect::<Vec<Vec<String>>>()
        };
        assert_eq!(
            columns(rows(&[&["NAME", "AGE"], &["a-long-name", "5d"], &["ä", ""]])),
            "NAME          AGE\na-long-name   5d\nä             \n"
        );
        assert_eq!(columns(rows(&[&["A", "B", "C"], &["1", "2", "3"]])), "A     B     C\n1     2     3\n");
        // As describe writes: blocks of lines that have a cell, apart from those that have none.
        assert_eq!(
            align("Name:\tx\nLabels:\ta=b\n\tc=d\nplain\nConditions:\n  Type\tStatus\n  Ready\tTrue\n", 0, 2),
            "Name:    x\nLabels:  a=b\n         c=d\nplain\nConditions:\n  Type   Status\n  Ready  True\n"
        );
    }
}
