//! Something that a task waits for without standing still.

use futures::future::BoxFuture;

/// At most one thing on its way, and its outcome once it has come.
pub(super) struct Background<T> {
    under_way: Option<BoxFuture<'static, T>>,
    outcome: Option<T>,
}

impl<T> Default for Background<T> {
    fn default() -> Self {
        Self { under_way: None, outcome: None }
    }
}

impl<T> Background<T> {
    /// Nothing is on its way and no outcome waits to be taken.
    pub(super) const fn is_idle(&self) -> bool {
        self.under_way.is_none() && self.outcome.is_none()
    }

    /// Starts; what was on its way is dropped.
    pub(super) fn start(&mut self, work: impl Future<Output = T> + Send + 'static) {
        self.under_way = Some(Box::pin(work));
        self.outcome = None;
    }

    /// Resolves when the outcome has come; never while nothing is on its way. Safe to drop and to call again.
    pub(super) async fn done(&mut self) {
        match &mut self.under_way {
            Some(work) => {
                self.outcome = Some(work.await);
                self.under_way = None;
            }
            None => std::future::pending().await,
        }
    }

    /// The outcome, once.
    pub(super) fn take(&mut self) -> Option<T> {
        self.outcome.take()
    }

    /// Forgets what is on its way and what has come.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}
