//! switchService: selector keys of a Service.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{cluster::Cluster, name_of, refused};
use crate::{api::step::SwitchService, decide::rollback::Failure};

/// A ready pod must match the selector as it will be: the keys that stay can leave it matching nothing.
pub(super) async fn admit(cluster: &Cluster, switch: &SwitchService, object: &Value) -> Result<(), Failure> {
    let mut selector: BTreeMap<String, String> = object
        .pointer("/spec/selector")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect();
    if selector.is_empty() {
        return Err(refused(
            "Refused",
            format!("Service {} has no selector: its endpoints are managed by something else", name_of(object)),
        ));
    }
    selector.extend(switch.selector.clone());
    if switch.force {
        return Ok(());
    }
    let labels: Vec<String> = selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let labels = labels.join(",");
    let pods = cluster.list("api/v1", "pods", Some(&labels)).await?;
    if pods.iter().any(is_ready) {
        return Ok(());
    }
    Err(Failure {
        reason: "NoReadyPods".to_owned(),
        message: format!(
            "{} pods match the selector {labels} and none is ready: Service {} would have no endpoint. Start the \
             baseline, correct the selector, or set force: true",
            pods.len(),
            name_of(object)
        ),
        permanent: false,
    })
}

fn is_ready(pod: &Value) -> bool {
    let leaving = pod.pointer("/metadata/deletionTimestamp").is_some();
    !leaving
        && pod.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten().any(|condition| {
            condition.get("type").and_then(Value::as_str) == Some("Ready")
                && condition.get("status").and_then(Value::as_str) == Some("True")
        })
}

/// Do the Service's ready endpoints consist of pods that match the new selector, and only of those?
pub(super) async fn holds(cluster: &Cluster, switch: &SwitchService) -> Result<(), String> {
    let name = &switch.service_ref.name;
    let slices = format!("kubernetes.io/service-name={name}");
    let labels: Vec<String> = switch.selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let labels = labels.join(",");
    let (slices, pods) = futures::join!(
        cluster.list("apis/discovery.k8s.io/v1", "endpointslices", Some(&slices)),
        cluster.list("api/v1", "pods", Some(&labels)),
    );
    let (slices, pods) = (slices.map_err(|failure| failure.message)?, pods.map_err(|failure| failure.message)?);
    let ready: Vec<&str> = slices
        .iter()
        .flat_map(|slice| slice.get("endpoints").and_then(Value::as_array).into_iter().flatten())
        .filter(|endpoint| endpoint.pointer("/conditions/ready") != Some(&Value::Bool(false)))
        .filter_map(|endpoint| endpoint.pointer("/targetRef/name").and_then(Value::as_str))
        .collect();
    let matching: Vec<&str> = pods.iter().map(name_of).collect();
    let strangers = ready.iter().filter(|pod| !matching.contains(pod)).count();
    match (ready.len(), strangers) {
        (0, _) => Err(format!("Service {name} has no ready endpoint yet")),
        (_, 0) => Ok(()),
        (all, strangers) => Err(format!("{strangers} of {all} endpoints of Service {name} are still the feature's")),
    }
}
