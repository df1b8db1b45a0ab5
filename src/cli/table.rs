//! Tables as kubectl prints them: columns, no lines, nothing at the ends.

use comfy_table::{ContentArrangement, Table, presets};

/// Rows under a header.
pub fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().copied());
    for row in rows {
        table.add_row(row.into_iter().map(|cell| plain(&cell)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Text of an object, which anybody may have written, without what would steer a terminal or break the line.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// The text, or a dash where there is none.
pub fn or_dash(text: Option<&str>) -> String {
    match text {
        None | Some("") => "-".to_owned(),
        Some(text) => text.to_owned(),
    }
}

/// A value as it stood in a field, short enough for a line. Absent is said, so that it is not taken for empty.
pub fn value(value: Option<&str>) -> String {
    const SHOWN: usize = 48;
    match value {
        None => "(absent)".to_owned(),
        Some("") => "\"\"".to_owned(),
        Some(text) if text.chars().count() > SHOWN => format!("{}…", text.chars().take(SHOWN).collect::<String>()),
        Some(text) => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_nothing_steers_the_terminal() {
        let rows = [vec!["a\u{1b}[2J".to_owned(), "1\n2".to_owned()], vec!["longer".to_owned(), or_dash(None)]];
        assert_eq!(table(&["NAME", "VALUE"], rows), "NAME     VALUE\na\u{fffd}[2J    1\u{fffd}2\nlonger   -\n");
    }

    #[test]
    fn absent_is_not_empty() {
        assert_eq!([value(None), value(Some(""))], ["(absent)", "\"\""]);
        assert_eq!(value(Some(&"x".repeat(60))).chars().count(), 49);
    }
}
