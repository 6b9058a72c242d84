//! What the stand-in has seen: counters, and the last requests as they came in.

use std::collections::VecDeque;

use actix_web::http::StatusCode;
use actix_web::http::header::HeaderMap;

use super::routes::Endpoint;

/// How many received requests are remembered.
const REMEMBERED: usize = 10_000;

/// Counts since the start.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Counts {
    /// Every request.
    pub requests: u64,
    /// GETs of a picture, whatever the answer.
    pub picture_requests: u64,
    /// Picture answers with a body (200).
    pub pictures: u64,
    /// The bytes of those bodies, before gzip.
    pub picture_bytes: u64,
    /// Picture answers without a body because the validator matched (304).
    pub not_modified: u64,
    /// Picture answers that are 401, 403 or 404.
    pub picture_refusals: u64,
    /// The most picture requests that were open at once.
    pub most_pictures_at_once: u64,
    /// Requests for a list of full user records, whatever the answer.
    pub list_requests: u64,
    /// Answers 401 on any route.
    pub unauthorized: u64,
    /// Answers 403 on any route.
    pub forbidden: u64,
    /// Answers 404 on any route.
    pub not_found: u64,
    /// Changes of a picture or icon that were answered 200.
    pub uploads: u64,
    /// Resets and removals of a picture or icon that were answered 200.
    pub resets: u64,
    /// `WebSockets` that were opened.
    pub websockets: u64,
}

/// One request as it came in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Received {
    /// The method.
    pub method: String,
    /// Path and query byte for byte as they stood in the request line.
    pub target: String,
    /// The headers in lower case, the lines of one name in their order.
    pub headers: Vec<(String, String)>,
}

impl Received {
    /// The first line of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// The counters and the log together.
#[derive(Default, Debug)]
pub(super) struct Ledger {
    pub(super) counts: Counts,
    open_pictures: u64,
    received: VecDeque<Received>,
}

impl Ledger {
    pub(super) fn note_request(&mut self, method: &str, target: &str, headers: &HeaderMap) {
        self.counts.requests += 1;
        if self.received.len() == REMEMBERED {
            self.received.pop_front();
        }
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        self.received.push_back(Received {
            method: method.to_owned(),
            target: target.to_owned(),
            headers: headers.iter().map(|(name, value)| (name.to_string(), text(value.as_bytes()))).collect(),
        });
    }

    pub(super) fn picture_begins(&mut self) {
        self.open_pictures += 1;
        self.counts.most_pictures_at_once = self.counts.most_pictures_at_once.max(self.open_pictures);
    }

    pub(super) fn picture_ends(&mut self) {
        self.open_pictures -= 1;
    }

    pub(super) fn note_answer(&mut self, endpoint: Option<&Endpoint>, status: StatusCode, body: usize) {
        let counts = &mut self.counts;
        let picture = endpoint.is_some_and(Endpoint::is_picture);
        let refused = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND);
        counts.picture_requests += u64::from(picture);
        counts.picture_refusals += u64::from(picture && refused);
        counts.list_requests += u64::from(endpoint.is_some_and(Endpoint::is_list));
        match status {
            StatusCode::OK if picture => {
                counts.pictures += 1;
                counts.picture_bytes += u64::try_from(body).unwrap_or(u64::MAX);
            }
            StatusCode::NOT_MODIFIED if picture => counts.not_modified += 1,
            StatusCode::UNAUTHORIZED => counts.unauthorized += 1,
            StatusCode::FORBIDDEN => counts.forbidden += 1,
            StatusCode::NOT_FOUND => counts.not_found += 1,
            StatusCode::SWITCHING_PROTOCOLS => counts.websockets += 1,
            StatusCode::OK => match endpoint {
                Some(Endpoint::ChangeUserImage(_) | Endpoint::ChangeTeamImage(_)) => {
                    counts.uploads += 1;
                }
                Some(Endpoint::ResetUserImage(_) | Endpoint::RemoveTeamImage(_)) => {
                    counts.resets += 1;
                }
                _ => {}
            },
            _ => {}
        }
    }

    pub(super) fn received(&self) -> Vec<Received> {
        self.received.iter().cloned().collect()
    }

    pub(super) fn forget(&mut self) {
        self.received.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_kind() {
        let mut ledger = Ledger::default();
        let image = Endpoint::UserImage("x".to_owned());
        let change = Endpoint::ChangeUserImage("x".to_owned());
        ledger.note_answer(Some(&image), StatusCode::OK, 10);
        ledger.note_answer(Some(&image), StatusCode::NOT_MODIFIED, 0);
        ledger.note_answer(Some(&change), StatusCode::OK, 2);
        ledger.note_answer(None, StatusCode::NOT_FOUND, 0);
        ledger.note_answer(Some(&image), StatusCode::FORBIDDEN, 0);
        ledger.note_answer(Some(&Endpoint::ListUsers), StatusCode::OK, 2);
        for _ in 0..2 {
            ledger.picture_begins();
        }
        ledger.picture_ends();
        ledger.picture_begins();
        let expected = Counts {
            picture_requests: 3,
            pictures: 1,
            picture_bytes: 10,
            not_modified: 1,
            uploads: 1,
            not_found: 1,
            forbidden: 1,
            picture_refusals: 1,
            list_requests: 1,
            most_pictures_at_once: 2,
            ..Counts::default()
        };
        assert_eq!(ledger.counts, expected);
    }

    #[test]
    fn the_log_is_bounded() {
        let mut ledger = Ledger::default();
        for number in 0..=REMEMBERED {
            ledger.note_request("GET", &format!("/{number}"), &HeaderMap::new());
        }
        let received = ledger.received();
        assert_eq!((received.len(), received[0].target.as_str()), (REMEMBERED, "/1"));
    }
}
