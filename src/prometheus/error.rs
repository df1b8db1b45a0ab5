//! Every way in which a query can fail to give an answer, by name.
//!
//! [`QueryError::reason`] is the short word for conditions, status and metric labels; `Display` says what was
//! found and what to do. Both are made only of our own words and numbers. Text from a server never
//! gets in, with one exception: [`QueryError::BadQuery`].

use std::time::Duration;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    #[error(
        "Prometheus did not answer within {}; raise prometheus.timeout or make the query cheaper",
        seconds(*.after)
    )]
    Timeout { after: Duration },

    #[error(
        "the query waited {} behind others to the same Prometheus, which is slower than it is asked",
        seconds(*.after)
    )]
    Busy { after: Duration },

    #[error("Prometheus could not be reached: {cause}")]
    Unreachable { cause: &'static str },

    #[error("the connection to Prometheus broke before the answer was complete")]
    ConnectionLost,

    #[error("no TLS connection to Prometheus: {cause}")]
    TlsFailed { cause: &'static str },

    #[error("the address of prometheus.url is refused: {cause}")]
    AddressRefused { cause: &'static str },

    #[error("prometheus.url is refused: {problem}")]
    UrlInvalid { problem: &'static str },

    /// `name` is the user's own word, shortened and escaped.
    #[error("header {name} is refused: {problem}")]
    HeaderInvalid { name: String, problem: &'static str },

    #[error("the CA certificates are refused: {problem}")]
    CaInvalid { problem: &'static str },

    /// `what` is the caller's: which Secret or key is missing.
    #[error("no credentials for Prometheus: {what}")]
    CredentialsMissing { what: String },

    #[error("the credentials for Prometheus hold characters that no HTTP header may carry")]
    CredentialsInvalid,

    #[error("the HTTP client could not be set up: {problem}")]
    ClientUnavailable { problem: &'static str },

    #[error("Prometheus refused the credentials (HTTP {status}); see prometheus.secretRef")]
    Unauthorized { status: u16 },

    #[error(
        "Prometheus redirected (HTTP {status}); redirects are not followed: give the final address as prometheus.url"
    )]
    Redirected { status: u16 },

    #[error("Prometheus asks for fewer requests (HTTP 429)")]
    Throttled,

    #[error("unexpected answer, HTTP {status}; is prometheus.url the address of a Prometheus?")]
    HttpStatus { status: u16 },

    #[error("Prometheus failed (HTTP {status})")]
    ServerError { status: u16 },

    /// `message` is Prometheus' parse error of the user's query, shortened and escaped.
    #[error("Prometheus cannot parse the query: {message}")]
    BadQuery { message: String },

    #[error(
        "Prometheus can parse the query but refuses the request; a range may have too many points, or the query's value be neither scalar nor instant vector"
    )]
    RequestRefused,

    #[error("Prometheus could not carry out the query; run it by hand to see why")]
    ExecutionFailed,

    #[error("the answer is not JSON of the Prometheus HTTP API; is prometheus.url right?")]
    NotJson,

    #[error("the answer is longer than {limit} bytes; aggregate the query, for example with sum or max")]
    BodyTooLarge { limit: usize },

    #[error("the answer has {found} series, more than {limit}; aggregate the query, for example with sum or max")]
    TooManySeries { found: usize, limit: usize },

    #[error("several series differ only in their name; select one name or aggregate")]
    DuplicateSeries,

    #[error("the query's value is a string; a number is needed")]
    ResultTypeString,

    #[error("the query's value is a range vector; wrap it, for example in rate() or max_over_time()")]
    ResultTypeMatrix,

    #[error("the answer's result type is none of those a Prometheus gives to this kind of query")]
    ResultTypeUnknown,

    #[error(
        "the query's value is a native histogram; wrap it, for example in histogram_quantile() or histogram_count()"
    )]
    NativeHistogram,

    #[error("{}", partial(*.warnings, *.promql))]
    PartialResult {
        warnings: usize,
        /// All of them are annotations of the PromQL engine, not of the storage.
        promql: bool,
    },

    #[error(
        "the clocks of Prometheus and of the operator differ by {seconds} s; samples cannot be placed in time until they agree"
    )]
    ClockSkew { seconds: u64 },
}

/// One list gives both the reason of an error and the list of all reasons, so that they cannot disagree.
macro_rules! reasons {
    ($($variant:pat => $reason:literal,)*) => {
        impl QueryError {
            /// All reasons, so that a metric can have every one of its labels from the start.
            pub const REASONS: &'static [&'static str] = &[$($reason),*];

            /// The failure in one CamelCase word, for conditions, status and metrics.
            pub fn reason(&self) -> &'static str {
                match self {
                    $($variant => $reason,)*
                }
            }
        }
    };
}

reasons! {
    QueryError::Timeout { .. } => "Timeout",
    QueryError::Busy { .. } => "Busy",
    QueryError::Unreachable { .. } => "Unreachable",
    QueryError::ConnectionLost => "ConnectionLost",
    QueryError::TlsFailed { .. } => "TlsFailed",
    QueryError::AddressRefused { .. } => "AddressRefused",
    QueryError::UrlInvalid { .. } => "UrlInvalid",
    QueryError::HeaderInvalid { .. } => "HeaderInvalid",
    QueryError::CaInvalid { .. } => "CaInvalid",
    QueryError::CredentialsMissing { .. } => "CredentialsMissing",
    QueryError::CredentialsInvalid => "CredentialsInvalid",
    QueryError::ClientUnavailable { .. } => "ClientUnavailable",
    QueryError::Unauthorized { .. } => "Unauthorized",
    QueryError::Redirected { .. } => "Redirected",
    QueryError::Throttled => "Throttled",
    QueryError::HttpStatus { .. } => "HttpStatus",
    QueryError::ServerError { .. } => "ServerError",
    QueryError::BadQuery { .. } => "BadQuery",
    QueryError::RequestRefused => "RequestRefused",
    QueryError::ExecutionFailed => "ExecutionFailed",
    QueryError::NotJson => "NotJson",
    QueryError::BodyTooLarge { .. } => "BodyTooLarge",
    QueryError::TooManySeries { .. } => "TooManySeries",
    QueryError::DuplicateSeries => "DuplicateSeries",
    QueryError::ResultTypeString => "ResultTypeString",
    QueryError::ResultTypeMatrix => "ResultTypeMatrix",
    QueryError::ResultTypeUnknown => "ResultTypeUnknown",
    QueryError::NativeHistogram => "NativeHistogram",
    QueryError::PartialResult { .. } => "PartialResult",
    QueryError::ClockSkew { .. } => "ClockSkew",
}

fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs_f64())
}

fn partial(warnings: usize, promql: bool) -> String {
    let plural = if warnings == 1 { "warning" } else { "warnings" };
    if promql {
        format!(
            "Prometheus gave {warnings} {plural} that it left samples out while computing; run the query by hand to see them"
        )
    } else {
        format!("Prometheus gave {warnings} {plural} that the answer may lack data")
    }
}

/// At most `limit` characters of a foreign text on one line, nothing in it that could steer a terminal or
/// reorder text: control characters, line separators and bidirectional marks are escaped.
pub(super) fn excerpt(text: &str, limit: usize) -> String {
    let mut short = String::with_capacity(text.len().min(limit));
    let mut left = limit;
    for character in text.trim().chars() {
        if left == 0 {
            short.push('…');
            break;
        }
        left -= 1;
        if character.is_control() || steers(character) {
            short.extend(character.escape_unicode());
        } else {
            short.push(character);
        }
    }
    short
}

fn steers(character: char) -> bool {
    matches!(
        character,
        '\u{00AD}'
            | '\u{061C}'
            | '\u{200B}'..='\u{200F}'
            | '\u{2028}'..='\u{202E}'
            | '\u{2060}'..='\u{206F}'
            | '\u{FEFF}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_short_and_harmless() {
        for (text, expected) in [
            ("parse error", "parse error"),
            ("  a\nb\tc  ", "a\\u{a}b\\u{9}c"),
            ("\u{1b}[31mred", "\\u{1b}[31mred"),
            ("\u{202e}evil", "\\u{202e}evil"),
            ("exactly ten", "exactly te…"),
        ] {
            let limit = if text.starts_with("exactly") { 10 } else { 20 };
            assert_eq!(excerpt(text, limit), expected);
        }
        assert_eq!(excerpt(&"é".repeat(500), 200).chars().count(), 201);
    }

    #[test]
    fn messages_say_what_was_found() {
        let timeout = QueryError::Timeout { after: Duration::from_millis(2500) };
        assert!(timeout.to_string().contains("2.5 s"), "{timeout}");
        let one = QueryError::PartialResult { warnings: 1, promql: false };
        assert!(one.to_string().contains("1 warning that"), "{one}");
    }

    #[test]
    fn reasons_are_camel_case_and_distinct() {
        let mut reasons = QueryError::REASONS.to_vec();
        reasons.sort_unstable();
        reasons.dedup();
        assert_eq!(reasons.len(), QueryError::REASONS.len());
        for reason in reasons {
            assert!(reason.chars().all(|c| c.is_ascii_alphanumeric()));
            assert!(reason.starts_with(|c: char| c.is_ascii_uppercase()));
        }
    }
}
