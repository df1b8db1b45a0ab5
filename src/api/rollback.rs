//! `LearningRollback`: one execution. The journal, the history, the audit trail and the source of the report.

// Columns of a definition repeat their attribute names; that is how the derive reads them.
#![allow(clippy::duplicated_attributes)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    duration::GoDuration,
    rollout::{Evidence, PrometheusSource, RecordRef, VerifyCheck},
    schema,
    step::{PlanType, Step},
};

/// One execution of a rollback: why, each step, what was there before, how to undo.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "learningloop.io",
    version = "v1alpha1",
    kind = "LearningRollback",
    plural = "learningrollbacks",
    shortname = "lrb",
    category = "learningloop",
    namespaced,
    status = "LearningRollbackStatus",
    derive = "PartialEq",
    doc = "LearningRollback is one execution of a rollback: why it runs, each step, what stood there before and how to undo it. The operator creates one when a trigger fires; a person creates one to roll back by hand.",
    printcolumn(name = "Rollout", type_ = "string", json_path = ".spec.rolloutRef.name"),
    printcolumn(name = "Type", type_ = "string", json_path = ".status.plan.type"),
    printcolumn(name = "Trigger", type_ = "string", json_path = ".spec.trigger"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(
        name = "Steps",
        type_ = "string",
        json_path = ".status.progress",
        description = "Steps done of all steps"
    ),
    printcolumn(
        name = "Traffic",
        type_ = "string",
        json_path = ".status.traffic",
        description = "Percent of traffic left on the feature"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.rolloutRef == oldSelf.rolloutRef && self.rollback == oldSelf.rollback && self.reason == oldSelf.reason && self.dryRun == oldSelf.dryRun").message("rolloutRef, rollback, reason and dryRun are immutable: create another LearningRollback"),
    validation = Rule::new("has(self.trigger) == has(oldSelf.trigger) && (!has(self.trigger) || self.trigger == oldSelf.trigger)").message("trigger is immutable: create another LearningRollback").field_path(".trigger"),
    validation = Rule::new("has(self.id) == has(oldSelf.id) && (!has(self.id) || self.id == oldSelf.id)").message("id is immutable: it names the execution").field_path(".id"),
    validation = Rule::new("has(self.expiresAt) == has(oldSelf.expiresAt) && (!has(self.expiresAt) || self.expiresAt == oldSelf.expiresAt)").message("expiresAt is immutable: create another LearningRollback").field_path(".expiresAt"),
    validation = Rule::new("!(oldSelf.desiredState in ['Restored', 'Released']) || self.desiredState == oldSelf.desiredState").message("desiredState Restored and Released are final: create another LearningRollback to roll back again").field_path(".desiredState")
)]
pub struct LearningRollbackSpec {
    /// The rollout whose plan is executed. Immutable.
    pub rollout_ref: RolloutRef,
    /// Name of the plan in the rollout's spec.rollbacks. Immutable.
    #[schemars(schema_with = "schema::key")]
    pub rollback: String,
    /// Why, for people. Immutable.
    #[serde(default)]
    #[schemars(schema_with = "schema::text")]
    pub reason: String,
    /// The trigger that fired. Absent when a person started it. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::key")]
    pub trigger: Option<String>,
    /// Identity of the execution, set by the operator. A record that has one runs only while the rollout's status.active
    /// names it. Leave it out when rolling back by hand. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::word")]
    pub id: Option<String>,
    /// Only find out what would be done, with server-side dry-runs. Immutable.
    #[serde(default)]
    pub dry_run: bool,
    /// Not begun by then: Skipped. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub expires_at: Option<MicroTime>,
    /// A person's will. RolledBack: carry it out and hold it. Held: no next move. Restored: put everything back (final).
    /// Released: keep the present state and stop enforcing it (final).
    #[serde(default)]
    pub desired_state: DesiredState,
    /// Fast: go straight to the last weight.
    #[serde(default)]
    pub pace: Pace,
    /// Why the person decided so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::text")]
    pub decision_reason: Option<String>,
}

/// The rollout of a rollback.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutRef {
    /// Name of the LearningRollout, in the same namespace.
    #[schemars(schema_with = "schema::key")]
    pub name: String,
    /// Its uid. Where given, a recreated rollout of the same name does not match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::word")]
    pub uid: Option<String>,
}

/// A person's will.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DesiredState {
    #[default]
    RolledBack,
    Held,
    Restored,
    Released,
}

/// How fast traffic moves.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pace {
    #[default]
    Normal,
    Fast,
}

/// A summary of where an execution stands. Only moves forward.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Nothing has been touched.
    #[default]
    Pending,
    /// Steps are being carried out.
    Executing,
    /// Every step has landed; the state is kept up.
    RolledBack,
    /// Everything is being put back.
    Restoring,
    /// Terminal: everything that still was ours has been put back.
    Restored,
    /// Terminal: the present state stays, nothing is enforced any more.
    Released,
    /// Terminal: a stronger execution took over, and its record restores for both.
    Superseded,
    /// Terminal: never begun.
    Skipped,
    /// Terminal: only dry-runs were made.
    DryRunComplete,
    /// Written by another version of the operator. Counts as in force.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

impl Phase {
    /// Nothing will ever be done for this record again.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Restored | Self::Released | Self::Superseded | Self::Skipped | Self::DryRunComplete)
    }
}

/// What the operator has done for a record.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LearningRollbackStatus {
    /// metadata.generation this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub observed_generation: Option<i64>,
    /// Summary of the execution.
    #[serde(default)]
    pub phase: Phase,
    /// Why the phase is what it is, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::text")]
    pub message: Option<String>,
    /// RolledBack, Verified, Stalled, Contested.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// Steps done of all steps, such as 2/3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::word")]
    pub progress: Option<String>,
    /// Percent of traffic left on the feature, where a step moves traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::word")]
    pub traffic: Option<String>,
    /// What is executed. Frozen before the first intent: later edits of the rollout affect only future rollbacks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<FrozenPlan>,
    /// Each step: its target, what stood there before, and how far it got.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub steps: Vec<StepStatus>,
    /// The checks of the plan.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub verify: Vec<VerifyStatus>,
    /// The samples that convicted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// The will that is being carried out. A changed desiredState is acknowledged only once no earlier write can land.
    #[serde(default)]
    pub acknowledged: Acknowledged,
    /// The execution this one took over from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supersedes: Option<RecordRef>,
    /// The execution that took over from this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub superseded_by: Option<RecordRef>,
    /// When the first intent was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub started_at: Option<MicroTime>,
    /// When the last step landed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub rolled_back_at: Option<MicroTime>,
    /// When the record became terminal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub finished_at: Option<MicroTime>,
}

/// The will that is being carried out.
#[derive(KubeSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Acknowledged {
    /// spec.desiredState as acknowledged.
    #[serde(default)]
    pub desired_state: DesiredState,
    /// spec.pace as acknowledged.
    #[serde(default)]
    pub pace: Pace,
}

/// A plan as it stood when the execution began.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FrozenPlan {
    /// Version of this format.
    #[schemars(range(min = 1, max = 1000))]
    pub format_version: i32,
    /// metadata.generation of the rollout it was taken from.
    #[serde(default)]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub rollout_generation: i64,
    /// Type of the plan.
    #[serde(rename = "type")]
    pub plan_type: PlanType,
    /// How often targets are read while in force.
    pub interval: GoDuration,
    /// ServiceAccount as which targets are read and written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::optional_object_name")]
    pub service_account_name: Option<String>,
    /// Where the checks are asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<PrometheusSource>,
    /// The steps, in order.
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub steps: Vec<Step>,
    /// The checks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub verify: Vec<VerifyCheck>,
}

/// Where a step stands.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum StepState {
    /// Nothing has been planned for the target yet.
    #[default]
    Pending,
    /// Waits for something that the message names.
    Blocked,
    /// The edit is journalled and may be on its way.
    Intended,
    /// The edit has landed.
    Applied,
    /// The last attempt failed; it is retried unless the record says Stalled.
    Failed,
    /// What was there before has been put back.
    Restored,
    /// The target keeps what it has: it was no longer ours, or was released.
    Kept,
}

/// One step of an execution.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepStatus {
    /// Name of the step; an imported one is prefixed by the record it comes from.
    #[schemars(schema_with = "schema::word")]
    pub name: String,
    /// Kind of the step, such as setConfig.
    #[schemars(schema_with = "schema::word")]
    pub kind: String,
    /// The object that is edited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// Where the step stands.
    #[serde(default)]
    pub state: StepState,
    /// Why, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::word")]
    pub reason: Option<String>,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::text")]
    pub message: Option<String>,
    /// What each touched field held before the incident. Frozen at the step's first commit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["field"]))]
    pub prior: Vec<FieldPrior>,
    /// Tokens of the write that is intended or was committed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<Fence>,
    /// An edit of this step has landed at least once: there is something to restore.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub committed: bool,
    /// Number of the move that is intended or was made last, where a step has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 20))]
    pub position: Option<i32>,
    /// Failures in a row.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub failures: i32,
    /// How often another writer's value was replaced by ours again.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub reasserted: i32,
    /// Where the step was taken over from, and its definition. It is only restored, never applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imported: Option<ImportedStep>,
    /// When the first intent was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub started_at: Option<MicroTime>,
    /// When the last edit landed or was put back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub finished_at: Option<MicroTime>,
    /// Nothing is done for this step before then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub not_before: Option<MicroTime>,
}

fn is_zero(number: &i32) -> bool {
    *number == 0
}

/// An edited object.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// Group and version, such as apps/v1.
    #[schemars(schema_with = "schema::word")]
    pub api_version: String,
    /// Kind, such as Deployment.
    #[schemars(schema_with = "schema::word")]
    pub kind: String,
    /// Name of the object, in the record's namespace.
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
    /// Its uid. A recreated object is another object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::word")]
    pub uid: Option<String>,
}

/// What one field held before.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FieldPrior {
    /// The field, as a JSON pointer such as /data/ENABLE_LEARNING, or `weight <destination>`.
    #[schemars(length(min = 1, max = 512))]
    pub field: String,
    /// What it held, as text. Absent: the field was absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::value")]
    pub value: Option<String>,
}

/// Tokens of the annotation learningloop.io/fence. Opaque, compared for equality, never reused.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fence {
    /// What the annotation holds before the write. Absent: no annotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::word")]
    pub seen: Option<String>,
    /// What the write puts there: `<uid of the record>/<step>/<attempt>`.
    #[schemars(schema_with = "schema::word")]
    pub new: String,
    /// Number of the attempt.
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub attempt: i32,
}

/// A step taken over from another record.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImportedStep {
    /// The record it comes from.
    pub from: RecordRef,
    /// What it was.
    pub definition: Step,
}

/// Where a check stands.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifyStatus {
    /// Name of the check.
    #[schemars(schema_with = "schema::key")]
    pub name: String,
    /// Pending, Passed or Failed.
    pub state: VerifyState,
    /// Since when it holds without a break.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub since: Option<MicroTime>,
    /// The last value or error, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::text")]
    pub message: Option<String>,
}

/// Verdict of a check.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum VerifyState {
    #[default]
    Pending,
    Passed,
    Failed,
}
