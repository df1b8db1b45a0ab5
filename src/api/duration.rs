//! Durations as users write them: an unsigned subset of Go's, such as `15s`, `1h30m` or `250ms`.
//!
//! `kube`'s own duration type panics on some input and OpenAPI's `format: duration` accepts `3 days` and `-5m`,
//! so the schema here is a pattern with a length, and parsing is checked arithmetic.

use std::{borrow::Cow, fmt, str::FromStr, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// What the API server holds a duration to. One to several `<number><unit>`, units `ms`, `s`, `m`, `h`.
pub const PATTERN: &str = r"^([0-9]{1,9}(\.[0-9]{1,9})?(ms|s|m|h))+$";
const MAX_LENGTH: usize = 32;

/// An unsigned duration in Go's notation. Exact to the nanosecond; at most about 584 years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GoDuration(Duration);

/// Why a text is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not a duration: write numbers with the units ms, s, m or h, such as 15s or 1h30m ({why})")]
pub struct InvalidDuration {
    found: String,
    why: &'static str,
}

impl GoDuration {
    /// A whole number of seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// A whole number of milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// The duration as the standard library counts it.
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl From<GoDuration> for Duration {
    fn from(duration: GoDuration) -> Self {
        duration.0
    }
}

impl FromStr for GoDuration {
    type Err = InvalidDuration;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = |why| InvalidDuration { found: text.chars().take(MAX_LENGTH + 8).collect(), why };
        if text.is_empty() {
            return Err(invalid("it is empty"));
        }
        if text.len() > MAX_LENGTH {
            return Err(invalid("it is longer than 32 characters"));
        }
        let mut total: u64 = 0;
        let mut rest = text;
        while !rest.is_empty() {
            let (nanos, tail) = leading_term(rest).map_err(invalid)?;
            total = total.checked_add(nanos).ok_or_else(|| invalid("it is too long"))?;
            rest = tail;
        }
        Ok(Self(Duration::from_nanos(total)))
    }
}

/// The nanoseconds of the first `<number><unit>` of `text`, and what follows it.
fn leading_term(text: &str) -> Result<(u64, &str), &'static str> {
    let (whole, rest) = digits(text)?;
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => digits(rest)?,
        None => ("", rest),
    };
    // `ms` before `m`: the longer unit wins.
    let (unit, rest) = [("ms", 1_000_000), ("s", 1_000_000_000), ("m", 60_000_000_000), ("h", 3_600_000_000_000)]
        .into_iter()
        .find_map(|(suffix, nanos): (&str, u64)| rest.strip_prefix(suffix).map(|rest| (nanos, rest)))
        .ok_or("a number lacks its unit")?;
    let whole: u64 = whole.parse().map_err(|_| "a number is too large")?;
    let mut nanos = whole.checked_mul(unit).ok_or("it is too long")?;
    if !fraction.is_empty() {
        let numerator: u64 = fraction.parse().map_err(|_| "a fraction is too long")?;
        let scale = 10u128.pow(u32::try_from(fraction.len()).unwrap_or(9));
        let part = u128::from(numerator) * u128::from(unit) / scale;
        nanos = nanos.checked_add(u64::try_from(part).map_err(|_| "it is too long")?).ok_or("it is too long")?;
    }
    Ok((nanos, rest))
}

/// One to nine leading digits of `text`, and what follows them.
fn digits(text: &str) -> Result<(&str, &str), &'static str> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    match end {
        0 => Err("a number is missing"),
        1..=9 => Ok(text.split_at(end)),
        _ => Err("a number has more than nine digits"),
    }
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        let (hours, minutes, seconds) = (millis / 3_600_000, millis / 60_000 % 60, millis / 1000 % 60);
        let mut written = false;
        for (count, unit) in [(hours, "h"), (minutes, "m"), (seconds, "s"), (millis % 1000, "ms")] {
            if count > 0 {
                write!(f, "{count}{unit}")?;
                written = true;
            }
        }
        if written { Ok(()) } else { f.write_str("0s") }
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for GoDuration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "GoDuration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": PATTERN, "minLength": 2, "maxLength": MAX_LENGTH})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_pattern_admits() {
        for (text, millis) in [
            ("0s", 0),
            ("15s", 15_000),
            ("250ms", 250),
            ("1h30m", 5_400_000),
            ("1.5s", 1_500),
            ("0.25h", 900_000),
            ("5m5m", 600_000),
        ] {
            assert_eq!(text.parse::<GoDuration>().unwrap().get().as_millis(), millis, "{text}");
        }
    }

    #[test]
    fn refuses_the_rest_without_panicking() {
        for text in
            ["", "5", "-5m", "3 days", "1d", ".5s", "1.s", "5m ", "٣s", "1234567890s", "999999999h999999999h", "1e9s"]
        {
            assert!(text.parse::<GoDuration>().is_err(), "{text}");
        }
        assert!("1s".repeat(17).parse::<GoDuration>().is_err());
    }

    #[test]
    fn prints_what_it_reads() {
        for text in ["0s", "15s", "250ms", "1h30m", "2h5s", "1s500ms"] {
            assert_eq!(text.parse::<GoDuration>().unwrap().to_string(), text);
        }
    }
}
