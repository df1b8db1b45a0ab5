//! Steps: the edits a rollback makes, as the user writes them and as the operator reads them.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{duration::GoDuration, schema};

/// Strength of a plan, weakest first, and the order in which its steps run.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PlanType {
    /// Switches features off and leaves traffic where it is. Every step is attempted.
    #[default]
    FeatureDisable,
    /// Moves traffic share by share, in the order of the steps.
    Gradual,
    /// Everything at once. Every step is attempted; a scale-down waits for the traffic.
    Immediate,
}

/// One named edit. Exactly one kind is set.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.setConfig), has(self.scale), has(self.switchService), has(self.shiftTraffic), has(self.restart)].filter(k, k).size() == 1").message("exactly one of setConfig, scale, switchService, shiftTraffic and restart must be set"))]
pub struct Step {
    /// Name of the step, unique in the plan.
    #[schemars(schema_with = "schema::key")]
    pub name: String,
    /// Set keys of a ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_config: Option<SetConfig>,
    /// Set the replicas of a Deployment or StatefulSet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<Scale>,
    /// Point a Service at other pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switch_service: Option<SwitchService>,
    /// Move traffic between two destinations of a VirtualService or HTTPRoute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shift_traffic: Option<ShiftTraffic>,
    /// Restart the pods of a Deployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<Restart>,
}

/// Sets keys of a ConfigMap. Keys that are absent now are remembered as absent.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SetConfig {
    /// The ConfigMap, in the rollout's namespace.
    pub config_map_ref: LocalRef,
    /// Keys and the values they get.
    #[schemars(schema_with = "config_data")]
    pub data: BTreeMap<String, String>,
}

fn config_data(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object", "minProperties": 1, "maxProperties": 32,
        "additionalProperties": {"type": "string", "maxLength": 4096},
        "x-kubernetes-validations": [{
            "rule": "self.all(k, k.matches('^[-._a-zA-Z0-9]{1,253}$'))",
            "message": "keys of a ConfigMap must consist of 1 to 253 letters, digits, '-', '_' and '.'"
        }]
    })
}

/// Sets `spec.replicas`; what was there before is remembered exactly.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Scale {
    /// The Deployment or StatefulSet, in the rollout's namespace.
    #[x_kube(validation = Rule::new("self.apiVersion == 'apps/v1' && self.kind in ['Deployment', 'StatefulSet']").message("targetRef must name an apps/v1 Deployment or StatefulSet: nothing else can be scaled by a rollback"))]
    pub target_ref: TargetRef,
    /// How many replicas the rollback leaves.
    #[schemars(range(min = 0, max = 100_000))]
    pub replicas: i32,
    /// Do not wait until the traffic of earlier steps has moved away. False by default.
    #[serde(default, skip_serializing_if = "schema::is_default")]
    pub force: bool,
}

/// Sets keys of a Service's selector. Other keys stay.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SwitchService {
    /// The Service, in the rollout's namespace.
    pub service_ref: LocalRef,
    /// Selector keys and the values they get.
    #[schemars(schema_with = "selector")]
    pub selector: BTreeMap<String, String>,
    /// Switch even where no ready pod matches the new selector. False by default.
    #[serde(default, skip_serializing_if = "schema::is_default")]
    pub force: bool,
}

fn selector(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object", "minProperties": 1, "maxProperties": 16,
        "additionalProperties": {"type": "string", "minLength": 1, "maxLength": 63, "pattern": "^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"},
        "x-kubernetes-validations": [{
            "rule": "self.all(k, k.size() <= 317 && k.matches('^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$'))",
            "message": "selector keys must be label keys, such as version or app.kubernetes.io/version"
        }]
    })
}

/// Moves traffic between two destinations, weight by weight.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.from != self.to").message("from and to must be different destinations").field_path(".to"))]
pub struct ShiftTraffic {
    /// The route object, in the rollout's namespace.
    pub route_ref: RouteRef,
    /// Destination that loses traffic: a host, or host/subset for a VirtualService.
    #[schemars(length(min = 1, max = 317))]
    pub from: String,
    /// Destination that gains it.
    #[schemars(length(min = 1, max = 317))]
    pub to: String,
    /// Share left on `from` after each move, in percent. Falls, and ends at 0.
    #[serde(default = "default_weights")]
    #[schemars(length(min = 1, max = 20), inner(range(min = 0, max = 100)), extend("x-kubernetes-list-type" = "atomic"))]
    #[x_kube(
        validation = Rule::new("self[self.size() - 1] == 0").message("weights must end at 0: a rollback leaves nothing on `from`"),
        validation = Rule::new("self.all(w, self.filter(v, v == w).size() == 1) && self.isSorted() == (self.size() == 1) && self.map(w, 0 - w).isSorted()").message("weights must fall from one to the next, such as [75, 50, 25, 0]")
    )]
    pub weights: Vec<i32>,
    /// Time between two moves.
    #[serde(default = "default_shift_interval")]
    #[x_kube(validation = Rule::new("duration(self) <= duration('24h')").message("interval must be at most 24h"))]
    pub interval: GoDuration,
}

fn default_weights() -> Vec<i32> {
    vec![75, 50, 25, 0]
}

fn default_shift_interval() -> GoDuration {
    GoDuration::from_secs(300)
}

/// Restarts the pods of a Deployment by an annotation of its pod template.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Restart {
    /// The Deployment, in the rollout's namespace.
    #[x_kube(validation = Rule::new("self.apiVersion == 'apps/v1' && self.kind == 'Deployment'").message("targetRef must name an apps/v1 Deployment: nothing else can be restarted by a rollback"))]
    pub target_ref: TargetRef,
}

/// An object of the rollout's namespace whose kind the step implies.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalRef {
    /// Name of the object.
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
}

/// An object of the rollout's namespace.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetRef {
    /// Group and version, such as apps/v1.
    #[schemars(schema_with = "schema::word")]
    pub api_version: String,
    /// Kind, such as Deployment.
    #[schemars(schema_with = "schema::word")]
    pub kind: String,
    /// Name of the object.
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
}

/// A route object that holds weights.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteRef {
    /// VirtualService (networking.istio.io) or HTTPRoute (gateway.networking.k8s.io).
    pub kind: RouteKind,
    /// Name of the object.
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
    /// Name of the http route inside it. Absent: the only one that holds both destinations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub route: Option<String>,
}

/// Kinds of route objects.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RouteKind {
    #[default]
    VirtualService,
    HTTPRoute,
}

/// A step as the operator reads it: one kind, or none that it knows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum StepKind<'a> {
    SetConfig(&'a SetConfig),
    Scale(&'a Scale),
    SwitchService(&'a SwitchService),
    ShiftTraffic(&'a ShiftTraffic),
    Restart(&'a Restart),
    /// A newer definition holds a kind this operator does not know, or more than one is set. Never skipped: Stalled.
    Unknown,
}

impl Step {
    /// The step's kind. [`StepKind::Unknown`] unless exactly one is set.
    pub fn kind(&self) -> StepKind<'_> {
        let kinds = [
            self.set_config.as_ref().map(StepKind::SetConfig),
            self.scale.as_ref().map(StepKind::Scale),
            self.switch_service.as_ref().map(StepKind::SwitchService),
            self.shift_traffic.as_ref().map(StepKind::ShiftTraffic),
            self.restart.as_ref().map(StepKind::Restart),
        ];
        let mut set = kinds.into_iter().flatten();
        match (set.next(), set.next()) {
            (Some(kind), None) => kind,
            _ => StepKind::Unknown,
        }
    }
}

impl StepKind<'_> {
    /// The field's name in the manifest.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::SetConfig(_) => "setConfig",
            Self::Scale(_) => "scale",
            Self::SwitchService(_) => "switchService",
            Self::ShiftTraffic(_) => "shiftTraffic",
            Self::Restart(_) => "restart",
            Self::Unknown => "unknown",
        }
    }

    /// Does this step move traffic away from the feature?
    pub const fn moves_traffic(&self) -> bool {
        matches!(self, Self::SwitchService(_) | Self::ShiftTraffic(_))
    }
}
