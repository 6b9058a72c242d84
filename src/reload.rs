//! What a running process takes from its files when it is told to read them again, and what it says it does not.

use crate::config::keys::{KEYS, Key};
use crate::config::{Config, Sources};
use crate::listen::Certificate;
use crate::telemetry::LogLevel;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::oneshot;

/// The key that is taken over; beside it the files of the certificate, under whatever name they had at the start.
const TAKEN_OVER: &str = "log.level";
/// The key whose file is read with the configuration.
const ROOTS: &str = "upstream.ca_file";

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

/// [`Reload::again`] on a thread of its own: a file may be where reading hangs, and signals must not wait for that. Nor
/// must the end of the process, which would wait for a thread of the runtime's.
///
/// # Errors
/// There is no thread to be had, or it did not come to its end.
pub async fn again_aside(reload: &Arc<Mutex<Reload>>) -> io::Result<()> {
    let (reload, (tell, told)) = (reload.clone(), oneshot::channel());
    std::thread::Builder::new().name("reload".to_owned()).spawn(move || {
        reload.lock().unwrap_or_else(PoisonError::into_inner).again();
        // Perhaps the process stops by now.
        let _ = tell.send(());
    })?;
    told.await.map_err(io::Error::other)
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

/// The keys that differ, by what they say or by what is in the file that they name.
fn changed(one: &Config, other: &Config) -> Vec<String> {
    let certificates = one.upstream.ca_file != other.upstream.ca_file;
    let differs = |key: &&Key| key.show(one) != key.show(other) || (certificates && key.path() == ROOTS);
    KEYS.iter().filter(differs).map(Key::path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Roots;
    use rcgen::{CertificateParams, KeyPair};

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

    #[test]
    fn other_certificates_in_the_same_file_need_a_restart() {
        let path = std::env::temp_dir().join(format!("avatar-proxy-reload-{}.pem", std::process::id()));
        let read = |certificates: &[&str]| {
            std::fs::write(&path, certificates.concat()).expect("a temporary file");
            let mut read = Config::default();
            read.upstream.ca_file = Some(Roots::read(&path).expect("certificates"));
            read
        };
        let [one, other] = [(); 2].map(|()| {
            let key = KeyPair::generate().expect("a key");
            CertificateParams::new(Vec::new()).expect("no names").self_signed(&key).expect("a certificate").pem()
        });
        let running = read(&[&one]);
        assert_eq!(changed(&running, &read(&[&one])), Vec::<String>::new());
        assert_eq!(changed(&running, &read(&[&other])), ["upstream.ca_file"]);
        assert_eq!(changed(&running, &read(&[&one, &other])), ["upstream.ca_file"]);
        std::fs::remove_file(&path).expect("it was written");
    }
}
