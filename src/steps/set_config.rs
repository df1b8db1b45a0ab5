//! setConfig: keys of a ConfigMap.

use serde_json::Value;

use super::{name_of, refused};
use crate::decide::rollback::Failure;

/// An immutable ConfigMap takes annotations but no data: say so before fencing it.
pub(super) fn refusal(object: &Value) -> Option<Failure> {
    (object.get("immutable") == Some(&Value::Bool(true))).then(|| {
        refused(
            "Refused",
            format!(
                "ConfigMap {} is immutable: let the feature read its flags from a ConfigMap without `immutable: true`",
                name_of(object)
            ),
        )
    })
}
