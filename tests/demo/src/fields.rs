//! The workload, field by field: what a rollback may change, what it did change, and whether all of it is back.
//!
//! Every ConfigMap, Service and Deployment of the namespace is compared whole (data, spec, labels, annotations), so that
//! an edit too many is seen as well as one too few.

use std::collections::BTreeMap;

use anyhow::ensure;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Service},
};
use kube::{Api, Client, Resource, ResourceExt, core::NamespaceResourceScope};
use serde_json::Value;

use crate::stage::NAMESPACE;

/// Counted up by the Deployment controller, whoever changes the template.
const REVISION: &str = "deployment.kubernetes.io/revision";
/// What the operator notes on a target while a rollback is in force.
const NOTES: [&str; 2] = ["learningloop.io/fence", "learningloop.io/undo"];

/// `Kind/name field → value`, as JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fields(BTreeMap<(String, String), String>);

/// One field that differs. `None`: the field is absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) object: String,
    pub(crate) field: String,
    before: Option<String>,
    pub(crate) after: Option<String>,
}

impl Change {
    fn is_note(&self) -> bool {
        NOTES.iter().any(|note| self.field == format!("annotations {note}"))
    }

    pub(crate) fn describe(&self) -> String {
        let word = |value: &Option<String>| value.clone().unwrap_or_else(|| "absent".to_owned());
        format!("{}  {}: {} -> {}", self.object, self.field, word(&self.before), word(&self.after))
    }
}

impl Fields {
    pub(crate) async fn read(client: &Client) -> anyhow::Result<Self> {
        let mut fields = Self(BTreeMap::new());
        fields.take_all::<ConfigMap>(client).await?;
        fields.take_all::<Service>(client).await?;
        fields.take_all::<Deployment>(client).await?;
        Ok(fields)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    async fn take_all<K>(&mut self, client: &Client) -> anyhow::Result<()>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned
            + serde::Serialize,
    {
        for object in Api::<K>::namespaced(client.clone(), NAMESPACE).list(&Default::default()).await? {
            let name = format!("{}/{}", K::kind(&()), object.name_any());
            let object = serde_json::to_value(&object)?;
            for (part, pointer) in [
                ("data", "/data"),
                ("spec", "/spec"),
                ("labels", "/metadata/labels"),
                ("annotations", "/metadata/annotations"),
            ] {
                if let Some(value) = object.pointer(pointer) {
                    self.take(&name, part, value);
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, object: &str, path: &str, value: &Value) {
        match value {
            Value::Object(map) => {
                // A key may hold dots; a space ends the path before it.
                for (key, value) in map.iter().filter(|(key, _)| key.as_str() != REVISION) {
                    self.take(object, &format!("{path} {key}"), value);
                }
            }
            leaf => {
                self.0.insert((object.to_owned(), path.to_owned()), leaf.to_string());
            }
        }
    }

    /// What is different in `after`.
    pub(crate) fn changes(&self, after: &Self) -> Vec<Change> {
        let mut keys: Vec<_> = self.0.keys().chain(after.0.keys()).collect();
        keys.sort();
        keys.dedup();
        let change = |key: &(String, String)| Change {
            object: key.0.clone(),
            field: key.1.clone(),
            before: self.0.get(key).cloned(),
            after: after.0.get(key).cloned(),
        };
        keys.into_iter().map(change).filter(|change| change.before != change.after).collect()
    }

    /// Holds if, beside the operator's notes on the same objects, exactly these fields have come to hold these values
    /// (JSON; `*` is any). Answers the changes of those fields.
    pub(crate) fn changed_only(&self, after: &Self, expected: &[(&str, &str, &str)]) -> anyhow::Result<Vec<Change>> {
        let (notes, changes): (Vec<_>, Vec<_>) = self.changes(after).into_iter().partition(Change::is_note);
        let matches = |change: &Change| {
            expected.iter().any(|(object, field, value)| {
                change.object == *object
                    && change.field == *field
                    && change.after.as_ref().is_some_and(|after| *value == "*" || after == value)
            })
        };
        ensure!(
            changes.len() == expected.len() && changes.iter().all(matches),
            "expected exactly the changes {expected:?}; found {}",
            describe(&changes)
        );
        let mut objects: Vec<&str> = expected.iter().map(|(object, ..)| *object).collect();
        objects.sort_unstable();
        objects.dedup();
        ensure!(
            notes.len() == objects.len() * NOTES.len()
                && notes.iter().all(|note| note.after.is_some() && objects.contains(&note.object.as_str())),
            "expected the annotations {NOTES:?} on {objects:?}; found {}",
            describe(&notes)
        );
        Ok(changes)
    }
}

pub(crate) fn describe(changes: &[Change]) -> String {
    if changes.is_empty() {
        "no change".to_owned()
    } else {
        changes.iter().map(Change::describe).collect::<Vec<_>>().join("; ")
    }
}
