//! What is known of one open connection: written by whoever moves its bytes, without a look at any clock, and read by the
//! sweeper, which has one.

use super::pipeline::Framing;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

/// How long a connection may stay in each of its phases. A request that is being answered, a tunnel among them, has no
/// limit here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The head of a request, from its first byte; of the first on a connection from its beginning, handshake included.
    pub head: Duration,
    /// Nothing at all between two requests.
    pub keep_alive: Duration,
    /// A write of which the client takes not one byte.
    pub write_idle: Duration,
}

impl Limits {
    /// The shortest of them.
    pub(super) fn shortest(&self) -> Duration {
        self.head.min(self.keep_alive).min(self.write_idle)
    }
}

/// How long somebody who has just connected may take to ask for something while the process drains.
const LATE_GUEST: Duration = Duration::from_secs(1);

/// How long a client whose request was answered before all of it was read may go on sending it.
pub(super) const LINGER: Duration = Duration::from_secs(1);

/// How long nothing is said between two requests before actix lets go of what it holds for the connection.
const WAKEFUL: Duration = Duration::from_secs(1);

/// What may come behind a request while that is being answered, in bytes, before no more is read.
const AHEAD_AT_MOST: usize = 32 << 10;

/// How far what follows the head of a request is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Body {
    /// Somebody waits for more of it.
    Awaited,
    /// A part of it is being passed on, and there may be more that was read.
    Passed,
    /// There is none, or no more.
    Over,
    /// Nobody takes the rest of it, however much that is.
    Left,
}

/// What it means that a client says no more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Silence {
    /// Not known yet: actix would forget what it has read and nobody has taken.
    Early,
    /// It is gone, and what it asked for is for nobody.
    Gone,
    /// It only says no more.
    Heard,
}

/// Why a connection is to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Over {
    /// The head of a request did not become whole.
    Head,
    /// Nobody asks for anything any more.
    Idle,
    /// The client takes nothing of what it asked for.
    Write,
    /// It was told that there is no more for it, or sends what nobody takes, and does not hang up.
    Left,
}

/// Whether actix holds what it needs for a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wakefulness {
    /// It does.
    Awake,
    /// It is to let go of that.
    Drowsy,
    /// It does not.
    Asleep,
}

/// One connection. It belongs to one thread.
#[derive(Debug)]
pub struct Pulse {
    /// Requests that are being answered.
    exchanges: Cell<u32>,
    /// Whether there has been one.
    met: Cell<bool>,
    /// Something was read that is not part of a request yet.
    heard: Cell<bool>,
    /// The client has to take something before more can be written.
    blocked: Cell<bool>,
    /// What is written next is an answer of ours.
    owes: Cell<bool>,
    /// The end of the connection has been explained.
    refused: Cell<bool>,
    /// Changes with each of these: what has the same turn for long has not moved.
    turn: Cell<u32>,
    /// What follows the head of a request.
    body: Cell<Body>,
    /// The body of the next request that begins passes together with its head.
    body_comes: Cell<bool>,
    /// That of the last request that has begun did.
    body_came: Cell<bool>,
    /// Which request that is.
    request: Cell<u32>,
    /// How its end is told.
    framing: Cell<Framing>,
    /// What comes next may be the rest of a body that nobody takes: it is not the beginning of a head.
    rest: Cell<bool>,
    /// An answer says that there is no other.
    said_last: Cell<bool>,
    /// The client has said its last, or is gone.
    hung_up: Cell<bool>,
    /// Nothing but the end of the connection tells where the answer ends.
    ends_answer: Cell<bool>,
    /// The next request is here, and waits for the answer.
    has_next: Cell<bool>,
    wakefulness: Cell<Wakefulness>,
    /// The client has said its last, and actix has not been told.
    end_waits: Cell<bool>,
    /// What came during an exchange and belongs to none of its bodies, in bytes; nothing once one ends or a body is wanted.
    ahead: Cell<usize>,
    over: Cell<Option<Over>>,
    waker: RefCell<Option<Waker>>,
    /// The turn that was seen last, and since when.
    seen: Cell<(u32, Instant)>,
    /// Its place among the connections of the thread.
    pub(super) place: Cell<usize>,
}

impl Pulse {
    pub(super) fn begun(at: Instant) -> Self {
        Self {
            exchanges: Cell::new(0),
            met: Cell::new(false),
            heard: Cell::new(false),
            blocked: Cell::new(false),
            owes: Cell::new(false),
            refused: Cell::new(false),
            turn: Cell::new(0),
            body: Cell::new(Body::Over),
            body_comes: Cell::new(false),
            body_came: Cell::new(false),
            request: Cell::new(0),
            framing: Cell::new(Framing::None),
            rest: Cell::new(false),
            said_last: Cell::new(false),
            hung_up: Cell::new(false),
            ends_answer: Cell::new(false),
            has_next: Cell::new(false),
            wakefulness: Cell::new(Wakefulness::Awake),
            end_waits: Cell::new(false),
            ahead: Cell::new(0),
            over: Cell::new(None),
            waker: RefCell::default(),
            seen: Cell::new((0, at)),
            place: Cell::new(0),
        }
    }

    fn moved(&self) {
        self.turn.set(self.turn.get().wrapping_add(1));
    }

    /// The client sent so many bytes.
    pub(super) fn heard(&self, bytes: usize) {
        if self.exchanges.get() > 0 {
            if matches!(self.body.get(), Body::Over | Body::Left) {
                self.ahead.set(self.ahead.get() + bytes);
            }
        } else if !self.rest.get() && !self.heard.replace(true) && self.met.get() {
            self.moved();
        }
    }

    /// Whether the client has sent more behind a request that is being answered than anybody needs: actix would keep
    /// whole heads of it, sixteen of them.
    pub(super) fn is_far_ahead(&self) -> bool {
        self.ahead.get() >= AHEAD_AT_MOST
    }

    /// What the client sends is wanted again.
    fn catches_up(&self) {
        if self.ahead.replace(0) >= AHEAD_AT_MOST {
            self.wake();
        }
    }

    /// The client took something, if it was asked to.
    pub(super) fn wrote(&self) {
        if self.blocked.replace(false) {
            self.moved();
        }
    }

    /// The client has to take something first.
    pub(super) fn blocked(&self) {
        if !self.blocked.replace(true) {
            self.moved();
        }
    }

    /// How far the body of the request is, or what a tunnel's client says.
    pub(super) fn body_is(&self, body: Body) {
        self.body.set(body);
        if matches!(body, Body::Awaited | Body::Passed) {
            self.catches_up();
        }
        if body != Body::Passed && self.end_waits.replace(false) {
            self.wake();
        }
    }

    /// Nothing more comes of the client.
    pub(super) fn hangs_up(&self) {
        self.hung_up.set(true);
    }

    /// The client has said its last.
    pub(super) fn silence(&self) -> Silence {
        match self.body.get() {
            Body::Passed => {
                self.end_waits.set(true);
                Silence::Early
            }
            // As nginx reads it: an end in the midst of an exchange is a departure.
            Body::Over | Body::Left if self.exchanges.get() > 0 => Silence::Gone,
            // Whoever waits for more is told that there is no more: a body broke off, or one side of a tunnel is done.
            Body::Awaited | Body::Over | Body::Left => Silence::Heard,
        }
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Whether what is written now belongs to an answer of ours.
    pub(super) fn owes(&self) -> bool {
        self.owes.get()
    }

    /// All that was there to be written is written.
    pub(super) fn flushed(&self) {
        let is_answered = self.exchanges.get() == 0;
        self.owes.set(!is_answered);
        if is_answered && self.has_next.replace(false) {
            self.wake();
        }
    }

    /// A head passes, and its whole body together with it or not.
    pub(super) fn passes_head(&self, with_body: bool) {
        self.body_comes.set(with_body);
    }

    /// How many requests have begun.
    pub(super) fn requests(&self) -> u32 {
        self.request.get()
    }

    /// How the end of the last request that has begun is told.
    pub(super) fn framing(&self) -> Framing {
        self.framing.get()
    }

    /// Whether all answers have gone out, and none of them was the last.
    pub(super) fn awaits_request(&self) -> bool {
        self.exchanges.get() == 0 && !self.owes.get() && !self.blocked.get() && !self.said_last.get()
    }

    /// The next request is here, and whoever is parked is to be woken when it is awaited.
    pub(super) fn has_next(&self) {
        self.has_next.set(true);
    }

    /// An answer says that it is the last on the connection.
    pub(super) fn says_last(&self) {
        self.said_last.set(true);
    }

    /// Whether an answer has said that there is no other.
    pub(super) fn has_said_last(&self) -> bool {
        self.said_last.get()
    }

    /// Nothing but the end of the connection will tell where the answer ends that is about to be written (RFC 9112 section 6.3).
    pub(super) fn ends_answer_with_connection(&self) {
        self.ends_answer.set(true);
    }

    /// Whether the end of the connection ends the answer on it.
    pub(super) fn ends_answer(&self) -> bool {
        self.ends_answer.get()
    }

    /// The end of the connection is explained now; whether it has not been before.
    pub(super) fn refuse(&self) -> bool {
        !self.refused.replace(true)
    }

    /// Whom to wake when the connection is to end.
    pub(super) fn park(&self, context: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            *waker = Some(context.waker().clone());
        }
    }

    /// Why it is to end, if it is.
    pub(super) fn over(&self) -> Option<Over> {
        self.over.get()
    }

    /// It lives on: what the end would have been for has come after all.
    pub(super) fn lives_on(&self) {
        self.over.set(None);
    }

    /// Whether actix can let go of what it holds for the connection, and is to; then that is taken for done.
    pub(super) fn falls_asleep(&self) -> bool {
        if self.wakefulness.get() != Wakefulness::Drowsy {
            return false;
        }
        let is_idle = self.is_idle() && !self.owes.get() && self.over.get().is_none();
        self.wakefulness.set(if is_idle { Wakefulness::Asleep } else { Wakefulness::Awake });
        is_idle
    }

    /// The client says something: actix is needed again.
    pub(super) fn wakes_up(&self) {
        self.wakefulness.set(Wakefulness::Awake);
    }

    /// Whether nothing is under way between two requests.
    fn is_idle(&self) -> bool {
        let is_under_way = self.exchanges.get() > 0 || self.heard.get() || self.rest.get() || self.blocked.get();
        self.met.get() && !is_under_way && !self.said_last.get()
    }

    /// Looks at the connection, and ends it when its time is over.
    pub(super) fn sweep(&self, limits: &Limits, drains: bool, now: Instant) {
        if let Some(over) = self.judge(limits, drains, now) {
            self.over.set(Some(over));
            self.wake();
        } else if self.wakefulness.get() == Wakefulness::Awake && self.is_idle() {
            let (_, since) = self.seen.get();
            if now.duration_since(since) >= WAKEFUL {
                self.wakefulness.set(Wakefulness::Drowsy);
                self.wake();
            }
        }
    }

    /// What moved since the last look moved now: a limit is never cut short.
    fn judge(&self, limits: &Limits, drains: bool, now: Instant) -> Option<Over> {
        let (turn, since) = self.seen.get();
        let since = if turn == self.turn.get() { since } else { now };
        self.seen.set((self.turn.get(), since));
        let is_met = self.met.get();
        let (limit, over) = match (self.blocked.get(), self.exchanges.get()) {
            (true, _) => (limits.write_idle, Over::Write),
            (false, 1..) => return None,
            (false, 0) if self.has_said_last() => (LINGER, Over::Left),
            (false, 0) if drains && self.rest.get() => (LINGER, Over::Left),
            (false, 0) if self.rest.get() => (limits.keep_alive, Over::Left),
            (false, 0) if self.heard.get() => (limits.head, Over::Head),
            (false, 0) if drains => (if is_met { Duration::ZERO } else { LATE_GUEST.min(limits.head) }, Over::Idle),
            (false, 0) => (if is_met { limits.keep_alive } else { limits.head }, Over::Idle),
        };
        (now.duration_since(since) >= limit).then_some(over)
    }
}

/// A request that is being answered, until its answer was handed over or nobody waits for it.
#[derive(Debug)]
pub struct Exchange(Rc<Pulse>);

impl Exchange {
    /// A request begins on the connection. Nobody has taken any of the body behind its head, if there is one.
    #[must_use]
    pub fn begin(on: &Rc<Pulse>, framing: Framing) -> Self {
        on.exchanges.set(on.exchanges.get() + 1);
        on.request.set(on.request.get().wrapping_add(1));
        on.framing.set(framing);
        on.body_came.set(on.body_comes.replace(false) && framing != Framing::None);
        on.body_is(if framing == Framing::None { Body::Over } else { Body::Left });
        on.met.set(true);
        on.heard.set(false);
        on.rest.set(false);
        on.owes.set(true);
        on.moved();
        Self(on.clone())
    }

    /// Whether the client has said its last, or is gone.
    #[must_use]
    pub fn has_hung_up(&self) -> bool {
        self.0.hung_up.get()
    }

    /// The end of the connection is counted now; whether it has not been before.
    #[must_use]
    pub fn refuse(&self) -> bool {
        self.0.refuse()
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let Self(pulse) = self;
        pulse.exchanges.set(pulse.exchanges.get() - 1);
        pulse.rest.set(pulse.body.get() != Body::Over);
        pulse.moved();
        pulse.catches_up();
    }
}

/// Tells how far the body of one request is, or what a tunnel's client says. Once the next request has begun on the
/// connection nobody listens: a body may be on its way upstream when its answer has long been read.
#[derive(Debug)]
pub struct Ticket {
    pulse: Rc<Pulse>,
    request: u32,
}

impl Ticket {
    /// For the request that has just begun on the connection.
    #[must_use]
    pub fn of(pulse: Rc<Pulse>) -> Self {
        Self { request: pulse.request.get(), pulse }
    }

    /// Whether all of the body has come together with its head: actix hands it over as soon as whoever answers the request has
    /// been polled for the first time, and then polls again without being asked.
    #[must_use]
    pub fn body_is_at_hand(&self) -> bool {
        self.pulse.request.get() == self.request && self.pulse.body_came.get()
    }

    /// How far the body is now.
    pub fn body_is(&self, body: Body) {
        if self.pulse.request.get() == self.request {
            self.pulse.body_is(body);
        }
    }

    /// The connection.
    #[must_use]
    pub fn pulse(&self) -> &Rc<Pulse> {
        &self.pulse
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.pulse.body.get() != Body::Over {
            self.body_is(Body::Left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counting_waker::Rings;

    const LIMITS: Limits = Limits {
        head: Duration::from_secs(10),
        keep_alive: Duration::from_secs(75),
        write_idle: Duration::from_secs(60),
    };

    /// What may happen between two looks.
    #[derive(Clone, Copy, Debug)]
    enum Event {
        Hears,
        Begins,
        Ends,
        Blocks,
        Writes,
        BeginsBody,
        Takes,
        SaysLast,
    }
    use Event::{Begins, BeginsBody, Blocks, Ends, Hears, SaysLast, Takes, Writes};

    /// That a connection with this history, each event in the second of its number, is over by a look at that second, and
    /// not by one before. There is a look at the end of each second.
    fn check(history: &[(u64, Event)], drains_from: u64, expected: Option<(u64, Over)>) {
        let start = Instant::now();
        let pulse = Rc::new(Pulse::begun(start));
        let mut exchanges = Vec::new();
        for second in 0..400 {
            for (_, event) in history.iter().filter(|(at, _)| *at == second) {
                match event {
                    Hears => pulse.heard(1),
                    Begins => exchanges.push(Exchange::begin(&pulse, Framing::None)),
                    BeginsBody => exchanges.push(Exchange::begin(&pulse, Framing::Chunked)),
                    Takes => Ticket::of(pulse.clone()).body_is(Body::Over),
                    SaysLast => pulse.says_last(),
                    Ends => drop(exchanges.pop()),
                    Blocks => pulse.blocked(),
                    Writes => pulse.wrote(),
                }
            }
            pulse.sweep(&LIMITS, second >= drains_from, start + Duration::from_secs(second + 1));
            if let Some(over) = pulse.over() {
                assert_eq!(Some((second + 1, over)), expected, "{history:?}");
                return;
            }
        }
        assert_eq!(None, expected, "{history:?}");
    }

    const NEVER: u64 = u64::MAX;

    #[test]
    fn each_phase_has_its_limit() {
        // Nobody says anything, or says half of it: the first head is due from the beginning.
        check(&[], NEVER, Some((10, Over::Idle)));
        check(&[(0, Hears)], NEVER, Some((10, Over::Head)));
        check(&[(9, Hears)], NEVER, Some((10, Over::Head)));
        // A request may take its time, and so may what comes of it.
        check(&[(0, Hears), (1, Begins)], NEVER, None);
        check(&[(1, Begins), (50, Hears)], NEVER, None);
        // Afterwards it is idle, and every further head is due from its first byte, however it trickles.
        check(&[(1, Begins), (100, Ends)], NEVER, Some((101 + 75, Over::Idle)));
        check(&[(1, Begins), (2, Ends), (70, Hears), (75, Hears), (79, Hears)], NEVER, Some((81, Over::Head)));
        check(&[(1, Begins), (2, Ends), (70, Hears), (71, Begins), (72, Ends)], NEVER, Some((73 + 75, Over::Idle)));
        // Of two requests one remains.
        check(&[(1, Begins), (1, Begins), (2, Ends)], NEVER, None);
    }

    #[test]
    fn a_write_may_be_slow_but_not_stand_still() {
        check(&[(1, Begins), (2, Blocks)], NEVER, Some((63, Over::Write)));
        check(&[(1, Begins), (2, Blocks), (3, Blocks)], NEVER, Some((63, Over::Write)));
        check(&[(1, Begins), (2, Blocks), (50, Writes), (50, Blocks)], NEVER, Some((111, Over::Write)));
        check(&[(1, Begins), (2, Blocks), (50, Writes)], NEVER, None);
        // What is left to be written of an answer that is over.
        check(&[(1, Begins), (2, Blocks), (2, Ends)], NEVER, Some((63, Over::Write)));
        check(&[(1, Begins), (2, Blocks), (2, Ends), (9, Writes)], NEVER, Some((10 + 75, Over::Idle)));
    }

    #[test]
    fn who_sends_more_than_is_wanted_waits() {
        let pulse = Rc::new(Pulse::begun(Instant::now()));
        pulse.heard(AHEAD_AT_MOST);
        assert!(!pulse.is_far_ahead(), "it is a head, or many");
        let first = Exchange::begin(&pulse, Framing::None);
        pulse.heard(AHEAD_AT_MOST - 1);
        assert!(!pulse.is_far_ahead());
        pulse.heard(1);
        assert!(pulse.is_far_ahead());
        let ticket = Ticket::of(pulse.clone());
        ticket.body_is(Body::Awaited);
        assert!(!pulse.is_far_ahead(), "it is a body");
        pulse.heard(AHEAD_AT_MOST);
        ticket.body_is(Body::Over);
        assert!(!pulse.is_far_ahead(), "it was a body");
        pulse.heard(AHEAD_AT_MOST);
        let second = Exchange::begin(&pulse, Framing::None);
        drop(first);
        assert!(!pulse.is_far_ahead(), "one more may be decoded");
        pulse.heard(AHEAD_AT_MOST);
        assert!(pulse.is_far_ahead());
        drop(second);
        assert!(!pulse.is_far_ahead());
    }

    #[test]
    fn a_last_word_is_told_when_all_before_it_was_taken() {
        let pulse = Rc::new(Pulse::begun(Instant::now()));
        assert_eq!(pulse.silence(), Silence::Heard, "nothing was asked");
        let exchange = Exchange::begin(&pulse, Framing::Chunked);
        assert_eq!(pulse.silence(), Silence::Gone, "it is no more there for the answer");
        let ticket = Ticket::of(pulse.clone());
        for (body, silence) in [
            (Body::Passed, Silence::Early),
            (Body::Awaited, Silence::Heard),
            (Body::Left, Silence::Gone),
            (Body::Over, Silence::Gone),
        ] {
            ticket.body_is(body);
            assert_eq!(pulse.silence(), silence, "{body:?}");
        }
        drop(exchange);
        assert_eq!(pulse.silence(), Silence::Heard);
    }

    #[test]
    fn a_request_that_begins_is_not_what_became_of_the_body_before_it() {
        let (rings, waker) = Rings::counted();
        let pulse = Rc::new(Pulse::begun(Instant::now()));
        pulse.park(&Context::from_waker(&waker));
        let first = Exchange::begin(&pulse, Framing::Chunked);
        let ticket = Ticket::of(pulse.clone());
        ticket.body_is(Body::Passed);
        assert_eq!(pulse.silence(), Silence::Early);
        drop(first);
        assert_eq!(rings.take(), 0);

        let second = Exchange::begin(&pulse, Framing::None);

        assert_eq!(rings.take(), 1, "what the silence means can be told now");
        assert_eq!(pulse.silence(), Silence::Gone);
        drop((ticket, second));
        assert!(!pulse.rest.get(), "there is no rest of a body");
    }

    #[test]
    fn a_body_tells_of_itself_and_of_no_other() {
        let pulse = Rc::new(Pulse::begun(Instant::now()));
        let first = Exchange::begin(&pulse, Framing::Chunked);
        let of_first = Ticket::of(pulse.clone());
        of_first.body_is(Body::Passed);
        drop(first);
        let _second = Exchange::begin(&pulse, Framing::Chunked);
        let of_second = Ticket::of(pulse.clone());
        of_second.body_is(Body::Awaited);
        for body in [Body::Over, Body::Left, Body::Passed] {
            of_first.body_is(body);
            assert_eq!(pulse.body.get(), Body::Awaited);
        }
        drop(of_first);
        assert_eq!(pulse.body.get(), Body::Awaited);
        drop(of_second);
        assert_eq!(pulse.body.get(), Body::Left);
    }

    #[test]
    fn the_rest_of_a_body_is_no_head() {
        // Nobody took it, or not to its end: what comes later may be more of it, however long that goes on.
        check(&[(1, BeginsBody), (2, Ends), (3, Hears)], NEVER, Some((3 + 75, Over::Left)));
        check(&[(1, BeginsBody), (2, Ends), (3, Hears), (70, Hears)], NEVER, Some((3 + 75, Over::Left)));
        check(&[(1, BeginsBody), (2, Ends), (3, Hears)], 20, Some((21, Over::Left)));
        // The next request, and what comes behind it.
        check(&[(1, BeginsBody), (2, Ends), (3, Begins), (4, Ends), (5, Hears)], NEVER, Some((16, Over::Head)));
        check(&[(1, BeginsBody), (2, Takes), (2, Ends), (3, Hears)], NEVER, Some((14, Over::Head)));
    }

    #[test]
    fn behind_the_last_answer_comes_nothing() {
        check(&[(1, Begins), (2, SaysLast)], NEVER, None);
        check(&[(1, Begins), (2, SaysLast), (3, Ends)], NEVER, Some((5, Over::Left)));
        check(&[(1, Begins), (2, Ends), (2, SaysLast), (2, Hears)], NEVER, Some((4, Over::Left)));
        check(&[(1, Begins), (2, Ends), (2, SaysLast), (2, Blocks)], NEVER, Some((63, Over::Write)));
    }

    #[test]
    fn the_next_request_waits_until_the_answer_has_gone_out() {
        let pulse = Rc::new(Pulse::begun(Instant::now()));
        assert!(pulse.awaits_request());
        let exchange = Exchange::begin(&pulse, Framing::None);
        pulse.flushed();
        assert!(!pulse.awaits_request(), "there is more of it");
        drop(exchange);
        assert!(!pulse.awaits_request(), "it is not written");
        pulse.blocked();
        assert!(!pulse.awaits_request());
        pulse.wrote();
        pulse.flushed();
        assert!(pulse.awaits_request());
        pulse.says_last();
        assert!(!pulse.awaits_request());
    }

    #[test]
    fn who_says_nothing_for_a_while_costs_nothing_but_the_connection() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let pulse = Rc::new(Pulse::begun(start));
        let look = |seconds| {
            pulse.sweep(&LIMITS, false, after(seconds));
            pulse.falls_asleep()
        };
        assert!(!look(5), "it has asked for nothing yet");
        let exchange = Exchange::begin(&pulse, Framing::None);
        assert!(!look(6) && !look(9), "it waits for an answer");
        drop(exchange);
        pulse.flushed();
        assert!(!look(10), "only since the last look");
        assert!(look(11));
        assert!(!look(12), "once is enough");
        pulse.wakes_up();
        pulse.heard(1);
        assert!(!look(13) && !look(15), "it is about to ask for something");
        drop(Exchange::begin(&pulse, Framing::None));
        pulse.flushed();
        assert!(!look(16));
        pulse.sweep(&LIMITS, false, after(18));
        pulse.heard(1);
        assert!(!pulse.falls_asleep(), "something has come meanwhile");
        drop(Exchange::begin(&pulse, Framing::None));
        pulse.flushed();
        assert!(!look(20));
        assert!(look(22), "and again");
    }

    #[test]
    fn who_has_nothing_to_say_is_let_go_when_the_process_drains() {
        check(&[(0, Begins), (1, Ends)], 20, Some((21, Over::Idle)));
        check(&[(0, Begins), (30, Ends)], 20, Some((31, Over::Idle)));
        check(&[(0, Begins)], 20, None);
        // Its request is on its way.
        check(&[(0, Begins), (1, Ends), (19, Hears)], 20, Some((30, Over::Head)));
        // It has only just come.
        check(&[], 0, Some((1, Over::Idle)));
    }
}
