//! Crashes and scripted faults, seen from a program that is none the wiser: a small operator with one duty.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use apiserver_double::{By, Counting, Crash, Double, Fault, Moment, ObjectKey, Refusal, Times};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::time::timeout;

fn seeded() -> Double {
    let double = Double::new();
    for name in ["one", "two"] {
        double.put(json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": "learning"}, "data": {"flag": "true"},
        }));
    }
    double
}

fn config_maps(client: Client) -> Api<ConfigMap> {
    Api::namespaced(client, "learning")
}

/// Turns two flags off and writes a receipt, each exactly once: reads before it writes, and finishes what it finds.
async fn operator(client: Client) -> kube::Result<()> {
    let api = config_maps(client);
    for name in ["one", "two"] {
        let flag = api.get(name).await?.data.unwrap_or_default();
        if flag["flag"] == "true" {
            let patch: json_patch::Patch = serde_json::from_value(json!([
                {"op": "test", "path": "/data/flag", "value": "true"},
                {"op": "replace", "path": "/data/flag", "value": "false"},
            ]))
            .unwrap();
            api.patch(name, &PatchParams::default(), &Patch::<()>::Json(patch)).await?;
        }
    }
    let receipt = json!({"metadata": {"name": "receipt"}, "data": {"done": "true"}});
    match api.create(&PostParams::default(), &serde_json::from_value(receipt).unwrap()).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        other => other.map(drop),
    }
}

async fn undisturbed() -> (BTreeMap<String, Value>, BTreeMap<ObjectKey, usize>, usize) {
    let double = seeded();
    operator(double.client()).await.unwrap();
    (double.dump_stable(), double.writes_per_object(), double.mutating_requests().len())
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_request_and_moment_leaves_the_same_world_with_as_many_writes() {
    let (world, writes, mutations) = undisturbed().await;
    assert_eq!(mutations, 3);
    assert!(writes.values().all(|count| *count == 1), "{writes:?}");
    for n in 1..=mutations {
        for moment in Moment::ALL {
            let double = seeded();
            double.crash(Crash::at(n, moment));
            let first = tokio::spawn(operator(double.client()));
            let struck = double.crashed().await;
            assert_eq!(struck.mutation, Some(n));
            first.abort();
            let before = double.writes().len();
            assert_eq!(before, if moment == Moment::Before { n - 1 } else { n }, "{moment:?} {n}");

            operator(double.client()).await.unwrap();
            assert_eq!(double.dump_stable(), world, "{moment:?} {n}");
            assert_eq!(double.writes_per_object(), writes, "{moment:?} {n}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_crashed_generation_hears_nothing_any_more_and_others_do() {
    let double = seeded();
    double.crash(Crash { at: 2, moment: Moment::Answered, counting: Counting::Any });
    let (dead, person) = (config_maps(double.client()), config_maps(double.bystander()));
    person.get("one").await.expect("a bystander is not counted");
    dead.get("one").await.expect("the first request is served");
    dead.get("two").await.expect("the second is answered, and is the last");
    assert!(double.has_crashed());
    let never = timeout(Duration::from_secs(3600), dead.get("one")).await;
    assert!(never.is_err(), "the third must hang, but was {never:?}");
    person.get("one").await.expect("a bystander lives on");
    config_maps(double.client()).get("one").await.expect("so does the next generation");
    let by: Vec<By> = double.requests().iter().map(|request| request.by).collect();
    assert_eq!(by, [By::Bystander, By::Client(1), By::Client(1), By::Bystander, By::Client(2)]);
}

#[tokio::test(start_paused = true)]
async fn a_committed_crash_is_stored_and_never_answered() {
    let double = seeded();
    double.crash(Crash {
        at: 1,
        moment: Moment::Committed,
        counting: Counting::matching(|request| request.is("PATCH", "ConfigMap")),
    });
    let patch = Patch::Merge(json!({"data": {"flag": "false"}}));
    let client = config_maps(double.client());
    let params = PatchParams::default();
    client
        .create(&PostParams::default(), &serde_json::from_value(json!({"metadata": {"name": "x"}})).unwrap())
        .await
        .expect("creations are not counted here");
    let call = client.patch("one", &params, &patch);
    assert!(timeout(Duration::from_secs(3600), call).await.is_err());
    assert_eq!(double.get("ConfigMap", "learning", "one").unwrap()["data"]["flag"], json!("false"));
    let last = double.requests().pop().unwrap();
    assert_eq!((last.answered, last.committed, last.changed), (None, true, true));
}

#[tokio::test(start_paused = true)]
async fn a_stopped_generation_acts_late_when_it_is_continued() {
    let double = seeded();
    let late = tokio::spawn({
        let api = config_maps(double.client());
        double.freeze(double.generation());
        async move { api.patch("one", &PatchParams::default(), &Patch::Merge(json!({"data": {"flag": "late"}}))).await }
    });
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(double.get("ConfigMap", "learning", "one").unwrap()["data"]["flag"], json!("true"));
    double.thaw(double.generation());
    late.await.unwrap().unwrap();
    assert_eq!(double.get("ConfigMap", "learning", "one").unwrap()["data"]["flag"], json!("late"));
}

#[tokio::test(start_paused = true)]
async fn scripted_faults_do_what_they_say() {
    type Check = fn(kube::Result<ConfigMap>) -> bool;
    let refusal = || Refusal::new(500, "InternalError", "etcd is away").with_header("retry-after", "7");
    let api_error: Check = |answer| matches!(answer, Err(kube::Error::Api(status)) if status.code == 500 && status.message == "etcd is away");
    let other_error: Check = |answer| matches!(answer, Err(error) if !matches!(error, kube::Error::Api(_)));
    let fine: Check = |answer| answer.is_ok();
    let rows: [(Fault, Check, bool, Duration); 8] = [
        (Fault::Status(refusal()), api_error, false, Duration::ZERO),
        (Fault::CommitThenStatus(refusal()), api_error, true, Duration::ZERO),
        (Fault::DropConnection, other_error, false, Duration::ZERO),
        (Fault::CommitThenDrop, other_error, true, Duration::ZERO),
        (Fault::Delay(Duration::from_secs(40)), fine, true, Duration::from_secs(40)),
        (Fault::CommitThenDelay(Duration::from_secs(40)), fine, true, Duration::from_secs(40)),
        (Fault::TruncateBody(20), other_error, true, Duration::ZERO),
        (Fault::Answer("<html>".to_owned()), other_error, false, Duration::ZERO),
    ];
    for (fault, expected, stored, delay) in rows {
        let double = seeded();
        let name = format!("{fault:?}");
        double.on(|request| request.is("PATCH", "ConfigMap"), Times::Nth(2), fault);
        let api = config_maps(double.client());
        let mut answers = Vec::new();
        let mut waited = Vec::new();
        for flag in ["first", "second", "third"] {
            let start = tokio::time::Instant::now();
            let patch = Patch::Merge(json!({"data": {flag: "written"}}));
            answers.push(api.patch("one", &PatchParams::default(), &patch).await);
            waited.push(start.elapsed());
        }
        let data = double.get("ConfigMap", "learning", "one").unwrap()["data"].clone();
        assert_eq!(data.get("second").is_some(), stored, "{name}");
        assert!(data.get("first").is_some() && data.get("third").is_some(), "{name}: others are not touched");
        assert!(waited[1] >= delay && waited[0] == Duration::ZERO, "{name}: {waited:?}");
        let third = answers.pop().unwrap();
        let second = answers.pop().unwrap();
        assert!(third.is_ok(), "{name}: {third:?}");
        let shown = format!("{second:?}");
        assert!(expected(second), "{name}: {shown}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_log_tells_writes_from_dry_runs_and_no_ops() {
    let double = seeded();
    let api = config_maps(double.client());
    let write = Patch::Merge(json!({"data": {"flag": "false"}}));
    let dry = PatchParams { dry_run: true, ..PatchParams::default() };
    api.patch("one", &dry, &write).await.unwrap();
    api.patch("one", &PatchParams::default(), &write).await.unwrap();
    api.patch("one", &PatchParams::default(), &write).await.unwrap();
    config_maps(double.bystander())
        .patch("one", &PatchParams::default(), &Patch::Merge(json!({"data": {"flag": "x"}})))
        .await
        .unwrap();
    api.get_opt("missing").await.unwrap();

    let lines: Vec<(bool, bool, bool, Option<u16>)> = double
        .requests()
        .iter()
        .map(|request| (request.dry_run, request.committed, request.changed, request.answered))
        .collect();
    assert_eq!(
        lines,
        [
            (true, false, false, Some(200)),
            (false, true, true, Some(200)),
            (false, true, false, Some(200)),
            (false, true, true, Some(200)),
            (false, false, false, Some(404)),
        ]
    );
    assert_eq!(double.mutating_requests().len(), 3);
    let key = ObjectKey {
        group: String::new(),
        kind: "ConfigMap".to_owned(),
        namespace: "learning".to_owned(),
        name: "one".to_owned(),
    };
    assert_eq!(double.writes_per_object(), BTreeMap::from([(key, 1)]));
    let versions = &double.writes()[0].versions;
    assert!(versions.0.is_some() && versions.0 != versions.1, "{versions:?}");
}

#[tokio::test(start_paused = true)]
async fn two_runs_of_the_same_requests_give_the_same_world_uids_included() {
    let world = |double: &Double| {
        double.objects("ConfigMap").iter().map(|object| object["metadata"]["uid"].clone()).collect::<Vec<_>>()
    };
    let (one, two) = (seeded(), seeded());
    operator(one.client()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    operator(two.client()).await.unwrap();
    assert_eq!(world(&one), world(&two));
    assert_eq!(one.dump_stable(), two.dump_stable());
}

#[tokio::test(start_paused = true)]
async fn hooks_see_each_commit_and_validation_refuses_with_causes() {
    let double = seeded();
    let seen = Arc::new(Mutex::new(Vec::new()));
    double.on_commit({
        let (seen, double) = (seen.clone(), double.clone());
        move |key, object| {
            // The lock is free: a hook may look around.
            let stored = double.get("ConfigMap", &key.namespace, &key.name).unwrap_or(Value::Null);
            assert_eq!(&stored, object);
            seen.lock().unwrap().push(format!("{key}: {}", object["data"]["flag"]));
        }
    });
    double.validate("ConfigMap", |_, new| {
        let bad = new["data"]["flag"] == json!("maybe");
        bad.then(|| apiserver_double::Cause::invalid("data.flag", "must be true or false")).into_iter().collect()
    });
    let api = config_maps(double.client());
    let to = |flag: &str| Patch::Merge(json!({"data": {"flag": flag}}));
    let refused = api.patch("one", &PatchParams::default(), &to("maybe")).await.unwrap_err();
    let kube::Error::Api(status) = refused else {
        panic!("expected a status, not {refused:?}");
    };
    assert_eq!((status.code, status.details.unwrap().causes[0].field.as_str()), (422, "data.flag"));
    api.patch("one", &PatchParams::default(), &to("false")).await.unwrap();
    double.remove("ConfigMap", "learning", "one");
    assert_eq!(*seen.lock().unwrap(), ["ConfigMap learning/one: \"false\"", "ConfigMap learning/one: null"]);
}
