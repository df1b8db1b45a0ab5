//! Asking the checks of a rollback that has landed.

use futures::future::join_all;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::{background::Background, context::Context, evaluate};
use crate::{
    api::rollback::{DesiredState, LearningRollback, Phase, VerifyStatus},
    decide::{rollback::later, schedule::Names, trigger::Answer, verify},
};

/// The checks of the execution in force.
#[derive(Default)]
pub(super) struct Verifier {
    asking: Background<(Timestamp, Vec<Answer>)>,
    next: Option<Timestamp>,
}

impl Verifier {
    /// Resolves when answers have come.
    pub(super) async fn answered(&mut self) {
        self.asking.done().await;
    }

    /// What the checks say now, where they have just been answered; asks again when it is time. The moment is when to
    /// come back.
    pub(super) fn check(
        &mut self,
        context: &Context,
        record: &LearningRollback,
    ) -> (Option<Vec<VerifyStatus>>, Timestamp) {
        let status = record.status.as_ref().filter(|status| {
            status.phase == Phase::RolledBack && status.acknowledged.desired_state == DesiredState::RolledBack
        });
        let plan = status.and_then(|status| status.plan.as_ref());
        let (Some(status), Some(plan)) = (status, plan) else {
            self.asking.reset();
            self.next = None;
            return (None, Timestamp::MAX);
        };
        let landed = status.rolled_back_at.as_ref().map_or_else(|| context.clock.now(), |at| at.0);
        let verified =
            self.asking.take().map(|(at, answers)| verify::advance(&plan.verify, &status.verify, landed, &answers, at));
        if verify::is_decided(&plan.verify, verified.as_ref().unwrap_or(&status.verify)) {
            return (verified, Timestamp::MAX);
        }
        let now = context.clock.now();
        let next = self.next.unwrap_or(now);
        if !self.asking.is_idle() {
            return (verified, Timestamp::MAX);
        }
        if next > now {
            return (verified, next);
        }
        self.next = Some(later(now, plan.interval.get()));
        let (context, namespace, name) =
            (context.clone(), record.namespace().unwrap_or_default(), record.spec.rollout_ref.name.clone());
        let (checks, source) = (plan.verify.clone(), plan.prometheus.clone());
        self.asking.start(async move {
            let names = Names { namespace: &namespace, name: &name, cluster: &context.cluster };
            let source = context.sources.find(&namespace, source.as_ref()).await;
            let answers = join_all(checks.iter().map(|check| {
                let (source, query) = (&source, names.expand(&check.query));
                async move {
                    match source {
                        Ok(source) => evaluate::instant(source, &query, now).await,
                        Err(error) => Err(evaluate::failure(error)),
                    }
                }
            }))
            .await;
            (now, answers)
        });
        (verified, Timestamp::MAX)
    }
}
