//! The room held to what a real server said: its answers, its events, and whom it refused.

use super::*;
use http::Method;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

/// Every recording here and among those that the stand-in is held to.
fn recordings() -> Vec<Value> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<_> = ["tests/recordings", "src/overheard/recordings"]
        .iter()
        .flat_map(|folder| std::fs::read_dir(root.join(folder)).expect("the recordings are in the repository"))
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    files.sort();
    let read = |path| serde_json::from_slice(&std::fs::read(path).expect("a readable file")).expect("JSON");
    files.iter().map(read).collect()
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn lesson(recording: &Value) -> Option<Lesson> {
    if recording["kind"] != "http" {
        return None;
    }
    let method = Method::from_bytes(text(recording, "/request/method").as_bytes()).expect("a method");
    let (path, query) =
        text(recording, "/request/path").split_once('?').unwrap_or((text(recording, "/request/path"), ""));
    Lesson::of(&method, path, query, "")
}

fn user(record: &Value) -> UserSeen {
    let stamp = record.get("last_picture_update").map_or(0, |stamp| stamp.as_i64().expect("a whole number"));
    UserSeen { user: ObjectId::parse(text(record, "/id").as_bytes()).expect("an id"), stamp }
}

/// The records directly in an answer of whatever learned shape.
fn records(answer: &Value) -> Vec<&Value> {
    match answer {
        Value::Array(users) => users.iter().collect(),
        Value::Object(members) if !members.contains_key("id") => {
            members.values().flat_map(|list| list.as_array().expect("only arrays were recorded")).collect()
        }
        record => vec![record],
    }
}

#[test]
fn every_recorded_answer_of_the_table_is_read_whole() {
    let mut learned = BTreeSet::new();
    for recording in &recordings() {
        let (Some(lesson), 200) = (lesson(recording), recording["response"]["status"].as_u64().unwrap_or(0)) else {
            continue;
        };
        let answer = &recording["response"]["json"];
        let expected: Vec<_> = records(answer).into_iter().map(user).collect();
        assert_eq!(lesson.read(format!("{answer}\n").as_bytes()), Ok(expected), "{}", recording["name"]);
        learned.insert(text(recording, "/request/path").split('?').next().expect("a path").to_owned());
    }
    for path in ["me", "ids", "usernames", "search", "autocomplete", "ge45wmpse3g8umtziei4q749th"] {
        assert!(learned.contains(&format!("/api/v4/users/{path}")), "{path} among {learned:?}");
    }
    assert!(learned.contains("/api/v4/users"));
}

/// `visibility`: whose picture each viewer was given, against whom each learned answer told them of.
#[test]
fn nobody_is_learned_whose_picture_was_refused() {
    let recordings = recordings();
    let visibility = recordings.iter().find(|recording| recording["name"] == "visibility").expect("it is there");
    // Nothing was refused to this one: the people whose pictures everybody was asked for.
    let people = &visibility["table"]["ordinary"]["GET image"];
    let mut compared = 0;
    for (viewer, row) in visibility["table"].as_object().expect("a table") {
        for recording in &recordings {
            let is_viewers = text(recording, "/name").starts_with(&format!("see-{viewer}-"));
            let Some(lesson) = lesson(recording).filter(|_| is_viewers && recording["response"]["status"] == 200)
            else {
                continue;
            };
            let answer = &recording["response"]["json"];
            let seen = lesson.read(answer.to_string().as_bytes()).expect("it is read whole");
            for (seen, record) in seen.iter().zip(records(answer)) {
                assert_eq!(*seen, user(record));
                if people.get(text(record, "/username")).is_none() {
                    continue;
                }
                assert_eq!(row["GET image"][text(record, "/username")], 200, "{viewer} was told of {record}");
                compared += 1;
            }
        }
    }
    assert!(compared > 100, "{compared}");
}

#[test]
fn what_tells_of_users_without_proving_anything_is_no_lesson() {
    let mut found = 0;
    for recording in &recordings() {
        let name = text(recording, "/name");
        if name.ends_with("users-in-channel") || name.ends_with("status-ids") || name.starts_with("login") {
            if recording["response"]["json"].get("id").is_none() || name == "login" {
                found += 1;
            }
            assert!(lesson(recording).is_none() || text(recording, "/request/path").ends_with("/users/me"), "{name}");
        }
    }
    assert!(found >= 6, "{found}");
}

/// A message as the server writes it, `event` first; the recording keeps no order.
fn message(event: &Value, blank: &str) -> String {
    let member = |name: &str| format!("\"{name}\":{blank}{}", event[name]);
    format!("{{{}}}", ["event", "data", "broadcast", "seq"].map(member).join(&format!(",{blank}")))
}

fn frame(message: &str) -> Vec<u8> {
    let length = u16::try_from(message.len()).expect("recorded events are short");
    let head = match u8::try_from(length) {
        Ok(length @ ..126) => vec![0x81, length],
        _ => [[0x81, 126].as_slice(), &length.to_be_bytes()].concat(),
    };
    [head, message.as_bytes().to_vec()].concat()
}

fn news(event: &Value) -> Option<News> {
    match text(event, "/event") {
        "user_updated" => Some(News::User(user(&event["data"]["user"]))),
        "update_team" => {
            let team: Value = serde_json::from_str(text(event, "/data/team")).expect("JSON in a string");
            Some(News::Team(ObjectId::parse(text(&team, "/id").as_bytes()).expect("an id")))
        }
        "role_updated" | "user_activation_status_change" => Some(News::Rights),
        _ => None,
    }
}

#[test]
fn every_recorded_event_is_heard() {
    let mut heard = 0;
    for recording in &recordings() {
        let watchers = recording["received"].as_object().into_iter().flat_map(|received| received.values());
        for frames in watchers.chain([&recording["frames"]]).filter_map(Value::as_array) {
            let events: Vec<_> = frames
                .iter()
                .filter(|frame| frame["dir"] == "in")
                .map(|frame| &frame["json"])
                .filter(|json| json.get("event").is_some())
                .collect();
            let expected: Vec<_> = events.iter().filter_map(|event| news(event)).collect();
            for blank in ["", " "] {
                let budget = Arc::new(ListenBudget::new(1 << 20));
                let mut listener = Listener::new(&budget);
                let stream: Vec<_> = events.iter().flat_map(|event| frame(&message(event, blank))).collect();
                let mut told = Vec::new();
                for chunk in stream.chunks(1000) {
                    listener.hear(chunk, &mut |news| told.push(news));
                }
                assert_eq!(told, expected, "{}", recording["name"]);
            }
            heard += expected.len();
        }
    }
    assert!(heard > 50, "{heard}");
}

#[test]
fn recorded_requests_end_what_they_ended() {
    const RIGHTS: [(&str, &str); 7] = [
        ("POST", "/sessions/revoke"),
        ("POST", "/sessions/revoke/all"),
        ("POST", "/tokens/revoke"),
        ("PUT", "/active"),
        ("PUT", "/roles"),
        ("PUT", "/patch"),
        ("DELETE", "/members/"),
    ];
    let mut endings = 0;
    for recording in recordings().iter().filter(|recording| recording["kind"] == "http") {
        let path = text(recording, "/request/path").split('?').next().expect("a path");
        let method = Method::from_bytes(text(recording, "/request/method").as_bytes()).expect("a method");
        let ending = Ending::of(&method, path, "", None);
        let of_rights = |(ends, tail): (&str, &str)| {
            let is_profile = path.contains("/users/") && tail == "/patch";
            method == ends && !is_profile && (path.ends_with(tail) || tail == "/members/" && path.contains(tail))
        };
        let rights = RIGHTS.into_iter().any(of_rights).then_some(Ending::Rights);
        let expected = if path.ends_with("/users/logout") { Some(Ending::Session) } else { rights };
        assert_eq!(ending, expected, "{method} {path}");
        endings += usize::from(ending.is_some());
    }
    assert!(endings >= 4, "{endings}");
}
