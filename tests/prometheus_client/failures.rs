//! Everything that is not an answer has a reason, and none of its text gets out.

use std::time::Duration;

use learning_rollout::prometheus::{MAX_BODY_BYTES, QueryError};
use tokio::net::TcpListener;

use crate::server::{Reply, Server};
use crate::{now, source, trusted};

/// Stands in every body; must stand in no message.
const MARK: &str = "hunter2";

async fn fail(reply: Reply) -> QueryError {
    let server = Server::always(reply).await;
    let error = source(&trusted(server.url())).query("x", now()).await.expect_err("not an answer");
    assert!(!error.to_string().contains(MARK), "{error}");
    assert!(!format!("{error:?}").contains(MARK), "{error:?}");
    assert!(!error.to_string().contains(&server.address.to_string()), "{error}");
    error
}

fn error_body(error_type: &str, error: &str) -> String {
    serde_json::json!({"status": "error", "errorType": error_type, "error": error}).to_string()
}

#[tokio::test]
async fn every_status_has_its_reason() {
    let json = ["Content-Type: application/json"];
    for (status, body, reason) in [
        ("400 Bad Request", error_body("bad_data", MARK), "RequestRefused"),
        ("400 Bad Request", MARK.to_owned(), "HttpStatus"),
        ("401 Unauthorized", error_body("unauthorized", MARK), "Unauthorized"),
        ("403 Forbidden", MARK.to_owned(), "Unauthorized"),
        ("404 Not Found", MARK.to_owned(), "HttpStatus"),
        ("422 Unprocessable Entity", error_body("execution", MARK), "ExecutionFailed"),
        ("422 Unprocessable Entity", MARK.to_owned(), "HttpStatus"),
        ("429 Too Many Requests", MARK.to_owned(), "Throttled"),
        ("500 Internal Server Error", error_body("internal", MARK), "ServerError"),
        ("503 Service Unavailable", error_body("timeout", MARK), "Timeout"),
        ("503 Service Unavailable", error_body("unavailable", MARK), "ServerError"),
        ("503 Service Unavailable", "<html>hunter2".to_owned(), "ServerError"),
        ("504 Gateway Timeout", MARK.to_owned(), "ServerError"),
        ("200 OK", "<!DOCTYPE html><html>hunter2".to_owned(), "NotJson"),
        ("200 OK", String::new(), "NotJson"),
        ("204 No Content", String::new(), "NotJson"),
        ("200 OK", error_body("internal", MARK), "ServerError"),
    ] {
        let error = fail(Reply::http(status, &json, &body)).await;
        assert_eq!(error.reason(), reason, "{status} {body}");
    }
}

#[tokio::test]
async fn prometheus_own_parse_error_is_shown_and_nothing_of_an_error_body_beyond_the_cap() {
    let text = r#"invalid parameter "query": 1:5: parse error: unclosed left parenthesis"#;
    let error = fail(Reply::http("400 Bad Request", &[], error_body("bad_data", text))).await;
    assert_eq!(error, QueryError::BadQuery { message: "1:5: parse error: unclosed left parenthesis".to_owned() });
    let padded = format!("{}{}", " ".repeat(70_000), error_body("bad_data", text));
    let error = fail(Reply::http("400 Bad Request", &[], padded)).await;
    assert_eq!(error.reason(), "HttpStatus");
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let elsewhere = Server::always(Reply::scalar("1")).await;
    for status in ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"] {
        let location = format!("Location: {}/{MARK}", elsewhere.url());
        let error = fail(Reply::http(status, &[&location], "")).await;
        assert_eq!(error.reason(), "Redirected", "{status}");
    }
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_none() {
    let whole = r#"{"status":"success","data":{"resultType":"scalar","result":[1,"1"]}}"#;
    let raw = |text: String| Reply::RawThenClose(text.into_bytes());
    for (reply, reason) in [
        // Every byte of the JSON came, but more was promised.
        (raw(format!("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{whole}")), "ConnectionLost"),
        (
            raw(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{whole}\r\n", whole.len())),
            "ConnectionLost",
        ),
        // Fewer bytes were promised than came: what counts is the promise.
        (raw(format!("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{whole}")), "NotJson"),
        (raw("HTTP/1.1 200 OK\r\nContent-Le".to_owned()), "Unreachable"),
        (raw(format!("{MARK} is not HTTP\r\n\r\n")), "Unreachable"),
        (raw(String::new()), "Unreachable"),
        (Reply::Reset, "Unreachable"),
        (raw(format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", MARK.repeat(200_000))), "Unreachable"),
    ] {
        assert_eq!(fail(reply).await.reason(), reason);
    }
}

#[tokio::test]
async fn nobody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = source(&trusted(format!("http://{address}"))).query("x", now()).await.unwrap_err();
    assert_eq!(error.reason(), "Unreachable");
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn a_long_answer_ends_at_the_cap() {
    let limit = MAX_BODY_BYTES;
    // Announced: not a byte is read.
    let announced = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", limit + 1);
    let error = fail(Reply::Raw(announced.into_bytes())).await;
    assert_eq!(error, QueryError::BodyTooLarge { limit });

    // Not announced: read up to the cap.
    let server = Server::always(Reply::Endless).await;
    let error = source(&trusted(server.url())).query("x", now()).await.unwrap_err();
    assert_eq!(error, QueryError::BodyTooLarge { limit });
    server.wait_for_closed(1).await;
    assert!(server.written() < limit + (32 << 20), "{}", server.written());

    // As long as allowed.
    let mut body = r#"{"status":"success","data":{"resultType":"scalar","result":[1,"1"]}}"#.to_owned();
    body.push_str(&" ".repeat(limit - body.len()));
    let server = Server::always(Reply::json(&body)).await;
    let answer = source(&trusted(server.url())).query("x", now()).await;
    assert_eq!(answer.unwrap().len(), 1);
}

#[tokio::test]
async fn a_compressed_answer_is_not_unpacked() {
    // `gzip` of a valid answer would be a bomb as easily.
    let gzip = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0x03, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let error = fail(Reply::http("200 OK", &["Content-Encoding: gzip"], gzip)).await;
    assert_eq!(error.reason(), "NotJson");
}

#[tokio::test]
async fn the_deadline_covers_the_whole_answer() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 3000\r\n\r\n".to_vec();
    let every = Duration::from_millis(10);
    for reply in [
        Reply::Nothing,
        // Would take half a minute, and never pauses for long.
        Reply::Drip(head, vec![b' '; 3_000], every),
        Reply::Drip(Vec::new(), vec![b'H'; 3_000], every),
        Reply::Drip(
            b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 3000\r\n\r\n".to_vec(),
            vec![b' '; 3_000],
            every,
        ),
    ] {
        let server = Server::always(reply).await;
        let mut config = trusted(server.url());
        config.timeout = Duration::from_millis(300);
        let source = source(&config);
        // Only so that a client without a deadline fails here instead of hanging.
        let error = tokio::time::timeout(Duration::from_secs(20), source.query("x", now()))
            .await
            .expect("the deadline passed")
            .unwrap_err();
        assert_eq!(error, QueryError::Timeout { after: config.timeout });
        // And the connection is given up, so the server does not go on for nobody.
        server.wait_for_closed(1).await;
    }
}

#[tokio::test]
async fn a_clock_far_from_ours_is_detected() {
    for (date, reason) in [
        ("Sun, 06 Nov 1994 08:49:37 GMT", Some("ClockSkew")),
        ("Sun, 06 Nov 2094 08:49:37 GMT", Some("ClockSkew")),
        ("hunter2", None),
    ] {
        let body = r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#;
        let reply = Reply::http("200 OK", &[&format!("Date: {date}")], body);
        let server = Server::always(reply).await;
        let answer = source(&trusted(server.url())).query("x", now()).await;
        assert_eq!(answer.err().map(|error| error.reason()), reason, "{date}");
    }
}
