//! `status`: what a person wants to know first.

use k8s_openapi::jiff::Timestamp;
use kube::{Api, Client, ResourceExt, api::ListParams};

use super::{
    error::{Error, Result},
    locate, plan,
    table::{or_dash, plain, table, value},
};
use crate::api::{
    PAUSED_REASON, PAUSED_UNTIL,
    condition::{self, rollout as conditions},
    rollback::LearningRollback,
    rollout::{LearningRollout, TriggerStatus},
};

/// All rollouts, and the rollbacks that have not ended. `None`: of all namespaces.
///
/// # Errors
/// When the server cannot be asked.
pub async fn all(client: &Client, namespace: Option<&str>) -> Result<String> {
    let rollouts: Api<LearningRollout> = api(client, namespace);
    let records: Api<LearningRollback> = api(client, namespace);
    let place = namespace.map_or_else(|| "all namespaces".to_owned(), str::to_owned);
    let everything = ListParams::default();
    let (rollouts, records) = futures::try_join!(rollouts.list(&everything), records.list(&everything))
        .map_err(Error::asking(format!("cannot list the rollouts of {place}")))?;
    if rollouts.items.is_empty() && records.items.is_empty() {
        return Ok(format!("No LearningRollouts in {place}."));
    }
    let mut text = rollouts_table(&rollouts.items, namespace.is_none(), Timestamp::now());
    let open: Vec<&LearningRollback> =
        records.items.iter().filter(|record| !locate::phase(record).is_terminal()).collect();
    if !open.is_empty() {
        text = format!("{text}\n{}", records_table(&open, namespace.is_none()));
    }
    Ok(text.trim_end().to_owned())
}

/// One rollout: its triggers, and its rollback in force with each step's before and after.
///
/// # Errors
/// When it is not there, or the server cannot be asked.
pub async fn one(client: &Client, namespace: &str, name: &str) -> Result<String> {
    let rollout = locate::rollout(client, namespace, name).await?;
    let mut text = rollouts_table(std::slice::from_ref(&rollout), false, Timestamp::now());
    for (kind, status) in [(conditions::READY, "False"), (conditions::ARMED, "False"), (conditions::STALLED, "True")] {
        let known = rollout.status.as_ref().and_then(|known| condition::get(&known.conditions, kind));
        if let Some(known) = known.filter(|known| known.status == status) {
            text = format!("{text}{kind} is {status} ({}): {}\n", known.reason, plain(&known.message));
        }
    }
    text = format!("{text}\n{}", triggers_table(&rollout));
    if let Some(active) = rollout.status.as_ref().and_then(|status| status.active.as_ref()) {
        let record = locate::record(client, namespace, &format!("lrb/{}", active.name)).await?;
        text = format!("{text}\n{}", record_text(&record));
    }
    Ok(text.trim_end().to_owned())
}

fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

fn rollouts_table(rollouts: &[LearningRollout], with_namespace: bool, now: Timestamp) -> String {
    let header = ["NAMESPACE", "NAME", "READY", "MODE", "ARMED", "BREACHING", "ACTIVE", "PAUSED"];
    let rows = rollouts.iter().map(|rollout| {
        let status = rollout.status.as_ref();
        let known = status.map(|status| status.conditions.as_slice()).unwrap_or_default();
        let says = |kind| or_dash(condition::get(known, kind).map(|condition| condition.status.as_str()));
        vec![
            rollout.namespace().unwrap_or_default(),
            rollout.name_any(),
            says(conditions::READY),
            format!("{:?}", rollout.spec.mode),
            says(conditions::ARMED),
            says(conditions::BREACHING),
            or_dash(status.and_then(|status| status.active.as_ref()).map(|active| active.name.as_str())),
            paused(rollout, now),
        ]
    });
    without_first(with_namespace, &header, rows)
}

/// Drops the first column where all rows would say the same.
fn without_first(keep: bool, header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let from = usize::from(!keep);
    let rows = rows.map(|row| row.into_iter().skip(from).collect());
    table(header.get(from..).unwrap_or_default(), rows)
}

fn paused(rollout: &LearningRollout, now: Timestamp) -> String {
    let Some(until) = rollout.annotations().get(PAUSED_UNTIL) else {
        return if rollout.spec.suspend { "suspended".to_owned() } else { "-".to_owned() };
    };
    let reason = rollout.annotations().get(PAUSED_REASON).map_or_else(String::new, |reason| format!(" ({reason})"));
    match until.parse::<Timestamp>() {
        Ok(moment) if moment <= now => or_dash(None),
        Ok(moment) => format!("until {moment:.0}{reason}"),
        Err(_) => format!("{until:?} is no moment"),
    }
}

fn triggers_table(rollout: &LearningRollout) -> String {
    let header = ["TRIGGER", "STATE", "SINCE", "VALUE", "BASELINE", "FOR", "ROLLBACK", "WHY"];
    let known = rollout.status.as_ref().map(|status| status.triggers.as_slice()).unwrap_or_default();
    let rows = rollout.spec.triggers.iter().map(|trigger| {
        let status = known.iter().find(|status| status.name == trigger.name);
        let of = |field: fn(&TriggerStatus) -> Option<String>| or_dash(status.and_then(field).as_deref());
        vec![
            trigger.name.clone(),
            of(|status| Some(format!("{:?}", status.state))),
            of(|status| status.since.as_ref().map(|since| format!("{:.0}", since.0))),
            of(|status| status.value.clone()),
            of(|status| status.baseline.as_ref().map(|baseline| baseline.value.to_string())),
            trigger.hold.to_string(),
            trigger.rollback.clone(),
            of(|status| match (&status.reason, &status.message) {
                (Some(reason), Some(message)) => Some(format!("{reason}: {message}")),
                (reason, message) => reason.clone().or_else(|| message.clone()),
            }),
        ]
    });
    table(&header, rows)
}

fn records_table(records: &[&LearningRollback], with_namespace: bool) -> String {
    let header = ["NAMESPACE", "RECORD", "ROLLOUT", "PLAN", "PHASE", "WANTED", "STEPS", "REASON"];
    let rows = records.iter().map(|record| {
        vec![
            record.namespace().unwrap_or_default(),
            record.name_any(),
            record.spec.rollout_ref.name.clone(),
            record.spec.rollback.clone(),
            format!("{:?}", locate::phase(record)),
            format!("{:?}", record.spec.desired_state),
            or_dash(record.status.as_ref().and_then(|status| status.progress.as_deref())),
            or_dash(Some(&record.spec.reason)),
        ]
    });
    without_first(with_namespace, &header, rows)
}

fn record_text(record: &LearningRollback) -> String {
    let mut text = records_table(&[record], false);
    let Some(status) = &record.status else { return text };
    for kind in [condition::rollback::STALLED, condition::rollback::CONTESTED] {
        if let Some(known) = condition::get(&status.conditions, kind).filter(|known| known.status == "True") {
            text = format!("{text}{kind} ({}): {}\n", known.reason, plain(&known.message));
        }
    }
    let header = ["STEP", "STATE", "TARGET", "FIELD", "BEFORE", "AFTER", "WHY"];
    let mut rows = Vec::new();
    for step in &status.steps {
        let target = step.target.as_ref().map(|target| format!("{}/{}", target.kind, target.name));
        let (name, state, target) = (step.name.clone(), format!("{:?}", step.state), or_dash(target.as_deref()));
        let why = or_dash(step.message.as_deref().or(step.reason.as_deref()));
        let mut changes = plan::changes(record, step).into_iter();
        let cells = |change: Option<plan::FieldChange>| match change {
            Some(change) => {
                let after = change.after.as_deref().map_or_else(|| "?".to_owned(), |after| value(Some(after)));
                // Before the prior is recorded, nothing is known; only then is "absent" worth saying.
                let recorded = step.prior.iter().any(|prior| prior.field == change.field);
                let before = if recorded { value(change.before.as_deref()) } else { "?".to_owned() };
                [plan::short(&change.field), before, after]
            }
            None => ["-".to_owned(), "-".to_owned(), "-".to_owned()],
        };
        let [field, before, after] = cells(changes.next());
        rows.push(vec![name, state, target, field, before, after, why]);
        for change in changes {
            let [field, before, after] = cells(Some(change));
            rows.push(vec![String::new(), String::new(), String::new(), field, before, after]);
        }
    }
    format!("{text}\n{}", table(&header, rows))
}
