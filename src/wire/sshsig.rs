//! SSHSIG (OpenSSH, PROTOCOL.sshsig): reads a signature, and rebuilds the bytes that were signed.
//! Nothing is verified here.

use super::labels::SSHSIG_NAMESPACE;
use super::ssh::{self, SshReader};

const MAGIC: &[u8] = b"SSHSIG";
const VERSION: u32 = 1;
/// The user touched the device (FIDO's "user present").
const PRESENT: u8 = 1;
/// The kinds of keys that are accepted, by their names in SSH.
const KINDS: [&[u8]; 6] = [
    b"ssh-ed25519",
    b"sk-ssh-ed25519@openssh.com",
    b"ecdsa-sha2-nistp256",
    b"sk-ecdsa-sha2-nistp256@openssh.com",
    b"ecdsa-sha2-nistp384",
    b"ssh-rsa",
];
/// The size of an RSA key in bits: from, to.
const RSA_BITS: (usize, usize) = (2048, 8192);

/// The hash function that was applied to the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hash {
    Sha256,
    Sha512,
}

/// A public key and a signature by it, as the algorithm of each has it.
#[derive(Debug, PartialEq, Eq)]
pub enum Proof<'a> {
    Ed25519 {
        key: &'a [u8; 32],
        signature: &'a [u8],
    },
    /// `point` is uncompressed; r and s without leading zeros.
    P256 {
        point: &'a [u8],
        r: &'a [u8],
        s: &'a [u8],
    },
    P384 {
        point: &'a [u8],
        r: &'a [u8],
        s: &'a [u8],
    },
    Rsa {
        n: &'a [u8],
        e: &'a [u8],
        hash: Hash,
        signature: &'a [u8],
    },
}

/// What a FIDO device signs in addition.
#[derive(Debug, PartialEq, Eq)]
pub struct Device<'a> {
    pub application: &'a [u8],
    pub flags: u8,
    pub counter: u32,
}

/// A signature that was read.
#[derive(Debug, PartialEq, Eq)]
pub struct SshSig<'a> {
    /// The public key, as authorized_keys has it.
    pub key: &'a [u8],
    pub hash: Hash,
    pub proof: Proof<'a>,
    pub device: Option<Device<'a>>,
}

/// Reads a signature. None: it is not one, not for fived, by a key that fived does not
/// [accept](takes), or made without touching the device.
pub fn read(blob: &[u8]) -> Option<SshSig<'_>> {
    let (key, hash, signature) = parts(blob)?;
    let (proof, device) = proof(&mut SshReader(key), &mut SshReader(signature))?;
    Some(SshSig { key, hash, proof, device })
}

/// The public key of a signature for fived, whatever kind of key it is.
pub fn key(blob: &[u8]) -> Option<&[u8]> {
    parts(blob).map(|(key, ..)| key)
}

/// The public key, the hash function, and the signature itself.
fn parts(blob: &[u8]) -> Option<(&[u8], Hash, &[u8])> {
    let mut r = SshReader(blob.strip_prefix(MAGIC)?);
    if r.u32()? != VERSION {
        return None;
    }
    let key = r.string()?;
    if r.string()? != SSHSIG_NAMESPACE.as_bytes() {
        return None;
    }
    let _reserved = r.string()?;
    let hash = match r.string()? {
        b"sha256" => Hash::Sha256,
        b"sha512" => Hash::Sha512,
        _ => return None,
    };
    let signature = r.string()?;
    r.0.is_empty().then_some((key, hash, signature))
}

/// The bytes that the key has signed, for a message with that hash.
pub fn signed(hash: Hash, digest: &[u8]) -> Vec<u8> {
    let name: &[u8] = match hash {
        Hash::Sha256 => b"sha256",
        Hash::Sha512 => b"sha512",
    };
    let mut out = MAGIC.to_vec();
    [SSHSIG_NAMESPACE.as_bytes(), b"", name, digest]
        .iter()
        .for_each(|part| ssh::put(&mut out, part));
    out
}

/// The SSHSIG signature that `key` (as in authorized_keys) has made over [`signed`] with a SHA-512
/// digest; `signature` is as an agent returns it.
pub fn write(key: &[u8], signature: &[u8]) -> Vec<u8> {
    let mut out = [MAGIC, &VERSION.to_be_bytes()].concat();
    [key, SSHSIG_NAMESPACE.as_bytes(), b"", b"sha512", signature]
        .iter()
        .for_each(|part| ssh::put(&mut out, part));
    out
}

/// The base64 of a signature in its armor, on one line. None: it has no armor.
pub fn unarmored(text: &str) -> Option<String> {
    let inside = text
        .split_once("-----BEGIN SSH SIGNATURE-----")?
        .1
        .split_once("-----END SSH SIGNATURE-----")?
        .0;
    Some(inside.split_ascii_whitespace().collect())
}

/// Is this a public key of a kind, and of a size, that a server accepts?
pub fn takes(key: &[u8]) -> bool {
    let mut k = SshReader(key);
    match k.string() {
        Some(b"ssh-rsa") => rsa(&mut k).is_some(),
        kind => kind.is_some_and(|kind| KINDS.contains(&kind)),
    }
}

/// The exponent and the modulus of an RSA key of a size that is accepted.
fn rsa<'a>(k: &mut SshReader<'a>) -> Option<(&'a [u8], &'a [u8])> {
    let (e, n) = (k.positive()?, k.positive()?);
    let bits = n.len() * 8 - n.first()?.leading_zeros() as usize;
    (RSA_BITS.0..=RSA_BITS.1).contains(&bits).then_some((e, n))
}

fn proof<'a>(
    k: &mut SshReader<'a>,
    s: &mut SshReader<'a>,
) -> Option<(Proof<'a>, Option<Device<'a>>)> {
    let (kind, algorithm) = (k.string()?, s.string()?);
    let device_kind = kind.starts_with(b"sk-");
    // Only with RSA can the algorithm of the signature have another name than the key's.
    if kind != b"ssh-rsa" && algorithm != kind {
        return None;
    }
    let proof = match kind {
        b"ssh-ed25519" | b"sk-ssh-ed25519@openssh.com" => {
            Proof::Ed25519 { key: k.string()?.try_into().ok()?, signature: s.string()? }
        }
        b"ecdsa-sha2-nistp256" | b"sk-ecdsa-sha2-nistp256@openssh.com" => {
            let point = ecdsa(k, b"nistp256", 65)?;
            let mut rs = SshReader(s.string()?);
            let (r, s) = (rs.positive()?, rs.positive()?);
            (rs.0.is_empty() && r.len() <= 32 && s.len() <= 32).then_some(Proof::P256 {
                point,
                r,
                s,
            })?
        }
        b"ecdsa-sha2-nistp384" => {
            let point = ecdsa(k, b"nistp384", 97)?;
            let mut rs = SshReader(s.string()?);
            let (r, s) = (rs.positive()?, rs.positive()?);
            (rs.0.is_empty() && r.len() <= 48 && s.len() <= 48).then_some(Proof::P384 {
                point,
                r,
                s,
            })?
        }
        b"ssh-rsa" => {
            let (e, n) = rsa(k)?;
            let hash = match algorithm {
                b"rsa-sha2-256" => Hash::Sha256,
                b"rsa-sha2-512" => Hash::Sha512,
                // SHA-1 is among those that are refused.
                _ => return None,
            };
            Proof::Rsa { n, e, hash, signature: s.string()? }
        }
        _ => return None,
    };
    let device = if device_kind {
        Some(Device { application: k.string()?, flags: s.u8()?, counter: s.u32()? })
    } else {
        None
    };
    let present = device.as_ref().is_none_or(|d| d.flags & PRESENT != 0);
    (k.0.is_empty() && s.0.is_empty() && present).then_some((proof, device))
}

fn ecdsa<'a>(k: &mut SshReader<'a>, curve: &[u8], length: usize) -> Option<&'a [u8]> {
    if k.string()? != curve {
        return None;
    }
    k.string().filter(|p| p.len() == length && p[0] == 4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn string(s: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        ssh::put(&mut out, s);
        out
    }

    fn blob(key: &[&[u8]], namespace: &[u8], signature: &[&[u8]], tail: &[u8]) -> Vec<u8> {
        let strings = |parts: &[&[u8]]| parts.iter().flat_map(|p| string(p)).collect::<Vec<u8>>();
        let sig = [strings(signature), tail.to_vec()].concat();
        [
            MAGIC.to_vec(),
            1u32.to_be_bytes().to_vec(),
            string(&strings(key)),
            string(namespace),
            string(b""),
            string(b"sha512"),
            string(&sig),
        ]
        .concat()
    }

    #[test]
    fn what_is_taken_and_what_is_not() {
        let ed: [&[u8]; 2] = [b"ssh-ed25519", &[7; 32]];
        let good = blob(&ed, b"fived", &[b"ssh-ed25519", &[1; 64]], b"");
        assert!(matches!(
            read(&good),
            Some(SshSig { hash: Hash::Sha512, proof: Proof::Ed25519 { .. }, device: None, .. })
        ));
        assert!(read(&blob(&ed, b"file", &[b"ssh-ed25519", &[1; 64]], b"")).is_none());
        assert!(read(&blob(&ed, b"fived", &[b"ssh-rsa", &[1; 64]], b"")).is_none());
        assert!(read(&blob(&ed, b"fived", &[b"ssh-ed25519", &[1; 64]], b"x")).is_none());
        assert!(read(&[good.clone(), vec![0]].concat()).is_none());
        let mut version_2 = good.clone();
        version_2[MAGIC.len() + 3] = 2;
        assert!(read(&version_2).is_none());
        let p256 = |length: usize| {
            let (kind, point) = (&b"ecdsa-sha2-nistp256"[..], vec![4; length]);
            let numbers = [string(&[1]), string(&[1])].concat();
            read(&blob(&[kind, b"nistp256", &point], b"fived", &[kind, &numbers], b"")).is_some()
        };
        assert!(p256(65) && !p256(64) && !p256(97));
        let rsa = |bits: usize, algorithm: &[u8]| {
            read(&blob(
                &[b"ssh-rsa", &[1, 0, 1], &[&[0], &vec![0xff; bits / 8][..]].concat()],
                b"fived",
                &[algorithm, &[1; 9]],
                b"",
            ))
            .is_some()
        };
        assert!(
            rsa(2048, b"rsa-sha2-256")
                && rsa(4096, b"rsa-sha2-512")
                && !rsa(2040, b"rsa-sha2-256")
                && !rsa(16384, b"rsa-sha2-256")
                && !rsa(2048, b"ssh-rsa")
        );
        let sk: [&[u8]; 3] = [b"sk-ssh-ed25519@openssh.com", &[7; 32], b"ssh:"];
        let device = |flags: u8| {
            read(&blob(
                &sk,
                b"fived",
                &[b"sk-ssh-ed25519@openssh.com", &[1; 64]],
                &[flags, 0, 0, 0, 9],
            ))
            .is_some()
        };
        assert!(device(1) && device(5) && !device(0) && !device(4));
    }

    #[test]
    fn what_is_written_is_read() {
        let key = [string(b"ssh-ed25519"), string(&[7; 32])].concat();
        let made = write(&key, &[string(b"ssh-ed25519"), string(&[1; 64])].concat());
        assert!(read(&made).is_some_and(|s| s.key == key && s.hash == Hash::Sha512));
        assert!(takes(&key) && !takes(b"") && !takes(&string(b"ssh-dss")));
        let rsa = |bytes: usize| {
            let n = [&[0], &vec![0xff; bytes][..]].concat();
            [string(b"ssh-rsa"), string(&[1, 0, 1]), string(&n)].concat()
        };
        assert!(takes(&rsa(256)) && !takes(&rsa(128)) && !takes(&string(b"ssh-rsa")));
        let other = write(&rsa(128), &[string(b"rsa-sha2-512"), string(&[1; 128])].concat());
        assert!(read(&other).is_none() && super::key(&other) == Some(&rsa(128)[..]));
        assert_eq!(super::key(b"SSHSIG"), None);
        let armor = "-----BEGIN SSH SIGNATURE-----\nVTNO\r\nSFNJ\n-----END SSH SIGNATURE-----\n";
        assert_eq!(unarmored(armor).as_deref(), Some("VTNOSFNJ"));
        assert_eq!(unarmored("VTNO"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            cut in 0usize..300,
        ) {
            let _ = read(&bytes);
            let mut good = blob(&[b"ssh-ed25519", &[7; 32]], b"fived", &[b"ssh-ed25519", &[1; 64]], b"");
            good.truncate(cut);
            let _ = read(&good);
            let _ = read(&[MAGIC, &bytes].concat());
        }
    }
}
