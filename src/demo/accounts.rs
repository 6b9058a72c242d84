//! Signing in, changing one's record, teams, health: what of the API has no file of its own.

use std::time::{Duration, SystemTime};

use actix_web::http::StatusCode;
use actix_web::http::header::HttpDate;
use actix_web::web;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::account::{Patch, Verdict};
use super::answers::Answer;
use super::credentials;
use super::json::{TeamRecord, UserRecord};
use super::pictures::no_such_team;
use super::server::{BodyError, Exchange, collect};
use super::sessions::Session;
use super::town::PASSWORD;

/// What a step found, or the answer that ends the request there.
type Answered<T = Answer> = Result<T, Answer>;

/// `MaximumPayloadSizeBytes` and what the server allows beside it.
const LONGEST_JSON: usize = 300_512;

/// The length of a web session on the recorded server: 180 days.
const SESSION: Duration = Duration::from_secs(15_552_000);

/// `getSystemPing`.
pub(super) fn ping(exchange: &Exchange) -> Answer {
    let mut record = json!({
        "ActiveSearchBackend": "database", "AndroidLatestVersion": "", "AndroidMinVersion": "",
        "IosLatestVersion": "", "IosMinVersion": "", "status": "OK",
    });
    if exchange.query.get("get_server_status") != Some("true") {
        return Answer::json(StatusCode::OK, &record);
    }
    record["database_status"] = json!("OK");
    record["filestore_status"] = json!("OK");
    Answer::json(StatusCode::OK, &record)
        .with("Database_status", "OK")
        .with("Filestore_status", "OK")
        .with("Status", "OK")
}

/// `getClientConfig`: the few settings that clients of pictures read.
pub(super) fn client_config(exchange: &Exchange) -> Answer {
    let options = &exchange.shared.options;
    let record = json!({
        "BuildNumber": "dev", "EnableCustomEmoji": "true", "EnableFile": "true", "HasImageProxy": "false",
        "MaxFileSize": options.max_file_size.to_string(), "SiteName": "Mattermost",
        "SiteURL": options.site_url.as_deref().unwrap_or_default(), "TeammateNameDisplay": "username",
        "Version": "11.6.0",
    });
    Answer::json(StatusCode::OK, &record)
}

/// `login`: the token always in the `Token` header, the cookies only for who says `X-Requested-With`.
pub(super) async fn login(exchange: &Exchange, payload: &mut web::Payload) -> Answered {
    #[derive(Deserialize)]
    struct Login {
        login_id: String,
        password: String,
    }
    let login: Login = json_body(payload, "login_id").await?;
    let mut town = exchange.town();
    let found = town.account(&login.login_id).filter(|account| account.delete_at == 0 && !account.is_bot());
    let id = found.map(|account| account.resident.id.clone());
    let verdict = if login.password == PASSWORD { Verdict::Right } else { Verdict::Wrong };
    town.note_password(id.as_deref().unwrap_or_default(), verdict);
    let Some(id) = id.filter(|_| verdict == Verdict::Right) else {
        let message = "Enter a valid email or username and/or password.";
        let error = "api.user.login.invalid_credentials_email_username";
        return Err(Answer::error(StatusCode::UNAUTHORIZED, error, message));
    };
    let session = town.sign_in(&id);
    let account = town.account(&id).ok_or_else(Answer::no_such_user)?;
    let mut answer = Answer::json(StatusCode::OK, &UserRecord::for_owner(account)).with("Token", &session.token);
    if credentials::text(&exchange.headers, "x-requested-with") == "XMLHttpRequest" {
        let secure = credentials::text(&exchange.headers, "x-forwarded-proto") == "https";
        for cookie in cookies(&session, secure) {
            answer = answer.with("Set-Cookie", &cookie);
        }
    }
    Ok(answer)
}

/// The three cookies of a session (`AttachSessionCookies` in `app/login.go`).
pub(super) fn cookies(session: &Session, secure: bool) -> [String; 3] {
    let expires = HttpDate::from(SystemTime::now() + SESSION);
    let secure = if secure { "; Secure" } else { "" };
    let cookie = |name: &str, value: &str, more: &str| {
        format!("{name}={value}; Path=/; Expires={expires}; Max-Age={}{more}{secure}", SESSION.as_secs())
    };
    [
        cookie("MMAUTHTOKEN", &session.token, "; HttpOnly"),
        cookie("MMUSERID", &session.user_id, ""),
        cookie("MMCSRF", &session.csrf, ""),
    ]
}

/// `getUserStatusesByIds`: tells of everybody asked for, also of those whose picture is refused.
pub(super) async fn presence(exchange: &Exchange, payload: &mut web::Payload) -> Answered {
    exchange.session()?;
    let ids: Vec<String> = json_body(payload, "user_ids").await?;
    let town = exchange.town();
    let known = ids.iter().filter(|id| town.accounts.contains_key(*id));
    let offline =
        |id| json!({"user_id": id, "status": "offline", "manual": false, "last_activity_at": 0, "dnd_end_time": 0});
    Ok(Answer::json(StatusCode::OK, &known.map(offline).collect::<Vec<_>>()))
}

/// `patchUser`.
pub(super) async fn patch(exchange: &Exchange, id: &str, payload: &mut web::Payload) -> Answered {
    let session = exchange.session()?;
    let target = exchange.user_id(id, &session)?;
    let patch: Patch = json_body(payload, "user").await?;
    let mut town = exchange.town();
    if !town.may_change(&session.user_id, &target) {
        return Err(Answer::forbidden());
    }
    town.account(&target).ok_or_else(Answer::no_such_user)?;
    let taken = patch.username.as_ref().and_then(|name| town.account(name));
    if taken.is_some_and(|account| account.resident.id != target) {
        let message = "An account with that username already exists.";
        return Err(Answer::error(StatusCode::BAD_REQUEST, "app.user.save.username_exists.app_error", message));
    }
    town.patch(&target, patch);
    let account = town.account(&target).ok_or_else(Answer::no_such_user)?;
    Ok(Answer::json(StatusCode::OK, &UserRecord::for_owner(account)))
}

/// `getTeamsForUser`: one's own, or anybody's for an administrator.
pub(super) fn teams_of_user(exchange: &Exchange, id: &str) -> Answered {
    let session = exchange.session()?;
    let target = exchange.user_id(id, &session)?;
    let town = exchange.town();
    if !town.may_change(&session.user_id, &target) {
        return Err(Answer::forbidden());
    }
    let records: Vec<TeamRecord> = town.teams_of(&target).map(TeamRecord::new).collect();
    Ok(Answer::json(StatusCode::OK, &records))
}

/// `getTeam`.
pub(super) fn team(exchange: &Exchange, id: &str) -> Answered {
    let session = exchange.session()?;
    let id = exchange.id(id, "team_id")?;
    let town = exchange.town();
    let state = town.team(&id).ok_or_else(no_such_team)?;
    if !state.team.open && !town.is_member(&session.user_id, &id) && !town.is_admin(&session.user_id) {
        return Err(Answer::forbidden());
    }
    Ok(Answer::json(StatusCode::OK, &TeamRecord::new(state)))
}

/// A body of JSON; `name` is what the refusal says is missing.
pub(super) async fn json_body<T: DeserializeOwned>(payload: &mut web::Payload, name: &str) -> Answered<T> {
    let chunks = collect(payload, LONGEST_JSON).await.map_err(|error| match error {
        BodyError::TooLong => Answer::too_large_body(),
        BodyError::Broken => Answer::bad_body(name),
    })?;
    serde_json::from_slice(&chunks.concat()).map_err(|_| Answer::bad_body(name))
}
