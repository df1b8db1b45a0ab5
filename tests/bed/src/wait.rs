//! Waiting for a condition: the only way a test waits. Looks every 25 ms, gives up at a stated time, and says what it
//! waited for and what it saw last.

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

/// The pause between two looks.
pub const INTERVAL: Duration = Duration::from_millis(25);

/// What a look came back with: the awaited value, or what was there instead.
pub trait Observation {
    type Value;
    fn into_result(self) -> Result<Self::Value, String>;
}

/// `None` is "not yet", with nothing to say about it.
impl<T> Observation for Option<T> {
    type Value = T;
    fn into_result(self) -> Result<T, String> {
        self.ok_or_else(|| "nothing yet".to_owned())
    }
}

/// `Err` is "not yet", and says what was seen.
impl<T, E: Display> Observation for Result<T, E> {
    type Value = T;
    fn into_result(self) -> Result<T, String> {
        self.map_err(|error| format!("{error:#}"))
    }
}

impl Observation for bool {
    type Value = ();
    fn into_result(self) -> Result<(), String> {
        if self { Ok(()) } else { Err("false".to_owned()) }
    }
}

/// Looks until it sees the value, or fails after `limit`. A look that hangs counts as one that saw nothing.
///
/// `what` completes the sentence "waited 10s for …".
pub async fn until<O, F>(what: impl Display, limit: Duration, mut look: impl FnMut() -> F) -> anyhow::Result<O::Value>
where
    O: Observation,
    F: Future<Output = O>,
{
    let deadline = Instant::now() + limit;
    let mut last = String::new();
    loop {
        match timeout_at(deadline, look()).await {
            Ok(observation) => match observation.into_result() {
                Ok(value) => return Ok(value),
                Err(seen) => last = seen,
            },
            Err(_) if last.is_empty() => last = "the first look never came back".to_owned(),
            Err(_) => last = format!("{last} (the last look was cut short)"),
        }
        if Instant::now() >= deadline {
            anyhow::bail!("waited {limit:?} for {what}; last seen: {last}");
        }
        sleep(INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn returns_the_first_value_seen() {
        let mut looks = 0;
        let value = until("a third look", Duration::from_secs(5), || {
            looks += 1;
            let seen = looks;
            async move { (seen == 3).then_some(seen) }
        })
        .await;
        assert_eq!(value.unwrap(), 3);
    }

    #[tokio::test]
    async fn names_what_it_waited_for_and_what_it_saw() {
        let error = until("two replicas", Duration::from_millis(60), || async { Err::<(), _>("one replica") })
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), "waited 60ms for two replicas; last seen: one replica");
    }

    #[tokio::test]
    async fn a_look_that_hangs_does_not_outlast_the_limit() {
        let error = until("an answer", Duration::from_millis(60), std::future::pending::<bool>).await.unwrap_err();
        assert!(error.to_string().ends_with("the first look never came back"), "{error}");
    }
}
