//! Calls that another process can make wait for as long as it likes, and that no signal ends: those
//! that take the lock of a socket which that process has too. It keeps the lock by a call with
//! memory that somebody else provides (userfaultfd(2), FUSE). A process beside this one makes such
//! calls (`side_process`), and whoever wants their answers waits for a moment only.

use super::message::{self, FDS_MAX, Failed};
use super::poll::{self, Poll};
use super::{side_process, socket};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What ps(1) calls the process.
const NAME: &str = "fived-calls";
/// How long an answer is waited for once the call has begun. One that comes later is lost, so it is
/// long for a computer that is busy, too. Each that did not come in time halves the time for the
/// next ones, down to [`WAIT_MIN`], until [`WAIT_AGAIN`] after the first of them: whoever lets each
/// call go when it was waited for in vain costs no more than that.
const WAIT_MAX: Duration = Duration::from_millis(100);
const WAIT_MIN: Duration = Duration::from_millis(5);
const WAIT_AGAIN: Duration = Duration::from_secs(60);
/// How long a call may take to begin. It depends on nobody but the computer, which may be so busy
/// that the process has to wait for a processor.
const BEGIN_MAX: Duration = Duration::from_secs(3);
/// How long the system may lack what it takes to ask for one.
const SCARCE_MAX: Duration = Duration::from_millis(100);

/// A call, with the descriptors that it was given; its answer may be another one.
type Call = Box<dyn FnOnce(&[BorrowedFd]) -> Option<OwnedFd> + Send>;
type Answer<T> = Arc<Mutex<Waited<T>>>;

/// What somebody waits for.
enum Waited<T> {
    /// It has not begun.
    Pending,
    Begun,
    Done(T),
    /// Nobody waits for it any more.
    InVain,
}

impl<T> Waited<T> {
    /// The call begins.
    fn begin(&mut self) {
        if matches!(self, Waited::Pending) {
            *self = Waited::Begun;
        }
    }
}

/// What makes the calls on one socket, or for one purpose, one after the other: one process at
/// most, from the first call on. It ends with this, or when the call ends that it makes then.
#[derive(Debug, Default)]
pub struct BoundedCalls {
    /// Somebody may have the socket who could make the calls wait: how long for an answer.
    guards: Option<Duration>,
    process: Option<OwnedFd>,
    /// When the call began whose end is not known.
    owed: Option<Instant>,
    /// Answers that did not come in time, and since when they are counted.
    in_vain: Option<(u32, Instant)>,
}

impl BoundedCalls {
    /// Somebody gets the socket who could make the calls wait. Before that they are made at once:
    /// the change to the process and back takes some 25 µs.
    pub fn guard(&mut self) {
        self.guard_for(WAIT_MAX);
    }

    /// The same; `longest`: how long an answer is waited for, instead of the usual time.
    pub fn guard_for(&mut self, longest: Duration) {
        self.guards = Some(longest);
    }

    fn guards(&self) -> bool {
        self.guards.is_some()
    }

    /// Ends the process, if it makes no call, until the next one.
    pub fn rest(&mut self) {
        if self.owed.is_none() {
            self.process = None;
        }
    }

    /// For how long a call has not returned; nothing where none is known to.
    pub fn held_up_for(&self) -> Duration {
        self.owed.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// The answer of a call with these descriptors; there is none in the answer. None: it does not
    /// come in time, or that of an earlier call has not come yet (or there can be no process).
    pub fn make<T: Send + 'static>(
        &mut self,
        with: &[BorrowedFd],
        call: impl FnOnce(&[BorrowedFd]) -> T + Send + 'static,
    ) -> Option<T> {
        let answered = self.make_with(with, move |with| (call(with), None))?;
        Some(answered.0)
    }

    /// The same of a call that makes a socket.
    pub fn make_socket(
        &mut self,
        with: &[BorrowedFd],
        call: impl FnOnce(&[BorrowedFd]) -> io::Result<OwnedFd> + Send + 'static,
    ) -> Option<io::Result<OwnedFd>> {
        let answered = self.make_with(with, move |with| match call(with) {
            Ok(socket) => (Ok(()), Some(socket)),
            Err(e) => (Err(e), None),
        })?;
        let lost = || io::Error::from_raw_os_error(libc::EMFILE);
        Some(answered.0.and_then(|()| answered.1.ok_or_else(lost)))
    }

    fn make_with<T: Send + 'static>(
        &mut self,
        with: &[BorrowedFd],
        call: impl FnOnce(&[BorrowedFd]) -> (T, Option<OwnedFd>) + Send + 'static,
    ) -> Option<(T, Option<OwnedFd>)> {
        if !self.guards() {
            return Some(call(with));
        }
        if self.owed.is_some() {
            self.answer(Duration::ZERO)?;
        }
        let answer: Answer<T> = Arc::new(Mutex::new(Waited::Pending));
        let to = answer.clone();
        let call: Call = Box::new(move |with| {
            let lock = || to.lock().unwrap_or_else(PoisonError::into_inner);
            lock().begin();
            let (done, made) = call(with);
            let mut to = lock();
            // A socket that comes too late is closed here: clients would come to it.
            let made = made.filter(|_| !matches!(*to, Waited::InVain));
            *to = Waited::Done(done);
            made
        });
        self.ask(with, call).inspect_err(|e| log::debug!("{NAME}: {e}")).ok()?;
        let lock = || answer.lock().unwrap_or_else(PoisonError::into_inner);
        let until = Instant::now() + BEGIN_MAX;
        let (mut made, mut has_begun) = (None, false);
        while made.is_none() && !has_begun && Instant::now() < until && self.owed.is_some() {
            has_begun = !matches!(*lock(), Waited::Pending);
            made = self.answer(if has_begun { self.wait() } else { WAIT_MIN });
        }
        let done = match std::mem::replace(&mut *lock(), Waited::InVain) {
            Waited::Done(done) => Some(done),
            Waited::Pending | Waited::Begun | Waited::InVain => None,
        };
        if done.is_some() && made.is_none() {
            // It was made just in time, and is on its way.
            made = self.answer(WAIT_MAX);
        }
        self.count(made.is_none());
        Some((done?, made?))
    }

    fn ask(&mut self, with: &[BorrowedFd], call: Call) -> io::Result<()> {
        // Somebody may have ended it.
        let process = match self.process.take().filter(|process| !poll::has_hung(process.as_fd())) {
            Some(process) => process,
            None => start()?,
        };
        let (first, last) = with.split_at(with.len().saturating_sub(FDS_MAX));
        let more = first.chunks(FDS_MAX).try_for_each(|fds| send(process.as_fd(), None, fds));
        // After an error the process ends, because nobody has its channel any more.
        more.and_then(|()| send(process.as_fd(), Some(call), last))?;
        (self.process, self.owed) = (Some(process), Some(Instant::now()));
        Ok(())
    }

    /// Waits for the answer of the last call, so long at most: the descriptor that is its answer.
    fn answer(&mut self, wait: Duration) -> Option<Option<OwnedFd>> {
        let process = self.process.as_ref()?.as_fd();
        poll::wait(&mut [Poll::new(process, true, false)], Some(wait)).ok()?;
        match message::receive(process, &mut [0; 1]) {
            Ok((1, mut fds)) => {
                self.owed = None;
                Some(fds.take().map(super::shared::Shared::our_own))
            }
            Err(e) if matches!(Failed::of(&e), Failed::Full | Failed::Scarce) => None,
            // Somebody has ended it.
            _ => {
                (self.process, self.owed) = (None, None);
                None
            }
        }
    }

    /// How long the next answer is waited for.
    fn wait(&self) -> Duration {
        let times = self.in_vain.filter(|(_, since)| since.elapsed() < WAIT_AGAIN);
        let longest = self.guards.unwrap_or(WAIT_MAX);
        let halved = times.and_then(|(n, _)| longest.checked_div(1u32.checked_shl(n)?));
        match times {
            None => longest,
            Some(_) => halved.unwrap_or_default().max(WAIT_MIN),
        }
    }

    fn count(&mut self, in_vain: bool) {
        let now = Instant::now();
        let before = self.in_vain.filter(|(_, since)| now.duration_since(*since) < WAIT_AGAIN);
        let (times, since) = before.unwrap_or((0, now));
        let times = times.saturating_add(u32::from(in_vain));
        self.in_vain = (times > 0).then_some((times, since));
    }
}

/// The process, as its channel.
fn start() -> io::Result<OwnedFd> {
    let (ours, theirs) = socket::seqpacket()?;
    side_process::run(NAME, theirs, serve)?;
    Ok(ours)
}

/// Sends descriptors, and perhaps the call that they are for.
fn send(process: BorrowedFd, call: Option<Call>, fds: &[BorrowedFd]) -> io::Result<()> {
    let at = call.map_or(0, |call| Box::into_raw(Box::new(call)).expose_provenance());
    let sent = message::send_within(SCARCE_MAX, process, &at.to_ne_bytes(), fds);
    if sent.is_err() && at != 0 {
        // SAFETY: it was made above, and nobody was told of it.
        drop(unsafe { Box::from_raw(std::ptr::with_exposed_provenance_mut::<Call>(at)) });
    }
    sent
}

/// Makes the calls that come, until nobody has the other end of the channel.
fn serve(channel: BorrowedFd) {
    let (mut all, mut bytes) = (Vec::<OwnedFd>::new(), [0; size_of::<usize>()]);
    while let Ok((n, mut fds)) = message::receive_waiting(channel, &mut bytes)
        && n == bytes.len()
    {
        all.extend(std::iter::from_fn(|| fds.take()).map(super::shared::Shared::our_own));
        let at = usize::from_ne_bytes(bytes);
        if at == 0 {
            continue;
        }
        // SAFETY: a call in the memory that both processes have, for this one alone.
        let call = unsafe { Box::from_raw(std::ptr::with_exposed_provenance_mut::<Call>(at)) };
        let with: Vec<BorrowedFd> = all.iter().map(AsFd::as_fd).collect();
        let made = call(&with);
        // Before the answer, so that the next call finds nothing of this one.
        all.clear();
        if message::send_waiting(channel, &[0], made.as_ref().map(AsFd::as_fd).as_slice()).is_err()
        {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn guarding() -> BoundedCalls {
        let mut calls = BoundedCalls::default();
        calls.guard();
        calls
    }

    #[test]
    fn a_call_that_takes_too_long_holds_up_nobody() {
        let mut calls = guarding();
        assert_eq!(calls.make(&[], |_| 1), Some(1));
        let (end, ended) = mpsc::channel::<()>();
        let began = Instant::now();
        assert_eq!(calls.make(&[], move |_| ended.recv().is_ok()), None);
        assert!((0..1000).all(|_| calls.make(&[], |_| 2).is_none()));
        assert!(began.elapsed() < Duration::from_secs(10));
        assert!(calls.held_up_for() >= WAIT_MAX);
        end.send(()).unwrap();
        let again = (0..1000).find_map(|_| {
            std::thread::sleep(Duration::from_millis(5));
            calls.make(&[], |_| 3)
        });
        assert_eq!((again, calls.held_up_for()), (Some(3), Duration::ZERO));
    }

    /// The computer is busy.
    #[test]
    fn a_call_that_begins_late_is_waited_for() {
        let mut calls = guarding();
        // SAFETY: no memory is handed over.
        let pid = calls.make(&[], |_| unsafe { libc::getpid() }).expect("in time");
        // SAFETY: likewise; it is a process of this test's own.
        let signal = move |which| unsafe { libc::kill(pid, which) };
        assert_eq!(signal(libc::SIGSTOP), 0);
        let continued = std::thread::spawn(move || {
            std::thread::sleep(3 * WAIT_MAX);
            signal(libc::SIGCONT)
        });
        assert_eq!((calls.make(&[], |_| 1), continued.join().unwrap()), (Some(1), 0));
        assert!(calls.in_vain.is_none());
    }

    #[test]
    fn a_process_that_somebody_has_ended_is_replaced() {
        let mut calls = guarding();
        // SAFETY: no memory is handed over.
        let pid = || unsafe { libc::getpid() };
        let first = calls.make(&[], move |_| pid()).expect("in time");
        // SAFETY: likewise; it is a process of this test's own.
        assert_eq!(unsafe { libc::kill(first, libc::SIGKILL) }, 0);
        let channel = calls.process.as_ref().expect("it was there").as_fd();
        poll::wait(&mut [Poll::hangup(channel)], Some(BEGIN_MAX)).unwrap();
        assert!(calls.make(&[], move |_| pid()).is_some_and(|next| next != first));
    }

    #[test]
    fn who_makes_each_call_wait_for_a_while_costs_less_each_time() {
        let mut calls = guarding();
        let mut all = Duration::ZERO;
        for _ in 0..50 {
            let (end, ended) = mpsc::channel::<()>();
            all += calls.wait();
            if calls.make(&[], move |_| ended.recv().is_ok()).is_some() {
                panic!("it has not ended");
            }
            end.send(()).unwrap();
            while calls.owed.is_some() && calls.answer(WAIT_MAX).is_none() {}
        }
        assert!(all <= 2 * WAIT_MAX + 50 * WAIT_MIN, "{all:?}");
    }

    #[test]
    fn a_socket_that_is_made_too_late_is_closed() {
        let mut calls = guarding();
        let (end, ended) = mpsc::channel::<()>();
        let (at, made_at) = mpsc::channel();
        let made = calls.make_socket(&[], move |_| {
            let _ = ended.recv();
            let l = std::net::TcpListener::bind("127.0.0.1:0")?;
            let _ = at.send(l.local_addr()?);
            Ok(l.into())
        });
        assert!(made.is_none());
        end.send(()).unwrap();
        let at = made_at.recv().unwrap();
        let is_closed = (0..1000).any(|_| {
            std::thread::sleep(Duration::from_millis(5));
            std::net::TcpStream::connect(at).is_err()
        });
        assert!(is_closed);
    }

    #[test]
    fn descriptors_go_there_and_come_back() {
        let mut calls = guarding();
        let pairs: Vec<_> = (0..11).map(|_| socket::pair().unwrap()).collect();
        let ours: Vec<BorrowedFd> = pairs.iter().map(|(a, _)| a.as_fd()).collect();
        for _ in 0..2 {
            let sent = calls.make(&ours, |all| {
                all.iter().filter(|fd| socket::send(**fd, b"x").is_ok()).count()
            });
            assert_eq!(sent, Some(11));
            assert!(pairs.iter().all(|(_, b)| socket::receive(b.as_fd(), &mut [0]).is_ok()));
        }
        let copy = calls.make_socket(&ours[..1], |all| all[0].try_clone_to_owned());
        let copy = copy.expect("in time").expect("a copy");
        socket::send(copy.as_fd(), b"x").unwrap();
        assert!(socket::receive(pairs[0].1.as_fd(), &mut [0]).is_ok());
        let wrong = calls.make_socket(&[], |_| Err(io::ErrorKind::NotFound.into()));
        assert_eq!(wrong.expect("in time").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
