//! Readiness: whether this process should be sent requests. Upstream is asked at most once in a while, however often
//! that question comes.

use futures_util::future::LocalBoxFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Asks upstream for `GET <base>/api/v4/system/ping`.
pub type Ping = Box<dyn Fn() -> LocalBoxFuture<'static, Result<(), NotReady>> + Send + Sync>;

/// Why no requests should be sent here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// The process was told to stop.
    #[error("draining")]
    Draining,
    /// Upstream could not be connected to, or broke off.
    #[error("upstream is unreachable")]
    Unreachable,
    /// Upstream did not answer in time.
    #[error("upstream did not answer in time")]
    TimedOut,
    /// Upstream answered, but not 200.
    #[error("upstream answered {0}")]
    Status(http::StatusCode),
}

/// How upstream is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadinessSettings {
    /// How long it may take to answer.
    pub timeout: Duration,
    /// How long the answer stands, so that many probes are one request upstream.
    pub remember: Duration,
}

impl Default for ReadinessSettings {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(3), remember: Duration::from_secs(1) }
    }
}

/// A handle to one process's readiness; clones are the same.
#[derive(Clone)]
pub struct Readiness(Arc<Shared>);

struct Shared {
    ping: Ping,
    settings: ReadinessSettings,
    draining: AtomicBool,
    /// The last answer. Held while upstream is asked, so that probes at the same time wait for one answer.
    last: tokio::sync::Mutex<Option<(Instant, Result<(), NotReady>)>>,
}

impl Readiness {
    /// Ready when `ping` says so.
    #[must_use]
    pub fn new(ping: Ping, settings: ReadinessSettings) -> Self {
        let last = tokio::sync::Mutex::new(None);
        Self(Arc::new(Shared { ping, settings, draining: AtomicBool::new(false), last }))
    }

    /// From now on this process is not ready: it stops.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }

    /// Whether requests should be sent here.
    ///
    /// # Errors
    /// Says why not.
    pub async fn check(&self) -> Result<(), NotReady> {
        let answer = if self.is_draining() { Ok(()) } else { self.ask_upstream().await };
        // Looked at once more: the order to stop may have come while upstream was asked.
        if self.is_draining() { Err(NotReady::Draining) } else { answer }
    }

    fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Relaxed)
    }

    async fn ask_upstream(&self) -> Result<(), NotReady> {
        let ReadinessSettings { timeout, remember } = self.0.settings;
        let mut last = self.0.last.lock().await;
        if let Some((asked, answer)) = *last
            && asked.elapsed() < remember
        {
            return answer;
        }
        let answer = tokio::time::timeout(timeout, (self.0.ping)()).await.unwrap_or(Err(NotReady::TimedOut));
        *last = Some((Instant::now(), answer));
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::{FutureExt, join_all, pending, ready};
    use std::sync::atomic::AtomicUsize;

    fn counted(answer: Result<(), NotReady>) -> (Ping, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let ping: Ping = Box::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
            // Lets others run in between, as a real request does.
            tokio::task::yield_now().then(move |()| ready(answer)).boxed_local()
        });
        (ping, asked)
    }

    #[tokio::test]
    async fn many_probes_are_one_question() {
        let (ping, asked) = counted(Ok(()));
        let remember = Duration::from_secs(3600);
        let readiness = Readiness::new(ping, ReadinessSettings { remember, ..ReadinessSettings::default() });
        let answers = join_all((0..50).map(|_| readiness.check())).await;
        assert!(answers.iter().all(Result::is_ok));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn an_answer_does_not_stand_for_ever() {
        let (ping, asked) = counted(Err(NotReady::Unreachable));
        let remember = Duration::ZERO;
        let readiness = Readiness::new(ping, ReadinessSettings { remember, ..ReadinessSettings::default() });
        for _ in 0..3 {
            assert_eq!(readiness.check().await, Err(NotReady::Unreachable));
        }
        assert_eq!(asked.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn silence_is_a_time_out() {
        let ping: Ping = Box::new(|| pending().boxed_local());
        let timeout = Duration::from_millis(10);
        let readiness = Readiness::new(ping, ReadinessSettings { timeout, ..ReadinessSettings::default() });
        assert_eq!(readiness.check().await, Err(NotReady::TimedOut));
    }

    #[tokio::test]
    async fn who_drains_asks_nobody() {
        let (ping, asked) = counted(Ok(()));
        let readiness = Readiness::new(ping, ReadinessSettings::default());
        readiness.clone().drain();
        assert_eq!(readiness.check().await, Err(NotReady::Draining));
        assert_eq!(asked.load(Ordering::Relaxed), 0);
    }
}
