//! The rules of patches, one row each.

use serde_json::json;

use super::*;

/// What is expected of one patch: the document after it, or that it is refused.
struct Row(&'static str, Value, &'static str, Option<Value>);

#[test]
fn json_patch_follows_the_library_kube_apiserver_links() {
    let rows = [
        Row(
            "test of an equal value",
            json!({"a": "x"}),
            r#"[{"op":"test","path":"/a","value":"x"}]"#,
            Some(json!({"a": "x"})),
        ),
        Row("test of another value", json!({"a": "x"}), r#"[{"op":"test","path":"/a","value":"y"}]"#, None),
        Row("test null on a missing member", json!({}), r#"[{"op":"test","path":"/a","value":null}]"#, Some(json!({}))),
        Row("test without a value on a missing member", json!({}), r#"[{"op":"test","path":"/a"}]"#, Some(json!({}))),
        Row("test null on a present member", json!({"a": "x"}), r#"[{"op":"test","path":"/a","value":null}]"#, None),
        Row("test null on an empty string", json!({"a": ""}), r#"[{"op":"test","path":"/a","value":null}]"#, None),
        Row("test of a value on a missing member", json!({}), r#"[{"op":"test","path":"/a","value":"x"}]"#, None),
        Row("test of a value on a null member", json!({"a": null}), r#"[{"op":"test","path":"/a","value":"x"}]"#, None),
        Row("test null below a missing parent", json!({}), r#"[{"op":"test","path":"/a/b","value":null}]"#, None),
        Row("test null below a scalar", json!({"a": 1}), r#"[{"op":"test","path":"/a/b","value":null}]"#, None),
        Row(
            "test of an empty object on a missing member",
            json!({}),
            r#"[{"op":"test","path":"/a","value":{}}]"#,
            None,
        ),
        Row(
            "test of an object, members in any order",
            json!({"a": {"b": 1, "c": [true]}}),
            r#"[{"op":"test","path":"/a","value":{"c":[true],"b":1}}]"#,
            Some(json!({"a": {"b": 1, "c": [true]}})),
        ),
        Row(
            "test of an object that has one member more",
            json!({"a": {"b": 1}}),
            r#"[{"op":"test","path":"/a","value":{}}]"#,
            None,
        ),
        Row(
            "test of an array",
            json!({"a": [1, 2]}),
            r#"[{"op":"test","path":"/a","value":[1,2]}]"#,
            Some(json!({"a": [1, 2]})),
        ),
        Row(
            "test of an array in another order",
            json!({"a": [1, 2]}),
            r#"[{"op":"test","path":"/a","value":[2,1]}]"#,
            None,
        ),
        Row(
            "test of an element beyond the end",
            json!({"a": []}),
            r#"[{"op":"test","path":"/a/0","value":null}]"#,
            None,
        ),
        Row("test compares numbers by their text", json!({"a": 1}), r#"[{"op":"test","path":"/a","value":1.0}]"#, None),
        Row(
            "test of a plain < fails: Go writes it escaped",
            json!({"a": "x<y"}),
            r#"[{"op":"test","path":"/a","value":"x<y"}]"#,
            None,
        ),
        Row(
            "test of an escaped < holds",
            json!({"a": "x<y"}),
            r#"[{"op":"test","path":"/a","value":"x\u003cy"}]"#,
            Some(json!({"a": "x<y"})),
        ),
        Row(
            "test of a needlessly escaped letter fails",
            json!({"a": "x"}),
            r#"[{"op":"test","path":"/a","value":"\u0078"}]"#,
            None,
        ),
        Row(
            "test sees what the patch itself wrote",
            json!({}),
            r#"[{"op":"add","path":"/a","value":"<"},{"op":"test","path":"/a","value":"<"}]"#,
            Some(json!({"a": "<"})),
        ),
        Row(
            "add of a member",
            json!({"a": {}}),
            r#"[{"op":"add","path":"/a/b","value":1}]"#,
            Some(json!({"a": {"b": 1}})),
        ),
        Row(
            "add replaces a member",
            json!({"a": {"b": 0, "c": 2}}),
            r#"[{"op":"add","path":"/a","value":{"b":1}}]"#,
            Some(json!({"a": {"b": 1}})),
        ),
        Row("add below a missing parent", json!({}), r#"[{"op":"add","path":"/a/b","value":1}]"#, None),
        Row("add below a null parent", json!({"a": null}), r#"[{"op":"add","path":"/a/b","value":1}]"#, None),
        Row(
            "add appends with -",
            json!({"a": [1]}),
            r#"[{"op":"add","path":"/a/-","value":2}]"#,
            Some(json!({"a": [1, 2]})),
        ),
        Row(
            "add inserts before an index",
            json!({"a": [1]}),
            r#"[{"op":"add","path":"/a/0","value":2}]"#,
            Some(json!({"a": [2, 1]})),
        ),
        Row(
            "add at the length appends",
            json!({"a": [1]}),
            r#"[{"op":"add","path":"/a/1","value":2}]"#,
            Some(json!({"a": [1, 2]})),
        ),
        Row("add beyond the length", json!({"a": [1]}), r#"[{"op":"add","path":"/a/2","value":2}]"#, None),
        Row(
            "add at -1 appends",
            json!({"a": [1]}),
            r#"[{"op":"add","path":"/a/-1","value":2}]"#,
            Some(json!({"a": [1, 2]})),
        ),
        Row("remove of a member", json!({"a": 1, "b": 2}), r#"[{"op":"remove","path":"/a"}]"#, Some(json!({"b": 2}))),
        Row("remove of a missing member", json!({"b": 2}), r#"[{"op":"remove","path":"/a"}]"#, None),
        Row("remove of a null member", json!({"a": null}), r#"[{"op":"remove","path":"/a"}]"#, Some(json!({}))),
        Row(
            "remove of the last element by -1",
            json!({"a": [1, 2]}),
            r#"[{"op":"remove","path":"/a/-1"}]"#,
            Some(json!({"a": [1]})),
        ),
        Row(
            "replace of a member",
            json!({"a": 1}),
            r#"[{"op":"replace","path":"/a","value":2}]"#,
            Some(json!({"a": 2})),
        ),
        Row(
            "replace of a missing member adds it",
            json!({}),
            r#"[{"op":"replace","path":"/a","value":2}]"#,
            Some(json!({"a": 2})),
        ),
        Row("replace below a missing parent", json!({}), r#"[{"op":"replace","path":"/a/b","value":2}]"#, None),
        Row(
            "replace of an element beyond the end",
            json!({"a": [1]}),
            r#"[{"op":"replace","path":"/a/1","value":2}]"#,
            None,
        ),
        Row("move of a member", json!({"a": 1}), r#"[{"op":"move","from":"/a","path":"/b"}]"#, Some(json!({"b": 1}))),
        Row("move of a missing member", json!({}), r#"[{"op":"move","from":"/a","path":"/b"}]"#, None),
        Row(
            "copy of a member",
            json!({"a": 1}),
            r#"[{"op":"copy","from":"/a","path":"/b"}]"#,
            Some(json!({"a": 1, "b": 1})),
        ),
        Row(
            "copy of a missing member writes null",
            json!({}),
            r#"[{"op":"copy","from":"/a","path":"/b"}]"#,
            Some(json!({"b": null})),
        ),
        Row(
            "a slash in a key is ~1, a tilde ~0",
            json!({"x/y": {"~": 1}}),
            r#"[{"op":"replace","path":"/x~1y/~0","value":2}]"#,
            Some(json!({"x/y": {"~": 2}})),
        ),
        Row(
            "a failing operation undoes those before it",
            json!({"a": 1}),
            r#"[{"op":"replace","path":"/a","value":2},{"op":"test","path":"/a","value":1}]"#,
            None,
        ),
        Row("an unknown operation", json!({}), r#"[{"op":"upsert","path":"/a","value":1}]"#, None),
        Row("an operation without a path", json!({}), r#"[{"op":"add","value":1}]"#, None),
        Row("an empty pointer cannot be added to", json!({}), r#"[{"op":"add","path":"","value":{}}]"#, None),
        Row("an empty patch", json!({"a": 1}), "[]", Some(json!({"a": 1}))),
    ];
    for Row(name, document, patch, expected) in rows {
        let answer = json_patch(&document, patch.as_bytes());
        match expected {
            Some(expected) => assert_eq!(answer, Ok(expected), "{name}"),
            None => assert!(matches!(answer, Err(PatchError::Refused(_))), "{name}: {answer:?}"),
        }
    }
}

#[test]
fn a_document_that_is_no_patch_is_malformed_rather_than_refused() {
    for text in ["{}", "", "[1]", "[{", "null x"] {
        let answer = json_patch(&json!({}), text.as_bytes());
        assert!(matches!(answer, Err(PatchError::Malformed(_))), "{text:?}: {answer:?}");
    }
}

#[test]
fn merge_patch_merges_objects_removes_nulls_and_replaces_the_rest() {
    let rows = [
        (json!({"a": {"b": 1, "c": 2}}), r#"{"a":{"b":3}}"#, json!({"a": {"b": 3, "c": 2}})),
        (json!({"a": {"b": 1}}), r#"{"a":{"b":null}}"#, json!({"a": {}})),
        (json!({"a": [1, 2]}), r#"{"a":[3]}"#, json!({"a": [3]})),
        (json!({}), r#"{"a":{"b":null,"c":1}}"#, json!({"a": {"c": 1}})),
        (json!({"a": 1}), r#"{"a":{"b":1}}"#, json!({"a": {"b": 1}})),
    ];
    for (document, patch, expected) in rows {
        assert_eq!(merge_patch(&document, patch.as_bytes()), Ok(expected), "{patch}");
    }
    assert!(matches!(merge_patch(&json!({}), b"[]"), Err(PatchError::Malformed(_))));
}
