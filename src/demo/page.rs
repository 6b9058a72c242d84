//! The page that shows what the proxy does. It is served by the stand-in, so that it is seen through the proxy.

use actix_web::http::StatusCode;

use super::accounts;
use super::answers::Answer;
use super::credentials;
use super::server::Exchange;

const PAGE: &str = include_str!("assets/page.html");
const STYLE: &str = include_str!("assets/page.css");
const SCRIPT: &str = include_str!("assets/page.js");

/// Nothing from elsewhere; pictures are shown from blobs, changes heard of over the page's own WebSocket.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; \
                      connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page; whoever comes without a living session is signed in as the visitor.
pub(super) fn page(exchange: &Exchange) -> Answer {
    let mut answer = asset("text/html; charset=utf-8", PAGE).with("Content-Security-Policy", POLICY);
    let mut town = exchange.town();
    let known =
        credentials::cookie(&exchange.headers, "MMAUTHTOKEN").is_some_and(|token| town.sessions.get(&token).is_some());
    let visitor = exchange.shared.options.visitor.as_ref().filter(|_| !known);
    let visitor = visitor.and_then(|name| town.account(name)).map(|account| account.resident.id.clone());
    if let Some(id) = visitor {
        let session = town.sign_in(&id);
        for cookie in accounts::cookies(&session, false) {
            answer = answer.with("Set-Cookie", &cookie);
        }
    }
    answer
}

pub(super) fn style() -> Answer {
    asset("text/css; charset=utf-8", STYLE)
}

pub(super) fn script() -> Answer {
    asset("text/javascript; charset=utf-8", SCRIPT)
}

fn asset(content_type: &str, text: &'static str) -> Answer {
    Answer::bare(StatusCode::OK)
        .with("Content-Type", content_type)
        .with("Cache-Control", "no-cache")
        .with("X-Content-Type-Options", "nosniff")
        .measured(text.as_bytes().to_vec())
}
