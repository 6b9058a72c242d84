//! `avatar-proxy` stands between Mattermost's clients and a Mattermost server. It asks upstream for profile pictures
//! with the caller's own credentials, resizes and re-encodes them, keeps the results in memory by content hash, and
//! passes everything else through.
//!
//! Modules, from the top of the house to its foundation (arrows of `use` go down only):
//!
//! - [`server`]: builds every part once, binds, serves, drains; [`config`] and [`telemetry`] feed it, and [`reload`] feeds
//!   it again;
//! - [`web`]: the front door, [`admin`]: the back office on a listener of its own;
//! - [`listen`]: connections from clients, how long each may take, and how they end when the process stops;
//! - [`avatar`]: the decisions: what to serve, and to whom;
//! - [`allowance`]: how many misses one token and one address may cause; sync, and the time is told to it;
//! - [`upstream`], [`cache`], [`render`]: the back door, memory, and pixels; they do not know each other;
//! - [`variant`]: what a request may ask for; sync and pure;
//! - [`overheard`]: what passes through and tells of pictures and permissions; sync and pure;
//! - [`source`], [`identity`], [`caller`]: the nouns everybody shares;
//! - [`explain`]: what would be made of one picture, for people;
//! - [`demo`]: an embedded stand-in Mattermost, a server of its own that imports none of the rooms.
//!
//! The important rules are absences:
//!
//! - no picture leaves memory without upstream's 200 or 304 to this very request, or an unexpired grant: the same said
//!   to the very same credentials about this picture, of which nothing newer was heard;
//! - nothing else grants: no event, no presence, no answer that is not in the table of `overheard`;
//! - no async in `render`, `variant`, `overheard`, `allowance`, `source`, `identity` and `caller`;
//! - no error status is chosen outside `web::error`, no pixel work runs outside `avatar::render_pool` but what `avatar::improve` does
//!   on its one thread while the pool has capacity to spare;
//! - no credential is stored or logged;
//! - no globals: each part is built once, outside actix's per-worker closure;
//! - nothing is unbounded: bodies, pixels, queue, time, cache weight.

pub mod admin;
pub mod allowance;
pub mod avatar;
pub mod cache;
pub mod caller;
pub mod cli;
pub mod config;
#[cfg(test)]
mod counting_waker;
pub mod demo;
pub mod explain;
pub mod identity;
pub mod listen;
pub mod overheard;
pub mod reload;
pub mod render;
pub mod server;
pub mod source;
pub mod telemetry;
pub mod upstream;
pub mod variant;
pub mod web;
