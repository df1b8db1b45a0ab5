//! The sample manifests agree with each other and hold what they promise, judged by promtool itself.
//!
//! Two sets of files are derived, so that nothing is copied by hand: the triggers as alerting rules (for promtool to
//! test their thresholds and durations), and the demo's variant with short durations. `UPDATE_SAMPLES=1 cargo test
//! -p learning-loop --test it derived` writes them anew.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use crate::manifests::{list, queries, recorded, sample, selectors, string, text, tool, yaml};
use serde_yaml::Value;

const UPDATE: &str = "UPDATE_SAMPLES=1 cargo test -p learning-loop --test it derived";

/// What a duration (or a gate that counts over one) becomes in the demo: key, value, value in the demo. A value that is
/// not listed here fails the test rather than stay at its full length.
const DEMO: [(&str, &str, &str); 11] = [
    ("interval", "15s", "1s"),
    ("interval", "5m", "3s"),
    ("for", "3m", "5s"),
    ("for", "5m", "5s"),
    ("for", "10m", "10s"),
    ("for", "1h", "10s"),
    ("for", "1m", "3s"),
    ("timeout", "5m", "30s"),
    ("window", "1h", "20s"),
    ("cooldown", "1m", "5s"),
    ("atLeast", "200", "50"),
];

/// The same for the ranges and offsets within the rules' expressions. Each range keeps three scrapes of one second.
const DEMO_RANGES: [(&str, &str); 4] =
    [("[1m]", "[5s]"), ("[5m]", "[10s]"), ("[10m]", "[3s]"), ("offset 50m", "offset 12s")];

#[test]
fn derived_files_are_current() {
    let derived = [
        ("trigger-alerts.yaml", trigger_alerts()),
        ("demo/rules.yaml", demo("rules.yaml")),
        ("demo/learning-rollout.yaml", demo("learning-rollout.yaml")),
    ];
    for (path, content) in derived {
        if std::env::var_os("UPDATE_SAMPLES").is_some() {
            // Renamed into place: the other tests read it meanwhile.
            let new = sample(&format!("{path}.new"));
            std::fs::write(&new, &content).unwrap();
            std::fs::rename(&new, sample(path)).unwrap();
        }
        assert!(text(path) == content, "{path} is not what its source says; run {UPDATE}\nexpected:\n{content}");
    }
}

#[test]
fn promtool_finds_rules_and_configuration_valid() {
    for rules in ["rules.yaml", "trigger-alerts.yaml", "demo/rules.yaml"] {
        promtool(&["check", "rules"], &sample(rules));
    }
    promtool(&["check", "config"], &sample("demo/prometheus.yml"));
}

#[test]
fn promtool_sees_each_trigger_fire_and_keep_still() {
    promtool(&["test", "rules"], &sample("rules_test.yaml"));
}

#[test]
fn every_trigger_is_seen_to_fire_and_to_keep_still() {
    let tests = list(&yaml("rules_test.yaml"), "tests");
    for trigger in list(&yaml("learning-rollout.yaml")["spec"], "triggers") {
        let name = string(&trigger, "name");
        let (fires, quiet): (Vec<_>, Vec<_>) = tests
            .iter()
            .flat_map(|test| list(test, "alert_rule_test"))
            .filter(|test| string(test, "alertname") == name)
            .partition(|test| !list(test, "exp_alerts").is_empty());
        assert!(
            !fires.is_empty() && quiet.len() >= 3,
            "trigger {name}: {} cases fire, {} keep still",
            fires.len(),
            quiet.len()
        );
    }
}

#[test]
fn every_query_reads_a_rule_of_its_own_file() {
    for (rules, rollout) in [("rules.yaml", "learning-rollout.yaml"), ("demo/rules.yaml", "demo/learning-rollout.yaml")]
    {
        let known: BTreeSet<_> = recorded(rules).into_iter().map(|(name, _)| name).collect();
        for (place, query) in queries(rollout) {
            for selector in selectors(&query) {
                assert!(
                    known.contains(&selector.metric),
                    "{rollout}: {place} reads {}, which {rules} does not record",
                    selector.metric
                );
            }
        }
    }
}

#[test]
fn every_target_of_a_step_is_in_the_workload() {
    let mut objects: BTreeSet<(String, String)> = BTreeSet::new();
    for file in ["workload.yaml", "virtual-service.yaml"] {
        for document in serde_yaml::Deserializer::from_str(&text(file)) {
            let object: Value = serde::Deserialize::deserialize(document).unwrap();
            objects.insert((string(&object, "kind"), string(&object["metadata"], "name")));
        }
    }
    for plan in list(&yaml("learning-rollout.yaml")["spec"], "rollbacks") {
        for step in list(&plan, "steps") {
            let target = if step["setConfig"].is_mapping() {
                ("ConfigMap".to_owned(), string(&step["setConfig"]["configMapRef"], "name"))
            } else if step["switchService"].is_mapping() {
                ("Service".to_owned(), string(&step["switchService"]["serviceRef"], "name"))
            } else if step["shiftTraffic"].is_mapping() {
                let route = &step["shiftTraffic"]["routeRef"];
                (string(route, "kind"), string(route, "name"))
            } else {
                let kind = ["scale", "restart"]
                    .into_iter()
                    .find(|kind| step[*kind].is_mapping())
                    .unwrap_or_else(|| panic!("step of an unknown kind: {step:?}"));
                let target = &step[kind]["targetRef"];
                (string(target, "kind"), string(target, "name"))
            };
            assert!(
                objects.contains(&target),
                "plan {}: step {} changes {target:?}, which no sample holds",
                string(&plan, "name"),
                string(&step, "name")
            );
        }
    }
}

/// Runs promtool over `file` and fails with what it says.
fn promtool(command: &[&str], file: &Path) {
    let output = Command::new(tool("promtool")).args(command).arg(file).output().unwrap();
    assert!(
        output.status.success(),
        "promtool {} {}\n{}{}",
        command.join(" "),
        file.display(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The triggers of the rollout as Prometheus alerting rules.
fn trigger_alerts() -> String {
    let spec = &yaml("learning-rollout.yaml")["spec"];
    let mut out = format!(
        "# The triggers of learning-rollout.yaml as alerting rules, so that promtool can test them. Derived; do not edit, run\n\
         # {UPDATE}\n\
         # A captured baseline lives in the rollout's status; here it is the series learning_rollout_trigger_baseline, which\n\
         # the tests supply. Where a gate is not met an alert resets and a trigger is Unknown.\n\
         groups:\n  - name: learning-loop-triggers\n    interval: {}\n    rules:\n",
        string(spec, "interval")
    );
    for trigger in list(spec, "triggers") {
        let name = string(&trigger, "name");
        let mut expr = string(&trigger, "query");
        if trigger["baseline"].is_mapping() {
            let baseline = &trigger["baseline"];
            assert_eq!(string(baseline, "compare"), "Ratio", "trigger {name}");
            let floor = number(&baseline["floor"]);
            expr =
                format!("{expr} / on () clamp_min(learning_rollout_trigger_baseline{{trigger=\"{name}\"}}, {floor})");
        }
        let (comparator, threshold) = comparison(&trigger);
        let _ = write!(expr, " {comparator} {threshold}");
        if trigger["gate"].is_mapping() {
            let gate = &trigger["gate"];
            let (comparator, threshold) = comparison(gate);
            let query = string(gate, "query");
            let _ = write!(expr, "\n          and on () {query} {comparator} {threshold}");
        }
        let _ = write!(
            out,
            "      - alert: {name}\n        expr: |\n          {expr}\n        for: {}\n        labels:\n          rollback: {}\n",
            string(&trigger, "for"),
            string(&trigger, "rollback")
        );
    }
    out
}

fn comparison(value: &Value) -> (&'static str, String) {
    let found: Vec<_> = [("above", ">"), ("below", "<"), ("atLeast", ">="), ("atMost", "<=")]
        .into_iter()
        .filter(|(key, _)| value[*key].is_number())
        .map(|(key, sign)| (sign, number(&value[key])))
        .collect();
    assert_eq!(found.len(), 1, "not exactly one comparator in {value:?}");
    found.into_iter().next().unwrap()
}

fn number(value: &Value) -> String {
    value.as_f64().unwrap_or_else(|| panic!("{value:?} is not a number")).to_string()
}

/// The demo's variant of a sample: the same text without its comments, every duration replaced.
fn demo(path: &str) -> String {
    let mut out = format!(
        "# ../{path} with durations of seconds in place of minutes, for a Prometheus that scrapes every second\n\
         # (prometheus.yml). Queries, thresholds and plans are the same. Derived; do not edit, run\n\
         # {UPDATE}\n"
    );
    for line in text(path).lines() {
        if line.trim_start().starts_with('#') {
            continue;
        }
        let line = match line.trim_start_matches([' ', '-']).split_once(": ") {
            Some((key, value)) if DEMO.iter().any(|(scaled, ..)| *scaled == key) => {
                let short =
                    DEMO.iter().find(|(scaled, long, _)| *scaled == key && *long == value).map(|(.., short)| *short);
                match short {
                    Some(short) => format!("{}{short}", &line[..line.len() - value.len()]),
                    None if key == "atLeast" => line.to_owned(),
                    None => panic!("{path}: DEMO does not say what `{key}: {value}` becomes"),
                }
            }
            _ => DEMO_RANGES.iter().fold(line.to_owned(), |line, (long, short)| line.replace(long, short)),
        };
        assert!(
            !(line.contains("m]") || line.contains("h]")),
            "{path}: DEMO_RANGES does not say what becomes of the range in `{line}`"
        );
        // The blank lines stood between comments.
        if !line.is_empty() {
            out.push_str(&line);
            out.push('\n');
        }
    }
    out
}
