//! What AUTH and PUBKEY have in common. Who somebody is, the parent alone decides; this thread only
//! carries words between the client and a login child.

use crate::net::dialogue::Session;
use crate::net::end::End;
use crate::policy::{GroupSet, Login};
use crate::sys::{message, socket};
use crate::wire::login::{MESSAGE_MAX, Say, Verdict};
use crate::wire::orders::{Answer, Ask, Data, May, Method};
use crate::wire::reply;
use std::os::fd::{AsFd, OwnedFd};

/// Seconds after which somebody may try again for whom there was no descriptor.
const SOON: u32 = 1;

/// Must the password be there before the try begins? Err: the session ends, with a word.
pub fn may_login(s: &mut Session, method: Method) -> Result<bool, End> {
    match s.channel.ask(&Ask::MayLogin { method }, &[])? {
        Answer::Login(May::Try { password_first }) => Ok(password_first),
        Answer::Login(May::Later { seconds }) => not_now(s, seconds),
        // Net knows the same rules, and has not asked before they held.
        _ => Err(End::System),
    }
}

fn not_now<T>(s: &mut Session, seconds: u32) -> Result<T, End> {
    s.last_word(&reply::try_later(seconds))?;
    Err(End::Refused)
}

/// Has the parent start a login child; returns the channel to it.
pub fn try_login(s: &mut Session, method: Method, user: &[u8]) -> Result<OwnedFd, End> {
    let Ok((near, far)) = s.world.descriptors.but(socket::seqpacket()) else {
        return not_now(s, SOON);
    };
    s.facts.login = None;
    s.channel.tell(&Ask::Verify { method, user: Data::cut(user) }, &[far.as_fd()])?;
    Ok(near)
}

/// Waits for the parent's word, and passes it on.
pub fn verdict(
    s: &mut Session,
    early: Option<Answer>,
    method: Method,
    user: &[u8],
) -> Result<(), End> {
    let answer = match early {
        Some(answer) => answer,
        None => s.channel.answer()?,
    };
    let (status, superuser, groups) = match answer {
        Answer::Verdict { status, superuser, groups } => (status, superuser, groups),
        // A penalty began meanwhile, or there was no room.
        Answer::Login(May::Later { seconds }) => return not_now(s, seconds),
        _ => return Err(End::System),
    };
    if Verdict::from_status(status as i32) == Verdict::Yes {
        let name = String::from_utf8_lossy(user).into_owned();
        s.write(&reply::logged_in(&name))?;
        s.facts.login = Some(Login { name, groups: GroupSet(groups), superuser });
        return Ok(());
    }
    let settings = &s.world.table.settings;
    let most = [settings.login_tries, settings.pubkey_tries][method as usize];
    s.tries[method as usize] += 1;
    if s.tries[method as usize] >= most {
        s.last_word(reply::LOGIN_FAILED)?;
        return Err(End::Tries);
    }
    s.write(reply::LOGIN_FAILED)
}

/// The child's next word; None: it has ended.
pub fn hear(child: &OwnedFd) -> Option<Say> {
    let mut bytes = [0; MESSAGE_MAX];
    let (n, _) = message::receive_message(child.as_fd(), &mut bytes, true).ok()?;
    Say::decode(&bytes[..n])
}

/// A child that has ended hears nothing; its verdict tells why.
pub fn tell(child: &OwnedFd, say: &Say) {
    if let Some(bytes) = say.encode() {
        let _ = message::send_message(child.as_fd(), &bytes, &[], true);
    }
}
