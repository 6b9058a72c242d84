//! The one gate from async to CPU: as many permits as cores, a bounded queue before them, a fence around the work. A
//! permit is a thread at work; a wide JPEG has up to three more for as long as it is decoded (see `render::decode`).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How much work may run and wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Pieces of work at once; 0 means one per core.
    pub permits: usize,
    /// Pieces of work that may wait for a permit.
    pub queue: usize,
    /// How long one may wait.
    pub queue_timeout: Duration,
}

/// Why a piece of work was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// As many as may wait are waiting.
    #[error("the render queue is full")]
    QueueFull,
    /// No permit came free in time.
    #[error("no render permit came free in time")]
    QueueTimeout,
    /// The work panicked.
    #[error("a codec panicked")]
    Panicked,
}

/// Runs pixel work on blocking threads.
pub struct RenderPool {
    permits: Arc<Semaphore>,
    waiting: AtomicUsize,
    settings: Settings,
}

/// A permit, for one piece of work after the other.
pub struct Turn {
    permit: Arc<OwnedSemaphorePermit>,
    /// How long it was waited for.
    pub waited: Duration,
}

impl Turn {
    /// Runs `work` on a blocking thread.
    ///
    /// # Errors
    /// It panicked.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, PoolError> {
        let permit = self.permit.clone();
        let fenced = move || {
            // The permit ends with the work and not with whoever waits for it: a client that leaves frees no core.
            let _permit = permit;
            step_back(Background::Render);
            catch_unwind(AssertUnwindSafe(work))
        };
        match tokio::task::spawn_blocking(fenced).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(_)) | Err(_) => Err(PoolError::Panicked),
        }
    }
}

/// Takes a place in the queue, and gives it back however the wait ends.
struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl RenderPool {
    /// A pool of that many permits.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let permits = if settings.permits == 0 { cores() } else { settings.permits };
        Self { permits: Arc::new(Semaphore::new(permits)), waiting: AtomicUsize::new(0), settings }
    }

    /// Runs `work` as soon as a permit is free; says also how long that took.
    ///
    /// # Errors
    /// The queue is full, the wait was too long, or `work` panicked; the permit is free again in every case.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<(T, Duration), PoolError> {
        let turn = self.turn().await?;
        Ok((turn.run(work).await?, turn.waited))
    }

    /// Waits for a permit. What is made under it may be held as long as the turn is: so it is bounded by the permits, and
    /// nothing of it waits in the queue.
    ///
    /// # Errors
    /// The queue is full, or the wait was too long.
    pub async fn turn(&self) -> Result<Turn, PoolError> {
        let asked = Instant::now();
        let permit = match self.permits.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => self.wait_for_permit().await?,
        };
        Ok(Turn { permit: Arc::new(permit), waited: asked.elapsed() })
    }

    /// Whether there is no permit to spare, or somebody waits for one.
    pub(super) fn is_pressed(&self) -> bool {
        self.permits.available_permits() == 0 || self.waiting.load(Ordering::Acquire) > 0
    }

    async fn wait_for_permit(&self) -> Result<OwnedSemaphorePermit, PoolError> {
        let place = Place(&self.waiting);
        if self.waiting.fetch_add(1, Ordering::AcqRel) >= self.settings.queue {
            return Err(PoolError::QueueFull);
        }
        let permit = tokio::time::timeout(self.settings.queue_timeout, self.permits.clone().acquire_owned()).await;
        drop(place);
        Ok(permit.map_err(|_| PoolError::QueueTimeout)?.expect("the semaphore is never closed"))
    }
}

/// Work that steps back behind the threads that answer requests: a hit must not wait for a core until it has had its
/// share. Where there is a core to spare that costs nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Background {
    /// Somebody waits for it.
    Render,
    /// Nobody does.
    Improvement,
    /// Nobody does, and it may be left without a core for long: it must hold no lock that others wait for.
    Encoder,
}

/// Lowers the priority of the thread that this runs on, once and for good.
#[cfg(target_os = "linux")]
pub(super) fn step_back(behind: Background) {
    thread_local! {
        static BEHIND: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
    }
    if !BEHIND.replace(true) {
        // On Linux a thread has a nice value and a policy of its own. Where that is forbidden it goes on as it is.
        let nice = match behind {
            Background::Render => 10,
            Background::Improvement | Background::Encoder => 19,
        };
        let _ = rustix::process::setpriority_process(None, nice);
        if behind == Background::Encoder {
            run_when_idle();
        }
    }
}

/// Has this thread run when its core is idle (`SCHED_IDLE`), as no nice value does: whoever wakes takes the core at once, not after
/// the milliseconds that the scheduler would let it go on. Whether that was allowed.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "rustix has no scheduling policies")]
fn run_when_idle() -> bool {
    // SAFETY: all of it is integers, for which zero is a value.
    let parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: the parameters outlive the call, which only reads them.
    unsafe { libc::pthread_setschedparam(libc::pthread_self(), libc::SCHED_IDLE, &raw const parameters) == 0 }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn step_back(_: Background) {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn pool(queue: usize, queue_timeout: Duration) -> Arc<RenderPool> {
        Arc::new(RenderPool::new(Settings { permits: 1, queue, queue_timeout }))
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_improvement_is_encoded_when_a_core_is_idle() {
        let policy = || {
            step_back(Background::Encoder);
            let status = std::fs::read_to_string("/proc/thread-self/stat").expect("Linux shows its threads");
            // The fields behind the name in brackets begin with the third; the nice value is the 19th, the policy the 41st.
            let fields = status.rsplit(')').next().expect("a name in brackets").split_whitespace();
            let fields: Vec<_> = fields.map(str::to_owned).collect();
            (fields[16].clone(), fields[38].clone(), run_when_idle())
        };
        let (nice, policy, allowed) = std::thread::spawn(policy).join().expect("it reads a file");
        assert_eq!((nice.as_str(), policy == "5"), ("19", allowed), "SCHED_IDLE is 5");
    }

    #[actix_web::test]
    async fn f42_a_panic_is_an_error_and_gives_the_permit_back() {
        let pool = pool(1, Duration::from_secs(5));
        assert_eq!(pool.run(|| panic!("a codec bug")).await.map(|((), _)| ()), Err(PoolError::Panicked));
        assert_eq!(pool.run(|| 7).await.map(|(n, _)| n), Ok(7));
    }

    #[actix_web::test]
    async fn f44_the_queue_is_bounded_in_length_and_time() {
        let pool = pool(1, Duration::from_millis(50));
        let (release, held) = mpsc::channel::<()>();
        let (started, running) = tokio::sync::oneshot::channel();
        let first = {
            let pool = pool.clone();
            actix_web::rt::spawn(async move {
                pool.run(move || {
                    started.send(()).expect("the test waits");
                    held.recv().expect("the test releases");
                })
                .await
                .map(|_| ())
            })
        };
        running.await.expect("the first piece of work starts");
        let second = {
            let pool = pool.clone();
            actix_web::rt::spawn(async move { pool.run(|| ()).await.map(|_| ()) })
        };
        while pool.waiting.load(Ordering::Acquire) == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(pool.run(|| ()).await.map(|_| ()), Err(PoolError::QueueFull));
        assert_eq!(second.await.expect("no panic"), Err(PoolError::QueueTimeout));
        release.send(()).expect("the work waits");
        assert_eq!(first.await.expect("no panic"), Ok(()));
        assert_eq!(pool.waiting.load(Ordering::Acquire), 0);
    }
}
