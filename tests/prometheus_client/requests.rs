//! What goes over the wire.

use std::time::Duration;

use learning_rollout::prometheus::{Auth, Secret};

use crate::server::{Reply, Server};
use crate::{now, source, trusted};

const QUERY: &str = r#"sum(rate(x{a="b&c=d é+%"}[1m])) > 0"#;

#[tokio::test]
async fn a_query_is_a_post_form_with_its_time() {
    let server = Server::always(Reply::scalar("1")).await;
    let source = source(&trusted(format!("{}/prefix/", server.url())));
    let samples = source.query(QUERY, now()).await.unwrap();
    assert_eq!(samples[0].value, 1.0);

    let asked = &server.asked()[0];
    assert_eq!(asked.line, "POST /prefix/api/v1/query HTTP/1.1");
    assert_eq!(asked.header("content-type"), Some("application/x-www-form-urlencoded"));
    let version = env!("CARGO_PKG_VERSION");
    let agent = format!("learning-rollout-operator/{version}");
    assert_eq!(asked.header("user-agent"), Some(agent.as_str()));
    assert_eq!(asked.header("accept"), Some("application/json"));
    assert_eq!(asked.header("host"), Some(server.address.to_string().as_str()));
    assert_eq!(asked.header("accept-encoding"), None);
    assert_eq!(asked.header("authorization"), None);
    assert_eq!(asked.field("query"), QUERY);
    assert_eq!(asked.field("time"), "1700000000.123");
    let timeout: f64 = asked.field("timeout").parse().unwrap();
    assert!(timeout > 5.0 && timeout <= 10.0, "what is left of 10 s: {timeout}");
    assert_eq!(asked.form.len(), 3);
}

#[tokio::test]
async fn a_range_query_has_both_ends_and_a_step() {
    let body =
        r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"a":"b"},"values":[[1,"2"]]}]}}"#;
    let server = Server::always(Reply::json(body)).await;
    let end = now();
    let start = end - Duration::from_secs(60);
    let series =
        source(&trusted(server.url())).query_range(QUERY, start, end, Duration::from_millis(2_500)).await.unwrap();
    assert_eq!(series[0].points[0].1, 2.0);

    let asked = &server.asked()[0];
    assert_eq!(asked.line, "POST /api/v1/query_range HTTP/1.1");
    assert_eq!(asked.field("query"), QUERY);
    assert_eq!(asked.field("start"), "1699999940.123");
    assert_eq!(asked.field("end"), "1700000000.123");
    assert_eq!(asked.field("step"), "2.500");
    assert_eq!(asked.form.len(), 5);
}

#[tokio::test]
async fn credentials_and_headers_are_sent_and_not_shown() {
    let server = Server::always(Reply::scalar("1")).await;
    for (auth, sent) in [
        (Auth::Bearer(Secret::new("hunter2\n")), "Bearer hunter2"),
        (
            Auth::Basic { user: "aladdin".to_owned(), password: Secret::new("opensesame") },
            "Basic YWxhZGRpbjpvcGVuc2VzYW1l",
        ),
    ] {
        let mut config = trusted(server.url());
        config.auth = auth;
        config.headers = vec![("X-Scope-OrgID".to_owned(), Secret::new("tenant-7"))];
        let source = source(&config);
        source.query("x", now()).await.unwrap();
        let asked = server.asked().pop().unwrap();
        assert_eq!(asked.header("authorization"), Some(sent));
        assert_eq!(asked.header("x-scope-orgid"), Some("tenant-7"));
        let shown = format!("{source:?} {config:?}");
        for secret in ["hunter2", "opensesame", "YWxhZGRpbjp", "tenant-7"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
}

#[tokio::test]
async fn connections_are_used_again() {
    let server = Server::always(Reply::scalar("1")).await;
    let source = source(&trusted(server.url()));
    for _ in 0..20 {
        source.query("x", now()).await.unwrap();
    }
    assert_eq!(server.asked().len(), 20);
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_kept_connection_that_was_just_closed_costs_no_query() {
    // The second request on the first connection meets its end, as with a proxy's idle time-out.
    let server = Server::start(|asked| match asked.connection {
        0 if asked.field("query") == "second" => Reply::RawThenClose(Vec::new()),
        _ => Reply::scalar("1"),
    })
    .await;
    let source = source(&trusted(server.url()));
    source.query("first", now()).await.unwrap();
    source.query("second", now()).await.unwrap();
    assert_eq!(server.connections(), 2);
    assert_eq!(server.asked().len(), 3);
}
