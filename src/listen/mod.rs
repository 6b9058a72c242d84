//! Connections from clients: how long each may take, and what becomes of them when the process stops. It knows bytes and
//! moments, and nothing of what is asked.
//!
//! actix has timers of its own, but none that watches every head, a body or a write, and two that each request pays for.
//! They are switched off; each thread looks at its connections from time to time instead.

mod pulse;
mod serve;
mod stream;
mod sweep;

pub use pulse::{Body, Exchange, Limits, Pulse};
pub use serve::{Settings, serve};

/// Where the process stands in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// It serves.
    Serving,
    /// It takes nothing new, and finishes what it has begun.
    Draining,
}

impl Stage {
    fn drains(self) -> bool {
        self != Self::Serving
    }
}
