//! The stand-in held to the truth: every exchange in `tests/recordings/` is sent to it over a raw socket, in the order
//! in which a real Mattermost was asked, and its answers are compared with what that server answered.

mod stand_in_support;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use std::time::Duration;

use avatar_proxy::demo::{Channel, Emoji, Options, Portrait, Resident, Role, Session, StandIn, Team};
use bytes::Bytes;
use serde_json::Value;
use stand_in_support::{Response, Wire, bodies, exchange, recording_body};

/// Fields of JSON whose values are not compared, each with the reason. The keys must still be there.
const VALUES_NOT_COMPARED: [(&str, &str); 11] = [
    ("request_id", "random"),
    ("create_at", "the time of the recording"),
    ("update_at", "the time of the recording"),
    ("delete_at", "the time of the recording"),
    ("last_password_update", "the time of the recording"),
    ("last_picture_update", "a stamp: bound by its Etag where a picture is asked for"),
    ("last_team_icon_update", "a stamp, as above"),
    ("nickname", "changed by hand between recordings"),
    ("invite_id", "a secret that no client of pictures needs; empty here"),
    ("connection_id", "random"),
    ("server_time", "the time of the recording"),
];

/// Headers whose values are not compared, each with the reason. The name must still be there, spelled the same.
const HEADERS_NOT_COMPARED: [(&str, &str); 4] = [
    ("Date", "the time of the recording"),
    ("X-Request-Id", "random"),
    ("Last-Modified", "the time of the recording"),
    ("Token", "random"),
];

/// Pictures whose pixels are not compared: the upload behind them is not among the recordings, so another one is sent.
const OTHER_PIXELS: [&str; 5] =
    ["upload-webp-after", "upload-1x1-after", "upload-alpha-after", "team-image-after", "team-image-after-delete"];

const ALICE: &str = "ge45wmpse3g8umtziei4q749th";
const ALICES_STAMP: i64 = 1_795_433_849_817;

/// The people of the recordings, with the pictures they had.
const PEOPLE: [(&str, &str, Role, i64, &str); 24] = [
    ("mmadmin", "jetgyty9w3gc5e9k8cikb4qbna", Role::Admin, 0, ""),
    ("alice", ALICE, Role::Member, ALICES_STAMP, "aff3afc7ac2d3691.png"),
    ("bob", "bmy1yknxyfgx7cepfy89umapbw", Role::Member, 1_795_432_966_659, "0043c13d71a3b96e.png"),
    ("carol", "s4zjtkfs9bdhfqjb7bfr88dpje", Role::Member, 1_795_432_966_679, "ff9917b1c64088c9.png"),
    ("dave", "6kthdp9d3igt88noa6pwtx9edw", Role::Member, 1_795_432_966_706, "f3a0ee25548c6920.png"),
    ("erin", "csjn5fu3piycdetrwnco1r499w", Role::Member, 1_795_433_904_411, "354f3b4e37d8d78e.png"),
    ("frank", "j4wbi4m3gjytfjeipzru7gsura", Role::Member, 0, ""),
    ("grace", "rmpxah3wm3r1tx986jcsoayk5c", Role::Member, 0, ""),
    ("heidi", "iuo8pcrg7jnsdqr11ig38b5cho", Role::Member, -1_795_434_279_639, ""),
    ("judy", "pbua7przktnf9jn3ijwobdzfhw", Role::Member, 1_795_432_968_851, "b4f95009c2e60c2e.png"),
    ("peggy", "dwmgr699pigo8qrpxd3ayhuxzo", Role::Member, 1_795_434_219_065, "354c1c92eff86339.png"),
    ("oscar", "b6n1g8j7cf8cpf11kfassrrqto", Role::Member, 1_795_434_219_101, "cfe995bded6f8d2d.png"),
    ("ivan", "dzy5z4irftyzug8a87zzx3q37w", Role::Member, 1_795_432_966_489, "fd96d1efb77459f6.png"),
    ("mallory", "p5armm5wz7no8ykyxwgt5irz8o", Role::Outsider, 1_795_434_219_204, "378614cd2112bcab.png"),
    ("gus", "5bdw6h8kppni5c9jqhoa8x68gc", Role::Guest, 1_795_432_968_946, "cfe995bded6f8d2d.png"),
    ("painter", "ya6qpdmo4bgmjk8zg4ytsisecy", Role::Bot, 1_795_433_646_373, "ce8a53eacc7b5e7f.png"),
    ("robo", "1n5yw5dzhtfc5mnzc7ig6u1wxe", Role::Bot, 0, ""),
    ("system-bot", "m6fbf4t1tidnu8beumu1pixteh", Role::Bot, 0, ""),
    ("newbie433327", "onajid7in7bstr8fsctex499tw", Role::Member, 0, "undrawn"),
    ("newbie433391", "79wmoy6hx3y59qfpjm9zstoqaw", Role::Member, 0, "undrawn"),
    ("newbie433611", "odtb69ixd3rdfx1fjqq7imugmw", Role::Member, 0, "undrawn"),
    ("newbie433679", "9y1gkmora7813gdf3mq7apemmo", Role::Member, 0, "undrawn"),
    ("newbie434375", "byhs88p55prpdg5y8u1ffphhyh", Role::Member, 0, "undrawn"),
    ("newbie434304", "4o3iztns6jrcpjjz1edni1xbpo", Role::Member, 0, "undrawn"),
];

const ALPHA: &str = "q8p1oodd6pfqfcwppcxe33x6ma";
const BETA: &str = "1kku7wk9zi839jx37wfbxatf4r";
const NOOK: &str = "4dzj75amcbf6id4s916ho4ohje";
const TOWN_SQUARE: &str = "bcu9ixzxt3n8brma7othpiqd5y";
const GUS: &str = "5bdw6h8kppni5c9jqhoa8x68gc";

fn town() -> Options {
    let resident = |(name, id, role, stamp, picture): (&str, &str, Role, i64, &str)| {
        let portrait = match picture {
            "" => Portrait::Default,
            "undrawn" => Portrait::Undrawn,
            file => Portrait::Png(recording_body(file)),
        };
        let teams = match (name, role) {
            ("oscar", _) => vec![BETA.to_owned()],
            ("mmadmin", _) => vec![ALPHA.to_owned(), BETA.to_owned()],
            (_, Role::Outsider | Role::Bot) => Vec::new(),
            (name, _) if name.starts_with("newbie") => Vec::new(),
            _ => vec![ALPHA.to_owned()],
        };
        Resident {
            id: id.to_owned(),
            stamp,
            first_name: match name {
                "painter" => "Painter".to_owned(),
                "robo" => "Robo".to_owned(),
                "system-bot" => "System".to_owned(),
                _ => String::new(),
            },
            teams: Some(teams),
            deactivated: name == "ivan",
            ..Resident::new(name, role, portrait)
        }
    };
    let alpha = Team {
        id: ALPHA.to_owned(),
        icon: Some((recording_body("8360306edce1ceee.png"), 1_795_434_303_151)),
        town_square: TOWN_SQUARE.to_owned(),
        ..Team::new("alpha")
    };
    let members = [ALICE, GUS].map(str::to_owned).to_vec();
    let nook = Channel { id: NOOK.to_owned(), members, ..Channel::new("nook", &alpha) };
    let beta = Team { id: BETA.to_owned(), open: false, ..Team::new("beta") };
    let emoji = |id: &str, name, file, content_type| Emoji {
        id: id.to_owned(),
        ..Emoji::new(name, recording_body(file), content_type)
    };
    Options {
        residents: PEOPLE.into_iter().map(resident).collect(),
        teams: vec![alpha, beta],
        channels: vec![nook],
        emoji: vec![
            emoji("1wa16kqpipyzdyzxerkpuycy6e", "stillpic", "d10b6dda83cc3eec.png", "image/png"),
            emoji("orfc81ucm7bpbx5ndqsefpwosr", "movepic", "1562e988cf655edd.gif", "image/gif"),
            emoji("q5ojku6ga3gkdbykbewa7d198e", "bigpic", "0416a79540f8bac6.png", "image/png"),
        ],
        site_url: Some("http://127.0.0.1:8065".to_owned()),
        ..Options::empty()
    }
}

/// One recorded file.
struct Recording {
    name: String,
    kind: String,
    json: Value,
}

fn recordings() -> Vec<Recording> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
    let mut files: Vec<_> = fs::read_dir(folder)
        .expect("the recordings are in the repository")
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    files.sort();
    let read = |path| {
        let text = fs::read_to_string(path).expect("a readable recording");
        let json: Value = serde_json::from_str(&text).expect("a recording is JSON");
        let word = |field: &str| json[field].as_str().expect("a recording has a name and a kind").to_owned();
        Recording { name: word("name"), kind: word("kind"), json }
    };
    files.into_iter().map(read).collect()
}

/// The stand-in and what ties its answers to the recorded ones: sessions for placeholders, our stamps and ids for
/// theirs.
struct Stage {
    stand_in: StandIn,
    sessions: BTreeMap<String, Session>,
    stamps: HashMap<String, String>,
    ids: HashMap<String, String>,
}

impl Stage {
    fn new(options: Options) -> Self {
        let stand_in = StandIn::start(options).expect("the stand-in starts");
        Self { stand_in, sessions: BTreeMap::new(), stamps: HashMap::new(), ids: HashMap::new() }
    }

    /// What somebody did between the recordings.
    fn set_scene(&mut self, name: &str) {
        self.end_what_was_ended(name);
        let stand_in = &self.stand_in;
        let cat = || recording_body("aff3afc7ac2d3691.png");
        match name {
            "image-file-lost" => stand_in.lose_file("alice"),
            "image-bot-default" => {
                stand_in.show("alice", cat());
                stand_in.set_stamp("alice", ALICES_STAMP);
            }
            "restricted-same-team" | "see-role-other-team-users-ids" => {
                self.patch_role(&stand_in_support::without_view_members());
            }
            "restricted-undone" | "see-ordinary-users-ids" => self.patch_role(&stand_in_support::with_view_members()),
            "restricted-after-join" => stand_in.join_team("oscar", ALPHA),
            "restricted-after-leave" => stand_in.leave_team("oscar", ALPHA),
            "guest-after-leave-channel" => stand_in.leave_channel("gus", NOOK),
            "guest-after-join-channel" => stand_in.join_channel("gus", NOOK),
            "see-guest-users-ids" => {
                let path = format!("/api/v4/users/{}/roles", stand_in.id("heidi"));
                self.order("PUT", &path, r#"{"roles":"system_user system_user_access_token"}"#);
            }
            "rename2-before" | "session-before-logout" | "encoded-before" => {
                stand_in.show("alice", cat());
            }
            "patch-nickname" => stand_in.rename(ALICE, "alice"),
            _ => {}
        }
    }

    /// Sessions that had been ended when the next exchange was recorded, or that it ends.
    fn end_what_was_ended(&mut self, name: &str) {
        let user_path =
            |stage: &Self, user: &str, act: &str| format!("/api/v4/users/{}/{act}", stage.stand_in.id(user));
        match name {
            "old-token-after-logout" => {
                let token = self.session("FRANK_1").token;
                self.say(&token, "POST", "/api/v4/users/logout", "");
            }
            "old-token-after-revoke-all" => {
                self.session("FRANK_2");
                self.order("POST", &user_path(self, "frank", "sessions/revoke/all"), "");
            }
            "deactivated-own-token" => {
                self.session("GRACE");
                self.order("PUT", &user_path(self, "grace", "active"), r#"{"active":false}"#);
            }
            "session-before-logout" => self.order("PUT", &user_path(self, "grace", "active"), r#"{"active":true}"#),
            "session-revoke" => {
                let id = self.session("BOB_2").id();
                self.ids.insert("iy51fzfnqfg3mbr9cygmonmseo".to_owned(), id);
            }
            "pat-revoke" => {
                let id = self.session("HEIDI_2").id();
                self.ids.insert("ah7yw5p1tb8ibgqqbjj5o7s5aa".to_owned(), id);
            }
            _ => {}
        }
    }

    /// An administrator's doing.
    fn order(&self, method: &str, path: &str, json: &str) {
        self.say(&self.stand_in.token("mmadmin"), method, path, json);
    }

    fn say(&self, token: &str, method: &str, path: &str, json: &str) {
        let wire = Wire::act(token, method, path, Some(("application/json", json.as_bytes().to_vec())));
        let answer = exchange(self.stand_in.address(), &wire).expect("an answer");
        assert_eq!(answer.status, 200, "{method} {path} {json}");
    }

    /// Patches the role `system_user`.
    fn patch_role(&self, patch: &str) {
        self.order("PUT", &format!("/api/v4/roles/{}/patch", self.role_id()), patch);
    }

    /// The id of the role `system_user`.
    fn role_id(&self) -> String {
        let by_name = Wire::act(&self.stand_in.token("mmadmin"), "GET", "/api/v4/roles/name/system_user", None);
        let role = exchange(self.stand_in.address(), &by_name).expect("a role");
        let role: Value = serde_json::from_slice(&role.body).expect("JSON");
        role["id"].as_str().expect("an id").to_owned()
    }

    /// The session behind a placeholder's name.
    fn session(&mut self, key: &str) -> Session {
        let user = key.split('_').next().unwrap_or_default().to_lowercase();
        let stand_in = &self.stand_in;
        self.sessions.entry(key.to_owned()).or_insert_with(|| stand_in.sign_in(&user)).clone()
    }

    /// Tokens for `TOKEN_BOB`, `CSRF_BOB_1`, `PAT_HEIDI`; our stamps and ids for the recorded ones.
    fn translate(&mut self, text: &str) -> String {
        let mut translated = text.to_owned();
        for prefix in ["TOKEN_", "CSRF_", "PAT_"] {
            while let Some(start) = translated.find(prefix) {
                let rest = &translated[start + prefix.len()..];
                let length =
                    rest.find(|letter: char| !letter.is_ascii_uppercase() && !letter.is_ascii_digit() && letter != '_');
                let key = rest[..length.unwrap_or(rest.len())].to_owned();
                let session = self.session(&key);
                let value = if prefix == "CSRF_" { session.csrf } else { session.token };
                translated.replace_range(start..start + prefix.len() + key.len(), &value);
            }
        }
        for (recorded, ours) in self.stamps.iter().chain(&self.ids) {
            translated = translated.replace(recorded, ours);
        }
        translated
    }

    /// Sends a recorded request and compares the answer.
    fn replay(&mut self, recording: &Recording) -> Result<(), String> {
        self.set_scene(&recording.name);
        let request = &recording.json["request"];
        let mut body = bodies::of(&recording.name, request);
        if request.get("json").is_some() {
            let text = |bytes| String::from_utf8(bytes).expect("JSON is text");
            body = body.map(|bytes| self.translate(&text(bytes)).into_bytes());
        }
        let mut wire = Wire::new(request, body);
        wire.translate(|text| self.translate(text));
        let answer = exchange(self.stand_in.address(), &wire)?;
        let recorded = Response::recorded(&recording.json["response"]);
        self.compare(&recording.name, &recorded, &answer)
    }

    fn compare(&mut self, name: &str, recorded: &Response, ours: &Response) -> Result<(), String> {
        differ("status", &recorded.status, &ours.status)?;
        differ("reason", &recorded.reason, &ours.reason)?;
        self.compare_headers(recorded, ours)?;
        differ("framing", &recorded.framing, &ours.framing)?;
        if let Some(json) = &recorded.json {
            let text = String::from_utf8_lossy(&ours.body);
            let parsed = serde_json::from_str(&text).map_err(|error| format!("no JSON ({error}): {text}"))?;
            compare_json("", json, &parsed)?;
            for pointer in ["/id", "/file_infos/0/id"] {
                if let (Some(Value::String(theirs)), Some(Value::String(ours))) =
                    (json.pointer(pointer), parsed.pointer(pointer))
                    && (name == "emoji-create" || name == "file-post-multipart")
                {
                    self.ids.insert(theirs.clone(), ours.clone());
                }
            }
        }
        if let Some(text) = &recorded.text {
            differ("text", &without_request_id(text), &without_request_id(&String::from_utf8_lossy(&ours.body)))?;
        }
        if let Some(picture) = &recorded.picture {
            let exact = !OTHER_PIXELS.contains(&name);
            compare_pictures(picture, &ours.body, exact)?;
        }
        Ok(())
    }

    fn compare_headers(&mut self, recorded: &Response, ours: &Response) -> Result<(), String> {
        // A 101 is written by hand in Go and has no Date; actix spells this one name otherwise.
        let upgraded = recorded.status == 101;
        let names = |response: &Response| {
            let mut names: Vec<String> = response.headers.iter().map(|(name, _)| name.clone()).collect();
            names.retain(|name| !(upgraded && name == "Date"));
            // actix ends a connection that asked for an upgrade it did not get.
            names.retain(|name| !(name == "Connection" && !upgraded && recorded.values("Connection").is_empty()));
            names.iter_mut().filter(|_| upgraded).for_each(|name| *name = name.to_lowercase());
            names.sort();
            names
        };
        differ("header names", &names(recorded), &names(ours))?;
        for (name, value) in &recorded.headers {
            let found: Vec<&str> = ours.values(name);
            let index =
                recorded.headers.iter().filter(|(other, _)| other == name).position(|(_, other)| other == value);
            let our_value = found.get(index.unwrap_or_default()).copied().unwrap_or_default();
            match name.as_str() {
                // A list's ends with what only its server knows: the times of its settings, a hash of whom it tells of.
                "Etag" if value.contains(".0x") => {
                    differ("list Etag", &value.split('.').count(), &our_value.split('.').count())?;
                }
                "Etag" if value.starts_with("11.6.0.") => {
                    differ("record Etag", &without_time(value), &without_time(our_value))?;
                }
                "Etag" => self.bind_stamp(value, our_value)?,
                // Its fifth part is a hash of the configuration, which the recordings of large uploads changed.
                "X-Version-Id" => {
                    differ("version", &without_time(value), &without_time(our_value))?;
                }
                "Set-Cookie" => {
                    differ("Set-Cookie", &cookie_shape(value), &cookie_shape(our_value))?;
                }
                // Follows from the body, which is compared; without one it is all there is.
                "Content-Length" if recorded.framing != "none" => {}
                name if HEADERS_NOT_COMPARED.iter().any(|(skipped, _)| *skipped == name) => {}
                name => differ(name, &value.as_str(), &our_value)?,
            }
        }
        Ok(())
    }

    /// The same recorded stamp is always the same of ours, another is another; zero is zero, the sign stays.
    fn bind_stamp(&mut self, recorded: &str, ours: &str) -> Result<(), String> {
        let sign = |stamp: &str| stamp.parse::<i64>().map(i64::signum).map_err(|_| format!("no stamp: {stamp:?}"));
        differ("sign of the stamp", &sign(recorded)?, &sign(ours)?)?;
        if recorded == "0" {
            return Ok(());
        }
        let known = self.stamps.get(recorded).cloned();
        if let Some(known) = known {
            return differ("stamp", &known.as_str(), &ours);
        }
        if self.stamps.values().any(|other| other == ours) {
            return Err(format!("the stamp did not move: {ours} stands for another than {recorded}"));
        }
        self.stamps.insert(recorded.to_owned(), ours.to_owned());
        Ok(())
    }
}

fn differ<T: PartialEq + std::fmt::Debug>(what: &str, recorded: &T, ours: &T) -> Result<(), String> {
    if recorded == ours { Ok(()) } else { Err(format!("{what}: recorded {recorded:?}, ours {ours:?}")) }
}

fn without_time(etag: &str) -> String {
    let part = |(place, part): (usize, &str)| {
        if place == 4 { "time".to_owned() } else { part.to_owned() }
    };
    etag.split('.').enumerate().map(part).collect::<Vec<_>>().join(".")
}

fn without_request_id(text: &str) -> String {
    match text.split_once("\"request_id\":\"") {
        Some((before, rest)) => format!("{before}{}", rest.get(26..).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Name and attributes, with the values that differ by session and day left out.
fn cookie_shape(cookie: &str) -> Vec<String> {
    let blank = |part: &str| match part.trim().split_once('=') {
        Some((name @ ("MMAUTHTOKEN" | "MMCSRF"), value)) => {
            format!("{name}={}", if value.is_empty() { "" } else { "…" })
        }
        Some((name @ "Expires", _)) => name.to_owned(),
        _ => part.trim().to_owned(),
    };
    cookie.split(';').map(blank).collect()
}

fn compare_json(at: &str, recorded: &Value, ours: &Value) -> Result<(), String> {
    match (recorded, ours) {
        (Value::Object(recorded), Value::Object(ours)) => {
            let keys = |object: &serde_json::Map<String, Value>| object.keys().cloned().collect::<Vec<_>>();
            differ(&format!("keys of {at}"), &keys(recorded), &keys(ours))?;
            for (key, value) in recorded {
                let something_new = at.contains("file_infos") || ours.contains_key("creator_id");
                let id_of_something_new = key == "id" && something_new;
                if !id_of_something_new && VALUES_NOT_COMPARED.iter().all(|(skipped, _)| skipped != key) {
                    compare_json(&format!("{at}/{key}"), value, &ours[key])?;
                }
            }
            Ok(())
        }
        (Value::Array(recorded), Value::Array(ours)) => {
            differ(&format!("length of {at}"), &recorded.len(), &ours.len())?;
            recorded.iter().zip(ours).try_for_each(|(recorded, ours)| compare_json(at, recorded, ours))
        }
        _ => differ(at, recorded, ours),
    }
}

fn compare_pictures(recorded: &Bytes, ours: &[u8], exact: bool) -> Result<(), String> {
    let decode = |bytes: &[u8]| image::load_from_memory(bytes).map_err(|error| format!("not a picture: {error}"));
    let format = |bytes: &[u8]| image::guess_format(bytes).ok();
    differ("picture format", &format(recorded), &format(ours))?;
    let (recorded, ours) = (decode(recorded)?, decode(ours)?);
    let facts = |picture: &image::DynamicImage| (picture.width(), picture.height(), picture.color());
    // What a default picture of a bot is drawn with is its own.
    differ("picture", &facts(&recorded), &facts(&ours))?;
    let is_bot = recorded.width() == 256;
    let (recorded, ours) = (recorded.to_rgba8(), ours.to_rgba8());
    let sum: u64 =
        recorded.as_raw().iter().zip(ours.as_raw()).map(|(one, other)| u64::from(one.abs_diff(*other))).sum();
    let mean = sum / u64::try_from(recorded.as_raw().len()).expect("a small picture");
    if exact && !is_bot && mean > 1 { Err(format!("the pixels differ by {mean} on average")) } else { Ok(()) }
}

#[test]
fn the_stand_in_answers_as_recorded() {
    let mut stage = Stage::new(town());
    let recordings: Vec<Recording> = recordings()
        .into_iter()
        .filter(|recording| recording.kind == "http" && !recording.name.starts_with("upload-413"))
        .collect();
    let mut wrong = Vec::new();
    for recording in &recordings {
        if let Err(why) = stage.replay(recording) {
            wrong.push(format!("{}: {why}", recording.name));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), recordings.len(), wrong.join("\n"));
    assert!(recordings.len() >= 340, "only {} exchanges", recordings.len());
}

#[test]
fn large_uploads_are_refused_as_recorded() {
    let mut stage = Stage::new(Options { max_file_size: 20_000, ..town() });
    for recording in recordings().iter().filter(|recording| recording.name.starts_with("upload-413")) {
        stage.replay(recording).unwrap_or_else(|why| panic!("{}: {why}", recording.name));
    }
}

#[test]
fn websockets_open_and_speak_as_recorded() {
    let recordings: Vec<Recording> =
        recordings().into_iter().filter(|recording| recording.kind == "ws-handshake").collect();
    assert!(recordings.len() >= 12);
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let spoken: Vec<_> = recordings.iter().map(|recording| scope.spawn(|| converse(recording))).collect();
        spoken.into_iter().filter_map(|thread| thread.join().expect("no panic").err()).collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Opens one recorded socket, says what was said, and waits for what was heard.
fn converse(recording: &Recording) -> Result<(), String> {
    let name = &recording.name;
    let mut stage = Stage::new(town());
    let mut wire = Wire::new(&recording.json["request"], None);
    wire.translate(|text| stage.translate(text));
    let recorded = Response::recorded(&recording.json["response"]);
    let mut socket =
        stand_in_support::Socket::open(stage.stand_in.address(), &wire).map_err(|why| format!("{name}: {why}"))?;
    stage.compare(name, &recorded, &socket.response).map_err(|why| format!("{name}: {why}"))?;
    let frames = recording.json["frames"].as_array().cloned().unwrap_or_default();
    for frame in frames.iter().filter(|frame| frame["dir"] == "out") {
        let text = stage.translate(&frame["json"].to_string());
        socket.say(&frame["opcode"], &text)?;
    }
    // Presence is not imitated: nobody's picture depends on it.
    let expected: Vec<&Value> =
        frames.iter().filter(|frame| frame["dir"] == "in" && frame["json"]["event"] != "status_change").collect();
    let mut heard = Vec::new();
    for _ in &expected {
        heard.push(socket.hear(Duration::from_secs(10)).map_err(|why| format!("{name}: {why}, after {heard:?}"))?);
    }
    // A pong may overtake an answer.
    for expected in expected {
        let place = heard.iter().position(|frame| frame["opcode"] == expected["opcode"]);
        let frame = heard.remove(place.ok_or_else(|| format!("{name}: {heard:?}, not {expected}"))?);
        if expected["opcode"] == "close" {
            differ("close code", &expected["close_code"], &frame["close_code"])?;
        }
        if expected["opcode"] == "text" {
            let mut expected = expected["json"].clone();
            if let Some(host) = expected.pointer_mut("/data/server_hostname") {
                *host = "stand-in".into();
            }
            compare_json("", &expected, &frame["json"]).map_err(|why| format!("{name}: {why}"))?;
        }
    }
    Ok(())
}

/// A session of Gus that is older than his being a guest.
const OLDER: &str = "gus(session older than the guest role)";

#[test]
fn events_reach_whom_they_reached_in_the_recordings() {
    let stage = Stage::new(town());
    let roles = format!("/api/v4/users/{GUS}/roles");
    stage.order("PUT", &roles, r#"{"roles":"system_user"}"#);
    let mut tokens = HashMap::from([(OLDER, stage.stand_in.sign_in("gus").token)]);
    stage.order("PUT", &roles, r#"{"roles":"system_guest"}"#);
    let watchers = ["alice", "bob", "oscar", "gus", "mallory", "mmadmin", "grace", OLDER];
    for watcher in watchers.iter().filter(|watcher| **watcher != OLDER) {
        tokens.insert(watcher, stage.stand_in.sign_in(watcher).token);
    }
    let mut sockets: Vec<_> = watchers
        .iter()
        .map(|watcher| {
            let wire = Wire::websocket(&tokens[watcher]);
            let mut socket = stand_in_support::Socket::open(stage.stand_in.address(), &wire).expect("an upgrade");
            assert_eq!(socket.hear(Duration::from_secs(5)).expect("hello")["json"]["event"], "hello");
            socket
        })
        .collect();
    let by_name: HashMap<String, Recording> =
        recordings().into_iter().map(|recording| (recording.name.clone(), recording)).collect();
    for (event, actor, method, path, body) in bodies::acts(|user| stage.stand_in.id(user), ALPHA, &stage.role_id()) {
        let wire = Wire::act(&tokens[actor], method, &path, body);
        let answer = exchange(stage.stand_in.address(), &wire).expect("an answer");
        assert_eq!(answer.status, 200, "{event}");
        for (watcher, socket) in watchers.iter().zip(&mut sockets) {
            // Grace is watched only in the recordings that are about her; until then she hears what Bob does.
            let received = &by_name[event].json["received"];
            let frames = received.get(*watcher).unwrap_or(&received["bob"]).as_array().expect("a watcher");
            for expected in frames {
                let heard =
                    socket.hear(Duration::from_secs(5)).unwrap_or_else(|why| panic!("{event}, {watcher}: {why}"));
                compare_events(&expected["json"], &heard["json"])
                    .unwrap_or_else(|why| panic!("{event}, {watcher}: {why}"));
            }
        }
    }
    for (watcher, mut socket) in watchers.iter().zip(sockets) {
        let more = socket.hear(Duration::from_millis(50));
        assert!(more.is_err(), "{watcher} heard more: {more:?}");
    }
}

/// Events by name, whom they say they are for, keys of what they tell, and whom it is about. `seq` is the socket's own.
fn compare_events(recorded: &Value, ours: &Value) -> Result<(), String> {
    differ("event", &recorded["event"], &ours["event"])?;
    compare_json("broadcast", &recorded["broadcast"], &ours["broadcast"])?;
    for field in ["team", "emoji", "role"] {
        if let (Some(recorded), Some(ours)) = (recorded["data"][field].as_str(), ours["data"][field].as_str()) {
            let parse = |text: &str| serde_json::from_str::<Value>(text).map_err(|error| error.to_string());
            let keys = |value: Value| value.as_object().map(|object| object.keys().cloned().collect::<Vec<_>>());
            return differ(field, &keys(parse(recorded)?), &keys(parse(ours)?));
        }
    }
    let without_failures = |value: &Value| {
        let mut value = value.clone();
        // Counts somebody's wrong passwords of an earlier recording.
        value["user"].as_object_mut().map(|user| user.remove("failed_attempts"));
        value
    };
    compare_json("data", &without_failures(&recorded["data"]), &without_failures(&ours["data"]))
}
