//! The table that says which manifests the two definitions admit. `tests/crds.rs` holds the rules to it offline,
//! `tests/crds_apiserver.rs` holds a real API server to it.

use serde_json::{Value, json};

use crate::manifests::{full, manifest, record, with};

/// One manifest, or one change of an object that exists, and what must become of it.
pub struct Case {
    pub name: &'static str,
    /// The object as it exists; absent where it is created.
    pub before: Option<Value>,
    pub object: Value,
    pub verdict: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    Admitted,
    /// A CEL rule refuses it, at this field and with this message, whole.
    Rule {
        field: &'static str,
        message: &'static str,
    },
    /// The structural schema refuses it, at this field, with a message that contains this.
    Schema {
        field: &'static str,
        says: &'static str,
    },
}

/// Every case, each of a name of its own.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    triggers(&mut cases);
    rollbacks(&mut cases);
    steps(&mut cases);
    durations(&mut cases);
    bounds(&mut cases);
    records(&mut cases);
    decisions(&mut cases);
    cases
}

fn create(cases: &mut Vec<Case>, name: &'static str, object: Value, verdict: Verdict) {
    cases.push(Case { name, before: None, object, verdict });
}

fn rollout(cases: &mut Vec<Case>, name: &'static str, changes: &[(&str, Value)], verdict: Verdict) {
    create(cases, name, with(full(), changes), verdict);
}

fn refused(
    cases: &mut Vec<Case>,
    name: &'static str,
    changes: &[(&str, Value)],
    field: &'static str,
    message: &'static str,
) {
    rollout(cases, name, changes, Verdict::Rule { field, message });
}

fn malformed(
    cases: &mut Vec<Case>,
    name: &'static str,
    changes: &[(&str, Value)],
    field: &'static str,
    says: &'static str,
) {
    rollout(cases, name, changes, Verdict::Schema { field, says });
}

const ONE_COMPARATOR: &str = "exactly one of above, below, atLeast, atMost and present must be set";

fn triggers(cases: &mut Vec<Case>) {
    let gone = Value::Null;
    rollout(cases, "the full manifest", &[], Verdict::Admitted);
    create(cases, "the minimal manifest", manifest("rollout-minimal.yaml"), Verdict::Admitted);
    refused(
        cases,
        "a name of 41 characters",
        &[("/metadata/name", json!("l".repeat(41)))],
        "metadata.name",
        "metadata.name must have at most 40 characters: the names of its rollback records are made from it; choose a shorter name",
    );
    rollout(cases, "a name of 40 characters", &[("/metadata/name", json!("l".repeat(40)))], Verdict::Admitted);
    refused(cases, "no comparator", &[("/spec/triggers/0/above", gone.clone())], "spec.triggers[0]", ONE_COMPARATOR);
    refused(cases, "two comparators", &[("/spec/triggers/0/below", json!(1))], "spec.triggers[0]", ONE_COMPARATOR);
    refused(
        cases,
        "a comparator beside present",
        &[("/spec/triggers/3/atMost", json!(1))],
        "spec.triggers[3]",
        ONE_COMPARATOR,
    );
    refused(
        cases,
        "present: false",
        &[("/spec/triggers/3/present", json!(false))],
        "spec.triggers[3].present",
        "present can only be true: leave it out to compare values",
    );
    refused(
        cases,
        "a gate without comparator",
        &[("/spec/triggers/0/gate/atLeast", gone.clone())],
        "spec.triggers[0].gate",
        ONE_COMPARATOR,
    );
    refused(
        cases,
        "a check without comparator",
        &[("/spec/verify/0/atMost", gone.clone())],
        "spec.verify[0]",
        ONE_COMPARATOR,
    );
    refused(
        cases,
        "present with a baseline",
        &[("/spec/triggers/1/present", json!(true)), ("/spec/triggers/1/atLeast", gone.clone())],
        "spec.triggers[1]",
        "present compares nothing: a trigger with a baseline needs above, below, atLeast or atMost",
    );
    let baseline = "exactly one of captured and query must be set";
    refused(
        cases,
        "a baseline of nothing",
        &[("/spec/triggers/1/baseline/captured", gone.clone())],
        "spec.triggers[1].baseline",
        baseline,
    );
    refused(
        cases,
        "a baseline of two kinds",
        &[("/spec/triggers/1/baseline/query", json!("up"))],
        "spec.triggers[1].baseline",
        baseline,
    );
    let unknown =
        "every trigger's rollback must be the name of an entry of spec.rollbacks; correct the name or add the rollback";
    refused(
        cases,
        "a trigger of an unknown rollback",
        &[("/spec/triggers/2/rollback", json!("nothing"))],
        "spec.triggers",
        unknown,
    );
    let header = "header names are letters, digits and dashes, and none that the client sets itself; credentials belong in secretRef";
    for (name, key) in [("credentials in a header", "AUTHORIZATION"), ("a header that is none", "X Scope")] {
        refused(cases, name, &[("/spec/prometheus/headers", json!({key: "x"}))], "spec.prometheus.headers", header);
    }
}

fn rollbacks(cases: &mut Vec<Case>) {
    let shift = full()["spec"]["rollbacks"][1]["steps"][0].clone();
    let config = full()["spec"]["rollbacks"][2]["steps"][0].clone();
    refused(
        cases,
        "a FeatureDisable that shifts traffic",
        &[("/spec/rollbacks/2/steps/1", shift)],
        "spec.rollbacks[2].steps",
        "a FeatureDisable rollback moves no traffic: use type Gradual for shiftTraffic",
    );
    refused(
        cases,
        "a Gradual without traffic",
        &[("/spec/rollbacks/1/steps/0", config)],
        "spec.rollbacks[1].steps",
        "a Gradual rollback needs a shiftTraffic step: use type Immediate or FeatureDisable for a plan without one",
    );
}

fn steps(cases: &mut Vec<Case>) {
    let one_kind = "exactly one of setConfig, scale, switchService, shiftTraffic and restart must be set";
    let first = "/spec/rollbacks/0/steps/0";
    refused(
        cases,
        "a step that does nothing",
        &[(first, json!({"name": "flag"}))],
        "spec.rollbacks[0].steps[0]",
        one_kind,
    );
    let restart = json!({"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}});
    refused(
        cases,
        "a step of two kinds",
        &[("/spec/rollbacks/0/steps/0/restart", restart)],
        "spec.rollbacks[0].steps[0]",
        one_kind,
    );
    refused(
        cases,
        "a key no ConfigMap can hold",
        &[("/spec/rollbacks/0/steps/0/setConfig/data", json!({"a/b": "x"}))],
        "spec.rollbacks[0].steps[0].setConfig.data",
        "keys of a ConfigMap must consist of 1 to 253 letters, digits, '-', '_' and '.'",
    );
    for (name, key) in [("a key no label has", "-version"), ("an endless selector key", "v".repeat(318).leak())] {
        refused(
            cases,
            name,
            &[("/spec/rollbacks/0/steps/1/switchService/selector", json!({key: "x"}))],
            "spec.rollbacks[0].steps[1].switchService.selector",
            "selector keys must be label keys, such as version or app.kubernetes.io/version",
        );
    }
    rollout(
        cases,
        "a selector key with a prefix",
        &[("/spec/rollbacks/0/steps/1/switchService/selector", json!({"app.kubernetes.io/version": "baseline"}))],
        Verdict::Admitted,
    );
    for (name, field, value) in [
        ("scaling a DaemonSet", "kind", "DaemonSet"),
        ("scaling a Deployment of another group", "apiVersion", "extensions/v1beta1"),
    ] {
        refused(
            cases,
            name,
            &[(&format!("/spec/rollbacks/0/steps/2/scale/targetRef/{field}"), json!(value))],
            "spec.rollbacks[0].steps[2].scale.targetRef",
            "targetRef must name an apps/v1 Deployment or StatefulSet: nothing else can be scaled by a rollback",
        );
    }
    refused(
        cases,
        "restarting a StatefulSet",
        &[("/spec/rollbacks/2/steps/1/restart/targetRef/kind", json!("StatefulSet"))],
        "spec.rollbacks[2].steps[1].restart.targetRef",
        "targetRef must name an apps/v1 Deployment: nothing else can be restarted by a rollback",
    );
    refused(
        cases,
        "from where it goes to",
        &[("/spec/rollbacks/1/steps/0/shiftTraffic/to", json!("learning-service"))],
        "spec.rollbacks[1].steps[0].shiftTraffic.to",
        "from and to must be different destinations",
    );
    let weights = "/spec/rollbacks/1/steps/0/shiftTraffic/weights";
    let field = "spec.rollbacks[1].steps[0].shiftTraffic.weights";
    refused(
        cases,
        "weights that leave something",
        &[(weights, json!([75, 50, 25]))],
        field,
        "weights must end at 0: a rollback leaves nothing on `from`",
    );
    for (name, list) in [
        ("weights that rise", json!([25, 50, 0])),
        ("weights that stay", json!([50, 50, 0])),
        ("weights that end at 0 twice", json!([0, 0])),
    ] {
        refused(
            cases,
            name,
            &[(weights, list)],
            field,
            "weights must fall from one to the next, such as [75, 50, 25, 0]",
        );
    }
    for (name, list) in [("a single weight", json!([0])), ("two weights", json!([1, 0]))] {
        rollout(cases, name, &[(weights, list)], Verdict::Admitted);
    }
}

fn durations(cases: &mut Vec<Case>) {
    for (pointer, field, message, outside, inside) in [
        ("/spec/interval", "spec.interval", "interval must be from 1s to 1h", ["999ms", "1h1ms"], ["1s", "1h"]),
        (
            "/spec/cooldown",
            "spec.cooldown",
            "cooldown must be at most 168h: the feature is unguarded for that long",
            ["168h1ms", "999999h"],
            ["0s", "168h"],
        ),
        (
            "/spec/prometheus/timeout",
            "spec.prometheus.timeout",
            "timeout must be from 100ms to 60s",
            ["99ms", "61s"],
            ["100ms", "1m"],
        ),
        (
            "/spec/triggers/0/for",
            "spec.triggers[0].for",
            "for must be at most 24h",
            ["24h0.001s", "25h"],
            ["0s", "23h59m60s"],
        ),
        (
            "/spec/triggers/1/baseline/captured/window",
            "spec.triggers[1].baseline.captured.window",
            "window must be from 1s to 168h",
            ["0s", "169h"],
            ["1s", "168h"],
        ),
        ("/spec/verify/0/for", "spec.verify[0].for", "for must be at most 24h", ["24h1s", "48h"], ["0ms", "24h"]),
        (
            "/spec/verify/0/timeout",
            "spec.verify[0].timeout",
            "timeout must be from 1s to 24h",
            ["0s", "24h1s"],
            ["1s", "24h"],
        ),
        (
            "/spec/rollbacks/1/steps/0/shiftTraffic/interval",
            "spec.rollbacks[1].steps[0].shiftTraffic.interval",
            "interval must be at most 24h",
            ["24h1s", "100h"],
            ["0s", "24h"],
        ),
    ] {
        for value in outside {
            let name = format!("{field}: {value}").leak();
            refused(cases, name, &[(pointer, json!(value))], field, message);
        }
        for value in inside {
            rollout(cases, format!("{field}: {value}").leak(), &[(pointer, json!(value))], Verdict::Admitted);
        }
        for value in ["55", "-5m", "3 days", "1d", ".5s", "1e9s", "1234567890s"] {
            let name = format!("{field}: {value}").leak();
            malformed(cases, name, &[(pointer, json!(value))], field, "should match");
        }
        let name = format!("{field}: more than a CEL duration holds").leak();
        malformed(cases, name, &[(pointer, json!("999999999h"))], field, message);
        let name = format!("{field}: endless").leak();
        malformed(cases, name, &[(pointer, json!("1s".repeat(17)))], field, "may not be more than 32");
    }
}

fn bounds(cases: &mut Vec<Case>) {
    let gone = Value::Null;
    malformed(cases, "no triggers", &[("/spec/triggers", gone.clone())], "spec.triggers", "Required value");
    malformed(
        cases,
        "an empty list of triggers",
        &[("/spec/triggers", json!([]))],
        "spec.triggers",
        "at least 1 items",
    );
    malformed(cases, "no rollbacks", &[("/spec/rollbacks", gone.clone())], "spec.rollbacks", "Required value");
    malformed(
        cases,
        "no duration",
        &[("/spec/triggers/0/for", gone.clone())],
        "spec.triggers[0].for",
        "Required value",
    );
    malformed(
        cases,
        "no query",
        &[("/spec/triggers/0/query", json!(""))],
        "spec.triggers[0].query",
        "at least 1 chars",
    );
    malformed(
        cases,
        "an endless query",
        &[("/spec/triggers/0/query", json!("u".repeat(4097)))],
        "spec.triggers[0].query",
        "may not be more than 4096",
    );
    let trigger = full()["spec"]["triggers"][0].clone();
    let many: Vec<Value> =
        (0..33).map(|number| with(trigger.clone(), &[("/name", json!(format!("t{number}")))])).collect();
    malformed(cases, "33 triggers", &[("/spec/triggers", json!(many))], "spec.triggers", "must have at most 32 items");
    rollout(cases, "32 triggers", &[("/spec/triggers", json!(many[..32]))], Verdict::Admitted);
    malformed(
        cases,
        "two triggers of one name",
        &[("/spec/triggers/1/name", json!("error-rate-spike"))],
        "spec.triggers[1]",
        "Duplicate value",
    );
    malformed(cases, "an unknown mode", &[("/spec/mode", json!("Off"))], "spec.mode", "\"Enforce\", \"Observe\"");
    for (name, url) in [
        ("a url with a user", "http://me:secret@prometheus:9090"),
        ("a url with a query", "http://prometheus:9090/?a=b"),
        ("a url of another scheme", "ftp://prometheus:9090"),
    ] {
        malformed(cases, name, &[("/spec/prometheus/url", json!(url))], "spec.prometheus.url", "should match");
    }
    malformed(
        cases,
        "a header that breaks the line",
        &[("/spec/prometheus/headers/X-Scope-OrgID", json!("a\r\nb"))],
        "spec.prometheus.headers.X-Scope-OrgID",
        "should match",
    );
    let replicas = "/spec/rollbacks/0/steps/2/scale/replicas";
    malformed(
        cases,
        "negative replicas",
        &[(replicas, json!(-1))],
        "spec.rollbacks[0].steps[2].scale.replicas",
        "greater than or equal to 0",
    );
    malformed(
        cases,
        "a weight above 100",
        &[("/spec/rollbacks/1/steps/0/shiftTraffic/weights", json!([101, 0]))],
        "spec.rollbacks[1].steps[0].shiftTraffic.weights[0]",
        "less than or equal to 100",
    );
    malformed(
        cases,
        "a threshold beyond all measure",
        &[("/spec/triggers/0/above", json!(1e19))],
        "spec.triggers[0].above",
        "less than or equal to",
    );
    malformed(
        cases,
        "an empty selector",
        &[("/spec/rollbacks/0/steps/1/switchService/selector", json!({}))],
        "spec.rollbacks[0].steps[1].switchService.selector",
        "at least 1 properties",
    );
}

fn records(cases: &mut Vec<Case>) {
    create(cases, "a record with every field", record(), Verdict::Admitted);
    let manual = json!({
        "apiVersion": "learningloop.io/v1alpha1", "kind": "LearningRollback", "metadata": {"name": "by-hand"},
        "spec": {"rolloutRef": {"name": "learning-loop"}, "rollback": "immediate"},
    });
    create(cases, "a record made by hand", manual, Verdict::Admitted);
    let schema = |field, says| Verdict::Schema { field, says };
    create(
        cases,
        "a record of nothing",
        with(record(), &[("/spec/rolloutRef", Value::Null)]),
        schema("spec.rolloutRef", "Required value"),
    );
    create(
        cases,
        "an unknown will",
        with(record(), &[("/spec/desiredState", json!("Undo"))]),
        schema("spec.desiredState", "supported values"),
    );
    create(
        cases,
        "an expiry that is no moment",
        with(record(), &[("/spec/expiresAt", json!("soon"))]),
        schema("spec.expiresAt", "date-time"),
    );
    create(
        cases,
        "an endless reason",
        with(record(), &[("/spec/reason", json!("r".repeat(1025)))]),
        schema("spec.reason", "may not be more than 1024"),
    );
}

fn decisions(cases: &mut Vec<Case>) {
    let mut update = |name: &'static str, before: &[(&str, Value)], after: &[(&str, Value)], verdict| {
        let before = with(record(), before);
        let object = with(before.clone(), after);
        cases.push(Case { name, before: Some(before), object, verdict });
    };
    let rule = |field, message| Verdict::Rule { field, message };
    let fixed = "rolloutRef, rollback, reason and dryRun are immutable: create another LearningRollback";
    update("another rollout", &[], &[("/spec/rolloutRef/name", json!("other"))], rule("spec", fixed));
    update("another uid", &[], &[("/spec/rolloutRef/uid", Value::Null)], rule("spec", fixed));
    update("another plan", &[], &[("/spec/rollback", json!("gradual"))], rule("spec", fixed));
    update("another reason", &[], &[("/spec/reason", json!("because"))], rule("spec", fixed));
    update(
        "no longer a dry run",
        &[("/spec/dryRun", json!(true))],
        &[("/spec/dryRun", json!(false))],
        rule("spec", fixed),
    );
    for (pointer, field, message, other) in [
        ("/spec/trigger", "spec.trigger", "trigger is immutable: create another LearningRollback", json!("other")),
        ("/spec/id", "spec.id", "id is immutable: it names the execution", json!("other")),
        (
            "/spec/expiresAt",
            "spec.expiresAt",
            "expiresAt is immutable: create another LearningRollback",
            json!("2031-01-01T00:00:00.000000Z"),
        ),
    ] {
        update(format!("{field} changed").leak(), &[], &[(pointer, other.clone())], rule(field, message));
        update(format!("{field} removed").leak(), &[], &[(pointer, Value::Null)], rule(field, message));
        update(format!("{field} added").leak(), &[(pointer, Value::Null)], &[(pointer, other)], rule(field, message));
    }
    let last = "desiredState Restored and Released are final: create another LearningRollback to roll back again";
    let states = ["RolledBack", "Held", "Restored", "Released"];
    for from in states {
        for to in states {
            let is_final = matches!(from, "Restored" | "Released") && from != to;
            update(
                format!("{from} to {to}").leak(),
                &[("/spec/desiredState", json!(from))],
                &[("/spec/desiredState", json!(to))],
                if is_final { rule("spec.desiredState", last) } else { Verdict::Admitted },
            );
        }
    }
    update(
        "a final word left out",
        &[("/spec/desiredState", json!("Released"))],
        &[("/spec/desiredState", Value::Null)],
        rule("spec.desiredState", last),
    );
    update(
        "faster, and why",
        &[],
        &[("/spec/pace", json!("Fast")), ("/spec/decisionReason", json!("hurry"))],
        Verdict::Admitted,
    );
}
