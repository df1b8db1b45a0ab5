//! Rules and series from a seed: the same on every run.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use learning_rollout::{
    api::rollout::Trigger,
    decide::trigger::{Answer, Labels, Readings, Series},
};

/// Instants at which every rule is evaluated.
pub const TICKS: usize = 48;
/// Prometheus' default: a sample is seen until a newer one is there, at most for less than this.
const LOOK_BACK: Duration = Duration::from_secs(300);
/// Series of one rule.
const LINES: usize = 10;

/// The moment that promtool calls 0.
pub fn start() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

/// SplitMix64.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Point {
    Value(f64),
    /// Not scraped: the sample before is still seen.
    Gap,
    /// The target is gone.
    Stale,
}

/// One series with a point per tick.
#[derive(Clone, Debug)]
pub struct Line {
    pub labels: Labels,
    pub points: Vec<Point>,
}

impl Line {
    pub fn new(metric: &str, number: usize, points: Vec<Point>) -> Self {
        let labels = [("__name__", metric.to_owned()), ("s", number.to_string())];
        Self { labels: labels.map(|(name, value)| (name.to_owned(), value)).into(), points }
    }

    /// What an instant query sees.
    fn at(&self, moment: Duration, interval: Duration) -> Option<f64> {
        let tick = (moment.as_millis() / interval.as_millis()) as usize;
        let seen = (0..self.points.len().min(tick + 1)).rev().find(|tick| self.points[*tick] != Point::Gap)?;
        match self.points[seen] {
            Point::Value(value) if moment - interval * (seen as u32) < LOOK_BACK => Some(value),
            _ => None,
        }
    }
}

/// An alerting rule and the trigger that says the same.
#[derive(Clone, Debug)]
pub struct Case {
    pub interval: Duration,
    pub hold: Duration,
    /// The rule's expression; `m` is the value, `g` the gate, `b` the baseline.
    pub expression: String,
    /// Comparator, limit.
    comparison: (&'static str, f64),
    /// The trigger asks for the comparison's result, and for presence.
    present: bool,
    pub lines: Vec<Line>,
    pub gate: Option<Line>,
    /// Series, and how they are compared.
    pub baseline: Option<(Vec<Line>, &'static str)>,
}

const COMPARATORS: [(&str, &str); 4] = [("above", ">"), ("below", "<"), ("atLeast", ">="), ("atMost", "<=")];

impl Case {
    /// A rule `… > limit` with the given points per series.
    pub fn plain(expression: &str, interval: Duration, hold: Duration, points: Vec<Vec<Point>>) -> Self {
        let limit = expression.rsplit(' ').next().unwrap().parse().unwrap();
        let lines = points.into_iter().enumerate().map(|(number, points)| Line::new("m", number, points)).collect();
        let expression = expression.to_owned();
        Self {
            interval,
            hold,
            expression,
            comparison: ("above", limit),
            present: false,
            lines,
            gate: None,
            baseline: None,
        }
    }

    pub fn moment(&self, tick: usize) -> Duration {
        self.interval * tick as u32
    }

    pub fn trigger(&self) -> Trigger {
        let (comparator, limit) = self.comparison;
        let comparison = if self.present { "present: true".to_owned() } else { format!("{comparator}: {limit}") };
        let gate = self.gate.as_ref().map_or("", |_| ", gate: {query: g, atLeast: 10}");
        let baseline =
            self.baseline.as_ref().map_or_else(String::new, |(_, how)| format!(", baseline: {{query: b, {how}}}"));
        let hold = self.hold.as_millis();
        let yaml = format!("{{name: t, query: m, rollback: r, for: {hold}ms, {comparison}{gate}{baseline}}}");
        serde_yaml::from_str(&yaml).unwrap_or_else(|error| panic!("{yaml}: {error}"))
    }

    /// What Prometheus answers to the trigger's queries.
    pub fn readings(&self, moment: Duration) -> Readings {
        let answer = |lines: &[Line]| -> Answer {
            let series =
                |line: &Line| Some(Series { labels: line.labels.clone(), value: line.at(moment, self.interval)? });
            Ok(lines.iter().filter_map(series).collect())
        };
        let mut value = answer(&self.lines).unwrap();
        if self.present {
            let (comparator, limit) = self.comparison;
            value.retain(|series| match comparator {
                "above" => series.value > limit,
                "below" => series.value < limit,
                "atLeast" => series.value >= limit,
                _ => series.value <= limit,
            });
        }
        Readings {
            value: Ok(value),
            gate: self.gate.as_ref().map(|line| answer(std::slice::from_ref(line))),
            baseline: self.baseline.as_ref().map(|(lines, _)| answer(lines)),
        }
    }
}

/// Rules of all kinds, with ten series each.
pub fn cases(seed: u64, count: usize) -> Vec<Case> {
    let mut random = Random::new(seed);
    (0..count).map(|number| case(&mut random, number)).collect()
}

fn case(random: &mut Random, number: usize) -> Case {
    // The same for a run of rules, which share a file.
    let interval = [10, 15, 30, 60][number / 10 % 4];
    let hold = interval * random.pick(&[0, 1, 2, 3, 4, 6, 9]) + random.pick(&[0, 0, interval / 2]);
    let (comparator, sign) = random.pick(&COMPARATORS);
    let limit = 2.0;
    let points = |random: &mut Random| line(random, matches!(comparator, "above" | "atLeast"));
    let lines: Vec<Line> = (0..LINES).map(|number| Line::new("m", number, points(random))).collect();
    let mut case = Case {
        interval: Duration::from_secs(interval),
        hold: Duration::from_secs(hold),
        expression: format!("m {sign} {limit}"),
        comparison: (comparator, limit),
        present: false,
        lines,
        gate: None,
        baseline: None,
    };
    let mut bases = |floor: f64| -> Vec<Line> {
        let bases = (0..LINES).filter(|_| !random.one_in(8)).collect::<Vec<_>>();
        let points = |random: &mut Random| side(random, &[1.0, 1.0, 1.0, 0.5, 2.0, f64::NAN, floor]);
        bases.into_iter().map(|number| Line::new("b", number, points(random))).collect()
    };
    match number % 10 {
        0 => {
            case.present = true;
        }
        1 => {
            case.gate = Some(Line::new("g", 0, side(random, &[10.0, 10.0, 20.0, 9.0, f64::NAN, f64::INFINITY])));
            case.expression = format!("m {sign} {limit} and on() g >= 10");
        }
        2 => {
            case.baseline = Some((bases(1.0), "compare: Ratio"));
            case.expression = format!("m / on(s) b {sign} {limit}");
        }
        3 => {
            case.baseline = Some((bases(0.0), "compare: Ratio, floor: 0.75"));
            case.expression = format!("m / on(s) clamp_min(b, 0.75) {sign} {limit}");
        }
        4 => {
            case.baseline = Some((bases(0.0), "compare: Difference"));
            case.expression = format!("m - on(s) b {sign} {limit}");
        }
        5 => {
            let mut all = Line::new("b", 0, side(random, &[1.0, 1.0, 2.0, f64::NAN]));
            all.labels.remove("s");
            case.baseline = Some((vec![all], "compare: Ratio"));
            case.expression = format!("m / on() group_left() b {sign} {limit}");
        }
        _ => {}
    }
    case
}

/// A series that stays on one side of the limit for a while, with oddities thrown in.
fn line(random: &mut Random, breaching_is_high: bool) -> Vec<Point> {
    let (mut points, odd) = (Vec::with_capacity(TICKS), random.pick(&[4, 8, 8, 30]));
    while points.len() < TICKS {
        let high = random.one_in(2);
        let values = if high == breaching_is_high {
            &[3.0, 2.5, 1e300, f64::INFINITY]
        } else {
            &[1.0, 0.0, -1.0, f64::NEG_INFINITY]
        };
        for _ in 0..=random.below(8) {
            points.push(match random.below(odd) {
                0 => random.pick(&[Point::Gap, Point::Gap, Point::Stale, Point::Value(f64::NAN), Point::Value(2.0)]),
                _ => Point::Value(random.pick(values)),
            });
        }
        if random.one_in(6) {
            let kind = random.pick(&[Point::Gap, Point::Stale, Point::Value(f64::NAN)]);
            points.extend(std::iter::repeat_n(kind, random.below(8)));
        }
    }
    points.truncate(TICKS);
    points
}

/// A gate's or baseline's series: mostly steady.
fn side(random: &mut Random, values: &[f64]) -> Vec<Point> {
    let mut points = Vec::with_capacity(TICKS);
    while points.len() < TICKS {
        let value = random.pick(values);
        let kind = if random.one_in(8) { random.pick(&[Point::Gap, Point::Stale]) } else { Point::Value(value) };
        points.extend(std::iter::repeat_n(kind, 1 + random.below(10)));
    }
    points.truncate(TICKS);
    points
}
