//! A day of channels opened, in little more than a minute.
//!
//! What belongs together takes its real time: the list, the moment until it is drawn, the pictures. What is left out is
//! the time between two openings, and grants must not gain from that: two of three openings come under credentials of
//! which nothing is remembered, as if `grants.ttl` had run out since the opening before; the third follows within
//! seconds. So many openings a second are some hundred times as many as the same people make, which is against the proxy:
//! what it learns from a list has to be read before the pictures are asked for.

use crate::changes::{self, PATHS};
use crate::dice::{Dice, Popularity};
use crate::site::{Answer, Credentials, ROOM, Site};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// How many clients are at it at once at the most, and how many pictures a browser asks for at once.
const AT_ONCE: usize = 64;
const CONNECTIONS: usize = 6;
/// From the list to the first request for a picture: state, layout. A browser rather takes longer.
const DRAWN_AFTER: Duration = Duration::from_millis(20);
/// Direct messages beside the channels, with faces.
const SIDEBAR: usize = 8;
/// How many people write on a screen of posts.
const FEWEST_AUTHORS: usize = 10;
const MOST_AUTHORS: usize = 40;
/// One client in so many keeps nothing from one opening to the next: a new device, a cleared cache, a private window.
const FORGETFUL: usize = 10;
/// One start in so many looks into the directory of members, all of a page.
const LOOKS_INTO_DIRECTORY: usize = 5;
const DIRECTORY: usize = 50;

/// How long a day is.
#[derive(Clone, Copy)]
pub(crate) struct Day {
    /// Channels that each person opens.
    pub(crate) openings: usize,
    /// How long all of them take.
    pub(crate) lasts: Duration,
    /// `WebSockets` through the proxy. Every client hears of changes: those of several people by one socket, which would
    /// all be told the same.
    pub(crate) sockets: usize,
    /// Pictures that change, by each path in turn. Whose does not depend on how much they write.
    pub(crate) changes: usize,
    /// Times that somebody leaves a channel, which ends every grant: each hits as many openings under way as some hundred
    /// do on a real day.
    pub(crate) departures: usize,
    /// One opening in so many names somebody who does not write in it: the client gets their record and shows no
    /// picture. 0: none does.
    pub(crate) mentions: usize,
}

/// What came of it.
pub(crate) struct Outcome {
    pub(crate) took: Duration,
    /// Pictures that clients asked for, and of how many people: each has to be fetched once.
    pub(crate) asked: u64,
    pub(crate) people: u64,
    /// Upstream's answers to picture requests: 200, 304, and 401, 403 or 404.
    pub(crate) bodies: u64,
    pub(crate) not_modified: u64,
    pub(crate) refusals: u64,
    /// User lists that clients asked for.
    pub(crate) lists: u64,
    /// Pictures shown on a grant.
    pub(crate) from_grants: u64,
    /// Why upstream was asked, first fetches aside.
    pub(crate) why: BTreeMap<Why, u64>,
}

/// Why upstream was asked for a picture that had been fetched before.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Why {
    /// The client knew the user from before; no list told of them within the time of a grant.
    NotListed,
    /// An event told the client of another picture, and it drew that at once.
    Event,
    /// A list had told the client of the user a moment ago.
    Listed,
    /// Upstream refused the picture.
    Refused,
}

/// One person's client.
struct Browser {
    person: usize,
    dice: Dice,
    is_forgetful: bool,
    /// How often all that was granted has run out.
    sitting: usize,
    /// The stamps of users whose records it has, and of the pictures that it keeps, which a browser does for a day.
    known: HashMap<usize, i64>,
    kept: HashMap<usize, i64>,
    /// Whom lists told of in this sitting.
    listed: HashSet<usize>,
    /// Who writes on the screen.
    screen: Vec<usize>,
}

/// A day while it is lived.
struct Running<'a> {
    site: &'a Site,
    day: Day,
    popularity: Popularity,
    numbers: HashMap<&'a str, usize>,
    browsers: Vec<RefCell<Browser>>,
    tally: RefCell<Tally>,
}

#[derive(Default)]
struct Tally {
    asked: u64,
    people: HashSet<usize>,
    why: BTreeMap<Why, u64>,
}

/// Lives through a day.
pub(crate) async fn live(site: &Site, day: Day) -> Outcome {
    let people = site.people.len();
    let running = Running {
        site,
        day,
        popularity: Popularity::among(people),
        numbers: site.people.iter().enumerate().map(|(number, resident)| (resident.id.as_str(), number)).collect(),
        browsers: (0..people).map(|person| RefCell::new(Browser::of(person))).collect(),
        tally: RefCell::default(),
    };
    let (tell, mut told) = mpsc::unbounded_channel();
    let everybody = (0..people).collect::<Vec<_>>();
    let groups = everybody.chunks(people.div_ceil(day.sockets)).collect::<Vec<_>>();
    for (socket, group) in groups.iter().enumerate() {
        let tell = tell.clone();
        let listener = group.iter().find(|person| !site.people[**person].is_guest).expect("not all are guests");
        site.listen(*listener, move |user, stamp| _ = tell.send((socket, user.to_owned(), stamp))).await;
    }
    let openings = day.openings * people;
    let (started, pace) = (Instant::now(), day.lasts / u32::try_from(openings).expect("few"));
    let in_time = stream::iter(0..openings).then(|number| async move {
        let due = pace * u32::try_from(number).expect("few");
        tokio::time::sleep(due.saturating_sub(started.elapsed())).await;
        number
    });
    let opening = in_time.for_each_concurrent(AT_ONCE, |number| running.open(number));
    let redrawing = async {
        while let Some((socket, user, stamp)) = told.recv().await {
            for person in groups[socket] {
                running.redraw(*person, running.numbers[user.as_str()], stamp).await;
            }
        }
    };
    tokio::select! {
        () = opening => {}
        () = redrawing => unreachable!("`tell` is still here"),
    }
    let took = started.elapsed();
    let (tally, counts) = (running.tally.into_inner(), site.town.count());
    Outcome {
        took,
        asked: tally.asked,
        people: tally.people.len() as u64,
        bodies: counts.pictures,
        not_modified: counts.not_modified,
        refusals: counts.picture_refusals,
        lists: counts.list_requests,
        from_grants: site.metric("avatar_proxy_pictures_shown_total{proof=\"grant\"}").await,
        why: tally.why,
    }
}

impl Running<'_> {
    /// Somebody opens a channel; each person in turn, in an order that has nothing to do with their channels.
    async fn open(&self, number: usize) {
        let people = self.browsers.len();
        self.happen(number).await;
        let person = number * 7 % people;
        let (caller, starts) = self.browsers[person].borrow_mut().sit_down(self.site);
        let mut faces = self.authors(person);
        self.browsers[person].borrow_mut().screen.clone_from(&faces);
        if starts {
            self.site.json(&caller, Method::GET, "/api/v4/users/me", "").await;
            let teams = format!("/api/v4/users/{}/teams", self.site.people[person].id);
            self.site.json(&caller, Method::GET, &teams, "").await;
            faces.extend(self.start(person, &caller).await);
        }
        self.ask_for_records(person, &caller, &faces).await;
        tokio::time::sleep(DRAWN_AFTER).await;
        self.show(person, &caller, &faces).await;
    }

    /// What else happens in the world, now and then.
    async fn happen(&self, number: usize) {
        let people = self.browsers.len();
        let is_due = |times: usize| times > 0 && number.is_multiple_of(self.day.openings * people / times);
        if is_due(self.day.changes) {
            let serial = number / (self.day.openings * people / self.day.changes);
            let path = PATHS[serial % PATHS.len()];
            let mut dice = Dice::seeded(number);
            let mut anybody = std::iter::repeat_with(|| dice.roll(people));
            let person = anybody.find(|person| changes::fits(path.0, *person)).expect("somebody fits");
            changes::apply(self.site, person, path, serial).await;
        }
        if is_due(self.day.departures) {
            let person = Dice::seeded(number).roll(people);
            let room = &self.site.rooms[person / ROOM];
            let path = format!("/api/v4/channels/{room}/members/{}", self.site.people[person].id);
            let caller = self.site.credentials(person, 0);
            self.site.ask(&caller, Method::DELETE, &path, ("", Bytes::new())).await;
        }
    }

    /// Who writes in the channel that is opened: mostly whom everybody hears of, and some of the own room. A guest is
    /// only in the room.
    fn authors(&self, person: usize) -> Vec<usize> {
        let people = self.browsers.len();
        let mut browser = self.browsers[person].borrow_mut();
        let is_guest = self.site.people[person].is_guest;
        let dice = &mut browser.dice;
        let wanted =
            dice.between(FEWEST_AUTHORS, MOST_AUTHORS.min(people / 2)).min(if is_guest { ROOM / 2 } else { ROOM });
        let mut authors = Vec::new();
        while authors.len() < wanted {
            let of_room = is_guest || dice.roll(4) == 0;
            let room = person / ROOM * ROOM;
            let author = if of_room { room + dice.roll(ROOM.min(people - room)) } else { self.popularity.draw(dice) };
            if !authors.contains(&author) {
                authors.push(author);
            }
        }
        authors
    }

    /// The sidebar, and perhaps a look into the directory: whom it shows beside the channel.
    async fn start(&self, person: usize, caller: &Credentials) -> Vec<usize> {
        let (mut faces, looks) = {
            let browser = &mut *self.browsers[person].borrow_mut();
            let room = person / ROOM * ROOM;
            let friends = ROOM.min(self.browsers.len() - room);
            let faces: Vec<usize> = (0..SIDEBAR).map(|_| room + browser.dice.roll(friends)).collect();
            (faces, browser.dice.roll(LOOKS_INTO_DIRECTORY) == 0)
        };
        if looks {
            let path = format!("/api/v4/users?in_team={}&page=0&per_page={DIRECTORY}", self.site.team);
            let listed = self.site.json(caller, Method::GET, &path, "").await;
            faces.extend(self.note(person, &listed));
        }
        faces
    }

    /// The records that a client does not have: of those it is about to show, and of who is named in a post.
    async fn ask_for_records(&self, person: usize, caller: &Credentials, faces: &[usize]) {
        let (unknown, mentioned) = {
            let browser = &mut *self.browsers[person].borrow_mut();
            let unknown: Vec<usize> = faces.iter().copied().filter(|face| !browser.known.contains_key(face)).collect();
            let mentions = self.day.mentions > 0 && browser.dice.roll(self.day.mentions) == 0;
            let mentioned = mentions.then(|| self.popularity.draw(&mut browser.dice));
            (unknown, mentioned.filter(|user| !browser.known.contains_key(user)))
        };
        if !unknown.is_empty() {
            let ids: Vec<&str> = unknown.iter().map(|face| self.site.people[*face].id.as_str()).collect();
            let listed = self.site.json(caller, Method::POST, "/api/v4/users/ids", &json!(ids).to_string()).await;
            self.note(person, &listed);
        }
        if let Some(user) = mentioned {
            let usernames = json!([self.site.people[user].username]).to_string();
            let listed = self.site.json(caller, Method::POST, "/api/v4/users/usernames", &usernames).await;
            self.note(person, &listed);
        }
    }

    /// Takes down what a list says.
    fn note(&self, person: usize, listed: &Value) -> Vec<usize> {
        let browser = &mut *self.browsers[person].borrow_mut();
        let records = listed.as_array().into_iter().flatten();
        let users = records.filter_map(|record| {
            let user = *self.numbers.get(record["id"].as_str()?)?;
            browser.known.insert(user, record["last_picture_update"].as_i64().unwrap_or(0));
            browser.listed.insert(user);
            Some(user)
        });
        users.collect()
    }

    /// Asks for the pictures that the client knows of and does not have.
    async fn show(&self, person: usize, caller: &Credentials, faces: &[usize]) {
        let missing: Vec<(usize, i64)> = {
            let browser = self.browsers[person].borrow();
            let mut seen = HashSet::new();
            let known = faces.iter().filter_map(|face| Some((*face, *browser.known.get(face)?)));
            known.filter(|(face, stamp)| browser.kept.get(face) != Some(stamp) && seen.insert(*face)).collect()
        };
        let asking = stream::iter(missing).for_each_concurrent(CONNECTIONS, |(face, stamp)| async move {
            let why = if self.browsers[person].borrow().listed.contains(&face) { Why::Listed } else { Why::NotListed };
            self.ask_for_picture(person, caller, face, stamp, why).await;
        });
        asking.await;
    }

    /// An event told the client of another picture of somebody who may be on its screen.
    async fn redraw(&self, person: usize, user: usize, stamp: i64) {
        let caller = {
            let browser = &mut *self.browsers[person].borrow_mut();
            if let Some(known) = browser.known.get_mut(&user) {
                *known = stamp;
            }
            if !browser.screen.contains(&user) || browser.kept.get(&user).is_none_or(|kept| *kept == stamp) {
                return;
            }
            // Mostly, the screen was drawn longer ago than a grant lasts.
            browser.let_grants_run_out();
            self.site.credentials(person, browser.sitting)
        };
        self.ask_for_picture(person, &caller, user, stamp, Why::Event).await;
    }

    async fn ask_for_picture(&self, person: usize, caller: &Credentials, face: usize, stamp: i64, why: Why) {
        let is_first = self.tally.borrow_mut().people.insert(face);
        let answer = self.site.picture(caller, face, &format!("?_={stamp}")).await;
        self.browsers[person].borrow_mut().kept.insert(face, stamp);
        let tally = &mut *self.tally.borrow_mut();
        tally.asked += 1;
        let why = if answer.status == StatusCode::OK { why } else { Why::Refused };
        if !is_first && !is_hit(&answer) {
            *tally.why.entry(why).or_default() += 1;
        }
    }
}

/// Whether upstream was not asked (RFC 9211).
fn is_hit(answer: &Answer) -> bool {
    answer.headers.get("cache-status").is_some_and(|status| status.as_bytes().starts_with(b"avatar-proxy; hit"))
}

impl Browser {
    fn of(person: usize) -> Self {
        Self {
            person,
            dice: Dice::seeded(person),
            is_forgetful: person.is_multiple_of(FORGETFUL),
            sitting: 0,
            known: HashMap::new(),
            kept: HashMap::new(),
            listed: HashSet::new(),
            screen: Vec::new(),
        }
    }

    /// Begins an opening: with what, and whether the client has to start from nothing.
    fn sit_down(&mut self, site: &Site) -> (Credentials, bool) {
        if self.dice.roll(3) > 0 {
            self.let_grants_run_out();
        }
        if self.is_forgetful {
            self.known.clear();
            self.kept.clear();
        }
        (site.credentials(self.person, self.sitting), self.known.is_empty())
    }

    fn let_grants_run_out(&mut self) {
        self.sitting += 1;
        self.listed.clear();
    }
}
