//! The real binary as a child process.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

/// Killed when dropped.
pub(crate) struct Proxy {
    process: Child,
    pub(crate) address: SocketAddr,
}

impl Proxy {
    /// One worker and no log line a request; `settings` by the names of their environment variables without the prefix.
    pub(crate) fn start(upstream: &str, settings: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_avatar-proxy"));
        command.args(["--upstream", upstream, "--listen", "127.0.0.1:0"]);
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
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
