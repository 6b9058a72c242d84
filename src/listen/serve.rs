//! What a thread does with a client that connects: HTTP by actix, over a connection of ours.

use super::Stage;
use super::pulse::Limits;
use super::stream::{Socket, Stream};
use super::sweep::Connections;
use crate::telemetry::Telemetry;
use actix_http::{ConnectionType, HttpService, KeepAlive, Protocol, Request, StatusCode};
use actix_web::HttpResponse;
use actix_web::dev::{Service, ServiceFactory, fn_factory, fn_service};
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;

/// How long a client whose request was answered before it was read may go on sending it.
const LINGER: Duration = Duration::from_secs(1);

/// What each thread needs to serve connections.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long a connection may stay in each phase.
    pub limits: Limits,
    /// Where the process stands.
    pub stage: watch::Receiver<Stage>,
    /// Counts the connections.
    pub telemetry: Arc<Telemetry>,
}

/// Serves each connection of a thread with `answer`, which makes the thread's own service when it is called.
pub fn serve<A, F>(settings: &Settings, answer: A) -> impl ServiceFactory<TcpStream, Config = ()> + use<A, F>
where
    A: Fn(Request) -> F + Clone + 'static,
    F: Future<Output = HttpResponse> + 'static,
{
    let Settings { limits, stage, telemetry } = settings.clone();
    let connections = Connections::looked_after(limits, stage);
    let among = connections.clone();
    let http = HttpService::build()
        .keep_alive(KeepAlive::Os)
        .client_request_timeout(Duration::ZERO)
        .client_disconnect_timeout(LINGER)
        .on_connect_ext(|stream: &Stream, data| _ = data.insert(stream.pulse().clone()))
        .finish(fn_service(move |request: Request| {
            let (asked, among) = (answer(request), among.clone());
            async move {
                let mut response = asked.await;
                if among.drain() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
                    response.head_mut().set_connection_type(ConnectionType::Close);
                }
                Ok::<_, Infallible>(response)
            }
        }));
    fn_factory(move || {
        let (http, connections, telemetry) = (http.new_service(()), connections.clone(), telemetry.clone());
        async move {
            let http = Rc::new(http.await?);
            Ok::<_, ()>(fn_service(move |tcp: TcpStream| {
                let http = http.clone();
                // A connection that cannot be set so is about to break anyway.
                let _ = tcp.set_nodelay(true);
                let socket = Socket::new(tcp, connections.admit(telemetry.connection()));
                async move {
                    let peer = socket.peer();
                    // How a connection ended is its client's affair.
                    let _ = http.call((Stream::plain(socket), Protocol::Http1, peer)).await;
                    Ok::<_, Infallible>(())
                }
            }))
        }
    })
}
