//! When everything happened, from the objects' own timestamps.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp};
use kube::ResourceExt;

use crate::story::{Episode, Story};

pub(crate) fn print(story: &Story) {
    for episode in &story.episodes {
        let lines: Vec<String> = moments(episode)
            .into_iter()
            .map(|(at, what)| {
                let since = at.duration_since(episode.caused).as_secs_f64();
                format!("{:>8.3} s  {:>+9.3} s  {what}", story.narrator.since_start(at), since)
            })
            .collect();
        let title = format!("Timeline of {} (since the start, since the cause):", episode.landed.name_any());
        story.narrator.lines(&title, &lines);
    }
}

fn moments(episode: &Episode) -> Vec<(Timestamp, String)> {
    let mut moments = vec![(episode.caused, episode.cause.clone())];
    let mut add = |at: Option<&MicroTime>, what: String| moments.extend(at.map(|at| (at.0, what)));
    let Some(status) = &episode.landed.status else { return moments };
    if let Some(evidence) = &status.evidence {
        add(evidence.since.as_ref(), format!("first breach: trigger {} is pending", evidence.trigger));
        add(evidence.fired_at.as_ref(), format!("fired: {} {}", evidence.value, evidence.condition));
    }
    add(status.started_at.as_ref(), "first intent journalled".to_owned());
    for step in &status.steps {
        let target = step.target.as_ref().map(|target| format!("{} {}", target.kind, target.name)).unwrap_or_default();
        add(step.finished_at.as_ref(), format!("step {} has landed on {target}", step.name));
    }
    add(status.rolled_back_at.as_ref(), "rolled back".to_owned());
    let restored = episode.restored.as_ref().and_then(|record| record.status.as_ref());
    add(restored.and_then(|status| status.finished_at.as_ref()), "restored".to_owned());
    moments.sort_by_key(|(at, _)| *at);
    moments
}
