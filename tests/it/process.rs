//! The program itself, as a supervisor starts it: signals, limits and the environment are real.

use crate::client::PATIENCE;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// The program that is tested.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_avatar-proxy");

/// A folder that is gone with its test.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("avatar-proxy-it-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).expect("a temporary folder");
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file all at once, as whoever renews a certificate does.
    pub(crate) fn put(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let (path, fresh) = (self.path(name), self.path("fresh"));
        std::fs::write(&fresh, content).expect("a file");
        std::fs::rename(fresh, &path).expect("a file");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A running process; dropping it kills it.
pub(crate) struct Process {
    child: Child,
    lines: Receiver<String>,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Process {
    /// Sets up a process before `upstream` that logs JSON and listens where it can, unless the test says otherwise.
    pub(crate) fn command(program: impl AsRef<Path>, upstream: SocketAddr) -> Command {
        let mut command = Command::new(program.as_ref());
        command
            .env("AVATAR_PROXY__UPSTREAM__URL", format!("http://{upstream}"))
            .env("AVATAR_PROXY__SERVER__LISTEN", "127.0.0.1:0")
            .env("AVATAR_PROXY__SERVER__WORKERS", "2")
            .env("AVATAR_PROXY__ADMIN__LISTEN", "127.0.0.1:0")
            .env("AVATAR_PROXY__LOG__FORMAT", "json")
            .env("AVATAR_PROXY__LOG__REQUESTS", "false")
            .current_dir(std::env::temp_dir());
        command
    }

    /// Starts it and waits until it serves.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the program starts");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        let (tells, lines) = channel();
        std::thread::spawn(move || out.lines().map_while(Result::ok).all(|line| tells.send(line).is_ok()));
        let nowhere = SocketAddr::from(([0; 4], 0));
        let mut process = Self { child, lines, address: nowhere, admin: nowhere };
        let serving: serde_json::Value = serde_json::from_str(&process.says("\"serving\"")).expect("a line of JSON");
        let address = |field: &str| serving[field].as_str().and_then(|text| text.parse().ok()).expect("an address");
        (process.address, process.admin) = (address("listen"), address("admin"));
        process
    }

    /// Waits for a line of its log with `part` in it.
    pub(crate) fn says(&self, part: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let line = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now()));
            let line = line.unwrap_or_else(|_| panic!("it never said {part}"));
            if line.contains(part) {
                return line;
            }
        }
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let sent =
            Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().expect("kill is there");
        assert!(sent.success());
    }

    /// How much time it has spent on a processor.
    pub(crate) fn busy(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("it runs");
        let (_, fields) = stat.rsplit_once(") ").expect("proc(5)");
        // User and system time, in hundredths of a second.
        let ticks =
            fields.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum::<u64>();
        Duration::from_millis(10 * ticks)
    }

    /// The most memory that it has had so far, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("proc(5)");
        1024 * peak.trim().trim_end_matches(" kB").parse::<u64>().expect("a number")
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("our child") {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
