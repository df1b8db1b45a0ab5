//! Runs the kubectl plugin's real binary against a real API server. No operator runs: the tests write the statuses that one
//! would write, so that each verb meets exactly the state it is tested in.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod manifests;

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use learning_rollout::api::rollback::{DesiredState, LearningRollback, Pace};
use learning_rollout::api::rollout::LearningRollout;
use learning_rollout::api::{FENCE, PAUSED_REASON, PAUSED_UNTIL, REBASELINE, UNDO};
use serde_json::{Value, json};
use testbed::{ControlPlane, Options, wait};
use tokio::process::{Child, Command};

const PLUGIN: &str = env!("CARGO_BIN_EXE_kubectl-learning_rollout");

/// Longer than anything here takes on a machine that compiles meanwhile.
const WITHIN: Duration = Duration::from_secs(60);

struct Bed {
    plane: ControlPlane,
    namespace: String,
}

/// What the plugin said, and its exit code.
#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Said {
    fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    /// It refused with this code, in words that hold all of these.
    fn refused(self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.out.is_empty(), "{self:?}");
        for word in words {
            assert!(self.err.contains(word), "{word:?} is not said: {self:?}");
        }
    }
}

impl Bed {
    async fn start(name: &str) -> Self {
        let options = Options { name: Some(name.to_owned()), audit_log: false, ..Options::api_only() };
        let plane = ControlPlane::start(options).await.unwrap();
        plane.apply_crds(&testbed::workspace_root().join("crds")).await.unwrap();
        let namespace = plane.namespace("cli").await.unwrap();
        Self { plane, namespace }
    }

    /// The plugin with an administrator's kubeconfig, which names no namespace.
    fn command(&self, line: &[&str]) -> Command {
        let mut command = Command::new(PLUGIN);
        command.args(line).env("KUBECONFIG", self.plane.kubeconfig()).env("HOME", self.plane.dir().path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    async fn run(&self, line: &[&str]) -> Said {
        let mut words = vec!["-n", self.namespace.as_str()];
        words.extend(line);
        end(self.command(&words).spawn().unwrap()).await
    }

    fn rollouts(&self) -> Api<LearningRollout> {
        Api::namespaced(self.plane.client(), &self.namespace)
    }

    fn records(&self) -> Api<LearningRollback> {
        Api::namespaced(self.plane.client(), &self.namespace)
    }

    async fn rollout(&self) -> LearningRollout {
        let manifest = serde_json::from_value(manifests::full()).unwrap();
        self.rollouts().create(&PostParams::default(), &manifest).await.unwrap()
    }

    async fn record(&self, name: &str) -> LearningRollback {
        let manifest = manifests::with(manifests::record(), &[("/metadata/name", json!(name))]);
        self.records().create(&PostParams::default(), &serde_json::from_value(manifest).unwrap()).await.unwrap()
    }

    async fn rollout_status(&self, status: Value) {
        let patch = Patch::Merge(json!({"status": status}));
        self.rollouts().patch_status("learning-loop", &PatchParams::default(), &patch).await.unwrap();
    }

    async fn record_status(&self, name: &str, status: Value) {
        let patch = Patch::Merge(json!({"status": status}));
        self.records().patch_status(name, &PatchParams::default(), &patch).await.unwrap();
    }

    /// Names a record as the rollback in force.
    async fn activate(&self, record: &str) {
        let active = json!({"name": record, "id": "x", "rollback": "immediate", "type": "Immediate"});
        self.rollout_status(json!({"active": active})).await;
    }
}

async fn end(child: Child) -> Said {
    let output = tokio::time::timeout(WITHIN, child.wait_with_output()).await.expect("the plugin hangs").unwrap();
    Said {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

#[tokio::test]
async fn rollback_creates_a_record_that_names_the_rollout() {
    let bed = Bed::start("cli-rollback").await;
    bed.run(&["rollback", "learning-loop", "--plan", "immediate", "--reason", "x"])
        .await
        .refused(3, &[&format!("LearningRollout {}/learning-loop is not there", bed.namespace)]);
    let rollout = bed.rollout().await;
    bed.run(&["rollback", "learning-loop", "--plan", "imediate", "--reason", "x"]).await.refused(
        3,
        &["no plan \"imediate\"", "immediate (Immediate), gradual (Gradual), feature-disable (FeatureDisable)"],
    );
    assert!(bed.records().list(&ListParams::default()).await.unwrap().items.is_empty(), "a refusal writes nothing");

    let before = Timestamp::now();
    let said = bed.run(&["rollback", "learning-loop", "--plan", "immediate", "--reason", "errors in EU"]).await.ok();
    let records = bed.records().list(&ListParams::default()).await.unwrap().items;
    let [record] = &records[..] else { panic!("{records:?}") };
    assert!(record.name_any().starts_with("learning-loop-manual-"), "{}", record.name_any());
    assert!(said.contains(&record.name_any()), "{said}");
    let spec = &record.spec;
    assert_eq!((spec.rollout_ref.name.as_str(), &spec.rollout_ref.uid), ("learning-loop", &rollout.uid()));
    assert_eq!((spec.rollback.as_str(), spec.reason.as_str()), ("immediate", "errors in EU"));
    assert_eq!((spec.desired_state, spec.dry_run), (DesiredState::RolledBack, false));
    assert_eq!((&spec.trigger, &spec.id), (&None, &None), "the operator's own fields stay empty");
    let lasts = spec.expires_at.as_ref().unwrap().0.duration_since(before);
    assert!(lasts >= SignedDuration::from_secs(299) && lasts <= SignedDuration::from_secs(360), "{lasts}");

    bed.activate(&record.name_any()).await;
    let line = ["rollback", "learning-loop", "--plan", "gradual", "--reason", "x", "--dry-run", "--expires-in", "1h"];
    let said = bed.run(&line).await.ok();
    assert!(said.contains("dry run of learning-loop") && said.contains("is in force"), "{said}");
    let records = bed.records().list(&ListParams::default()).await.unwrap().items;
    let dry: Vec<_> = records.iter().filter(|record| record.spec.dry_run).collect();
    assert_eq!(dry.len(), 1, "two rollbacks, two names");
    assert!(dry[0].spec.expires_at.as_ref().unwrap().0 > before + SignedDuration::from_secs(3500));
}

#[tokio::test]
async fn waiting_ends_with_the_rollback() {
    let bed = Bed::start("cli-wait").await;
    bed.rollout().await;
    let condition = |kind: &str, message: &str| json!([{"type": kind, "status": "True", "reason": "Test", "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    let stalled = condition("Stalled", "403 on ConfigMap x");
    let landed = condition("RolledBack", "all steps have landed");
    let end_of = [
        (json!({"phase": "RolledBack", "progress": "3/3", "conditions": landed}), 0, "RolledBack, 3/3 steps"),
        (
            json!({"phase": "DryRunComplete", "message": "3 edits would land"}),
            0,
            "DryRunComplete, 1/3 steps; 3 edits would land",
        ),
        (json!({"phase": "Skipped", "message": "expired"}), 4, "Skipped, 1/3 steps; expired"),
        (json!({"phase": "Executing", "conditions": stalled}), 4, "Executing, 1/3 steps; Stalled: 403 on ConfigMap x"),
    ];
    for (status, code, words) in end_of {
        let line =
            ["-n", &bed.namespace, "rollback", "learning-loop", "--plan", "immediate", "--reason", "x", "--wait"];
        let child = bed.command(&line).spawn().unwrap();
        let created = wait::until("the record", WITHIN, || async {
            let all = bed.records().list(&ListParams::default()).await.ok()?.items;
            all.into_iter().find(|record| record.status.is_none()).map(|record| record.name_any())
        });
        let name = created.await.unwrap();
        bed.record_status(&name, json!({"phase": "Executing", "progress": "1/3"})).await;
        bed.record_status(&name, status).await;
        let said = end(child).await;
        assert_eq!(said.code, code, "{said:?}");
        assert!(format!("{}{}", said.out, said.err).contains(words), "{words:?} is not said: {said:?}");
        bed.records().delete(&name, &Default::default()).await.unwrap();
    }

    bed.record("stays").await;
    bed.record_status("stays", json!({"phase": "RolledBack"})).await;
    let said = bed.run(&["restore", "stays", "--wait", "--timeout", "250ms"]).await;
    assert_eq!(said.code, 4, "{said:?}");
    assert!(said.err.contains("not done after 250ms and goes on: RolledBack; is the operator running?"), "{said:?}");
    let child = bed.command(&["-n", &bed.namespace, "restore", "stays", "--wait"]).spawn().unwrap();
    bed.record_status("stays", json!({"phase": "Restoring"})).await;
    bed.record_status("stays", json!({"phase": "Restored"})).await;
    // Whether it asked before or after the end, the answer is about the same record.
    let said = end(child).await;
    assert!(said.code == 0 && said.out.contains("Restored") || said.err.contains("has ended as Restored"), "{said:?}");
}

#[tokio::test]
async fn decisions_reach_the_record_that_is_meant() {
    let bed = Bed::start("cli-decide").await;
    bed.rollout().await;
    let place = bed.namespace.as_str();
    bed.run(&["restore", "learning-loop"]).await.refused(3, &["learning-loop has no rollback in force"]);
    bed.run(&["restore", "nothing"]).await.refused(3, &["neither a LearningRollback nor a LearningRollout", place]);
    bed.activate("first").await;
    bed.run(&["hold", "learning-loop"]).await.refused(3, &["names first as its rollback in force", "not there"]);
    bed.record("first").await;
    bed.record_status("first", json!({"phase": "Executing"})).await;

    let state = async || {
        let spec = bed.records().get("first").await.unwrap().spec;
        (spec.desired_state, spec.pace, spec.decision_reason)
    };
    let why = |why: &str| Some(why.to_owned());
    bed.run(&["hold", "learning-loop", "--reason", "look first"]).await.ok();
    assert_eq!(state().await, (DesiredState::Held, Pace::Normal, why("look first")));
    let again = bed.run(&["hold", "learning-loop", "--reason", "other"]).await.ok();
    assert!(again.contains("already"), "{again}");
    assert_eq!(state().await.2, why("look first"), "nothing was written");
    bed.run(&["resume", "lro/learning-loop"]).await.ok();
    assert_eq!(state().await, (DesiredState::RolledBack, Pace::Normal, None), "no word stands for an old decision");
    bed.run(&["faster", "lrb/first", "--reason", "hurry"]).await.ok();
    assert_eq!(state().await, (DesiredState::RolledBack, Pace::Fast, why("hurry")));
    bed.run(&["restore", "first", "--reason", "fixed"]).await.ok();
    assert_eq!(state().await, (DesiredState::Restored, Pace::Fast, why("fixed")));
    for verb in ["release", "hold", "resume", "faster"] {
        bed.run(&[verb, "first"]).await.refused(3, &["was told spec.desiredState Restored (fixed)", "final", verb]);
    }
    bed.record_status("first", json!({"phase": "Restored", "finishedAt": "2026-01-02T03:04:05.000000Z"})).await;
    bed.run(&["restore", "first"]).await.refused(
        3,
        &["has ended as Restored at 2026-01-02T03:04:05Z", "rollback learning-loop --plan immediate starts another"],
    );

    // A record whose rollout is gone is found by the rollout's name as long as it is the only one.
    bed.record("second").await;
    bed.rollouts().delete("learning-loop", &Default::default()).await.unwrap();
    bed.run(&["release", "learning-loop"]).await.ok();
    assert_eq!(bed.records().get("second").await.unwrap().spec.desired_state, DesiredState::Released);
    bed.record("third").await;
    bed.run(&["release", "learning-loop"]).await.refused(3, &["name one of", "second", "third"]);
    bed.run(&["release", "pod/third"]).await.refused(3, &["neither lrb (a record) nor lro (a rollout)"]);

    // A record and a rollout of one name: neither is guessed.
    bed.rollout().await;
    bed.record("learning-loop").await;
    bed.run(&["hold", "learning-loop"]).await.refused(3, &["write lrb/learning-loop or lro/learning-loop"]);
    bed.run(&["hold", "lrb/learning-loop"]).await.ok();
}

/// The operator writes the record all the time: a decision that meets a newer version is made again on that one.
#[tokio::test]
async fn a_decision_survives_a_busy_operator() {
    let bed = Bed::start("cli-busy").await;
    bed.record("busy").await;
    let children: Vec<Child> = ["hold", "hold", "faster", "faster"]
        .iter()
        .map(|verb| bed.command(&["-n", &bed.namespace, verb, "busy"]).spawn().unwrap())
        .collect();
    for child in children {
        end(child).await.ok();
    }
    let spec = bed.records().get("busy").await.unwrap().spec;
    assert_eq!((spec.desired_state, spec.pace), (DesiredState::Held, Pace::Fast), "no decision is lost");
}

#[tokio::test]
async fn pauses_and_baselines() {
    let bed = Bed::start("cli-pause").await;
    bed.run(&["pause", "learning-loop", "--for", "1h"]).await.refused(3, &["learning-loop is not there"]);
    bed.rollout().await;
    let annotations = async || bed.rollouts().get("learning-loop").await.unwrap().annotations().clone();
    bed.run(&["pause", "learning-loop", "--until", "2020-01-01T00:00:00Z"]).await.refused(3, &["has passed"]);
    bed.run(&["pause", "learning-loop", "--for", "0s"]).await.refused(3, &["not a time to come"]);
    assert!(annotations().await.is_empty());
    bed.run(&["pause", "learning-loop", "--until", "2999-01-02T03:04:05.5Z", "--reason", "load test"]).await.ok();
    let found = annotations().await;
    assert_eq!((found[PAUSED_UNTIL].as_str(), found[PAUSED_REASON].as_str()), ("2999-01-02T03:04:06Z", "load test"));
    let status = bed.run(&["status"]).await.ok();
    assert!(status.contains("until 2999-01-02T03:04:06Z (load test)"), "{status}");
    let before = Timestamp::now();
    bed.run(&["pause", "learning-loop", "--for", "1h"]).await.ok();
    let found = annotations().await;
    let lasts = found[PAUSED_UNTIL].parse::<Timestamp>().unwrap().duration_since(before);
    assert!(lasts >= SignedDuration::from_hours(1) && lasts < SignedDuration::from_mins(62), "{lasts}");
    assert!(!found.contains_key(PAUSED_REASON), "the old reason is not the new one's");
    bed.run(&["unpause", "learning-loop"]).await.ok();
    assert!(annotations().await.is_empty());
    let again = bed.run(&["unpause", "learning-loop"]).await.ok();
    assert!(again.contains("was not paused; it is suspended by spec.suspend"), "{again}");

    let said = bed.run(&["rebaseline", "learning-loop"]).await.ok();
    assert!(said.contains("baselines of response-time-regression are taken anew"), "{said}");
    assert!(annotations().await[REBASELINE].parse::<Timestamp>().unwrap() >= before - SignedDuration::from_secs(1));
    let minimal = serde_json::from_value(manifests::manifest("rollout-minimal.yaml")).unwrap();
    bed.rollouts().create(&PostParams::default(), &minimal).await.unwrap();
    bed.run(&["rebaseline", "minimal"]).await.refused(3, &["minimal has no trigger with baseline.captured"]);
}

#[tokio::test]
async fn status_shows_what_is_going_on() {
    let bed = Bed::start("cli-status").await;
    assert_eq!(bed.run(&["status"]).await.ok().trim(), format!("No LearningRollouts in {}.", bed.namespace));
    bed.rollout().await;
    bed.record("first").await;
    bed.activate("first").await;
    let at = "2026-01-02T03:04:05.678901Z";
    let condition = |kind: &str, status: &str, message: &str| json!({"type": kind, "status": status, "reason": "Test", "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z"});
    bed.rollout_status(json!({
        "conditions": [condition("Ready", "True", "x"), condition("Armed", "False", "step flag: ConfigMap is not there")],
        "triggers": [
            {"name": "error-rate-spike", "state": "Firing", "since": at, "value": "0.07"},
            {"name": "response-time-regression", "state": "Unknown", "reason": "Timeout", "message": "no \u{1b}[31manswer",
             "baseline": {"value": 0.25, "query": "up"}},
        ],
    }))
    .await;
    let plan = manifests::full()["spec"]["rollbacks"][0]["steps"].clone();
    bed.record_status(
        "first",
        json!({
            "phase": "Executing", "progress": "1/3",
            "plan": {"formatVersion": 1, "type": "Immediate", "interval": "15s", "steps": plan},
            "conditions": [condition("Stalled", "True", "403 on Deployment")],
            "steps": [
                {"name": "flag", "kind": "setConfig", "state": "Applied",
                 "target": {"apiVersion": "v1", "kind": "ConfigMap", "name": "learning-loop-config"},
                 "prior": [{"field": "/data/ENABLE_LEARNING", "value": "true"}]},
                {"name": "traffic", "kind": "switchService", "state": "Intended", "prior": [{"field": "/spec/selector/version"}]},
                {"name": "capacity", "kind": "scale", "state": "Blocked", "message": "waits for traffic"},
            ],
        }),
    )
    .await;
    // Cells are told apart by the gaps between them, which the widths of others do not change.
    let rows = |text: &str| -> Vec<Vec<String>> {
        let cells =
            |line: &str| line.split("   ").map(|cell| cell.trim().to_owned()).filter(|cell| !cell.is_empty()).collect();
        text.lines().map(cells).collect()
    };
    let said = bed.run(&["status", "learning-loop"]).await.ok();
    let found = rows(&said);
    for expected in [
        vec!["NAME", "READY", "MODE", "ARMED", "BREACHING", "ACTIVE", "PAUSED"],
        vec!["learning-loop", "True", "Observe", "False", "-", "first", "suspended"],
        vec!["Armed is False (Test): step flag: ConfigMap is not there"],
        vec!["TRIGGER", "STATE", "SINCE", "VALUE", "BASELINE", "FOR", "ROLLBACK", "WHY"],
        vec!["error-rate-spike", "Firing", "2026-01-02T03:04:05Z", "0.07", "-", "3m", "immediate", "-"],
        vec![
            "response-time-regression",
            "Unknown",
            "-",
            "-",
            "0.25",
            "10m",
            "gradual",
            "Timeout: no \u{fffd}[31manswer",
        ],
        vec!["crash-loop", "-", "-", "-", "-", "0s", "immediate", "-"],
        vec!["RECORD", "ROLLOUT", "PLAN", "PHASE", "WANTED", "STEPS", "REASON"],
        vec!["first", "learning-loop", "immediate", "Executing", "RolledBack", "1/3", "error-rate-spike held for 3m"],
        vec!["Stalled (Test): 403 on Deployment"],
        vec!["STEP", "STATE", "TARGET", "FIELD", "BEFORE", "AFTER", "WHY"],
        vec!["flag", "Applied", "ConfigMap/learning-loop-config", "ENABLE_LEARNING", "true", "false", "-"],
        vec!["traffic", "Intended", "-", "version", "(absent)", "baseline", "-"],
        vec!["capacity", "Blocked", "-", "replicas", "?", "0", "waits for traffic"],
    ] {
        assert!(found.iter().any(|row| *row == expected), "{expected:?} is not shown:\n{said}");
    }

    bed.record("over").await;
    bed.record_status("over", json!({"phase": "Restored"})).await;
    let said = bed.run(&["status"]).await.ok();
    assert!(said.contains("first") && !said.contains("over"), "{said}");
    let said = bed.run(&["status", "-A"]).await.ok();
    let place = bed.namespace.as_str();
    for expected in [
        vec![place, "learning-loop", "True", "Observe", "False", "-", "first", "suspended"],
        vec![
            place,
            "first",
            "learning-loop",
            "immediate",
            "Executing",
            "RolledBack",
            "1/3",
            "error-rate-spike held for 3m",
        ],
    ] {
        assert!(rows(&said).iter().any(|row| *row == expected), "{expected:?} is not shown:\n{said}");
    }
    bed.run(&["status", "other"]).await.refused(3, &["other is not there"]);
}

#[tokio::test]
async fn restore_from_target_puts_back_what_is_still_ours() {
    let bed = Bed::start("cli-undo").await;
    let maps: Api<ConfigMap> = Api::namespaced(bed.plane.client(), &bed.namespace);
    let make = async |name: &str, note: Option<Value>| {
        let mut annotations = json!({"team": "learning"});
        if let Some(note) = note {
            annotations[UNDO] = json!(note.to_string());
            annotations[FENCE] = json!("r/s/1");
        }
        let map = json!({
            "metadata": {"name": name, "annotations": annotations},
            "data": {"FLAG": "false", "ADDED": "ours", "PERSON": "theirs", "OTHER": "x"},
        });
        maps.create(&PostParams::default(), &serde_json::from_value(map).unwrap()).await.unwrap()
    };
    let note = |record: &str, uid: &str| {
        json!({"version": 1, "record": format!("{}/{record}", bed.namespace), "uid": uid, "steps": {"flag": {"kind": "setConfig", "fields": [
            {"field": "/data/FLAG", "before": "true", "after": "false"},
            {"field": "/data/ADDED", "after": "ours"},
            {"field": "/data/PERSON", "before": "a", "after": "b"},
        ]}}})
    };
    bed.run(&["restore", "--from-target", "cm/none"]).await.refused(1, &["cannot read ConfigMap", "not found"]);
    make("plain", None).await;
    bed.run(&["restore", "--from-target", "cm/plain"])
        .await
        .refused(3, &["carries no annotation learningloop.io/undo"]);
    bed.run(&["restore", "--from-target", "vs/x"]).await.refused(1, &["VirtualService is not served"]);

    let before = make("lost", Some(note("gone", "u"))).await;
    let said = bed.run(&["restore", "--from-target", "configmap/lost"]).await.ok();
    assert!(said.contains("would be put back") && said.contains("--yes does it"), "{said}");
    assert_eq!(maps.get("lost").await.unwrap().resource_version(), before.resource_version(), "only shown");
    let said = bed.run(&["restore", "--from-target", "configmap/lost", "--yes"]).await.ok();
    assert!(said.contains("has been put back") && said.contains("kept: changed since"), "{said}");
    let after = maps.get("lost").await.unwrap();
    let data: Vec<(&str, &str)> =
        after.data.iter().flatten().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(data, [("FLAG", "true"), ("OTHER", "x"), ("PERSON", "theirs")]);
    let left: Vec<&str> = after.annotations().keys().map(String::as_str).collect();
    assert_eq!(left, ["team"]);
    bed.run(&["restore", "--from-target", "cm/lost", "--yes"]).await.refused(3, &["or it has been put back"]);

    // A record that is there and has not ended is the way to restore; one of another uid is not that record.
    let record = bed.record("here").await;
    bed.record_status("here", json!({"phase": "RolledBack"})).await;
    make("held", Some(note("here", &record.uid().unwrap()))).await;
    let refusal = ["which is in force", &format!("restore -n {} lrb/here", bed.namespace)];
    bed.run(&["restore", "--from-target", "cm/held", "--yes"]).await.refused(3, &refusal);
    bed.record_status("here", json!({"phase": "Released"})).await;
    bed.run(&["restore", "--from-target", "cm/held", "--yes"]).await.ok();
    bed.record_status("here", json!({"phase": "RolledBack"})).await;
    make("stranger", Some(note("here", "another"))).await;
    bed.run(&["restore", "--from-target", "cm/stranger", "--yes"]).await.ok();

    // Replicas are a number in the object, and the last annotations go with their map.
    let deployment = |replicas: i32| {
        json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "annotations": {UNDO: json!({"version": 1, "record": "gone/gone", "uid": "u", "steps": {
            "capacity": {"kind": "scale", "fields": [{"field": "/spec/replicas", "before": "3", "after": "0"}]},
            "restart": {"kind": "restart", "fields": [{"field": "/spec/template/metadata/annotations/learningloop.io~1restarted-by", "after": "u-restart"}]},
        }}).to_string()}},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web"}, "annotations": {"learningloop.io/restarted-by": "u-restart"}},
            "spec": {"containers": [{"name": "c", "image": "none"}]},
        }}})
    };
    bed.plane
        .kubectl_with_input(&["apply", "-n", &bed.namespace, "-f", "-"], &deployment(0).to_string())
        .await
        .unwrap()
        .ok()
        .unwrap();
    // What kubectl apply remembers is an annotation too.
    bed.run(&["restore", "--from-target", "deploy/web", "--yes"]).await.ok();
    let json =
        bed.plane.kubectl(&["get", "deploy", "web", "-n", &bed.namespace, "-o", "json"]).await.unwrap().ok().unwrap();
    let web: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(web["spec"]["replicas"], 3);
    assert_eq!(web.pointer("/spec/template/metadata/annotations/learningloop.io~1restarted-by"), None);
    assert_eq!(web["metadata"]["annotations"].get(UNDO), None);
}

/// Somebody who may not do it is told so, by the API server's own words; nothing is half done.
#[tokio::test]
async fn what_the_server_refuses_is_said_as_it_said_it() {
    let bed = Bed::start("cli-refused").await;
    bed.rollout().await;
    let config = bed.plane.service_account_kubeconfig(&bed.namespace, "default").await.unwrap();
    let config = config.to_str().unwrap();
    let line = ["--kubeconfig", config, "rollback", "learning-loop", "--plan", "immediate", "--reason", "x"];
    bed.run(&line).await.refused(1, &["cannot read LearningRollout", "is forbidden", "ask for the right"]);
    bed.run(&["status", "--kubeconfig", config]).await.refused(1, &["cannot list the rollouts of", "is forbidden"]);
    bed.run(&["status", "--kubeconfig", "/nowhere"]).await.refused(1, &["no connection to a cluster", "/nowhere"]);
    bed.run(&["status", "--context", "other"]).await.refused(1, &["no connection to a cluster", "other"]);
    bed.run(&["nonsense"]).await.refused(2, &["unrecognized subcommand"]);
    bed.plane.stop_apiserver().unwrap();
    bed.run(&["status"]).await.refused(1, &["cannot list the rollouts of"]);

    let bare = ControlPlane::start(Options { audit_log: false, ..Options::api_only() }).await.unwrap();
    let child = bed.command(&["--kubeconfig", bare.kubeconfig().to_str().unwrap(), "status"]).spawn().unwrap();
    end(child).await.refused(1, &["are the definitions installed? kubectl apply -f crds/"]);
}

#[tokio::test]
async fn kubectl_finds_the_plugin_and_the_context_its_namespace() {
    let bed = Bed::start("cli-kubectl").await;
    bed.rollout().await;
    let mut config: Value = serde_yaml::from_str(&std::fs::read_to_string(bed.plane.kubeconfig()).unwrap()).unwrap();
    config["contexts"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "team", "context": {"cluster": "bed", "user": "bed", "namespace": bed.namespace}}));
    let path = bed.plane.dir().path().join("with-namespace.kubeconfig");
    std::fs::write(&path, serde_yaml::to_string(&config).unwrap()).unwrap();

    let path_with_plugin = std::env::join_paths(
        [Path::new(PLUGIN).parent().unwrap().to_path_buf()]
            .into_iter()
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    )
    .unwrap();
    let kubectl = async |line: &[&str]| {
        let mut command = Command::from(bed.plane.kubectl_command(line).unwrap());
        command.env("PATH", &path_with_plugin).env("KUBECONFIG", &path);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        end(command.spawn().unwrap()).await
    };
    let said = kubectl(&["learning-rollout", "--context", "team", "status"]).await.ok();
    assert!(said.contains("learning-loop"), "{said}");
    let said = kubectl(&["learning-rollout", "status"]).await.ok();
    assert_eq!(said.trim(), "No LearningRollouts in default.", "the context names no namespace");
    kubectl(&["learning-rollout", "restore", "learning-loop", "--context", "team"])
        .await
        .refused(3, &["has no rollback in force"]);
    let help = kubectl(&["learning-rollout", "--help"]).await.ok();
    assert!(help.contains("kubectl learning-rollout") && help.contains("Exit codes"), "{help}");
}
