//! Many askers of one Prometheus.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use learning_rollout::prometheus::{
    AddressRules, Limits, QueryBackend, QueryError, SharedSource, SourceConfig, Sources,
};
use tokio::sync::watch;

use crate::server::{Reply, Server};
use crate::{now, trusted};

fn sources(limits: Limits) -> Sources {
    Sources::new(AddressRules::default(), limits)
}

fn shared(sources: &Sources, config: &SourceConfig) -> Arc<SharedSource> {
    sources.get(config).unwrap()
}

#[tokio::test]
async fn the_same_question_at_the_same_time_is_asked_once() {
    let (release, released) = watch::channel(false);
    let server =
        Server::start(move |asked| Reply::When(released.clone(), Box::new(Reply::scalar(asked.field("query"))))).await;
    let sources = sources(Limits::default());
    let source = shared(&sources, &trusted(server.url()));

    let asking = tokio::spawn({
        let source = Arc::clone(&source);
        async move { join_all((0..100).map(|_| source.query("1", now()))).await }
    });
    server.wait_for(1).await;
    let others = tokio::spawn({
        let source = Arc::clone(&source);
        async move {
            let other_text = source.query("2", now());
            let other_time = source.query("1", now() + Duration::from_millis(1));
            futures::join!(other_text, other_time)
        }
    });
    server.wait_for(3).await;
    release.send(true).unwrap();

    let answers = asking.await.unwrap();
    assert_eq!(answers.len(), 100);
    for answer in answers {
        assert_eq!(answer.unwrap()[0].value, 1.0);
    }
    let (other_text, other_time) = others.await.unwrap();
    assert_eq!(other_text.unwrap()[0].value, 2.0);
    assert_eq!(other_time.unwrap()[0].value, 1.0);

    // And a moment later, still nobody asks again.
    assert_eq!(source.query("1", now()).await.unwrap()[0].value, 1.0);
    assert_eq!(server.asked().len(), 3);
    let counters = sources.counters().snapshot();
    assert_eq!((counters.sent, counters.shared), (3, 100));
}

#[tokio::test]
async fn a_failure_is_shared_counted_once_and_not_remembered() {
    let server = Server::start(|asked| match asked.connection {
        0 => Reply::http("500 Oops", &["Connection: close"], ""),
        _ => Reply::scalar("1"),
    })
    .await;
    let sources = sources(Limits::default());
    let source = shared(&sources, &trusted(server.url()));
    let failed = join_all((0..10).map(|_| source.query("1", now()))).await;
    for answer in failed {
        assert_eq!(answer.unwrap_err(), QueryError::ServerError { status: 500 });
    }
    assert_eq!(sources.counters().snapshot().errors_of("ServerError"), 1);
    assert_eq!(source.query("1", now()).await.unwrap()[0].value, 1.0);
    assert_eq!(server.asked().len(), 2);
}

#[tokio::test]
async fn a_slow_prometheus_has_a_queue_of_its_own() {
    let (release, released) = watch::channel(false);
    let slow = Server::start(move |_| Reply::When(released.clone(), Box::new(Reply::scalar("1")))).await;
    let quick = Server::always(Reply::scalar("2")).await;
    let sources = sources(Limits { in_flight: 4, ..Limits::default() });
    let (slow_source, quick_source) = (shared(&sources, &trusted(slow.url())), shared(&sources, &trusted(quick.url())));
    let waiting = tokio::spawn({
        let source = Arc::clone(&slow_source);
        async move {
            let queries: Vec<String> = (0..20).map(|n| n.to_string()).collect();
            join_all(queries.iter().map(|query| source.query(query, now()))).await
        }
    });
    slow.wait_for(4).await;

    // The others are not delayed, and the slow one is not asked more than it may be.
    for n in 0..50 {
        let query = n.to_string();
        assert_eq!(quick_source.query(&query, now()).await.unwrap()[0].value, 2.0);
    }
    assert_eq!(slow.asked().len(), 4);
    assert_eq!(slow.connections(), 4);

    release.send(true).unwrap();
    for answer in waiting.await.unwrap() {
        assert_eq!(answer.unwrap()[0].value, 1.0);
    }
    assert_eq!(slow.asked().len(), 20);
    assert_eq!(slow.connections(), 4);
}

#[tokio::test]
async fn who_waited_in_vain_is_told_so() {
    let server = Server::always(Reply::Nothing).await;
    let sources = sources(Limits { in_flight: 1, ..Limits::default() });
    let mut config = trusted(server.url());
    config.timeout = Duration::from_millis(300);
    let source = shared(&sources, &config);
    let (first, second) = futures::join!(source.query("1", now()), source.query("2", now()));
    assert_eq!(first.unwrap_err().reason(), "Timeout");
    assert_eq!(second.unwrap_err().reason(), "Busy");
}

#[tokio::test]
async fn a_question_that_nobody_waits_for_gives_its_place_back() {
    let server = Server::start(|asked| match asked.field("query") {
        "hang" => Reply::Nothing,
        _ => Reply::scalar("1"),
    })
    .await;
    let sources = sources(Limits { in_flight: 1, ..Limits::default() });
    let source = shared(&sources, &trusted(server.url()));
    let abandoned = tokio::spawn({
        let source = Arc::clone(&source);
        async move { source.query("hang", now()).await }
    });
    server.wait_for(1).await;
    abandoned.abort();
    assert!(abandoned.await.unwrap_err().is_cancelled());
    assert_eq!(source.query("1", now()).await.unwrap()[0].value, 1.0);
    server.wait_for_closed(1).await;
}
