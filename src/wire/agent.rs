//! The SSH agent's protocol (draft-ietf-sshm-ssh-agent): which keys it has, and a signature by one
//! of them. The length in front of each message belongs to the transport.

use super::ssh::{SshReader, put};

/// The most bytes of a message; OpenSSH has the same bound.
pub const MESSAGE_MAX: usize = 256 * 1024;
/// How many keys of an agent are looked at.
pub const KEYS_MAX: usize = 256;

const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;
/// An RSA key signs with SHA-512.
const RSA_SHA2_512: u32 = 4;

/// A key that an agent has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// As authorized_keys has it.
    pub blob: Vec<u8>,
    pub comment: String,
}

/// Asks for the keys.
pub fn list() -> Vec<u8> {
    vec![REQUEST_IDENTITIES]
}

/// Reads the answer: the keys, [`KEYS_MAX`] of them at most. None: it is not such an answer.
pub fn keys(answer: &[u8]) -> Option<Vec<Key>> {
    let mut r = SshReader(answer);
    if r.u8()? != IDENTITIES_ANSWER {
        return None;
    }
    let n = (r.u32()? as usize).min(KEYS_MAX);
    let key = |_| {
        Some(Key {
            blob: r.string()?.to_vec(),
            comment: String::from_utf8_lossy(r.string()?).into_owned(),
        })
    };
    (0..n).map(key).collect()
}

/// Asks for a signature over `data`.
pub fn sign(key: &[u8], data: &[u8]) -> Vec<u8> {
    let mut out = vec![SIGN_REQUEST];
    put(&mut out, key);
    put(&mut out, data);
    out.extend_from_slice(&RSA_SHA2_512.to_be_bytes());
    out
}

/// Reads the answer: the signature. None: the agent has refused it.
pub fn signature(answer: &[u8]) -> Option<&[u8]> {
    let mut r = SshReader(answer);
    (r.u8()? == SIGN_RESPONSE).then(|| r.string()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_agent_is_understood() {
        let mut answer = vec![12, 0, 0, 0, 1];
        put(&mut answer, b"blob");
        put(&mut answer, b"me@here");
        assert_eq!(
            keys(&answer),
            Some(vec![Key { blob: b"blob".to_vec(), comment: "me@here".into() }])
        );
        assert_eq!(sign(b"k", b"d"), [13, 0, 0, 0, 1, b'k', 0, 0, 0, 1, b'd', 0, 0, 0, 4]);
        assert_eq!(signature(&[14, 0, 0, 0, 1, b's']), Some(&b"s"[..]));
        assert_eq!(signature(&[5]), None);
    }

    proptest! {
        #[test]
        fn any_answer_is_read_or_refused(
            kind in 10u8..16,
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let answer = [&[kind], &bytes[..]].concat();
            let _ = signature(&answer);
            prop_assert!(keys(&answer).is_none_or(|k| k.len() <= KEYS_MAX));
        }
    }
}
