//! Streams of frames: cut anywhere, hostile, or as recorded.

use super::*;
use proptest::prelude::*;

const ALICE: &str = "ge45wmpse3g8umtziei4q749th";
const ALPHA: &str = "q8p1oodd6pfqfcwppcxe33x6ma";
const PLENTY: usize = 8 << 20;

fn id(id: &str) -> ObjectId {
    ObjectId::parse(id.as_bytes()).expect("an id")
}

fn alice(stamp: i64) -> News {
    News::User(UserSeen { user: id(ALICE), stamp })
}

/// A frame from a server; `flags` is its first byte.
fn frame(flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![flags];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ ..126), _) => frame.push(length),
        (_, Ok(length)) => {
            frame.push(126);
            frame.extend(length.to_be_bytes());
        }
        _ => {
            frame.push(127);
            frame.extend(u64::try_from(payload.len()).expect("64 bits").to_be_bytes());
        }
    }
    frame.extend(payload);
    frame
}

fn text(message: &str) -> Vec<u8> {
    frame(0x81, message.as_bytes())
}

/// A message in three frames, a ping between them.
fn in_fragments(message: &str) -> Vec<u8> {
    let (first, rest) = message.split_at(message.len() / 3);
    let (second, third) = rest.split_at(7);
    [frame(1, first.as_bytes()), frame(0, second.as_bytes()), frame(0x89, b"?"), frame(0x80, third.as_bytes())].concat()
}

fn user_updated(stamp: i64, more: &str) -> String {
    let user = format!(r#"{{"id":"{ALICE}","last_picture_update":{stamp}{more}}}"#);
    format!(r#"{{"event": "user_updated", "data": {{"user":{user}}}, "broadcast": {{}}, "seq": 1}}"#)
}

fn update_team() -> String {
    format!(r#"{{"event": "update_team", "data": {{"team":"{{\"id\":\"{ALPHA}\"}}"}}, "broadcast": {{}}, "seq": 2}}"#)
}

/// A post whose text is a whole event, and another that looks like one from somewhere in the middle.
fn posted() -> String {
    let quoted = serde_json::to_string(&user_updated(666, "")).expect("a string");
    format!(r#"{{"event": "posted", "data": {{"message":{quoted},"event":"user_updated"}}, "seq": 3}}"#)
}

fn overheard_by(listener: &mut Listener, bytes: &[u8]) -> Vec<News> {
    let mut news = Vec::new();
    listener.hear(bytes, &mut |one| news.push(one));
    news
}

fn overheard(stream: &[u8], budget: usize) -> Vec<News> {
    let budget = Arc::new(ListenBudget::new(budget));
    overheard_by(&mut Listener::new(&budget), stream)
}

/// One of everything, and what it tells.
fn conversation() -> (Vec<u8>, Vec<News>) {
    let long = format!(r#","nickname":"{}""#, "x".repeat(70_000));
    let stream = [
        text(r#"{"event": "hello", "data": {"connection_id":"x"}, "seq": 0}"#),
        text(&user_updated(17, "")),
        frame(0x89, b"are you there"),
        text(&posted()),
        in_fragments(&posted()),
        in_fragments(&user_updated(-17, "")),
        frame(0x82, user_updated(3, "").as_bytes()),
        text(r#"{"event":"role_updated","data":{}}"#),
        in_fragments(r#"{"event": "user_removed", "data": {"x":1}}"#),
        text(&user_updated(4, &long)),
        text(r#"{"status":"OK","seq_reply":1}"#),
        text(&update_team()),
        text(&user_updated(5, r#","id":"again""#)),
        text(""),
        frame(0x88, &[3, 232]),
        text(&user_updated(6, "")),
    ];
    let news = vec![alice(17), alice(-17), News::Rights, News::Rights, alice(4), News::Team(id(ALPHA)), News::Unclear];
    (stream.concat(), news)
}

#[test]
fn only_events_of_the_table_are_told() {
    let (stream, news) = conversation();
    assert_eq!(overheard(&stream, PLENTY), news);
}

#[test]
fn a_stream_split_at_every_byte_tells_the_same() {
    let (stream, news) = conversation();
    let budget = Arc::new(ListenBudget::new(PLENTY));
    let mut listener = Listener::new(&budget);
    let told: Vec<_> = stream.chunks(1).flat_map(|byte| overheard_by(&mut listener, byte)).collect();
    assert_eq!(told, news);
    assert_eq!(budget.left(), PLENTY);
}

/// With nothing to collect it in, whatever is collected is told as unclear. So this was not.
#[test]
fn a_chat_message_is_not_even_collected() {
    let shouted =
        format!(r#"{{"event": "posted", "data": {{"message":"{}"}}}}"#, user_updated(1, "").replace('"', "\\\""));
    for message in [
        posted(),
        shouted,
        r#"{"event":"posted","event":"user_updated","data":{}}"#.to_owned(),
        format!(r#"{{"data":{{}},"event":"user_updated","data":{{"user":{{"id":"{ALICE}"}}}}}}"#),
        "user_updated".to_owned(),
        format!("\u{feff}{}", user_updated(1, "")),
    ] {
        assert_eq!(overheard(&text(&message), 0), [], "{message}");
        assert_eq!(overheard(&in_fragments(&format!("{message:16}")), 0), [], "{message}");
    }
    assert_eq!(overheard(&text(&user_updated(1, "")), 0), [News::Unclear]);
    assert_eq!(overheard(&text(&format!("{}{}", " ".repeat(100), user_updated(1, ""))), PLENTY), []);
}

#[test]
fn an_event_that_is_too_long_is_told_as_unclear_once() {
    let padded = |length: usize| {
        let bare = user_updated(1, r#","x":"""#).len();
        user_updated(1, &format!(r#","x":"{}""#, "y".repeat(length - bare)))
    };
    let after = text(&user_updated(2, ""));
    for (message, told) in [(padded(LONGEST_EVENT), alice(1)), (padded(LONGEST_EVENT + 1), News::Unclear)] {
        for stream in [text(&message), in_fragments(&message)] {
            assert_eq!(overheard(&[stream, after.clone()].concat(), PLENTY), [told, alice(2)]);
        }
    }
}

/// Issue 5: 64-bit lengths. What a head only announces costs nothing.
#[test]
fn an_announced_length_is_not_set_aside() {
    let budget = Arc::new(ListenBudget::new(PLENTY));
    for length in [1 << 20, 1 << 32, u64::MAX >> 1] {
        let mut listener = Listener::new(&budget);
        let begin = user_updated(1, "");
        let stream = [[0x81, 127].as_slice(), &length.to_be_bytes(), begin.as_bytes()].concat();
        let told = overheard_by(&mut listener, &stream);
        assert_eq!(told, if length > 1 << 20 { vec![News::Unclear] } else { vec![] });
        assert!(PLENTY - budget.left() <= 1 << 10);
        // The rest of it is skipped.
        assert_eq!(overheard_by(&mut listener, &vec![b'x'; 100_000]), []);
        assert!(PLENTY - budget.left() <= 1 << 17);
    }
    assert_eq!(budget.left(), PLENTY);
}

#[test]
fn all_listeners_share_one_budget() {
    let budget = Arc::new(ListenBudget::new(3 << 10));
    let event = text(&user_updated(1, ""));
    let (begin, rest) = event.split_at(100);
    let mut listeners: Vec<_> = (0..4).map(|_| Listener::new(&budget)).collect();
    let told: Vec<_> = listeners.iter_mut().map(|listener| overheard_by(listener, begin)).collect();
    assert_eq!(told, [vec![], vec![], vec![], vec![News::Unclear]]);
    assert_eq!(budget.left(), 0);
    let told: Vec<_> = listeners.iter_mut().map(|listener| overheard_by(listener, rest)).collect();
    assert_eq!(told, [vec![alice(1)], vec![alice(1)], vec![alice(1)], vec![]]);
    assert_eq!(budget.left(), 3 << 10);
    overheard_by(&mut listeners[0], begin);
    drop(listeners);
    assert_eq!(budget.left(), 3 << 10);
}

/// A tunnel that compresses after all, or speaks another protocol: not one word more.
#[test]
fn what_cannot_be_followed_is_left_alone() {
    let event = text(&user_updated(1, ""));
    let mut compressed = event.clone();
    compressed[0] |= 0x40;
    for wrong in [compressed, b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), frame(0x80, b"x")] {
        let stream = [event.as_slice(), &wrong, &event, &event].concat();
        assert_eq!(overheard(&stream, PLENTY), [alice(1)]);
    }
    let budget = Arc::new(ListenBudget::new(PLENTY));
    let mut listener = Listener::new(&budget);
    let half = frame(1, user_updated(1, "").as_bytes());
    assert_eq!(overheard_by(&mut listener, &half), []);
    assert!(budget.left() < PLENTY);
    assert_eq!(overheard_by(&mut listener, &event), []);
    assert_eq!(budget.left(), PLENTY, "nothing is held by a listener that hears no more");
}

#[test]
fn one_path_is_listened_to() {
    for (path, base, expected) in [
        ("/api/v4/websocket", "", true),
        ("/api/v4/websocket/", "", true),
        ("/mm/api/v4/websocket", "/mm", true),
        ("/mm/api/v4/websocket", "", false),
        ("/api/v4/websocket", "/mm", false),
        ("/api/v4/websocket//", "", false),
        ("/api/v4/web%73ocket", "", false),
        ("/api/v4/users/websocket", "", false),
        ("/plugins/x/api/v4/websocket", "", false),
        ("//api/v4/websocket", "", false),
        ("", "", false),
    ] {
        assert_eq!(is_event_socket(path, base), expected, "{path} below {base:?}");
    }
}

proptest! {
    #[test]
    fn any_split_tells_the_same(mut cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..40)) {
        let (stream, news) = conversation();
        cuts.sort_by_key(|cut| cut.index(stream.len()));
        let budget = Arc::new(ListenBudget::new(PLENTY));
        let mut listener = Listener::new(&budget);
        let (mut told, mut from) = (Vec::new(), 0);
        for to in cuts.iter().map(|cut| cut.index(stream.len())).chain([stream.len()]) {
            told.extend(overheard_by(&mut listener, &stream[from..to]));
            from = to;
        }
        prop_assert_eq!(told, news);
    }

    #[test]
    fn no_bytes_panic_or_stay(
        chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..20),
        flags in prop_oneof![Just(0x81_u8), Just(1), Just(0), Just(0x80), any::<u8>()],
    ) {
        let budget = Arc::new(ListenBudget::new(PLENTY));
        let mut listener = Listener::new(&budget);
        for chunk in &chunks {
            overheard_by(&mut listener, &frame(flags, chunk));
            overheard_by(&mut listener, chunk);
        }
        drop(listener);
        prop_assert_eq!(budget.left(), PLENTY);
    }

    /// Whatever somebody writes in a post, escaped as upstream escapes it, tells nothing.
    #[test]
    fn no_post_tells_anything(written in "(\\PC|[\"{}:,\\\\]|\\{\"event\": ?\"user_updated\"){0,40}") {
        let quoted = serde_json::to_string(&written).expect("a string");
        let post = format!(r#"{{"event": "posted", "data": {{"post":{quoted},"sender_name":{quoted}}}, "seq": 1}}"#);
        prop_assert_eq!(overheard(&text(&post), 0), []);
        // Nor in a name, but that it changed.
        let named = user_updated(9, &format!(r#","nickname":{quoted},"props":{{"x":{quoted}}}"#));
        prop_assert_eq!(overheard(&text(&named), PLENTY), [alice(9)]);
    }
}
