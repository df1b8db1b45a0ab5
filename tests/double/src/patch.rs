//! Patches as kube-apiserver applies them: JSON Patch by the rules of the Go library it links, and JSON merge patch.
//!
//! The Go library (evanphx/json-patch, v4) is not RFC 6902. Where a client can see the difference, so can it here:
//!
//! * `test` with value `null`, or without a value, succeeds on a missing member of an existing parent;
//! * `replace` of a missing member of an object adds it;
//! * scalars are compared by their *text*, and the server's text is Go's, which escapes `<`, `>` and `&`: a `test`
//!   whose value spells those characters plainly fails although the strings are equal;
//! * array indexes may be negative, counted from the end.
//!
//! This module knows nothing of objects, versions or status codes.

use std::collections::BTreeMap;

use serde_json::{Map, Value, value::RawValue};

/// Why a patch was not applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PatchError {
    /// It is no patch document at all (400).
    Malformed(String),
    /// A patch document, one of whose operations does not apply (422 without causes).
    Refused(String),
}

/// A document in which scalars keep the text they arrived in.
#[derive(Debug, Clone, PartialEq)]
enum Node {
    Null,
    Scalar(String),
    Array(Vec<Node>),
    Object(BTreeMap<String, Node>),
}

impl Node {
    /// The object as the API server would spell it.
    fn of_stored(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Array(items) => Self::Array(items.iter().map(Self::of_stored).collect()),
            Value::Object(members) => {
                Self::Object(members.iter().map(|(key, member)| (key.clone(), Self::of_stored(member))).collect())
            }
            scalar => Self::Scalar(go_text(scalar)),
        }
    }

    /// A value as the client spelt it.
    fn of_patch(raw: &RawValue) -> Result<Self, PatchError> {
        let malformed = |error: serde_json::Error| PatchError::Malformed(error.to_string());
        Ok(match raw.get().trim_start().as_bytes().first() {
            Some(b'{') => {
                let members: BTreeMap<String, Box<RawValue>> = serde_json::from_str(raw.get()).map_err(malformed)?;
                let parsed: Result<_, _> =
                    members.iter().map(|(key, member)| Ok((key.clone(), Self::of_patch(member)?))).collect();
                Self::Object(parsed?)
            }
            Some(b'[') => {
                let items: Vec<Box<RawValue>> = serde_json::from_str(raw.get()).map_err(malformed)?;
                let parsed: Result<_, _> = items.iter().map(|item| Self::of_patch(item)).collect();
                Self::Array(parsed?)
            }
            Some(b'n') => Self::Null,
            _ => Self::Scalar(raw.get().trim().to_owned()),
        })
    }

    fn into_value(self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Scalar(text) => serde_json::from_str(&text).unwrap_or(Value::Null),
            Self::Array(items) => items.into_iter().map(Self::into_value).collect(),
            Self::Object(members) => {
                Value::Object(members.into_iter().map(|(key, member)| (key, member.into_value())).collect())
            }
        }
    }

    /// A member or element. An object's missing member reads as null, an array's missing element is an error.
    fn get(&self, key: &str) -> Result<Self, String> {
        match self {
            Self::Object(members) => Ok(members.get(key).cloned().unwrap_or(Self::Null)),
            Self::Array(items) => Ok(items[index(key, items.len())?].clone()),
            Self::Null | Self::Scalar(_) => Err(format!("{key} is below something that is no container")),
        }
    }

    fn add(&mut self, key: &str, value: Self) -> Result<(), String> {
        match self {
            Self::Object(members) => {
                members.insert(key.to_owned(), value);
                Ok(())
            }
            Self::Array(items) if key == "-" => {
                items.push(value);
                Ok(())
            }
            Self::Array(items) => {
                // One more than there are elements: adding may append.
                let at = index(key, items.len() + 1)?;
                items.insert(at, value);
                Ok(())
            }
            Self::Null | Self::Scalar(_) => Err(format!("{key} is below something that is no container")),
        }
    }

    fn set(&mut self, key: &str, value: Self) -> Result<(), String> {
        match self {
            Self::Array(items) => {
                let at = index(key, items.len())?;
                items[at] = value;
                Ok(())
            }
            _ => self.add(key, value),
        }
    }

    fn remove(&mut self, key: &str) -> Result<(), String> {
        match self {
            Self::Object(members) => {
                members.remove(key).map(drop).ok_or_else(|| format!("unable to remove nonexistent key {key}"))
            }
            Self::Array(items) => {
                let at = index(key, items.len())?;
                items.remove(at);
                Ok(())
            }
            Self::Null | Self::Scalar(_) => Err(format!("{key} is below something that is no container")),
        }
    }
}

fn index(key: &str, len: usize) -> Result<usize, String> {
    let given: i64 = key.parse().map_err(|_| format!("{key:?} is no array index"))?;
    let len = i64::try_from(len).map_err(|_| "an array without end".to_owned())?;
    let at = if given < 0 { given + len } else { given };
    if (0..len).contains(&at) {
        usize::try_from(at).map_err(|error| error.to_string())
    } else {
        Err(format!("index {given} is outside an array of {len}"))
    }
}

/// A scalar as Go's `encoding/json` writes it.
fn go_text(scalar: &Value) -> String {
    if let Some(number) = scalar.as_f64().filter(|_| scalar.is_f64()) {
        // Go has one number type: an integral float is written without a fraction.
        if number.fract() == 0.0 && number.abs() < 1e21 {
            return format!("{number:.0}");
        }
    }
    let mut text = String::new();
    for character in scalar.to_string().chars() {
        match character {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                text.push_str(&format!("\\u{:04x}", u32::from(character)));
            }
            plain => text.push(plain),
        }
    }
    text
}

#[derive(Debug)]
struct Operation {
    op: String,
    path: Option<String>,
    from: Option<String>,
    value: Option<Node>,
}

impl Operation {
    fn parse(members: &BTreeMap<String, Box<RawValue>>) -> Result<Self, PatchError> {
        let word = |member: &str| members.get(member).and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
        Ok(Self {
            op: word("op").unwrap_or_else(|| "unknown".to_owned()),
            path: word("path"),
            from: word("from"),
            value: members.get("value").map(|raw| Node::of_patch(raw)).transpose()?,
        })
    }

    fn path(&self) -> Result<&str, String> {
        self.path.as_deref().ok_or_else(|| format!("{} operation without a path", self.op))
    }

    fn value(&self) -> Node {
        self.value.clone().unwrap_or(Node::Null)
    }

    fn apply(&self, document: &mut Node) -> Result<(), String> {
        match self.op.as_str() {
            "add" => {
                let (parent, key) = find(document, self.path()?)?;
                parent.add(&key, self.value())
            }
            "remove" => {
                let (parent, key) = find(document, self.path()?)?;
                parent.remove(&key)
            }
            "replace" if self.path()?.is_empty() => match self.value() {
                whole @ (Node::Object(_) | Node::Array(_)) => {
                    *document = whole;
                    Ok(())
                }
                _ => Err("replace operation value must be object or array".to_owned()),
            },
            "replace" => {
                let (parent, key) = find(document, self.path()?)?;
                parent.get(&key)?;
                parent.set(&key, self.value())
            }
            "move" | "copy" => self.transfer(document),
            "test" => self.test(document),
            unknown => Err(format!("unexpected kind: {unknown}")),
        }
    }

    fn transfer(&self, document: &mut Node) -> Result<(), String> {
        let from = self.from.as_deref().ok_or_else(|| format!("{} operation without from", self.op))?;
        let (parent, key) = find(document, from)?;
        let value = parent.get(&key)?;
        if self.op == "move" {
            parent.remove(&key)?;
        }
        let (parent, key) = find(document, self.path()?)?;
        parent.add(&key, value)
    }

    fn test(&self, document: &mut Node) -> Result<(), String> {
        let path = self.path()?;
        let found = if path.is_empty() {
            document.clone()
        } else {
            let (parent, key) = find(document, path)?;
            parent.get(&key)?
        };
        if found == self.value() { Ok(()) } else { Err(format!("testing value {path} failed")) }
    }
}

/// The container a pointer's last word is looked up in, and that word.
fn find<'a>(document: &'a mut Node, path: &str) -> Result<(&'a mut Node, String), String> {
    let missing = || format!("doc is missing path: {path:?}");
    let words: Vec<String> = path.split('/').map(|word| word.replace("~1", "/").replace("~0", "~")).collect();
    // The text before the first slash is not looked at, so a pointer without its leading slash means its parent.
    let [_, parents @ .., key] = words.as_slice() else {
        return Err(missing());
    };
    let mut container = document;
    for word in parents {
        container = match container {
            Node::Object(members) => members.get_mut(word).ok_or_else(missing)?,
            Node::Array(items) => {
                let at = index(word, items.len())?;
                &mut items[at]
            }
            Node::Null | Node::Scalar(_) => return Err(missing()),
        };
    }
    match container {
        Node::Object(_) | Node::Array(_) => Ok((container, key.clone())),
        Node::Null | Node::Scalar(_) => Err(missing()),
    }
}

/// Applies a JSON Patch (`application/json-patch+json`) whole or not at all.
pub fn json_patch(document: &Value, patch: &[u8]) -> Result<Value, PatchError> {
    let operations: Vec<BTreeMap<String, Box<RawValue>>> = serde_json::from_slice(patch)
        .map_err(|error| PatchError::Malformed(format!("error decoding patch: {error}")))?;
    let mut patched = Node::of_stored(document);
    for (n, members) in operations.iter().enumerate() {
        Operation::parse(members)?
            .apply(&mut patched)
            .map_err(|why| PatchError::Refused(format!("operation {n}: {why}")))?;
    }
    Ok(patched.into_value())
}

/// Applies a JSON merge patch (RFC 7386): objects merge, null removes, everything else replaces.
pub fn merge_patch(document: &Value, patch: &[u8]) -> Result<Value, PatchError> {
    let patch: Value = serde_json::from_slice(patch)
        .map_err(|error| PatchError::Malformed(format!("error decoding patch: {error}")))?;
    if !patch.is_object() {
        return Err(PatchError::Malformed("Invalid JSON Patch".to_owned()));
    }
    Ok(merged(document, &patch))
}

fn merged(target: &Value, patch: &Value) -> Value {
    let Value::Object(changes) = patch else {
        return patch.clone();
    };
    let mut members = target.as_object().cloned().unwrap_or_else(Map::new);
    for (key, change) in changes {
        if change.is_null() {
            members.remove(key);
        } else {
            let current = members.get(key).unwrap_or(&Value::Null);
            let value = merged(current, change);
            members.insert(key.clone(), value);
        }
    }
    Value::Object(members)
}

#[cfg(test)]
mod tests;
