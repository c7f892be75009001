//! The labels by which protocols distinguish uses of TLS and of signatures; both ends have the
//! same.

/// The application protocol, if a client offers any (RFC 7301, ALPN).
pub const ALPN: &[u8] = b"tcpmux";

/// What TLS exports for PUBKEY: the challenge of an encrypted connection (RFC 8446, 7.5; RFC 9266
/// binds channels in the same way, under another label).
pub const EXPORTER: &[u8] = b"EXPORTER-fived-pubkey";

/// What TLS exports for RESUME: of a session's first connection the key of all its proofs, of every
/// later one a part of what is proved.
pub const RESUME_EXPORTER: &[u8] = b"EXPORTER-fived-resume";

/// The namespace of fived's signatures (OpenSSH, PROTOCOL.sshsig; `ssh-keygen -Y sign -n`): a
/// signature that was made for anything else is not accepted.
pub const SSHSIG_NAMESPACE: &str = "fived";
