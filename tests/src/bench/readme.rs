//! The table of the README is made by the command that measures it.

use anyhow::{Context, Result, ensure};

/// What precedes the table.
pub const BEGIN: &str = "<!-- bench: begin (made by tests/bench --readme) -->";
/// What follows it.
pub const END: &str = "<!-- bench: end -->";

/// Puts a text between the marks and changes nothing else.
///
/// # Errors
/// When the marks are not there, once each and in order.
pub fn replaced(text: &str, table: &str) -> Result<String> {
    let (before, rest) = text.split_once(BEGIN).with_context(|| format!("no line {BEGIN}"))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("no line {END} after it"))?;
    ensure!(!after.contains(BEGIN), "{BEGIN} is there twice");
    Ok(format!("{before}{BEGIN}\n\n{}\n\n{END}{after}", table.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_changes() {
        let text = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let new = replaced(&text, "| x |\n").unwrap();
        assert_eq!(new, format!("a\n{BEGIN}\n\n| x |\n\n{END}\nb\n"));
        assert_eq!(replaced(&new, "| x |").unwrap(), new);
        for wrong in ["a".to_owned(), format!("{END}\n{BEGIN}"), format!("{text}{text}")] {
            assert!(replaced(&wrong, "").is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_readme_has_the_marks() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
        replaced(&std::fs::read_to_string(path).unwrap(), "").unwrap();
    }
}
