//! One request from its head to its answer: noted, routed, held back or spoiled where a test wants it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix_web::http::header::HeaderMap;
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::watch;

use super::answers::{Answer, CLEARED_COOKIE};
use super::credentials::{self, Place};
use super::faults::{Fault, Script};
use super::ids::is_id;
use super::ledger::Ledger;
use super::options::Options;
use super::query::Query;
use super::routes::{self, Endpoint, Reading};
use super::sessions::Session;
use super::town::Town;
use super::{accounts, lists, page, pictures, revocation, socket, transfer};

/// `MaximumURLLength`.
const LONGEST_TARGET: usize = 2048;

/// A body that no handler wants is read and dropped up to here, so that the connection can be kept.
const MOST_DRAINED: usize = 4 * 1024 * 1024;

/// How long a request under [`Fault::Silent`] waits for nothing.
const SILENCE: Duration = Duration::from_secs(120);

/// What every worker of one stand-in shares.
pub(super) struct Shared {
    pub(super) options: Options,
    town: Mutex<Town>,
    script: Mutex<Script>,
    ledger: Mutex<Ledger>,
    pub(super) delay: Mutex<Duration>,
    /// While true, picture answers wait.
    pub(super) held: watch::Sender<bool>,
    /// While true, lists of users wait.
    pub(super) held_lists: watch::Sender<bool>,
}

impl Shared {
    pub(super) fn new(options: Options) -> Self {
        Self {
            town: Mutex::new(Town::new(&options)),
            options,
            script: Mutex::default(),
            ledger: Mutex::default(),
            delay: Mutex::default(),
            held: watch::Sender::new(false),
            held_lists: watch::Sender::new(false),
        }
    }

    pub(super) fn town(&self) -> MutexGuard<'_, Town> {
        lock(&self.town)
    }

    pub(super) fn script(&self) -> MutexGuard<'_, Script> {
        lock(&self.script)
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }
}

/// A panic in one request must not take the others with it.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request as handlers see it.
pub(super) struct Exchange {
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    pub(super) query: Query,
    pub(super) shared: web::Data<Shared>,
}

impl Exchange {
    pub(super) fn town(&self) -> MutexGuard<'_, Town> {
        self.shared.town()
    }

    /// The caller's session, or the 401 of this request. What changes something by cookie must also prove that it
    /// comes from the site.
    pub(super) fn session(&self) -> Result<Session, Answer> {
        let presented = credentials::presented(&self.headers, &self.query);
        let Some(presented) = presented.filter(|presented| !presented.token.is_empty()) else {
            return Err(Answer::unauthorized());
        };
        let session = self.town().sessions.get(&presented.token).cloned();
        let proven = |session: &Session| {
            presented.place != Place::Cookie
                || self.method == Method::GET
                || credentials::proves_origin(&self.headers, &session.csrf)
        };
        match session.filter(proven) {
            Some(_) if presented.place == Place::Query => {
                let message = "Session is not OAuth but token was provided in the query string.";
                Err(Answer::error(StatusCode::UNAUTHORIZED, "api.context.token_provided.app_error", message))
            }
            Some(session) => Ok(session),
            None => Err(Answer::unauthorized().with("Set-Cookie", CLEARED_COOKIE)),
        }
    }

    /// A user id of a path: `me` is the caller, anything that is none is a 400.
    pub(super) fn user_id(&self, segment: &str, session: &Session) -> Result<String, Answer> {
        if segment == "me" { Ok(session.user_id.clone()) } else { self.id(segment, "user_id") }
    }

    /// An id of a path.
    #[expect(clippy::unused_self, reason = "reads beside `user_id`")]
    pub(super) fn id(&self, segment: &str, name: &str) -> Result<String, Answer> {
        if is_id(segment) { Ok(segment.to_owned()) } else { Err(Answer::bad_parameter(name)) }
    }

    pub(super) fn if_none_match(&self) -> &[u8] {
        self.headers.get("if-none-match").map(actix_web::http::header::HeaderValue::as_bytes).unwrap_or_default()
    }
}

/// Answers one request.
pub(super) async fn serve(request: HttpRequest, mut payload: web::Payload, shared: web::Data<Shared>) -> HttpResponse {
    let method = request.method().clone();
    let target = request.uri().path_and_query().map_or("", |target| target.as_str()).to_owned();
    shared.ledger().note_request(method.as_str(), &target, request.headers());
    let exchange = Exchange {
        method: method.clone(),
        headers: request.headers().clone(),
        query: Query::parse(request.uri().query().unwrap_or_default()),
        shared: shared.clone(),
    };
    let accept_encoding = credentials::text(&exchange.headers, "accept-encoding").to_owned();
    let routed = route(&method, request.uri().path());
    // Also counts a request off whose client went away and whose future was dropped.
    let _open = routed.as_ref().ok().filter(|endpoint| endpoint.is_picture()).map(|_| OpenPicture::count(&shared));
    let (endpoint, answer) = match routed {
        Err(answer) => (None, answer),
        Ok(Endpoint::WebSocket) => match socket::open(&exchange.headers, payload, shared.clone()) {
            Ok(response) => {
                shared.ledger().note_answer(Some(&Endpoint::WebSocket), response.status(), 0);
                return response;
            }
            Err(answer) => return answer.send(&method, request.version(), &accept_encoding),
        },
        Ok(endpoint) => {
            let answer = if target.len() > LONGEST_TARGET {
                Answer::too_long_target()
            } else {
                dispatch(&endpoint, &exchange, &mut payload).await
            };
            (Some(endpoint), answer)
        }
    };
    if method != Method::CONNECT && !exchange.headers.contains_key("upgrade") {
        // Without reading on, the rest of this body would be taken for the next request.
        drain(&mut payload).await;
    }
    let answer = match &endpoint {
        Some(endpoint) if endpoint.is_picture() => interfere(answer, &shared).await,
        Some(endpoint) if endpoint.is_list() => {
            // An error says that the stand-in is going away: then nothing has to wait.
            let _ = shared.held_lists.subscribe().wait_for(|held| !held).await;
            answer
        }
        _ => answer,
    };
    shared.ledger().note_answer(endpoint.as_ref(), answer.status, answer.body_len());
    answer.send(&method, request.version(), &accept_encoding)
}

/// One picture request between its head and its answer.
struct OpenPicture<'a>(&'a Shared);

impl<'a> OpenPicture<'a> {
    fn count(shared: &'a Shared) -> Self {
        shared.ledger().picture_begins();
        Self(shared)
    }
}

impl Drop for OpenPicture<'_> {
    fn drop(&mut self) {
        self.0.ledger().picture_ends();
    }
}

/// The endpoint of a request, or what the router answers by itself.
fn route(method: &Method, path: &str) -> Result<Endpoint, Answer> {
    let path = match routes::read_path(path) {
        Reading::Clean(path) => path,
        Reading::Moved(location) => {
            return Err(Answer::bare(StatusCode::MOVED_PERMANENTLY).with("Location", &location));
        }
        Reading::Malformed => {
            return Err(Answer::plain(StatusCode::BAD_REQUEST, "400 Bad Request"));
        }
    };
    routes::endpoint(method.as_str(), &path).ok_or_else(|| {
        if path.starts_with("/api/") {
            Answer::no_such_route(&path)
        } else {
            Answer::plain(StatusCode::NOT_FOUND, "404 page not found\n")
        }
    })
}

async fn dispatch(endpoint: &Endpoint, exchange: &Exchange, payload: &mut web::Payload) -> Answer {
    let answered = match endpoint {
        Endpoint::Page => Ok(page::page(exchange)),
        Endpoint::Style => Ok(page::style()),
        Endpoint::Script => Ok(page::script()),
        Endpoint::Ping => Ok(accounts::ping(exchange)),
        Endpoint::ClientConfig => Ok(accounts::client_config(exchange)),
        Endpoint::Login => accounts::login(exchange, payload).await,
        Endpoint::Logout => revocation::logout(exchange),
        Endpoint::ListUsers => lists::page(exchange),
        Endpoint::UsersByIds => lists::by_ids(exchange, payload).await,
        Endpoint::UsersByUsernames => lists::by_usernames(exchange, payload).await,
        Endpoint::SearchUsers => lists::search(exchange, payload).await,
        Endpoint::AutocompleteUsers => lists::autocomplete(exchange),
        Endpoint::Presence => accounts::presence(exchange, payload).await,
        Endpoint::User(id) => lists::user(exchange, id),
        Endpoint::UserByName(name) => lists::user_by_name(exchange, name),
        Endpoint::UserByEmail(email) => lists::user_by_email(exchange, email),
        Endpoint::PatchUser(id) => accounts::patch(exchange, id, payload).await,
        Endpoint::TeamsOfUser(id) => accounts::teams_of_user(exchange, id),
        Endpoint::RevokeSession(id) => revocation::session(exchange, id, payload).await,
        Endpoint::RevokeSessions(id) => revocation::sessions_of_user(exchange, id),
        Endpoint::RevokeEverySession => revocation::every_session(exchange),
        Endpoint::RevokeAccessToken => revocation::access_token(exchange, payload).await,
        Endpoint::SetActive(id) => revocation::set_active(exchange, id, payload).await,
        Endpoint::DeleteUser(id) => revocation::delete_user(exchange, id),
        Endpoint::SetRoles(id) => revocation::set_roles(exchange, id, payload).await,
        Endpoint::RoleByName(name) => revocation::role_by_name(exchange, name),
        Endpoint::PatchRole(id) => revocation::patch_role(exchange, id, payload).await,
        Endpoint::LeaveTeam(team, user) => revocation::team_member(exchange, team, user),
        Endpoint::LeaveChannel(channel, user) => revocation::channel_member(exchange, channel, user),
        Endpoint::UserImage(id) => pictures::user(exchange, id),
        Endpoint::DefaultImage(id) => pictures::default(exchange, id),
        Endpoint::ChangeUserImage(id) => pictures::change_user(exchange, id, payload).await,
        Endpoint::ResetUserImage(id) => pictures::reset_user(exchange, id),
        Endpoint::Team(id) => accounts::team(exchange, id),
        Endpoint::TeamImage(id) => pictures::team(exchange, id),
        Endpoint::ChangeTeamImage(id) => pictures::change_team(exchange, id, payload).await,
        Endpoint::RemoveTeamImage(id) => pictures::remove_team(exchange, id),
        Endpoint::ListEmoji => pictures::list_emoji(exchange),
        Endpoint::CreateEmoji => pictures::create_emoji(exchange, payload).await,
        Endpoint::DeleteEmoji(id) => pictures::delete_emoji(exchange, id),
        Endpoint::EmojiImage(id) => pictures::emoji(exchange, id),
        Endpoint::UploadFile => transfer::upload(exchange, payload).await,
        Endpoint::File(id) => transfer::download(exchange, id),
        // Taken before: it needs the payload whole.
        Endpoint::WebSocket => Err(Answer::no_such_route("/api/v4/websocket")),
    };
    answered.unwrap_or_else(|refusal| refusal)
}

/// What a test has ordered for picture answers.
async fn interfere(answer: Answer, shared: &Shared) -> Answer {
    let delay = *lock(&shared.delay);
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    // An error says that the stand-in is going away: then nothing has to wait.
    let _ = shared.held.subscribe().wait_for(|held| !held).await;
    let fault = shared.script().next(answer.status == StatusCode::OK);
    match fault {
        None => answer,
        Some(fault) => {
            if fault == Fault::Silent {
                tokio::time::sleep(SILENCE).await;
            }
            answer.spoiled(fault)
        }
    }
}

/// The body was longer than it may be, or broke off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BodyError {
    TooLong,
    Broken,
}

/// Reads a body up to `limit` bytes, as the chunks it comes in.
pub(super) async fn collect(payload: &mut web::Payload, limit: usize) -> Result<Vec<Bytes>, BodyError> {
    let mut chunks = Vec::new();
    let mut length = 0;
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|_| BodyError::Broken)?;
        length += chunk.len();
        if length > limit {
            return Err(BodyError::TooLong);
        }
        chunks.push(chunk);
    }
    Ok(chunks)
}

async fn drain(payload: &mut web::Payload) {
    let mut length = 0;
    while let Some(Ok(chunk)) = payload.next().await {
        length += chunk.len();
        if length > MOST_DRAINED {
            return;
        }
    }
}
