//! A checkpassword program (cr.yp.to/checkpwd/interface.html): it reads the name and the password
//! from descriptor 3, and its exit status is the answer. It runs with the rights of this process,
//! because such programs change to the user.

use super::attempt::Attempt;
use super::conversation::{Conversation, PASSWORD};
use crate::sys::poll::{self, Poll};
use crate::sys::process::{self, Exit};
use crate::sys::signal::Signal;
use crate::sys::socket;
use crate::sys::spawn::{CList, Child, Env, Launch, PATH, Spawner};
use crate::wire::login::LoginResult;
use std::ffi::CString;
use std::os::fd::AsFd;
use std::time::Duration;

/// How long a program may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// The exit status of a program that refuses the password.
const NO: i32 = 1;

/// `command`: its words, one a line.
pub fn result(
    attempt: &Attempt,
    command: &str,
    c: &mut Conversation,
) -> Result<LoginResult, String> {
    let Some(password) = c.ask(PASSWORD) else { return Ok(LoginResult::Later) };
    if attempt.request.user.contains(&0) || password.contains(&0) {
        return Ok(LoginResult::No);
    }
    let text = [&attempt.request.user[..], b"\0", &password, b"\0\0"].concat();
    // The configuration's words have no control characters, so none contains a newline.
    let words: Vec<&str> = command.split('\n').collect();
    let command = words[0];
    let zero = |_| format!("{command}: a zero byte in a word");
    let program = CString::new(command).map_err(|_| zero(()))?;
    let argv = CList::new(&words).map_err(|_| zero(()))?;
    let mut env = Env::new();
    env.push("PATH", PATH.as_bytes()).map_err(|_| zero(()))?;
    if let Some(address) = attempt.request.from.address() {
        env.push("TCPREMOTEIP", address.to_string().as_bytes()).map_err(|_| zero(()))?;
    }
    let env = env.finish();
    let (ours, theirs) = socket::pair().map_err(|e| format!("socket pair: {e}"))?;
    let launch = Launch {
        extra: Some(theirs.as_fd()),
        // In the group that the parent ends where this process takes too long.
        new_session: false,
        ..Launch::new(&program, &argv, &env)
    };
    let mut spawner = Spawner::new(0).map_err(|e| format!("descriptors: {e}"))?;
    let child = spawner.start(&launch).map_err(|e| format!("{command}: {e}"))?;
    drop(theirs);
    // The socket takes all of it at once. A program that does not read it refuses the login.
    let _ = socket::send(ours.as_fd(), &text).and_then(|_| socket::shutdown_write(ours.as_fd()));
    wait(attempt, command, &child)
}

/// Waits for the program's exit status. One that takes too long is killed, and one that nobody
/// waits for any more.
fn wait(attempt: &Attempt, command: &str, child: &Child) -> Result<LoginResult, String> {
    let pidfd = child.pidfd().map_err(|e| format!("{command}: {e}"))?;
    let mut polls = [Poll::new(pidfd, true, false), Poll::hangup(attempt.reports.parent())];
    let ready = poll::wait(&mut polls, Some(ANSWER_TIMEOUT));
    if polls[1].hung() && !polls[0].readable() {
        child.kill_tree();
        return Err(format!("{command}: fived has ended"));
    }
    if ready.is_ok_and(|n| n == 0) {
        child.signal(Signal::KILL).map_err(|e| format!("{command}: {e}"))?;
        return Err(format!("{command}: no answer within {} s", ANSWER_TIMEOUT.as_secs()));
    }
    Ok(match process::wait_any() {
        Some((_, Exit::Status(0))) => LoginResult::Yes,
        Some((_, Exit::Status(NO))) => {
            attempt.refuse(LoginResult::No, &format!("{command} said no"))
        }
        other => attempt.refuse(LoginResult::Later, &format!("{command}: {other:?}")),
    })
}
