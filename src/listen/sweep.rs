//! The connections of one thread, and the task that looks after them: one timer for all, instead of several for each.

use super::pulse::{Limits, Pulse};
use super::{Refusal, Stage};
use crate::telemetry::Counted;
use bytes::Bytes;
use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

/// How often connections are looked at, in parts of the shortest limit: what ends, ends at most two looks late.
const LOOKS_A_LIMIT: u32 = 10;
/// How often at most and at least.
const LOOKS: (Duration, Duration) = (Duration::from_millis(25), Duration::from_secs(1));
/// How often while the process drains.
const LOOK_WHEN_DRAINING: Duration = Duration::from_millis(50);

/// Makes the answer to what is no request, and counts it.
pub(super) type Refuse = Rc<dyn Fn(Refusal) -> Bytes>;

/// The connections of one thread.
pub(super) struct Connections {
    open: RefCell<Vec<Rc<Pulse>>>,
    drains: Cell<bool>,
    pub(super) refuse: Refuse,
}

impl Connections {
    /// None yet; they are looked after until the result is dropped.
    pub(super) fn looked_after(limits: Limits, stage: watch::Receiver<Stage>, refuse: Refuse) -> Rc<Self> {
        let drains = Cell::new(stage.borrow().drains());
        let connections = Rc::new(Self { open: RefCell::default(), drains, refuse });
        actix_web::rt::spawn(look_after(Rc::downgrade(&connections), limits, stage));
        connections
    }

    /// Whether no further request is wanted on any of them.
    pub(super) fn drain(&self) -> bool {
        self.drains.get()
    }

    /// A client has connected.
    pub(super) fn admit(self: &Rc<Self>, counted: Counted) -> Member {
        let pulse = Rc::new(Pulse::begun(Instant::now()));
        let mut open = self.open.borrow_mut();
        pulse.place.set(open.len());
        open.push(pulse.clone());
        Member { pulse, among: self.clone(), _counted: counted }
    }

    fn look(&self, limits: &Limits) {
        let now = Instant::now();
        for pulse in &*self.open.borrow() {
            pulse.sweep(limits, self.drains.get(), now);
        }
    }
}

/// A connection's place among those of its thread; counted and looked after until this is dropped.
pub(super) struct Member {
    pulse: Rc<Pulse>,
    among: Rc<Connections>,
    _counted: Counted,
}

impl Member {
    pub(super) fn pulse(&self) -> &Rc<Pulse> {
        &self.pulse
    }

    /// The answer to what is no request.
    pub(super) fn refuse(&self, refusal: Refusal) -> Bytes {
        (self.among.refuse)(refusal)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut open = self.among.open.borrow_mut();
        let place = self.pulse.place.get();
        open.swap_remove(place);
        if let Some(moved) = open.get(place) {
            moved.place.set(place);
        }
    }
}

async fn look_after(connections: Weak<Connections>, limits: Limits, mut stage: watch::Receiver<Stage>) {
    let every = (limits.shortest() / LOOKS_A_LIMIT).clamp(LOOKS.0, LOOKS.1);
    let mut ticks = ticks(every);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            changed = stage.changed() => {
                // Whoever could tell of a change is gone: so is the server.
                if changed.is_err() {
                    return;
                }
                ticks = self::ticks(every.min(LOOK_WHEN_DRAINING));
            }
        }
        let Some(connections) = connections.upgrade() else { return };
        connections.drains.set(stage.borrow().drains());
        connections.look(&limits);
    }
}

fn ticks(every: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Telemetry;

    #[tokio::test]
    async fn who_leaves_is_not_looked_after_and_the_others_are() {
        let telemetry = Telemetry::new();
        let connections = Rc::new(Connections {
            open: RefCell::default(),
            drains: Cell::new(false),
            refuse: Rc::new(|_| Bytes::new()),
        });
        let mut members = (0..8).map(|_| Some(connections.admit(telemetry.connection()))).collect::<Vec<_>>();
        for leaving in [7, 0, 3, 6, 1, 5, 2, 4] {
            members[leaving] = None;
            let open = connections.open.borrow();
            let staying = members.iter().flatten().collect::<Vec<_>>();
            assert_eq!(open.len(), staying.len());
            for member in staying {
                assert!(Rc::ptr_eq(&open[member.pulse.place.get()], &member.pulse), "after {leaving}");
            }
        }
    }
}
