//! The state of the world as a value that two runs can be compared by.
//!
//! What differs between runs for no reason of the program under test is normalised: uids become the name of the object
//! they were given to (wherever they occur, inside other strings too), timestamps become `<time>`, and
//! resourceVersions and managedFields go. Everything else is kept, generations included.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::{object, resource::ObjectKey, store::Store};

/// All objects but events and leases, which say when and by whom rather than what.
pub(crate) fn stable(store: &Store) -> BTreeMap<String, Value> {
    store
        .all()
        .filter(|(key, _)| !matches!(key.kind.as_str(), "Event" | "Lease"))
        .map(|(key, object)| {
            let mut object = object.clone();
            for member in ["resourceVersion", "managedFields"] {
                object::metadata_mut(&mut object).remove(member);
            }
            (key.to_string(), normalised(&object, &store.given))
        })
        .collect()
}

fn normalised(value: &Value, given: &BTreeMap<String, ObjectKey>) -> Value {
    match value {
        Value::String(text) => json!(without_times(&without_uids(text, given))),
        Value::Array(items) => items.iter().map(|item| normalised(item, given)).collect(),
        Value::Object(members) => Value::Object(
            members
                .iter()
                .map(|(key, member)| (without_uids(key, given), normalised(member, given)))
                .collect::<Map<_, _>>(),
        ),
        other => other.clone(),
    }
}

/// A uid of the double's is 36 characters and unmistakable; only those it has given out are replaced.
fn without_uids(text: &str, given: &BTreeMap<String, ObjectKey>) -> String {
    const MARK: &str = "-0000-4000-8000-";
    let mut clean = text.to_owned();
    let mut from = 0;
    while let Some(mark) = clean[from..].find(MARK).map(|at| from + at) {
        from = mark + MARK.len();
        let known = mark.checked_sub(8).and_then(|start| Some((start, given.get(clean.get(start..start + 36)?)?)));
        if let Some((start, key)) = known {
            let name = format!("<uid of {key}>");
            clean.replace_range(start..start + 36, &name);
            from = start + name.len();
        }
    }
    clean
}

fn without_times(text: &str) -> String {
    let mut clean = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some(length) = time_length(rest.as_bytes()) {
            clean.push_str("<time>");
            rest = &rest[length..];
        } else {
            clean.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    clean
}

/// How long the RFC 3339 timestamp at the beginning is, if there is one.
fn time_length(bytes: &[u8]) -> Option<usize> {
    let shape = b"dddd-dd-ddTdd:dd:dd";
    let fits = bytes.len() >= shape.len()
        && shape.iter().zip(bytes).all(|(shape, byte)| match shape {
            b'd' => byte.is_ascii_digit(),
            literal => literal == byte,
        });
    if !fits {
        return None;
    }
    let mut length = shape.len();
    if bytes.get(length) == Some(&b'.') {
        length += 1 + bytes[length + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    }
    match bytes.get(length)? {
        b'Z' => Some(length + 1),
        b'+' | b'-' if bytes.len() >= length + 6 => Some(length + 6),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_uids_are_normalised_wherever_they_stand() {
        let key = ObjectKey {
            group: String::new(),
            kind: "ConfigMap".to_owned(),
            namespace: "ns".to_owned(),
            name: "c".to_owned(),
        };
        let uid = "00000001-0000-4000-8000-000000000001";
        let given = BTreeMap::from([(uid.to_owned(), key)]);
        let value = json!({
            "fence": format!("{uid}/flag/1"), "since": "2024-05-01T10:00:00Z",
            "note": "from 2024-05-01T10:00:00.123456+02:00 on, épreuve", "port": "10:00:00", "n": 3,
        });
        let expected = json!({
            "fence": "<uid of ConfigMap ns/c>/flag/1", "since": "<time>",
            "note": "from <time> on, épreuve", "port": "10:00:00", "n": 3,
        });
        assert_eq!(normalised(&value, &given), expected);
    }
}
