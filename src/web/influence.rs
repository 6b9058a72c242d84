//! How much one client may make others pay: what forgets pictures or ends grants makes upstream be asked again by
//! everybody, so it is bounded for each token and address. What exceeds it is still forwarded, and still ends what is the
//! client's own; the time that a grant lasts ends the rest.

use super::{Front, Inbound};
use crate::allowance::{Allowances, Payer, Rate, Settings};
use crate::caller::{Caller, Credentials};
use crate::telemetry::ChangeOutcome;
use crate::upstream::{Reply, UpstreamError};
use crate::variant::query::names_parameter;
use http::StatusCode;
use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);
/// Pictures that one token may have forgotten, and one address.
const CHANGES: Settings = settings(60, 600);
/// How often one token may end everybody's grants, and one address.
const ENDINGS: Settings = settings(10, 100);

const fn settings(caller: u32, address: u32) -> Settings {
    Settings { caller: Some(a_minute(caller)), address: Some(a_minute(address)) }
}

const fn a_minute(count: u32) -> Rate {
    Rate { count, per: MINUTE }
}

/// What is left to each client.
pub struct Influence {
    changes: Allowances,
    endings: Allowances,
}

impl Default for Influence {
    fn default() -> Self {
        Self { changes: Allowances::new(CHANGES), endings: Allowances::new(ENDINGS) }
    }
}

/// Who a request is from, as far as its fields tell.
#[derive(Clone, Copy)]
pub(super) struct Sender {
    /// Where that can be told for certain.
    pub(super) caller: Option<Caller>,
    /// It does not say who it is from.
    pub(super) anonymous: bool,
    /// Whose misses are counted.
    pub(super) misses: Payer,
    changes: Payer,
    endings: Payer,
}

impl Sender {
    /// The sender of a request.
    pub(super) fn of(front: &Front, inbound: &Inbound) -> Self {
        let credentials = Credentials::of(inbound.fields.iter());
        let (token, influence) = (credentials.presented().unwrap_or_default(), &front.influence);
        let named = credentials.are_present() || credentials.are_of_a_server();
        Self {
            caller: front.stands_for(&credentials, &inbound.fields),
            anonymous: !named && !names_parameter(&inbound.query, b"access_token"),
            misses: front.avatars.payer(token, inbound.client),
            changes: influence.changes.payer(token, inbound.client),
            endings: influence.endings.payer(token, inbound.client),
        }
    }

    /// Whether this sender may have a picture forgotten before anybody knows what upstream makes of it.
    pub(super) fn may_forget(&self, front: &Front) -> bool {
        !self.anonymous && front.influence.changes.spend(self.changes, Instant::now()).is_ok()
    }

    /// Whether this sender may end everybody's grants.
    pub(super) fn may_end_all(&self, front: &Front) -> bool {
        front.influence.endings.spend(self.endings, Instant::now()).is_ok()
    }

    /// Whether upstream has lately said to this sender that it knows it.
    pub(super) fn is_known(&self, front: &Front) -> bool {
        self.caller.is_some_and(|caller| front.avatars.knows(&caller, Instant::now()))
    }
}

/// What a request that is to change something came to, by upstream's answer.
pub(super) fn outcome(answer: &Result<Reply, UpstreamError>) -> ChangeOutcome {
    match answer.as_ref().map(|reply| reply.head.status) {
        Ok(status) if status.is_success() => ChangeOutcome::Accepted,
        // The router sends to another path; or the feature is not there.
        Ok(StatusCode::MOVED_PERMANENTLY | StatusCode::PERMANENT_REDIRECT | StatusCode::NOT_IMPLEMENTED) => {
            ChangeOutcome::Refused
        }
        Ok(status) if status.is_client_error() => ChangeOutcome::Refused,
        // It was never asked.
        Err(UpstreamError::Unreachable(_) | UpstreamError::Overloaded) => ChangeOutcome::Refused,
        Ok(_) | Err(_) => ChangeOutcome::Unknown,
    }
}
