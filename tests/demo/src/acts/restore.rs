//! One command puts everything back.

use crate::{fields::Fields, story::Story};

pub(super) async fn play(story: &mut Story, record: &str, before: &Fields) -> anyhow::Result<()> {
    story.stage.feature.heal("errors").await?;
    story.tell("The fault is off (DELETE /faults/errors).");
    story.restore(record, before, &[]).await?;
    story.until_condition("RollbackInForce", "False").await?;
    story.show_both_kinds().await
}
