//! What AUTH and PUBKEY have in common. The parent alone decides who somebody is; this thread only
//! passes messages between the client and a login child.

use crate::net::end::End;
use crate::net::session_state::Session;
use crate::policy::{GroupSet, Login};
use crate::sys::poll::{self, Poll};
use crate::sys::{clock, message};
use crate::wire::login::{LoginMessage, LoginResult, MESSAGE_MAX};
use crate::wire::orders::{Answer, Ask, Data, May, Method};
use crate::wire::reply;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// A key that logs nobody in is answered a whole number of these times after it has come: the files
/// of a user who exists take a part of a millisecond more than those of one who does not.
const KEY_STEP: Duration = Duration::from_millis(20);

/// Asks the parent whether a try may begin; true: the password must be known first. Err: the client
/// was told why not, and the session ends.
pub fn may_login(s: &mut Session, method: Method) -> Result<bool, End> {
    match s.channel.ask(&Ask::MayLogin { method })? {
        Answer::Login(May::Try { password_first }) => Ok(password_first),
        Answer::Login(May::Later { seconds }) => not_now(s, seconds),
        // Net knows the same rules, and has asked only where they allow it.
        _ => Err(End::System),
    }
}

/// Tells the client to try again after this many seconds. The session ends.
pub fn not_now<T>(s: &mut Session, seconds: u32) -> Result<T, End> {
    s.close_with(&reply::try_later(seconds))?;
    Err(End::Refused)
}

/// The channel to a login child. Err: there is none, and the parent's answer, if that has come.
pub type LoginChild = Result<OwnedFd, Option<Answer>>;

/// Has the parent start a login child, and waits until it runs.
pub fn try_login(s: &mut Session, method: Method, user: &[u8]) -> Result<LoginChild, End> {
    s.state.facts.login = None;
    s.channel.send(&Ask::Verify { method, user: Data::truncate(user) })?;
    let received = s.channel.answer_with()?;
    Ok(match received.answer {
        // Without a descriptor for it the child sees the end, and the parent's answer follows.
        Answer::Channel { .. } => received.connection.ok_or(None),
        early => Err(Some(early)),
    })
}

/// Waits for the parent's result, and tells the client. `key_came`: when its key came, if it is
/// one.
pub fn login_result(
    s: &mut Session,
    early: Option<Answer>,
    method: Method,
    user: &[u8],
    key_came: Option<Duration>,
) -> Result<(), End> {
    let answer = match early {
        Some(answer) => answer,
        None => s.channel.answer()?,
    };
    let (status, superuser, groups) = match answer {
        Answer::LoginResult { status, superuser, groups } => (status, superuser, groups),
        // A penalty has begun meanwhile, or no slot was free.
        Answer::Login(May::Later { seconds }) => return not_now(s, seconds),
        _ => return Err(End::System),
    };
    if LoginResult::from_status(status as i32) == LoginResult::Yes {
        let name = String::from_utf8_lossy(user).into_owned();
        let text = reply::logged_in(&name);
        s.state.facts.login = Some(Login { name, groups: GroupSet(groups), superuser });
        // Before its client hears of it, which may have others begin a session at once.
        s.makes_room(false);
        if s.state.guard.is_evicted() {
            return Err(End::Evicted);
        }
        return s.write(&text);
    }
    if let Some(came) = key_came {
        let taken = clock::monotonic().saturating_sub(came).as_nanos();
        let left = KEY_STEP.as_nanos() - taken % KEY_STEP.as_nanos();
        // At most that time: it fits.
        let left = Duration::from_nanos(left as u64);
        poll::wait(&mut [], Some(left)).map_err(|_| End::System)?;
    }
    let settings = &s.state.world.table.settings;
    let most = [settings.login_tries, settings.pubkey_tries][method as usize];
    s.state.tries[method as usize] += 1;
    if s.state.tries[method as usize] >= most {
        s.close_with(reply::LOGIN_FAILED)?;
        return Err(End::Tries);
    }
    s.write(reply::LOGIN_FAILED)
}

/// What comes next in a try.
pub enum FromChild {
    Message(LoginMessage),
    /// The child says nothing more. With the parent's answer, if that has come.
    Over(Option<Answer>),
}

/// Waits for the child's next message. The parent's answer ends the wait too: what the child has
/// started may have its end of the channel for longer than the child.
pub fn receive(s: &Session, child: &OwnedFd) -> Result<FromChild, End> {
    let mut bytes = [0; MESSAGE_MAX];
    loop {
        // What the child has said comes first.
        match message::receive(child.as_fd(), &mut bytes) {
            Ok((n, _)) => {
                let message = LoginMessage::decode(&bytes[..n]);
                return Ok(message.map_or(FromChild::Over(None), FromChild::Message));
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return Ok(FromChild::Over(None)),
        }
        if let Some(answer) = s.channel.try_answer()? {
            return Ok(FromChild::Over(Some(answer)));
        }
        let both = [child.as_fd(), s.channel.as_fd()];
        poll::wait(&mut both.map(|fd| Poll::new(fd, true, false)), None)
            .map_err(|_| End::System)?;
    }
}

/// This fails if the child has ended; its result then says why.
pub fn send(child: &OwnedFd, message: &LoginMessage) {
    if let Some(bytes) = message.encode() {
        let _ = message::send_waiting(child.as_fd(), &bytes, &[]);
    }
}
