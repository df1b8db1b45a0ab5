//! Leadership: a Lease of our own, judged by what is seen to change locally and never by another machine's clock.
//!
//! Every write to the cluster asks [`Leadership::permit`] first. A lease counts from when its last renewal was *sent*;
//! a write may start only if the lease outlives the write's time-out, so a replica that cannot renew stops acting before
//! another can lead.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, api::PostParams};
use tokio::{sync::watch, time};
use tracing::{info, warn};

use super::clock::Clock;
use crate::steps::cluster::{REQUEST_TIMEOUT, Refusal};

/// How long a lease counts after its renewal was sent.
pub const LEASE_DURATION: Duration = Duration::from_secs(8);
/// A leader that has not renewed for so long stops.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(5);
/// Time between two tries.
pub const RETRY_PERIOD: Duration = Duration::from_secs(1);

/// This replica may not write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this replica does not lead")]
pub struct NotLeading;

/// The right to write, as it stands.
#[derive(Clone, Debug)]
pub struct Leadership {
    clock: Clock,
    /// Until when the lease is held, on the clock that never jumps. `None`: for ever (no election).
    held_until: Option<Arc<Mutex<Duration>>>,
    leading: watch::Receiver<bool>,
}

impl Leadership {
    /// Leads without an election: one process, by the caller's promise.
    pub fn alone(clock: Clock) -> Self {
        let (sender, leading) = watch::channel(true);
        // The sender's end is not an end of leadership.
        drop(sender);
        Self { clock, held_until: None, leading }
    }

    /// May a write start that is over within the request time-out?
    ///
    /// # Errors
    /// When the lease does not outlive the write.
    pub fn permit(&self) -> Result<(), NotLeading> {
        let Some(held_until) = &self.held_until else { return Ok(()) };
        let until = *held_until.lock().unwrap_or_else(PoisonError::into_inner);
        if self.clock.elapsed() + REQUEST_TIMEOUT < until { Ok(()) } else { Err(NotLeading) }
    }

    /// Does this replica lead?
    pub fn is_leading(&self) -> bool {
        *self.leading.borrow()
    }

    /// Waits until this replica leads, or does not lead any more.
    pub async fn until(&mut self, leading: bool) {
        if self.leading.wait_for(|now| *now == leading).await.is_err() && *self.leading.borrow() != leading {
            std::future::pending::<()>().await;
        }
    }
}

/// Takes part in the election.
pub struct Elector {
    api: Api<Lease>,
    name: String,
    identity: String,
    clock: Clock,
    held_until: Arc<Mutex<Duration>>,
    leading: watch::Sender<bool>,
    /// The lease of another, and since when it has looked like that.
    rival: Option<(LeaseSpec, Duration)>,
    /// When the last successful renewal was sent.
    renewed: Option<Duration>,
}

impl Elector {
    /// An elector for the Lease of this name, and the leadership it grants.
    pub fn new(client: Client, namespace: &str, name: String, identity: String, clock: Clock) -> (Self, Leadership) {
        let held_until = Arc::new(Mutex::new(Duration::ZERO));
        let (leading, receiver) = watch::channel(false);
        let leadership = Leadership { clock, held_until: Some(held_until.clone()), leading: receiver };
        let api = Api::namespaced(client, namespace);
        (Self { api, name, identity, clock, held_until, leading, rival: None, renewed: None }, leadership)
    }

    /// Takes part until `stop` resolves; then gives the lease back, so that another can take over at once.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        loop {
            let round = self.round();
            tokio::select! {
                () = &mut stop => break,
                () = round => {}
            }
            tokio::select! {
                () = &mut stop => break,
                () = time::sleep(RETRY_PERIOD) => {}
            }
        }
        self.resign().await;
    }

    async fn round(&mut self) {
        let sent = self.clock.elapsed();
        match time::timeout(REQUEST_TIMEOUT, self.try_hold()).await {
            Ok(Ok(true)) => {
                self.renewed = Some(sent);
                *self.held_until.lock().unwrap_or_else(PoisonError::into_inner) = sent + LEASE_DURATION;
                if !self.leading.send_replace(true) {
                    info!(lease = self.name, identity = self.identity, "leading");
                }
                return;
            }
            Ok(Ok(false)) => return self.step_down("another replica holds the lease"),
            Ok(Err(refusal)) => warn!(lease = self.name, error = %refusal, "the lease could not be renewed"),
            Err(_) => warn!(lease = self.name, "the lease could not be renewed in time"),
        }
        let late = self.renewed.is_none_or(|renewed| self.clock.elapsed() > renewed + RENEW_DEADLINE);
        if late {
            self.step_down("the lease was not renewed within its deadline");
        }
    }

    fn step_down(&mut self, why: &str) {
        *self.held_until.lock().unwrap_or_else(PoisonError::into_inner) = Duration::ZERO;
        self.renewed = None;
        if self.leading.send_replace(false) {
            warn!(lease = self.name, why, "not leading any more");
        }
    }

    /// True when the lease is ours.
    async fn try_hold(&mut self) -> Result<bool, Refusal> {
        let now = MicroTime(self.clock.now());
        let Some(mut lease) = self.api.get_opt(&self.name).await.map_err(|error| Refusal::of(&error))? else {
            let lease = Lease {
                metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
                spec: Some(self.claim(&now, 0)),
            };
            return match self.api.create(&PostParams::default(), &lease).await {
                Ok(_) => Ok(true),
                Err(error) => lost_race(&error),
            };
        };
        let present = lease.spec.clone().unwrap_or_default();
        let holder = present.holder_identity.clone().unwrap_or_default();
        let ours = holder == self.identity;
        if !ours && !holder.is_empty() && !self.has_expired(&present) {
            return Ok(false);
        }
        let transitions = present.lease_transitions.unwrap_or(0);
        let mut claim = self.claim(&now, if ours { transitions } else { transitions.saturating_add(1) });
        if ours {
            claim.acquire_time = present.acquire_time;
        }
        lease.spec = Some(claim);
        match self.api.replace(&self.name, &PostParams::default(), &lease).await {
            Ok(_) => {
                self.rival = None;
                Ok(true)
            }
            Err(error) => lost_race(&error),
        }
    }

    /// A rival's lease has expired once it has not been seen to change for its whole duration.
    fn has_expired(&mut self, present: &LeaseSpec) -> bool {
        let now = self.clock.elapsed();
        match &self.rival {
            Some((seen, since)) if seen == present => {
                let seconds = present.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
                now >= *since + seconds.map_or(LEASE_DURATION, Duration::from_secs)
            }
            _ => {
                self.rival = Some((present.clone(), now));
                false
            }
        }
    }

    fn claim(&self, now: &MicroTime, transitions: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            acquire_time: Some(now.clone()),
            renew_time: Some(now.clone()),
            lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }

    async fn resign(&mut self) {
        let held = self.leading.send_replace(false);
        *self.held_until.lock().unwrap_or_else(PoisonError::into_inner) = Duration::ZERO;
        if !held {
            return;
        }
        let give_back = async {
            let mut lease = self.api.get(&self.name).await?;
            if let Some(spec) = lease.spec.as_mut().filter(|spec| spec.holder_identity.as_ref() == Some(&self.identity))
            {
                spec.holder_identity = Some(String::new());
                self.api.replace(&self.name, &PostParams::default(), &lease).await?;
            }
            Ok::<_, kube::Error>(())
        };
        match time::timeout(REQUEST_TIMEOUT, give_back).await {
            Ok(Ok(())) => info!(lease = self.name, "gave the lease back"),
            _ => warn!(lease = self.name, "could not give the lease back: another replica takes over when it expires"),
        }
    }
}

/// Somebody else was faster: no error, but no lease either.
fn lost_race(error: &kube::Error) -> Result<bool, Refusal> {
    match Refusal::of(error) {
        Refusal::Changed => Ok(false),
        refusal => Err(refusal),
    }
}
