//! The routes that answer with full records of users (`server/channels/api4/user.go`): by id, by name, by page, by
//! search. But for the members of a channel, each tells a caller only of those whom the caller may see.

use std::collections::HashSet;

use actix_web::http::StatusCode;
use actix_web::web;
use serde::{Deserialize, Serialize};

use super::account::Account;
use super::accounts::json_body;
use super::answers::Answer;
use super::ids::id_of;
use super::json::UserRecord;
use super::server::Exchange;
use super::sessions::Session;
use super::town::Town;

/// What a step found, or the answer that ends the request there.
type Answered<T = Answer> = Result<T, Answer>;

/// `UserSearchDefaultLimit` and `UserSearchMaxLimit`.
const FOUND: usize = 100;
const MOST_FOUND: usize = 1_000;

/// `getUsers`: a page of them, by username whatever `sort` says.
pub(super) fn page(exchange: &Exchange) -> Answered {
    let session = exchange.session()?;
    let query = &exchange.query;
    let (page, size) = (query.number("page", 0), query.number("per_page", 60).min(200));
    let town = exchange.town();
    let viewer = &session.user_id;
    if query.get("without_team").is_some() && !town.is_admin(viewer) {
        return Err(Answer::forbidden());
    }
    let [team, inside, outside] = ["in_team", "in_channel", "not_in_channel"].map(|name| query.get(name));
    team.map_or(Ok(()), |team| may_view_team(&town, viewer, team))?;
    for channel in [inside, outside].into_iter().flatten() {
        may_read_channel(&town, viewer, channel)?;
    }
    let mut found = match inside {
        Some(channel) => members_of_channel(&town, channel),
        None => town.seen_by(viewer),
    };
    found.retain(|account| {
        let id = &account.resident.id;
        team.is_none_or(|team| town.is_member(id, team))
            && outside.is_none_or(|channel| !town.is_in_channel(id, channel))
    });
    let etag = (team.is_some() && inside.is_none() && outside.is_none()).then(|| etag_of(&town, viewer, &found));
    if let Some(etag) = etag.as_ref().filter(|etag| etag.as_bytes() == exchange.if_none_match()) {
        return Ok(Answer::not_modified(etag));
    }
    let answer = records(found.into_iter().skip(page.saturating_mul(size)).take(size));
    Ok(match etag {
        Some(etag) => answer.with("Etag", &etag),
        None => answer,
    })
}

/// `getUsersByIds`: by id for whoever sees everybody, as they come out of the server's cache; by username for others.
pub(super) async fn by_ids(exchange: &Exchange, payload: &mut web::Payload) -> Answered {
    let session = exchange.session()?;
    let ids: Vec<String> = json_body(payload, "user_ids").await?;
    if ids.is_empty() {
        return Err(Answer::bad_body("user_ids"));
    }
    let since = match exchange.query.get("since") {
        Some(since) => since.parse().map_err(|_| Answer::bad_body("since"))?,
        None => 0_i64,
    };
    let ids: HashSet<String> = ids.into_iter().collect();
    let town = exchange.town();
    let mut found = town.seen_by(&session.user_id);
    found.retain(|account| ids.contains(&account.resident.id) && account.update_at > since);
    if town.sees_everybody(&session.user_id) {
        found.sort_by(|one, other| one.resident.id.cmp(&other.resident.id));
    }
    Ok(records(found))
}

/// `getUsersByNames`.
pub(super) async fn by_usernames(exchange: &Exchange, payload: &mut web::Payload) -> Answered {
    let session = exchange.session()?;
    let names: HashSet<String> = json_body(payload, "usernames").await?;
    if names.is_empty() {
        return Err(Answer::bad_body("usernames"));
    }
    let town = exchange.town();
    let mut found = town.seen_by(&session.user_id);
    found.retain(|account| names.contains(&account.resident.username));
    Ok(records(found))
}

/// `searchUsers`: also by address.
pub(super) async fn search(exchange: &Exchange, payload: &mut web::Payload) -> Answered {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Search {
        term: String,
        team_id: String,
        allow_inactive: bool,
        limit: Option<usize>,
    }
    let session = exchange.session()?;
    let search: Search = json_body(payload, "props").await?;
    if search.term.is_empty() {
        return Err(Answer::bad_body("term"));
    }
    let town = exchange.town();
    let team = Some(search.team_id.as_str()).filter(|team| !team.is_empty());
    team.map_or(Ok(()), |team| may_view_team(&town, &session.user_id, team))?;
    let mut found = town.seen_by(&session.user_id);
    found.retain(|account| {
        (search.allow_inactive || account.delete_at == 0)
            && team.is_none_or(|team| town.is_member(&account.resident.id, team))
            && (is_named(account, &search.term) || contains(&account.email, &search.term))
    });
    found.truncate(search.limit.unwrap_or(FOUND).min(MOST_FOUND));
    Ok(records(found))
}

/// `autocompleteUsers`: with a channel, those of its team who are not in it stand apart.
pub(super) fn autocomplete(exchange: &Exchange) -> Answered {
    #[derive(Serialize)]
    struct Found {
        users: Vec<UserRecord>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        out_of_channel: Vec<UserRecord>,
    }
    let session = exchange.session()?;
    let query = &exchange.query;
    let [team, channel, name] = ["in_team", "in_channel", "name"].map(|name| query.get(name));
    let limit = query.number("limit", FOUND).min(MOST_FOUND);
    let town = exchange.town();
    channel.map_or(Ok(()), |channel| may_read_channel(&town, &session.user_id, channel))?;
    team.map_or(Ok(()), |team| may_view_team(&town, &session.user_id, team))?;
    let mut found = town.seen_by(&session.user_id);
    found.retain(|account| {
        account.delete_at == 0
            && is_named(account, name.unwrap_or_default())
            && team.is_none_or(|team| town.is_member(&account.resident.id, team))
    });
    let (inside, outside): (Vec<&Account>, Vec<&Account>) = found
        .into_iter()
        .partition(|account| channel.is_none_or(|channel| town.is_in_channel(&account.resident.id, channel)));
    let some = |accounts: Vec<&Account>| accounts.into_iter().take(limit).map(UserRecord::for_others).collect();
    Ok(Answer::json(StatusCode::OK, &Found { users: some(inside), out_of_channel: some(outside) }))
}

/// `getUser`.
pub(super) fn user(exchange: &Exchange, id: &str) -> Answered {
    let session = exchange.session()?;
    let target = exchange.user_id(id, &session)?;
    one(exchange, &session, &target, Sanitised::ButForOneself)
}

/// `getUserByUsername`: who does not exist is refused like who may not be seen, but to those who see everybody.
pub(super) fn user_by_name(exchange: &Exchange, name: &str) -> Answered {
    let session = exchange.session()?;
    let target = exchange.town().account(name).map(|account| account.resident.id.clone()).unwrap_or_default();
    one(exchange, &session, &target, Sanitised::ButForOneself)
}

/// `getUserByEmail`: sanitised even for oneself.
pub(super) fn user_by_email(exchange: &Exchange, email: &str) -> Answered {
    let session = exchange.session()?;
    let target = exchange.town().account_by_email(email).map(|account| account.resident.id.clone()).unwrap_or_default();
    one(exchange, &session, &target, Sanitised::ForAnybody)
}

/// Whether one's own record tells more than others'.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sanitised {
    ButForOneself,
    ForAnybody,
}

fn one(exchange: &Exchange, session: &Session, target: &str, sanitised: Sanitised) -> Answered {
    let town = exchange.town();
    if !town.can_see(&session.user_id, target) {
        return Err(Answer::forbidden());
    }
    let account = town.account(target).ok_or_else(Answer::no_such_user)?;
    let etag = format!("11.6.0.{target}.{}..0.true.true.0", account.update_at);
    if etag.as_bytes() == exchange.if_none_match() {
        return Ok(Answer::not_modified(&etag));
    }
    let own = session.user_id == target && sanitised == Sanitised::ButForOneself;
    let record = if own { UserRecord::for_owner(account) } else { UserRecord::for_others(account) };
    Ok(Answer::json(StatusCode::OK, &record).with("Etag", &etag))
}

fn records<'a>(accounts: impl IntoIterator<Item = &'a Account>) -> Answer {
    let records: Vec<UserRecord> = accounts.into_iter().map(UserRecord::for_others).collect();
    Answer::json(StatusCode::OK, &records)
}

/// `view_team`, here a member's.
fn may_view_team(town: &Town, viewer: &str, team: &str) -> Answered<()> {
    if town.is_member(viewer, team) || town.is_admin(viewer) { Ok(()) } else { Err(Answer::forbidden()) }
}

/// `read_channel`, here a member's.
fn may_read_channel(town: &Town, viewer: &str, channel: &str) -> Answered<()> {
    if town.is_in_channel(viewer, channel) || town.is_admin(viewer) { Ok(()) } else { Err(Answer::forbidden()) }
}

/// Asks for nothing but `read_channel`: the one list that may tell of somebody whose picture is refused.
fn members_of_channel<'a>(town: &'a Town, channel: &str) -> Vec<&'a Account> {
    let members = town.channel(channel).into_iter().flat_map(|state| &state.members);
    let mut found: Vec<&Account> = members.filter_map(|id| town.accounts.get(id)).collect();
    found.sort_by(|one, other| one.resident.username.cmp(&other.resident.username));
    found
}

/// The latest change among a team's members, two settings, and for who does not see everybody whom they see
/// (`GetUsersInTeamEtag`).
fn etag_of(town: &Town, viewer: &str, found: &[&Account]) -> String {
    let latest = found.iter().map(|account| account.update_at).max().unwrap_or_default();
    let ids = || found.iter().map(|account| account.resident.id.as_str()).collect::<String>();
    let restrictions = if town.sees_everybody(viewer) { String::new() } else { id_of(&ids()) };
    format!("11.6.0.{latest}.0x1bcce4c940f3.0x1bcce4c940f2.{restrictions}")
}

/// Whether a part of one of the names is the term, in any case.
fn is_named(account: &Account, term: &str) -> bool {
    let resident = &account.resident;
    [&resident.username, &resident.first_name, &resident.last_name, &account.nickname]
        .into_iter()
        .any(|name| contains(name, term))
}

fn contains(text: &str, term: &str) -> bool {
    text.to_lowercase().contains(&term.to_lowercase())
}
