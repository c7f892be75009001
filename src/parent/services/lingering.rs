//! The lingering close of clients' sockets whose services have ended: what the client still sends
//! is discarded for a while, so that no reset overtakes what the service has sent.
//!
//! A process that the service has left may have the socket too, and keep its lock for as long as it
//! likes (`sys::bounded_calls`). So for each user there is a process beside this one that makes the
//! calls, and for which nobody waits (`sys::side_process`): a user who keeps a lock keeps only that
//! user's connections from being closed.

use crate::parent::descriptors::own;
use crate::sys::message::{self, Failed};
use crate::sys::poll::{self, Poll};
use crate::sys::shared::{self, Shared};
use crate::sys::{clock, side_process, socket};
use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How long one takes at most, and how many bytes are discarded.
const TIME: Duration = Duration::from_secs(2);
const BYTES: usize = 64 * 1024;
/// Of one user at a time. More wait in the channel; what that does not take is closed at once.
const MOST: usize = 256;
/// What ps(1) calls the processes.
const NAME: &str = "fived-closes";

/// A user's process.
struct Closer {
    channel: OwnedFd,
    /// How many sockets it has not closed yet, and when it got the last one.
    left: Arc<AtomicUsize>,
    last: Duration,
    /// It got one since the last [`Lingering::tidy`].
    used: bool,
}

/// See the module.
#[derive(Default)]
pub struct Lingering {
    users: HashMap<u32, Closer>,
}

impl Lingering {
    /// Begins one, of a socket that a service of this user has had. Where no process can be had the
    /// connection just ends.
    pub fn close(&mut self, socket: &Shared, uid: u32, now: Duration) {
        // A second one, if somebody has ended the first.
        for _ in 0..2 {
            match self.try_close(socket, uid, now) {
                Err(e) if Failed::of(&e) == Failed::Gone => drop(self.users.remove(&uid)),
                Err(e) => return ::log::debug!("{NAME} of uid {uid}: {e}"),
                Ok(()) => return,
            }
        }
    }

    fn try_close(&mut self, socket: &Shared, uid: u32, now: Duration) -> io::Result<()> {
        let closer = match self.users.remove(&uid) {
            Some(closer) => closer,
            None => Closer::start(now)?,
        };
        let closer = self.users.entry(uid).or_insert(closer);
        closer.left.fetch_add(1, Ordering::AcqRel);
        let sent = message::send(closer.channel.as_fd(), &[0], &[socket.as_fd()]);
        if sent.is_err() {
            closer.left.fetch_sub(1, Ordering::AcqRel);
        }
        (closer.last, closer.used) = (now, true);
        sent
    }

    /// Is one under way that is not held up?
    pub fn any(&self, now: Duration) -> bool {
        let goes_on = |c: &Closer| c.left.load(Ordering::Acquire) > 0 && c.last + TIME > now;
        self.users.values().any(goes_on)
    }

    pub fn has_processes(&self) -> bool {
        !self.users.is_empty()
    }

    /// Lets those processes end that have got nothing since the last call.
    pub fn tidy(&mut self) {
        // One that is held up stays: its user gets no second one.
        self.users.retain(|_, closer| {
            std::mem::take(&mut closer.used) || closer.left.load(Ordering::Acquire) > 0
        });
    }
}

impl Closer {
    fn start(now: Duration) -> io::Result<Closer> {
        let (channel, theirs) = own::channel()?;
        let left = Arc::new(AtomicUsize::new(0));
        let counts = left.clone();
        side_process::run(NAME, theirs, move |channel| close_all(channel, &counts))?;
        Ok(Closer { channel, left, last: now, used: false })
    }
}

/// A socket that is being closed.
struct Closing {
    socket: OwnedFd,
    until: Duration,
    /// Bytes that may still be discarded.
    left: usize,
}

/// Closes what comes, until nothing can come any more and all is closed. `left`: how many sockets
/// have been sent and are not closed yet.
fn close_all(channel: BorrowedFd, left: &AtomicUsize) {
    let (mut all, mut open) = (Vec::<Closing>::new(), true);
    while open || !all.is_empty() {
        let now = clock::monotonic();
        for closing in all.extract_if(.., |closing| closing.until <= now || !closing.goes_on()) {
            shared::close_at_once(closing.socket);
            left.fetch_sub(1, Ordering::AcqRel);
        }
        let rest = all.iter().map(|closing| closing.until.saturating_sub(now)).min();
        let mut polls: Vec<Poll> =
            all.iter().map(|closing| Poll::new(closing.socket.as_fd(), true, false)).collect();
        polls.push(Poll::new(channel, open && all.len() < MOST, false));
        if poll::wait(&mut polls, rest).is_err() {
            return;
        }
        if polls.last().is_some_and(Poll::readable) {
            open = receive(channel, &mut all, left);
        }
    }
}

/// Takes the next socket. False: there will be none.
fn receive(channel: BorrowedFd, all: &mut Vec<Closing>, left: &AtomicUsize) -> bool {
    // One has come. Where the system lacks something for the moment it is waited for.
    let Ok((1.., mut fds)) = message::receive_waiting(channel, &mut [0; 1]) else {
        return false;
    };
    match fds.take().map(Shared::our_own) {
        Some(socket) => {
            let until = clock::monotonic() + TIME;
            let left = if socket::shutdown_write(socket.as_fd()).is_ok() { BYTES } else { 0 };
            all.push(Closing { socket, until, left });
        }
        // There was no descriptor for it.
        None => drop(left.fetch_sub(1, Ordering::AcqRel)),
    }
    true
}

impl Closing {
    /// Discards what has come. False: nothing more is to be discarded.
    fn goes_on(&mut self) -> bool {
        while self.left > 0 {
            match socket::discard(self.socket.as_fd(), self.left) {
                Ok(0) => return false,
                Ok(n) => self.left = self.left.saturating_sub(n),
                Err(e) => return e.kind() == ErrorKind::WouldBlock,
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn all_that_was_sent_arrives_and_a_user_has_one_process() {
        let (mut lingering, now) = (Lingering::default(), clock::monotonic());
        let l = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut clients = Vec::new();
        for uid in [1, 1, 2] {
            let mut client = TcpStream::connect(l.local_addr().unwrap()).unwrap();
            let (mut served, _) = l.accept().unwrap();
            // What nobody reads would make the close a reset.
            client.write_all(b"unread").unwrap();
            served.write_all(b"answer").unwrap();
            lingering.close(&Shared::from(OwnedFd::from(served)), uid, now);
            clients.push(client);
        }
        assert!(lingering.any(now) && !lingering.any(now + TIME));
        assert_eq!(lingering.users.len(), 2);
        for mut client in clients {
            let mut all = String::new();
            client.read_to_string(&mut all).unwrap();
            assert_eq!(all, "answer");
            client.write_all(b"more").unwrap();
        }
        while lingering.any(clock::monotonic()) {
            std::thread::sleep(Duration::from_millis(5));
        }
        lingering.tidy();
        assert!(lingering.has_processes());
        lingering.tidy();
        assert!(!lingering.has_processes());
    }
}
