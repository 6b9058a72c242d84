//! What the proxy tells of itself: metrics to Prometheus and lines to a log, neither of which can hold a secret.

mod histogram;
mod labels;
mod log_writer;
mod logs;
mod metrics;
mod series;

pub use labels::{
    CacheName, ChangeOutcome, Ended, Fault, Heard, Improvement, LessonOutcome, Outcome, ProofKind, Reason, Route,
    Stage, StatusClass, UpstreamKind,
};
pub use log_writer::LogGuard;
pub use logs::{LogError, LogFormat, LogLevel, LogSettings, RequestLine, init_logs, log_request};
pub use metrics::{Answered, CacheLevel, CacheLevels, Counted, Telemetry};
