//! When to ask, and what exactly: instants spread over the interval, queries with their names filled in.
//!
//! Instants lie on a grid that depends only on what is asked. Rollouts that ask the same queries ask them at the same
//! instants, so that one request can serve all of them; others are spread, so that a thousand rollouts are no stampede.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::instant;
use crate::api::rollout::{Comparison, Trigger};

/// What a query may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names<'a> {
    /// `$(namespace)`: namespace of the rollout.
    pub namespace: &'a str,
    /// `$(name)`: name of the rollout.
    pub name: &'a str,
    /// `$(cluster)`: the operator's `--cluster-name`.
    pub cluster: &'a str,
}

impl Names<'_> {
    /// Fills the names into a query. Each is escaped so that it cannot leave the string literal it stands in; any other
    /// `$(…)` is left as it is.
    pub fn expand(&self, query: &str) -> String {
        let mut expanded = String::with_capacity(query.len() + 32);
        let mut rest = query;
        while let Some(start) = rest.find("$(") {
            let (head, tail) = rest.split_at(start);
            expanded.push_str(head);
            let named = [("$(namespace)", self.namespace), ("$(name)", self.name), ("$(cluster)", self.cluster)]
                .into_iter()
                .find_map(|(variable, value)| tail.strip_prefix(variable).map(|rest| (value, rest)));
            match named {
                Some((value, after)) => {
                    escape(value, &mut expanded);
                    rest = after;
                }
                None => {
                    let after = tail.get(2..).unwrap_or_default();
                    expanded.push_str("$(");
                    rest = after;
                }
            }
        }
        expanded.push_str(rest);
        expanded
    }
}

/// Escapes what could end a PromQL string literal of any of the three kinds of quotes.
fn escape(value: &str, into: &mut String) {
    for c in value.chars() {
        match c {
            '\\' | '"' | '\'' | '`' => into.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if c.is_control() => into.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => into.push(c),
        }
    }
}

/// FNV-1a: the same number for the same input on every machine and in every release, which `std` does not promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(u64);

impl Default for Fingerprint {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fingerprint {
    /// Takes in a text, told apart from its neighbours by its length.
    #[must_use]
    pub fn text(self, text: &str) -> Self {
        self.number(text.len() as u64).bytes(text.as_bytes())
    }

    /// Takes in a number.
    #[must_use]
    pub fn number(self, number: u64) -> Self {
        self.bytes(&number.to_le_bytes())
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Of the queries that are asked at the same instants, in any order.
    pub fn queries<'a>(queries: impl IntoIterator<Item = &'a str>) -> Self {
        let mut queries: Vec<&str> = queries.into_iter().collect();
        queries.sort_unstable();
        queries.dedup();
        queries.into_iter().fold(Self::default(), Self::text)
    }

    /// Of what a trigger asks: answers to another question are no evidence.
    pub(super) fn question(trigger: &Trigger, query: &str) -> u64 {
        let mut print = Self::default().text(query).comparison(&trigger.comparison).number(trigger.series as u64);
        if let Some(gate) = &trigger.gate {
            print = print.text("gate").text(&gate.query).comparison(&gate.comparison);
        }
        if let Some(baseline) = &trigger.baseline {
            print = print.text("baseline").number(baseline.compare as u64).limit(baseline.floor);
            print = print.text(baseline.query.as_deref().unwrap_or_default());
            print = print.number(baseline.captured.as_ref().map_or(0, |captured| captured.window.get().as_secs()));
        }
        print.get()
    }

    fn comparison(self, comparison: &Comparison) -> Self {
        [comparison.above, comparison.below, comparison.at_least, comparison.at_most]
            .into_iter()
            .fold(self, Self::limit)
            .number(u64::from(comparison.present == Some(true)))
    }

    fn limit(self, limit: Option<f64>) -> Self {
        match limit {
            Some(limit) => self.number(1).number(limit.to_bits()),
            None => self.number(0),
        }
    }

    fn bytes(self, bytes: &[u8]) -> Self {
        Self(bytes.iter().fold(self.0, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)))
    }
}

/// Where on the interval a grid lies: below `interval`.
pub fn offset(print: Fingerprint, interval: Duration) -> Duration {
    Duration::from_millis(mixed(print) % millis(interval))
}

/// The first evaluation after a start: spread over the first second, or over the interval if that is shorter.
pub fn first(now: Timestamp, interval: Duration, print: Fingerprint) -> Timestamp {
    let spread = Duration::from_millis(mixed(print) % millis(interval).min(1000));
    instant::after(instant::whole_millis(now), spread)
}

/// The grid instant strictly after a moment.
pub fn tick(after: Timestamp, interval: Duration, offset: Duration) -> Timestamp {
    let step = i128::from(millis(interval)) * 1_000_000;
    let into = (after.as_nanosecond() - instant::nanos(offset)).rem_euclid(step);
    instant::from_nanos(after.as_nanosecond() - into + step)
}

/// The next instant to evaluate, once the answers for `evaluated` have been judged at the time `now`.
///
/// A window that is complete before the next grid instant is judged at that very moment, even where it has just gone
/// by while the answers were on their way: `time=` asks about it all the same. Grid instants that went by are left out.
pub fn next(
    evaluated: Timestamp,
    now: Timestamp,
    interval: Duration,
    offset: Duration,
    due: impl IntoIterator<Item = Timestamp>,
) -> Timestamp {
    let tick = tick(evaluated.max(now), interval, offset);
    due.into_iter().filter(|due| *due > evaluated).fold(tick, Ord::min)
}

fn millis(interval: Duration) -> u64 {
    u64::try_from(interval.as_millis()).unwrap_or(u64::MAX).max(1)
}

/// FNV's low bits follow the last byte too closely to be spread by them alone.
fn mixed(print: Fingerprint) -> u64 {
    let mut hash = print.get();
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn ticks_are_strictly_later_and_on_the_grid() {
        let (interval, offset) = (Duration::from_secs(15), Duration::from_millis(2_500));
        for (after, expected) in [
            ("2026-01-01T00:00:00Z", "2026-01-01T00:00:02.5Z"),
            ("2026-01-01T00:00:02.499Z", "2026-01-01T00:00:02.5Z"),
            ("2026-01-01T00:00:02.5Z", "2026-01-01T00:00:17.5Z"),
            ("1969-12-31T23:59:59Z", "1970-01-01T00:00:02.5Z"),
        ] {
            assert_eq!(tick(moment(after), interval, offset), moment(expected), "{after}");
        }
        assert_eq!(tick(Timestamp::MAX, interval, offset), Timestamp::MAX);
        assert!(tick(Timestamp::MIN, Duration::ZERO, Duration::ZERO) > Timestamp::MIN);
    }

    #[test]
    fn a_window_is_judged_the_moment_it_is_complete() {
        let (interval, offset) = (Duration::from_secs(15), Duration::ZERO);
        let evaluated = moment("2026-01-01T00:00:15Z");
        let now = moment("2026-01-01T00:00:15.030Z");
        let next = |due: &[&str]| next(evaluated, now, interval, offset, due.iter().map(|due| moment(due)));
        assert_eq!(next(&[]), moment("2026-01-01T00:00:30Z"));
        assert_eq!(next(&["2026-01-01T00:00:40Z", "2026-01-01T00:00:25Z"]), moment("2026-01-01T00:00:25Z"));
        assert_eq!(next(&["2026-01-01T00:00:15.010Z"]), moment("2026-01-01T00:00:15.010Z"));
        assert_eq!(next(&["2026-01-01T00:00:15Z"]), moment("2026-01-01T00:00:30Z"));
        let late = moment("2026-01-01T00:01:03Z");
        assert_eq!(super::next(evaluated, late, interval, offset, []), moment("2026-01-01T00:01:15Z"));
    }

    #[test]
    fn equal_questions_share_instants_and_others_are_spread() {
        let print = |queries: &[&str]| Fingerprint::queries(queries.iter().copied());
        assert_eq!(print(&["a", "b"]), print(&["b", "a", "b"]));
        assert_ne!(print(&["ab"]), print(&["a", "b"]));
        assert_eq!(print(&["up"]).get(), 0x9c88_fbd3_28cc_4172, "the number may not change between releases");
        let interval = Duration::from_secs(10);
        let mut tenths = [0; 10];
        for rollout in 0..1000 {
            let query = format!("errors{{name=\"rollout-{rollout}\"}}");
            let offset = offset(print(&[&query]), interval);
            assert!(offset < interval);
            tenths[usize::try_from(offset.as_secs()).unwrap()] += 1;
            let now = moment("2026-01-01T00:00:00Z");
            assert!(first(now, interval, print(&[&query])) < moment("2026-01-01T00:00:01Z"));
        }
        assert!(tenths.iter().all(|count| (50..200).contains(count)), "{tenths:?}");
    }

    #[test]
    fn names_are_filled_in_once_and_cannot_leave_their_quotes() {
        let names = Names { namespace: "learning", name: "loop", cluster: "x\"} or vector(1) #`'\\\n$(name)" };
        assert_eq!(names.expand("up{ns='$(namespace)',n=\"$(name)\"}"), "up{ns='learning',n=\"loop\"}");
        assert_eq!(names.expand("a=~\"x$(y)$(name)$(\""), "a=~\"x$(y)loop$(\"");
        assert_eq!(names.expand("\"$(cluster)\""), r#""x\x22} or vector(1) #\x60\x27\x5c\u000a$(name)""#);
        assert_eq!(names.expand("ä$(na"), "ä$(na");
    }
}
