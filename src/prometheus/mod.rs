//! The Prometheus client: asks `query` and `query_range`, and turns whatever comes back into
//! samples or into one typed reason why there are none.
//!
//! The promise it keeps for `decide`: an `Ok` answer is a complete, well-formed answer of the
//! Prometheus HTTP API to exactly the question asked. Everything else (a time-out, an HTML page, a
//! redirect, partial data, a histogram) is a [`QueryError`], which is never evidence of a breach.
//!
//! It may not judge samples, know an API object, read a Secret, or let any text a server sent reach a
//! message: error texts end up in status and events, where a tenant could read them. The one exception is
//! Prometheus' own parse error of the user's query ([`QueryError::BadQuery`]).
//!
//! | file | idea |
//! |---|---|
//! | `config` | what a source is: address, credentials, trust |
//! | `address` | which addresses a URL taken from an object may lead to |
//! | `client` | one HTTP client per source; deadline, body cap, no redirects |
//! | `tls` | root certificates and the crypto provider |
//! | `wire` | the JSON of an answer, parsed strictly |
//! | `error` | every failure, by name |
//! | `shared` | many askers, one Prometheus: sharing of identical queries, a limit in flight |
//! | `sources` | the bounded cache of sources and the counters over all of them |

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
pub use k8s_openapi::jiff::Timestamp;

pub mod address;
mod client;
mod config;
mod error;
mod shared;
mod sources;
mod tls;
mod wire;

pub use address::{AddressRules, Network};
pub use client::{MAX_BODY_BYTES, Source};
pub use config::{Auth, DEFAULT_TIMEOUT, Secret, SourceConfig, Trust};
pub use error::QueryError;
pub use shared::SharedSource;
pub use sources::{Counters, CountersSnapshot, Limits, Sources};
pub use wire::MAX_SERIES;

/// The labels of a series, without `__name__`: a recording rule renamed between two evaluations is
/// still the same series to a trigger, as it is to a Prometheus alert.
pub type Labels = BTreeMap<String, String>;

/// One element of an instant vector, or a scalar (which has no labels).
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub labels: Labels,
    /// May be NaN or infinite: what that means is `decide`'s to say.
    pub value: f64,
    /// The evaluation's time as Prometheus states it, not the time of the underlying scrape.
    pub time: Timestamp,
}

/// The answer to an instant query. An empty vector is an answer, not an error.
pub type Answer = Vec<Sample>;

/// One series of a range query, its points in ascending time.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    pub labels: Labels,
    pub points: Vec<(Timestamp, f64)>,
}

/// The answer to a range query.
pub type RangeAnswer = Vec<Series>;

/// Something that answers queries: a [`SharedSource`], or a script in a test.
pub trait QueryBackend: Send + Sync {
    /// The value of `expr` at `time`.
    fn query<'a>(&'a self, expr: &'a str, time: Timestamp) -> BoxFuture<'a, Result<Arc<Answer>, QueryError>>;

    /// The values of `expr` from `start` to `end`, both included, every `step`.
    fn query_range<'a>(
        &'a self,
        expr: &'a str,
        start: Timestamp,
        end: Timestamp,
        step: Duration,
    ) -> BoxFuture<'a, Result<Arc<RangeAnswer>, QueryError>>;
}
