//! From a name to the record that is meant: a LearningRollback's own, or a LearningRollout's for its rollback in force.

use kube::{Api, Client, ResourceExt, api::ListParams};

use super::error::{Error, Result};
use crate::api::{
    rollback::{LearningRollback, Phase},
    rollout::LearningRollout,
};

/// The rollout of that name.
///
/// # Errors
/// When there is none, or the server cannot be asked.
pub async fn rollout(client: &Client, namespace: &str, name: &str) -> Result<LearningRollout> {
    let found = find::<LearningRollout>(client, namespace, name).await?;
    found.ok_or_else(|| {
        Error::Refused(format!(
            "LearningRollout {namespace}/{name} is not there; kubectl get learningrollouts -n {namespace} lists them"
        ))
    })
}

/// The record that `name` means: `lrb/NAME`, `lro/NAME`, or a plain name of either.
///
/// # Errors
/// When nothing or more than one thing is meant, or the rollout has nothing in force.
pub async fn record(client: &Client, namespace: &str, name: &str) -> Result<LearningRollback> {
    let (kind, name) = match name.split_once('/') {
        Some((kind, name)) => (Some(kind.to_ascii_lowercase()), name),
        None => (None, name),
    };
    match kind.as_deref() {
        None => {}
        Some("lrb" | "learningrollback" | "learningrollbacks") => {
            let found = find::<LearningRollback>(client, namespace, name).await?;
            return found.ok_or_else(|| missing_record(namespace, name));
        }
        Some("lro" | "learningrollout" | "learningrollouts") => {
            return match find::<LearningRollout>(client, namespace, name).await? {
                Some(rollout) => in_force(client, namespace, &rollout).await,
                None => orphan(client, namespace, name).await,
            };
        }
        Some(other) => return Error::refused(format!("{other:?} is neither lrb (a record) nor lro (a rollout)")),
    }
    let record = find::<LearningRollback>(client, namespace, name).await?;
    let rollout = find::<LearningRollout>(client, namespace, name).await?;
    match (record, rollout) {
        (Some(record), None) => Ok(record),
        (None, Some(rollout)) => in_force(client, namespace, &rollout).await,
        (None, None) => orphan(client, namespace, name).await,
        (Some(_), Some(_)) => Error::refused(format!(
            "{name} is both a LearningRollback and a LearningRollout in {namespace}: write lrb/{name} or lro/{name}"
        )),
    }
}

async fn find<K>(client: &Client, namespace: &str, name: &str) -> Result<Option<K>>
where
    K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    let what = || format!("cannot read {} {namespace}/{name}", K::kind(&()));
    match Api::<K>::namespaced(client.clone(), namespace).get(name).await {
        Ok(found) => Ok(Some(found)),
        // Only the object is missing; a missing kind is an error of its own.
        Err(kube::Error::Api(status))
            if status.is_not_found() && status.details.as_ref().is_some_and(|details| details.name == name) =>
        {
            Ok(None)
        }
        Err(error) => Err(Error::asking(what())(error)),
    }
}

fn missing_record(namespace: &str, name: &str) -> Error {
    Error::Refused(format!(
        "LearningRollback {namespace}/{name} is not there; kubectl get learningrollbacks -n {namespace} lists them"
    ))
}

async fn in_force(client: &Client, namespace: &str, rollout: &LearningRollout) -> Result<LearningRollback> {
    let name = rollout.name_any();
    let status = rollout.status.as_ref();
    let Some(active) = status.and_then(|status| status.active.as_ref()) else {
        let last = status.and_then(|status| status.last_rollback.as_ref());
        let last =
            last.map_or_else(String::new, |last| format!("; the last one, {}, ended as {}", last.name, last.phase));
        return Error::refused(format!(
            "LearningRollout {namespace}/{name} has no rollback in force (status.active is empty){last}; name a record \
             of kubectl get learningrollbacks -n {namespace}"
        ));
    };
    let found = find::<LearningRollback>(client, namespace, &active.name).await?;
    found.ok_or_else(|| {
        Error::Refused(format!(
            "LearningRollout {namespace}/{name} names {} as its rollback in force, but that record is not there: either it \
             is being created, then try again, or it was deleted, then see restore --from-target",
            active.name
        ))
    })
}

/// A rollout can be deleted while its rollback is in force; its name still says which one is meant.
async fn orphan(client: &Client, namespace: &str, name: &str) -> Result<LearningRollback> {
    let records: Api<LearningRollback> = Api::namespaced(client.clone(), namespace);
    let all = records
        .list(&ListParams::default())
        .await
        .map_err(Error::asking(format!("cannot list LearningRollbacks of {namespace}")))?;
    let mut left: Vec<LearningRollback> = all
        .items
        .into_iter()
        .filter(|record| record.spec.rollout_ref.name == name && !phase(record).is_terminal())
        .collect();
    match left.pop() {
        Some(record) if left.is_empty() => Ok(record),
        Some(last) => {
            let names: Vec<String> = left.iter().chain([&last]).map(ResourceExt::name_any).collect();
            Error::refused(format!(
                "LearningRollout {namespace}/{name} is gone and left several rollbacks: name one of {}",
                names.join(", ")
            ))
        }
        None => Error::refused(format!(
            "neither a LearningRollback nor a LearningRollout {namespace}/{name} is there; kubectl get learningloop -n \
             {namespace} lists both"
        )),
    }
}

/// Where a record stands.
pub fn phase(record: &LearningRollback) -> Phase {
    record.status.as_ref().map(|status| status.phase).unwrap_or_default()
}

/// `LearningRollback namespace/name`
pub fn title(record: &LearningRollback) -> String {
    format!("LearningRollback {}/{}", record.namespace().unwrap_or_default(), record.name_any())
}
