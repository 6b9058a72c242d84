//! Why upstream gave no answer, told from what either HTTP client says.

use super::connect::ConnectError;
use super::headers::FramedTwice;
use std::error::Error;
use std::io;

/// Why upstream gave no answer that could be passed on.
#[derive(Debug, Clone, thiserror::Error)]
pub enum UpstreamError {
    /// No connection could be made, so nothing was sent.
    #[error("upstream cannot be reached: {0}")]
    Unreachable(String),
    /// A time-out passed.
    #[error("upstream did not answer in time")]
    TimedOut,
    /// The connection broke, or what came over it was no HTTP.
    #[error("upstream broke off: {0}")]
    Broken(String),
    /// The client broke its own request off.
    #[error("the client's body broke off")]
    ClientAborted,
    /// The client stopped sending its own request.
    #[error("the client's body stalled")]
    ClientStalled,
    /// Too many requests are under way and none ended in time, so nothing was sent.
    #[error("too many requests are under way")]
    Overloaded,
}

impl From<reqwest::Error> for UpstreamError {
    fn from(error: reqwest::Error) -> Self {
        // Before the time-out: one that passed while connecting is no silence of upstream's.
        if error.is_connect() {
            Self::Unreachable(causes(&error))
        } else if error.is_timeout() {
            Self::TimedOut
        } else {
            Self::Broken(causes(&error))
        }
    }
}

impl From<ConnectError> for UpstreamError {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::TooMany => Self::Overloaded,
            error => Self::Unreachable(root(&error)),
        }
    }
}

impl From<FramedTwice> for UpstreamError {
    fn from(error: FramedTwice) -> Self {
        Self::Broken(error.to_string())
    }
}

/// Whether a connection ended where an answer should have begun, unlike one over which came no HTTP.
pub(super) fn lost_connection(error: &(dyn Error + 'static)) -> bool {
    find::<hyper::Error>(error).is_some_and(hyper::Error::is_incomplete_message) || find::<io::Error>(error).is_some()
}

/// The first of an error and its causes that is an `E`.
pub(super) fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    chain(error).find_map(|error| error.downcast_ref::<E>())
}

/// What is at the root of one of reqwest's errors, in one line; addresses are told apart from anything a client sent, which
/// is not in it.
pub(super) fn causes(error: &reqwest::Error) -> String {
    // Its outermost text carries the URL with its query; what lies beneath does not.
    error.source().map_or_else(|| "no cause named".to_owned(), root)
}

/// What is at the root of an error, in one line.
fn root(error: &(dyn Error + 'static)) -> String {
    chain(error).last().map_or_else(String::new, ToString::to_string)
}

/// An error and its causes, the innermost last.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}
