//! Reads the sample manifests for the tests: where they are and what they ask of Prometheus. Judges nothing.

use std::collections::BTreeSet;
use std::path::PathBuf;

use promql_parser::label::MatchOp;
use promql_parser::parser::{Expr, VectorSelector, parse};
use promql_parser::util::{ExprVisitor, walk_expr};
use serde_yaml::Value;

/// The root of the workspace.
fn root() -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    dir.canonicalize().unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
}

/// A binary of the Prometheus that `make tools` built.
pub(crate) fn tool(name: &str) -> PathBuf {
    let tool = root().join(".tools/prometheus").join(name);
    assert!(tool.is_file(), "{} is missing: run `make tools`", tool.display());
    tool
}

/// A file under `manifests/samples`.
pub(crate) fn sample(path: &str) -> PathBuf {
    root().join("manifests/samples").join(path)
}

pub(crate) fn text(path: &str) -> String {
    let file = sample(path);
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

pub(crate) fn yaml(path: &str) -> Value {
    serde_yaml::from_str(&text(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The string at `key`, or a panic that says where it is missing.
pub(crate) fn string(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_else(|| panic!("no string {key:?} in {value:?}")).to_owned()
}

/// The list at `key`; an absent one is empty.
pub(crate) fn list(value: &Value, key: &str) -> Vec<Value> {
    value[key].as_sequence().cloned().unwrap_or_default()
}

/// `(record, expr)` of a rule file, in its order.
pub(crate) fn recorded(path: &str) -> Vec<(String, String)> {
    list(&yaml(path), "groups")
        .iter()
        .flat_map(|group| list(group, "rules"))
        .map(|rule| (string(&rule, "record"), string(&rule, "expr")))
        .collect()
}

/// Every query of a rollout with the place it stands at: triggers, gates, query baselines, verifications.
pub(crate) fn queries(path: &str) -> Vec<(String, String)> {
    let spec = yaml(path)["spec"].clone();
    let mut queries = Vec::new();
    for trigger in list(&spec, "triggers") {
        let name = string(&trigger, "name");
        queries.push((format!("trigger {name}"), string(&trigger, "query")));
        for part in ["gate", "baseline"] {
            if let Some(query) = trigger[part]["query"].as_str() {
                queries.push((format!("{part} of trigger {name}"), query.to_owned()));
            }
        }
    }
    for check in list(&spec, "verify") {
        queries.push((format!("verify {}", string(&check, "name")), string(&check, "query")));
    }
    queries
}

/// A series that an expression reads: its metric and the labels it insists on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Selector {
    pub(crate) metric: String,
    pub(crate) labels: Vec<(String, String)>,
}

/// Every selector of a PromQL expression.
pub(crate) fn selectors(expr: &str) -> BTreeSet<Selector> {
    struct Collect(BTreeSet<Selector>);

    impl Collect {
        fn add(&mut self, selector: &VectorSelector) {
            let metric = selector.name.clone().unwrap_or_else(|| panic!("a selector without a metric name"));
            let labels = selector
                .matchers
                .matchers
                .iter()
                .filter(|matcher| matcher.op == MatchOp::Equal)
                .map(|matcher| (matcher.name.clone(), matcher.value.clone()))
                .collect();
            self.0.insert(Selector { metric, labels });
        }
    }

    impl ExprVisitor for Collect {
        type Error = std::convert::Infallible;

        fn pre_visit(&mut self, expr: &Expr) -> Result<bool, Self::Error> {
            match expr {
                Expr::VectorSelector(selector) => self.add(selector),
                Expr::MatrixSelector(selector) => self.add(&selector.vs),
                _ => {}
            }
            Ok(true)
        }
    }

    let parsed = parse(expr).unwrap_or_else(|error| panic!("{expr}: {error}"));
    let mut collect = Collect(BTreeSet::new());
    let Ok(_) = walk_expr(&mut collect, &parsed);
    collect.0
}
