//! TLS: which certificate is used, and who signs. The private keys are in another process: the
//! parent is asked for each signature, on the session's channel.

use super::channel;
use crate::policy::{HostId, Table};
use crate::wire::archive::Archive;
use crate::wire::labels::ALPN;
use crate::wire::orders::{Answer, Ask, Data};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{Error, ServerConfig, SignatureAlgorithm, SignatureScheme};
use std::collections::HashMap;
use std::sync::Arc;

/// What a handshake needs.
pub struct Tls {
    pub config: Arc<ServerConfig>,
    /// At services' own ports: any application protocol (ALPN) is the service's own affair.
    pub at_ports: Arc<ServerConfig>,
}

/// The configuration for all hosts. None: there is no certificate.
pub fn configure(archive: &Archive, table: &Table) -> Result<Option<Tls>, String> {
    if archive.chains.is_empty() {
        return Ok(None);
    }
    let certified = |(i, (chain, schemes)): (usize, &(Vec<Vec<u8>>, Vec<u16>))| {
        let chain = chain.iter().map(|c| CertificateDer::from(c.clone())).collect();
        let key = Remote {
            chain: i as u32,
            schemes: schemes.iter().map(|s| SignatureScheme::from(*s)).collect(),
        };
        Arc::new(CertifiedKey::new(chain, Arc::new(key)))
    };
    let keys: Vec<Arc<CertifiedKey>> = archive.chains.iter().enumerate().map(certified).collect();
    let of =
        |id: HostId| archive.chosen.get(id.0 as usize).and_then(|c| keys.get(*c as usize)).cloned();
    let mut by_name = HashMap::new();
    for (i, host) in table.hosts().iter().enumerate() {
        for name in &host.names {
            by_name.extend(of(HostId(i as u32)).map(|k| (name.to_ascii_lowercase(), k)));
        }
    }
    let default = of(HostId::DEFAULT).ok_or("the default host has no certificate")?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| format!("TLS: {e}"))?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Resolver { by_name, default }));
    // No resumption: a ticket would replace the signature, which is what proves the handshake to
    // the parent.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    let at_ports = Arc::new(config.clone());
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Some(Tls { config: Arc::new(config), at_ports }))
}

#[derive(Debug)]
struct Resolver {
    by_name: HashMap<String, Arc<CertifiedKey>>,
    default: Arc<CertifiedKey>,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().and_then(|n| self.by_name.get(&n.to_ascii_lowercase()));
        Some(named.unwrap_or(&self.default).clone())
    }
}

/// A key that only the keys process has.
#[derive(Debug, Clone)]
struct Remote {
    chain: u32,
    schemes: Vec<SignatureScheme>,
}

impl SigningKey for Remote {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let scheme = self.schemes.iter().find(|s| offered.contains(s))?;
        Some(Box::new(Signature { chain: self.chain, scheme: *scheme }))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        match self.schemes.first() {
            Some(SignatureScheme::ED25519) => SignatureAlgorithm::ED25519,
            Some(
                SignatureScheme::ECDSA_NISTP256_SHA256 | SignatureScheme::ECDSA_NISTP384_SHA384,
            ) => SignatureAlgorithm::ECDSA,
            _ => SignatureAlgorithm::RSA,
        }
    }
}

#[derive(Debug)]
struct Signature {
    chain: u32,
    scheme: SignatureScheme,
}

impl Signer for Signature {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let refused = || Error::General("the handshake was not signed".into());
        let message = Data::new(message).ok_or_else(refused)?;
        let ask = Ask::Sign { chain: self.chain, scheme: u16::from(self.scheme), message };
        match channel::ours().ok_or_else(refused)?.ask(&ask) {
            Ok(Answer::Signed(signature)) => Ok(signature.bytes().to_vec()),
            _ => Err(refused()),
        }
    }

    fn scheme(&self) -> SignatureScheme {
        self.scheme
    }
}
