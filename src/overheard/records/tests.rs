//! Answers that are hostile, odd, or as a real server writes them.

use super::super::objects::MOST_MEMBERS;
use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

const ALICE: &str = "ge45wmpse3g8umtziei4q749th";
const BOB: &str = "bmy1yknxyfgx7cepfy89umapbw";

fn seen(id: &str, stamp: i64) -> UserSeen {
    UserSeen { user: ObjectId::parse(id.as_bytes()).expect("an id"), stamp }
}

/// A full record with `more` members written at its end.
fn user(id: &str, more: &str) -> String {
    format!(r#"{{"id":"{id}","username":"alice","roles":"system_user","update_at":1,"delete_at":0{more}}}"#)
}

fn check(record: &str, expected: Result<i64, Unreadable>) {
    let expected = expected.map(|stamp| seen(ALICE, stamp));
    assert_eq!(one_record(record.as_bytes()), expected, "{record}");
    // What holds for a record alone holds for it in an array and in a named array, and voids its neighbours.
    let of_two = expected.map(|record| vec![record, seen(BOB, 0)]);
    let two = format!("[{record},{}]", user(BOB, ""));
    assert_eq!(list(two.as_bytes()), of_two, "{two}");
    for answer in [format!(r#"{{"users":{two}}}"#), format!(r#"{{"users":[],"agents":null,"out_of_channel":{two}}}"#)] {
        assert_eq!(autocomplete(answer.as_bytes()), of_two, "{answer}");
    }
}

#[test]
fn stamps_are_whole_numbers_or_absent() {
    let stamp = |written: &str| user(ALICE, &format!(r#","last_picture_update":{written}"#));
    check(&user(ALICE, ""), Ok(0));
    for (written, value) in [
        ("0", 0),
        ("1795433849817", 1_795_433_849_817),
        ("-1795433849817", -1_795_433_849_817),
        ("9223372036854775807", i64::MAX),
        ("-9223372036854775808", i64::MIN),
    ] {
        check(&stamp(written), Ok(value));
    }
    for written in [
        "9223372036854775808",
        "-9223372036854775809",
        "99999999999999999999999999",
        "1.0",
        "1e3",
        "-0",
        "null",
        "true",
        r#""1""#,
        "[1]",
        "{}",
    ] {
        check(&stamp(written), Err(Unreadable::NotARecord));
    }
    for written in ["01", "+1", "NaN", "0x1", "", "1.", "-"] {
        check(&stamp(written), Err(Unreadable::NotJson));
    }
}

#[test]
fn ids_are_ids() {
    for id in ["", "me", "GE45WMPSE3G8UMTZIEI4Q749TH", "ge45wmpse3g8umtziei4q749thx", "ge45wmpse3g8umtziei4q749t\u{fc}"]
    {
        check(&user(id, ""), Err(Unreadable::NotARecord));
    }
    check(&user(ALICE, "").replace("\"ge45", "\"\\u0067e45"), Ok(0));
    for id in ["1", "null", "[]", r#"{"id":"ge45wmpse3g8umtziei4q749th"}"#] {
        check(&user("X", "").replace("\"X\"", id), Err(Unreadable::NotARecord));
    }
}

#[test]
fn half_a_record_is_none() {
    check("{}", Err(Unreadable::NotARecord));
    check(&user(ALICE, "").replace(&format!(r#""id":"{ALICE}","#), ""), Err(Unreadable::NotARecord));
    check(&format!(r#"{{"id":"{ALICE}"}}"#), Err(Unreadable::NotARecord));
    check(&format!(r#"{{"user_id":"{ALICE}","status":"online"}}"#), Err(Unreadable::NotARecord));
    for lost in ["username", "roles", "update_at", "delete_at"] {
        check(&user(ALICE, "").replace(lost, "x"), Err(Unreadable::NotARecord));
    }
    check(&user(ALICE, "").replace(r#""alice""#, "1"), Err(Unreadable::NotARecord));
    check(&user(ALICE, "").replace(r#""update_at":1"#, r#""update_at":"1""#), Err(Unreadable::NotARecord));
    for not_an_object in ["null", "1", "\"x\"", "[]", "true"] {
        check(not_an_object, Err(Unreadable::NotARecord));
    }
}

#[test]
fn a_key_that_comes_twice_voids_the_answer_however_it_is_spelt() {
    for again in [
        r#","id":"bmy1yknxyfgx7cepfy89umapbw""#,
        r#","\u0069d":"ge45wmpse3g8umtziei4q749th""#,
        r#","last_picture_update":1,"last_picture_update":1"#,
        r#","last_picture_update":1,"last\u005fpicture_update":2"#,
        r#","username":"b""#,
        r#","props":{},"props":{}"#,
        r#","x":1,"\u0078":1"#,
    ] {
        check(&user(ALICE, again), Err(Unreadable::DuplicateKey));
    }
    // Deeper down nothing is looked at.
    check(&user(ALICE, r#","props":{"id":1,"id":2}"#), Ok(0));
    let users = format!("[{}]", user(ALICE, ""));
    for root in [
        format!(r#"{{"users":{users},"users":[]}}"#),
        format!(r#"{{"users":[],"\u0075sers":{users}}}"#),
        format!(r#"{{"users":{users},"x":1,"x":2}}"#),
    ] {
        assert_eq!(autocomplete(root.as_bytes()), Err(Unreadable::DuplicateKey), "{root}");
    }
}

/// Issue 5: user-like objects inside `props`, names and `agents`.
#[test]
fn only_direct_elements_count() {
    let bob = user(BOB, r#","last_picture_update":9"#);
    let quoted = serde_json::to_string(&bob).expect("a string");
    check(&user(ALICE, &format!(r#","props":{bob},"timezone":[{bob}],"nickname":{quoted},"":{bob}"#)), Ok(0));
    let alice = user(ALICE, "");
    let answer =
        format!(r#"{{"agents":[{bob}],"users":[{alice}],"in_channel":[{bob}],"Users":[{bob}],"id":{quoted}}}"#);
    assert_eq!(autocomplete(answer.as_bytes()), Ok(vec![seen(ALICE, 0)]));
    for nested in
        [format!("[[{bob}]]"), format!(r#"[{{"user":{bob}}}]"#), format!(r#"{{"users":[{bob}]}}"#), bob.clone()]
    {
        assert_eq!(list(nested.as_bytes()), Err(Unreadable::NotARecord), "{nested}");
    }
    for other in [format!("[{bob}]"), format!(r#"{{"user":{bob}}}"#)] {
        assert_eq!(one_record(other.as_bytes()), Err(Unreadable::NotARecord), "{other}");
        assert!(autocomplete(other.as_bytes()).map_or(true, |users| users.is_empty()), "{other}");
    }
    assert_eq!(autocomplete(format!(r#"{{"users":{bob}}}"#).as_bytes()), Err(Unreadable::NotARecord));
}

#[test]
fn an_answer_is_one_json_text() {
    let alice = user(ALICE, "");
    check(&format!(" \t\r\n{alice}\n"), Ok(0));
    assert_eq!(list(b"[]\n"), Ok(vec![]));
    assert_eq!(list(b"null"), Ok(vec![]));
    assert_eq!(autocomplete(br#"{"users":null}"#), Ok(vec![]));
    for text in [
        String::new(),
        format!("{alice}{alice}"),
        format!("{alice}]"),
        format!("{alice}\0"),
        format!("\u{feff}{alice}"),
        format!("{},}}", alice.trim_end_matches('}')),
        alice.replace("alice", "al\nice"),
        alice.replace("alice", "\\ud800"),
    ] {
        assert_eq!(one_record(text.as_bytes()), Err(Unreadable::NotJson), "{text:?}");
    }
    for end in 0..alice.len() {
        assert_eq!(one_record(&alice.as_bytes()[..end]), Err(Unreadable::NotJson), "cut at {end}");
    }
    let mut not_utf8 = alice.into_bytes();
    not_utf8[8] = 0xff;
    assert!(one_record(&not_utf8).is_err());
}

/// Issue 5: a user object of 10 MB, depth 10,000.
#[test]
fn size_and_depth_cost_nothing() {
    let long = "x".repeat(10_000_000);
    check(&user(ALICE, &format!(r#","position":"{long}""#)), Ok(0));
    check(&user(ALICE, &format!(r#","{long}":0"#)), Ok(0));
    let (open, close) = ("[".repeat(10_000), "]".repeat(10_000));
    check(&user(ALICE, &format!(r#","props":{open}{close}"#)), Ok(0));
    check(&user(ALICE, &format!(r#","props":{open}"#)), Err(Unreadable::NotJson));
    let (open, close) = (r#"{"a":"#.repeat(10_000), "}".repeat(10_000));
    check(&user(ALICE, &format!(r#","props":{open}1{close}"#)), Ok(0));
    assert_eq!(list("[".repeat(10_000).as_bytes()), Err(Unreadable::NotARecord));
    let many = |members: usize| user(ALICE, &(5..members).map(|n| format!(r#","{n}":0"#)).collect::<Vec<_>>().concat());
    check(&many(MOST_MEMBERS), Ok(0));
    check(&many(MOST_MEMBERS + 1), Err(Unreadable::TooManyMembers));
}

#[test]
fn an_answer_holds_so_many_users_and_no_more() {
    let of = |count: usize| vec![user(ALICE, ""); count].join(",");
    assert_eq!(list(format!("[{}]", of(MOST_USERS)).as_bytes()).map(|users| users.len()), Ok(MOST_USERS));
    assert_eq!(list(format!("[{}]", of(MOST_USERS + 1)).as_bytes()), Err(Unreadable::TooManyUsers));
    let split = format!(r#"{{"users":[{}],"out_of_channel":[{}]}}"#, of(6_000), of(6_000));
    assert_eq!(autocomplete(split.as_bytes()), Err(Unreadable::TooManyUsers));
}

/// JSON in which full records stand anywhere, under any key.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::from),
        "[a-z]{0,6}".prop_map(Value::from),
        (0_u32..50, any::<i64>()).prop_map(|(n, stamp)| json!({
            "id": format!("{n:026}"), "username": "u", "roles": "", "update_at": 1, "delete_at": 0,
            "last_picture_update": stamp,
        })),
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        let key = prop_oneof![Just("users"), Just("out_of_channel"), Just("agents"), Just("id"), Just("props")];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::hash_map(key.prop_map(str::to_owned), inner, 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// What the rules say of a value that is wholly parsed: the slow and plain way.
fn plainly(value: &Value) -> Option<UserSeen> {
    let whole = |name: &str| value.get(name).is_some_and(Value::is_i64);
    let text = |name: &str| value.get(name).is_some_and(Value::is_string);
    let is_full = text("username") && text("roles") && whole("update_at") && whole("delete_at");
    is_full.then(|| seen(value["id"].as_str().expect("an id"), value["last_picture_update"].as_i64().expect("a stamp")))
}

proptest! {
    #[test]
    fn nobody_is_seen_but_in_a_direct_element(value in any_json()) {
        let text = value.to_string();
        prop_assert_eq!(one_record(text.as_bytes()).ok(), plainly(&value));
        let each = |users: &Vec<Value>| users.iter().map(plainly).collect::<Option<Vec<_>>>();
        let all = |array: &Value| array.as_array().and_then(each);
        let expected = if value.is_null() { Some(vec![]) } else { all(&value) };
        prop_assert_eq!(list(text.as_bytes()).ok(), expected);
        if let Ok(users) = autocomplete(text.as_bytes()) {
            let arrays = ["users", "out_of_channel"].into_iter().filter_map(|name| value.get(name));
            let named: Vec<_> = arrays.filter_map(all).flatten().collect();
            prop_assert!(users.len() == named.len() && users.iter().all(|user| named.contains(user)));
        }
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100), cut in 0_usize..200) {
        let mut record = user(ALICE, "").into_bytes();
        record.truncate(cut);
        record.extend(&bytes);
        for json in [&bytes, &record] {
            let _ = (one_record(json), list(json), autocomplete(json));
        }
    }
}
