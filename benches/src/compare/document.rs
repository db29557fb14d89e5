//! Writes a report into a document, in place of the text between two markers.

use std::path::Path;

/// The marker before the text that is replaced.
pub const BEGIN: &str = "<!-- figures: begin (written by a program of benches/ with --write; do not edit) -->";
/// The marker after the text that is replaced.
pub const END: &str = "<!-- figures: end -->";

/// Replaces the text between the markers in `file` with `report`. The headings of the report move
/// down one level.
///
/// # Errors
/// Returns an error if the file cannot be read or written, or lacks a marker.
pub fn write(file: &Path, report: &str) -> Result<(), String> {
    let text = |error: std::io::Error| format!("{}: {error}", file.display());
    let document = std::fs::read_to_string(file).map_err(text)?;
    let replaced = replaced(&document, report).ok_or_else(|| format!("{}: no `{BEGIN}` … `{END}`", file.display()))?;
    std::fs::write(file, replaced).map_err(text)
}

/// Returns `document` with `report` between the markers, or `None` if a marker is missing.
fn replaced(document: &str, report: &str) -> Option<String> {
    let (before, rest) = document.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    let lines =
        report.lines().map(|line| if line.starts_with('#') { format!("#{line}\n") } else { format!("{line}\n") });
    Some(format!(
        "{before}{BEGIN}\n\n{}\n{END}{after}",
        lines.collect::<String>().trim_end_matches('\n').to_owned() + "\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::{BEGIN, END, replaced};

    #[test]
    fn only_text_between_markers_changes() {
        let document = format!("# Title\n{BEGIN}\nold\n{END}\nrest\n");
        let new = replaced(&document, "# Comparison\n\nnew\n").unwrap();
        assert_eq!(new, format!("# Title\n{BEGIN}\n\n## Comparison\n\nnew\n\n{END}\nrest\n"));
        assert_eq!(replaced(&new, "# Comparison\n\nnew\n").unwrap(), new);
        assert_eq!(replaced("no markers", ""), None);
    }
}
