//! Istio's VirtualService.

use serde_json::Value;

use super::Route;

pub(super) fn routes(object: &Value) -> Vec<Route<'_>> {
    let namespace = object.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or_default();
    let entries = object.pointer("/spec/http").and_then(Value::as_array);
    entries.into_iter().flatten().enumerate().map(|(index, entry)| route(index, entry, namespace)).collect()
}

fn route<'a>(index: usize, entry: &'a Value, namespace: &str) -> Route<'a> {
    let pointer = format!("/spec/http/{index}");
    let destinations: Vec<&Value> = entry.get("route").and_then(Value::as_array).into_iter().flatten().collect();
    let mut pins: Vec<(String, Value)> = ["name", "match"]
        .into_iter()
        .map(|member| (format!("{pointer}/{member}"), entry.get(member).cloned().unwrap_or_default()))
        .collect();
    pins.extend(
        destinations
            .iter()
            .enumerate()
            .map(|(at, destination)| (format!("{pointer}/route/{at}"), (*destination).clone())),
    );
    Route {
        name: entry.get("name").and_then(Value::as_str),
        destinations: destinations.iter().map(|destination| names(destination, namespace)).collect(),
        pins,
        pointer,
        list: "route",
    }
}

/// What a destination answers to: its host, short and in full, with `/subset` where it has one.
fn names(destination: &Value, namespace: &str) -> Vec<String> {
    let Some(host) = destination.pointer("/destination/host").and_then(Value::as_str) else { return Vec::new() };
    let subset = destination.pointer("/destination/subset").and_then(Value::as_str);
    let suffixes = [format!(".{namespace}.svc.cluster.local"), format!(".{namespace}.svc"), format!(".{namespace}")];
    let short = suffixes.iter().find_map(|suffix| host.strip_suffix(suffix.as_str())).unwrap_or(host);
    let mut hosts = vec![short.to_owned()];
    if !short.contains('.') {
        hosts.extend(suffixes.iter().map(|suffix| format!("{short}{suffix}")));
    }
    match subset {
        Some(subset) => hosts.into_iter().map(|host| format!("{host}/{subset}")).collect(),
        None => hosts,
    }
}
