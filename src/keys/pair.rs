//! One private key, and what it signs.

use ring::digest;
use rustls::Error;
use rustls::SignatureScheme;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use std::sync::Arc;

/// A server signs 64 blanks, this text, and the handshake's hash (RFC 8446, 4.4.3).
const CONTEXT: &[u8] = b"TLS 1.3, server CertificateVerify\0";
const BLANKS: usize = 64;
/// The lengths of the hashes of TLS 1.3's cipher suites.
const HASHES: [usize; 2] = [32, 48];
/// The signature schemes that may be asked for, the best one first.
const SCHEMES: [SignatureScheme; 6] = [
    SignatureScheme::ED25519,
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
];

const UNSUPPORTED: &str = "expected a private key of ECDSA (P-256 or P-384), Ed25519 or RSA (2048 bits and more), found another or a damaged one";

pub struct Pair(Arc<dyn SigningKey>);

impl Pair {
    /// The key (PEM) of this certificate (DER), which the parent has read already. Err: what is
    /// wrong with the key, in one sentence.
    pub fn new(certificate: &[u8], key: &[u8]) -> Result<Pair, String> {
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| {
            "expected a PEM file with BEGIN PRIVATE KEY, found no private key, or an encrypted one"
        })?;
        let key = any_supported_type(&key).map_err(|_| UNSUPPORTED)?;
        let certified =
            CertifiedKey::new(vec![CertificateDer::from(certificate.to_vec())], key.clone());
        certified.keys_match().map_err(|e| match e {
            Error::InconsistentKeys(_) => {
                "expected the certificate's private key, found another".to_string()
            }
            e => format!("the certificate cannot be read: {e}"),
        })?;
        Ok(Pair(key))
    }

    /// The numbers of the schemes with which it can sign.
    pub fn schemes(&self) -> Vec<u16> {
        SCHEMES
            .iter()
            .filter(|s| self.0.choose_scheme(&[**s]).is_some())
            .map(|s| u16::from(*s))
            .collect()
    }

    /// SHA-256 of the public key.
    pub fn hash(&self) -> [u8; 32] {
        let public = self.0.public_key();
        let hash = digest::digest(&digest::SHA256, public.as_ref().map_or(&[], |k| k.as_ref()));
        hash.as_ref().try_into().expect("SHA-256 has 32 bytes")
    }

    /// Signs a handshake. None: the message is not one, or the key cannot sign with that scheme.
    pub fn sign(&self, scheme: u16, message: &[u8]) -> Option<Vec<u8>> {
        if !is_handshake(message) {
            return None;
        }
        self.0.choose_scheme(&[SignatureScheme::from(scheme)])?.sign(message).ok()
    }
}

/// Is this what a TLS 1.3 server signs in its CertificateVerify, and nothing else?
fn is_handshake(message: &[u8]) -> bool {
    let Some((blanks, rest)) = message.split_at_checked(BLANKS) else { return false };
    let Some(hash) = rest.strip_prefix(CONTEXT) else { return false };
    blanks.iter().all(|&b| b == b' ') && HASHES.contains(&hash.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};

    fn made() -> (Vec<u8>, String) {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let certificate = CertificateParams::default().self_signed(&key).expect("a certificate");
        (certificate.der().to_vec(), key.serialize_pem())
    }

    fn handshake(hash: usize) -> Vec<u8> {
        [&[b' '; BLANKS][..], CONTEXT, &vec![7; hash]].concat()
    }

    #[test]
    fn signs_handshakes_and_nothing_else() {
        let (c, k) = made();
        let pair = Pair::new(&c, k.as_bytes()).expect("a pair");
        let p256 = u16::from(SignatureScheme::ECDSA_NISTP256_SHA256);
        assert_eq!(pair.schemes(), [p256]);
        assert!(
            pair.sign(p256, &handshake(32)).is_some() && pair.sign(p256, &handshake(48)).is_some()
        );
        assert!(pair.sign(p256, &handshake(33)).is_none());
        assert!(pair.sign(p256, &handshake(32)[1..]).is_none());
        assert!(pair.sign(p256, b"anything").is_none());
        for at in [0, BLANKS - 1] {
            let mut other = handshake(32);
            other[at] = b'x';
            assert!(pair.sign(p256, &other).is_none());
        }
        let client =
            [&[b' '; BLANKS][..], b"TLS 1.3, client CertificateVerify\0", &[7; 32]].concat();
        assert!(pair.sign(p256, &client).is_none());
        assert!(pair.sign(0x0804, &handshake(32)).is_none());
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let ((c, _), (_, k)) = (made(), made());
        assert!(Pair::new(&c, k.as_bytes()).err().is_some_and(|e| e.contains("found another")));
    }
}
