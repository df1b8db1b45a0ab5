//! What happens, act by act. Each claim is checked; the first that does not hold ends the demo.

use std::time::Duration;

use anyhow::{anyhow, bail, ensure};
use serde_json::Value;
use testbed::wait;

use crate::{
    stage::{NAMESPACE, Stage},
    story::Story,
};

const ROLLOUT: &str = "learning-loop";
const LIMIT: Duration = Duration::from_secs(90);

/// All acts, in order.
pub(crate) async fn all(stage: &mut Stage, story: &Story) -> anyhow::Result<()> {
    healthy(stage, story).await?;
    blind(stage, story).await?;
    let before = Touched::read(stage).await?;
    immediate(stage, story).await?;
    restore(stage, story, &before).await?;
    killed(stage, story, &before).await?;
    by_hand(stage, story, &before).await?;
    stage.check()
}

/// The fields that the rollbacks touch, and whether anything of ours is left on their objects.
#[derive(Debug, PartialEq)]
struct Touched {
    flags: Value,
    selector: Value,
    replicas: Value,
    annotated: Vec<String>,
}

impl Touched {
    async fn read(stage: &Stage) -> anyhow::Result<Self> {
        let config = stage.object("configmap", "learning-loop-config").await?;
        let service = stage.object("service", "profile-analysis").await?;
        let deployment = stage.object("deployment", "learning-loop").await?;
        let analysis = stage.object("deployment", "profile-analysis").await?;
        let annotated = [&config, &service, &deployment, &analysis]
            .into_iter()
            .flat_map(|object| object.pointer("/metadata/annotations").and_then(Value::as_object).into_iter().flatten())
            .map(|(key, _)| key.clone())
            .filter(|key| key.starts_with("learningloop.io/"))
            .collect();
        let field = |object: &Value, pointer: &str| object.pointer(pointer).cloned().unwrap_or_default();
        Ok(Self {
            flags: field(&config, "/data"),
            selector: field(&service, "/spec/selector"),
            replicas: field(&deployment, "/spec/replicas"),
            annotated,
        })
    }
}

fn condition(object: &Value, kind: &str) -> String {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    let found = conditions.into_iter().flatten().find(|of| of.get("type").and_then(Value::as_str) == Some(kind));
    found.and_then(|of| of.get("status").and_then(Value::as_str)).unwrap_or("absent").to_owned()
}

async fn rollout(stage: &Stage) -> anyhow::Result<Value> {
    stage.object("lro", ROLLOUT).await
}

async fn until_condition(stage: &Stage, kind: &str, status: &str) -> anyhow::Result<Value> {
    wait::until(format!("condition {kind}={status}"), LIMIT, || async {
        let rollout = rollout(stage).await?;
        let seen = condition(&rollout, kind);
        if seen == status { Ok(rollout) } else { Err(anyhow!("{kind}={seen}")) }
    })
    .await
}

/// The record in force, once it has reached a phase.
async fn until_phase(stage: &Stage, name: &str, phase: &str) -> anyhow::Result<Value> {
    wait::until(format!("{name} to be {phase}"), LIMIT, || async {
        let record = stage.object("lrb", name).await?;
        let seen = record.pointer("/status/phase").and_then(Value::as_str).unwrap_or("none").to_owned();
        if seen == phase { Ok(record) } else { Err(anyhow!("phase {seen}")) }
    })
    .await
}

async fn until_active(stage: &Stage) -> anyhow::Result<String> {
    wait::until("a rollback to start", LIMIT, || async {
        let rollout = rollout(stage).await?;
        let active = rollout.pointer("/status/active/name").and_then(Value::as_str).map(str::to_owned);
        active.ok_or_else(|| anyhow!("breaching: {}", condition(&rollout, "Breaching")))
    })
    .await
}

async fn until_trigger(stage: &Stage, name: &str, states: &[&str]) -> anyhow::Result<()> {
    wait::until(format!("trigger {name} to be {states:?}"), LIMIT, || async {
        let rollout = rollout(stage).await?;
        let triggers = rollout.pointer("/status/triggers").and_then(Value::as_array);
        let of = triggers.into_iter().flatten().find(|of| of.get("name").and_then(Value::as_str) == Some(name));
        let state = of.and_then(|of| of.get("state")).and_then(Value::as_str).unwrap_or("unknown to it").to_owned();
        if states.contains(&state.as_str()) { Ok(()) } else { Err(anyhow!("{state}")) }
    })
    .await
}

async fn show(stage: &Stage, story: &Story) -> anyhow::Result<()> {
    story.show("kubectl get lro,lrb -n learning", &stage.kubectl(&["get", "lro,lrb", "-n", NAMESPACE]).await?);
    Ok(())
}

async fn records(stage: &Stage) -> anyhow::Result<usize> {
    Ok(stage.objects("lrb").await?.len())
}

async fn healthy(stage: &Stage, story: &Story) -> anyhow::Result<()> {
    story.act("The feature is healthy");
    for trigger in ["system-downtime", "error-rate-spike", "accuracy-degradation", "learning-system-failure"] {
        until_trigger(stage, trigger, &["Ok"]).await?;
    }
    // All of them: memory growth and the captured baseline need some history first.
    until_condition(stage, "MetricsAvailable", "True").await?;
    show(stage, story).await?;
    let rollout = rollout(stage).await?;
    let armed = rollout.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    if let Some(armed) = armed.into_iter().find(|of| of.get("type").and_then(Value::as_str) == Some("Armed")) {
        let text = |field: &str| armed.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        story.say(&format!("Armed={}: {}", text("status"), text("message")));
    }
    story.say("(The gradual plan needs a VirtualService; this control plane has no Istio, and Armed says so.)");
    Ok(())
}

async fn blind(stage: &Stage, story: &Story) -> anyhow::Result<()> {
    story.act("Negative control: Prometheus is stopped while the feature is healthy");
    stage.prometheus.stop()?;
    until_condition(stage, "MetricsAvailable", "False").await?;
    story.happened("the operator says that it is blind: MetricsAvailable=False");
    // Longer than any trigger of the demo must hold: an outage that convicts would have convicted by then.
    tokio::time::sleep(Duration::from_secs(13)).await;
    ensure!(records(stage).await? == 0, "an outage of Prometheus rolled a healthy feature back");
    let rollout = rollout(stage).await?;
    let triggers = rollout.pointer("/status/triggers").and_then(Value::as_array).cloned().unwrap_or_default();
    let blind: Vec<&str> = triggers.iter().filter_map(|of| of.get("reason").and_then(Value::as_str)).collect();
    ensure!(
        blind.len() == triggers.len(),
        "only {} of {} triggers say that they are blind",
        blind.len(),
        triggers.len()
    );
    story.happened(&format!("13 s of outage: nothing was rolled back; the triggers say {}", blind.join(", ")));
    stage.prometheus.start_again().await?;
    until_condition(stage, "MetricsAvailable", "True").await?;
    story.happened("Prometheus is back, and so is the view");
    Ok(())
}

async fn immediate(stage: &Stage, story: &Story) -> anyhow::Result<()> {
    story.act("The feature breaks: 30 % of its requests fail");
    stage.fault("errors", 0.3).await?;
    until_trigger(stage, "error-rate-spike", &["Pending", "Firing"]).await?;
    story.happened("trigger error-rate-spike is pending");
    show(stage, story).await?;
    let name = until_active(stage).await?;
    story.happened(&format!("it has held for its full duration: {name} starts"));
    stage
        .kubectl(&["wait", "--for=condition=RolledBack", "--timeout=60s", "-n", NAMESPACE, &format!("lrb/{name}")])
        .await?;
    story.happened("rolled back: flag, traffic, capacity");
    show(stage, story).await?;
    let now = Touched::read(stage).await?;
    ensure!(now.flags.get("ENABLE_LEARNING") == Some(&"false".into()), "the flag is {:?}", now.flags);
    ensure!(now.selector.get("version") == Some(&"baseline".into()), "the selector is {:?}", now.selector);
    ensure!(now.replicas == 0, "the replicas are {:?}", now.replicas);
    story.say(&format!("ConfigMap {}; Service selector {}; replicas {}", now.flags, now.selector, now.replicas));
    let describe = stage
        .kubectl(&[
            "get",
            "events",
            "-n",
            NAMESPACE,
            "--field-selector",
            &format!("involvedObject.name={name}"),
            "-o",
            "custom-columns=TYPE:.type,REASON:.reason,MESSAGE:.message",
        ])
        .await?;
    story.show(&format!("kubectl get events --field-selector involvedObject.name={name}"), &describe);
    wait::until("the errors to stop", LIMIT, || async {
        match stage.prometheus.number("sum(rate(learning_errors_total[5s]))").await? {
            Some(0.0) => Ok(()),
            rate => Err(anyhow!("errors per second: {rate:?}")),
        }
    })
    .await?;
    story.happened("not one request fails any more, by Prometheus' own measure");
    until_record_condition(stage, &name, "Verified", "True").await?;
    story.happened("the checks hold: Verified=True");
    Ok(())
}

async fn until_record_condition(stage: &Stage, name: &str, kind: &str, status: &str) -> anyhow::Result<()> {
    wait::until(format!("{name} to be {kind}={status}"), LIMIT, || async {
        let record = stage.object("lrb", name).await?;
        let seen = condition(&record, kind);
        if seen == status { Ok(()) } else { Err(anyhow!("{kind}={seen}")) }
    })
    .await
}

/// Asks for the restore of the record in force, and checks that everything is as it was.
async fn put_back(stage: &Stage, story: &Story, name: &str, before: &Touched) -> anyhow::Result<()> {
    stage.plugin(&["restore", name, "-n", NAMESPACE, "--reason", "the demo goes on"]).await?;
    story.say(&format!("$ kubectl learning-rollout restore {name} -n {NAMESPACE} --reason \"the demo goes on\""));
    until_phase(stage, name, "Restored").await?;
    let now = Touched::read(stage).await?;
    ensure!(now == *before, "not as before: {now:?}, was {before:?}");
    story.happened("restored: every touched field is as it was, and nothing of ours is left on the objects");
    wait::until("the rollout to be free", LIMIT, || async {
        Ok::<_, anyhow::Error>(rollout(stage).await?.pointer("/status/active").is_none())
            .and_then(|free| if free { Ok(()) } else { Err(anyhow!("still claimed")) })
    })
    .await
}

async fn restore(stage: &Stage, story: &Story, before: &Touched) -> anyhow::Result<()> {
    story.act("Repaired: a person puts everything back");
    stage.fault("errors", 0.0).await?;
    let name = until_active(stage).await?;
    put_back(stage, story, &name, before).await?;
    show(stage, story).await
}

async fn killed(stage: &mut Stage, story: &Story, before: &Touched) -> anyhow::Result<()> {
    story.act("Half of the learning operations fail, and the operator is killed in the middle of its answer");
    let sets = stage.objects("replicaset").await?.len();
    let known = records(stage).await?;
    stage.fault("operation-failures", 0.5).await?;
    let name = wait::until("the record of the rollback", LIMIT, || async {
        let records = stage.objects("lrb").await?;
        if records.len() <= known {
            bail!("{} records", records.len());
        }
        let started = |record: &&Value| record.pointer("/status/phase").and_then(Value::as_str) != Some("Restored");
        let name =
            records.iter().find(started).and_then(|record| record.pointer("/metadata/name")).and_then(Value::as_str);
        name.map(str::to_owned).ok_or_else(|| anyhow!("no new record"))
    })
    .await?;
    stage.kill_operator()?;
    story.happened(&format!("SIGKILL, right as {name} appeared"));
    let phase = stage.object("lrb", &name).await?.pointer("/status/phase").cloned().unwrap_or_default();
    story.say(&format!("its phase was {phase}"));
    stage.start_operator()?;
    until_phase(stage, &name, "RolledBack").await?;
    story.happened("the operator is back, and the rollback has ended the same");
    show(stage, story).await?;
    ensure!(records(stage).await? == known + 1, "more than one record was made");
    let restarted = stage.objects("replicaset").await?.len() - sets;
    ensure!(restarted == 1, "{restarted} restarts instead of one");
    story.happened("exactly one record, and exactly one restart");
    stage.fault("operation-failures", 0.0).await?;
    put_back(stage, story, &name, before).await
}

async fn by_hand(stage: &Stage, story: &Story, before: &Touched) -> anyhow::Result<()> {
    story.act("A person rolls back by hand");
    stage.plugin(&["rollback", ROLLOUT, "-n", NAMESPACE, "--plan", "immediate", "--reason", "a bad feeling"]).await?;
    story.say(&format!(
        "$ kubectl learning-rollout rollback {ROLLOUT} -n {NAMESPACE} --plan immediate --reason \"a bad feeling\""
    ));
    let name = until_active(stage).await?;
    until_phase(stage, &name, "RolledBack").await?;
    story.happened("rolled back by hand");
    show(stage, story).await?;
    put_back(stage, story, &name, before).await
}
