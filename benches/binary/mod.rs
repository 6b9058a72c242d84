//! The real binary as a child process.

use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, ExitStatus, Stdio};

/// Killed when dropped.
pub(crate) struct Proxy {
    process: Child,
    pub(crate) address: SocketAddr,
}

impl Proxy {
    /// One worker and no log line a request; `settings` by the names of their environment variables without the prefix.
    pub(crate) fn start(upstream: &str, settings: &[(&str, &str)]) -> Self {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), upstream, settings)
    }

    /// [`Proxy::start`] on a given address.
    pub(crate) fn start_at(listen: SocketAddr, upstream: &str, settings: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_avatar-proxy"));
        command.args(["--upstream", upstream, "--listen", &listen.to_string()]);
        let usual =
            [("SERVER__WORKERS", "1"), ("ADMIN__LISTEN", ""), ("LOG__REQUESTS", "false"), ("LOG__FORMAT", "json")];
        for (name, value) in usual.iter().chain(settings) {
            command.env(format!("AVATAR_PROXY__{name}"), value);
        }
        let mut process = command.stdout(Stdio::piped()).spawn().expect("the program starts");
        let lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        let listen = |line: std::io::Result<String>| {
            let line: serde_json::Value = serde_json::from_str(&line.ok()?).expect("a log line");
            line["listen"].as_str()?.parse().ok()
        };
        let address = lines.into_iter().find_map(listen).expect("it says where it listens");
        Self { process, address }
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).expect("it runs");
    }

    /// Lets it drain.
    pub(crate) fn stop(mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.process.wait().expect("a child of ours")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
