//! One session for each user, host, port and way there: the first call opens it, all others find
//! it. If several calls start at once, a lock lets one of them open it; the others wait and then
//! use it. If the server did not answer that one, they end with it; if it takes long, because it
//! waits for a person, they open sessions of their own. The session of each gate on the way is
//! found or opened in the same manner.

use super::channel::{Channel, HOLDER_TIMEOUT, find};
use super::dial::{self, Connection};
use super::error::Error;
use super::holder::{Forwards, Holder, SessionSocket};
use super::offer;
use super::open;
use super::request::Request;
use super::target::Target;
use super::{forward, gate, messages, paths};
use crate::sys::{clock, local, process, socket};
use std::fs::{File, TryLockError};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

/// How long another five may take to open the session before a message is printed.
const QUIET_WAIT: Duration = Duration::from_secs(2);
/// How long it is waited for: longer than a connection may take. Who has left a prompt unanswered
/// must not hold up everything else that this user does there.
const WAIT_MAX: Duration = dial::CONNECT_TIMEOUT.saturating_add(Duration::from_secs(5));
/// How often a gate's session is made again: a gate that reloads its configuration ends its
/// sessions.
const GATE_TRIES: u32 = 5;
/// How often the lock is tried, and the session looked for, until then, and after that.
const LOCK_INTERVAL: Duration = Duration::from_millis(5);
const LATER_INTERVAL: Duration = Duration::from_millis(50);

/// A channel to the holder of the target's session. If there is no session, it is opened, and the
/// first call's request is sent with it. To be called while this process has one thread.
pub fn channel(t: &Target, first: Option<&Request>) -> Result<Channel, Error> {
    if t.unshared {
        return create(t, first, None);
    }
    let path = t.socket()?;
    if let Some(found) = find(&path)? {
        messages::step(&format!("using the session to {} ({})", t.who(), path.display()));
        return Ok(found);
    }
    if process::has_hard_limit() {
        // Its holder would have that limit too, and end by it when it works for others.
        messages::step(
            "the size of files or the CPU time is limited here, so this session is not left to other calls",
        );
        return create(t, first, None);
    }
    let file = paths::lock_of(&path)?;
    match turn(&file, &path, t)? {
        Turn::Found(found) => {
            messages::step(&format!("using the session to {} ({})", t.who(), path.display()));
            Ok(found)
        }
        Turn::Ours => create(t, first, Some(&path)).inspect_err(|e| {
            if let Error::NoAnswer { place, .. } = e {
                note_silence(&file, t, place);
            }
        }),
        Turn::Overdue => {
            let waited = WAIT_MAX.as_secs();
            messages::info(&format!(
                "{}: not made after {waited} s: this call makes a session of its own",
                t.who()
            ));
            // The configuration's forwards are the shared session's.
            create(&t.alone(), first, None)
        }
    }
}

/// What has come of waiting for the session.
enum Turn {
    Found(Channel),
    /// There is none, and this process has the lock: it opens it.
    Ours,
    /// Another five has the lock for too long.
    Overdue,
}

/// Notes in the lock that nobody has answered at this place: those that wait for the lock would
/// else ask one after the other, and each wait for all before it.
fn note_silence(lock: &File, t: &Target, place: &str) {
    let text = format!("{} {:?} {place}", clock::monotonic().as_millis(), t.family);
    // If it cannot be written, they ask for themselves.
    let _ = lock.set_len(0).and_then(|()| lock.write_all_at(text.as_bytes(), 0));
}

/// The place where nobody has answered another five, if that was after `since`.
fn silent_place(lock: &File, t: &Target, since: Duration) -> Option<String> {
    let mut text = [0; 1024];
    let length = lock.read_at(&mut text, 0).ok()?;
    let mut words = std::str::from_utf8(&text[..length]).ok()?.splitn(3, ' ');
    let at = Duration::from_millis(words.next()?.parse().ok()?);
    let same =
        (since..=clock::monotonic()).contains(&at) && words.next()? == format!("{:?}", t.family);
    words.next().filter(|_| same).map(String::from)
}

/// Waits for the lock, or until another five has made the session: whichever comes first, so that
/// none waits for those that wait for the lock with it.
fn turn(file: &File, path: &Path, t: &Target) -> Result<Turn, Error> {
    let begun = clock::monotonic();
    let (mut pause, mut told) = (LOCK_INTERVAL, false);
    loop {
        match file.try_lock() {
            Ok(()) => {
                let found = find(path)?;
                // Who came a moment ago asks the server itself.
                let silent = silent_place(file, t, begun).filter(|_| told);
                return match (found, silent) {
                    (Some(found), _) => Ok(Turn::Found(found)),
                    (None, Some(place)) => {
                        Err(Error::NoAnswer { place, seconds: dial::CONNECT_TIMEOUT.as_secs() })
                    }
                    (None, None) => Ok(Turn::Ours),
                };
            }
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(e)) => {
                return Err(Error::system(path.with_extension("lock").display().to_string())(e));
            }
        }
        if let Some(found) = find(path)? {
            return Ok(Turn::Found(found));
        }
        let waited = clock::monotonic() - begun;
        if waited >= WAIT_MAX {
            return Ok(Turn::Overdue);
        }
        if !told && waited >= QUIET_WAIT {
            // The other five may be waiting for its user to answer a prompt.
            let who = t.who();
            messages::info(&format!("{who}: another five is making the session: waiting for it"));
            (told, pause) = (true, LATER_INTERVAL);
        }
        std::thread::sleep(pause);
    }
}

/// Connects with the server, directly or through the gate before it.
fn connect(t: &Target) -> Result<Connection, Error> {
    let Some(hop) = &t.gate else {
        return dial::connect(t).map(|socket| Connection { socket, gate: None });
    };
    let request = gate::request(&hop.target, &hop.service);
    for _ in 0..GATE_TRIES {
        let found = channel(&hop.target, Some(&request))?;
        if let Some(connection) = gate::enter(&hop.target, found, &request)? {
            messages::step(&format!("connected through {}/{}", hop.target.who(), hop.service));
            return Ok(connection);
        }
    }
    let why = "every session breaks as soon as it is made".into();
    Err(Error::Lost { what: hop.target.place(), why })
}

/// Opens a session and starts its holder.
fn create(t: &Target, first: Option<&Request>, path: Option<&Path>) -> Result<Channel, Error> {
    let needed = Holder::descriptors_needed(t.forwards.len(), t.offers.len());
    if process::hard_nofile() < needed {
        // Its holder would take no call, and every call would wait for it.
        let why = format!("a session needs {needed} descriptors at least");
        return Err(Error::System { what: "ulimit -Hn".into(), why });
    }
    let mut session = open::open(t, &|| connect(t), first)?;
    let socket = path.map(SessionSocket::open).transpose();
    let mut socket = socket.inspect_err(|_| session.abandon())?;
    let (ours, theirs) = socket::seqpacket().map_err(Error::system("socket"))?;
    let mut opened = forward::open_all(&t.forwards);
    let mut keep = vec![session.link.socket().as_raw_fd(), theirs.as_raw_fd()];
    for listener in opened.iter_mut().flat_map(|(_, listeners)| listeners) {
        listener.announce();
        keep.push(listener.fd.as_raw_fd());
        listener.disown();
    }
    let forwards = Forwards::new(opened, &t.virtual_host);
    let (offers, host) = (offer::resolve_all(&t.offers), t.virtual_host.clone());
    keep.extend(socket.as_ref().map(|d| d.as_fd().as_raw_fd()));
    keep.extend(session.gate.as_ref().map(|gate| gate.as_raw_fd()));
    local::limit_sending(ours.as_fd(), HOLDER_TIMEOUT).map_err(Error::system("socket"))?;
    socket.iter_mut().for_each(SessionSocket::disown);
    let pid = process::branch(&keep, move || {
        let mut holder = Holder::new(session, t.clone(), socket, forwards, theirs);
        holder.offer_all(offers, &host);
        holder.run()
    })
    .map_err(Error::system("fork"))?;
    messages::step("the session is open, and its holder keeps it");
    Ok(Channel { fd: ours, pid })
}
