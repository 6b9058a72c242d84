//! Behaviour on real sockets: a proxy as it is deployed, a client that sends raw bytes, and an upstream that answers
//! with raw bytes or is the demo's stand-in Mattermost. `client`, `dice`, `mattermost`, `pictures`, `process`, `proxy`,
//! `recorder`, `tls`, `upstream` and `wire` are the stage; each other module is a group of tests.
//! A number in a test's name is a row of the fault table that the proxy was built by.

mod client;
mod dice;
mod mattermost;
mod pictures;
mod process;
mod proxy;
mod recorder;
mod tls;
mod upstream;
mod wire;

mod abuse;
mod allowances;
mod budget;
mod caching;
mod coalescing;
mod connections;
mod cut_short;
mod damage;
mod day;
mod differential;
mod explaining;
mod faults;
mod floods;
mod forwarding;
mod framing;
mod grants;
mod half_sent;
mod http2;
mod improving;
mod interleaving;
mod invalidation;
mod learning;
mod leaving;
mod lifecycle;
mod limits;
mod listener_tls;
mod listening;
mod matrix;
mod model;
mod motion;
mod outage;
mod own_errors;
mod passthrough;
mod paths;
mod pauses;
mod permission;
mod queries;
mod refused;
mod relayed;
mod replicas;
mod revalidation;
mod revocation;
mod shutdown;
mod side_channels;
mod sight;
mod slow_clients;
mod slow_upstream;
mod starved;
mod stock_clients;
mod streaming;
mod tunnels;
mod websocket;
