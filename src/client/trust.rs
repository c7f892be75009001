//! Is this the server that was meant? Its certificate is vouched for by the system's roots, or its public key is known: pinned in the
//! configuration, or in `~/.config/five/known_hosts` (lines `host:port sha256//BASE64`) since somebody said so.
//!
//! Where a key is known, only that key will do. Nothing is sent to a server before it is trusted, and nobody is asked while one waits:
//! an unknown key ends the connection, the person is asked, and a new one is made.

use super::paths;
use super::target::Target;
use super::trouble::Trouble;
use super::words;
use crate::sys::terminal::{self, Echo};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, Mutex, PoisonError};

/// How a pin begins, as curl and HPKP write it.
const PREFIX: &str = "sha256//";

/// `sha256//` and the base64 of 32 bytes?
pub fn is_pin(text: &str) -> bool {
    text.strip_prefix(PREFIX).and_then(|b| STANDARD.decode(b).ok()).is_some_and(|d| d.len() == 32)
}

/// What the handshake showed.
#[derive(Debug, Clone)]
pub enum Seen {
    /// Trusted; why, for -v.
    Trusted {
        key: String,
        why: String,
    },
    Unknown {
        key: String,
    },
    Changed {
        key: String,
        known: String,
        origin: String,
    },
}

/// rustls's question, answered for one target.
#[derive(Debug)]
pub struct Verifier {
    /// Keys that are known, and where each stands. If there is any, no other will do.
    known: Vec<(String, String)>,
    provider: Arc<CryptoProvider>,
    seen: Mutex<Option<Seen>>,
}

impl Verifier {
    /// `accepted`: a key that was accepted this moment, wherever it could be written down.
    pub fn new(t: &Target, accepted: Option<&str>, provider: Arc<CryptoProvider>) -> Result<Verifier, Trouble> {
        if let Some(key) = accepted {
            let known = vec![(key.to_string(), "what was accepted just now".to_string())];
            return Ok(Verifier { known, provider, seen: Mutex::new(None) });
        }
        let mut known: Vec<(String, String)> =
            t.pins.iter().map(|p| (p.clone(), format!("pin in {}", paths::config().display()))).collect();
        if known.is_empty() {
            let path = paths::known_hosts();
            known = in_file(&paths::read(&path)?, &t.place()).map(|(n, key)| (key, format!("{}:{n}", path.display()))).collect();
        }
        Ok(Verifier { known, provider, seen: Mutex::new(None) })
    }

    /// What was seen, if the handshake came so far.
    pub fn seen(&self) -> Option<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn judge(&self, key: String, vouched: impl FnOnce() -> bool) -> Seen {
        match self.known.iter().find(|(k, _)| *k == key) {
            Some((_, origin)) => Seen::Trusted { key, why: origin.clone() },
            None => match self.known.first() {
                Some((known, origin)) => Seen::Changed { key, known: known.clone(), origin: origin.clone() },
                None if vouched() => Seen::Trusted { key, why: "the system's roots".into() },
                None => Seen::Unknown { key },
            },
        }
    }
}

/// The keys of a place, each with the number of its line.
fn in_file<'a>(text: &'a str, place: &'a str) -> impl Iterator<Item = (usize, String)> + 'a {
    text.lines().enumerate().filter_map(move |(n, line)| {
        let mut words = line.split_whitespace();
        let (at, key) = (words.next()?, words.next()?);
        at.eq_ignore_ascii_case(place).then(|| (n + 1, key.to_string()))
    })
}

fn fingerprint(certificate: &CertificateDer) -> Result<String, Error> {
    let parsed = ParsedCertificate::try_from(certificate)?;
    let key = parsed.subject_public_key_info();
    Ok(format!("{PREFIX}{}", STANDARD.encode(digest(&SHA256, &key))))
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer,
        chain: &[CertificateDer],
        name: &ServerName,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let seen = self.judge(fingerprint(certificate)?, || {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone()).build();
            verifier.is_ok_and(|v| v.verify_server_cert(certificate, chain, name, ocsp, now).is_ok())
        });
        let trusted = matches!(seen, Seen::Trusted { .. });
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
        if trusted { Ok(ServerCertVerified::assertion()) } else { Err(CertificateError::ApplicationVerificationFailure.into()) }
    }

    fn verify_tls12_signature(&self, _: &[u8], _: &CertificateDer, _: &DigitallySignedStruct) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.3 alone is spoken here".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A key that nobody vouches for: asks, unless `--accept-new`, and writes it down if it can. Ok: it is trusted.
pub fn learn(t: &Target, key: &str) -> Result<(), Trouble> {
    let (place, file) = (t.place(), paths::known_hosts());
    let unknown = |asked| Trouble::UnknownKey { place: place.clone(), key: key.into(), file: file.clone(), asked };
    if !t.accept_new && !confirmed(&place, key).ok_or_else(|| unknown(false))? {
        return Err(unknown(true));
    }
    let written = || -> std::io::Result<()> {
        let before = std::fs::read(&file).unwrap_or_default();
        let mut to = OpenOptions::new().append(true).create(true).mode(0o600).open(&file)?;
        // Somebody may have left the last line without an end.
        let end = if before.last().is_none_or(|b| *b == b'\n') { "" } else { "\n" };
        to.write_all(format!("{end}{place} {key}\n").as_bytes())
    };
    let kept = file.parent().map_or(Ok(()), paths::make_private);
    let kept = kept.and_then(|()| written().map_err(Trouble::system(file.display().to_string())));
    words::say(&match kept {
        Ok(()) => format!("{place}: {key} is known from now on ({})", file.display()),
        // It was accepted all the same, as ssh(1) has it.
        Err(trouble) => format!("{place}: {key} is used this once: {trouble}"),
    });
    Ok(())
}

/// None: there is nobody to ask.
fn confirmed(place: &str, key: &str) -> Option<bool> {
    let mut prompt = format!(
        "The key of {place} is not known:\n{key}\n`fived --fingerprint` says it on that computer. Is it the same (yes, no, or the key)? "
    );
    loop {
        let answer = terminal::question(&prompt, Echo::On).ok()?;
        match answer.trim_ascii() {
            b"yes" => return Some(true),
            b"no" => return Some(false),
            text if text == key.as_bytes() => return Some(true),
            text if text.starts_with(PREFIX.as_bytes()) => return Some(false),
            _ => prompt = "yes, no, or the key: ".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_keys_are_found_by_place() {
        let text = "# x\na:1 sha256//one\n[::1]:1 sha256//two\nA:1   sha256//three # mine\nb:1\n";
        let of = |place| in_file(text, place).collect::<Vec<_>>();
        assert_eq!(of("a:1"), [(2, "sha256//one".into()), (4, "sha256//three".into())]);
        assert_eq!(of("[::1]:1"), [(3, "sha256//two".into())]);
        assert_eq!(of("b:1"), []);
        assert!(is_pin("sha256//AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=") && !is_pin("sha256//AAAA") && !is_pin("AAAA"));
    }
}
