//! The control plane of the bed is a real one, stands beside others, and ends with its test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{ListParams, PostParams};
use serde_json::json;
use testbed::{Component, ControlPlane, Options, wait};

const LIMIT: Duration = Duration::from_secs(60);

const WORKLOAD: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: nobody.invalid/web}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
";

fn config_map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}, "data": {"key": "value"}})).unwrap()
}

/// A killed process that nobody has reaped yet, a zombie, is dead.
fn alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn children(pid: u32) -> Vec<u32> {
    let parent = |child: &u32| -> Option<u32> {
        let status = std::fs::read_to_string(format!("/proc/{child}/status")).ok()?;
        status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
    };
    let processes = std::fs::read_dir("/proc").unwrap();
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|child| parent(child) == Some(pid)).collect()
}

fn pids(plane: &ControlPlane, components: &[Component]) -> Vec<u32> {
    components.iter().map(|&component| plane.process(component).unwrap().pid()).collect()
}

#[tokio::test]
async fn a_deployment_rolls_out_and_its_service_gets_endpoints() -> anyhow::Result<()> {
    let plane = ControlPlane::start(Options::default()).await?;
    let namespace = plane.namespace("web").await?;
    plane.kubectl_with_input(&["-n", &namespace, "apply", "-f", "-"], WORKLOAD).await?.ok()?;

    let deployments: Api<Deployment> = Api::namespaced(plane.client(), &namespace);
    wait::until("three ready replicas of Deployment web", LIMIT, || async {
        let status = deployments.get("web").await?.status.unwrap_or_default();
        anyhow::ensure!(status.ready_replicas == Some(3), "{:?} ready", status.ready_replicas);
        Ok(())
    })
    .await?;
    let slices: Api<EndpointSlice> = Api::namespaced(plane.client(), &namespace);
    wait::until("three ready endpoints of Service web", LIMIT, || async {
        let slices = slices.list(&ListParams::default().labels("kubernetes.io/service-name=web")).await?;
        let endpoints = slices.items.iter().flat_map(|slice| slice.endpoints.iter());
        let ready = endpoints.filter(|e| e.conditions.as_ref().is_some_and(|c| c.ready == Some(true))).count();
        anyhow::ensure!(ready == 3, "{ready} ready");
        Ok(())
    })
    .await?;

    // A second rollout of the same Deployment ends too: kwok deletes the old pods.
    plane.kubectl(&["-n", &namespace, "rollout", "restart", "deployment/web"]).await?.ok()?;
    plane.kubectl(&["-n", &namespace, "rollout", "status", "deployment/web", "--timeout=60s"]).await?.ok()?;

    let events = plane.audit_events()?;
    let restart = events.iter().find(|e| e.user() == "admin" && e.verb == "patch" && e.resource() == "deployments");
    let restart = restart.expect("the restart is in the audit log");
    assert_eq!((restart.object(), restart.code()), (format!("{namespace}/web"), Some(200)));
    assert!(events.iter().any(|e| e.user() == "system:kube-controller-manager" && e.is_write()));
    Ok(())
}

#[tokio::test]
async fn two_stand_side_by_side_and_know_nothing_of_each_other() -> anyhow::Result<()> {
    let (left, right) =
        tokio::try_join!(ControlPlane::start(Options::api_only()), ControlPlane::start(Options::api_only()))?;
    assert_ne!(left.url(), right.url());
    let on = |plane: &ControlPlane| Api::<ConfigMap>::namespaced(plane.client(), "default");
    on(&left).create(&PostParams::default(), &config_map("only-left")).await?;
    assert!(on(&left).get_opt("only-left").await?.is_some());
    assert!(on(&right).get_opt("only-left").await?.is_none());
    Ok(())
}

#[tokio::test]
async fn an_api_server_that_crashed_comes_back_with_its_data() -> anyhow::Result<()> {
    let plane = ControlPlane::start(Options::api_only()).await?;
    let namespace = plane.namespace("lasting").await?;
    let maps: Api<ConfigMap> = Api::namespaced(plane.client(), &namespace);
    maps.create(&PostParams::default(), &config_map("kept")).await?;

    plane.stop_apiserver()?;
    assert!(maps.get("kept").await.is_err(), "nobody answers while it is down");
    plane.start_apiserver().await?;
    // The client from before finds it again: same port, same certificate.
    assert_eq!(maps.get("kept").await?.data, config_map("kept").data);
    Ok(())
}

#[tokio::test]
async fn rbac_holds_for_everybody_but_the_administrator() -> anyhow::Result<()> {
    let plane = ControlPlane::start(Options::api_only()).await?;
    let namespace = plane.namespace("tenant").await?;
    let token = plane.service_account_token(&namespace, "default").await?;
    let clients = [
        ("with its token", plane.client_with_token(&token)?),
        ("impersonated", plane.client_as(&format!("system:serviceaccount:{namespace}:default"), &[])?),
    ];
    for (how, client) in clients.clone() {
        let refused = Api::<ConfigMap>::namespaced(client, &namespace).list(&ListParams::default()).await;
        assert!(matches!(&refused, Err(kube::Error::Api(status)) if status.is_forbidden()), "{how}: {refused:?}");
    }
    // Not `view`, whose rules a controller aggregates from this one.
    let role = "--clusterrole=system:aggregate-to-view";
    let account = format!("--serviceaccount={namespace}:default");
    plane.kubectl(&["-n", &namespace, "create", "rolebinding", "view", role, &account]).await?.ok()?;
    for (how, client) in clients {
        // The authorizer learns of the binding from a watch.
        let maps = Api::<ConfigMap>::namespaced(client, &namespace);
        wait::until(format!("the ServiceAccount, {how}, to read"), LIMIT, || async {
            maps.list(&ListParams::default()).await
        })
        .await?;
    }

    let kubeconfig = plane.service_account_kubeconfig(&namespace, "default").await?;
    let kubeconfig = format!("--kubeconfig={}", kubeconfig.display());
    let whoami =
        plane.kubectl(&[&kubeconfig, "auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"]).await?.ok()?;
    assert_eq!(whoami, format!("system:serviceaccount:{namespace}:default"));
    Ok(())
}

#[tokio::test]
async fn applied_crds_are_served() -> anyhow::Result<()> {
    let plane = ControlPlane::start(Options::api_only()).await?;
    let folder = plane.dir().path().join("crds");
    std::fs::create_dir(&folder)?;
    std::fs::write(
        folder.join("things.yaml"),
        "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.test.invalid}
spec:
  group: test.invalid
  scope: Namespaced
  names: {plural: things, singular: thing, kind: Thing}
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}
",
    )?;
    assert_eq!(plane.apply_crds(&folder).await?, ["things.test.invalid"]);
    plane
        .kubectl_apply("{apiVersion: test.invalid/v1, kind: Thing, metadata: {name: one, namespace: default}}")
        .await?;
    Ok(())
}

#[tokio::test]
async fn nothing_is_left_after_a_drop() -> anyhow::Result<()> {
    let all =
        [Component::Etcd, Component::ApiServer, Component::ControllerManager, Component::Scheduler, Component::Kwok];
    let plane = ControlPlane::start(Options::default()).await?;
    let pids = pids(&plane, &all);
    let data = plane.dir().data();
    assert!(pids.iter().all(|&pid| alive(pid)) && data.exists());
    drop(plane);
    // Reaped by the drop, so there is nothing to wait for.
    assert!(!pids.iter().any(|&pid| alive(pid)));
    assert!(!data.exists());
    Ok(())
}

#[test]
fn a_panic_tears_it_down() {
    let (tell, told) = std::sync::mpsc::channel();
    let test = std::thread::Builder::new().name("a-test-that-panics".to_owned()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let plane = ControlPlane::start(Options::api_only()).await.unwrap();
            tell.send(pids(&plane, &[Component::Etcd, Component::ApiServer])).unwrap();
            panic!("as a test may");
        });
    });
    assert!(test.unwrap().join().is_err());
    let pids: Vec<u32> = told.recv().unwrap();
    assert!(!pids.iter().any(|&pid| alive(pid)));
}

#[tokio::test]
async fn nothing_is_left_when_the_test_process_is_killed() -> anyhow::Result<()> {
    let dir = testbed::BedDir::create(None)?;
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_bed"));
    command.arg("api-only");
    let owner = testbed::Process::spawn("bed", command, &dir.logs())?;
    owner.until_logged("export KUBECONFIG=", LIMIT).await?;

    let servers = children(owner.pid());
    assert_eq!(servers.len(), 2, "etcd and kube-apiserver: {servers:?}");
    assert!(servers.iter().all(|&pid| alive(pid)));
    // Only the owner is killed, and it has no say in it.
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(owner.pid().try_into()?).unwrap(),
        rustix::process::Signal::KILL,
    )?;
    wait::until("the servers to end with their owner", LIMIT, || async {
        let left: Vec<u32> = servers.iter().copied().filter(|&pid| alive(pid)).collect();
        anyhow::ensure!(left.is_empty(), "{left:?} run on");
        Ok(())
    })
    .await
}
