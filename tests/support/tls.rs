//! A TLS client that trusts everybody: what it checks, it checks by hand.

#![allow(dead_code)] // Each test file uses its own part of this.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme, StreamOwned,
};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

/// A connection inside TLS.
pub struct Tls(pub StreamOwned<ClientConnection, TcpStream>);

#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer,
        _: &[CertificateDer],
        _: &ServerName,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            dss,
            &default_provider().signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}

pub fn config(alpn: &[&[u8]]) -> Arc<ClientConfig> {
    let mut c = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    c.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    Arc::new(c)
}

impl Tls {
    /// Shakes hands on a connection, with that server name.
    pub fn start(tcp: TcpStream, name: &str) -> Tls {
        Tls::with(tcp, name, config(&[])).expect("handshake")
    }

    pub fn with(tcp: TcpStream, name: &str, config: Arc<ClientConfig>) -> std::io::Result<Tls> {
        let name = ServerName::try_from(name.to_string()).expect("server name");
        let mut conn = ClientConnection::new(config, name).expect("client");
        let mut tcp = tcp;
        while conn.is_handshaking() {
            conn.complete_io(&mut tcp)?;
        }
        Ok(Tls(StreamOwned::new(conn, tcp)))
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("send");
        self.0.flush().expect("send");
    }

    pub fn expect(&mut self, bytes: &[u8]) {
        let mut got = vec![0; bytes.len()];
        self.0.read_exact(&mut got).unwrap_or_else(|e| {
            panic!("{e} while waiting for {:?}", String::from_utf8_lossy(bytes))
        });
        assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(bytes));
    }

    /// Everything until close_notify; a truncated end is an error.
    pub fn read_all(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        self.0.read_to_end(&mut all).expect("read to the end");
        all
    }

    /// close_notify: a half-close.
    pub fn half_close(&mut self) {
        self.0.conn.send_close_notify();
        self.0.flush().expect("close_notify");
    }

    /// The exporter that PUBKEY signs.
    pub fn exporter(&self) -> [u8; 32] {
        self.0
            .conn
            .export_keying_material([0; 32], b"EXPORTER-fived-pubkey", Some(&[]))
            .expect("exporter")
    }

    /// The server's certificate, DER.
    pub fn certificate(&self) -> Vec<u8> {
        self.0.conn.peer_certificates().expect("certificates")[0].to_vec()
    }
}
