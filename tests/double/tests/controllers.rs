//! The optional controllers: what they make of workloads, Services, Jobs, owners and namespaces.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

use apiserver_double::Double;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod, discovery::v1::EndpointSlice};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

const NS: &str = "learning";

fn deployment(name: &str, replicas: i64, version: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": NS},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"version": version}},
            "template": {
                "metadata": {"labels": {"app": "profile", "version": version}},
                "spec": {"containers": [{"name": "main", "image": "example.invalid/main"}]},
            },
        },
    })
}

fn service(version: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "profile", "namespace": NS},
        "spec": {"selector": {"app": "profile", "version": version}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    })
}

fn pod_names(double: &Double) -> Vec<String> {
    let name = |pod: &Value| pod["metadata"]["name"].as_str().unwrap().to_owned();
    double.objects("Pod").iter().map(name).collect()
}

/// The pods behind the Service, and whether each is ready.
async fn behind(double: &Double) -> Vec<(String, bool)> {
    let slices: Api<EndpointSlice> = Api::namespaced(double.bystander(), NS);
    let of_service = ListParams::default().labels("kubernetes.io/service-name=profile");
    let found = slices.list(&of_service).await.unwrap();
    let endpoints = found.items.into_iter().flat_map(|slice| slice.endpoints);
    endpoints
        .map(|endpoint| (endpoint.target_ref.unwrap().name.unwrap(), endpoint.conditions.unwrap().ready.unwrap()))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_deployment_rolls_out_scales_and_restarts() {
    let double = Double::new().with_controllers();
    double.put(deployment("learning", 2, "learning"));
    let api: Api<Deployment> = Api::namespaced(double.client(), NS);
    let status = api.get("learning").await.unwrap().status.unwrap();
    assert_eq!(
        (status.observed_generation, status.ready_replicas, status.available_replicas),
        (Some(1), Some(2), Some(2))
    );
    let first = pod_names(&double);
    assert_eq!(first.len(), 2);

    let restart = json!({"spec": {"template": {"metadata": {"annotations": {"restartedAt": "now"}}}}});
    api.patch("learning", &PatchParams::default(), &Patch::Merge(restart)).await.unwrap();
    let second = pod_names(&double);
    assert!(second.len() == 2 && second.iter().all(|name| !first.contains(name)), "{first:?} {second:?}");

    double.hold_workload(NS, "learning");
    let zero = json!({"spec": {"replicas": 0}});
    api.patch("learning", &PatchParams::default(), &Patch::Merge(zero)).await.unwrap();
    assert_eq!(pod_names(&double), Vec::<String>::new());
    let three = json!({"spec": {"replicas": 3}});
    api.patch("learning", &PatchParams::default(), &Patch::Merge(three)).await.unwrap();
    let held = api.get("learning").await.unwrap();
    let status = held.status.clone().unwrap();
    assert_eq!((status.replicas, status.available_replicas), (Some(3), None));
    assert_eq!(status.observed_generation, held.metadata.generation);
    double.release_workload(NS, "learning");
    assert_eq!(api.get("learning").await.unwrap().status.unwrap().available_replicas, Some(3));
    assert_eq!(double.writes_per_object().len(), 1, "controllers' writes are not the operator's");
}

#[tokio::test(start_paused = true)]
async fn a_service_has_the_ready_pods_it_selects_as_endpoints() {
    let double = Double::new().with_controllers();
    double.put(deployment("old", 1, "baseline"));
    double.put(deployment("new", 1, "learning"));
    double.put(service("learning"));
    let before = behind(&double).await;
    assert!(matches!(before.as_slice(), [(name, true)] if name.starts_with("new-")), "{before:?}");

    let services: Api<k8s_openapi::api::core::v1::Service> = Api::namespaced(double.client(), NS);
    let switch = json!({"spec": {"selector": {"version": "baseline"}}});
    services.patch("profile", &PatchParams::default(), &Patch::Merge(switch)).await.unwrap();
    let after = behind(&double).await;
    assert!(matches!(after.as_slice(), [(name, true)] if name.starts_with("old-")), "{after:?}");

    double.hold_workload(NS, "old");
    assert!(behind(&double).await.iter().all(|(_, ready)| !ready));
    double.put(deployment("old", 0, "baseline"));
    assert_eq!(behind(&double).await, []);
}

#[tokio::test(start_paused = true)]
async fn what_an_object_owns_goes_with_it_and_a_namespace_takes_everything() {
    let double = Double::new().with_controllers();
    let owner = double.put(deployment("learning", 2, "learning"));
    double.put(json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {
            "name": "held", "namespace": NS, "finalizers": ["example.com/wait"],
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "learning", "uid": owner["metadata"]["uid"]}],
        },
    }));
    let deployments: Api<Deployment> = Api::namespaced(double.client(), NS);
    deployments.delete("learning", &DeleteParams::default()).await.unwrap();
    assert_eq!(pod_names(&double), Vec::<String>::new());
    assert!(double.get("ConfigMap", NS, "held").unwrap()["metadata"]["deletionTimestamp"].is_string());

    double.put(deployment("other", 1, "other"));
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(double.client());
    namespaces.delete(NS, &DeleteParams::default()).await.unwrap();
    assert_eq!(double.objects("Deployment"), Vec::<Value>::new());
    assert_eq!(double.get("Namespace", "", NS).unwrap()["status"]["phase"], json!("Terminating"));
    let maps: Api<k8s_openapi::api::core::v1::ConfigMap> = Api::namespaced(double.client(), NS);
    let freed = json!({"metadata": {"finalizers": null}});
    maps.patch("held", &PatchParams::default(), &Patch::Merge(freed)).await.unwrap();
    assert_eq!(double.get("Namespace", "", NS), None);
}

#[tokio::test(start_paused = true)]
async fn stateful_sets_number_their_pods_and_jobs_complete() {
    let double = Double::new().with_controllers();
    let mut set = deployment("store", 2, "store");
    set["kind"] = json!("StatefulSet");
    double.put(set);
    let pods: Api<Pod> = Api::namespaced(double.bystander(), NS);
    let names: Vec<String> =
        pods.list(&ListParams::default()).await.unwrap().iter().map(ResourceExt::name_any).collect();
    assert_eq!(names, ["store-0", "store-1"]);
    double.put(
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "export", "namespace": NS}, "spec": {}}),
    );
    assert_eq!(double.get("Job", NS, "export").unwrap()["status"]["succeeded"], json!(1));
}

#[tokio::test(start_paused = true)]
async fn without_controllers_nothing_happens_by_itself() {
    let double = Double::new();
    double.put(deployment("learning", 2, "learning"));
    double.put(service("learning"));
    assert!(double.objects("Pod").is_empty() && double.objects("EndpointSlice").is_empty());
    assert_eq!(double.get("Deployment", NS, "learning").unwrap().get("status"), None);
}
