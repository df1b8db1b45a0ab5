//! Holds the two definitions to what is promised of them, without any server: that `crds/` is what the types say, that
//! everything has its bound and its description, and that the rules decide as the table of `definitions` says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod definitions;
mod manifests;

use std::collections::BTreeSet;
use std::path::Path;

use definitions::Verdict;
use kube::core::cel::Validator;
use learning_rollout::api::{crd, rollback::LearningRollback, rollout::LearningRollout};
use serde_json::{Value, json};

#[test]
fn the_committed_files_are_what_the_types_say() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds");
    let manifests = crd::manifests().unwrap();
    for (file, text) in &manifests {
        let committed = std::fs::read_to_string(dir.join(file)).unwrap();
        assert!(committed == *text, "crds/{file} differs from the types: run `make generate` and commit the result");
    }
    let expected: BTreeSet<_> = manifests.iter().map(|(file, _)| (*file).to_owned()).collect();
    let present: BTreeSet<_> =
        std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(present, expected, "crds/ holds the two definitions and nothing else");
}

#[test]
fn the_subcommand_writes_the_same_files() {
    let dir = std::env::temp_dir().join(format!("learning-rollout-crds-{}", std::process::id()));
    let written = learning_rollout::cli::crds::write(&dir).unwrap();
    for ((file, text), path) in crd::manifests().unwrap().iter().zip(&written) {
        assert_eq!(path, &dir.join(file));
        assert_eq!(&std::fs::read_to_string(path).unwrap(), text);
    }
    assert_eq!(written.len(), 2);
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn names_columns_and_subresources() {
    let expected = json!([
        {"kind": "LearningRollout", "short": "lro", "columns": ["Ready", "Mode", "Armed", "Breaching", "Active", "Last-Rollback", "Age"]},
        {"kind": "LearningRollback", "short": "lrb", "columns": ["Rollout", "Type", "Trigger", "Phase", "Steps", "Traffic", "Age"]},
    ]);
    for ((_, definition), expected) in crd::definitions().unwrap().iter().zip(expected.as_array().unwrap()) {
        let spec = &definition["spec"];
        assert_eq!(spec["group"], "learningloop.io");
        assert_eq!(spec["scope"], "Namespaced");
        assert_eq!(spec["names"]["kind"], expected["kind"]);
        assert_eq!(spec["names"]["shortNames"], json!([expected["short"]]));
        assert_eq!(spec["names"]["categories"], json!(["learningloop"]));
        let versions = spec["versions"].as_array().unwrap();
        assert_eq!(versions.len(), 1);
        assert_eq!(versions[0]["name"], "v1alpha1");
        assert_eq!(versions[0]["subresources"], json!({"status": {}}));
        let columns = versions[0]["additionalPrinterColumns"].as_array().unwrap();
        let names: Vec<&Value> = columns.iter().map(|column| &column["name"]).collect();
        assert_eq!(json!(names), expected["columns"]);
        // A date is shown as an age, which changes by itself: only the one of the object may.
        let ticking: Vec<&Value> = columns.iter().filter(|c| c["type"] == "date").map(|c| &c["name"]).collect();
        assert_eq!(json!(ticking), json!(["Age"]));
        for column in columns {
            assert!(exists(schema(definition), column["jsonPath"].as_str().unwrap()), "{column}");
        }
        for field in ["observedGeneration", "conditions"] {
            assert!(exists(schema(definition), &format!(".status.{field}")), "{field}");
        }
    }
}

/// Does the schema have the field that a printer column shows?
fn exists(schema: &Value, json_path: &str) -> bool {
    json_path == ".metadata.creationTimestamp"
        || json_path
            .trim_start_matches('.')
            .split(".")
            .try_fold(schema, |schema, name| match name.split_once("[?(@") {
                None if name.starts_with("type==") => Some(schema),
                None => schema["properties"].get(name),
                Some((list, _)) => schema["properties"].get(list).map(|list| &list["items"]),
            })
            .is_some()
}

fn schema(definition: &Value) -> &Value {
    &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
}

#[test]
fn everything_is_bounded_and_described() {
    for (file, definition) in crd::definitions().unwrap() {
        let mut faults = Vec::new();
        walk(schema(&definition), file, &mut faults);
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }
}

#[test]
fn the_walk_sees_what_is_missing() {
    for (schema, fault) in [
        (json!({"type": "string"}), "a string without maxLength or enum"),
        (json!({"type": "integer", "minimum": 0}), "a number without maximum"),
        (json!({"type": "number", "minimum": 0, "maximum": 1, "format": "uint32"}), "the format uint32"),
        (json!({"type": "array", "items": {"type": "boolean"}}), "a list without maxItems"),
        (
            json!({"type": "array", "maxItems": 1, "items": {"type": "object"}}),
            "a list of objects that is neither a map by a required key nor atomic",
        ),
        (json!({"type": "object", "additionalProperties": {"type": "boolean"}}), "a map without maxProperties"),
        (json!({"type": "object", "properties": {"a": {"type": "boolean"}}}), "a without description"),
        (json!({"type": "boolean", "nullable": true}), "nullable"),
        (json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}), "anything may stand here"),
        (json!({"description": "no type"}), "the type null"),
        (
            json!({"type": "string", "maxLength": 1, "x-kubernetes-validations": [{"rule": "true"}]}),
            "a rule without message",
        ),
    ] {
        let mut faults = Vec::new();
        walk(&schema, "here", &mut faults);
        assert!(faults.iter().any(|found| found.contains(fault)), "{schema}: {faults:?} lacks {fault:?}");
    }
}

/// Walks a schema and says where it promises too little.
fn walk(schema: &Value, path: &str, faults: &mut Vec<String>) {
    let has = |key: &str| !schema[key].is_null();
    let mut fault = |what: String| faults.push(format!("{path}: {what}"));
    if has("nullable") {
        fault("nullable".to_owned());
    }
    if has("x-kubernetes-preserve-unknown-fields") || has("x-kubernetes-int-or-string") {
        fault("anything may stand here".to_owned());
    }
    if let Some(format) = schema["format"].as_str()
        && !["int32", "int64", "double", "date-time"].contains(&format)
    {
        fault(format!("the format {format} is unknown to OpenAPI"));
    }
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        if rule["message"].as_str().is_none_or(str::is_empty) {
            fault(format!("a rule without message: {rule}"));
        }
    }
    match schema["type"].as_str() {
        Some("string") if !has("maxLength") && !has("enum") => fault("a string without maxLength or enum".to_owned()),
        Some("integer" | "number") => {
            for bound in ["minimum", "maximum"].into_iter().filter(|bound| !has(bound)) {
                fault(format!("a number without {bound}"));
            }
        }
        Some("array") => {
            if !has("maxItems") {
                fault("a list without maxItems".to_owned());
            }
            let items = &schema["items"];
            let required = items["required"].as_array();
            let by_key = schema["x-kubernetes-list-type"] == "map"
                && schema["x-kubernetes-list-map-keys"].as_array().is_some_and(|keys| {
                    !keys.is_empty() && keys.iter().all(|key| required.is_some_and(|r| r.contains(key)))
                });
            if items["type"] == "object" && !by_key && schema["x-kubernetes-list-type"] != "atomic" {
                fault("a list of objects that is neither a map by a required key nor atomic".to_owned());
            }
            walk(items, &format!("{path}[]"), faults);
        }
        Some("object") => {
            if has("additionalProperties") {
                if !has("maxProperties") {
                    fault("a map without maxProperties".to_owned());
                }
                walk(&schema["additionalProperties"], &format!("{path}{{}}"), faults);
            }
            for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                // The API server has its own words for metadata, and refuses others.
                if name != "metadata" && property["description"].as_str().is_none_or(str::is_empty) {
                    faults.push(format!("{path}: {name} without description"));
                }
                walk(property, &format!("{path}.{name}"), faults);
            }
        }
        Some("string" | "boolean") => {}
        other => fault(format!("the type {} is none of a structural schema", other.unwrap_or("null"))),
    }
}

#[test]
fn the_rules_decide_as_the_table_says() {
    let definitions = crd::definitions().unwrap();
    let validator = Validator::new();
    let mut wrong = Vec::new();
    for case in definitions::cases() {
        let (_, definition) =
            definitions.iter().find(|(_, d)| d["spec"]["names"]["kind"] == case.object["kind"]).unwrap();
        let expected = match case.verdict {
            Verdict::Admitted => vec![],
            Verdict::Rule { field, message } => vec![(field.to_owned(), message.to_owned())],
            // What the structural schema refuses is for the API server's test: the rules are not asked.
            Verdict::Schema { .. } => continue,
        };
        let found = validator.validate(schema(definition), &case.object, case.before.as_ref());
        let found: Vec<(String, String)> = found
            .err()
            .into_iter()
            .flatten()
            .map(|error| (error.field_path.trim_start_matches('.').to_owned(), error.message))
            .collect();
        if found != expected {
            wrong.push(format!("{}: expected {expected:?}, found {found:?}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_rule_has_a_case_that_it_refuses() {
    let refused: BTreeSet<&str> = definitions::cases()
        .iter()
        .filter_map(|case| match case.verdict {
            Verdict::Rule { message, .. } => Some(message),
            _ => None,
        })
        .collect();
    let mut rules = BTreeSet::new();
    for (_, definition) in crd::definitions().unwrap() {
        collect_messages(schema(&definition), &mut rules);
    }
    let rules: BTreeSet<&str> = rules.iter().map(String::as_str).collect();
    assert_eq!(refused, rules);
}

fn collect_messages(schema: &Value, messages: &mut BTreeSet<String>) {
    match schema {
        Value::Object(members) => {
            for rule in members.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten() {
                messages.insert(rule["message"].as_str().unwrap().to_owned());
            }
            members.values().for_each(|member| collect_messages(member, messages));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_messages(item, messages)),
        _ => {}
    }
}

/// What the definition admits, the types must read, or the operator would skip an object that the server took.
#[test]
fn the_types_read_what_is_admitted_and_write_it_back() {
    for case in definitions::cases().into_iter().filter(|case| case.verdict == Verdict::Admitted) {
        let (read, again) = if case.object["kind"] == "LearningRollout" {
            let object: LearningRollout = serde_json::from_value(case.object.clone()).expect(case.name);
            let written = serde_json::to_value(&object).unwrap();
            (
                written.clone(),
                serde_json::to_value(serde_json::from_value::<LearningRollout>(written).unwrap()).unwrap(),
            )
        } else {
            let object: LearningRollback = serde_json::from_value(case.object.clone()).expect(case.name);
            let written = serde_json::to_value(&object).unwrap();
            (
                written.clone(),
                serde_json::to_value(serde_json::from_value::<LearningRollback>(written).unwrap()).unwrap(),
            )
        };
        assert_eq!(read, again, "{}", case.name);
        assert_contains(&read, &case.object, case.name);
    }
}

/// Everything that `part` says, `whole` says too; durations may be written differently, numbers with a fraction.
fn assert_contains(whole: &Value, part: &Value, path: &str) {
    use learning_rollout::api::duration::GoDuration;
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            for (key, part) in part {
                let inside = format!("{path}.{key}");
                assert_contains(whole.get(key).unwrap_or_else(|| panic!("{inside} is lost")), part, &inside);
            }
        }
        (Value::Array(whole), Value::Array(part)) => {
            assert_eq!(whole.len(), part.len(), "{path}");
            for (number, (whole, part)) in whole.iter().zip(part).enumerate() {
                assert_contains(whole, part, &format!("{path}[{number}]"));
            }
        }
        (Value::Number(whole), Value::Number(part)) => assert_eq!(whole.as_f64(), part.as_f64(), "{path}"),
        (Value::String(whole), Value::String(part)) if whole != part => {
            assert_eq!(whole.parse::<GoDuration>().ok(), part.parse().ok(), "{path}: {whole} for {part}");
            assert!(whole.parse::<GoDuration>().is_ok(), "{path}: {whole} for {part}");
        }
        (whole, part) => assert_eq!(whole, part, "{path}"),
    }
}
