//! `promtool test rules`, fed with what `decide` says.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use learning_rollout::decide::trigger::Labels;

use super::{
    Firings,
    generate::{Case, Line, Point},
};

/// Rules of one file; they share its interval.
const RULES: usize = 10;

/// Does Prometheus fire exactly there? Otherwise what promtool says.
pub fn verify(name: &str, cases: &[Case], expectations: &[Firings]) -> Result<(), String> {
    let promtool = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/prometheus/promtool");
    assert!(promtool.exists(), "{} is missing: run make tools", promtool.display());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("differential-{name}"));
    if folder.exists() {
        fs::remove_dir_all(&folder).unwrap();
    }
    fs::create_dir_all(&folder).unwrap();
    let files: Vec<PathBuf> = cases
        .chunks(RULES)
        .zip(expectations.chunks(RULES))
        .enumerate()
        .map(|(number, (cases, expectations))| write(&folder, number, cases, expectations))
        .collect();
    let output = Command::new(promtool).args(["test", "rules"]).args(files).output().unwrap();
    if output.status.success() {
        return Ok(());
    }
    let told = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    Err(told.chars().take(4_000).collect())
}

/// Writes the rules and the test of them; the latter's path.
fn write(folder: &Path, number: usize, cases: &[Case], expectations: &[Firings]) -> PathBuf {
    let interval = cases[0].interval.as_secs();
    let (mut rules, mut series, mut alerts) =
        (String::from("groups:\n- name: g\n  rules:\n"), String::new(), String::new());
    for (rule, (case, firings)) in cases.iter().zip(expectations).enumerate() {
        assert_eq!(case.interval.as_secs(), interval);
        let (expression, hold) = (own(&case.expression, rule), case.hold.as_millis());
        writeln!(rules, "  - {{alert: R{rule}, expr: '{expression}', for: {hold}ms}}").unwrap();
        let baselines = case.baseline.iter().flat_map(|(lines, _)| lines);
        for line in case.lines.iter().chain(&case.gate).chain(baselines) {
            writeln!(series, "  - {{series: '{}', values: '{}'}}", selector(line, rule), values(line)).unwrap();
        }
        for (tick, firing) in firings.iter().enumerate() {
            let alerts_firing: Vec<String> =
                firing.iter().map(|labels| format!("{{exp_labels: {}}}", flow(labels))).collect();
            writeln!(
                alerts,
                "  - {{eval_time: {}s, alertname: R{rule}, exp_alerts: [{}]}}",
                tick as u64 * interval,
                alerts_firing.join(", ")
            )
            .unwrap();
        }
    }
    let (rules_file, test_file) =
        (folder.join(format!("rules-{number}.yaml")), folder.join(format!("test-{number}.yaml")));
    fs::write(&rules_file, rules).unwrap();
    let test = format!(
        "rule_files: [rules-{number}.yaml]\nevaluation_interval: {interval}s\ntests:\n- interval: {interval}s\n  input_series:\n{series}  alert_rule_test:\n{alerts}"
    );
    fs::write(&test_file, test).unwrap();
    test_file
}

/// The expression with the metrics of one rule: `m` becomes `m3`.
fn own(expression: &str, rule: usize) -> String {
    let token = |token: &str| match token {
        "m" | "g" | "b" => format!("{token}{rule}"),
        other => other.replace("(b,", &format!("(b{rule},")),
    };
    expression.split(' ').map(token).collect::<Vec<_>>().join(" ")
}

fn selector(line: &Line, rule: usize) -> String {
    let labels: Vec<String> = line
        .labels
        .iter()
        .filter(|(name, _)| *name != "__name__")
        .map(|(name, value)| format!("{name}=\"{value}\""))
        .collect();
    format!("{}{rule}{{{}}}", line.labels["__name__"], labels.join(","))
}

fn values(line: &Line) -> String {
    let point = |point: &Point| match point {
        Point::Gap => "_".to_owned(),
        Point::Stale => "stale".to_owned(),
        Point::Value(value) if value.is_infinite() => if *value > 0.0 { "Inf" } else { "-Inf" }.to_owned(),
        Point::Value(value) => format!("{value:e}"),
    };
    line.points.iter().map(point).collect::<Vec<_>>().join(" ")
}

fn flow(labels: &Labels) -> String {
    let pairs: Vec<String> = labels.iter().map(|(name, value)| format!("{name}: \"{value}\"")).collect();
    format!("{{{}}}", pairs.join(", "))
}
