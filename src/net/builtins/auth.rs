//! AUTH: asks for a name, a password, and whatever else PAM wants to know.

use super::login::{FromChild, login_result, may_login, receive, send, try_login};
use crate::net::end::End;
use crate::net::session_state::Session;
use crate::wire::login::LoginMessage;
use crate::wire::orders::{Answer, Method};
use crate::wire::reply;
use crate::wire::request::DIALOGUE_MAX;
use std::os::fd::OwnedFd;

/// How many prompts a back end may send.
const PROMPTS_MAX: usize = 16;

/// Runs the dialogue. Err: the session ends.
pub fn run(s: &mut Session) -> Result<(), End> {
    let password_first = may_login(s, Method::Password)?;
    s.write(reply::SUCCESS)?;
    s.write(reply::ENTER_USERNAME)?;
    let user = s.line(DIALOGUE_MAX)?;
    let mut password = None;
    if password_first {
        // A try begins only when everything that it needs is there: no slot is taken while somebody
        // types.
        s.write(reply::ENTER_PASSWORD)?;
        password = Some(s.line(DIALOGUE_MAX)?);
    }
    let mut asked = password_first;
    let mut answer = match try_login(s, Method::Password, &user)? {
        Ok(child) => prompts(s, &child, password, &mut asked)?,
        Err(early) => early,
    };
    if !asked && answer.is_none() {
        answer = s.channel.try_answer()?;
    }
    if !asked && !matches!(answer, Some(Answer::Login(_))) {
        // The back end has asked nothing. A password that the client sent ahead must still not be
        // read as a request.
        s.write(reply::ENTER_PASSWORD)?;
        s.line(DIALOGUE_MAX)?;
    }
    login_result(s, answer, Method::Password, &user, None)
}

/// Passes the child's prompts to the client, and the client's lines to the child; `password`: the
/// line that is known already. Notes whether the child has asked anything. Returned: the parent's
/// answer, if that has come.
fn prompts(
    s: &mut Session,
    child: &OwnedFd,
    mut password: Option<Vec<u8>>,
    asked: &mut bool,
) -> Result<Option<Answer>, End> {
    for _ in 0..PROMPTS_MAX {
        match receive(s, child)? {
            FromChild::Message(LoginMessage::Prompt(prompt)) => {
                *asked = true;
                let line = match password.take() {
                    Some(line) => line,
                    None => {
                        s.write(&prompt)?;
                        s.line(DIALOGUE_MAX)?
                    }
                };
                send(child, &LoginMessage::Line(line));
            }
            FromChild::Message(LoginMessage::Text(text)) => s.write(&text)?,
            FromChild::Message(LoginMessage::Line(_) | LoginMessage::Signature { .. }) => break,
            FromChild::Over(early) => return Ok(early),
        }
    }
    Ok(None)
}
