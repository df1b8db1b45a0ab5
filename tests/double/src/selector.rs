//! Label and field selectors, as far as clients use them.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{object, refusal::Refusal, resource::Resource};

/// One requirement of a label selector.
#[derive(Debug, Clone, PartialEq)]
enum Requirement {
    Exists(String),
    Absent(String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
}

/// What a list or a watch is narrowed to.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Selector {
    labels: Vec<Requirement>,
    /// Pointer, wanted value, whether it must be equal.
    fields: Vec<(String, String, bool)>,
}

impl Selector {
    pub(crate) fn parse(resource: &Resource, query: &BTreeMap<String, String>) -> Result<Self, Refusal> {
        let given = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
        Ok(Self { labels: labels(given("labelSelector"))?, fields: fields(resource, given("fieldSelector"))? })
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        let labels: BTreeMap<_, _> = object::strings(object, "/metadata/labels").into_iter().collect();
        let labelled = self.labels.iter().all(|requirement| match requirement {
            Requirement::Exists(key) => labels.contains_key(key),
            Requirement::Absent(key) => !labels.contains_key(key),
            Requirement::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Requirement::NotIn(key, values) => labels.get(key).is_none_or(|value| !values.contains(value)),
        });
        labelled
            && self.fields.iter().all(|(pointer, wanted, equal)| (object::text(object, pointer) == wanted) == *equal)
    }
}

fn labels(text: &str) -> Result<Vec<Requirement>, Refusal> {
    split_outside_parentheses(text).into_iter().map(|part| requirement(&part)).collect()
}

fn requirement(part: &str) -> Result<Requirement, Refusal> {
    let unreadable = || Refusal::bad_request(&format!("unable to parse requirement: {part:?}"));
    if let Some((head, list)) = part.split_once('(') {
        let values: Vec<String> =
            list.strip_suffix(')').ok_or_else(unreadable)?.split(',').map(|value| value.trim().to_owned()).collect();
        let mut words = head.split_whitespace();
        return match (words.next(), words.next(), words.next()) {
            (Some(key), Some("in"), None) => Ok(Requirement::In(key.to_owned(), values)),
            (Some(key), Some("notin"), None) => Ok(Requirement::NotIn(key.to_owned(), values)),
            _ => Err(unreadable()),
        };
    }
    if let Some((key, value)) = part.split_once("!=") {
        return Ok(Requirement::NotIn(key.trim().to_owned(), vec![value.trim().to_owned()]));
    }
    if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return Ok(Requirement::In(key.trim().to_owned(), vec![value.trim().to_owned()]));
    }
    match part.strip_prefix('!') {
        Some(key) => Ok(Requirement::Absent(key.trim().to_owned())),
        None if part.contains(char::is_whitespace) => Err(unreadable()),
        None => Ok(Requirement::Exists(part.to_owned())),
    }
}

fn split_outside_parentheses(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut depth = 0_usize;
    for character in text.chars() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(part) = parts.last_mut() {
            part.push(character);
        }
    }
    parts.into_iter().map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

fn fields(resource: &Resource, text: &str) -> Result<Vec<(String, String, bool)>, Refusal> {
    text.split(',')
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (path, value, equal) = if let Some((path, value)) = part.split_once("!=") {
                (path, value, false)
            } else if let Some((path, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
                (path, value, true)
            } else {
                return Err(Refusal::bad_request(&format!("invalid selector: {part:?}")));
            };
            // Custom resources select by these two alone; each built-in kind has a few more of its own.
            if !resource.builtin && !matches!(path, "metadata.name" | "metadata.namespace") {
                return Err(Refusal::bad_request(&format!("field label not supported: {path}")));
            }
            Ok((format!("/{}", path.replace('.', "/")), value.to_owned(), equal))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selectors_narrow_by_labels_and_fields() {
        let pod = json!({"metadata": {"name": "p", "labels": {"app": "web", "tier": "front"}}, "status": {"phase": "Running"}});
        let rows = [
            ("labelSelector", "", true),
            ("labelSelector", "app", true),
            ("labelSelector", "!app", false),
            ("labelSelector", "app=web", true),
            ("labelSelector", "app==web,tier=back", false),
            ("labelSelector", "app!=web", false),
            ("labelSelector", "zone!=a", true),
            ("labelSelector", "app in (api, web),tier", true),
            ("labelSelector", "app notin (api,web)", false),
            ("labelSelector", "zone notin (a)", true),
            ("fieldSelector", "metadata.name=p", true),
            ("fieldSelector", "metadata.name!=p", false),
            ("fieldSelector", "metadata.name=p,status.phase=Pending", false),
        ];
        let pods = Resource::builtin("", "v1", "pods", "Pod");
        for (kind, text, expected) in rows {
            let query = BTreeMap::from([(kind.to_owned(), text.to_owned())]);
            let selector = Selector::parse(&pods, &query).expect(text);
            assert_eq!(selector.matches(&pod), expected, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_selected_by_is_refused() {
        let widgets = Resource::custom("example.com", "v1", "widgets", "Widget", true);
        for (kind, text) in [
            ("labelSelector", "app in web"),
            ("labelSelector", "app among (web)"),
            ("fieldSelector", "spec.size=3"),
            ("fieldSelector", "metadata.name"),
        ] {
            let query = BTreeMap::from([(kind.to_owned(), text.to_owned())]);
            assert_eq!(Selector::parse(&widgets, &query).map_err(|refusal| refusal.code), Err(400), "{text}");
        }
    }
}
