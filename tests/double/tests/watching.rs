//! Watches as kube-runtime's watcher uses them: through closings, silence, compaction and the end of the server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

use std::{pin::Pin, time::Duration};

use apiserver_double::{Double, Fault, Refusal, Times};
use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, ResourceExt,
    api::{WatchEvent, WatchParams},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::json;
use tokio::time::timeout;

type Events = Pin<Box<dyn Stream<Item = String> + Send>>;

fn put(double: &Double, name: &str, value: &str) {
    double.put(json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "learning"},
        "data": {"value": value},
    }));
}

/// What a watcher with backoff tells, as words.
fn watch(client: Client, config: watcher::Config) -> Events {
    let api: Api<ConfigMap> = Api::namespaced(client, "learning");
    let value = |map: &ConfigMap| map.data.as_ref().map(|data| data["value"].clone()).unwrap_or_default();
    watcher(api, config)
        .default_backoff()
        .filter_map(move |event| async move {
            match event {
                Ok(watcher::Event::Init) => Some("init".to_owned()),
                Ok(watcher::Event::InitApply(map)) => Some(format!("there {}={}", map.name_any(), value(&map))),
                Ok(watcher::Event::InitDone) => Some("ready".to_owned()),
                Ok(watcher::Event::Apply(map)) => Some(format!("{}={}", map.name_any(), value(&map))),
                Ok(watcher::Event::Delete(map)) => Some(format!("{} gone", map.name_any())),
                Err(_) => None,
            }
        })
        .boxed()
}

async fn told(events: &mut Events, expected: &[&str]) {
    for expected in expected {
        let event = timeout(Duration::from_secs(900), events.next()).await;
        assert_eq!(event.expect("no event within 15 minutes").as_deref(), Some(*expected));
    }
}

async fn quiet(events: &mut Events) {
    let event = timeout(Duration::from_secs(900), events.next()).await;
    assert!(event.is_err(), "expected nothing more, not {event:?}");
}

#[tokio::test(start_paused = true)]
async fn a_watcher_follows_by_list_and_by_streaming_list() {
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let double = Double::new();
        put(&double, "a", "1");
        let mut events = watch(double.client(), config);
        told(&mut events, &["init", "there a=1", "ready"]).await;
        put(&double, "b", "1");
        put(&double, "a", "2");
        double.remove("ConfigMap", "learning", "b");
        told(&mut events, &["b=1", "a=2", "b gone"]).await;
        // Many time-outs of the watch later, nothing is told twice and nothing is missed.
        quiet(&mut events).await;
        put(&double, "a", "3");
        told(&mut events, &["a=3"]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_tells_of_its_namespace_alone_unless_it_is_of_all() {
    let double = Double::new();
    let of_one: Api<ConfigMap> = Api::namespaced(double.client(), "learning");
    let of_all: Api<ConfigMap> = Api::all(double.client());
    let since = double.revision().to_string();
    put(&double, "a", "1");
    double.put(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b", "namespace": "other"}}));
    double.put(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "c", "namespace": "learning"}}));
    for (api, expected) in [(of_one, vec!["a"]), (of_all, vec!["a", "b"])] {
        let stream = api.watch(&WatchParams::default().timeout(1), &since).await.unwrap();
        let events: Vec<WatchEvent<ConfigMap>> = stream.boxed().try_collect().await.unwrap();
        let names: Vec<String> = events
            .iter()
            .filter_map(|event| match event {
                WatchEvent::Added(map) => Some(map.name_any()),
                _ => None,
            })
            .collect();
        assert_eq!(names, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_closed_watch_is_resumed_where_it_was() {
    let double = Double::new();
    put(&double, "a", "1");
    let mut events = watch(double.client(), watcher::Config::default());
    told(&mut events, &["init", "there a=1", "ready"]).await;
    put(&double, "a", "2");
    told(&mut events, &["a=2"]).await;
    double.close_watches();
    put(&double, "a", "3");
    told(&mut events, &["a=3"]).await;
    quiet(&mut events).await;
}

#[tokio::test(start_paused = true)]
async fn a_compacted_history_makes_a_watcher_list_again() {
    let double = Double::new();
    put(&double, "a", "1");
    let mut events = watch(double.client(), watcher::Config::default());
    told(&mut events, &["init", "there a=1", "ready"]).await;
    double.mute_watches(true);
    put(&double, "a", "2");
    put(&double, "a", "3");
    double.compact();
    double.mute_watches(false);
    told(&mut events, &["init", "there a=3", "ready"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_short_history_answers_old_versions_with_410() {
    let double = Double::new();
    double.limit_history(2);
    put(&double, "a", "1");
    let since = double.revision().to_string();
    let api: Api<ConfigMap> = Api::namespaced(double.client(), "learning");
    for (value, gone) in [("2", false), ("3", false), ("4", true)] {
        put(&double, "a", value);
        let stream = api.watch(&WatchParams::default().timeout(1), &since).await.unwrap();
        let first = stream.boxed().try_next().await.unwrap().unwrap();
        let expired = matches!(&first, WatchEvent::Error(status) if status.code == 410 && status.reason == "Expired");
        assert_eq!(expired, gone, "{value}: {first:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_muted_watch_is_silent_and_then_complete() {
    let double = Double::new();
    let mut events = watch(double.client(), watcher::Config::default().timeout(290));
    told(&mut events, &["init", "ready"]).await;
    double.mute_watches(true);
    put(&double, "a", "1");
    quiet(&mut events).await;
    double.mute_watches(false);
    told(&mut events, &["a=1"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_stopped_process_sees_after_its_thaw_what_it_slept_through() {
    let double = Double::new();
    let mut events = watch(double.client(), watcher::Config::default().timeout(290));
    told(&mut events, &["init", "ready"]).await;
    let watching = timeout(Duration::from_millis(1), events.next()).await;
    assert!(watching.is_err());
    double.freeze(double.generation());
    put(&double, "a", "1");
    let asleep = timeout(Duration::from_secs(60), events.next()).await;
    assert!(asleep.is_err(), "{asleep:?}");
    double.thaw(double.generation());
    told(&mut events, &["a=1"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_watcher_survives_refused_lists_and_broken_watches() {
    let double = Double::new();
    put(&double, "a", "1");
    let failure = Refusal::new(503, "ServiceUnavailable", "starting");
    double.on(|request| request.method == "GET" && !request.watch, Times::First(2), Fault::Status(failure));
    double.on(|request| request.watch, Times::First(3), Fault::TruncateBody(10));
    let mut events = watch(double.client(), watcher::Config::default());
    // Each attempt to list begins anew.
    told(&mut events, &["init", "init", "init", "there a=1", "ready"]).await;
    put(&double, "a", "2");
    told(&mut events, &["a=2"]).await;
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_double_ends_its_watches() {
    let double = Double::new();
    let api: Api<ConfigMap> = Api::namespaced(double.client(), "learning");
    let since = double.revision().to_string();
    let stream = api.watch(&WatchParams::default(), &since).await.unwrap();
    let rest = tokio::spawn(stream.boxed().try_collect::<Vec<_>>());
    tokio::task::yield_now().await;
    drop(double);
    let rest = timeout(Duration::from_secs(60), rest).await.expect("the watch goes on").unwrap();
    assert_eq!(rest.unwrap().len(), 0);
}
