//! One HTTP client for one source: asks, bounds what comes back in time and size, and names what went wrong.
//!
//! - The deadline covers everything from the first packet to the last byte of the body, so an answer that drips ends at
//!   the deadline like one that never came.
//! - The body is capped while it arrives, and compression is never asked for: four mebibytes stay four mebibytes.
//! - Redirects are not followed: they could lead past the address rules, and would carry the credentials along.
//! - `HTTP_PROXY` and the like are ignored: metrics are inside the cluster, and a proxy would resolve names
//!   itself, past the address rules.
//! - Connections are kept and reused, below the minute after which common proxies drop them silently.
//!
//! It may not share or limit requests (`shared` does), nor look into a body (`wire` does).

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::fmt::rfc2822;
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Client, Request, Response, StatusCode, Url, redirect};
use tokio::time::{Instant, timeout_at};

use super::address::{AddressRules, Guard, Refused};
use super::config::{Auth, Endpoints, Secret, SourceConfig, Trust};
use super::error::QueryError;
use super::{Answer, RangeAnswer, Timestamp, tls, wire};

/// The longest answer that is read.
pub const MAX_BODY_BYTES: usize = 4 << 20;

/// What is read of an answer that is an error anyway: enough for any parse error of a query.
const MAX_ERROR_BODY_BYTES: usize = 64 << 10;

const USER_AGENT: &str = concat!("learning-rollout-operator/", env!("CARGO_PKG_VERSION"));

/// Shorter than the usual idle time-out of proxies (60 s), so that we close before they do.
const IDLE_CONNECTION: Duration = Duration::from_secs(50);

/// Clocks that differ by more than this make an explicit `time=` meaningless: well above what NTP lets pass,
/// well below Prometheus' look-back of five minutes.
const MAX_CLOCK_SKEW_SECONDS: i64 = 30;

/// A client for one source of metrics.
#[derive(Debug)]
pub struct Source {
    client: Client,
    endpoints: Endpoints,
    /// Basic credentials; a bearer token is among the client's headers.
    basic: Option<(String, Secret)>,
    timeout: Duration,
}

impl Source {
    /// Checks the whole configuration, without connecting. `rules` bind only a source that comes from an object.
    pub fn new(config: &SourceConfig, rules: &Arc<AddressRules>) -> Result<Self, QueryError> {
        let endpoints = config.endpoints()?;
        let mut headers = config.request_headers()?;
        let basic = credentials(&config.auth, &mut headers)?;

        let mut builder = Client::builder()
            .user_agent(USER_AGENT)
            .default_headers(headers)
            .redirect(redirect::Policy::none())
            .referer(false)
            .no_proxy()
            .pool_idle_timeout(IDLE_CONNECTION)
            .tcp_keepalive(Duration::from_secs(30))
            .http2_keep_alive_interval(Duration::from_secs(20))
            .http2_keep_alive_timeout(Duration::from_secs(10));
        if config.trust == Trust::FromObject {
            rules.check_literal(&endpoints.query).map_err(|Refused(cause)| QueryError::AddressRefused { cause })?;
            builder = builder.dns_resolver(Guard { rules: Arc::clone(rules) });
        }
        let https = endpoints.query.scheme() == "https";
        let client = tls::with_roots(builder, config, https)?.build().map_err(|_| QueryError::ClientUnavailable {
            problem: if config.ca_pem.is_some() {
                "the certificates in caSecretRef cannot be used"
            } else {
                "this machine has no usable root certificates; name a CA in prometheus.caSecretRef"
            },
        })?;
        Ok(Self { client, endpoints, basic, timeout: config.timeout })
    }

    /// The time a query may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The value of `expr` at `time`.
    pub async fn query(&self, expr: &str, time: Timestamp) -> Result<Answer, QueryError> {
        self.query_until(Instant::now() + self.timeout, expr, time).await
    }

    /// [`Source::query`] for a caller that has already used some of the time.
    pub(super) async fn query_until(
        &self,
        deadline: Instant,
        expr: &str,
        time: Timestamp,
    ) -> Result<Answer, QueryError> {
        let form = [
            ("query", expr),
            ("time", &unix_seconds(time)),
            ("timeout", &seconds(deadline.saturating_duration_since(Instant::now()))),
        ];
        let body = self.ask(deadline, &self.endpoints.query, &form).await?;
        wire::instant(&body, self.timeout)
    }

    /// The values of `expr` from `start` to `end`, both included, every `step`.
    pub async fn query_range(
        &self,
        expr: &str,
        start: Timestamp,
        end: Timestamp,
        step: Duration,
    ) -> Result<RangeAnswer, QueryError> {
        self.query_range_until(Instant::now() + self.timeout, expr, start, end, step).await
    }

    /// [`Source::query_range`] for a caller that has already used some of the time.
    pub(super) async fn query_range_until(
        &self,
        deadline: Instant,
        expr: &str,
        start: Timestamp,
        end: Timestamp,
        step: Duration,
    ) -> Result<RangeAnswer, QueryError> {
        let form = [
            ("query", expr),
            ("start", &unix_seconds(start)),
            ("end", &unix_seconds(end)),
            ("step", &seconds(step)),
            ("timeout", &seconds(deadline.saturating_duration_since(Instant::now()))),
        ];
        let body = self.ask(deadline, &self.endpoints.query_range, &form).await?;
        wire::range(&body, self.timeout)
    }

    /// The body of a successful answer.
    async fn ask(&self, deadline: Instant, url: &Url, form: &[(&str, &str)]) -> Result<Vec<u8>, QueryError> {
        let mut request = self.client.post(url.clone()).form(form);
        if let Some((user, password)) = &self.basic {
            request = request.basic_auth(user, Some(password.expose()));
        }
        // The URL and the headers were checked when the source was made.
        let request =
            request.build().map_err(|_| QueryError::ClientUnavailable { problem: "the request could not be built" })?;
        timeout_at(deadline, self.exchange(request)).await.unwrap_or(Err(QueryError::Timeout { after: self.timeout }))
    }

    async fn exchange(&self, request: Request) -> Result<Vec<u8>, QueryError> {
        let sent = Timestamp::now();
        let response = self.send(request).await?;
        let received = Timestamp::now();
        let status = response.status();
        if status.is_success() {
            let skew = clock_skew(response.headers(), sent, received);
            let body = read(response, MAX_BODY_BYTES).await?;
            return match skew {
                Some(seconds) => Err(QueryError::ClockSkew { seconds }),
                None => Ok(body),
            };
        }
        let body = match status {
            StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY | StatusCode::SERVICE_UNAVAILABLE => {
                // The status says enough if the body cannot be read.
                read(response, MAX_ERROR_BODY_BYTES).await.unwrap_or_default()
            }
            _ => Vec::new(),
        };
        Err(wire::failure(status.as_u16(), &body, self.timeout))
    }

    /// Sends, and once more if the connection ended before an answer began: a kept connection that the
    /// server closes in the very moment of our request is an everyday event, and must not cost the
    /// evaluation that completes a window. A query has no effects, so asking twice is safe; the deadline
    /// covers both.
    async fn send(&self, request: Request) -> Result<Response, QueryError> {
        let again = request.try_clone();
        match (self.client.execute(request).await, again) {
            (Ok(response), _) => Ok(response),
            (Err(error), Some(again)) if error.is_request() && !error.is_connect() => {
                self.client.execute(again).await.map_err(|e| describe(&e))
            }
            (Err(error), _) => Err(describe(&error)),
        }
    }
}

/// Puts a bearer token among `headers`; returns basic credentials.
fn credentials(auth: &Auth, headers: &mut HeaderMap) -> Result<Option<(String, Secret)>, QueryError> {
    let missing = |what: &str| QueryError::CredentialsMissing { what: what.to_owned() };
    match auth {
        Auth::None => Ok(None),
        Auth::Bearer(token) if token.expose().is_empty() => Err(missing("the bearer token is empty")),
        Auth::Bearer(token) => {
            let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose()))
                .map_err(|_| QueryError::CredentialsInvalid)?;
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
            Ok(None)
        }
        Auth::Basic { user, .. } if user.is_empty() => Err(missing("the user name is empty")),
        // The first colon ends the user name (RFC 7617).
        Auth::Basic { user, .. } if user.contains(':') => Err(QueryError::CredentialsInvalid),
        Auth::Basic { user, password } => Ok(Some((user.clone(), password.clone()))),
    }
}

/// Reads a body of at most `limit` bytes.
async fn read(mut response: Response, limit: usize) -> Result<Vec<u8>, QueryError> {
    let too_large = QueryError::BodyTooLarge { limit };
    let announced = response.content_length().unwrap_or(0);
    if announced > limit as u64 {
        return Err(too_large);
    }
    // What is announced is only a promise: do not take memory for more than is usual.
    let mut body = Vec::with_capacity(announced.min(16 << 10) as usize);
    while let Some(chunk) = response.chunk().await.map_err(|_| QueryError::ConnectionLost)? {
        if chunk.len() > limit - body.len() {
            return Err(too_large);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// How far the server's clock is from ours, if that is too far. The `Date` of an answer was written at some time
/// between `sent` and `received`, and has whole seconds.
fn clock_skew(headers: &HeaderMap, sent: Timestamp, received: Timestamp) -> Option<u64> {
    let date = headers.get(header::DATE)?.to_str().ok()?;
    let theirs = rfc2822::DateTimeParser::new().relaxed_weekday(true).parse_timestamp(date).ok()?.as_second();
    let behind = sent.as_second().saturating_sub(theirs.saturating_add(1));
    let ahead = theirs.saturating_sub(received.as_second());
    let skew = behind.max(ahead);
    (skew > MAX_CLOCK_SKEW_SECONDS).then_some(skew.unsigned_abs())
}

/// Our words for a failure to get an answer. The library's own texts hold addresses and names that others chose.
fn describe(error: &reqwest::Error) -> QueryError {
    let unreachable = |cause| QueryError::Unreachable { cause };
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(cause) = next {
        if let Some(&Refused(cause)) = cause.downcast_ref() {
            return QueryError::AddressRefused { cause };
        }
        if let Some(error) = cause.downcast_ref() {
            return QueryError::TlsFailed { cause: tls::describe(error) };
        }
        let io: Option<&io::Error> = cause.downcast_ref();
        match io.map(io::Error::kind) {
            Some(io::ErrorKind::ConnectionRefused) => {
                return unreachable("nothing listens at that address (connection refused)");
            }
            Some(io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable) => {
                return unreachable("there is no route to that address");
            }
            Some(io::ErrorKind::TimedOut) => return unreachable("the address does not answer"),
            _ => {}
        }
        // An `io::Error` passes over the error it wraps when asked for its source.
        next = match io.and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => cause.source(),
        };
    }
    if error.is_dns() {
        unreachable("its host name does not resolve")
    } else if error.is_connect() {
        unreachable("no connection to that address")
    } else {
        unreachable("the connection ended before an answer began")
    }
}

/// Unix time with milliseconds, as exact text rather than by way of a float.
fn unix_seconds(time: Timestamp) -> String {
    let milliseconds = time.as_millisecond();
    let sign = if milliseconds < 0 { "-" } else { "" };
    let milliseconds = milliseconds.unsigned_abs();
    format!("{sign}{}.{:03}", milliseconds / 1_000, milliseconds % 1_000)
}

/// A duration as seconds with milliseconds, at least one of them: Prometheus refuses a zero step.
fn seconds(duration: Duration) -> String {
    let milliseconds = duration.as_millis().max(1);
    format!("{}.{:03}", milliseconds / 1_000, milliseconds % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_exact_milliseconds() {
        for (milliseconds, text) in [
            (0, "0.000"),
            (1_700_000_000_123, "1700000000.123"),
            (1_700_000_000_007, "1700000000.007"),
            (-1, "-0.001"),
            (-1_500, "-1.500"),
        ] {
            let time = Timestamp::from_millisecond(milliseconds).unwrap();
            assert_eq!(unix_seconds(time), text);
        }
        assert_eq!(seconds(Duration::from_millis(15_250)), "15.250");
        assert_eq!(seconds(Duration::from_nanos(1)), "0.001");
    }

    #[test]
    fn clocks_are_compared_with_the_whole_exchange() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let (sent, received) = (at(784_111_777), at(784_111_787));
        for (date, skew) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", None),
            ("Sun, 06 Nov 1994 08:49:40 GMT", None),
            // Half a minute before it was sent, half a minute after it was received.
            ("Sun, 06 Nov 1994 08:49:06 GMT", None),
            ("Sun, 06 Nov 1994 08:49:05 GMT", Some(31)),
            ("Sun, 06 Nov 1994 08:50:17 GMT", None),
            ("Sun, 06 Nov 1994 08:50:18 GMT", Some(31)),
            ("Sun, 06 Nov 1994 09:49:37 GMT", Some(3_590)),
            // What counts is the date, not its weekday.
            ("Mon, 06 Nov 1994 09:49:37 GMT", Some(3_590)),
            ("yesterday", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::DATE, HeaderValue::from_str(date).unwrap());
            assert_eq!(clock_skew(&headers, sent, received), skew, "{date}");
        }
        assert_eq!(clock_skew(&HeaderMap::new(), sent, received), None);
    }

    #[test]
    fn a_source_is_checked_before_it_is_used() {
        let rules = Arc::new(AddressRules::default());
        let reason = |change: &dyn Fn(&mut SourceConfig)| {
            let mut config = SourceConfig::new("http://203.0.113.1:9090", Trust::FromObject);
            change(&mut config);
            Source::new(&config, &rules).err().map(|e| e.reason())
        };
        assert_eq!(reason(&|_| {}), None);
        for (expected, change) in [
            ("UrlInvalid", &(|c: &mut SourceConfig| c.url = "x".to_owned()) as &dyn Fn(&mut SourceConfig)),
            ("AddressRefused", &|c| c.url = "http://0x7f.1".to_owned()),
            ("CredentialsMissing", &|c| {
                c.auth = Auth::Bearer(Secret::new("\n"));
            }),
            ("CredentialsInvalid", &|c| {
                c.auth = Auth::Bearer(Secret::new("a\nb"));
            }),
            ("CredentialsInvalid", &|c| {
                c.auth = Auth::Basic { user: "a:b".to_owned(), password: Secret::new("x") };
            }),
            ("CaInvalid", &|c| c.ca_pem = Some(b"no certificate".to_vec())),
            ("CaInvalid", &|c| {
                c.ca_pem = Some(b"-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----".to_vec());
            }),
        ] {
            assert_eq!(reason(change), Some(expected));
        }
    }
}
