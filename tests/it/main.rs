//! Behaviour on real sockets: a proxy as it is deployed, a client that sends raw bytes, and an upstream that answers
//! with raw bytes. `client`, `upstream`, `proxy` and `pictures` are the stage; each other module is a group of tests.
//! A number in a test's name is a row of the fault table that the proxy was built by.

mod client;
mod pictures;
mod proxy;
mod upstream;

mod caching;
mod faults;
mod invalidation;
mod limits;
mod passthrough;
mod permission;
mod queries;
mod relayed;
mod revalidation;
mod shutdown;
mod websocket;
