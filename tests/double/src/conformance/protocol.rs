//! Scenarios about collections: lists, selectors, and watches from a version and from now.

use serde_json::{Value, json};

use super::{
    Content::MergePatch,
    Scenario, Step,
    objects::{CONFIG_MAPS, WIDGETS, one, widget},
};

/// A ConfigMap of the scenario, told from the others by its labels.
fn labelled(name: &str, tier: &str) -> Value {
    json!({"metadata": {"name": format!("{{id}}-{name}"), "labels": {"scenario": "{id}", "tier": tier}}})
}

fn at(name: &str) -> String {
    format!("{CONFIG_MAPS}/{{id}}-{name}")
}

fn named(name: &str) -> Value {
    json!({"metadata": {"name": format!("{{id}}-{name}")}})
}

fn selected(selector: &str) -> String {
    format!("{CONFIG_MAPS}?labelSelector=scenario%3D{{id}}{selector}")
}

/// A watch that ends by itself after a second.
fn watch(query: &str, events: Value) -> Step {
    Step::get(&format!("{}&watch=true&timeoutSeconds=1{query}", selected(""))).answers(200, events)
}

pub(super) fn scenarios() -> Vec<Scenario> {
    let mut all = lists();
    all.extend(watches());
    all
}

fn lists() -> Vec<Scenario> {
    let rows = [
        ("", json!([named("a"), named("b")])),
        ("%2Ctier", json!([named("a"), named("b")])),
        ("%2C!tier", json!([])),
        ("%2Ctier%3Dfront", json!([named("a")])),
        ("%2Ctier!%3Dfront", json!([named("b")])),
        ("%2Ctier%20in%20(front%2Cback)", json!([named("a"), named("b")])),
        ("%2Ctier%20notin%20(front)", json!([named("b")])),
    ];
    let mut steps =
        vec![Step::post(CONFIG_MAPS, labelled("b", "back")), Step::post(CONFIG_MAPS, labelled("a", "front"))];
    steps.extend(rows.map(|(selector, items)| {
        let list =
            json!({"kind": "ConfigMapList", "apiVersion": "v1", "metadata": {"resourceVersion": "*"}, "items": items});
        Step::get(&selected(selector)).answers(200, list)
    }));
    vec![
        Scenario::new("lists are narrowed by labels and in order of name", steps),
        Scenario::new("lists are narrowed by name", [
            Step::post(CONFIG_MAPS, labelled("a", "x")),
            Step::get(&format!("{CONFIG_MAPS}?fieldSelector=metadata.name%3D{{id}}-a")).answers(200, json!({"items": [named("a")]})),
            Step::get(&format!("{WIDGETS}?fieldSelector=spec.n%3D1")).answers(400, json!({"reason": "BadRequest"})),
            Step::get(&format!("{CONFIG_MAPS}?labelSelector=a%20among%20(b)")).answers(400, json!({"reason": "BadRequest"})),
        ]),
        Scenario::new("a custom list has the kind of its resource", [
            Step::post(WIDGETS, widget(json!({}))),
            Step::get(&format!("{WIDGETS}?fieldSelector=metadata.name%3D{{id}}")).answers(200, json!({
                "kind": "WidgetList", "apiVersion": "conformance.learningloop.io/v1",
                "items": [{"kind": "Widget", "apiVersion": "conformance.learningloop.io/v1", "metadata": {"name": "{id}"}}],
            })),
        ]),
        Scenario::new("a collection is deleted by selector", [
            Step::post(CONFIG_MAPS, labelled("a", "front")),
            Step::post(CONFIG_MAPS, labelled("b", "back")),
            Step::delete(&selected("%2Ctier%3Dfront")).answers(200, json!({})),
            Step::get(&selected("")).answers(200, json!({"items": [named("b")]})),
        ]),
    ]
}

fn watches() -> Vec<Scenario> {
    let event = |kind: &str, name: &str| json!({"type": kind, "object": named(name)});
    let w = one(WIDGETS);
    vec![
        Scenario::new("a watch tells what happened since its resourceVersion", [
            Step::post(CONFIG_MAPS, labelled("a", "x")).keep("a"),
            Step::post(CONFIG_MAPS, labelled("b", "x")),
            Step::patch(&at("a"), MergePatch, r#"{"data":{"A":"1"}}"#).keep("changed"),
            Step::patch(&at("a"), MergePatch, r#"{"data":{"A":"1"}}"#),
            Step::patch(&format!("{}?dryRun=All", at("a")), MergePatch, r#"{"data":{"A":"2"}}"#),
            Step::delete(&at("b")),
            watch("&resourceVersion={a.rv}", json!([
                event("ADDED", "b"),
                {"type": "MODIFIED", "object": {"kind": "ConfigMap", "data": {"A": "1"}, "metadata": {"name": "{id}-a", "resourceVersion": "{changed.rv}"}}},
                {"type": "DELETED", "object": {"metadata": {"name": "{id}-b", "resourceVersion": "!{changed.rv}"}}},
            ])),
            watch("&resourceVersion={changed.rv}", json!([event("DELETED", "b")])),
        ]),
        Scenario::new("a watch from anywhere begins with what is there", [
            Step::post(CONFIG_MAPS, labelled("a", "x")),
            Step::post(CONFIG_MAPS, labelled("b", "x")),
            watch("", json!([event("ADDED", "a"), event("ADDED", "b")])),
        ]),
        Scenario::new("an object that comes to match is added, one that ceases to is deleted", [
            Step::post(CONFIG_MAPS, json!({"metadata": {"name": "{id}-a"}})).keep("a"),
            Step::patch(&at("a"), MergePatch, r#"{"metadata":{"labels":{"scenario":"{id}"}}}"#),
            Step::patch(&at("a"), MergePatch, r#"{"metadata":{"labels":null}}"#).keep("c"),
            watch("&resourceVersion={a.rv}", json!([
                event("ADDED", "a"),
                {"type": "DELETED", "object": {"metadata": {"name": "{id}-a", "labels": {"scenario": "{id}"}, "resourceVersion": "{c.rv}"}}},
            ])),
        ]),
        Scenario::new("a streaming list ends in a bookmark", [
            Step::post(CONFIG_MAPS, labelled("a", "x")),
            watch("&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan", json!(["$contains", event("ADDED", "a")])),
            watch("&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan", json!(["$contains", {
                "type": "BOOKMARK",
                "object": {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"resourceVersion": "*", "annotations": {"k8s.io/initial-events-end": "true"}}},
            }])),
        ]),
        Scenario::new("a watch sees an object end by its last finalizer", [
            Step::post(WIDGETS, widget(json!({"metadata": {"finalizers": ["example.com/a"]}}))).keep("a"),
            Step::delete(&w),
            Step::patch(&w, MergePatch, r#"{"metadata":{"finalizers":[]}}"#),
            Step::get(&format!("{WIDGETS}?watch=true&timeoutSeconds=1&fieldSelector=metadata.name%3D{{id}}&resourceVersion={{a.rv}}")).answers(200, json!([
                {"type": "MODIFIED", "object": {"metadata": {"deletionTimestamp": "*", "finalizers": ["example.com/a"]}}},
                {"type": "DELETED", "object": {"metadata": {"deletionTimestamp": "*", "name": "{id}"}}},
            ])),
        ]),
    ]
}
