//! How values, labels and comparisons read, bounded as the schema of the status is.

use std::fmt::Write;

use super::trigger::{Comparator, Labels};
use crate::api::rollout::{Compare, Comparison, Trigger};

/// Longest word the schema of a status admits.
pub const WORD: usize = 253;
/// Longest text the schema of a status admits.
pub const TEXT: usize = 1024;
/// Longest query the schema of evidence admits.
pub const QUERY: usize = 8192;

/// A value as Prometheus prints it.
pub fn number(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf".to_owned() } else { "-Inf".to_owned() }
    } else if value != 0.0 && !(1e-6..1e18).contains(&value.abs()) {
        format!("{value:e}")
    } else {
        format!("{value}")
    }
}

/// Labels as a PromQL selector. Quotes and control characters are escaped: a label's value may hold anything.
pub fn labels(labels: &Labels) -> String {
    let mut text = String::from("{");
    for (position, (name, value)) in labels.iter().enumerate() {
        let comma = if position > 0 { "," } else { "" };
        let _ = write!(text, "{comma}{}={value:?}", name.escape_debug());
    }
    text.push('}');
    text
}

/// A comparison in words, such as `> 0.05`.
pub fn comparison(comparison: &Comparison) -> String {
    match Comparator::read(comparison) {
        Some(Comparator::Above(limit)) => format!("> {}", number(limit)),
        Some(Comparator::Below(limit)) => format!("< {}", number(limit)),
        Some(Comparator::AtLeast(limit)) => format!(">= {}", number(limit)),
        Some(Comparator::AtMost(limit)) => format!("<= {}", number(limit)),
        Some(Comparator::Present) => "returns any series".to_owned(),
        None => "invalid comparison".to_owned(),
    }
}

/// What a trigger watches for, such as `ratio to baseline >= 2`.
pub fn condition(trigger: &Trigger) -> String {
    let comparison = comparison(&trigger.comparison);
    match trigger.baseline.as_ref().map(|baseline| baseline.compare) {
        None => comparison,
        Some(Compare::Ratio) => format!("ratio to baseline {comparison}"),
        Some(Compare::Difference) => format!("difference to baseline {comparison}"),
    }
}

/// At most `limit` characters of a text; a cut is marked.
pub fn clip(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        None => text.to_owned(),
        Some(_) => text.chars().take(limit.saturating_sub(1)).chain(std::iter::once('…')).collect(),
    }
}

/// A word that may stand as the reason of a condition: letters and digits, beginning with a letter.
pub fn reason(word: &str) -> String {
    let word: String =
        word.chars().skip_while(|c| !c.is_ascii_alphabetic()).filter(char::is_ascii_alphanumeric).take(WORD).collect();
    if word.is_empty() { "Unknown".to_owned() } else { word }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_in_prometheus() {
        for (value, text) in [
            (0.05, "0.05"),
            (2.0, "2"),
            (-0.05, "-0.05"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (5e8, "500000000"),
            (1e300, "1e300"),
            (5e-324, "5e-324"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn labels_cannot_break_out() {
        let hostile = Labels::from([("pod".to_owned(), "a\",x=\"\n".to_owned()), ("z".to_owned(), "1".to_owned())]);
        assert_eq!(labels(&hostile), r#"{pod="a\",x=\"\n",z="1"}"#);
    }

    #[test]
    fn comparisons_are_sentences() {
        let above = Comparison { above: Some(0.05), ..Comparison::default() };
        assert_eq!(comparison(&above), "> 0.05");
        let two = Comparison { above: Some(0.05), below: Some(1.0), ..Comparison::default() };
        assert_eq!(comparison(&two), "invalid comparison");
    }

    #[test]
    fn texts_keep_their_bounds() {
        assert_eq!(clip("äöü", 3), "äöü");
        assert_eq!(clip("äöüß", 3), "äö…");
        assert_eq!(clip("ab", 0), "…");
        assert_eq!(reason("503 Service Unavailable"), "ServiceUnavailable");
        assert_eq!(reason("…"), "Unknown");
    }
}
