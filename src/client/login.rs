//! Logging in on a connection, before a session is made on it: keys, then what the server asks for.

use super::dial::Connect;
use super::error::Error;
use super::keys::{self, Key, NOT_ACCEPTED, Tried};
use super::messages;
use super::server::{self, Server};
use super::target::Target;
use crate::wire::builtins::Builtin;
use crate::wire::pubkey::{self, Kind};
use crate::wire::{reply, request};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::time::Duration;
use zeroize::Zeroizing;

/// Keys offered on one connection: the server ends it after `pubkey_tries` (10) that are not the
/// user's.
const KEYS_MAX: usize = 9;
/// How often a password is asked for, as in ssh(1); the server's `login_tries` is the same.
const PASSWORDS: usize = 3;
/// Lines that a server may send around its prompts.
const LINES_MAX: usize = 200;
/// A prompt is taken to be complete when nothing more comes for this long.
const PROMPT_SILENCE: Duration = Duration::from_millis(250);

/// How a login has succeeded: on a second connection the same is done without a question.
#[derive(Default)]
pub enum Known {
    #[default]
    Nothing,
    /// With the key of this name.
    Key(String),
    /// With these answers to the server's prompts, which are overwritten when they are dropped.
    Answers(Vec<Zeroizing<Vec<u8>>>),
}

/// `PUBKEY` and its line. They are sent before the challenge has come, because both ends know it.
/// But where a person may be asked first, for a passphrase for example, `PUBKEY` is answered: a
/// server waits longer for the rest of a login than for its beginning. Ok(Err): why the key did not
/// sign.
pub fn key_line(
    t: &Target,
    server: &mut Server,
    user: &str,
    key: &Key,
) -> Result<Result<Vec<u8>, String>, Error> {
    let challenge = STANDARD.encode(server.challenge()?);
    let text = pubkey::text(Kind::Tls, user.as_bytes(), &challenge);
    let mut failed = None;
    let signed = key.sign(&text, &mut || {
        failed = begin_key(t, server).err();
        failed.is_none()
    });
    if let Some(error) = failed {
        return Err(error);
    }
    Ok(signed.map(|signature| {
        let answer = request::line(&pubkey::answer(user, &signature));
        match server.waits_for_key {
            true => answer,
            false => [request::line(Builtin::Pubkey.as_str()), answer].concat(),
        }
    }))
}

fn begin_key(t: &Target, server: &mut Server) -> Result<(), Error> {
    server.send(&request::line(Builtin::Pubkey.as_str()))?;
    read_challenge(t, server)?;
    server.waits_for_key = true;
    Ok(())
}

/// Keys one after the other, then passwords. Returns how it has succeeded.
pub fn one_by_one(
    (t, connect): (&Target, Connect),
    server: &mut Server,
    user: &str,
    keys: &[Key],
    mut tried: Tried,
    known: &Known,
) -> Result<Known, Error> {
    each((t, connect), server, user, keys, &mut tried, known).map_err(|e| match e {
        // What was tried before may be why the server lets nobody try for a while.
        Error::Refused { place, what, reply } if !tried.is_empty() => {
            let reply = format!("{reply}; before that: {}", tried.text());
            Error::Refused { place, what, reply }
        }
        e => e,
    })
}

fn each(
    (t, connect): (&Target, Connect),
    server: &mut Server,
    user: &str,
    keys: &[Key],
    tried: &mut Tried,
    known: &Known,
) -> Result<Known, Error> {
    for key in keys.iter().take(KEYS_MAX) {
        match key_line(t, server, user, key)? {
            Err(why) => {
                tried.failed(&key.name(), &why);
                without_key(t, server, connect)?;
            }
            Ok(line) => {
                server.send(&line)?;
                if key_accepted(t, server)? {
                    messages::step(&format!("logged in with {}", key.name()));
                    return Ok(Known::Key(key.name()));
                }
                tried.failed(&key.name(), NOT_ACCEPTED);
            }
        }
    }
    if keys.len() > KEYS_MAX {
        let more = keys.len() - KEYS_MAX;
        tried.note(format!("{more} more keys were not tried, -i names the right one"));
    }
    if let Some(answers) = by_password(t, server, user, tried, known)? {
        return Ok(Known::Answers(answers));
    }
    server.link.send_close_notify();
    Err(Error::Login { who: t.who(), tried: tried.text() })
}

/// A key did not sign: a server that waits for it gets nothing that would count as a wrong one.
pub fn without_key(t: &Target, server: &mut Server, connect: Connect) -> Result<(), Error> {
    if server.waits_for_key {
        *server = server::open(t, connect)?;
    }
    Ok(())
}

/// The two lines that answer PUBKEY.
pub fn key_accepted(t: &Target, server: &mut Server) -> Result<bool, Error> {
    if !std::mem::take(&mut server.waits_for_key) {
        read_challenge(t, server)?;
    }
    result(t, &server.read_line()?)
}

/// The first of them.
fn read_challenge(t: &Target, server: &mut Server) -> Result<(), Error> {
    let reply = server.read_line()?;
    let challenge = reply::read_challenge(&reply)
        .ok_or_else(|| refused(t, Builtin::Pubkey.as_str(), &reply))?;
    let ours = STANDARD.encode(server.challenge()?);
    if challenge != ours {
        let why = "its challenge is another connection's: somebody is in between".into();
        return Err(Error::Tls { place: t.place(), why });
    }
    Ok(())
}

fn result(t: &Target, reply: &str) -> Result<bool, Error> {
    reply::read_login(reply).ok_or_else(|| refused(t, "the login", reply))
}

pub fn refused(t: &Target, what: &'static str, reply: &str) -> Error {
    let reply = reply.trim_start_matches('-').trim_start().to_string();
    Error::Refused { place: t.place(), what, reply }
}

/// AUTH: the person answers the server's prompts. Returns the answers. None: nobody can be asked,
/// or all attempts failed.
fn by_password(
    t: &Target,
    server: &mut Server,
    user: &str,
    tried: &mut Tried,
    known: &Known,
) -> Result<Option<Vec<Zeroizing<Vec<u8>>>>, Error> {
    let mut known = match known {
        Known::Answers(answers) => &answers[..],
        Known::Nothing | Known::Key(_) => &[],
    };
    for _ in 0..PASSWORDS {
        server.send(&request::line(Builtin::Auth.as_str()))?;
        let reply = server.read_line()?;
        if !reply::is(reply.as_bytes(), reply::SUCCESS) {
            return Err(refused(t, Builtin::Auth.as_str(), &reply));
        }
        let mut answers = Vec::new();
        match dialogue(t, server, user, &mut known, &mut answers)? {
            None => {
                tried.note("no terminal to ask for a password".into());
                return Ok(None);
            }
            Some(true) => {
                messages::step("logged in with a password");
                return Ok(Some(answers));
            }
            Some(false) => messages::info(&format!("{}: {NOT_ACCEPTED}", t.who())),
        }
    }
    tried.note(format!("password: {NOT_ACCEPTED}"));
    Ok(None)
}

/// One AUTH dialogue. `known`: answers that were given before; `given`: those that are given now.
/// None: nobody can be asked.
fn dialogue(
    t: &Target,
    server: &mut Server,
    user: &str,
    known: &mut &[Zeroizing<Vec<u8>>],
    given: &mut Vec<Zeroizing<Vec<u8>>>,
) -> Result<Option<bool>, Error> {
    let mut named = false;
    for _ in 0..LINES_MAX {
        match server.prompt(PROMPT_SILENCE)? {
            (line, true) if line.starts_with('-') => return result(t, &line).map(Some),
            // After the answer to a prompt the server may end the prompt's line.
            (line, true) if line.is_empty() => {}
            (line, true) => match reply::find_login(&line) {
                Some(at) => return result(t, &line[at..]).map(Some),
                None => messages::info(&line),
            },
            (_, false) if !named => {
                named = true;
                server.send(&request::line(user))?;
            }
            (prompt, false) => {
                let answer = match known.split_first() {
                    Some((answer, rest)) => {
                        *known = rest;
                        answer.clone()
                    }
                    None => {
                        let prompt = format!("({}) {} ", t.who(), prompt.trim());
                        let Some(answer) = keys::secret(&prompt)? else { return Ok(None) };
                        Zeroizing::new(answer)
                    }
                };
                // No copy of the password stays in this process or in the holder forked from it.
                server.send(&Zeroizing::new([&answer[..], b"\r\n"].concat()))?;
                given.push(answer);
            }
        }
    }
    Err(refused(t, Builtin::Auth.as_str(), "it asks and tells without end"))
}
