//! A table for people: rows and columns the sites, cells the path and the time.

use std::fmt::{Display, Write as _};

/// Writes a table. Cells that are `None` were not run.
pub fn render(
    title: &str,
    rows: &[impl Display],
    columns: &[impl Display],
    cells: &[Vec<Option<String>>],
) -> String {
    let names: Vec<String> = rows.iter().map(ToString::to_string).collect();
    let heads: Vec<String> = columns.iter().map(ToString::to_string).collect();
    let first = names.iter().map(String::len).max().unwrap_or(0);
    let content = cells.iter().flatten().flatten().map(String::len);
    let width = heads.iter().map(String::len).chain(content).max().unwrap_or(0);
    let mut text = format!("{title}\n{:first$}", "");
    for head in &heads {
        let _ = write!(text, "  {head:width$}");
    }
    for (name, row) in names.iter().zip(cells) {
        let _ = write!(text, "\n{name:first$}");
        for cell in row {
            let _ = write!(text, "  {:width$}", cell.as_deref().unwrap_or("."));
        }
    }
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_line_up() {
        let cells = [vec![Some("direct 1.0 s".to_owned()), None]];
        let text = super::render("Title", &["one"], &["a", "b"], &cells);
        assert_eq!(text, "Title\n     a             b\none  direct 1.0 s  .\n");
    }
}
