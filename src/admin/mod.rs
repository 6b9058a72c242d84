//! The back office, on a listener of its own: is the process alive, is it ready, and what has it counted.

mod readiness;

pub use readiness::{NotReady, Ping, Readiness, ReadinessSettings};

use crate::telemetry::{CacheLevels, Telemetry};
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use actix_web::{HttpResponse, Route, web};
use serde_json::json;
use std::sync::Arc;

/// What the back office looks at. Built once; each worker gets a clone.
#[derive(Clone)]
pub struct AdminState {
    /// What was counted.
    pub telemetry: Arc<Telemetry>,
    /// How full the caches are, asked at each scrape.
    pub cache_levels: Arc<dyn Fn() -> CacheLevels + Send + Sync>,
    /// Whether requests should be sent here.
    pub readiness: Readiness,
}

/// Adds the routes of the back office; every other path is 404, every other method 405.
pub fn configure(service: &mut web::ServiceConfig, state: AdminState) {
    service
        .app_data(web::Data::new(state))
        .service(web::resource("/healthz").route(get_or_head().to(health)))
        .service(web::resource("/readyz").route(get_or_head().to(ready)))
        .service(web::resource("/metrics").route(get_or_head().to(metrics)));
}

/// actix leaves the body of an answer to HEAD away by itself.
fn get_or_head() -> Route {
    use actix_web::guard::{Any, Get, Head};
    web::route().guard(Any(Get()).or(Head()))
}

async fn health() -> HttpResponse {
    HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(json!({ "status": "ok" }))
}

async fn ready(state: web::Data<AdminState>) -> HttpResponse {
    match state.readiness.check().await {
        Ok(()) => HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(json!({ "status": "ready" })),
        Err(why) => HttpResponse::ServiceUnavailable()
            .insert_header((CACHE_CONTROL, "no-store"))
            .json(json!({ "status": "not_ready", "reason": why.to_string() })),
    }
}

async fn metrics(state: web::Data<AdminState>) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, Telemetry::MEDIA_TYPE))
        .insert_header((CACHE_CONTROL, "no-store"))
        .body(state.telemetry.encode(&(state.cache_levels)()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::CacheLevel;
    use actix_web::http::{Method, StatusCode};
    use actix_web::{App, test};
    use futures_util::future::{FutureExt, ready};

    fn state(answer: Result<(), NotReady>) -> AdminState {
        AdminState {
            telemetry: Arc::new(Telemetry::new()),
            cache_levels: Arc::new(|| CacheLevels {
                sources: CacheLevel { weight: 4711, entries: 3 },
                ..CacheLevels::default()
            }),
            readiness: Readiness::new(Box::new(move || ready(answer).boxed_local()), ReadinessSettings::default()),
        }
    }

    async fn ask(state: AdminState, method: Method, path: &str) -> (StatusCode, String, String) {
        let app = test::init_service(App::new().configure(|service| configure(service, state))).await;
        let answer = test::call_service(&app, test::TestRequest::default().method(method).uri(path).to_request()).await;
        let status = answer.status();
        let content_type =
            answer.headers().get(CONTENT_TYPE).map_or("", |value| value.to_str().expect("ASCII")).to_owned();
        let body = test::read_body(answer).await;
        (status, content_type, String::from_utf8(body.to_vec()).expect("text"))
    }

    #[actix_web::test]
    async fn alive_whatever_upstream_says() {
        let (status, content_type, body) = ask(state(Err(NotReady::Unreachable)), Method::GET, "/healthz").await;
        assert_eq!(
            (status, content_type.as_str(), body.as_str()),
            (StatusCode::OK, "application/json", r#"{"status":"ok"}"#)
        );
    }

    #[actix_web::test]
    async fn ready_or_the_reason_why_not() {
        for (answer, status, body) in [
            (Ok(()), 200, r#"{"status":"ready"}"#),
            (Err(NotReady::Unreachable), 503, r#"{"reason":"upstream is unreachable","status":"not_ready"}"#),
            (
                Err(NotReady::Status(http::StatusCode::BAD_GATEWAY)),
                503,
                r#"{"reason":"upstream answered 502 Bad Gateway","status":"not_ready"}"#,
            ),
        ] {
            let (found, _, text) = ask(state(answer), Method::GET, "/readyz").await;
            assert_eq!((found.as_u16(), text.as_str()), (status, body));
        }
        let state = state(Ok(()));
        state.readiness.drain();
        let (status, _, body) = ask(state, Method::GET, "/readyz").await;
        assert_eq!((status.as_u16(), body.as_str()), (503, r#"{"reason":"draining","status":"not_ready"}"#));
    }

    #[actix_web::test]
    async fn a_scrape_reads_the_caches() {
        let (status, content_type, body) = ask(state(Ok(())), Method::GET, "/metrics").await;
        assert_eq!((status, content_type.as_str()), (StatusCode::OK, Telemetry::MEDIA_TYPE));
        assert!(body.contains("avatar_proxy_cache_weight_bytes{cache=\"sources\"} 4711\n"), "{body}");
        assert!(body.ends_with("# EOF\n"));
    }

    #[actix_web::test]
    async fn nothing_else_is_here() {
        for (method, path, status) in [
            (Method::HEAD, "/healthz", 200),
            (Method::HEAD, "/readyz", 200),
            (Method::HEAD, "/metrics", 200),
            (Method::POST, "/healthz", 405),
            (Method::DELETE, "/metrics", 405),
            (Method::OPTIONS, "/readyz", 405),
            (Method::GET, "/", 404),
            (Method::GET, "/healthz/", 404),
            (Method::GET, "/metrics/../healthz", 404),
            (Method::GET, "/api/v4/users/me/image", 404),
            (Method::POST, "/nothing", 404),
        ] {
            let (found, _, _) = ask(state(Ok(())), method.clone(), path).await;
            assert_eq!(found.as_u16(), status, "{method} {path}");
        }
    }

    #[actix_web::test]
    async fn on_a_socket_head_has_a_length_and_no_body() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let state = state(Ok(()));
        let server =
            actix_web::HttpServer::new(move || App::new().configure(|service| configure(service, state.clone())))
                .workers(1)
                .disable_signals()
                .bind(("127.0.0.1", 0))
                .expect("a free port");
        let address = server.addrs()[0];
        let server = server.run();
        let handle = server.handle();
        let running = actix_web::rt::spawn(server);

        let mut client = tokio::net::TcpStream::connect(address).await.expect("a listener");
        client.write_all(b"HEAD /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.expect("a request");
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
        assert!(answer.contains("content-length: ") && !answer.contains("content-length: 0\r"), "{answer}");

        handle.stop(true).await;
        running.await.expect("no panic").expect("a clean end");
    }
}
