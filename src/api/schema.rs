//! Bounded pieces of schema that several fields share.
//!
//! Every string, list, map and number of the two kinds carries a bound: without one the API server prices a CEL
//! rule over it as if it were endless and refuses the whole definition.

use schemars::{Schema, SchemaGenerator, json_schema};

/// A DNS label used as a list-map key: triggers, plans, steps, checks.
pub fn key(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "minLength": 1, "maxLength": 40, "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"})
}

/// The name of an object of the cluster (a DNS subdomain).
pub fn object_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "minLength": 1, "maxLength": 253, "pattern": "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"})
}

/// An optional [`object_name`].
pub fn optional_object_name(generator: &mut SchemaGenerator) -> Schema {
    object_name(generator)
}

/// A PromQL expression.
pub fn promql(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "minLength": 1, "maxLength": 4096})
}

/// Text for people.
pub fn text(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "maxLength": 1024})
}

/// A short word made by the operator: a uid, a token, a reason, a kind.
pub fn word(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "maxLength": 253})
}

/// A moment, to the microsecond.
pub fn time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "format": "date-time", "maxLength": 64})
}

/// A threshold, a value or a share. Wide enough for bytes and for milliseconds since 1970.
pub fn number(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "number", "format": "double", "minimum": -1e18, "maximum": 1e18})
}

/// What an object says of one field before and after: any text a ConfigMap may hold that we agree to remember.
pub fn value(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "maxLength": 16384})
}

/// `metav1.Condition`s: a list-map by type, bounded.
pub fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": {"type": "string", "maxLength": 316, "description": "Name of the condition, in CamelCase."},
                "status": {"type": "string", "enum": ["True", "False", "Unknown"], "description": "Status of the condition."},
                "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0, "maximum": 9007199254740991_i64,
                    "description": "metadata.generation the condition was set for."},
                "lastTransitionTime": {"type": "string", "format": "date-time", "maxLength": 64, "description": "When status last changed."},
                "reason": {"type": "string", "minLength": 1, "maxLength": 1024, "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                    "description": "Why, in one CamelCase word."},
                "message": {"type": "string", "maxLength": 32768, "description": "Why, for people."}
            }
        }
    })
}

/// Leaves a switch that is off unsaid, and its default out of the schema.
///
/// For switches inside lists. The API server would write their defaults into the stored object, and every client that
/// compares lists whole (`kubectl apply`, most GitOps tools) would see a difference from the manifest for ever. Defaults
/// that say what a rollback will do, such as the weights, are worth being shown all the same.
pub fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
