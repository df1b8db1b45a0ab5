//! What an answer is compared with: the part of it that matters, and a few words for what cannot be written down.

use serde_json::{Value, json};

/// Why an answer does not say what was expected of it; none when it does.
///
/// Objects may have more members than expected, lists not. The string `"*"` expects something there, `"-"` nothing,
/// `"!text"` anything but that text; a list `["$contains", x]` expects an element that says `x`; a string is also
/// satisfied by a number that is written so.
pub fn mismatch(expected: &Value, actual: &Value, at: &str) -> Option<String> {
    match expected {
        Value::String(text) => word(text, actual, at),
        Value::Object(members) => members.iter().find_map(|(key, member)| {
            let there = actual.get(key).unwrap_or(&Value::Null);
            mismatch(member, there, &format!("{at}/{key}"))
        }),
        Value::Array(items) if items.first() == Some(&json!("$contains")) => {
            let wanted = items.get(1).unwrap_or(&Value::Null);
            let found =
                actual.as_array().is_some_and(|list| list.iter().any(|item| mismatch(wanted, item, at).is_none()));
            (!found).then(|| format!("{at} should contain {wanted}"))
        }
        Value::Array(items) => {
            let list = actual.as_array().map(Vec::as_slice).unwrap_or_default();
            if !actual.is_array() || list.len() != items.len() {
                return Some(format!("{at} should have {} elements, but is {actual}", items.len()));
            }
            let pairs = items.iter().zip(list).enumerate();
            pairs.into_iter().find_map(|(n, (item, there))| mismatch(item, there, &format!("{at}/{n}")))
        }
        exact if exact == actual => None,
        exact => Some(format!("{at} should be {exact}, but is {actual}")),
    }
}

fn word(text: &str, actual: &Value, at: &str) -> Option<String> {
    let spelt = match actual {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    let holds = match (text, text.strip_prefix('!')) {
        ("*", _) => spelt.is_some(),
        ("-", _) => spelt.is_none(),
        (_, Some(unwanted)) => spelt.is_some_and(|spelt| spelt != unwanted),
        _ => spelt.as_deref() == Some(text),
    };
    (!holds).then(|| format!("{at} should be {text:?}, but is {actual}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expectation_can_fail() {
        let answer = json!({"a": "x", "n": 2, "list": [{"k": 1}, {"k": 2}], "empty": []});
        let holds = [
            json!({}),
            json!({"a": "x", "n": "2"}),
            json!({"a": "*", "missing": "-"}),
            json!({"a": "!y"}),
            json!({"list": [{"k": 1}, {}], "empty": []}),
            json!({"list": ["$contains", {"k": 2}]}),
        ];
        for expected in holds {
            assert_eq!(mismatch(&expected, &answer, ""), None, "{expected}");
        }
        let fails = [
            json!({"a": "y"}),
            json!({"a": "!x"}),
            json!({"a": "-"}),
            json!({"missing": "*"}),
            json!({"missing": "!x"}),
            json!({"n": 3}),
            json!({"list": [{"k": 1}]}),
            json!({"list": [{"k": 2}, {"k": 1}]}),
            json!({"list": ["$contains", {"k": 3}]}),
            json!({"missing": []}),
        ];
        for expected in fails {
            assert!(mismatch(&expected, &answer, "").is_some(), "{expected}");
        }
    }
}
