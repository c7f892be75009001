//! A certificate chain, and what a keys process says about its key.

use super::inspector::Inspector;
use crate::sys::clock;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, Error, RootCertStore};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use zeroize::Zeroizing;

/// The content of a private key's file. It is wiped when it is dropped.
pub type Secret = Zeroizing<Vec<u8>>;

/// A certificate chain, and what is known about its key.
#[derive(Debug)]
pub struct Pair {
    /// DER, the server's own first.
    pub chain: Vec<Vec<u8>>,
    /// The numbers of the schemes that the key can sign by.
    pub schemes: Vec<u16>,
    /// SHA-256 of the public key.
    hash: [u8; 32],
}

/// What is wrong with a pair, in one sentence, by the file that has to be changed.
#[derive(Debug)]
pub enum Wrong {
    Certificate(String),
    Key(String),
}

impl Pair {
    /// Reads the certificates (PEM), and has a keys process check the key.
    pub fn new(chain: &[u8], key: &Secret, inspector: &mut Inspector) -> Result<Pair, Wrong> {
        let chain = certificates_of(chain).map_err(Wrong::Certificate)?;
        let (hash, schemes) = inspector.inspect(&chain[0], key).map_err(Wrong::Key)?;
        Ok(Pair { chain, schemes, hash })
    }

    /// What is wrong with the dates of its certificates now, in one sentence. None: nothing.
    pub fn out_of_date(&self) -> Option<String> {
        self.chain.iter().find_map(|der| {
            let certificate = CertificateDer::from(der.as_slice());
            let certificate = ParsedCertificate::try_from(&certificate).ok()?;
            // rustls checks the dates before it looks for a root certificate, so none is needed.
            let no_roots = RootCertStore::empty();
            match verify_server_cert_signed_by_trust_anchor(
                &certificate,
                &no_roots,
                &[],
                UnixTime::now(),
                &[],
            ) {
                Err(Error::InvalidCertificate(CertificateError::ExpiredContext {
                    not_after,
                    ..
                })) => Some(format!(
                    "expired on {}: a client that does not know its key refuses it",
                    clock::date(not_after.as_secs())
                )),
                Err(Error::InvalidCertificate(CertificateError::NotValidYetContext {
                    not_before,
                    ..
                })) => Some(format!(
                    "valid from {} on only: is the clock right?",
                    clock::date(not_before.as_secs())
                )),
                _ => None,
            }
        })
    }

    /// `sha256//BASE64` of the public key, as curl pins it (and HPKP did, RFC 7469).
    pub fn fingerprint(&self) -> String {
        format!("sha256//{}", STANDARD.encode(self.hash))
    }
}

/// The certificates (DER) of a PEM file, one at least, of which the first can be read.
fn certificates_of(pem: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let chain: Vec<CertificateDer> = CertificateDer::pem_slice_iter(&certificates(pem))
        .collect::<Result<_, _>>()
        .map_err(|_| "expected whole certificates, found one that is damaged or cut off")?;
    let Some(first) = chain.first() else {
        return Err("expected a PEM file with BEGIN CERTIFICATE, found no certificate".into());
    };
    ParsedCertificate::try_from(first).map_err(|e| unreadable(&e))?;
    Ok(chain.iter().map(|c| c.to_vec()).collect())
}

/// Why a certificate cannot be read.
fn unreadable(e: &Error) -> String {
    match e {
        // webpki has a word of its own for it, which rustls passes on.
        Error::InvalidCertificate(CertificateError::Other(other)) if other.to_string().contains("UnsupportedCertVersion") => {
            "an X.509 certificate of version 1, expected version 3: `openssl x509 -req` makes that with -extfile FILE".into()
        }
        e => format!("cannot be read: {e}"),
    }
}

/// The certificates of a PEM file, as text. The parent decodes nothing else in it, because that may
/// be a private key.
fn certificates(pem: &[u8]) -> Vec<u8> {
    const BEGIN: &[u8] = b"-----BEGIN ";
    let starts: Vec<usize> =
        pem.windows(BEGIN.len()).enumerate().filter(|(_, w)| *w == BEGIN).map(|(n, _)| n).collect();
    let ends = starts.iter().skip(1).copied().chain([pem.len()]);
    let parts = starts.iter().zip(ends).map(|(from, to)| &pem[*from..to]);
    parts.filter(|p| p[BEGIN.len()..].starts_with(b"CERTIFICATE-----")).collect::<Vec<_>>().concat()
}

/// The mode of a file that grants any of `rights`. None: it grants none of them.
pub fn mode_that_allows(path: &Path, rights: u32, inspector: &mut Inspector) -> Option<u32> {
    let at = path.to_path_buf();
    let found = inspector.ask_disk(path, move || fs::metadata(at)).ok()?;
    let mode = found.permissions().mode() & 0o7777;
    (mode & rights != 0).then_some(mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_file_with_a_key_the_certificates_are_taken() {
        let certificate = "-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n";
        let key = "-----BEGIN PRIVATE KEY-----\nREVG\n-----END PRIVATE KEY-----\n";
        let all = format!("a word before\n{certificate}{key}{certificate}");
        assert_eq!(
            certificates(all.as_bytes()),
            format!("{certificate}{certificate}").into_bytes()
        );
        assert!(certificates(key.as_bytes()).is_empty());
    }
}
