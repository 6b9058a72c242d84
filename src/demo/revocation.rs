//! The routes that end sessions and rights, each at once: the very next request is answered by the new state
//! (`server/channels/api4/user.go`, `role.go`, `team.go`, `channel.go`).

use actix_web::http::StatusCode;
use actix_web::web;
use serde::Deserialize;

use super::accounts::json_body;
use super::answers::{Answer, CLEARED_COOKIE};
use super::credentials;
use super::pictures::no_such_team;
use super::server::Exchange;
use super::sessions::Session;
use super::town::Activity;

/// What a step found, or the answer that ends the request there.
type Answered<T = Answer> = Result<T, Answer>;

/// `logout`: also without a session.
pub(super) fn logout(exchange: &Exchange) -> Answered {
    if credentials::presented(&exchange.headers, &exchange.query).is_some() {
        let session = exchange.session()?;
        exchange.town().sessions.end(&session.token);
    }
    Ok(Answer::done().with("Set-Cookie", CLEARED_COOKIE))
}

/// `revokeSession`: one of a user's, by its id.
pub(super) async fn session(exchange: &Exchange, id: &str, payload: &mut web::Payload) -> Answered {
    #[derive(Deserialize)]
    struct Named {
        session_id: String,
    }
    let target = changeable_user(exchange, id)?;
    let named: Named = json_body(payload, "session_id").await?;
    let ended = exchange.town().sessions.end_by_id(&target, &named.session_id);
    ended.map(|_| Answer::done()).ok_or_else(|| Answer::bad_body("session_id"))
}

/// `revokeAllSessionsForUser`.
pub(super) fn sessions_of_user(exchange: &Exchange, id: &str) -> Answered {
    let target = changeable_user(exchange, id)?;
    exchange.town().sessions.end_all_of(&target);
    Ok(Answer::done())
}

/// `revokeAllSessionsAllUsers`: the caller's too.
pub(super) fn every_session(exchange: &Exchange) -> Answered {
    administrator(exchange)?;
    exchange.town().sessions.end_all();
    Ok(Answer::done())
}

/// `revokeUserAccessToken` and `disableUserAccessToken`: here a token is a session, and its id the session's.
pub(super) async fn access_token(exchange: &Exchange, payload: &mut web::Payload) -> Answered {
    #[derive(Deserialize)]
    struct Named {
        token_id: String,
    }
    let session = exchange.session()?;
    let named: Named = json_body(payload, "token_id").await?;
    let ended = exchange.town().sessions.end_by_id(&session.user_id, &named.token_id);
    ended.map(|_| Answer::done()).ok_or_else(|| Answer::bad_body("token_id"))
}

/// `updateUserActive`: an administrator, or oneself to leave.
pub(super) async fn set_active(exchange: &Exchange, id: &str, payload: &mut web::Payload) -> Answered {
    #[derive(Deserialize)]
    struct Wanted {
        active: bool,
    }
    let session = exchange.session()?;
    let target = exchange.user_id(id, &session)?;
    let wanted: Wanted = json_body(payload, "active").await?;
    let mut town = exchange.town();
    let leaves = session.user_id == target && !wanted.active;
    if !leaves && !town.is_admin(&session.user_id) {
        return Err(Answer::forbidden());
    }
    town.account(&target).ok_or_else(Answer::no_such_user)?;
    town.set_active(&target, if wanted.active { Activity::Active } else { Activity::Deactivated });
    Ok(Answer::done())
}

/// `deleteUser`, which only deactivates: an administrator, or oneself.
pub(super) fn delete_user(exchange: &Exchange, id: &str) -> Answered {
    let target = changeable_user(exchange, id)?;
    let mut town = exchange.town();
    town.account(&target).ok_or_else(Answer::no_such_user)?;
    town.set_active(&target, Activity::Deactivated);
    Ok(Answer::done())
}

/// `updateUserRoles`.
pub(super) async fn set_roles(exchange: &Exchange, id: &str, payload: &mut web::Payload) -> Answered {
    #[derive(Deserialize)]
    struct Wanted {
        roles: String,
    }
    let session = administrator(exchange)?;
    let target = exchange.user_id(id, &session)?;
    let wanted: Wanted = json_body(payload, "roles").await?;
    let mut town = exchange.town();
    if !town.roles.know(&wanted.roles) {
        return Err(Answer::bad_body("roles"));
    }
    town.account(&target).ok_or_else(Answer::no_such_user)?;
    town.set_roles(&target, &wanted.roles);
    Ok(Answer::done())
}

/// `getRoleByName`.
pub(super) fn role_by_name(exchange: &Exchange, name: &str) -> Answered {
    exchange.session()?;
    let town = exchange.town();
    let role = town.roles.named(name).ok_or_else(no_such_role)?;
    Ok(Answer::json(StatusCode::OK, role))
}

/// `patchRole`.
pub(super) async fn patch_role(exchange: &Exchange, id: &str, payload: &mut web::Payload) -> Answered {
    #[derive(Deserialize)]
    struct Wanted {
        permissions: Vec<String>,
    }
    administrator(exchange)?;
    let id = exchange.id(id, "role_id")?;
    let wanted: Wanted = json_body(payload, "role").await?;
    let mut town = exchange.town();
    town.roles.get(&id).ok_or_else(no_such_role)?;
    let role = town.patch_role(&id, wanted.permissions).ok_or_else(no_such_role)?;
    Ok(Answer::json(StatusCode::OK, &role))
}

/// `removeTeamMember`: oneself, or anybody for an administrator.
pub(super) fn team_member(exchange: &Exchange, team: &str, user: &str) -> Answered {
    let team = exchange.id(team, "team_id")?;
    let target = changeable_user(exchange, user)?;
    let mut town = exchange.town();
    town.team(&team).ok_or_else(no_such_team)?;
    if !town.is_member(&target, &team) {
        return Err(no_such_member("app.team.get_member.missing.app_error"));
    }
    town.leave_team(&target, &team);
    Ok(Answer::done())
}

/// `removeChannelMember`: any member of the channel, or an administrator. Only guests can be taken out of a town square.
pub(super) fn channel_member(exchange: &Exchange, channel: &str, user: &str) -> Answered {
    let session = exchange.session()?;
    let channel = exchange.id(channel, "channel_id")?;
    let target = exchange.user_id(user, &session)?;
    let mut town = exchange.town();
    let town_square = town.channel(&channel).ok_or_else(no_such_channel)?.town_square;
    if !town.is_in_channel(&session.user_id, &channel) && !town.is_admin(&session.user_id) {
        return Err(Answer::forbidden());
    }
    if !town.is_in_channel(&target, &channel) {
        return Err(no_such_member("app.channel.get_member.missing.app_error"));
    }
    if town_square && !town.is_guest(&target) {
        let message = "Unable to remove user from the default channel town-square.";
        return Err(Answer::error(StatusCode::BAD_REQUEST, "api.channel.remove.default.app_error", message));
    }
    town.leave_channel(&target, &channel, &session.user_id);
    Ok(Answer::done())
}

fn administrator(exchange: &Exchange) -> Answered<Session> {
    let session = exchange.session()?;
    if exchange.town().is_admin(&session.user_id) { Ok(session) } else { Err(Answer::forbidden()) }
}

fn changeable_user(exchange: &Exchange, id: &str) -> Answered<String> {
    let session = exchange.session()?;
    let target = exchange.user_id(id, &session)?;
    if exchange.town().may_change(&session.user_id, &target) { Ok(target) } else { Err(Answer::forbidden()) }
}

fn no_such_role() -> Answer {
    Answer::error(StatusCode::NOT_FOUND, "app.role.get.app_error", "Unable to get role.")
}

fn no_such_channel() -> Answer {
    Answer::error(StatusCode::NOT_FOUND, "app.channel.get.existing.app_error", "Unable to find the existing channel.")
}

fn no_such_member(id: &str) -> Answer {
    Answer::error(StatusCode::NOT_FOUND, id, "No such member.")
}
