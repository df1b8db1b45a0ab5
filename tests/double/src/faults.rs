//! What goes wrong, and when: a crash at the n-th request, and faults scripted by predicate.
//!
//! A crash is a freeze of one *generation* of clients: whatever that generation asks from then on is never answered,
//! as if the process had died with its connections open. Nothing here stores or answers anything.

use std::{sync::Arc, time::Duration};

use serde_json::Value;

use crate::{log::Request, refusal::Refusal};

/// When, relative to the commit, the program under test dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The request reached nobody: nothing is stored.
    Before,
    /// It was carried out, but no answer was ever seen.
    Committed,
    /// It was carried out and answered; the next request is the one that is lost.
    Answered,
}

impl Moment {
    /// All three, for loops over every way to die.
    pub const ALL: [Self; 3] = [Self::Before, Self::Committed, Self::Answered];
}

/// Decides about a request by what is known when it arrives (its outcome is not, yet).
pub type Predicate = Arc<dyn Fn(&Request) -> bool + Send + Sync>;

/// Which requests a crash counts.
#[derive(Clone)]
pub enum Counting {
    /// POST, PUT, PATCH and DELETE, dry runs included.
    Mutating,
    /// All, reads and watches included.
    Any,
    /// Those for which the predicate holds.
    Matching(Predicate),
}

impl Counting {
    /// Counts the requests for which the predicate holds.
    pub fn matching(predicate: impl Fn(&Request) -> bool + Send + Sync + 'static) -> Self {
        Self::Matching(Arc::new(predicate))
    }

    fn counts(&self, request: &Request) -> bool {
        match self {
            Self::Mutating => request.is_mutating(),
            Self::Any => true,
            Self::Matching(predicate) => predicate(request),
        }
    }
}

/// Where the program under test dies: at the n-th counted request from now on, the first being 1.
#[derive(Clone)]
pub struct Crash {
    /// Which one.
    pub at: usize,
    /// Before or after it takes effect.
    pub moment: Moment,
    /// Of which requests.
    pub counting: Counting,
}

impl Crash {
    /// At the n-th mutating request.
    pub fn at(n: usize, moment: Moment) -> Self {
        Self { at: n, moment, counting: Counting::Mutating }
    }
}

/// What happens to a request instead of, or besides, being served.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Refused with this status; nothing is stored.
    Status(Refusal),
    /// Carried out, and then answered with this status all the same.
    CommitThenStatus(Refusal),
    /// The connection breaks before the request arrives.
    DropConnection,
    /// Carried out, but the connection breaks before the answer.
    CommitThenDrop,
    /// Carried out only after a delay (of tokio's clock).
    Delay(Duration),
    /// Carried out at once, answered only after a delay.
    CommitThenDelay(Duration),
    /// Carried out; the body of the answer breaks off after so many bytes.
    TruncateBody(usize),
    /// Not carried out; answered 200 with this body: an old list, a proxy's error page, malformed JSON.
    Answer(String),
}

impl Fault {
    /// A 200 with a JSON body, such as a list recorded earlier.
    pub fn answer(body: &Value) -> Self {
        Self::Answer(body.to_string())
    }
}

/// How often a scripted fault strikes, counted over the requests its predicate holds for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// Every one.
    Always,
    /// The first so many.
    First(usize),
    /// Only the n-th, the first being 1.
    Nth(usize),
}

struct Script {
    predicate: Predicate,
    times: Times,
    fault: Fault,
    seen: usize,
}

#[derive(Default)]
pub(crate) struct Faults {
    crash: Option<(Crash, usize)>,
    scripts: Vec<Script>,
}

impl Faults {
    pub(crate) fn arm(&mut self, crash: Crash) {
        self.crash = Some((crash, 0));
    }

    pub(crate) fn disarm(&mut self) {
        self.crash = None;
    }

    pub(crate) fn script(&mut self, predicate: Predicate, times: Times, fault: Fault) {
        self.scripts.push(Script { predicate, times, fault, seen: 0 });
    }

    pub(crate) fn clear(&mut self) {
        self.scripts.clear();
    }

    /// The moment of the crash, if this request is the one. It strikes once.
    pub(crate) fn crash(&mut self, request: &Request) -> Option<Moment> {
        let (crash, seen) = self.crash.as_mut()?;
        if !crash.counting.counts(request) {
            return None;
        }
        *seen += 1;
        if *seen < crash.at {
            return None;
        }
        let moment = crash.moment;
        self.crash = None;
        Some(moment)
    }

    /// The first scripted fault that strikes this request; all that match count it.
    pub(crate) fn fault(&mut self, request: &Request) -> Option<Fault> {
        let mut struck = None;
        for script in self.scripts.iter_mut().filter(|script| (script.predicate)(request)) {
            script.seen += 1;
            let strikes = match script.times {
                Times::Always => true,
                Times::First(times) => script.seen <= times,
                Times::Nth(n) => script.seen == n,
            };
            if strikes && struck.is_none() {
                struck = Some(script.fault.clone());
            }
        }
        struck
    }
}
