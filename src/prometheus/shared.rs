//! Many askers, one Prometheus. Identical questions in flight are asked once and answered to all; an answer is
//! remembered for a moment for those who ask the same just afterwards; and the number of questions in flight is
//! limited, so that a slow Prometheus has a queue of its own and delays nobody else.
//!
//! Two questions are identical if the text and the time (in milliseconds) are. Nothing is ever answered from
//! another time's evaluation. Errors are shared with those who wait, and then forgotten.
//!
//! An asker that stops waiting (its rollout was deleted, the leader stepped down) harms nobody: the request
//! goes on while anybody waits for it, and ends when nobody does.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::sources::{Counters, Limits};
use super::{Answer, QueryBackend, QueryError, RangeAnswer, Series, Source, Timestamp};

type Outcome<V> = Result<Arc<V>, QueryError>;

/// A source with everything that lets many rollouts use it at once.
#[derive(Debug)]
pub struct SharedSource {
    asker: Arc<Asker>,
    instant: Arc<Flights<InstantKey, Answer>>,
    range: Arc<Flights<RangeKey, RangeAnswer>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct InstantKey {
    expr: Arc<str>,
    time: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct RangeKey {
    expr: Arc<str>,
    start: i64,
    end: i64,
    step: u128,
}

impl SharedSource {
    pub(super) fn new(source: Source, limits: &Limits, counters: Arc<Counters>) -> Self {
        Self {
            asker: Arc::new(Asker { source, permits: Semaphore::new(limits.in_flight.max(1)), counters }),
            instant: Arc::new(Flights::new(limits.remember_for, limits.remember_samples)),
            // History is asked for once, after a start.
            range: Arc::new(Flights::new(Duration::ZERO, 0)),
        }
    }
}

impl QueryBackend for SharedSource {
    fn query<'a>(&'a self, expr: &'a str, time: Timestamp) -> BoxFuture<'a, Result<Arc<Answer>, QueryError>> {
        let key = InstantKey { expr: Arc::from(expr), time: time.as_millisecond() };
        let (asker, expr) = (Arc::clone(&self.asker), Arc::clone(&key.expr));
        let joined = self.instant.join(key, Vec::len, async move {
            let ask = |deadline| asker.source.query_until(deadline, &expr, time);
            asker.in_turn(ask).await
        });
        self.asker.follow(joined).boxed()
    }

    fn query_range<'a>(
        &'a self,
        expr: &'a str,
        start: Timestamp,
        end: Timestamp,
        step: Duration,
    ) -> BoxFuture<'a, Result<Arc<RangeAnswer>, QueryError>> {
        let key = RangeKey {
            expr: Arc::from(expr),
            start: start.as_millisecond(),
            end: end.as_millisecond(),
            step: step.as_millis(),
        };
        let (asker, expr) = (Arc::clone(&self.asker), Arc::clone(&key.expr));
        let points = |answer: &RangeAnswer| answer.iter().map(|Series { points, .. }| points.len()).sum();
        let joined = self.range.join(key, points, async move {
            let source = &asker.source;
            let ask = |deadline| source.query_range_until(deadline, &expr, start, end, step);
            asker.in_turn(ask).await
        });
        self.asker.follow(joined).boxed()
    }
}

/// The source itself, behind its limit.
#[derive(Debug)]
struct Asker {
    source: Source,
    permits: Semaphore,
    counters: Arc<Counters>,
}

impl Asker {
    /// Waits for a place in the queue, then asks. The wait counts against the query's time, or a slow
    /// Prometheus would make queries wait without end.
    async fn in_turn<V, F>(&self, ask: impl FnOnce(Instant) -> F) -> Result<V, QueryError>
    where
        F: Future<Output = Result<V, QueryError>>,
    {
        let after = self.source.timeout();
        let asked = Instant::now();
        let deadline = asked + after;
        let outcome = match timeout_at(deadline, self.permits.acquire()).await {
            Ok(Ok(_permit)) => {
                let waited = asked.elapsed();
                self.counters.count_sent();
                match ask(deadline).await {
                    // What ran out was mostly the time for waiting: say so, raising the time-out would not help.
                    Err(QueryError::Timeout { .. }) if waited > after / 2 => Err(QueryError::Busy { after: waited }),
                    outcome => outcome,
                }
            }
            // The semaphore is never closed, so only the deadline can be the cause.
            Ok(Err(_)) | Err(_) => Err(QueryError::Busy { after }),
        };
        outcome.inspect_err(|error| self.counters.count_error(error))
    }

    /// Waits for an answer, counting those that came by another's asking.
    async fn follow<V>(&self, joined: Joined<V>) -> Outcome<V> {
        match joined {
            Joined::Started(flight) => flight.await,
            Joined::Under(flight) => {
                self.counters.count_shared();
                flight.await
            }
            Joined::Remembered(answer) => {
                self.counters.count_shared();
                Ok(answer)
            }
        }
    }
}

type Flight<V> = Shared<BoxFuture<'static, Outcome<V>>>;
/// The same, held without keeping it alive.
type WeakFlight<V> = WeakShared<BoxFuture<'static, Outcome<V>>>;

/// How an asker comes to its answer.
enum Joined<V> {
    /// From memory.
    Remembered(Arc<V>),
    /// With somebody who asked before.
    Under(Flight<V>),
    /// By asking.
    Started(Flight<V>),
}

/// The questions in flight and those just answered.
struct Flights<K, V> {
    remember_for: Duration,
    remember_weight: usize,
    board: Mutex<Board<K, V>>,
}

struct Board<K, V> {
    next_id: u64,
    /// Weak: a question that nobody waits for any more must end, and give its place in the queue back.
    in_flight: HashMap<K, (u64, WeakFlight<V>)>,
    recent: HashMap<K, (Arc<V>, Instant)>,
    /// Oldest first.
    order: VecDeque<(K, usize)>,
    weight: usize,
}

impl<K, V> Flights<K, V>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    fn new(remember_for: Duration, remember_weight: usize) -> Self {
        Self {
            remember_for,
            remember_weight,
            board: Mutex::new(Board {
                next_id: 0,
                in_flight: HashMap::new(),
                recent: HashMap::new(),
                order: VecDeque::new(),
                weight: 0,
            }),
        }
    }

    /// The answer to `key`, which `ask` fetches if nobody else does. `weigh` says how much an answer costs to keep.
    fn join(
        self: &Arc<Self>,
        key: K,
        weigh: impl FnOnce(&V) -> usize + Send + 'static,
        ask: impl Future<Output = Result<V, QueryError>> + Send + 'static,
    ) -> Joined<V> {
        let now = Instant::now();
        let mut board = self.board();
        board.forget(now, self.remember_for, self.remember_weight);
        if let Some((answer, _)) = board.recent.get(&key) {
            return Joined::Remembered(Arc::clone(answer));
        }
        if let Some(flight) = board.in_flight.get(&key).and_then(|(_, flight)| flight.upgrade()) {
            return Joined::Under(flight);
        }
        let id = board.next_id;
        board.next_id = board.next_id.wrapping_add(1);
        let landing = Landing { flights: Arc::downgrade(self), key: key.clone(), id };
        let flight = async move {
            let outcome = ask.await.map(Arc::new);
            landing.land(&outcome, weigh);
            outcome
        }
        .boxed()
        .shared();
        if let Some(weak) = flight.downgrade() {
            board.in_flight.insert(key, (id, weak));
        }
        Joined::Started(flight)
    }

    /// A panic of another thread while it held the board cannot leave it half written in a way that matters: the
    /// worst is a forgotten answer.
    fn board(&self) -> std::sync::MutexGuard<'_, Board<K, V>> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Clone + Eq + Hash, V> Board<K, V> {
    fn remember(&mut self, key: K, answer: Arc<V>, weight: usize, now: Instant) {
        if self.recent.insert(key.clone(), (answer, now)).is_none() {
            self.order.push_back((key, weight));
            self.weight = self.weight.saturating_add(weight);
        }
    }

    /// Drops what is too old, and the oldest while there is too much.
    fn forget(&mut self, now: Instant, age: Duration, weight: usize) {
        while let Some((key, its_weight)) = self.order.front() {
            let fresh = self.recent.get(key).is_some_and(|(_, at)| now.saturating_duration_since(*at) < age);
            if fresh && self.weight <= weight {
                break;
            }
            self.weight = self.weight.saturating_sub(*its_weight);
            self.recent.remove(key);
            self.order.pop_front();
        }
    }
}

impl<K, V> fmt::Debug for Flights<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flights").finish_non_exhaustive()
    }
}

/// Takes a question off the board, answered or abandoned.
struct Landing<K: Clone + Eq + Hash + Send + Sync + 'static, V: Send + Sync + 'static> {
    flights: Weak<Flights<K, V>>,
    key: K,
    id: u64,
}

impl<K, V> Landing<K, V>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Remembers the answer before the question leaves the board (on drop), so that there is no moment
    /// between in which it would be asked again.
    fn land(self, outcome: &Outcome<V>, weigh: impl FnOnce(&V) -> usize) {
        let (Ok(answer), Some(flights)) = (outcome, self.flights.upgrade()) else {
            return;
        };
        if flights.remember_for.is_zero() {
            return;
        }
        // One for the entry itself: an empty answer must not be free.
        let weight = weigh(answer).saturating_add(1);
        let now = Instant::now();
        let mut board = flights.board();
        board.remember(self.key.clone(), Arc::clone(answer), weight, now);
        board.forget(now, flights.remember_for, flights.remember_weight);
    }
}

impl<K, V> Drop for Landing<K, V>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    fn drop(&mut self) {
        let Some(flights) = self.flights.upgrade() else {
            return;
        };
        let mut board = flights.board();
        // An abandoned question may have been asked anew since; that one stays.
        if board.in_flight.get(&self.key).is_some_and(|(id, _)| *id == self.id) {
            board.in_flight.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests;
