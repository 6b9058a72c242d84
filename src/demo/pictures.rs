//! The picture routes: a user's, the default one, a team's, an emoji's (`api4/user.go`, `team.go`, `emoji.go`). Each
//! handler's checks come in the order of the real server: session, id, permission, existence, validator.

use actix_web::http::StatusCode;
use actix_web::web;
use bytes::Bytes;
use serde::Deserialize;

use super::account::{Shown, StoredFile};
use super::answers::Answer;
use super::credentials;
use super::json::EmojiRecord;
use super::server::{BodyError, Exchange, collect};
use super::upload::{self, Part, UploadError};

/// What a step found, or the answer that ends the request there.
type Answered<T = Answer> = Result<T, Answer>;

/// `getProfileImage`.
pub(super) fn user(exchange: &Exchange, id: &str) -> Answered {
    let target = visible_user(exchange, id)?;
    let shown = exchange.town().show(&target).ok_or_else(Answer::no_such_user)?;
    // A missing file still has its stamp, and that is looked at before the file is.
    let stamp = exchange.town().account(&target).map(|account| account.stamp);
    if shown.stamp.is_none() && stamp.is_some_and(|stamp| stamp.to_string().as_bytes() == exchange.if_none_match()) {
        return Ok(Answer::picture(Shown { stamp, ..shown }, exchange.if_none_match()));
    }
    Ok(Answer::picture(shown, exchange.if_none_match()))
}

/// `getDefaultProfileImage`: drawn each time, no validator.
pub(super) fn default(exchange: &Exchange, id: &str) -> Answered {
    let target = visible_user(exchange, id)?;
    let town = exchange.town();
    let file = town.account(&target).ok_or_else(Answer::no_such_user)?.default_picture();
    Ok(Answer::picture(Shown { file, fresh: 86_400, stamp: None }, b""))
}

/// `setProfileImage`. The body is read before any refusal but a 401.
pub(super) async fn change_user(exchange: &Exchange, id: &str, payload: &mut web::Payload) -> Answered {
    let target = own_user(exchange, id)?;
    let bytes = image_part(exchange, payload, "profile_user", "profile image").await?;
    if exchange.town().account(&target).is_none() {
        return Err(Answer::bad_parameter("user_id"));
    }
    let png = adjust(bytes, "profile_user", "profile image").await?;
    exchange.town().upload(&target, png);
    Ok(Answer::done())
}

/// `setDefaultProfileImage`.
pub(super) fn reset_user(exchange: &Exchange, id: &str) -> Answered {
    let target = own_user(exchange, id)?;
    let mut town = exchange.town();
    if town.account(&target).is_none() {
        return Err(Answer::no_such_user());
    }
    town.reset(&target);
    Ok(Answer::done())
}

/// `getTeamIcon`: here the team is looked up before the permission.
pub(super) fn team(exchange: &Exchange, id: &str) -> Answered {
    let session = exchange.session()?;
    let id = exchange.id(id, "team_id")?;
    let town = exchange.town();
    let state = town.team(&id).ok_or_else(no_such_team)?;
    if !state.team.open && !town.is_member(&session.user_id, &id) && !town.is_admin(&session.user_id) {
        return Err(Answer::forbidden());
    }
    let shown = town.show_icon(&id).ok_or_else(|| {
        let message = "Unable to read the team icon file.";
        Answer::error(StatusCode::NOT_FOUND, "api.team.get_team_icon.read_file.app_error", message)
    })?;
    Ok(Answer::picture(shown, exchange.if_none_match()))
}

/// `setTeamIcon`.
pub(super) async fn change_team(exchange: &Exchange, id: &str, payload: &mut web::Payload) -> Answered {
    let id = managed_team(exchange, id)?;
    let bytes = image_part(exchange, payload, "team_icon", "team icon").await?;
    let png = adjust(bytes, "team_icon", "team icon").await?;
    exchange.town().set_icon(&id, Some(png));
    Ok(Answer::done())
}

/// `removeTeamIcon`.
pub(super) fn remove_team(exchange: &Exchange, id: &str) -> Answered {
    let id = managed_team(exchange, id)?;
    exchange.town().set_icon(&id, None);
    Ok(Answer::done())
}

/// `getEmojiImage`: a session is enough; no validator.
pub(super) fn emoji(exchange: &Exchange, id: &str) -> Answered {
    exchange.session()?;
    let id = exchange.id(id, "emoji_id")?;
    let town = exchange.town();
    let emoji = town.emoji(&id).ok_or_else(no_such_emoji)?;
    let file = StoredFile { bytes: emoji.bytes.clone(), content_type: emoji.content_type.clone() };
    Ok(Answer::picture(Shown { file, fresh: 2_592_000, stamp: None }, b""))
}

/// `getEmojiList`.
pub(super) fn list_emoji(exchange: &Exchange) -> Answered {
    exchange.session()?;
    let (page, size) = (exchange.query.number("page", 0), exchange.query.number("per_page", 60).min(200));
    let town = exchange.town();
    let records: Vec<EmojiRecord> =
        town.all_emoji().skip(page.saturating_mul(size)).take(size).map(EmojiRecord::new).collect();
    Ok(Answer::json(StatusCode::OK, &records))
}

/// `createEmoji`.
pub(super) async fn create_emoji(exchange: &Exchange, payload: &mut web::Payload) -> Answered {
    #[derive(Deserialize)]
    struct Wanted {
        name: String,
    }
    let session = exchange.session()?;
    let mut parts = form(exchange, payload, "emoji", "emoji").await?;
    let wanted = parts.iter().find(|part| part.name == "emoji");
    let wanted: Wanted =
        wanted.and_then(|part| serde_json::from_slice(&part.bytes).ok()).ok_or_else(|| Answer::bad_body("emoji"))?;
    let image = take_image(&mut parts).ok_or_else(|| Answer::bad_body("image"))?;
    let file = in_the_background(move || upload::emoji(&image)).await.map_err(|_| Answer::bad_body("image"))?;
    let mut town = exchange.town();
    let id = town.add_emoji(&wanted.name, &session.user_id, file);
    let emoji = town.emoji(&id).ok_or_else(no_such_emoji)?;
    Ok(Answer::json(StatusCode::OK, &EmojiRecord::new(emoji)))
}

/// `deleteEmoji`: its maker or an administrator.
pub(super) fn delete_emoji(exchange: &Exchange, id: &str) -> Answered {
    let session = exchange.session()?;
    let id = exchange.id(id, "emoji_id")?;
    let mut town = exchange.town();
    let creator = town.emoji(&id).ok_or_else(no_such_emoji)?.creator_id.clone();
    if !town.may_change(&session.user_id, &creator) {
        return Err(Answer::forbidden());
    }
    town.delete_emoji(&id);
    Ok(Answer::done())
}

pub(super) fn no_such_team() -> Answer {
    Answer::error(StatusCode::NOT_FOUND, "app.team.get.find.app_error", "Unable to find the existing team.")
}

fn no_such_emoji() -> Answer {
    Answer::error(StatusCode::NOT_FOUND, "app.emoji.get.no_result", "We couldn\u{2019}t find the emoji.")
}

/// The target of a GET, if the caller may see it; whether it exists is not asked here: 403 comes before 404.
fn visible_user(exchange: &Exchange, id: &str) -> Answered<String> {
    let session = exchange.session()?;
    let target = exchange.user_id(id, &session)?;
    if exchange.town().can_see(&session.user_id, &target) { Ok(target) } else { Err(Answer::forbidden()) }
}

/// The target of a change, if the caller may change it.
fn own_user(exchange: &Exchange, id: &str) -> Answered<String> {
    let session = exchange.session()?;
    let target = exchange.user_id(id, &session)?;
    if exchange.town().may_change(&session.user_id, &target) { Ok(target) } else { Err(Answer::forbidden()) }
}

fn managed_team(exchange: &Exchange, id: &str) -> Answered<String> {
    let session = exchange.session()?;
    let id = exchange.id(id, "team_id")?;
    let town = exchange.town();
    town.team(&id).ok_or_else(no_such_team)?;
    if town.is_admin(&session.user_id) { Ok(id) } else { Err(Answer::forbidden()) }
}

/// The parts of an uploaded form. `route` and `thing` are the words in the ids and the texts of its errors.
async fn form(exchange: &Exchange, payload: &mut web::Payload, route: &str, thing: &str) -> Answered<Vec<Part>> {
    let limit = exchange.shared.options.max_file_size;
    let announced: Option<usize> = credentials::text(&exchange.headers, "content-length").parse().ok();
    if announced.is_some_and(|length| length > limit) {
        let message = format!("Unable to upload {thing}. File is too large.");
        let id = format!("api.user.upload_{route}.too_large.app_error");
        return Err(Answer::error(StatusCode::PAYLOAD_TOO_LARGE, &id, &message));
    }
    let chunks = collect(payload, limit + 512).await.map_err(|error| match error {
        BodyError::TooLong => Answer::too_large_body(),
        BodyError::Broken => unreadable_form(route),
    })?;
    let content_type = credentials::text(&exchange.headers, "content-type");
    upload::parts(content_type, &Bytes::from(chunks.concat())).ok_or_else(|| unreadable_form(route))
}

fn unreadable_form(route: &str) -> Answer {
    let id = format!("api.user.upload_{route}.parse.app_error");
    Answer::error(StatusCode::INTERNAL_SERVER_ERROR, &id, "Could not parse multipart form.")
}

/// The bytes under the field `image`.
async fn image_part(exchange: &Exchange, payload: &mut web::Payload, route: &str, thing: &str) -> Answered<Bytes> {
    let mut parts = form(exchange, payload, route, thing).await?;
    take_image(&mut parts).ok_or_else(|| {
        let id = format!("api.user.upload_{route}.no_file.app_error");
        Answer::error(StatusCode::BAD_REQUEST, &id, "No file under 'image' in request.")
    })
}

fn take_image(parts: &mut Vec<Part>) -> Option<Bytes> {
    let place = parts.iter().position(|part| part.name == "image")?;
    Some(parts.swap_remove(place).bytes)
}

/// The picture as it is stored, made off the async threads: a phone's photo takes seconds.
async fn adjust(bytes: Bytes, route: &str, thing: &str) -> Answered<Bytes> {
    let adjusted = in_the_background(move || upload::square(&bytes)).await;
    adjusted.map_err(|error| {
        let (word, message) = match error {
            UploadError::Limits => {
                ("check_image_limits", "Image limits check failed. Resolution is too high.".to_owned())
            }
            UploadError::Decode => ("decode", format!("Could not decode {thing}.")),
        };
        Answer::error(StatusCode::BAD_REQUEST, &format!("api.user.upload_{route}.{word}.app_error"), &message)
    })
}

async fn in_the_background<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, UploadError> + Send + 'static,
) -> Result<T, UploadError> {
    // A panic in a codec says as much as an error of it.
    web::block(work).await.unwrap_or(Err(UploadError::Decode))
}
