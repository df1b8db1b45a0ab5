//! The acts, in order. Each is a function that ends with an error at the first claim that does not hold.

mod breach;
mod by_hand;
mod healthy;
mod killed;
mod outage;
mod restore;

use crate::story::Story;

/// Plays all of it.
pub(crate) async fn play(story: &mut Story) -> anyhow::Result<()> {
    story.narrator.act(1, "The feature is healthy");
    healthy::play(story).await?;
    story.narrator.act(2, "Prometheus goes away while the feature is healthy: nothing may be rolled back");
    outage::play(story).await?;
    story.narrator.act(3, "The feature breaks: 30 % of its requests fail");
    let before = story.fields().await?;
    let record = breach::play(story, &before).await?;
    story.narrator.act(4, "The cause is repaired, and a person puts everything back");
    restore::play(story, &record, &before).await?;
    story
        .narrator
        .act(5, "Half of the learning operations fail, and the operator is killed in the middle of its answer");
    killed::play(story).await?;
    story.narrator.act(6, "A person rolls back by hand and holds it, and somebody else edits a target");
    by_hand::play(story).await
}
