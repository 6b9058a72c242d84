//! The log's way out: a thread of its own behind a bounded queue, so that a full disk, a closed pipe or a slow reader
//! costs lines, which are counted, and never a request.

use prometheus_client::metrics::counter::Counter;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};
use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait; about 2 MiB of ordinary ones.
const LINES_AT_MOST: usize = 8192;

/// Longer lines are dropped: nothing that is logged here comes near.
const LINE_BYTES_AT_MOST: usize = 16 << 10;

/// What is written at once, about, in bytes.
const BATCH_BYTES: usize = 64 << 10;

/// How long lines gather before they are written.
const GATHERING: Duration = Duration::from_millis(10);

/// How long [`LogGuard`] waits for the last lines. A reader that stands still must not hold up the end.
const LAST_LINES: Duration = Duration::from_secs(1);

enum Message {
    Line(Vec<u8>),
    End(SyncSender<()>),
}

/// Hands lines to the thread.
#[derive(Clone)]
pub(super) struct LogWriter {
    lines: SyncSender<Message>,
    dropped: Counter,
}

/// Brings the last lines out when it is dropped; hold it in `main`.
#[derive(Debug)]
#[must_use = "the last lines are lost without it"]
pub struct LogGuard {
    lines: SyncSender<Message>,
}

impl LogWriter {
    /// Starts the thread that writes to `out`; lines that it cannot write, or that do not fit into the queue, are counted
    /// in `dropped`.
    pub(super) fn start(out: impl Write + Send + 'static, dropped: Counter) -> io::Result<(Self, LogGuard)> {
        let (lines, queue) = sync_channel(LINES_AT_MOST);
        let failed = dropped.clone();
        std::thread::Builder::new().name("log".to_owned()).spawn(move || write_lines(out, &queue, &failed))?;
        Ok((Self { lines: lines.clone(), dropped }, LogGuard { lines }))
    }
}

/// Writes what has gathered, as much at once as there is, and lets more gather: to be woken for every line would cost the
/// one who wrote it more than to write it.
fn write_lines(mut out: impl Write, queue: &Receiver<Message>, failed: &Counter) {
    let mut batch = Vec::new();
    while let Ok(mut message) = queue.recv() {
        let mut end = None;
        loop {
            match message {
                Message::Line(line) => batch.extend_from_slice(&line),
                Message::End(done) => end = Some(done),
            }
            if end.is_some() || batch.len() >= BATCH_BYTES {
                break;
            }
            let Ok(next) = queue.try_recv() else { break };
            message = next;
        }
        let written = write_all_it_takes(&mut out, &batch);
        failed.inc_by(batch[written..].split(|byte| *byte == b'\n').skip(1).count() as u64);
        if let Some(done) = end {
            // Nobody waits any longer: the second is over.
            let _ = done.try_send(());
            return;
        }
        if batch.len() < BATCH_BYTES {
            std::thread::sleep(GATHERING);
        }
        batch.clear();
    }
}

/// How many of the bytes `out` took before it failed, if it did.
fn write_all_it_takes(out: &mut impl Write, bytes: &[u8]) -> usize {
    let mut written = 0;
    while written < bytes.len() {
        match out.write(&bytes[written..]) {
            Ok(0) => break,
            Ok(more) => written += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    // What cannot be flushed now will not be told apart later.
    if out.flush().is_ok() { written } else { 0 }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        let deadline = Instant::now() + LAST_LINES;
        let (done, ended) = sync_channel(1);
        let mut end = Message::End(done);
        // The queue may be full of lines that are still being written, and there is no `send_timeout`.
        while let Err(std::sync::mpsc::TrySendError::Full(back)) = self.lines.try_send(end) {
            if Instant::now() >= deadline {
                return;
            }
            end = back;
            std::thread::sleep(Duration::from_millis(5));
        }
        match ended.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(()) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
    }
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { bytes: Vec::with_capacity(512), to: self }
    }
}

/// One line while it is formatted; dropping it hands it over.
pub(super) struct Line<'a> {
    bytes: Vec<u8>,
    to: &'a LogWriter,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let line = std::mem::take(&mut self.bytes);
        if line.len() > LINE_BYTES_AT_MOST || self.to.lines.try_send(Message::Line(line)).is_err() {
            self.to.dropped.inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Sender, channel};
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no writer panics").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Says that it was reached and stands still until it is let go.
    struct Stuck {
        reached: Sender<()>,
        go: Receiver<()>,
    }

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.reached.send(());
            let _ = self.go.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Full;

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::Error::other("no space left"))
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn say(writer: &LogWriter, text: &str) {
        writer.make_writer().write_all(text.as_bytes()).expect("a line takes every write");
    }

    #[test]
    fn lines_arrive_in_order_before_the_end() {
        let (kept, dropped) = (Kept::default(), Counter::default());
        let (writer, guard) = LogWriter::start(kept.clone(), dropped.clone()).expect("a thread");
        for line in ["one\n", "two\n"] {
            say(&writer, line);
        }
        drop(guard);
        assert_eq!(*kept.0.lock().expect("no writer panics"), b"one\ntwo\n");
        assert_eq!(dropped.get(), 0);
    }

    #[test]
    fn f55_a_reader_that_stands_still_costs_lines_only() {
        let (reached, stuck) = channel();
        let (release, go) = channel();
        let dropped = Counter::default();
        let (writer, guard) = LogWriter::start(Stuck { reached, go }, dropped.clone()).expect("a thread");
        say(&writer, "taken\n");
        stuck.recv().expect("the writer was reached");
        for _ in 0..LINES_AT_MOST + 5 {
            say(&writer, "waiting\n");
        }
        assert_eq!(dropped.get(), 5);
        drop(release);
        drop(guard);
    }

    #[test]
    fn f55_a_full_disk_costs_lines_only() {
        let dropped = Counter::default();
        let (writer, guard) = LogWriter::start(Full, dropped.clone()).expect("a thread");
        say(&writer, "lost\n");
        say(&writer, &"x".repeat(LINE_BYTES_AT_MOST + 1));
        drop(guard);
        assert_eq!(dropped.get(), 2);
    }
}
