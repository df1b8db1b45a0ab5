//! The least of kube-controller-manager and kubelet that makes a rollout observable: pods, endpoints, statuses, garbage.
//!
//! Off by default. When on, each commit is followed by theirs, synchronously and under the same lock, until nothing
//! changes any more: a test never waits for them and never sees them half done. Deployments own their pods directly
//! (there are no ReplicaSets), and a rollout is instantaneous unless it is held.

use std::{collections::BTreeSet, sync::Arc};

use serde_json::{Value, json};

use crate::{
    object,
    resource::Resource,
    store::{Change, Store},
    write::Target,
};

#[derive(Debug, Default)]
pub(crate) struct Controllers {
    /// Workloads whose pods do not become ready: namespace and name.
    pub(crate) held: BTreeSet<(String, String)>,
}

const WORKLOADS: [&str; 2] = ["Deployment", "StatefulSet"];

impl Controllers {
    /// Answers a round of changes with the next.
    pub(crate) fn follow(&self, store: &mut Store, changes: &[Change]) {
        for change in changes {
            let namespace = &change.key.namespace;
            match (change.key.kind.as_str(), &change.after) {
                (kind, Some(_)) if WORKLOADS.contains(&kind) => self.roll_out(store, change),
                ("Service" | "Pod", _) => endpoints(store, namespace),
                ("Job", Some(job)) => complete(store, change, job),
                ("Namespace", Some(after)) if object::is_deleting(after) => empty(store, &change.key.name),
                _ => {}
            }
            if change.after.is_none() {
                collect_garbage(store, object::uid(&change.shown));
                finish_namespace(store, namespace);
            }
        }
    }

    /// Looks at everything there is, as controllers do when they start, and at held workloads that were let go.
    pub(crate) fn resync(&self, store: &mut Store) {
        let all: Vec<Change> = store
            .all()
            .filter_map(|(key, object)| {
                let resource = store.registry.by_object(object::text(object, "/apiVersion"), &key.kind)?;
                Some(Change {
                    revision: store.revision(),
                    resource,
                    key: key.clone(),
                    before: Some(object.clone()),
                    after: Some(object.clone()),
                    shown: object.clone(),
                })
            })
            .collect();
        self.follow(store, &all);
    }

    /// Pods as the workload wants them, then its status.
    fn roll_out(&self, store: &mut Store, change: &Change) {
        let Some(workload) = store.get(&change.key).cloned() else {
            return;
        };
        let Some(pods) = store.registry.by_kind("Pod") else {
            return;
        };
        let namespace = object::namespace(&workload).to_owned();
        let name = object::name(&workload).to_owned();
        let ready = !self.held.contains(&(namespace.clone(), name.clone()));
        let existing: Vec<Value> = store
            .list(&pods, Some(&namespace))
            .filter(|(_, pod)| object::text(pod, "/metadata/ownerReferences/0/uid") == object::uid(&workload))
            .map(|(_, pod)| pod.clone())
            .collect();

        let paused = workload.pointer("/spec/paused") == Some(&json!(true));
        let present = existing.first().map(|pod| object::text(pod, "/metadata/labels/pod-template-hash").to_owned());
        let hash = match present {
            Some(present) if paused => present,
            _ => template_hash(&workload["spec"]["template"]),
        };
        let replicas = workload["spec"]["replicas"].as_i64().unwrap_or(1);
        let wanted: Vec<Value> = (0..if object::is_deleting(&workload) { 0 } else { replicas })
            .map(|ordinal| pod(&workload, &hash, ordinal, ready))
            .collect();
        for pod in &existing {
            if !wanted.iter().any(|wanted| object::name(wanted) == object::name(pod)) {
                remove(store, &pods, &namespace, object::name(pod));
            }
        }
        for pod in wanted {
            let key = pods.key(&namespace, object::name(&pod));
            match store.get(&key) {
                None => {
                    store.place(&pods, pod);
                }
                Some(current) if current["status"]["conditions"] != pod["status"]["conditions"] => {
                    let mut current = current.clone();
                    current["status"]["conditions"] = pod["status"]["conditions"].clone();
                    store.commit(&pods, key, Some(current));
                }
                Some(_) => {}
            }
        }

        let status = status(&workload, replicas, if ready { replicas } else { 0 });
        set_status(store, change, status);
    }
}

fn set_status(store: &mut Store, change: &Change, status: Value) {
    let Some(mut current) = store.get(&change.key).cloned() else {
        return;
    };
    if current.get("status") != Some(&status) {
        current["status"] = status;
        store.commit(&change.resource, change.key.clone(), Some(current));
    }
}

fn status(workload: &Value, replicas: i64, ready: i64) -> Value {
    let mut status = json!({"observedGeneration": object::generation(workload)});
    // Go leaves a count of zero out.
    for (member, count) in [
        ("replicas", replicas),
        ("updatedReplicas", replicas),
        ("readyReplicas", ready),
        ("availableReplicas", ready),
        ("unavailableReplicas", replicas - ready),
    ] {
        if count > 0 {
            status[member] = json!(count);
        }
    }
    if workload["kind"] == json!("StatefulSet") {
        status["replicas"] = json!(replicas);
        object::remove(&mut status, "/unavailableReplicas");
        return status;
    }
    let available = if ready == replicas { "True" } else { "False" };
    status["conditions"] = json!([
        {"type": "Available", "status": available, "reason": "MinimumReplicas"},
        {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"},
    ]);
    status
}

fn pod(workload: &Value, hash: &str, ordinal: i64, ready: bool) -> Value {
    let name = object::name(workload);
    let name = if workload["kind"] == json!("StatefulSet") {
        format!("{name}-{ordinal}")
    } else {
        format!("{name}-{hash}-{ordinal}")
    };
    let template = &workload["spec"]["template"];
    let mut labels = template.pointer("/metadata/labels").cloned().unwrap_or_else(|| json!({}));
    labels["pod-template-hash"] = json!(hash);
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": object::namespace(workload), "labels": labels,
            "ownerReferences": [{
                "apiVersion": workload["apiVersion"], "kind": workload["kind"], "name": object::name(workload),
                "uid": object::uid(workload), "controller": true,
            }],
        },
        "spec": template.get("spec").cloned().unwrap_or_else(|| json!({})),
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
        },
    });
    if let Some(annotations) = template.pointer("/metadata/annotations") {
        pod["metadata"]["annotations"] = annotations.clone();
    }
    pod
}

/// FNV-1a over the template: the same template gives the same pod names in every run.
fn template_hash(template: &Value) -> String {
    let mut hash = 0x811c_9dc5_u32;
    for byte in template.to_string().bytes() {
        hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    format!("{hash:08x}")
}

/// One EndpointSlice per Service with a selector, of the pods it selects.
fn endpoints(store: &mut Store, namespace: &str) {
    let (Some(services), Some(pods), Some(slices)) =
        (store.registry.by_kind("Service"), store.registry.by_kind("Pod"), store.registry.by_kind("EndpointSlice"))
    else {
        return;
    };
    let owned: Vec<Value> = store.list(&services, Some(namespace)).map(|(_, service)| service.clone()).collect();
    for service in owned {
        let selector = object::strings(&service, "/spec/selector");
        if selector.is_empty() {
            continue;
        }
        let endpoints: Vec<Value> = store
            .list(&pods, Some(namespace))
            .filter(|(_, pod)| selector.iter().all(|(key, value)| pod["metadata"]["labels"][key] == json!(value)))
            .enumerate()
            .map(|(n, (_, pod))| endpoint(pod, n))
            .collect();
        let slice = slice(&service, &endpoints);
        let key = slices.key(namespace, object::name(&slice));
        match store.get(&key).cloned() {
            None => {
                store.place(&slices, slice);
            }
            Some(mut current) if current["endpoints"] != slice["endpoints"] || current["ports"] != slice["ports"] => {
                for member in ["endpoints", "ports"] {
                    object::copy_top(&slice, &mut current, member);
                }
                let next = object::generation(&current) + 1;
                object::set_metadata(&mut current, "generation", next);
                store.commit(&slices, key, Some(current));
            }
            Some(_) => {}
        }
    }
}

fn endpoint(pod: &Value, n: usize) -> Value {
    let conditions = pod["status"]["conditions"].as_array();
    let ready = conditions
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == json!("Ready") && condition["status"] == json!("True"));
    let address = match object::text(pod, "/status/podIP") {
        "" => format!("10.0.0.{}", n % 250 + 1),
        address => address.to_owned(),
    };
    json!({
        "addresses": [address],
        "conditions": {"ready": ready, "serving": ready, "terminating": object::is_deleting(pod)},
        "targetRef": {"kind": "Pod", "namespace": object::namespace(pod), "name": object::name(pod), "uid": object::uid(pod)},
    })
}

fn slice(service: &Value, endpoints: &[Value]) -> Value {
    let ports: Vec<Value> = service["spec"]["ports"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|port| json!({"name": object::text(port, "/name"), "port": port["targetPort"], "protocol": port["protocol"]}))
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{}-endpoints", object::name(service)), "namespace": object::namespace(service),
            "labels": {
                "kubernetes.io/service-name": object::name(service),
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            },
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "Service", "name": object::name(service), "uid": object::uid(service),
                "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "addressType": "IPv4", "endpoints": endpoints, "ports": ports,
    })
}

/// Jobs succeed at once.
fn complete(store: &mut Store, change: &Change, job: &Value) {
    if job.pointer("/status/conditions").is_some() || job.pointer("/spec/suspend") == Some(&json!(true)) {
        return;
    }
    let now = store.now();
    let status = json!({
        "startTime": now, "completionTime": now, "succeeded": 1,
        "conditions": [{"type": "SuccessCriteriaMet", "status": "True"}, {"type": "Complete", "status": "True"}],
    });
    set_status(store, change, status);
}

/// Deletes what belonged to an object that is gone, unless it has another owner left.
fn collect_garbage(store: &mut Store, owner: &str) {
    let living: BTreeSet<String> = store.all().map(|(_, object)| object::uid(object).to_owned()).collect();
    let orphaned: Vec<Value> = store
        .all()
        .map(|(_, object)| object)
        .filter(|object| {
            let owners: Vec<&str> = object
                .pointer("/metadata/ownerReferences")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .map(|reference| object::text(reference, "/uid"))
                .collect();
            owners.contains(&owner) && !owners.iter().any(|uid| living.contains(*uid))
        })
        .cloned()
        .collect();
    delete_all(store, &orphaned);
}

/// A namespace that ends takes everything in it along.
fn empty(store: &mut Store, namespace: &str) {
    let inside: Vec<Value> = store
        .all()
        .filter(|(key, object)| key.namespace == namespace && !object::is_deleting(object))
        .map(|(_, object)| object.clone())
        .collect();
    delete_all(store, &inside);
    finish_namespace(store, namespace);
}

fn finish_namespace(store: &mut Store, namespace: &str) {
    let Some(namespaces) = store.registry.by_kind("Namespace") else {
        return;
    };
    let key = namespaces.key("", namespace);
    let ending = store.get(&key).is_some_and(object::is_deleting);
    if ending && !store.all().any(|(other, _)| other.namespace == namespace) {
        store.commit(&namespaces, key, None);
    }
}

fn delete_all(store: &mut Store, objects: &[Value]) {
    for object in objects {
        let resource = store.registry.by_object(object::text(object, "/apiVersion"), object::text(object, "/kind"));
        if let Some(resource) = resource {
            remove(store, &resource, object::namespace(object), object::name(object));
        }
    }
}

fn remove(store: &mut Store, resource: &Arc<Resource>, namespace: &str, name: &str) {
    let target = Target {
        resource: resource.clone(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        status: false,
        dry_run: false,
        manager: "kube-controller-manager".to_owned(),
    };
    // Refused only when it is gone already, which is what was wanted.
    let _ = store.delete(&target, &Value::Null);
}
