//! What a running process takes from its files when it is told to read them again, and what it says it does not.

use crate::config::keys::KEYS;
use crate::config::{Config, Sources};
use crate::listen::Certificate;
use crate::telemetry::LogLevel;

/// The key that is taken over; beside it the files of the certificate, under whatever name they had at the start.
const TAKEN_OVER: &str = "log.level";

/// What can be changed while the process runs.
#[derive(Debug)]
pub struct Reload {
    /// What the configuration is read from.
    pub sources: Sources,
    /// The one that is in effect.
    pub running: Config,
    /// The level of the log.
    pub level: LogLevel,
    /// What is shown to clients that speak HTTPS.
    pub certificate: Option<Certificate>,
}

impl Reload {
    /// Reads everything again, and logs what came of it. What is no good changes nothing.
    pub fn again(&mut self) {
        if let Some(certificate) = &self.certificate {
            match certificate.reload() {
                Ok(()) => tracing::info!("the certificate was read again"),
                Err(error) => tracing::error!(%error, "the certificate stays as it was"),
            }
        }
        match Config::load(&self.sources) {
            Ok(loaded) => self.take_over(&loaded.config),
            Err(error) => tracing::error!(%error, "the configuration stays as it was"),
        }
    }

    fn take_over(&mut self, read: &Config) {
        if self.running.log.level != read.log.level {
            self.level.set(read.log.level);
            self.running.log.level = read.log.level;
            tracing::info!(level = %read.log.level, "{TAKEN_OVER} was changed");
        }
        let waiting = changed(&self.running, read);
        if !waiting.is_empty() {
            tracing::warn!(keys = waiting.join(", "), "what was changed of these keys needs a restart");
        }
    }
}

/// The keys that differ.
fn changed(one: &Config, other: &Config) -> Vec<String> {
    KEYS.iter().filter(|key| key.show(one) != key.show(other)).map(crate::config::keys::Key::path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_a_restart_is_named() {
        let running = Config::default();
        assert_eq!(changed(&running, &running), Vec::<String>::new());
        let mut read = running.clone();
        read.server.workers = 3;
        read.server.tls.key = Some("key.pem".into());
        read.log.requests = false;
        assert_eq!(changed(&running, &read), ["server.workers", "server.tls.key", "log.requests"]);
    }
}
