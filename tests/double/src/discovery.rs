//! Discovery documents, made from the registry: which groups, versions and resources are served.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::resource::{Registry, Resource};

/// The version the double's behaviour was checked against.
const VERSION: (&str, &str) = ("1", "36");

/// The answer to a path that is no resource's; a string is plain text.
pub(crate) fn answer(registry: &Registry, path: &str) -> Option<Value> {
    let words: Vec<&str> = path.split('/').filter(|word| !word.is_empty()).collect();
    match words.as_slice() {
        ["version"] => {
            let (major, minor) = VERSION;
            Some(
                json!({"major": major, "minor": minor, "gitVersion": format!("v{major}.{minor}.0-double"), "platform": "double"}),
            )
        }
        ["readyz" | "livez" | "healthz"] => Some(json!("ok")),
        ["api"] => Some(json!({"kind": "APIVersions", "versions": ["v1"]})),
        ["apis"] => {
            let names: BTreeSet<&str> = registry.all().iter().map(|resource| resource.group.as_str()).collect();
            let groups: Vec<Value> =
                names.into_iter().filter(|name| !name.is_empty()).filter_map(|name| group(registry, name)).collect();
            Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
        }
        ["apis", name] => {
            let mut group = group(registry, name)?;
            group["kind"] = json!("APIGroup");
            group["apiVersion"] = json!("v1");
            Some(group)
        }
        ["api", version] => resources(registry, "", version),
        ["apis", name, version] => resources(registry, name, version),
        _ => None,
    }
}

fn group(registry: &Registry, name: &str) -> Option<Value> {
    let versions: BTreeSet<&str> = registry
        .all()
        .iter()
        .filter(|resource| resource.group == name)
        .map(|resource| resource.version.as_str())
        .collect();
    let versions: Vec<Value> = versions
        .into_iter()
        .map(|version| json!({"groupVersion": format!("{name}/{version}"), "version": version}))
        .collect();
    let preferred = versions.first()?.clone();
    Some(json!({"name": name, "versions": versions, "preferredVersion": preferred}))
}

fn resources(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let served: Vec<&Resource> = registry
        .all()
        .iter()
        .filter(|resource| resource.group == group && resource.version == version)
        .map(AsRef::as_ref)
        .collect();
    let group_version = served.first()?.api_version();
    let mut list = Vec::new();
    for resource in served {
        let entry = |name: String, verbs: &[&str]| {
            json!({
                "name": name, "singularName": resource.kind.to_lowercase(), "namespaced": resource.namespaced,
                "kind": resource.kind, "verbs": verbs,
            })
        };
        let verbs = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
        list.push(entry(resource.plural.clone(), &verbs));
        if resource.status {
            list.push(entry(format!("{}/status", resource.plural), &["get", "patch", "update"]));
        }
    }
    Some(json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": list}))
}
