//! Decides whether this is the server that was meant: the system's roots vouch for its certificate,
//! or its public key is known, because it is pinned in the configuration, or is in `known_hosts`
//! since somebody accepted it.
//!
//! If a key is known, only that key is trusted. If the roots vouched for the server once, a key for
//! which they do not vouch is a changed one. A certificate that is expired or another host's, and
//! for which the roots would vouch otherwise, is refused with that reason, and no person is asked
//! about it. Nothing is sent to a server before it is trusted. No server waits while a person is
//! asked: an unknown key ends the connection, the person is asked, and a new connection is made.

use super::error::Error;
use super::known_hosts::{self, Known};
use super::messages;
use super::paths;
use super::syntax::PIN_PREFIX;
use super::target::Target;
use crate::sys::clock;
use crate::sys::terminal::{self, Echo};
use crate::wire::answer::words as words_of;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
};
use std::io::ErrorKind;
use std::sync::{Arc, Mutex, PoisonError};

/// Names of a certificate in a message, at most.
const NAMES_MAX: usize = 5;

/// What the handshake showed.
#[derive(Debug, Clone)]
pub enum Identity {
    /// Trusted; `why` is for -v.
    Trusted {
        key: String,
        why: String,
        /// The system's roots vouch for it, and that is not in known_hosts yet.
        to_note: bool,
    },
    Unknown {
        key: String,
    },
    Changed {
        key: String,
        known: String,
        origin: String,
    },
    /// The system's roots would vouch for it but for what is wrong, or it cannot be read; its key,
    /// if it has one, and what is wrong.
    Bad {
        key: Option<String>,
        why: String,
    },
}

/// Whether the system's roots vouch for a certificate.
enum Vouched {
    Yes,
    No,
    /// Its chain is good, but not at this time or not for this host; why.
    But(String),
}

/// Verifies the server's certificate for rustls, for one target.
#[derive(Debug)]
pub struct Verifier {
    /// What is known about the server. If any key is known, no other is trusted.
    known: Known,
    /// None: no certificate can have such a name.
    name: Option<ServerName<'static>>,
    provider: Arc<CryptoProvider>,
    identity: Mutex<Option<Identity>>,
}

impl Verifier {
    /// `accepted`: a key that was accepted just now, which may not have been written to
    /// known_hosts. `name`: the host that the certificate must be for.
    pub fn new(
        t: &Target,
        name: Option<ServerName<'static>>,
        accepted: Option<&str>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Verifier, Error> {
        let from = |keys: Vec<(String, String)>| Known { keys, vouched: None };
        let known = match accepted {
            Some(key) => from(vec![(key.to_string(), "what was accepted just now".to_string())]),
            None if !t.pins.is_empty() => {
                let origin = format!("pin in {}", paths::config().display());
                from(t.pins.iter().map(|p| (p.clone(), origin.clone())).collect())
            }
            None => known_hosts::read(t)?,
        };
        Ok(Verifier { known, name, provider, identity: Mutex::new(None) })
    }

    /// What the handshake showed. None: it did not reach the certificate.
    pub fn identity(&self) -> Option<Identity> {
        self.identity.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn identify(&self, key: String, vouched: impl FnOnce() -> Vouched) -> Identity {
        let Known { keys, vouched: before } = &self.known;
        if let Some((_, origin)) = keys.iter().find(|(k, _)| *k == key) {
            return Identity::Trusted { key, why: origin.clone(), to_note: false };
        }
        let changed = |known: &str, origin: &str| Identity::Changed {
            key: key.clone(),
            known: known.into(),
            origin: origin.into(),
        };
        if let (Some((known, origin)), None) = (keys.first(), before) {
            return changed(known, origin);
        }
        match vouched() {
            Vouched::Yes => Identity::Trusted {
                key,
                why: "the system's roots".into(),
                to_note: before.is_none(),
            },
            Vouched::But(why) => Identity::Bad { key: Some(key), why },
            Vouched::No => match before {
                Some(origin) => {
                    changed("a certificate that this system's roots vouched for", origin)
                }
                None => Identity::Unknown { key },
            },
        }
    }

    /// Whether the system's roots vouch for a certificate and its chain.
    fn vouched(
        &self,
        certificate: &ParsedCertificate,
        chain: &[CertificateDer],
        now: UnixTime,
    ) -> Vouched {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let algorithms = self.provider.signature_verification_algorithms.all;
        let good_at = |time| {
            verify_server_cert_signed_by_trust_anchor(certificate, &roots, chain, time, algorithms)
        };
        // If only the time is wrong, it is checked whether the chain would be good at another time.
        // If not, nobody vouches for it.
        let (right, date) = match good_at(now) {
            Ok(()) => (now, None),
            Err(TlsError::InvalidCertificate(CertificateError::ExpiredContext {
                not_after,
                ..
            })) => (not_after, Some(format!("it expired on {}", clock::date(not_after.as_secs())))),
            Err(TlsError::InvalidCertificate(CertificateError::NotValidYetContext {
                not_before,
                ..
            })) => {
                let from = clock::date(not_before.as_secs());
                (
                    not_before,
                    Some(format!(
                        "it is valid from {from} on only (is this computer's clock right?)"
                    )),
                )
            }
            Err(_) => return Vouched::No,
        };
        if good_at(right).is_err() {
            return Vouched::No;
        }
        let name = match &self.name {
            Some(name) => {
                verify_server_name(certificate, name).map_or_else(|e| Some(names_in(&e)), |()| None)
            }
            None => Some("another name".into()),
        };
        match (date, name) {
            (None, None) => Vouched::Yes,
            (Some(why), _) => Vouched::But(why),
            (None, Some(names)) => Vouched::But(format!("it is for {names}, not for this host")),
        }
    }
}

/// The names of a certificate, out of the error.
fn names_in(e: &TlsError) -> String {
    let TlsError::InvalidCertificate(CertificateError::NotValidForNameContext {
        presented, ..
    }) = e
    else {
        return "another name".into();
    };
    // rustls has them as DnsName("NAME") and IpAddress(ADDRESS).
    let bare = |n: &String| {
        words_of(
            n.split_once('(')
                .map_or(n.as_str(), |(_, n)| n.trim_end_matches(')').trim_matches('"'))
                .as_bytes(),
        )
    };
    let names: Vec<String> = presented.iter().take(NAMES_MAX).map(bare).collect();
    if names.is_empty() { "no name at all".into() } else { names.join(", ") }
}

/// A certificate's public key, as it is written in a pin.
fn fingerprint(certificate: &ParsedCertificate) -> String {
    format!(
        "{PIN_PREFIX}{}",
        STANDARD.encode(digest(&SHA256, &certificate.subject_public_key_info()))
    )
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer,
        chain: &[CertificateDer],
        _: &ServerName,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let identity = match ParsedCertificate::try_from(certificate) {
            Ok(parsed) => self.identify(fingerprint(&parsed), || self.vouched(&parsed, chain, now)),
            Err(e) => Identity::Bad { key: None, why: unreadable(&e) },
        };
        let trusted = matches!(identity, Identity::Trusted { .. });
        *self.identity.lock().unwrap_or_else(PoisonError::into_inner) = Some(identity);
        if trusted {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Err(TlsError::General("TLS 1.3 alone is spoken here".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// For a key that is not known and for which nobody vouches: asks the person, unless
/// `--accept-new`, and adds it to known_hosts if it can. Ok: it is trusted.
pub fn ask_and_add(t: &Target, key: &str) -> Result<(), Error> {
    let (place, file) = (t.place(), paths::known_hosts());
    let unknown = |asked| Error::UnknownKey {
        place: place.clone(),
        key: key.into(),
        file: file.clone(),
        asked,
    };
    if !t.accept_new && !confirmed(&place, key).ok_or_else(|| unknown(false))? {
        return Err(unknown(true));
    }
    let kept = known_hosts::add_key(t, key);
    messages::info(&match kept {
        Ok(()) => format!("{place}: {key} is known from now on ({})", file.display()),
        // It was accepted all the same, as in ssh(1).
        Err(error) => format!("{place}: {key} is used this once: {error}"),
    });
    Ok(())
}

/// Why a certificate cannot be read.
fn unreadable(e: &TlsError) -> String {
    match e {
        // This is webpki's own error, which rustls passes on.
        TlsError::InvalidCertificate(CertificateError::Other(other))
            if other.to_string().contains("UnsupportedCertVersion") =>
        {
            "it is an X.509 certificate of version 1, expected version 3".into()
        }
        e => e.to_string(),
    }
}

/// Asks the person. None: there is nobody to ask.
fn confirmed(place: &str, key: &str) -> Option<bool> {
    let mut prompt = format!(
        "The key of {place} is not known:\n{key}\n`fived --fingerprint`, run by root, prints it on that computer. Is it the same (yes, no, or the key)? "
    );
    loop {
        let answer = match terminal::question(&prompt, Echo::On) {
            Ok(answer) => answer,
            // The end of input (Control-D) is a no.
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Some(false),
            Err(_) => return None,
        };
        let text = answer.trim_ascii();
        // The names of a virtual host are after its key.
        let word = text.split(u8::is_ascii_whitespace).next().unwrap_or_default();
        match text {
            text if text.eq_ignore_ascii_case(b"yes") => return Some(true),
            text if text.eq_ignore_ascii_case(b"no") => return Some(false),
            _ if word == key.as_bytes() => return Some(true),
            _ if word.starts_with(PIN_PREFIX.as_bytes()) => return Some(false),
            _ => prompt = "yes, no, or the key: ".into(),
        }
    }
}
