//! Scenarios about objects: creating, replacing, status and generation, deleting, and what each kind makes of it.

use serde_json::{Value, json};

use super::{
    Content::{JsonPatch, MergePatch},
    Scenario, Step,
};

pub(super) const CONFIG_MAPS: &str = "/api/v1/namespaces/{ns}/configmaps";
pub(super) const SERVICES: &str = "/api/v1/namespaces/{ns}/services";
pub(super) const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/{ns}/deployments";
pub(super) const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/{ns}/leases";
pub(super) const WIDGETS: &str = "/apis/conformance.learningloop.io/v1/namespaces/{ns}/widgets";

pub(super) fn one(collection: &str) -> String {
    format!("{collection}/{{id}}")
}

pub(super) fn status_of(collection: &str) -> String {
    format!("{collection}/{{id}}/status")
}

pub(super) fn config_map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{id}"}, "data": data})
}

pub(super) fn widget(more: Value) -> Value {
    let mut widget = json!({
        "apiVersion": "conformance.learningloop.io/v1", "kind": "Widget", "metadata": {"name": "{id}"},
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        if key == "metadata" {
            for (key, value) in value.as_object().into_iter().flatten() {
                widget["metadata"][key] = value.clone();
            }
        } else {
            widget[key] = value.clone();
        }
    }
    widget
}

pub(super) fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "{id}"},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": "{id}"}},
            "template": {
                "metadata": {"labels": {"app": "{id}"}},
                "spec": {"containers": [{"name": "main", "image": "example.invalid/main"}]},
            },
        },
    })
}

pub(super) fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "{id}"},
        "spec": {"selector": {"app": "{id}", "version": "learning"}, "ports": [{"port": 80}]},
    })
}

fn lease() -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "{id}"},
        "spec": {"holderIdentity": "a", "leaseDurationSeconds": 8},
    })
}

fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    let (parent, member) = pointer.rsplit_once('/').expect("a pointer");
    object.pointer_mut(parent).expect("a parent")[member] = value;
    object
}

pub(super) fn scenarios() -> Vec<Scenario> {
    let mut all = creating();
    all.extend(replacing());
    all.extend(status_and_generation());
    all.extend(deployments());
    all.extend(services_and_leases());
    all.extend(deleting());
    all
}

fn creating() -> Vec<Scenario> {
    let cm = one(CONFIG_MAPS);
    vec![
        Scenario::new("a created object gets its system metadata", [
            Step::post(CONFIG_MAPS, config_map(json!({"A": "1"}))).answers(201, json!({
                "apiVersion": "v1", "kind": "ConfigMap", "data": {"A": "1"},
                "metadata": {"name": "{id}", "namespace": "{ns}", "uid": "*", "resourceVersion": "*", "creationTimestamp": "*", "generation": "-"},
            })),
        ]),
        Scenario::new("a name is taken once", [
            Step::post(CONFIG_MAPS, config_map(json!({}))),
            Step::post(CONFIG_MAPS, config_map(json!({}))).answers(409, json!({
                "kind": "Status", "status": "Failure", "reason": "AlreadyExists", "code": 409,
                "message": "configmaps \"{id}\" already exists", "details": {"name": "{id}", "kind": "configmaps"},
            })),
        ]),
        Scenario::new("generateName makes a name", [
            Step::post(CONFIG_MAPS, json!({"metadata": {"generateName": "{id}-"}}))
                .answers(201, json!({"metadata": {"name": "!{id}-", "generateName": "{id}-"}}))
                .keep("made"),
            Step::get(&format!("{CONFIG_MAPS}/{{made.name}}")).answers(200, json!({"metadata": {"uid": "{made.uid}"}})),
        ]),
        Scenario::new("an object needs a name", [
            Step::post(CONFIG_MAPS, json!({"data": {}})).answers(422, json!({
                "reason": "Invalid", "details": {"causes": ["$contains", {"field": "metadata.name"}]},
            })),
        ]),
        Scenario::new("a namespace has to be there", [
            Step::post("/api/v1/namespaces/{id}-missing/configmaps", config_map(json!({})))
                .answers(404, json!({"reason": "NotFound", "message": "namespaces \"{id}-missing\" not found"})),
        ]),
        Scenario::new("the namespace of body and URL agree", [
            Step::post(CONFIG_MAPS, with(config_map(json!({})), "/metadata/namespace", json!("other")))
                .answers(400, json!({"reason": "BadRequest"})),
        ]),
        Scenario::new("a resourceVersion is not the creator's to set", [
            Step::post(CONFIG_MAPS, with(config_map(json!({})), "/metadata/resourceVersion", json!("7")))
                .answers(500, json!({"message": "resourceVersion should not be set on objects to be created"})),
        ]),
        Scenario::new("empty maps of built-in kinds vanish", [
            Step::post(CONFIG_MAPS, with(config_map(json!({})), "/metadata/annotations", json!({})))
                .answers(201, json!({"data": "-", "metadata": {"annotations": "-", "labels": "-"}})),
        ]),
        Scenario::new("a dry run creates nothing", [
            Step::post(&format!("{CONFIG_MAPS}?dryRun=All"), config_map(json!({"A": "1"})))
                .answers(201, json!({"data": {"A": "1"}, "metadata": {"uid": "*", "resourceVersion": "-"}})),
            Step::get(&cm).answers(404, json!({})),
            Step::post(CONFIG_MAPS, config_map(json!({}))),
            Step::post(&format!("{CONFIG_MAPS}?dryRun=All"), config_map(json!({}))).answers(409, json!({"reason": "AlreadyExists"})),
        ]),
        Scenario::new("a dry run of some stages is no dry run", [
            Step::post(&format!("{CONFIG_MAPS}?dryRun=Some"), config_map(json!({}))).answers(422, json!({"reason": "Invalid"})),
            Step::get(&cm).answers(404, json!({})),
        ]),
        Scenario::new("what is not there is not found", [
            Step::get(&cm).answers(404, json!({
                "kind": "Status", "reason": "NotFound", "message": "configmaps \"{id}\" not found",
                "details": {"name": "{id}", "kind": "configmaps"},
            })),
            Step::get(&one(WIDGETS)).answers(404, json!({
                "message": "widgets.conformance.learningloop.io \"{id}\" not found",
                "details": {"group": "conformance.learningloop.io", "kind": "widgets"},
            })),
        ]),
        Scenario::new("what is not served is not found", [
            Step::get("/apis/nobody.example.com/v1/namespaces/{ns}/things").answers(404, json!("404 page not found\n")),
            Step::get("/apis/apps/v1/namespaces/{ns}/things").answers(404, json!({"reason": "NotFound"})),
            Step::get(&status_of(CONFIG_MAPS)).answers(404, json!({"reason": "NotFound"})),
        ]),
        Scenario::new("values have to be of the field's type", [
            Step::post(CONFIG_MAPS, config_map(json!({"A": 1}))).answers(400, json!({"reason": "BadRequest"})),
        ]),
    ]
}

fn replacing() -> Vec<Scenario> {
    let cm = one(CONFIG_MAPS);
    vec![
        Scenario::new("a replacement with the present resourceVersion goes through", [
            Step::post(CONFIG_MAPS, config_map(json!({"A": "1"}))).keep("a"),
            Step::put(&cm, with(config_map(json!({"A": "2"})), "/metadata/resourceVersion", json!("{a.rv}")))
                .answers(200, json!({"data": {"A": "2"}, "metadata": {"resourceVersion": "!{a.rv}", "uid": "{a.uid}", "creationTimestamp": "*"}})),
        ]),
        Scenario::new("a replacement with an old resourceVersion is a conflict", [
            Step::post(CONFIG_MAPS, config_map(json!({"A": "1"}))).keep("a"),
            Step::put(&cm, config_map(json!({"A": "2"}))).answers(200, json!({"data": {"A": "2"}})),
            Step::put(&cm, with(config_map(json!({"A": "3"})), "/metadata/resourceVersion", json!("{a.rv}"))).answers(409, json!({
                "reason": "Conflict", "details": {"name": "{id}", "kind": "configmaps"},
                "message": "Operation cannot be fulfilled on configmaps \"{id}\": the object has been modified; please apply your changes to the latest version and try again",
            })),
            Step::get(&cm).answers(200, json!({"data": {"A": "2"}})),
        ]),
        Scenario::new("a replacement that changes nothing keeps the resourceVersion", [
            Step::post(CONFIG_MAPS, config_map(json!({"A": "1"}))).keep("a"),
            Step::put(&cm, config_map(json!({"A": "1"}))).answers(200, json!({"metadata": {"resourceVersion": "{a.rv}"}})),
        ]),
        Scenario::new("a replacement for another uid is a conflict", [
            Step::post(CONFIG_MAPS, config_map(json!({}))),
            Step::put(&cm, with(config_map(json!({"A": "1"})), "/metadata/uid", json!("00000000-0000-0000-0000-00000000abcd")))
                .answers(409, json!({"reason": "Conflict"})),
        ]),
        Scenario::new("a replacement has the name of its URL", [
            Step::post(CONFIG_MAPS, config_map(json!({}))),
            Step::put(&cm, with(config_map(json!({})), "/metadata/name", json!("other"))).answers(400, json!({"reason": "BadRequest"})),
        ]),
        Scenario::new("a ConfigMap cannot be created by replacement, a Lease can", [
            Step::put(&cm, config_map(json!({}))).answers(404, json!({"reason": "NotFound"})),
            Step::put(&one(LEASES), lease()).answers(201, json!({"metadata": {"uid": "*"}})),
        ]),
        Scenario::new("a dry run replaces nothing", [
            Step::post(CONFIG_MAPS, config_map(json!({"A": "1"}))).keep("a"),
            Step::put(&format!("{cm}?dryRun=All"), config_map(json!({"A": "2"})))
                .answers(200, json!({"data": {"A": "2"}, "metadata": {"resourceVersion": "{a.rv}"}})),
            Step::get(&cm).answers(200, json!({"data": {"A": "1"}, "metadata": {"resourceVersion": "{a.rv}"}})),
        ]),
        Scenario::new("an immutable ConfigMap keeps its data, not its annotations", [
            Step::post(CONFIG_MAPS, with(config_map(json!({"A": "1"})), "/immutable", json!(true))),
            Step::patch(&cm, MergePatch, r#"{"data":{"A":"2"}}"#).answers(422, json!({
                "reason": "Invalid",
                "details": {"kind": "ConfigMap", "name": "{id}", "causes": [{"reason": "FieldValueForbidden", "field": "data"}]},
            })),
            Step::patch(&format!("{cm}?dryRun=All"), MergePatch, r#"{"metadata":{"annotations":{"a":"1"}},"data":{"A":"2"}}"#)
                .answers(422, json!({"details": {"causes": [{"field": "data"}]}})),
            Step::patch(&cm, MergePatch, r#"{"metadata":{"annotations":{"a":"1"}}}"#).answers(200, json!({"metadata": {"annotations": {"a": "1"}}})),
            Step::patch(&cm, MergePatch, r#"{"immutable":null}"#).answers(422, json!({"details": {"causes": [{"field": "immutable"}]}})),
        ]),
    ]
}

fn status_and_generation() -> Vec<Scenario> {
    let w = one(WIDGETS);
    let status = status_of(WIDGETS);
    vec![
        Scenario::new("status is dropped on create and untouched by writes to the main resource", [
            Step::post(WIDGETS, widget(json!({"spec": {"n": 1}, "status": {"phase": "Forged"}})))
                .answers(201, json!({"status": "-", "metadata": {"generation": 1}})),
            Step::patch(&status, MergePatch, r#"{"status":{"phase":"Real"}}"#).answers(200, json!({"status": {"phase": "Real"}})),
            Step::patch(&w, MergePatch, r#"{"spec":{"n":2},"status":{"phase":"Forged"}}"#)
                .answers(200, json!({"spec": {"n": 2}, "status": {"phase": "Real"}, "metadata": {"generation": 2}}))
                .keep("a"),
            Step::put(&w, widget(json!({"spec": {"n": 2}, "metadata": {"resourceVersion": "{a.rv}"}})))
                .answers(200, json!({"status": {"phase": "Real"}, "metadata": {"resourceVersion": "{a.rv}"}})),
        ]),
        Scenario::new("a write to the status of a custom resource changes the status alone", [
            Step::post(WIDGETS, widget(json!({"spec": {"n": 1}, "metadata": {"labels": {"l": "1"}}}))).keep("a"),
            Step::patch(&status, MergePatch, r#"{"metadata":{"labels":{"l":"2"},"annotations":{"a":"1"},"finalizers":["example.com/x"]},"spec":{"n":2},"status":{"phase":"Real"}}"#)
                .answers(200, json!({
                    "spec": {"n": 1}, "status": {"phase": "Real"},
                    "metadata": {"labels": {"l": "1"}, "annotations": "-", "finalizers": "-", "generation": 1, "resourceVersion": "!{a.rv}"},
                })),
        ]),
        Scenario::new("a status is replaced by resourceVersion", [
            Step::post(WIDGETS, widget(json!({"spec": {"n": 1}}))).keep("a"),
            Step::put(&status, widget(json!({"metadata": {"resourceVersion": "{a.rv}"}, "status": {"phase": "One"}})))
                .answers(200, json!({"spec": {"n": 1}, "status": {"phase": "One"}, "metadata": {"generation": 1}}))
                .keep("b"),
            Step::put(&status, widget(json!({"metadata": {"resourceVersion": "{a.rv}"}, "status": {"phase": "Two"}})))
                .answers(409, json!({"reason": "Conflict"})),
            Step::put(&status, widget(json!({"metadata": {"resourceVersion": "{b.rv}"}, "status": {"phase": "One"}})))
                .answers(200, json!({"metadata": {"resourceVersion": "{b.rv}"}})),
            Step::put(&status, widget(json!({"metadata": {"resourceVersion": "{b.rv}"}}))).answers(200, json!({"status": "-"})),
        ]),
        Scenario::new("a status is patched with tests", [
            Step::post(WIDGETS, widget(json!({}))),
            Step::patch(&status, JsonPatch, r#"[{"op":"test","path":"/status","value":null},{"op":"add","path":"/status","value":{"phase":"One"}}]"#)
                .answers(200, json!({"status": {"phase": "One"}})),
            Step::patch(&status, JsonPatch, r#"[{"op":"test","path":"/status","value":null},{"op":"add","path":"/status","value":{"phase":"Two"}}]"#)
                .answers(422, json!({"details": {"causes": "-"}})),
        ]),
        Scenario::new("a dry run of a status write stores nothing", [
            Step::post(WIDGETS, widget(json!({}))).keep("a"),
            Step::patch(&format!("{status}?dryRun=All"), MergePatch, r#"{"status":{"phase":"One"}}"#).answers(200, json!({"status": {"phase": "One"}})),
            Step::get(&w).answers(200, json!({"status": "-", "metadata": {"resourceVersion": "{a.rv}"}})),
            Step::get(&status).answers(200, json!({"kind": "Widget", "metadata": {"resourceVersion": "{a.rv}"}})),
        ]),
        Scenario::new("a custom resource is not replaced without its resourceVersion", [
            Step::post(WIDGETS, widget(json!({"spec": {"n": 1}}))),
            Step::put(&w, widget(json!({"spec": {"n": 2}}))).answers(422, json!({
                "reason": "Invalid", "details": {"causes": [{"field": "metadata.resourceVersion"}]},
            })),
            Step::put(&status, widget(json!({"status": {"n": 2}}))).answers(422, json!({"reason": "Invalid"})),
            Step::patch(&w, MergePatch, r#"{"metadata":{"resourceVersion":null},"spec":{"n":2}}"#).answers(422, json!({"reason": "Invalid"})),
        ]),
        Scenario::new("the generation of a custom resource follows everything but metadata and status", [
            Step::post(WIDGETS, widget(json!({"spec": {"n": 1}}))).answers(201, json!({"metadata": {"generation": 1}})),
            Step::patch(&w, MergePatch, r#"{"metadata":{"labels":{"a":"1"},"annotations":{"a":"1"}}}"#).answers(200, json!({"metadata": {"generation": 1}})),
            Step::patch(&w, MergePatch, r#"{"spec":{"n":2}}"#).answers(200, json!({"metadata": {"generation": 2}})),
            Step::patch(&w, MergePatch, r#"{"extra":true}"#).answers(200, json!({"metadata": {"generation": 3}})),
            Step::patch(&w, MergePatch, r#"{"metadata":{"generation":9}}"#).answers(200, json!({"metadata": {"generation": 3}})),
        ]),
        Scenario::new("custom resources keep empty maps, lists and nulls, but not in metadata", [
            Step::post(WIDGETS, widget(json!({"spec": {"map": {}, "list": [], "null": null}, "metadata": {"annotations": {}, "labels": {}, "finalizers": []}})))
                .answers(201, json!({"spec": {"map": "{}", "list": []}, "metadata": {"annotations": "-", "labels": "-", "finalizers": "-"}})),
            Step::patch(&w, JsonPatch, r#"[{"op":"test","path":"/metadata/annotations","value":null},{"op":"add","path":"/metadata/annotations","value":{"a":"1","b":null}},{"op":"remove","path":"/spec/null"}]"#)
                .answers(200, json!({"metadata": {"annotations": {"a": "1", "b": ""}}})),
            Step::patch(&w, JsonPatch, r#"[{"op":"remove","path":"/metadata/annotations/a"},{"op":"remove","path":"/metadata/annotations/b"}]"#)
                .answers(200, json!({"metadata": {"annotations": "-"}})),
            Step::patch(&w, MergePatch, r#"{"metadata":{"annotations":{"a":1}}}"#).answers(422, json!({"details": {"causes": [{"field": "patch"}]}})),
        ]),
        Scenario::new("a kind cannot be patched", [
            Step::post(WIDGETS, widget(json!({}))),
            Step::patch(&w, MergePatch, r#"{"kind":"Gadget"}"#).answers(422, json!({"details": {"causes": "*"}})),
        ]),
        Scenario::new("a custom resource knows no strategic merge", [
            Step::post(WIDGETS, widget(json!({}))),
            Step::patch(&w, super::Content::StrategicPatch, r#"{"spec":{"n":2}}"#).answers(415, json!({"reason": "UnsupportedMediaType"})),
        ]),
    ]
}

fn deployments() -> Vec<Scenario> {
    let d = one(DEPLOYMENTS);
    let status = status_of(DEPLOYMENTS);
    vec![
        Scenario::new("a Deployment gets its defaults", [
            Step::post(DEPLOYMENTS, json!({
                "metadata": {"name": "{id}"},
                "spec": {
                    "selector": {"matchLabels": {"app": "{id}"}},
                    "template": {"metadata": {"labels": {"app": "{id}"}}, "spec": {"containers": [{"name": "main", "image": "example.invalid/main"}]}},
                },
            }))
            .answers(201, json!({
                "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"generation": 1},
                "spec": {"replicas": 1, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600, "strategy": {"type": "RollingUpdate"}},
            })),
        ]),
        Scenario::new("a Deployment needs a selector that its template matches", [
            Step::post(DEPLOYMENTS, with(deployment(), "/spec/template/metadata/labels", json!({"app": "other"})))
                .answers(422, json!({"details": {"causes": ["$contains", {"field": "spec.template.metadata.labels"}]}})),
            Step::post(DEPLOYMENTS, with(deployment(), "/spec/selector", Value::Null))
                .answers(422, json!({"details": {"causes": ["$contains", {"field": "spec.selector"}]}})),
        ]),
        Scenario::new("a Deployment's selector is immutable", [
            Step::post(DEPLOYMENTS, deployment()),
            Step::patch(&d, MergePatch, r#"{"spec":{"selector":{"matchLabels":{"tier":"x"}},"template":{"metadata":{"labels":{"tier":"x"}}}}}"#)
                .answers(422, json!({"details": {"causes": [{"field": "spec.selector"}]}})),
        ]),
        Scenario::new("a Deployment's generation follows spec and annotations", [
            Step::post(DEPLOYMENTS, deployment()).answers(201, json!({"metadata": {"generation": 1}})),
            Step::patch(&d, JsonPatch, r#"[{"op":"test","path":"/spec/replicas","value":2},{"op":"replace","path":"/spec/replicas","value":0}]"#)
                .answers(200, json!({"spec": {"replicas": 0}, "metadata": {"generation": 2}})),
            Step::patch(&d, MergePatch, r#"{"metadata":{"annotations":{"fence":"1"}}}"#).answers(200, json!({"metadata": {"generation": 3}})),
            Step::patch(&d, MergePatch, r#"{"metadata":{"labels":{"l":"1"}}}"#).answers(200, json!({"metadata": {"generation": 3}})),
            Step::patch(&d, MergePatch, r#"{"spec":{"replicas":0}}"#).answers(200, json!({"metadata": {"generation": 3}})),
        ]),
        Scenario::new("replicas that are removed become one", [
            Step::post(DEPLOYMENTS, deployment()),
            Step::patch(&d, MergePatch, r#"{"spec":{"replicas":null}}"#).answers(200, json!({"spec": {"replicas": 1}})),
        ]),
        Scenario::new("replicas are a number, not below zero", [
            Step::post(DEPLOYMENTS, deployment()),
            Step::patch(&d, MergePatch, r#"{"spec":{"replicas":-1}}"#).answers(422, json!({"details": {"causes": [{"field": "spec.replicas"}]}})),
            Step::patch(&d, MergePatch, r#"{"spec":{"replicas":"three"}}"#).answers(422, json!({"details": {"causes": [{"field": "patch"}]}})),
        ]),
        Scenario::new("a write to a Deployment's status leaves spec and labels alone", [
            Step::post(DEPLOYMENTS, deployment()),
            Step::patch(&status, MergePatch, r#"{"metadata":{"labels":{"l":"1"},"annotations":{"a":"1"}},"spec":{"replicas":7},"status":{"observedGeneration":1,"replicas":2}}"#)
                .answers(200, json!({
                    "spec": {"replicas": 2}, "status": {"replicas": 2},
                    "metadata": {"labels": "-", "annotations": {"a": "1"}, "generation": 1},
                })),
        ]),
    ]
}

fn services_and_leases() -> Vec<Scenario> {
    let s = one(SERVICES);
    let l = one(LEASES);
    vec![
        Scenario::new("a Service gets its defaults and no generation", [
            Step::post(SERVICES, service()).answers(201, json!({
                "metadata": {"generation": "-"},
                "spec": {"type": "ClusterIP", "sessionAffinity": "None", "ports": [{"port": 80, "targetPort": 80, "protocol": "TCP"}]},
            })),
        ]),
        Scenario::new("a Service's selector is patched key by key", [
            Step::post(SERVICES, service()),
            Step::patch(&s, JsonPatch, r#"[{"op":"test","path":"/spec/selector/version","value":"learning"},{"op":"test","path":"/metadata/annotations","value":null},{"op":"replace","path":"/spec/selector/version","value":"baseline"},{"op":"add","path":"/metadata/annotations","value":{"fence":"1"}}]"#)
                .answers(200, json!({"spec": {"selector": {"app": "{id}", "version": "baseline"}}, "metadata": {"annotations": {"fence": "1"}}})),
            Step::patch(&s, JsonPatch, r#"[{"op":"remove","path":"/spec/selector/app"},{"op":"remove","path":"/spec/selector/version"}]"#)
                .answers(200, json!({"spec": {"selector": "-"}})),
        ]),
        Scenario::new("a deleted Service is the answer to its deletion", [
            Step::post(SERVICES, service()).keep("a"),
            Step::delete(&s).answers(200, json!({"kind": "Service", "metadata": {"uid": "{a.uid}"}})),
        ]),
        Scenario::new("a Lease is taken by resourceVersion", [
            Step::post(LEASES, lease()).answers(201, json!({"metadata": {"generation": "-"}})).keep("a"),
            Step::put(&l, with(with(lease(), "/spec/holderIdentity", json!("b")), "/metadata/resourceVersion", json!("{a.rv}")))
                .answers(200, json!({"spec": {"holderIdentity": "b"}})),
            Step::put(&l, with(with(lease(), "/spec/holderIdentity", json!("c")), "/metadata/resourceVersion", json!("{a.rv}")))
                .answers(409, json!({"reason": "Conflict"})),
            Step::put(&l, with(lease(), "/spec/holderIdentity", json!("c"))).answers(422, json!({
                "details": {"causes": [{"field": "metadata.resourceVersion"}]},
            })),
        ]),
    ]
}

fn deleting() -> Vec<Scenario> {
    let cm = one(CONFIG_MAPS);
    let w = one(WIDGETS);
    let finalized =
        || widget(json!({"spec": {"n": 1}, "metadata": {"finalizers": ["example.com/a", "example.com/b"]}}));
    vec![
        Scenario::new("a deletion says whom it deleted", [
            Step::post(CONFIG_MAPS, config_map(json!({}))).keep("a"),
            Step::delete(&cm).answers(200, json!({"kind": "Status", "status": "Success", "details": {"name": "{id}", "kind": "configmaps", "uid": "{a.uid}"}})),
            Step::get(&cm).answers(404, json!({})),
            Step::delete(&cm).answers(404, json!({"reason": "NotFound"})),
        ]),
        Scenario::new("a deletion's preconditions have to hold", [
            Step::post(CONFIG_MAPS, config_map(json!({"A": "1"}))).keep("a"),
            Step::put(&cm, config_map(json!({"A": "2"}))).keep("b"),
            Step::delete_with(&cm, json!({"preconditions": {"uid": "00000000-0000-0000-0000-00000000abcd"}})).answers(409, json!({"reason": "Conflict"})),
            Step::delete_with(&cm, json!({"preconditions": {"resourceVersion": "{a.rv}"}})).answers(409, json!({"reason": "Conflict"})),
            Step::delete_with(&cm, json!({"preconditions": {"uid": "{b.uid}", "resourceVersion": "{b.rv}"}})).answers(200, json!({"status": "Success"})),
            Step::get(&cm).answers(404, json!({})),
        ]),
        Scenario::new("a dry run deletes nothing", [
            Step::post(CONFIG_MAPS, config_map(json!({}))).keep("a"),
            Step::delete(&format!("{cm}?dryRun=All")).answers(200, json!({"status": "Success"})),
            Step::delete_with(&cm, json!({"dryRun": ["All"]})).answers(200, json!({"status": "Success"})),
            Step::get(&cm).answers(200, json!({"metadata": {"resourceVersion": "{a.rv}"}})),
        ]),
        Scenario::new("finalizers hold a deleted object until the last is gone", [
            Step::post(WIDGETS, finalized()).keep("a"),
            Step::delete(&w)
                .answers(200, json!({
                    "kind": "Widget",
                    "metadata": {"deletionTimestamp": "*", "deletionGracePeriodSeconds": 0, "generation": 2, "resourceVersion": "!{a.rv}"},
                }))
                .keep("b"),
            Step::delete(&w).answers(200, json!({"metadata": {"resourceVersion": "{b.rv}"}})),
            Step::patch(&w, MergePatch, r#"{"metadata":{"finalizers":["example.com/a","example.com/b","example.com/c"]}}"#)
                .answers(422, json!({"details": {"causes": ["$contains", {"field": "metadata.finalizers"}]}})),
            Step::patch(&w, MergePatch, r#"{"metadata":{"deletionTimestamp":null}}"#)
                .answers(200, json!({"metadata": {"deletionTimestamp": "*", "resourceVersion": "{b.rv}"}})),
            Step::patch(&status_of(WIDGETS), MergePatch, r#"{"status":{"phase":"Ending"}}"#).answers(200, json!({"status": {"phase": "Ending"}})),
            Step::patch(&w, JsonPatch, r#"[{"op":"test","path":"/metadata/finalizers/0","value":"example.com/a"},{"op":"remove","path":"/metadata/finalizers/0"}]"#)
                .answers(200, json!({"metadata": {"finalizers": ["example.com/b"]}})),
            Step::patch(&w, MergePatch, r#"{"metadata":{"finalizers":null}}"#).answers(200, json!({"kind": "Widget"})),
            Step::get(&w).answers(404, json!({})),
            Step::post(WIDGETS, finalized()).answers(201, json!({"metadata": {"uid": "!{a.uid}", "generation": 1}})),
        ]),
        Scenario::new("a dry run removes no last finalizer", [
            Step::post(WIDGETS, widget(json!({"metadata": {"finalizers": ["example.com/a"]}}))),
            Step::delete(&format!("{w}?dryRun=All")).answers(200, json!({})),
            Step::get(&w).answers(200, json!({"metadata": {"deletionTimestamp": "-"}})),
            Step::delete(&w),
            Step::patch(&format!("{w}?dryRun=All"), MergePatch, r#"{"metadata":{"finalizers":null}}"#),
            Step::get(&w).answers(200, json!({"metadata": {"finalizers": ["example.com/a"]}})),
        ]),
        Scenario::new("nothing new is made in a namespace that ends", [
            Step::post("/api/v1/namespaces", json!({"metadata": {"name": "{ns}-{id}"}})).answers(201, json!({"status": {"phase": "Active"}})),
            Step::post("/api/v1/namespaces/{ns}-{id}/configmaps", with(config_map(json!({})), "/metadata/finalizers", json!(["example.com/a"]))),
            Step::delete("/api/v1/namespaces/{ns}-{id}").answers(200, json!({"kind": "Namespace", "status": {"phase": "Terminating"}})),
            Step::post("/api/v1/namespaces/{ns}-{id}/configmaps", with(config_map(json!({})), "/metadata/name", json!("late"))).answers(403, json!({
                "reason": "Forbidden", "details": {"causes": [{"reason": "NamespaceTerminating", "field": "metadata.namespace"}]},
            })),
            Step::patch("/api/v1/namespaces/{ns}-{id}/configmaps/{id}", MergePatch, r#"{"data":{"A":"1"}}"#).answers(200, json!({"data": {"A": "1"}})),
            Step::patch("/api/v1/namespaces/{ns}-{id}/configmaps/{id}", MergePatch, r#"{"metadata":{"finalizers":null}}"#),
        ]),
    ]
}
