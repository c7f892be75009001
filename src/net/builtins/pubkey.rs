//! PUBKEY: a challenge, and the signature that answers it.

use super::login::{login_result, may_login, send, try_login};
use crate::net::end::End;
use crate::net::session_state::Session;
use crate::sys::clock;
use crate::wire::labels::EXPORTER;
use crate::wire::login::LoginMessage;
use crate::wire::orders::Method;
use crate::wire::pubkey::{CHALLENGE, read_answer};
use crate::wire::reply;
use crate::wire::request::SIGNATURE_MAX;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom, SystemRandom};

/// Runs the dialogue. Err: the session ends.
pub fn run(s: &mut Session) -> Result<(), End> {
    may_login(s, Method::Pubkey)?;
    let challenge = challenge(s)?;
    s.write(&reply::challenge(&STANDARD.encode(challenge)))?;
    let line = s.line(SIGNATURE_MAX)?;
    let came = clock::monotonic();
    let (user, text) = read_answer(&line);
    let child = try_login(s, Method::Pubkey, user)?;
    let early = match child {
        Ok(child) => {
            send(&child, &LoginMessage::Signature { challenge, text: text.to_vec() });
            None
        }
        Err(early) => early,
    };
    login_result(s, early, Method::Pubkey, user, Some(came))
}

/// With TLS, keying material that only the two ends of the connection know; a stream uses that of
/// its connection. Without TLS, a random number.
fn challenge(s: &Session) -> Result<[u8; CHALLENGE], End> {
    if let Some(exporter) = exporter(s)? {
        return Ok(exporter);
    }
    let mut challenge = [0; CHALLENGE];
    SystemRandom::new().fill(&mut challenge).map_err(|_| End::System)?;
    Ok(challenge)
}

/// The exporter of the TLS connection that this session uses, directly or as a stream. None: there
/// is no TLS.
pub fn exporter(s: &Session) -> Result<Option<[u8; CHALLENGE]>, End> {
    Ok(s.link.export(EXPORTER)?.or(s.state.outer))
}
