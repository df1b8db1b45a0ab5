//! What a source of metrics is: where it answers, who we say we are, and whether its address is
//! trusted. Plain data; the credentials have been read from their Secret by the caller.
//!
//! Two equal configurations are the same source, so they share connections; a rotated credential makes a
//! new one, and requests with the old credential cannot be confused with it.

use std::fmt;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::error::{QueryError, excerpt};

/// The time a query may take from being asked to the last byte of its answer.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// A text that is never shown, not by `{:?}` either.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text` without surrounding white space: `kubectl create secret --from-file` of a file that an
    /// editor wrote ends in a newline, which no header may carry.
    pub fn new(text: &str) -> Self {
        Self(text.trim().to_owned())
    }

    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// How the operator identifies itself to Prometheus or to the proxy before it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Auth {
    #[default]
    None,
    Bearer(Secret),
    Basic {
        user: String,
        password: Secret,
    },
}

/// Who chose the URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trust {
    /// The person who runs the operator (`--prometheus-url`): any address.
    Trusted,
    /// The author of an API object, perhaps a tenant: only addresses that [`super::AddressRules`] allow.
    FromObject,
}

/// A source of metrics, complete with credentials.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SourceConfig {
    /// `http(s)://host[:port][/prefix]`
    pub url: String,
    pub timeout: Duration,
    pub auth: Auth,
    /// Trust these certificates, and only these, for this source.
    pub ca_pem: Option<Vec<u8>>,
    /// Further headers, such as `X-Scope-OrgID`. Their values may be credentials: they are not shown.
    pub headers: Vec<(String, Secret)>,
    pub trust: Trust,
}

impl SourceConfig {
    /// A source without credentials and with the default time-out.
    pub fn new(url: impl Into<String>, trust: Trust) -> Self {
        Self { url: url.into(), timeout: DEFAULT_TIMEOUT, auth: Auth::None, ca_pem: None, headers: Vec::new(), trust }
    }

    /// The addresses of the two API methods below the source's own path.
    pub(super) fn endpoints(&self) -> Result<Endpoints, QueryError> {
        let invalid = |problem| Err(QueryError::UrlInvalid { problem });
        let Ok(url) = Url::parse(self.url.trim()) else {
            return invalid("it is not a URL of the form http(s)://host[:port][/path]");
        };
        if !matches!(url.scheme(), "http" | "https") {
            return invalid("its scheme is neither http nor https");
        }
        if url.host_str().is_none_or(str::is_empty) {
            return invalid("it names no host");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return invalid("it contains credentials; put them in a Secret and name it in secretRef");
        }
        if url.query().is_some() || url.fragment().is_some() {
            return invalid("it has a query or a fragment; give only the base address of Prometheus");
        }
        let below = |method: &str| {
            let mut endpoint = url.clone();
            endpoint.set_path(&format!("{}/api/v1/{method}", url.path().trim_end_matches('/')));
            endpoint
        };
        Ok(Endpoints { query: below("query"), query_range: below("query_range") })
    }

    /// The headers that every request to this source carries.
    pub(super) fn request_headers(&self) -> Result<HeaderMap, QueryError> {
        let mut map = HeaderMap::with_capacity(self.headers.len() + 2);
        map.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        for (name, value) in &self.headers {
            let invalid = |problem| QueryError::HeaderInvalid { name: excerpt(name, 64), problem };
            let parsed =
                HeaderName::try_from(name.as_str()).map_err(|_| invalid("it is not the name of an HTTP header"))?;
            if RESERVED.contains(&parsed) {
                return Err(invalid("the client sets this header itself; for credentials use secretRef"));
            }
            let mut value = HeaderValue::try_from(value.expose())
                .map_err(|_| invalid("its value holds characters that no header may carry"))?;
            value.set_sensitive(true);
            // `append` would send both of two headers that differ in case only, and which of them counts
            // depends on the server.
            if map.insert(parsed, value).is_some() {
                return Err(invalid("it is given twice"));
            }
        }
        Ok(map)
    }
}

/// Where the two API methods are.
#[derive(Debug)]
pub(super) struct Endpoints {
    pub(super) query: Url,
    pub(super) query_range: Url,
}

/// Headers with a meaning for the connection or the form, and those that credentials or the client
/// itself provide. `Accept-Encoding` is among them because an answer must not be compressed: the body cap
/// would then count the wrong bytes.
const RESERVED: [HeaderName; 12] = [
    header::ACCEPT,
    header::ACCEPT_ENCODING,
    header::AUTHORIZATION,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::EXPECT,
    header::HOST,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::USER_AGENT,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn config(url: &str) -> SourceConfig {
        SourceConfig::new(url, Trust::Trusted)
    }

    #[test]
    fn the_api_is_below_the_path_of_the_url() {
        for (url, query) in [
            ("http://prom:9090", "http://prom:9090/api/v1/query"),
            ("http://prom:9090/", "http://prom:9090/api/v1/query"),
            ("http://prom/prefix", "http://prom/prefix/api/v1/query"),
            ("http://prom/prefix/", "http://prom/prefix/api/v1/query"),
            ("https://m/a/b//", "https://m/a/b/api/v1/query"),
            (" http://prom:9090\n", "http://prom:9090/api/v1/query"),
        ] {
            let endpoints = config(url).endpoints().unwrap();
            assert_eq!(endpoints.query.as_str(), query, "{url}");
            assert_eq!(endpoints.query_range.as_str(), format!("{query}_range"));
        }
    }

    #[test]
    fn a_url_that_is_more_or_less_than_a_base_address_is_refused() {
        for url in [
            "",
            "prometheus:9090",
            "ftp://prom",
            "file:///etc/passwd",
            "http://",
            "http://user@prom",
            "http://user:hunter2@prom",
            "http://:hunter2@prom",
            "http://prom/?x=hunter2",
            "http://prom/#hunter2",
            "http://prom:99999",
        ] {
            let error = config(url).endpoints().unwrap_err();
            assert_eq!(error.reason(), "UrlInvalid", "{url}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn headers_are_checked_and_their_values_hidden() {
        let with = |headers: &[(&str, &str)]| {
            let mut config = config("http://prom");
            config.headers = headers.iter().map(|(name, value)| ((*name).to_owned(), Secret::new(value))).collect();
            config
        };
        let good = with(&[("X-Scope-OrgID", "team-a\n")]);
        assert!(!format!("{good:?}").contains("team-a"));
        let map = good.request_headers().unwrap();
        assert_eq!(map.get("x-scope-orgid").unwrap(), "team-a");
        assert!(!format!("{map:?}").contains("team-a"));

        for bad in [
            with(&[("Host", "other")]),
            with(&[("authorization", "Bearer x")]),
            with(&[("Accept-Encoding", "gzip")]),
            with(&[("Transfer-Encoding", "chunked")]),
            with(&[("two words", "x")]),
            with(&[("", "x")]),
            with(&[("x", "a\r\nInjected: yes")]),
            with(&[("X-Tenant", "a"), ("x-tenant", "b")]),
        ] {
            let error = bad.request_headers().unwrap_err();
            assert_eq!(error.reason(), "HeaderInvalid", "{bad:?}");
            assert!(!error.to_string().contains("Injected"));
        }
    }

    #[test]
    fn a_secret_is_not_shown() {
        let mut config = config("http://prom");
        config.auth = Auth::Basic { user: "u".to_owned(), password: Secret::new("hunter2") };
        assert!(!format!("{config:#?}").contains("hunter2"));
        assert_eq!(Secret::new("abc\n").expose(), "abc");
    }
}
