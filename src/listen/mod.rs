//! Connections from clients: how long each may take, and what becomes of them when the process stops. It knows bytes and
//! moments, and nothing of what is asked.
//!
//! actix has timers of its own, but none that watches every head, a body or a write, and two that each request pays for.
//! They are switched off; each thread looks at its connections from time to time instead.

mod certificate;
mod crowd;
mod farewell;
mod files;
mod gate;
mod http2;
mod pipeline;
mod pulse;
mod serve;
mod stream;
mod sweep;
mod upgrade;

pub use certificate::{Certificate, CertificateError, CertificateFiles};
pub use crowd::Crowd;
pub use files::{Room, Wanted, raise_file_limit};
pub use gate::{Gate, HANDOVER};
pub use http2::{AskedUpstream, PART_OF_AN_ANSWER, expects_continue};
pub use pipeline::Framing;
pub use pulse::{Body, Exchange, Limits, Pulse, Ticket};
pub use serve::{Settings, serve};
pub use upgrade::{Switch, Upgraded, read};

use tokio::sync::watch;

/// Why a connection is ended by us before there is a request to answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// The head did not become whole in time.
    #[error("the request did not become whole in time")]
    SlowHead,
    /// The head is too long, or has too many fields.
    #[error("the head of the request is too long")]
    LongHead,
    /// Its address has as many requests under way over HTTP/2 as it may.
    #[error("too many requests from one address")]
    Crowd,
    /// What came is no HTTP.
    #[error("this is no HTTP request")]
    Malformed,
}

/// Where the process stands in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// It serves.
    Serving,
    /// It takes nothing new, and finishes what it has begun.
    Draining,
    /// That is done, or the time for it is over: tunnels say goodbye, and nothing else is waited for.
    Closing,
}

impl Stage {
    fn drains(self) -> bool {
        self != Self::Serving
    }

    /// Waits until that stage.
    pub async fn closing(stage: &mut watch::Receiver<Self>) {
        if stage.wait_for(|stage| *stage == Self::Closing).await.is_err() {
            // Whoever could tell is gone without a word, and this with it in a moment.
            std::future::pending::<()>().await;
        }
    }
}
