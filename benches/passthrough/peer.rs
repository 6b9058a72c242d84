//! What stands between the load and upstream: nginx or this proxy, as a child process on a core of its own.

use crate::binary::Proxy;
use crate::cores::run_on;
use crate::{LOAD, PEER};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long nginx may take to listen.
const STARTS: Duration = Duration::from_secs(10);

/// Both, freshly started, before the same upstream.
pub(crate) struct Peers {
    /// Where it is installed.
    pub(crate) nginx: Option<Peer>,
    pub(crate) ours: Peer,
}

/// A running one; dropping it ends it.
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    id: u32,
    _process: Process,
}

#[expect(dead_code, reason = "they are held to be dropped")]
enum Process {
    Nginx(Nginx),
    Proxy(Proxy),
}

impl Peers {
    pub(crate) fn start(upstream: SocketAddr) -> Self {
        run_on(PEER);
        let nginx = Nginx::start(upstream).map(|nginx| Peer {
            address: nginx.address,
            id: nginx.process.id(),
            _process: Process::Nginx(nginx),
        });
        // The file limit of this machine may stand for fewer, and whoever is one too many waits for another's end.
        let proxy = Proxy::start(&format!("http://{upstream}"), &[("SERVER__MAX_CONNECTIONS", "12000")]);
        run_on(LOAD);
        let ours = Peer { address: proxy.address, id: proxy.id(), _process: Process::Proxy(proxy) };
        Self { nginx, ours }
    }

    /// Each with its name, nginx first.
    pub(crate) fn each(&self) -> impl Iterator<Item = (&'static str, &Peer)> {
        self.nginx.iter().map(|nginx| ("nginx", nginx)).chain([("avatar-proxy", &self.ours)])
    }
}

impl Peer {
    /// The CPU time of all its threads so far, to the nanosecond (`sched-stats.rst` of the kernel's documentation).
    pub(crate) fn cpu(&self) -> Duration {
        let threads = std::fs::read_dir(self.file("task")).expect("the process lives");
        let spent = threads.filter_map(|thread| {
            // A thread that has just ended has nothing to say.
            let stat = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
            stat.split(' ').next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(spent.sum())
    }

    /// What it holds of the machine's memory (`Pss`), in bytes.
    pub(crate) fn memory(&self) -> u64 {
        self.kib("smaps_rollup", "Pss:") << 10
    }

    /// What it has resident, in bytes.
    pub(crate) fn resident(&self) -> u64 {
        self.kib("status", "VmRSS:") << 10
    }

    /// The most that it ever had resident, in bytes.
    pub(crate) fn peak(&self) -> u64 {
        self.kib("status", "VmHWM:") << 10
    }

    fn kib(&self, file: &str, name: &str) -> u64 {
        let text = std::fs::read_to_string(self.file(file)).expect("the process lives");
        let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel accounts for it");
        line.split_whitespace().next().and_then(|kib| kib.parse().ok()).expect("a number")
    }

    fn file(&self, name: &str) -> PathBuf {
        Path::new("/proc").join(self.id.to_string()).join(name)
    }
}

/// Whether there is anything to compare with.
pub(crate) fn has_nginx() -> bool {
    Command::new("nginx").arg("-v").stderr(Stdio::null()).status().is_ok()
}

/// One process, which is worker and master, with a folder of its own; both go when it is dropped.
struct Nginx {
    process: Child,
    folder: PathBuf,
    address: SocketAddr,
}

impl Nginx {
    /// `None` where it is not installed.
    fn start(upstream: SocketAddr) -> Option<Self> {
        if !has_nginx() {
            return None;
        }
        // It cannot say which port it was given.
        let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
        let folder = std::env::temp_dir().join(format!("passthrough-{}-{}", std::process::id(), free.port()));
        std::fs::create_dir(&folder).expect("a folder of its own");
        let configuration = include_str!("nginx.conf")
            .replace("@LISTEN@", &free.to_string())
            .replace("@UPSTREAM@", &upstream.to_string());
        std::fs::write(folder.join("nginx.conf"), configuration).expect("written");
        let mut command = Command::new("nginx");
        command.arg("-p").arg(&folder).args(["-c", "nginx.conf"]).stderr(Stdio::null());
        let process = command.spawn().expect("nginx starts");
        let nginx = Self { process, folder, address: free };
        nginx.wait().expect("nginx listens");
        Some(nginx)
    }

    fn wait(&self) -> io::Result<()> {
        let deadline = Instant::now() + STARTS;
        loop {
            match TcpStream::connect(self.address) {
                Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
                connected => return connected.map(drop),
            }
        }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
        _ = std::fs::remove_dir_all(&self.folder);
    }
}
