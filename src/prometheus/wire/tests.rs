//! Tables over the texts a server may send.

use super::*;

const TIMEOUT: Duration = Duration::from_secs(10);

fn success(result_type: &str, result: &str) -> String {
    format!(r#"{{"status":"success","data":{{"resultType":"{result_type}","result":{result}}}}}"#)
}

fn ask(body: &str) -> Result<Answer, QueryError> {
    instant(body.as_bytes(), TIMEOUT)
}

fn ask_range(body: &str) -> Result<RangeAnswer, QueryError> {
    range(body.as_bytes(), TIMEOUT)
}

fn at(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(milliseconds).unwrap()
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn a_vector_becomes_samples_without_their_names() {
    let body = success(
        "vector",
        r#"[{"metric":{"__name__":"up","job":"a","z":"\u00e9\"\n"},"value":[1700000000.123,"0.25"]},
            {"metric":{"job":"b"},"value":[1700000000,"-1e-07"]}]"#,
    );
    assert_eq!(
        ask(&body).unwrap(),
        vec![
            Sample { labels: labels(&[("job", "a"), ("z", "é\"\n")]), value: 0.25, time: at(1_700_000_000_123) },
            Sample { labels: labels(&[("job", "b")]), value: -1e-7, time: at(1_700_000_000_000) },
        ]
    );
}

#[test]
fn an_empty_vector_is_an_answer() {
    assert_eq!(ask(&success("vector", "[]")), Ok(vec![]));
    assert_eq!(ask_range(&success("matrix", "[]")), Ok(vec![]));
}

#[test]
fn a_scalar_is_one_sample_without_labels() {
    let samples = ask(&success("scalar", r#"[1700000000.5,"42"]"#)).unwrap();
    assert_eq!(samples, vec![Sample { labels: Labels::new(), value: 42.0, time: at(1_700_000_000_500) }]);
}

#[test]
fn the_order_of_members_does_not_matter_and_further_ones_are_ignored() {
    let body = r#"{"infos":["PromQL info: hint"],"data":{"stats":{"a":[1]},"result":[1,"2"],
        "resultType":"scalar"},"warnings":null,"isPartial":false,"status":"success"}"#;
    assert_eq!(ask(body).unwrap().len(), 1);
}

#[test]
fn values_are_spelt_as_go_spells_them() {
    let value = |text: &str| ask(&success("scalar", &format!(r#"[1,"{text}"]"#))).map(|samples| samples[0].value);
    assert!(value("NaN").unwrap().is_nan());
    for (text, expected) in [
        ("+Inf", f64::INFINITY),
        ("-Inf", f64::NEG_INFINITY),
        ("0", 0.0),
        ("-0", -0.0),
        ("1.7976931348623157e+308", f64::MAX),
        ("5e-324", 5e-324),
        ("0.1", 0.1),
        ("123456789.125", 123_456_789.125),
        // An escape is still the same string.
        (r"\u002bInf", f64::INFINITY),
    ] {
        let found = value(text).unwrap();
        assert_eq!(found.to_bits(), expected.to_bits(), "{text}");
    }
    for text in ["", " 1", "nan", "inf", "Infinity", "1e999", "-1e999", "0x10", "1_000", "one"] {
        assert_eq!(value(text), Err(QueryError::NotJson), "{text}");
    }
}

#[test]
fn what_is_no_vector_or_scalar_is_a_typed_error() {
    for (body, reason) in [
        (success("string", r#"[1,"hello"]"#), "ResultTypeString"),
        (success("matrix", r#"[{"metric":{},"values":[[1,"2"]]}]"#), "ResultTypeMatrix"),
        (success("streams", "[]"), "ResultTypeUnknown"),
        (
            success("vector", r#"[{"metric":{},"histogram":[1,{"count":"1","sum":"2","buckets":[]}]}]"#),
            "NativeHistogram",
        ),
        (
            success("vector", r#"[{"metric":{"a":"1"},"value":[1,"2"]},{"metric":{"a":"2"},"histogram":[1,{}]}]"#),
            "NativeHistogram",
        ),
        (
            success(
                "vector",
                r#"[{"metric":{"__name__":"a","x":"1"},"value":[1,"2"]},
                    {"metric":{"__name__":"b","x":"1"},"value":[1,"3"]}]"#,
            ),
            "DuplicateSeries",
        ),
    ] {
        assert_eq!(ask(&body).unwrap_err().reason(), reason, "{body}");
    }
}

#[test]
fn what_is_no_answer_of_the_api_is_not_json() {
    let good = success("vector", r#"[{"metric":{},"value":[1,"2"]}]"#);
    assert!(ask(&good).is_ok());
    for end in 0..good.len() {
        assert_eq!(ask(&good[..end]), Err(QueryError::NotJson), "cut at {end}");
    }
    for body in [
        "<!DOCTYPE html><html>Sign in</html>",
        "null",
        "[]",
        "{}",
        "\u{1f}\u{8b}",
        r#"{"status":"success"}"#,
        r#"{"status":"success","data":null}"#,
        r#"{"status":"success","data":{}}"#,
        r#"{"status":"maybe","data":{"resultType":"vector","result":[]}}"#,
        r#"{"status":"success","status":"success","data":{"resultType":"vector","result":[]}}"#,
        &success("vector", "null"),
        &success("vector", r#"{"a":1}"#),
        &success("vector", r#"[{"value":[1,"2"]}]"#),
        &success("vector", r#"[{"metric":{}}]"#),
        &success("vector", r#"[{"metric":{},"value":[1]}]"#),
        &success("vector", r#"[{"metric":{},"value":[1,"2",3]}]"#),
        &success("vector", r#"[{"metric":{},"value":[1,2]}]"#),
        &success("vector", r#"[{"metric":{},"value":["1","2"]}]"#),
        &success("vector", r#"[{"metric":{},"value":[1e300,"2"]}]"#),
        &success("vector", r#"[{"metric":{"a":1},"value":[1,"2"]}]"#),
        &success("vector", r#"[{"metric":{"a":"1","a":"2"},"value":[1,"2"]}]"#),
        &success("scalar", r#"{"metric":{}}"#),
        &format!("{good} {good}"),
        &success("vector", &"[".repeat(100_000)),
        &success("vector", &format!("{}{}", "[".repeat(100_000), "]".repeat(100_000))),
    ] {
        let shown = body.get(..80).unwrap_or(body);
        assert_eq!(ask(body), Err(QueryError::NotJson), "{shown}");
    }
}

#[test]
fn series_are_counted_beyond_the_limit_and_not_kept() {
    let vector = |count: usize| {
        let elements: Vec<String> =
            (0..count).map(|n| format!(r#"{{"metric":{{"n":"{n}"}},"value":[1,"2"]}}"#)).collect();
        success("vector", &format!("[{}]", elements.join(",")))
    };
    assert_eq!(ask(&vector(MAX_SERIES)).unwrap().len(), MAX_SERIES);
    assert_eq!(
        ask(&vector(MAX_SERIES + 7)),
        Err(QueryError::TooManySeries { found: MAX_SERIES + 7, limit: MAX_SERIES })
    );
}

#[test]
fn warnings_mean_that_something_is_missing_and_hints_do_not() {
    let with = |members: &str| {
        format!(
            r#"{{"status":"success",{members},"data":{{"resultType":"vector","result":[{{"metric":{{}},"value":[1,"2"]}}]}}}}"#
        )
    };
    for members in [
        r#""warnings":[]"#,
        r#""warnings":null"#,
        r#""infos":["PromQL info: metric might not be a counter"]"#,
        r#""warnings":["PromQL info: metric might not be a counter, name does not end in _total"]"#,
    ] {
        assert_eq!(ask(&with(members)).unwrap().len(), 1, "{members}");
    }
    for (members, warnings, promql) in [
        (r#""warnings":["store gateway-3 unreachable hunter2"]"#, 1, false),
        (r#""warnings":["a","PromQL warning: b"]"#, 2, false),
        (r#""warnings":["PromQL warning: bucket label is missing hunter2","PromQL info: c"]"#, 1, true),
    ] {
        let error = ask(&with(members)).unwrap_err();
        assert_eq!(error, QueryError::PartialResult { warnings, promql });
        assert!(!error.to_string().contains("hunter2"));
    }
    let range = r#"{"status":"success","warnings":["x"],"data":{"resultType":"matrix","result":[]}}"#;
    assert_eq!(ask_range(range).unwrap_err().reason(), "PartialResult");
}

#[test]
fn a_matrix_becomes_series() {
    let body = success(
        "matrix",
        r#"[{"metric":{"__name__":"up","job":"a"},"values":[[1.5,"1"],[2.5,"NaN"]]},
            {"metric":{"job":"b"},"values":[]}]"#,
    );
    let series = ask_range(&body).unwrap();
    assert_eq!(series[0].labels, labels(&[("job", "a")]));
    assert_eq!(series[0].points[0], (at(1_500), 1.0));
    assert!(series[0].points[1].1.is_nan());
    assert_eq!(series[1].points, vec![]);

    for (body, reason) in [
        (success("vector", "[]"), "ResultTypeUnknown"),
        (success("matrix", r#"[{"metric":{}}]"#), "NotJson"),
        (success("matrix", r#"[{"metric":{},"values":[[2,"1"],[1,"1"]]}]"#), "NotJson"),
        (success("matrix", r#"[{"metric":{},"values":[[1,"1"],[1,"1"]]}]"#), "NotJson"),
        (success("matrix", r#"[{"metric":{},"histograms":[[1,{}]]}]"#), "NativeHistogram"),
        (success("matrix", r#"[{"metric":{},"values":[[1,"1"]],"histograms":[[2,{}]]}]"#), "NativeHistogram"),
        (
            success("matrix", r#"[{"metric":{"__name__":"a"},"values":[]},{"metric":{"__name__":"b"},"values":[]}]"#),
            "DuplicateSeries",
        ),
    ] {
        assert_eq!(ask_range(&body).unwrap_err().reason(), reason, "{body}");
    }
}

#[test]
fn failures_are_named_by_status_and_error_type() {
    let body = |error_type: &str, error: &str| {
        serde_json::json!({"status": "error", "errorType": error_type, "error": error}).to_string()
    };
    let parse = r#"invalid parameter "query": 1:5: parse error: unclosed left parenthesis"#;
    for (status, body, reason) in [
        (400, body("bad_data", parse), "BadQuery"),
        (400, body("bad_data", r#"invalid parameter "time": hunter2"#), "RequestRefused"),
        (400, body("bad_data", r#"invalid parameter "query": hunter2"#), "RequestRefused"),
        // As 2.42 says it to a range query.
        (400, body("bad_data", "1:5: parse error: unexpected end"), "BadQuery"),
        (400, body("bad_data", "unknown position: parse error: no expression"), "BadQuery"),
        (400, body("bad_data", "hunter2: parse error: hunter2"), "RequestRefused"),
        (400, r#"{"status":"error","errorType":"bad_data"}"#.to_owned(), "RequestRefused"),
        (400, "hunter2".to_owned(), "HttpStatus"),
        (400, String::new(), "HttpStatus"),
        (422, body("execution", "hunter2"), "ExecutionFailed"),
        (503, body("timeout", "hunter2"), "Timeout"),
        (503, body("canceled", "hunter2"), "ServerError"),
        (503, "<html>hunter2".to_owned(), "ServerError"),
        (500, body("internal", "hunter2"), "ServerError"),
        (502, String::new(), "ServerError"),
        (401, body("bad_data", parse), "Unauthorized"),
        (403, "hunter2".to_owned(), "Unauthorized"),
        (404, "hunter2".to_owned(), "HttpStatus"),
        (429, "hunter2".to_owned(), "Throttled"),
        (301, String::new(), "Redirected"),
        (302, String::new(), "Redirected"),
        (304, String::new(), "Redirected"),
        // Not an error, whatever it says.
        (400, success("vector", "[]"), "HttpStatus"),
    ] {
        let error = failure(status, body.as_bytes(), TIMEOUT);
        assert_eq!(error.reason(), reason, "{status} {body}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
    // The same envelope under 200, as some proxies send it.
    for (text, reason) in [
        (body("bad_data", parse), "BadQuery"),
        (body("timeout", ""), "Timeout"),
        (body("internal", "hunter2"), "ServerError"),
        (r#"{"status":"error"}"#.to_owned(), "ServerError"),
    ] {
        assert_eq!(ask(&text).unwrap_err().reason(), reason, "{text}");
    }
}

#[test]
fn the_parse_error_is_short_and_on_one_line() {
    let text =
        format!("invalid parameter \"query\": 1:1: parse error: unexpected \u{1b}[31m\n\u{202e}{}", "x".repeat(10_000));
    let body = serde_json::json!({"status": "error", "errorType": "bad_data", "error": text});
    let QueryError::BadQuery { message } = failure(400, body.to_string().as_bytes(), TIMEOUT) else {
        panic!("no BadQuery");
    };
    assert!(message.starts_with("1:1: parse error: unexpected \\u{1b}[31m\\u{a}\\u{202e}xx"));
    assert!(message.chars().count() < 230, "{message}");
    assert!(!message.chars().any(char::is_control));
}
