//! scale: `spec.replicas` of a Deployment or StatefulSet, always by the main resource: the scale subresource drops
//! annotations and omits 0.

use serde_json::Value;

use super::{cluster::Cluster, name_of, refused};
use crate::{api::step::Scale, decide::rollback::Failure};

/// Label that KEDA puts on the autoscalers it makes.
const KEDA: &str = "scaledobject.keda.sh/name";

/// An autoscaler that would undo the edit is named, with the remedy.
pub(super) async fn admit(cluster: &Cluster, scale: &Scale) -> Result<(), Failure> {
    let target = &scale.target_ref;
    let autoscalers = cluster.list("apis/autoscaling/v2", "horizontalpodautoscalers", None).await?;
    let ours = autoscalers.iter().find(|autoscaler| {
        let of = |pointer: &str| autoscaler.pointer(pointer).and_then(Value::as_str);
        of("/spec/scaleTargetRef/kind") == Some(&target.kind) && of("/spec/scaleTargetRef/name") == Some(&target.name)
    });
    let Some(autoscaler) = ours else { return Ok(()) };
    let (name, what) = (name_of(autoscaler), format!("{} {}", target.kind, target.name));
    if let Some(scaled) = autoscaler.pointer("/metadata/labels").and_then(|labels| labels.get(KEDA)) {
        let scaled = scaled.as_str().unwrap_or("?");
        return Err(refused(
            "Refused",
            format!(
                "{what} is scaled by KEDA (ScaledObject {scaled}), which would undo it: pause the ScaledObject with the \
                     annotation autoscaling.keda.sh/paused-replicas, or leave this step out"
            ),
        ));
    }
    let least = autoscaler.pointer("/spec/minReplicas").and_then(Value::as_i64).unwrap_or(1);
    let wanted = i64::from(scale.replicas);
    if wanted > 0 && wanted < least {
        return Err(refused(
            "Refused",
            format!(
                "HorizontalPodAutoscaler {name} keeps {what} at {least} replicas or more and would undo {wanted}: set \
                     replicas to 0, which switches the autoscaler off until the restore, or lower its minReplicas"
            ),
        ));
    }
    Ok(())
}

/// Are the replicas that were put back available?
pub(super) fn ready(object: &Value) -> Result<(), String> {
    let wanted = object.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
    let available = object.pointer("/status/availableReplicas").and_then(Value::as_i64).unwrap_or(0);
    if available >= wanted {
        Ok(())
    } else {
        let kind = object.get("kind").and_then(Value::as_str).unwrap_or("?");
        Err(format!("{kind} {}: {available} of {wanted} replicas are available", name_of(object)))
    }
}
