//! Checks signatures, with ring.

use crate::wire::login::HASH;
use crate::wire::sshsig::{Hash, Proof, SshSig, signed};
use ring::digest::{SHA256, SHA512, digest};
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm};

/// Did the key in the signature sign this text?
pub fn is_good(sig: &SshSig, text: &[u8]) -> bool {
    let hash = match sig.hash {
        Hash::Sha256 => digest(&SHA256, text),
        Hash::Sha512 => digest(&SHA512, text),
    };
    let mut message = signed(sig.hash, hash.as_ref());
    if let Some(d) = &sig.device {
        // What a FIDO device signs: WebAuthn's format, as in OpenSSH's PROTOCOL.u2f.
        message = [
            digest(&SHA256, d.application).as_ref(),
            &[d.flags],
            &d.counter.to_be_bytes(),
            digest(&SHA256, &message).as_ref(),
        ]
        .concat();
    }
    let by = |a: &'static dyn VerificationAlgorithm, key: &[u8], s: &[u8]| {
        UnparsedPublicKey::new(a, key).verify(&message, s).is_ok()
    };
    match &sig.proof {
        Proof::Ed25519 { key, signature } => by(&signature::ED25519, *key, signature),
        Proof::P256 { point, r, s } => {
            by(&signature::ECDSA_P256_SHA256_FIXED, point, &fixed(r, s, 32))
        }
        Proof::P384 { point, r, s } => {
            by(&signature::ECDSA_P384_SHA384_FIXED, point, &fixed(r, s, 48))
        }
        Proof::Rsa { n, e, hash, signature } => {
            let scheme = match hash {
                Hash::Sha256 => &signature::RSA_PKCS1_2048_8192_SHA256,
                Hash::Sha512 => &signature::RSA_PKCS1_2048_8192_SHA512,
            };
            RsaPublicKeyComponents { n, e }.verify(scheme, &message, signature).is_ok()
        }
    }
}

/// SHA-256.
pub fn sha256(bytes: &[u8]) -> [u8; HASH] {
    let mut out = [0; HASH];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

/// r and s one after the other, each padded to the curve's length, which neither exceeds.
fn fixed(r: &[u8], s: &[u8], length: usize) -> Vec<u8> {
    let mut out = vec![0; 2 * length];
    out[length - r.len()..length].copy_from_slice(r);
    out[2 * length - s.len()..].copy_from_slice(s);
    out
}
