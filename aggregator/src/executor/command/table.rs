//! Columns of text, as Go's tabwriter sets them, which is what kubectl's readers are used to.

use super::OUTPUT_BYTES;

/// Cells of a line; what is behind them is the last one. Each is a call within a call.
const CELLS: usize = 64;

/// Sets the cells of each line, which tabs end, in columns: as wide as their widest cell and `padding`, at
/// least `least`. What stands behind a line's last tab is in no column; lines without a cell end a column.
pub(crate) fn align(text: &str, least: usize, padding: usize) -> String {
    let lines: Vec<Vec<&str>> = text.split('\n').map(|line| line.splitn(CELLS, '\t').collect()).collect();
    let mut set =
        Set { lines: &lines, least, padding, widths: Vec::new(), out: String::with_capacity(2 * text.len()) };
    set.block(0, lines.len());
    // The text's own end.
    set.out.pop();
    set.out
}

struct Set<'a> {
    lines: &'a [Vec<&'a str>],
    least: usize,
    padding: usize,
    widths: Vec<usize>,
    out: String,
}

impl Set<'_> {
    /// Writes lines whose columns left of this one have their widths.
    fn block(&mut self, from: usize, to: usize) {
        let column = self.widths.len();
        let has = |line: &Vec<&str>| column + 1 < line.len();
        let (mut written, mut line) = (from, from);
        while line < to {
            if !has(&self.lines[line]) {
                line += 1;
                continue;
            }
            self.write(written, line);
            let begin = line;
            let mut width = self.least;
            while line < to && has(&self.lines[line]) {
                let cell = self.lines[line][column].chars().count();
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
        for line in &self.lines[from..to] {
            // One wide cell makes all lines wide; what is beyond is cut, and said, by who asked for it.
            if self.out.len() > OUTPUT_BYTES {
                return;
            }
            for (column, cell) in line.iter().enumerate() {
                self.out.push_str(cell);
                if column + 1 < line.len()
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
pub(crate) fn columns(rows: &[Vec<String>]) -> String {
    let text: String = rows.iter().map(|row| row.join("\t") + "\n").collect();
    align(&text, 6, 3)
}

#[cfg(test)]
mod tests {
    use super::*;

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
            columns(&rows(&[&["NAME", "AGE"], &["a-long-name", "5d"], &["ä", ""]])),
            "NAME          AGE\na-long-name   5d\nä             \n"
        );
        assert_eq!(columns(&rows(&[&["A", "B", "C"], &["1", "2", "3"]])), "A     B     C\n1     2     3\n");
        // As describe writes: blocks of lines that have a cell, apart from those that have none.
        assert_eq!(
            align("Name:\tx\nLabels:\ta=b\n\tc=d\nplain\nConditions:\n  Type\tStatus\n  Ready\tTrue\n", 0, 2),
            "Name:    x\nLabels:  a=b\n         c=d\nplain\nConditions:\n  Type   Status\n  Ready  True\n"
        );
    }
}
