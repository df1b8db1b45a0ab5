//! Scenarios about patches: the rules of JSON Patch that the operator's fences stand on, merge patch, apply.

use serde_json::{Value, json};

use super::{
    Content::{Apply, JsonPatch, MergePatch},
    Scenario, Step,
    objects::{CONFIG_MAPS, DEPLOYMENTS, WIDGETS, config_map, deployment, one, widget},
};

/// What a refused JSON Patch answers: no causes, so that it cannot be taken for a failed validation.
fn refused() -> Value {
    json!({
        "kind": "Status", "status": "Failure", "reason": "Invalid", "code": 422,
        "message": "the server rejected our request due to an error in our request",
        "details": {"causes": "-"},
    })
}

pub(super) fn scenarios() -> Vec<Scenario> {
    let mut all = json_patches();
    all.extend(guarded_metadata());
    all.extend(merges());
    all.extend(applies());
    all
}

/// A ConfigMap with `A` = `1`, a patch, and its answer: none is a refusal.
fn row(name: &'static str, patch: &str, answer: Option<Value>) -> Scenario {
    let cm = one(CONFIG_MAPS);
    let patched = Step::patch(&cm, JsonPatch, patch);
    let mut steps = vec![Step::post(CONFIG_MAPS, config_map(json!({"A": "1", "M": "a<b>&c\u{2028}d"}))).keep("a")];
    match answer {
        Some(answer) => steps.push(patched.answers(200, answer)),
        None => {
            steps.push(patched.answers(422, refused()));
            steps.push(
                Step::get(&cm).answers(200, json!({"data": {"A": "1"}, "metadata": {"resourceVersion": "{a.rv}"}})),
            );
        }
    }
    Scenario::new(name, steps)
}

fn json_patches() -> Vec<Scenario> {
    let cm = one(CONFIG_MAPS);
    vec![
        row("test of an equal value holds", r#"[{"op":"test","path":"/data/A","value":"1"},{"op":"replace","path":"/data/A","value":"2"}]"#, Some(json!({"data": {"A": "2"}}))),
        row("test of another value fails the patch", r#"[{"op":"replace","path":"/data/B","value":"1"},{"op":"test","path":"/data/A","value":"2"}]"#, None),
        row("test of null holds for a missing member", r#"[{"op":"test","path":"/data/B","value":null},{"op":"add","path":"/data/B","value":"2"}]"#, Some(json!({"data": {"A": "1", "B": "2"}}))),
        row("test without value holds for a missing member", r#"[{"op":"test","path":"/data/B"},{"op":"add","path":"/data/B","value":"2"}]"#, Some(json!({"data": {"B": "2"}}))),
        row("test of null fails for a present member", r#"[{"op":"test","path":"/data/A","value":null}]"#, None),
        row("test of a value fails for a missing member", r#"[{"op":"test","path":"/data/B","value":"1"}]"#, None),
        row("test of an empty string fails for a missing member", r#"[{"op":"test","path":"/data/B","value":""}]"#, None),
        row("test of null fails below a missing parent", r#"[{"op":"test","path":"/metadata/annotations/a","value":null}]"#, None),
        row("test and add of a missing parent", r#"[{"op":"test","path":"/metadata/annotations","value":null},{"op":"add","path":"/metadata/annotations","value":{"x.io/a":"1"}}]"#, Some(json!({"metadata": {"annotations": {"x.io/a": "1"}}}))),
        row("add below a missing parent fails", r#"[{"op":"add","path":"/metadata/annotations/a","value":"1"}]"#, None),
        row("remove of a missing member fails", r#"[{"op":"remove","path":"/data/B"}]"#, None),
        row("replace of a missing member adds it", r#"[{"op":"replace","path":"/data/B","value":"2"}]"#, Some(json!({"data": {"A": "1", "B": "2"}}))),
        row("an unknown operation fails", r#"[{"op":"upsert","path":"/data/B","value":"2"}]"#, None),
        row("a pointer into a scalar fails", r#"[{"op":"add","path":"/data/A/B","value":"2"}]"#, None),
        row("a copied missing member is null, which is empty in a map of strings", r#"[{"op":"copy","from":"/data/B","path":"/data/C"}]"#, Some(json!({"data": {"A": "1", "B": "-", "C": ""}}))),
        row("test of < > & as they are fails: the server writes them escaped", r#"[{"op":"test","path":"/data/M","value":"a<b>&c\u2028d"}]"#, None),
        row("test of < > & escaped as the server writes them holds", r#"[{"op":"test","path":"/data/M","value":"a\u003cb\u003e\u0026c\u2028d"},{"op":"replace","path":"/data/A","value":"2"}]"#, Some(json!({"data": {"A": "2"}}))),
        row("test of a whole map does not mind the order", r#"[{"op":"test","path":"/data","value":{"M":"a\u003cb\u003e\u0026c\u2028d","A":"1"}}]"#, Some(json!({"metadata": {"resourceVersion": "{a.rv}"}}))),
        row("a patch that changes nothing keeps the resourceVersion", r#"[{"op":"replace","path":"/data/A","value":"1"}]"#, Some(json!({"metadata": {"resourceVersion": "{a.rv}"}}))),
        row("an empty patch keeps the resourceVersion", "[]", Some(json!({"metadata": {"resourceVersion": "{a.rv}"}}))),
        row("null for a member of a built-in kind is no member", r#"[{"op":"add","path":"/immutable","value":null}]"#, Some(json!({"immutable": "-", "metadata": {"resourceVersion": "{a.rv}"}}))),
        Scenario::new("the slash of a key is written ~1", [
            Step::post(CONFIG_MAPS, json!({"metadata": {"name": "{id}", "annotations": {"x.io/a": "1", "keep": "me"}}})),
            Step::patch(&cm, JsonPatch, r#"[{"op":"test","path":"/metadata/annotations/x.io~1a","value":"1"},{"op":"test","path":"/metadata/annotations/x.io~1b","value":null},{"op":"add","path":"/metadata/annotations/x.io~1b","value":"2"},{"op":"remove","path":"/metadata/annotations/x.io~1a"}]"#)
                .answers(200, json!({"metadata": {"annotations": {"x.io/a": "-", "x.io/b": "2", "keep": "me"}}})),
        ]),
        Scenario::new("adding annotations whole erases the others", [
            Step::post(CONFIG_MAPS, json!({"metadata": {"name": "{id}", "annotations": {"a": "1"}}})),
            Step::patch(&cm, JsonPatch, r#"[{"op":"add","path":"/metadata/annotations","value":{"b":"2"}}]"#)
                .answers(200, json!({"metadata": {"annotations": {"a": "-", "b": "2"}}})),
            Step::patch(&cm, JsonPatch, r#"[{"op":"remove","path":"/metadata/annotations/b"}]"#).answers(200, json!({"metadata": {"annotations": "-"}})),
        ]),
        Scenario::new("lists are addressed by index", [
            Step::post(WIDGETS, widget(json!({"spec": {"list": [{"w": 100}, {"w": 0}]}}))),
            Step::patch(&one(WIDGETS), JsonPatch, r#"[{"op":"test","path":"/spec/list/0","value":{"w":100}},{"op":"replace","path":"/spec/list/0/w","value":75},{"op":"replace","path":"/spec/list/1/w","value":25}]"#)
                .answers(200, json!({"spec": {"list": [{"w": 75}, {"w": 25}]}, "metadata": {"generation": 2}})),
            Step::patch(&one(WIDGETS), JsonPatch, r#"[{"op":"test","path":"/spec/list/2","value":null}]"#).answers(422, refused()),
            Step::patch(&one(WIDGETS), JsonPatch, r#"[{"op":"add","path":"/spec/list/-","value":{"w":0}},{"op":"remove","path":"/spec/list/-1"}]"#)
                .answers(200, json!({"spec": {"list": [{"w": 75}, {"w": 25}]}, "metadata": {"generation": 2}})),
        ]),
        Scenario::new("numbers are compared as they are written", [
            Step::post(WIDGETS, widget(json!({"spec": {"n": 1, "f": 1.5}}))),
            Step::patch(&one(WIDGETS), JsonPatch, r#"[{"op":"test","path":"/spec/n","value":1.0}]"#).answers(422, refused()),
            Step::patch(&one(WIDGETS), JsonPatch, r#"[{"op":"test","path":"/spec/n","value":1},{"op":"test","path":"/spec/f","value":1.5}]"#),
        ]),
        Scenario::new("what is no patch is a bad request", [
            Step::post(CONFIG_MAPS, config_map(json!({}))),
            Step::patch(&cm, JsonPatch, r#"{"op":"add"}"#).answers(400, json!({"reason": "BadRequest"})),
            Step::patch(&cm, JsonPatch, "[{").answers(400, json!({"reason": "BadRequest"})),
            Step::patch(&cm, MergePatch, "[]").answers(400, json!({"reason": "BadRequest"})),
            Step::patch(&cm, super::Content::Json, "{}").answers(415, json!({"reason": "UnsupportedMediaType"})),
        ]),
        Scenario::new("a patch needs an object", [
            Step::patch(&cm, JsonPatch, "[]").answers(404, json!({"reason": "NotFound"})),
            Step::patch(&cm, MergePatch, "{}").answers(404, json!({"reason": "NotFound"})),
        ]),
        Scenario::new("a result that cannot be decoded has a cause", [
            Step::post(CONFIG_MAPS, config_map(json!({"A": "1"}))),
            Step::patch(&cm, JsonPatch, r#"[{"op":"add","path":"/data/B","value":2}]"#)
                .answers(422, json!({"reason": "Invalid", "details": {"causes": [{"field": "patch"}]}})),
        ]),
        Scenario::new("a dry run of a patch stores nothing, and fails as the patch would", [
            Step::post(DEPLOYMENTS, deployment()),
            Step::patch(&format!("{}?dryRun=All", one(DEPLOYMENTS)), JsonPatch, r#"[{"op":"replace","path":"/spec/replicas","value":5}]"#)
                .answers(200, json!({"spec": {"replicas": 5}, "metadata": {"generation": 2}})),
            Step::patch(&format!("{}?dryRun=All", one(DEPLOYMENTS)), JsonPatch, r#"[{"op":"test","path":"/spec/replicas","value":5}]"#).answers(422, refused()),
            Step::get(&one(DEPLOYMENTS)).answers(200, json!({"spec": {"replicas": 2}, "metadata": {"generation": 1}})),
        ]),
    ]
}

fn guarded_metadata() -> Vec<Scenario> {
    let cm = one(CONFIG_MAPS);
    vec![
        Scenario::new("a patch can pin uid and resourceVersion by tests", [
            Step::post(CONFIG_MAPS, config_map(json!({"A": "1"}))).keep("a"),
            Step::patch(&cm, JsonPatch, r#"[{"op":"test","path":"/metadata/uid","value":"{a.uid}"},{"op":"test","path":"/metadata/resourceVersion","value":"{a.rv}"},{"op":"replace","path":"/data/A","value":"2"}]"#)
                .answers(200, json!({"data": {"A": "2"}})),
            Step::patch(&cm, JsonPatch, r#"[{"op":"test","path":"/metadata/resourceVersion","value":"{a.rv}"},{"op":"replace","path":"/data/A","value":"3"}]"#).answers(422, refused()),
        ]),
        Scenario::new("a patch that writes an old resourceVersion is a conflict", [
            Step::post(CONFIG_MAPS, config_map(json!({"A": "1"}))).keep("a"),
            Step::patch(&cm, JsonPatch, r#"[{"op":"replace","path":"/metadata/resourceVersion","value":"{a.rv}"},{"op":"replace","path":"/data/A","value":"2"}]"#)
                .answers(200, json!({"data": {"A": "2"}})),
            Step::patch(&cm, JsonPatch, r#"[{"op":"replace","path":"/metadata/resourceVersion","value":"{a.rv}"},{"op":"replace","path":"/data/A","value":"3"}]"#)
                .answers(409, json!({"reason": "Conflict"})),
            Step::patch(&cm, MergePatch, r#"{"metadata":{"resourceVersion":"{a.rv}"},"data":{"A":"3"}}"#).answers(409, json!({"reason": "Conflict"})),
        ]),
        Scenario::new("a uid cannot be patched", [
            Step::post(CONFIG_MAPS, config_map(json!({}))),
            Step::patch(&cm, MergePatch, r#"{"metadata":{"uid":"00000000-0000-0000-0000-00000000abcd"}}"#)
                .answers(422, json!({"details": {"causes": ["$contains", {"field": "metadata.uid"}]}})),
        ]),
        Scenario::new("a name cannot be patched", [
            Step::post(CONFIG_MAPS, config_map(json!({}))),
            Step::patch(&cm, MergePatch, r#"{"metadata":{"name":"other"}}"#).answers(400, json!({"reason": "BadRequest"})),
        ]),
        Scenario::new("system metadata in a patch is ignored", [
            Step::post(CONFIG_MAPS, config_map(json!({}))).keep("a"),
            Step::patch(&cm, MergePatch, r#"{"metadata":{"creationTimestamp":"2001-01-01T00:00:00Z","generation":7}}"#)
                .answers(200, json!({"metadata": {"resourceVersion": "{a.rv}", "creationTimestamp": "!2001-01-01T00:00:00Z", "generation": "-"}})),
        ]),
    ]
}

fn merges() -> Vec<Scenario> {
    let cm = one(CONFIG_MAPS);
    vec![
        Scenario::new(
            "a merge patch merges maps and removes by null",
            [
                Step::post(CONFIG_MAPS, config_map(json!({"A": "1", "B": "2"}))),
                Step::patch(&cm, MergePatch, r#"{"data":{"B":null,"C":"3"}}"#)
                    .answers(200, json!({"data": {"A": "1", "B": "-", "C": "3"}})),
            ],
        ),
        Scenario::new(
            "a merge patch that changes nothing keeps the resourceVersion",
            [
                Step::post(CONFIG_MAPS, config_map(json!({"A": "1"}))).keep("a"),
                Step::patch(&cm, MergePatch, r#"{"data":{"A":"1","B":null},"metadata":{"annotations":{}}}"#)
                    .answers(200, json!({"metadata": {"resourceVersion": "{a.rv}"}})),
            ],
        ),
        Scenario::new(
            "a merge patch replaces lists",
            [
                Step::post(WIDGETS, widget(json!({"spec": {"list": [1, 2], "keep": true}}))),
                Step::patch(&one(WIDGETS), MergePatch, r#"{"spec":{"list":[3]}}"#)
                    .answers(200, json!({"spec": {"list": [3], "keep": true}})),
            ],
        ),
    ]
}

fn applies() -> Vec<Scenario> {
    let cm = one(CONFIG_MAPS);
    let by = |manager: &str| format!("{cm}?fieldManager={manager}");
    let config = |data: &str| {
        format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{{id}}"}},"data":{data}}}"#)
    };
    vec![
        Scenario::new("an apply names its manager", [
            Step::patch(&cm, Apply, &config("{}")).answers(422, json!({"details": {"causes": [{"field": "fieldManager"}]}})),
        ]),
        Scenario::new("an apply creates, updates, and repeats without a trace", [
            Step::patch(&by("one"), Apply, &config(r#"{"A":"1","B":"1"}"#))
                .answers(201, json!({"data": {"A": "1"}, "metadata": {"managedFields": [{"manager": "one", "operation": "Apply", "apiVersion": "v1"}]}}))
                .keep("a"),
            Step::patch(&by("one"), Apply, &config(r#"{"A":"1","B":"1"}"#)).answers(200, json!({"metadata": {"resourceVersion": "{a.rv}"}})),
            Step::patch(&by("one"), Apply, &config(r#"{"A":"2"}"#)).answers(200, json!({"data": {"A": "2", "B": "-"}, "metadata": {"uid": "{a.uid}"}})),
        ]),
        Scenario::new("an apply conflicts with another manager's values unless forced", [
            Step::patch(&by("one"), Apply, &config(r#"{"A":"1"}"#)).answers(201, json!({})),
            Step::patch(&by("two"), Apply, &config(r#"{"A":"2"}"#)).answers(409, json!({
                "reason": "Conflict", "details": {"causes": [{"reason": "FieldManagerConflict", "field": ".data.A"}]},
            })),
            Step::patch(&by("two"), Apply, &config(r#"{"A":"1","B":"2"}"#)).answers(200, json!({"data": {"A": "1", "B": "2"}})),
            Step::patch(&format!("{}&force=true", by("two")), Apply, &config(r#"{"A":"2","B":"2"}"#)).answers(200, json!({"data": {"A": "2", "B": "2"}})),
            Step::patch(&by("one"), Apply, &config("{}")).answers(200, json!({"data": {"A": "2", "B": "2"}})),
        ]),
        Scenario::new("managed fields name who wrote what", [
            Step::post(&format!("{CONFIG_MAPS}?fieldManager=maker"), config_map(json!({"A": "1", "B": "1"}))).answers(201, json!({
                "metadata": {"managedFields": [{"manager": "maker", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {"f:A": "{}", "f:B": "{}"}}}]},
            })),
            Step::patch(&by("operator"), JsonPatch, r#"[{"op":"replace","path":"/data/A","value":"2"}]"#).answers(200, json!({
                "metadata": {"managedFields": ["$contains", {"manager": "operator", "operation": "Update", "fieldsV1": {"f:data": {"f:A": "{}", "f:B": "-"}}}]},
            })),
            Step::get(&cm).answers(200, json!({
                "metadata": {"managedFields": ["$contains", {"manager": "maker", "fieldsV1": {"f:data": {"f:A": "-", "f:B": "{}"}}}]},
            })),
        ]),
        Scenario::new("a status write is managed apart", [
            Step::post(WIDGETS, widget(json!({"spec": {"n": 1}}))),
            Step::patch(&format!("{}/status?fieldManager=operator", one(WIDGETS)), MergePatch, r#"{"status":{"phase":"One"}}"#).answers(200, json!({
                "metadata": {"managedFields": ["$contains", {"manager": "operator", "subresource": "status", "fieldsV1": {"f:status": {"f:phase": "{}"}}}]},
            })),
        ]),
    ]
}
