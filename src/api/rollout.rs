//! `LearningRollout`: the policy. What to watch, and what each rollback does.

// Columns of a definition repeat their attribute names; that is how the derive reads them.
#![allow(clippy::duplicated_attributes)]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    duration::GoDuration,
    schema,
    step::{PlanType, Step},
};

/// A policy that rolls a feature back when a PromQL trigger holds for its full duration.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "learningloop.io",
    version = "v1alpha1",
    kind = "LearningRollout",
    plural = "learningrollouts",
    shortname = "lro",
    category = "learningloop",
    namespaced,
    status = "LearningRolloutStatus",
    derive = "PartialEq",
    doc = "LearningRollout is the policy that rolls a feature back: what to watch, and what each rollback does.",
    validation = Rule::new("self.metadata.name.size() <= 40").message("metadata.name must have at most 40 characters: the names of its rollback records are made from it; choose a shorter name").field_path(".metadata.name"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
    printcolumn(name = "Armed", type_ = "string", json_path = ".status.conditions[?(@.type=='Armed')].status", description = "Would a rollback work now?"),
    printcolumn(name = "Breaching", type_ = "string", json_path = ".status.conditions[?(@.type=='Breaching')].status"),
    printcolumn(name = "Active", type_ = "string", json_path = ".status.active.name", description = "The rollback in force"),
    printcolumn(name = "Last-Rollback", type_ = "string", json_path = ".status.lastRollback.name"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.triggers.all(t, self.rollbacks.exists(r, r.name == t.rollback))").message("every trigger's rollback must be the name of an entry of spec.rollbacks; correct the name or add the rollback").field_path(".triggers")
)]
pub struct LearningRolloutSpec {
    /// Enforce rolls back. Observe only evaluates and reports what it would have done, with server-side dry-runs.
    #[serde(default)]
    pub mode: Mode,
    /// Start nothing new and escalate nothing; a running rollback goes on. For Git; people in a hurry set the annotation
    /// learningloop.io/paused-until (kubectl learning-rollout pause), which Git does not revert and which expires.
    #[serde(default)]
    pub suspend: bool,
    /// How often each trigger is asked. From 1s to 1h.
    #[serde(default = "default_interval")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s') && duration(self) <= duration('1h')").message("interval must be from 1s to 1h"))]
    pub interval: GoDuration,
    /// Where the metrics are. Absent: the operator's own source (--prometheus-url).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<PrometheusSource>,
    /// ServiceAccount of this namespace as which targets are read and written. Absent: the operator's own identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::optional_object_name")]
    pub service_account_name: Option<String>,
    /// What to watch. When one holds for its full duration, its rollback starts.
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub triggers: Vec<Trigger>,
    /// What a rollback does, by name.
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub rollbacks: Vec<RollbackPlan>,
    /// Queries that must hold once the steps have landed: is the baseline healthy?
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub verify: Vec<VerifyCheck>,
    /// After a restore, evidence counts only from restoredAt + cooldown on. At most 168h.
    #[serde(default = "default_cooldown")]
    #[x_kube(validation = Rule::new("duration(self) <= duration('168h')").message("cooldown must be at most 168h: the feature is unguarded for that long"))]
    pub cooldown: GoDuration,
    /// How many terminal LearningRollbacks are kept; the oldest are deleted first.
    #[serde(default = "default_history_limit")]
    #[schemars(range(min = 0, max = 100))]
    pub history_limit: i32,
}

fn default_interval() -> GoDuration {
    GoDuration::from_secs(15)
}

fn default_cooldown() -> GoDuration {
    GoDuration::from_secs(60)
}

fn default_history_limit() -> i32 {
    10
}

/// Does the policy act, or only report?
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    #[default]
    Enforce,
    Observe,
}

/// A Prometheus server of the rollout's own. Credentials go only to this url: a rollout cannot lend itself the
/// operator's.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PrometheusSource {
    /// Base url, such as http://prometheus.monitoring.svc:9090. Without user, query or fragment.
    #[schemars(length(min = 8, max = 2048), regex(pattern = "^https?://[^/?#@]+(/[^?#@]*)?$"))]
    pub url: String,
    /// Secret with the key `token` (bearer), or the keys `username` and `password` (basic).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
    /// Secret with the certificate authority's PEM under the key `ca.crt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretRef>,
    /// Headers sent with every query, such as X-Scope-OrgID. Values are not secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "headers")]
    pub headers: BTreeMap<String, String>,
    /// How long one query may take. From 100ms to 60s.
    #[serde(default = "default_timeout")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('100ms') && duration(self) <= duration('60s')").message("timeout must be from 100ms to 60s"))]
    pub timeout: GoDuration,
}

/// How long one query may take unless the rollout says otherwise.
pub fn default_timeout() -> GoDuration {
    GoDuration::from_secs(10)
}

fn headers(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object", "maxProperties": 16,
        "additionalProperties": {"type": "string", "maxLength": 1024, "pattern": "^[ -~]*$"},
        "x-kubernetes-validations": [{
            "rule": "self.all(k, k.matches('^[A-Za-z0-9-]{1,64}$') && !(k.lowerAscii() in ['authorization', 'host', 'content-length', 'content-type', 'transfer-encoding', 'connection', 'cookie']))",
            "message": "header names are letters, digits and dashes, and none that the client sets itself; credentials belong in secretRef"
        }]
    })
}

/// A Secret of the rollout's namespace, by name.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// Name of the Secret.
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
}

/// What a value is compared with. Exactly one field is set; nothing is implied by absence.
#[derive(KubeSchema, Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    /// Holds while the value is greater than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::number")]
    pub above: Option<f64>,
    /// Holds while the value is less than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::number")]
    pub below: Option<f64>,
    /// Holds while the value is greater than or equal to this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::number")]
    pub at_least: Option<f64>,
    /// Holds while the value is less than or equal to this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::number")]
    pub at_most: Option<f64>,
    /// Holds while the query returns any series, whatever its value. Only `true` can be written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self == true").message("present can only be true: leave it out to compare values"))]
    pub present: Option<bool>,
}

/// A condition on a metric that starts a rollback once it has held for its full duration.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("[has(self.above), has(self.below), has(self.atLeast), has(self.atMost), has(self.present)].filter(c, c).size() == 1").message("exactly one of above, below, atLeast, atMost and present must be set"),
    validation = Rule::new("!(has(self.baseline) && has(self.present))").message("present compares nothing: a trigger with a baseline needs above, below, atLeast or atMost")
)]
pub struct Trigger {
    /// Name of the trigger, unique in the rollout.
    #[schemars(schema_with = "schema::key")]
    pub name: String,
    /// PromQL, asked as an instant query. May use $(namespace), $(name) and $(cluster).
    #[schemars(schema_with = "schema::promql")]
    pub query: String,
    #[serde(flatten)]
    pub comparison: Comparison,
    /// How long breaches must last without a break. 0s: a single breach is enough. At most 24h.
    #[serde(rename = "for")]
    #[x_kube(validation = Rule::new("duration(self) <= duration('24h')").message("for must be at most 24h"))]
    pub hold: GoDuration,
    /// A query that must hold for the value to be judged at all, such as enough traffic. Where it does not, the sample is
    /// Unknown, not a breach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<Gate>,
    /// Compare the value with a baseline instead of comparing it as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<Baseline>,
    /// With several series in the result: Any (the default) fires when one of them has breached for the whole duration,
    /// All when all have.
    #[serde(default, skip_serializing_if = "schema::is_default")]
    pub series: SeriesPolicy,
    /// What an Unknown sample does to a pending trigger: Hold (the default) neither advances nor resets it, Reset
    /// resets it, Breach counts as a breach.
    #[serde(default, skip_serializing_if = "schema::is_default")]
    pub no_data: NoDataPolicy,
    /// Not held back by the breaker, by an unready baseline or by cooldown. False by default.
    #[serde(default, skip_serializing_if = "schema::is_default")]
    pub critical: bool,
    /// Name of the entry of spec.rollbacks to start.
    #[schemars(schema_with = "schema::key")]
    pub rollback: String,
}

/// A query that decides whether a trigger's value can be judged.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.above), has(self.below), has(self.atLeast), has(self.atMost), has(self.present)].filter(c, c).size() == 1").message("exactly one of above, below, atLeast, atMost and present must be set"))]
pub struct Gate {
    /// PromQL; must return one series or a scalar.
    #[schemars(schema_with = "schema::promql")]
    pub query: String,
    #[serde(flatten)]
    pub comparison: Comparison,
}

/// What a trigger's value is compared with.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.captured) != has(self.query)").message("exactly one of captured and query must be set"))]
pub struct Baseline {
    /// The median of the trigger's own query over a window, taken once while nothing breaches and kept until
    /// `kubectl learning-rollout rebaseline`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub captured: Option<CapturedBaseline>,
    /// PromQL asked at the same moment. Blind once the baseline serves nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::promql")]
    pub query: Option<String>,
    /// Ratio: value / baseline. Difference: value - baseline.
    pub compare: Compare,
    /// A smaller baseline counts as this much, so that a ratio to almost nothing is not a breach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::number")]
    pub floor: Option<f64>,
}

/// A baseline measured by the operator.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CapturedBaseline {
    /// The stretch of time whose median is the baseline. From 1s to 7 days (168h).
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s') && duration(self) <= duration('168h')").message("window must be from 1s to 168h"))]
    pub window: GoDuration,
}

/// How a value is set against its baseline.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compare {
    Ratio,
    Difference,
}

/// How several series make one verdict.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SeriesPolicy {
    #[default]
    Any,
    All,
}

/// What a sample that says nothing does to a pending trigger.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NoDataPolicy {
    #[default]
    Hold,
    Reset,
    Breach,
}

/// One way to roll back: an ordered list of steps.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.type != 'FeatureDisable' || !self.steps.exists(s, has(s.shiftTraffic))").message("a FeatureDisable rollback moves no traffic: use type Gradual for shiftTraffic").field_path(".steps"),
    validation = Rule::new("self.type != 'Gradual' || self.steps.exists(s, has(s.shiftTraffic))").message("a Gradual rollback needs a shiftTraffic step: use type Immediate or FeatureDisable for a plan without one").field_path(".steps")
)]
pub struct RollbackPlan {
    /// Name of the rollback, unique in the rollout.
    #[schemars(schema_with = "schema::key")]
    pub name: String,
    /// Strength and order of execution. A stronger type takes over from a weaker one: FeatureDisable < Gradual < Immediate.
    /// Immediate and FeatureDisable attempt every step; Gradual keeps the order.
    #[serde(rename = "type")]
    pub plan_type: PlanType,
    /// What is done, in order: flags, then traffic, then capacity.
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub steps: Vec<Step>,
}

/// A query that must hold once the steps have landed.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.above), has(self.below), has(self.atLeast), has(self.atMost), has(self.present)].filter(c, c).size() == 1").message("exactly one of above, below, atLeast, atMost and present must be set"))]
pub struct VerifyCheck {
    /// Name of the check, unique in the rollout.
    #[schemars(schema_with = "schema::key")]
    pub name: String,
    /// PromQL, asked as an instant query.
    #[schemars(schema_with = "schema::promql")]
    pub query: String,
    #[serde(flatten)]
    pub comparison: Comparison,
    /// How long it must hold without a break. At most 24h.
    #[serde(rename = "for", default)]
    #[x_kube(validation = Rule::new("duration(self) <= duration('24h')").message("for must be at most 24h"))]
    pub hold: GoDuration,
    /// How long after the last step it may take. Past it the rollback is Stalled: a person is needed. From 1s to 24h.
    #[serde(default = "default_verify_timeout")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s') && duration(self) <= duration('24h')").message("timeout must be from 1s to 24h"))]
    pub timeout: GoDuration,
}

fn default_verify_timeout() -> GoDuration {
    GoDuration::from_secs(300)
}

/// What the operator says of a rollout.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LearningRolloutStatus {
    /// metadata.generation this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub observed_generation: Option<i64>,
    /// Ready, Armed, MetricsAvailable, Breaching, RollbackInForce, Stalled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// Number of the last execution. Never repeats, so that no two executions share a name or a fence.
    #[serde(default)]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub episode: i64,
    /// The execution in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<ActiveRollback>,
    /// The execution that ended last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_rollback: Option<LastRollback>,
    /// What is known of each trigger.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub triggers: Vec<TriggerStatus>,
}

/// The claim of one execution on a rollout, taken by compare-and-swap before its record exists.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ActiveRollback {
    /// Name of the LearningRollback.
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
    /// Identity of the execution: spec.id of a record made by the operator, metadata.uid of a manual one.
    #[schemars(schema_with = "schema::word")]
    pub id: String,
    /// uid of the record, once it is known to exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::word")]
    pub uid: Option<String>,
    /// Number of the execution.
    #[serde(default)]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub episode: i64,
    /// Name of the plan.
    #[schemars(schema_with = "schema::key")]
    pub rollback: String,
    /// Type of the plan.
    #[serde(rename = "type")]
    pub plan_type: PlanType,
    /// Why.
    #[serde(default)]
    #[schemars(schema_with = "schema::text")]
    pub reason: String,
    /// What convicted. Absent for a manual rollback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// When the claim was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub since: Option<MicroTime>,
    /// The execution this one takes over from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supersedes: Option<RecordRef>,
}

/// A record, by name and identity.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordRef {
    /// Name of the LearningRollback.
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
    /// Identity of its execution.
    #[schemars(schema_with = "schema::word")]
    pub id: String,
}

/// How the last execution ended.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastRollback {
    /// Name of the LearningRollback.
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
    /// Its terminal phase.
    #[schemars(schema_with = "schema::word")]
    pub phase: String,
    /// When it ended. Cooldown counts from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub finished_at: Option<MicroTime>,
}

/// The samples that convicted a trigger.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    /// Name of the trigger.
    #[schemars(schema_with = "schema::key")]
    pub trigger: String,
    /// The query as it was asked.
    #[schemars(length(max = 8192))]
    pub query: String,
    /// The comparison in words, such as `> 0.05`.
    #[schemars(schema_with = "schema::word")]
    pub condition: String,
    /// The value compared, as text because NaN and Inf are values too.
    #[schemars(schema_with = "schema::word")]
    pub value: String,
    /// The baseline it was compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::word")]
    pub baseline: Option<String>,
    /// Labels of the series, where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::text")]
    pub series: Option<String>,
    /// First breach of the unbroken run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub since: Option<MicroTime>,
    /// The evaluation that completed the window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub fired_at: Option<MicroTime>,
    /// The first and the last breaches of the run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub samples: Vec<EvidenceSample>,
}

/// One witnessed sample.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EvidenceSample {
    /// The moment asked about.
    #[schemars(schema_with = "schema::time")]
    pub at: Option<MicroTime>,
    /// The value, as text.
    #[schemars(schema_with = "schema::word")]
    pub value: String,
}

/// What is known of one trigger.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TriggerStatus {
    /// Name of the trigger.
    #[schemars(schema_with = "schema::key")]
    pub name: String,
    /// Ok, Pending (breaching, not yet for its full duration), Firing, or Unknown.
    pub state: TriggerState,
    /// First breach of the current run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub since: Option<MicroTime>,
    /// Why the sample is Unknown: the class of the error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::word")]
    pub reason: Option<String>,
    /// The same for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::text")]
    pub message: Option<String>,
    /// The value at the last change of state, as text. Not kept up to date while nothing changes: a healthy rollout
    /// costs no API request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::word")]
    pub value: Option<String>,
    /// The captured baseline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<BaselineStatus>,
}

/// A baseline that was captured.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BaselineStatus {
    /// The median over the window.
    #[schemars(schema_with = "schema::number")]
    pub value: f64,
    /// When it was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub captured_at: Option<MicroTime>,
    /// The query it was taken from: another query has another baseline.
    #[serde(default)]
    #[schemars(length(max = 4096))]
    pub query: String,
}

/// Where a trigger stands.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TriggerState {
    Ok,
    Pending,
    Firing,
    #[default]
    Unknown,
}
