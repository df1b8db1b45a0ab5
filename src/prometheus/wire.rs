//! The JSON of the Prometheus HTTP API, parsed strictly: an answer is exactly what Prometheus documents, or an
//! error. It is the operator's hot path, so the text is walked once into the types of this room, without a tree of
//! JSON values in between.
//!
//! It does no I/O. The text of an answer leaves it only as numbers, labels and [`QueryError::BadQuery`].

use std::borrow::Cow;
use std::collections::HashSet;
use std::collections::btree_map::Entry;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::error::{QueryError, excerpt};
use super::{Answer, Labels, RangeAnswer, Sample, Series, Timestamp};

/// More series than this in one answer is a query that somebody forgot to aggregate, and more state than a
/// trigger can keep.
pub const MAX_SERIES: usize = 1_000;

/// How much of Prometheus' parse error is shown: enough for position and cause.
const PARSE_ERROR_CHARS: usize = 200;

/// Parses the answer of `query`. `timeout` is what was asked for, to be named if Prometheus gave up on it.
pub(super) fn instant(body: &[u8], timeout: Duration) -> Result<Answer, QueryError> {
    let envelope = Envelope::of_success(body, timeout)?;
    let data = envelope.data()?;
    let answer = match data.result_type.as_ref() {
        "vector" => vector(data.result)?,
        "scalar" => vec![Point::parse(data.result)?.into_sample(Labels::new())],
        "string" => return Err(QueryError::ResultTypeString),
        "matrix" => return Err(QueryError::ResultTypeMatrix),
        _ => return Err(QueryError::ResultTypeUnknown),
    };
    envelope.refuse_warnings()?;
    Ok(answer)
}

/// Parses the answer of `query_range`.
pub(super) fn range(body: &[u8], timeout: Duration) -> Result<RangeAnswer, QueryError> {
    let envelope = Envelope::of_success(body, timeout)?;
    let data = envelope.data()?;
    if data.result_type != "matrix" {
        return Err(QueryError::ResultTypeUnknown);
    }
    let answer = matrix(data.result)?;
    envelope.refuse_warnings()?;
    Ok(answer)
}

/// What an answer with a status other than 2xx means. `body` may be empty, cut short or not JSON.
pub(super) fn failure(status: u16, body: &[u8], timeout: Duration) -> QueryError {
    let said = serde_json::from_slice::<Envelope<'_>>(body)
        .ok()
        .filter(|envelope| matches!(envelope.status, Status::Error))
        .and_then(|envelope| envelope.into_failure(timeout));
    match (status, said) {
        // A proxy before Prometheus is who asks for credentials, so the body is not Prometheus' own.
        (401 | 403 | 407, _) => QueryError::Unauthorized { status },
        (300..=399, _) => QueryError::Redirected { status },
        (429, _) => QueryError::Throttled,
        (_, Some(error)) => error,
        (500..=599, _) => QueryError::ServerError { status },
        _ => QueryError::HttpStatus { status },
    }
}

#[derive(Deserialize)]
struct Envelope<'a> {
    status: Status,
    #[serde(borrow, default)]
    data: Option<Data<'a>>,
    #[serde(borrow, default, rename = "errorType")]
    error_type: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    error: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    warnings: Option<Vec<Cow<'a, str>>>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Success,
    Error,
}

/// The result is kept as text until its type is known, whichever comes first.
#[derive(Deserialize)]
struct Data<'a> {
    #[serde(borrow, rename = "resultType")]
    result_type: Cow<'a, str>,
    #[serde(borrow)]
    result: &'a RawValue,
}

impl<'a> Envelope<'a> {
    fn of_success(body: &'a [u8], timeout: Duration) -> Result<Self, QueryError> {
        let envelope: Self = serde_json::from_slice(body).map_err(|_| QueryError::NotJson)?;
        match envelope.status {
            Status::Success => Ok(envelope),
            // Some proxies answer 200 to everything.
            Status::Error => Err(envelope.into_failure(timeout).unwrap_or(QueryError::ServerError { status: 200 })),
        }
    }

    fn data(&self) -> Result<&Data<'a>, QueryError> {
        self.data.as_ref().ok_or(QueryError::NotJson)
    }

    /// The failures that Prometheus names and that mean more than their HTTP status.
    fn into_failure(self, timeout: Duration) -> Option<QueryError> {
        match self.error_type.as_deref()? {
            "bad_data" => self.error.as_deref().and_then(parse_error).or(Some(QueryError::RequestRefused)),
            "execution" => Some(QueryError::ExecutionFailed),
            // Prometheus' own time-out is the one we asked for with `timeout=`.
            "timeout" => Some(QueryError::Timeout { after: timeout }),
            _ => None,
        }
    }

    /// Warnings say that something is missing from the answer. Up to 2.5x, Prometheus listed mere hints
    /// ("metric might not be a counter") among them; newer ones have `infos` for that.
    fn refuse_warnings(&self) -> Result<(), QueryError> {
        let all = self.warnings.as_deref().unwrap_or_default();
        let warnings = all.iter().filter(|warning| !warning.starts_with("PromQL info:"));
        let promql = |warning: &&Cow<'_, str>| warning.starts_with("PromQL warning:");
        match warnings.clone().count() {
            0 => Ok(()),
            count => Err(QueryError::PartialResult {
                warnings: count,
                promql: warnings.clone().all(|warning| promql(&warning)),
            }),
        }
    }
}

/// Prometheus' words about the user's own query, and only those: `1:5: parse error: …`, which 2.x does not
/// always introduce by the name of the parameter. Any other `bad_data` keeps its text to itself.
fn parse_error(error: &str) -> Option<QueryError> {
    let error = error.strip_prefix("invalid parameter \"query\": ").unwrap_or(error);
    let (position, _) = error.split_once(": parse error: ")?;
    let numbers = |position: &str| {
        let digit_or_colon = |byte: u8| byte.is_ascii_digit() || byte == b':';
        position.bytes().all(digit_or_colon)
    };
    (numbers(position) || matches!(position, "unknown position" | "invalid position"))
        .then(|| QueryError::BadQuery { message: excerpt(error, PARSE_ERROR_CHARS) })
}

fn vector(result: &RawValue) -> Result<Answer, QueryError> {
    let elements: Bounded<VectorElement> = parse(result)?;
    let answer = elements
        .within_limit()?
        .into_iter()
        .map(|element| match (element.value, element.histogram) {
            (_, Some(_)) => Err(QueryError::NativeHistogram),
            (Some(point), None) => Ok(point.into_sample(element.metric)),
            (None, None) => Err(QueryError::NotJson),
        })
        .collect::<Result<Answer, _>>()?;
    refuse_duplicates(answer.iter().map(|sample| &sample.labels))?;
    Ok(answer)
}

fn matrix(result: &RawValue) -> Result<RangeAnswer, QueryError> {
    let elements: Bounded<MatrixElement> = parse(result)?;
    let answer = elements
        .within_limit()?
        .into_iter()
        .map(|element| {
            if element.histograms.is_some() {
                return Err(QueryError::NativeHistogram);
            }
            let points = element.values.ok_or(QueryError::NotJson)?;
            let points: Vec<_> = points.into_iter().map(|p| (p.time, p.value)).collect();
            if !points.is_sorted_by(|(a, _), (b, _)| a < b) {
                return Err(QueryError::NotJson);
            }
            Ok(Series { labels: element.metric.0, points })
        })
        .collect::<Result<RangeAnswer, _>>()?;
    refuse_duplicates(answer.iter().map(|series| &series.labels))?;
    Ok(answer)
}

fn parse<'a, T: Deserialize<'a>>(text: &'a RawValue) -> Result<T, QueryError> {
    serde_json::from_str(text.get()).map_err(|_| QueryError::NotJson)
}

/// Without their names, two series may have become one; a trigger could not tell whose timer is whose.
fn refuse_duplicates<'a>(mut labels: impl ExactSizeIterator<Item = &'a Labels>) -> Result<(), QueryError> {
    let mut seen = HashSet::with_capacity(labels.len());
    if labels.len() < 2 || labels.all(|labels| seen.insert(labels)) { Ok(()) } else { Err(QueryError::DuplicateSeries) }
}

#[derive(Deserialize)]
struct VectorElement {
    metric: Metric,
    #[serde(default)]
    value: Option<Point>,
    #[serde(default)]
    histogram: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct MatrixElement {
    metric: Metric,
    #[serde(default)]
    values: Option<Vec<Point>>,
    #[serde(default)]
    histograms: Option<IgnoredAny>,
}

/// `[1700000000.123, "0.25"]`
#[derive(Debug, Deserialize)]
#[serde(try_from = "(f64, Value)")]
struct Point {
    time: Timestamp,
    value: f64,
}

impl Point {
    fn parse(text: &RawValue) -> Result<Self, QueryError> {
        parse(text)
    }

    fn into_sample(self, labels: impl Into<Labels>) -> Sample {
        Sample { labels: labels.into(), value: self.value, time: self.time }
    }
}

impl TryFrom<(f64, Value)> for Point {
    type Error = &'static str;

    fn try_from((seconds, Value(value)): (f64, Value)) -> Result<Self, Self::Error> {
        // Prometheus' time has milliseconds; more digits are a float's noise. The cast saturates, and what is out of
        // range is then refused by the timestamp.
        let time =
            Timestamp::from_millisecond((seconds * 1_000.0).round() as i64).map_err(|_| "a time out of range")?;
        Ok(Self { time, value })
    }
}

/// A float as Go prints it, in quotes.
struct Value(f64);

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a sample value in quotes")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
                float(text).map(Value).ok_or_else(|| E::custom("no float"))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// Go's spelling only: Rust would also take `infinity`, `nan` and `1e999`.
fn float(text: &str) -> Option<f64> {
    match text {
        "NaN" => Some(f64::NAN),
        "+Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        _ => text.parse().ok().filter(|value: &f64| value.is_finite()),
    }
}

/// The labels of a series but its name.
struct Metric(Labels);

impl From<Metric> for Labels {
    fn from(Metric(labels): Metric) -> Self {
        labels
    }
}

impl<'de> Deserialize<'de> for Metric {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Metric;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of labels")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Metric, A::Error> {
                let mut labels = Labels::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__name__" {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    match labels.entry(name) {
                        Entry::Vacant(entry) => entry.insert(map.next_value()?),
                        Entry::Occupied(_) => return Err(de::Error::custom("a label twice")),
                    };
                }
                Ok(Metric(labels))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

/// A list of which at most [`MAX_SERIES`] are kept; the rest is counted.
struct Bounded<T> {
    kept: Vec<T>,
    found: usize,
}

impl<T> Bounded<T> {
    fn within_limit(self) -> Result<Vec<T>, QueryError> {
        if self.found > MAX_SERIES {
            return Err(QueryError::TooManySeries { found: self.found, limit: MAX_SERIES });
        }
        Ok(self.kept)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Bounded<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
            type Value = Bounded<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of series")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Bounded<T>, A::Error> {
                let mut kept = Vec::new();
                while kept.len() < MAX_SERIES {
                    match list.next_element()? {
                        Some(element) => kept.push(element),
                        None => break,
                    }
                }
                let mut found = kept.len();
                while list.next_element::<IgnoredAny>()?.is_some() {
                    found += 1;
                }
                Ok(Bounded { kept, found })
            }
        }
        deserializer.deserialize_seq(List(PhantomData))
    }
}

#[cfg(test)]
mod tests;
