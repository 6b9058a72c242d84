//! Why upstream gave no answer, told from what either HTTP client says.

use super::body::Aborted;
use super::connect::ConnectError;
use super::headers::FramedTwice;
use std::error::Error;

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

impl From<hyper_util::client::legacy::Error> for UpstreamError {
    fn from(error: hyper_util::client::legacy::Error) -> Self {
        if !error.is_connect() {
            return broken_or_aborted(&error);
        }
        match find::<ConnectError>(&error) {
            Some(ConnectError::TooMany) => Self::Overloaded,
            _ => Self::Unreachable(causes(&error)),
        }
    }
}

impl From<FramedTwice> for UpstreamError {
    fn from(error: FramedTwice) -> Self {
        Self::Broken(error.to_string())
    }
}

impl From<hyper::Error> for UpstreamError {
    fn from(error: hyper::Error) -> Self {
        broken_or_aborted(&error)
    }
}

fn broken_or_aborted(error: &(dyn Error + 'static)) -> UpstreamError {
    if find::<Aborted>(error).is_some() { UpstreamError::ClientAborted } else { UpstreamError::Broken(causes(error)) }
}

/// The first of an error and its causes that is an `E`.
pub(super) fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    chain(error).find_map(|error| error.downcast_ref::<E>())
}

/// What is at the root of an error, in one line; addresses are told apart from anything a client sent, which is not in it.
pub(super) fn causes(error: &(dyn Error + 'static)) -> String {
    // reqwest's outermost text carries the URL with its query; what lies beneath does not.
    chain(error).skip(1).last().map_or_else(|| "no cause named".to_owned(), ToString::to_string)
}

/// An error and its causes, the innermost last.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}
