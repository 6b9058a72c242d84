//! Flights: one question upstream, and all who wait for what it brings. Permission is not among it: whoever waited
//! still needs a grant, or asks.

use crate::cache::{Hearsay, Record, RecordKey};
use crate::caller::Caller;
use crate::source::{SourceImage, Validator};
use crate::upstream::UpstreamError;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// What is being asked, and in whose name where that matters.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum FlightName {
    /// The body of a picture that nobody has yet, whoever asks.
    Body(RecordKey),
    /// Whether this caller may see the picture. Identical credential sets may share that, and nobody else.
    Check(RecordKey, Caller),
}

/// How far a flight has come.
#[derive(Clone, Debug)]
pub(super) enum Phase {
    /// Upstream has been asked.
    Asked,
    /// The head of the answer is there: others can ask with this validator, while the body still comes.
    Named(Validator),
    /// The picture is here.
    Landed(Arc<Record>, Arc<SourceImage>),
    /// A caller's check is over, and the grant is there.
    Granted,
    /// It brought nothing that others could use: a refusal, which says nothing about them, or nothing to keep.
    Empty,
    /// Whoever flew it is gone.
    Abandoned,
    /// Upstream gave no answer; to ask after one another would take as long for each.
    NoAnswer(UpstreamError),
}

impl Phase {
    const fn is_last(&self) -> bool {
        !matches!(self, Self::Asked | Self::Named(_))
    }
}

/// The flights under way: no more than there are requests, since each ends with the request that flies it.
#[derive(Default)]
pub(super) struct Flights {
    under_way: Mutex<HashMap<FlightName, Flight>>,
}

#[derive(Clone)]
struct Flight {
    pilot: Option<Caller>,
    phase: watch::Receiver<Phase>,
    heard: Arc<Hearsay>,
}

/// A place in a flight.
pub(super) enum Place<'a> {
    /// The caller's own request asks.
    Pilot(Pilot<'a>),
    /// Another's does.
    Passenger(Passenger),
}

impl Flights {
    /// Boards the flight of that name, or begins it in the name of `caller`.
    pub(super) fn board(&self, name: FlightName, caller: Option<Caller>) -> Place<'_> {
        match self.lock().entry(name) {
            Entry::Occupied(flight) => Place::Passenger(Passenger(flight.get().clone())),
            Entry::Vacant(place) => {
                let (sender, phase) = watch::channel(Phase::Asked);
                let heard = Arc::<Hearsay>::default();
                place.insert(Flight { pilot: caller, phase, heard: heard.clone() });
                Place::Pilot(Pilot { flights: self, name, phase: sender, heard })
            }
        }
    }

    /// What is heard of the picture whose body is under way.
    pub(super) fn hearsay(&self, key: RecordKey) -> Option<Arc<Hearsay>> {
        self.lock().get(&FlightName::Body(key)).map(|flight| flight.heard.clone())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<FlightName, Flight>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever asks for all. Dropped without having landed, it leaves the flight abandoned and the passengers free to begin
/// another.
pub(super) struct Pilot<'a> {
    flights: &'a Flights,
    name: FlightName,
    phase: watch::Sender<Phase>,
    heard: Arc<Hearsay>,
}

impl Pilot<'_> {
    /// What is heard of the picture while it is under way.
    pub(super) fn hearsay(&self) -> Arc<Hearsay> {
        self.heard.clone()
    }

    /// Tells the passengers the validator that upstream gave.
    pub(super) fn name(&self, validator: Validator) {
        self.phase.send_replace(Phase::Named(validator));
    }

    /// Ends the flight.
    pub(super) fn land(self, last: Phase) {
        debug_assert!(last.is_last(), "passengers wait for the last phase");
        self.end(last);
    }

    fn end(&self, last: Phase) {
        // First the name, then the word: whoever hears that it is over must not board it again.
        self.flights.lock().remove(&self.name);
        self.phase.send_replace(last);
    }
}

impl Drop for Pilot<'_> {
    fn drop(&mut self) {
        // Not after it has landed: the name may be another flight's by now.
        if !self.phase.borrow().is_last() {
            self.end(Phase::Abandoned);
        }
    }
}

/// Whoever waits for another's question.
pub(super) struct Passenger(Flight);

impl Passenger {
    /// In whose name upstream is asked; `None` for credentials that stand for no caller.
    pub(super) fn pilot(&self) -> Option<Caller> {
        self.0.pilot
    }

    /// What is heard of the picture while it is under way.
    pub(super) fn hearsay(&self) -> Arc<Hearsay> {
        self.0.heard.clone()
    }

    /// Waits until the flight has come further than [`Phase::Asked`].
    pub(super) async fn beyond_asking(&mut self) -> Phase {
        self.until(|phase| !matches!(phase, Phase::Asked)).await
    }

    /// Waits until the flight is over.
    pub(super) async fn end(&mut self) -> Phase {
        self.until(Phase::is_last).await
    }

    async fn until(&mut self, reached: impl FnMut(&Phase) -> bool) -> Phase {
        match self.0.phase.wait_for(reached).await {
            Ok(phase) => phase.clone(),
            // A pilot says its last word before it goes.
            Err(_) => Phase::Abandoned,
        }
    }
}
