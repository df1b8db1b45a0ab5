//! Gateway API's HTTPRoute.

use serde_json::Value;

use super::Route;

pub(super) fn routes(object: &Value) -> Vec<Route<'_>> {
    let namespace = object.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or_default();
    let rules = object.pointer("/spec/rules").and_then(Value::as_array);
    rules.into_iter().flatten().enumerate().map(|(index, rule)| route(index, rule, namespace)).collect()
}

fn route<'a>(index: usize, rule: &'a Value, namespace: &str) -> Route<'a> {
    let pointer = format!("/spec/rules/{index}");
    let backends: Vec<&Value> = rule.get("backendRefs").and_then(Value::as_array).into_iter().flatten().collect();
    let mut pins: Vec<(String, Value)> = ["name", "matches"]
        .into_iter()
        .map(|member| (format!("{pointer}/{member}"), rule.get(member).cloned().unwrap_or_default()))
        .collect();
    pins.extend(
        backends.iter().enumerate().map(|(at, backend)| (format!("{pointer}/backendRefs/{at}"), (*backend).clone())),
    );
    let names = |backend: &&Value| {
        let elsewhere = backend.get("namespace").and_then(Value::as_str).is_some_and(|other| other != namespace);
        let service = backend.get("kind").and_then(Value::as_str).is_none_or(|kind| kind == "Service");
        let name = backend.get("name").and_then(Value::as_str).filter(|_| service && !elsewhere);
        name.map(str::to_owned).into_iter().collect()
    };
    Route {
        name: rule.get("name").and_then(Value::as_str),
        destinations: backends.iter().map(names).collect(),
        pins,
        pointer,
        list: "backendRefs",
    }
}
