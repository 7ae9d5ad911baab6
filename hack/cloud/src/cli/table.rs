//! Text in columns, and text that is safe to print.

use std::io::{self, Write};

/// Writes rows in columns as wide as their widest cell, under a header.
///
/// # Errors
/// The output is closed.
pub fn write(out: &mut impl Write, header: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    let cells = |row: &[String], column: usize| row.get(column).map_or(0, |cell| cell.chars().count());
    let widths: Vec<usize> = (0..header.len())
        .map(|column| {
            let widest = rows.iter().map(|row| cells(row, column)).max().unwrap_or(0);
            widest.max(header.get(column).map_or(0, |title| title.len()))
        })
        .collect();
    let header: Vec<String> = header.iter().map(ToString::to_string).collect();
    for row in std::iter::once(&header).chain(rows) {
        let line: String = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}  ")).collect();
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// `text` on one line, without what would steer a terminal, and not longer
/// than `limit` characters.
pub fn printable(text: &str, limit: usize) -> String {
    let mut safe: String = text.chars().take(limit).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(limit).is_some() {
        safe.push('…');
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut out = Vec::new();
        let rows = vec![vec!["shop".to_owned(), "é".to_owned()], vec!["default".to_owned(), String::new()]];
        write(&mut out, &["NAMESPACE", "A"], &rows).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "NAMESPACE  A\nshop       é\ndefault\n");
    }

    #[test]
    fn a_line_cannot_steer_the_terminal() {
        assert_eq!(printable("a\u{1b}[31mb\nc", 20), "a [31mb c");
        assert_eq!(printable("abcdef", 3), "abc…");
    }
}
