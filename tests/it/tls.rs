//! A client that speaks TLS, and what a proxy needs for it.

use crate::process::Folder;
use avatar_proxy::config::Config;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub(crate) const FIRST: (&str, &str) = (include_str!("certificates/first.pem"), include_str!("certificates/first.key"));
pub(crate) const SECOND: (&str, &str) =
    (include_str!("certificates/second.pem"), include_str!("certificates/second.key"));

/// Connects as a client that believes in both certificates and speaks these protocols, the best first; without any it does
/// not say.
pub(crate) async fn connect(to: SocketAddr, protocols: &[&str]) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    for (certificate, _) in [FIRST, SECOND] {
        roots.add(CertificateDer::from_pem_slice(certificate.as_bytes()).expect("PEM")).expect("a certificate");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring knows them")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let tcp = TcpStream::connect(to).await.expect("it listens");
    tcp.set_nodelay(true).expect("a socket");
    let name = ServerName::try_from("chat.example").expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await.expect("keys are agreed upon")
}

pub(crate) fn is_shown(stream: &TlsStream<TcpStream>, certificate: (&str, &str)) -> bool {
    let shown = stream.get_ref().1.peer_certificates().expect("a certificate");
    shown == [CertificateDer::from_pem_slice(certificate.0.as_bytes()).expect("PEM")]
}

/// Makes a proxy show this certificate.
pub(crate) fn encrypted(folder: &Folder, certificate: (&str, &str)) -> impl FnOnce(&mut Config) + use<> {
    let (certificate, key) = (folder.put("cert.pem", certificate.0), folder.put("key.pem", certificate.1));
    move |config| {
        config.server.tls.certificate = Some(certificate);
        config.server.tls.key = Some(key);
    }
}
