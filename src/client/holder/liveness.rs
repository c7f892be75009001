//! Does the server still answer? After the network has changed, or after this computer was
//! suspended, a dead session looks like a live one.
//!
//! If something is sent after a silence, a ping is sent with it; if silence follows what was sent,
//! a ping is sent then. If nothing comes back, a new connection to the same address is tried. As
//! long as that fails, the network is down, and nothing is lost yet. If it succeeds and the session
//! is still silent, the session is dead. So a dead session is found within seconds after the
//! network is back, and never because the network was down for a while, or because this computer
//! (or this process alone) was suspended.
//!
//! A session that can be resumed needs no such certainty: if nothing comes back for some seconds
//! while something waits for it, its connection is given up, and another one is tried.

use crate::sys::poll::Poll;
use crate::sys::{dial, retransmit, socket};
use crate::wire::yamux::Mux;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// After a silence shorter than this no ping is needed.
const SILENCE_MIN: Duration = Duration::from_secs(1);
/// How long the answer to a ping may take before a new connection is tried.
const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// How long it may take before the connection of a session that can be resumed is given up.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it may take once the network has changed: TCP may wait for long before it sends again.
const CHANGED_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a new connection may take before another one is tried.
const PROBE_TIMEOUT: Duration = Duration::from_secs(4);
/// If it takes longer than this, the network is taken to be down.
const PROBE_SLOW: Duration = Duration::from_millis(500);
/// If a deadline is noticed so much too late, this process was suspended, and could not have
/// received an answer.
const SUSPENDED_MIN: Duration = Duration::from_secs(5);
/// How long the session may stay silent after a new connection has succeeded and TCP has sent
/// again: a server may be busy for a moment.
const GRACE: Duration = Duration::from_secs(10);
/// The same while no service runs that would be cut off: a call that waits for an answer is made
/// again on a new session.
const SHORT_GRACE: Duration = Duration::from_secs(3);
/// The longest time between two retransmissions (RFC 6298; TCP_RTO_MAX of Linux).
const TCP_RETRY_MAX: Duration = Duration::from_secs(120);
/// After this silence a ping is sent although nothing else is sent.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// Silence that ends a session in any case; its TCP gives up a few minutes later
/// (net.ipv4.tcp_retries2).
const SILENCE_MAX: Duration = Duration::from_secs(600);

/// How long a probe's connection has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// Less than [`PROBE_SLOW`].
    Prompt,
    /// Longer: the network is taken to be down.
    Slow,
}

/// A new connection to the server's address, made to see whether the network is down.
#[derive(Debug)]
enum Probe {
    None,
    /// The connection, until when, and how long it has taken.
    Running(OwnedFd, Duration, Pace),
    /// It failed; when the next one is due.
    Failed(Duration),
    /// It succeeded. The session must answer from then on, when its own TCP has sent again.
    Free(Duration),
}

/// What is done when the server does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unanswered {
    /// The session can be resumed.
    Resume,
    /// It cannot: a new connection is tried, to see whether the network is down.
    Probe,
    /// Nothing: the server is on this computer, and the kernel tells when it has gone.
    Wait,
}

#[derive(Debug)]
pub struct Liveness {
    unanswered: Unanswered,
    /// Something waits for the server.
    waits: bool,
    server: Option<SocketAddr>,
    last_received: Duration,
    /// When the first of what is unanswered was sent.
    unanswered_since: Option<Duration>,
    /// When the ping was sent that is unanswered.
    pinged: Option<Duration>,
    probe: Probe,
    grace: Duration,
}

impl Liveness {
    pub fn new(session: BorrowedFd, unanswered: Unanswered, now: Duration) -> Liveness {
        Liveness {
            unanswered,
            waits: false,
            server: socket::peer(session).ok(),
            last_received: now,
            unanswered_since: None,
            pinged: None,
            probe: Probe::None,
            grace: GRACE,
        }
    }

    /// The session is resumed, on this connection.
    pub fn connected(&mut self, session: BorrowedFd, now: Duration) {
        *self = Liveness::new(session, self.unanswered, now);
    }

    /// Asks whether the server still answers, if that is not asked already.
    pub fn ask(&mut self, mux: &mut Mux, now: Duration) {
        if self.pinged.is_none() {
            self.ping(mux, now);
        }
    }

    /// The network has changed, and the server has been asked for a while whether it still answers:
    /// is its connection given up?
    pub fn is_overdue(&self, now: Duration) -> bool {
        self.pinged.is_some_and(|pinged| now.saturating_sub(pinged) >= CHANGED_TIMEOUT)
    }

    /// When something was received last.
    pub fn last_received(&self) -> Duration {
        self.last_received
    }

    /// Something was received.
    pub fn received(&mut self, now: Duration) {
        (self.last_received, self.unanswered_since, self.pinged, self.probe) =
            (now, None, None, Probe::None);
    }

    /// Something is going to be sent.
    pub fn sending(&mut self, mux: &mut Mux, now: Duration) {
        self.unanswered_since.get_or_insert(now);
        if self.pinged.is_none() && now.saturating_sub(self.last_received) >= SILENCE_MIN {
            self.ping(mux, now);
        }
    }

    fn ping(&mut self, mux: &mut Mux, now: Duration) {
        if self.unanswered == Unanswered::Wait {
            return;
        }
        mux.ping(now);
        self.pinged = Some(now);
    }

    /// Does what is due; `open`: a service runs on the session, `waits`: that, or a call waits for
    /// an answer. Err: the session, or the connection of one that can be resumed, is dead.
    pub fn tick(
        &mut self,
        mux: &mut Mux,
        (open, waits): (bool, bool),
        now: Duration,
    ) -> Result<(), String> {
        self.waits = waits;
        self.grace = if open { GRACE } else { SHORT_GRACE };
        let Some(pinged) = self.pinged else {
            if now >= self.deadline() {
                self.ping(mux, now);
            }
            return Ok(());
        };
        let dead = Err("the session was lost: the server no longer answers on it".to_string());
        if now.saturating_sub(self.deadline()) >= SUSPENDED_MIN {
            self.probe = Probe::None;
            self.ping(mux, now);
            return Ok(());
        }
        if self.unanswered == Unanswered::Resume {
            let seconds = QUESTION_TIMEOUT.as_secs();
            return match waits && now.saturating_sub(pinged) >= QUESTION_TIMEOUT {
                true => Err(format!("no answer for {seconds} s")),
                false => Ok(()),
            };
        }
        if now.saturating_sub(pinged) >= SILENCE_MAX {
            return dead;
        }
        if now.saturating_sub(pinged) < PING_TIMEOUT {
            return Ok(());
        }
        match &mut self.probe {
            Probe::Running(_, until, _) if now < *until => {}
            Probe::Running(_, until, pace) if *pace == Pace::Prompt => {
                (*until, *pace) = (now + (PROBE_TIMEOUT - PROBE_SLOW), Pace::Slow)
            }
            Probe::Failed(until) if now < *until => {}
            Probe::Free(since) if now.saturating_sub(*since) >= self.grace => return dead,
            Probe::Free(_) => {}
            Probe::None | Probe::Failed(_) | Probe::Running(..) => {
                let begun = self.server.and_then(|a| dial::begin(a, false).ok());
                self.probe = begun.map_or(Probe::Failed(now + PING_TIMEOUT), |fd| {
                    Probe::Running(fd, now + PROBE_SLOW, Pace::Prompt)
                });
            }
        }
        Ok(())
    }

    /// What the loop is to wait for: that the probe is writable.
    pub fn poll(&self) -> Poll<'_> {
        match &self.probe {
            Probe::Running(fd, ..) => Poll::new(fd.as_fd(), false, true),
            _ => Poll::none(),
        }
    }

    /// The probe has succeeded or failed.
    pub fn probe_finished(&mut self, session: BorrowedFd, now: Duration) {
        if let Probe::Running(fd, ..) = &self.probe {
            let free = dial::finish(fd.as_fd()).is_ok();
            // The server's TCP has waited longer and longer between retransmissions, too: it sends
            // again within about as long as the network was down.
            let down = self
                .pinged
                .map_or(Duration::ZERO, |pinged| {
                    now.saturating_sub(pinged + PING_TIMEOUT + PROBE_SLOW)
                })
                .min(TCP_RETRY_MAX);
            self.probe = if free {
                Probe::Free(now + down.max(retransmit::next_retransmission(session)))
            } else {
                Probe::Failed(now + PING_TIMEOUT)
            };
        }
    }

    /// Is the network down, as far as this process can know?
    pub fn network_is_down(&self) -> bool {
        matches!(self.probe, Probe::Failed(_) | Probe::Running(_, _, Pace::Slow))
    }

    /// When `tick` has something to do.
    pub fn deadline(&self) -> Duration {
        let Some(pinged) = self.pinged else {
            if self.unanswered == Unanswered::Wait {
                return Duration::MAX;
            }
            return (self.last_received + PING_INTERVAL)
                .min(self.unanswered_since.map_or(Duration::MAX, |s| s + SILENCE_MIN));
        };
        if self.unanswered == Unanswered::Resume {
            return if self.waits { pinged + QUESTION_TIMEOUT } else { Duration::MAX };
        }
        let next = match &self.probe {
            Probe::None => pinged + PING_TIMEOUT,
            Probe::Running(_, until, _) | Probe::Failed(until) => *until,
            Probe::Free(since) => *since + self.grace,
        };
        next.min(pinged + SILENCE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock;

    fn s(seconds: u64) -> Duration {
        clock::monotonic() + Duration::from_secs(seconds)
    }

    /// A liveness whose server is this listener.
    fn liveness(to: &std::net::TcpListener) -> (Liveness, Mux, std::net::TcpStream) {
        let session = std::net::TcpStream::connect(to.local_addr().unwrap()).unwrap();
        (
            Liveness::new(session.as_fd(), Unanswered::Probe, s(0)),
            Mux::client(Duration::ZERO, s(0)),
            session,
        )
    }

    fn finish_probe(p: &mut Liveness, at: u64) {
        let mut polls = [p.poll()];
        crate::sys::poll::wait(&mut polls, Some(Duration::from_secs(9))).unwrap();
        assert!(polls[0].writable());
        // No TCP connection, so nothing is to be waited for that TCP does.
        p.probe_finished(std::fs::File::open("/dev/null").unwrap().as_fd(), s(at));
    }

    #[test]
    fn a_session_is_dead_when_only_new_connections_work() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (mut p, mut mux, _session) = liveness(&listener);
        p.sending(&mut mux, s(0));
        assert_eq!(
            (mux.control_queued(), p.pinged),
            (0, None),
            "what was just received needs no ping"
        );
        p.tick(&mut mux, (false, false), s(2)).unwrap();
        assert!(mux.control_queued() > 0, "but an answer");
        p.received(s(2));
        p.sending(&mut mux, s(5));
        assert!(mux.control_queued() > 0);
        p.tick(&mut mux, (false, false), s(6)).unwrap();
        assert!(matches!(p.probe, Probe::None));
        p.tick(&mut mux, (false, false), s(8)).unwrap();
        finish_probe(&mut p, 8);
        p.tick(&mut mux, (false, false), s(11)).unwrap();
        p.tick(&mut mux, (true, true), s(14)).unwrap();
        assert!(p.tick(&mut mux, (false, false), s(14)).is_err(), "nothing is cut");
        assert!(p.tick(&mut mux, (true, true), s(21)).is_err());
    }

    #[test]
    fn an_unreachable_network_is_waited_for_and_any_answer_counts() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (mut p, mut mux, _session) = liveness(&listener);
        drop(listener);
        p.tick(&mut mux, (false, false), s(31)).unwrap();
        p.tick(&mut mux, (false, false), s(34)).unwrap();
        finish_probe(&mut p, 34);
        assert!(matches!(p.probe, Probe::Failed(_)));
        assert!(p.network_is_down());
        p.received(s(40));
        assert!(
            p.pinged.is_none()
                && !p.network_is_down()
                && p.tick(&mut mux, (false, false), s(41)).is_ok()
        );
        let sent = s(70);
        p.sending(&mut mux, sent);
        let mut now = sent;
        while now < sent + SILENCE_MAX {
            p.tick(&mut mux, (true, true), now).unwrap();
            if let Probe::Running(..) = p.probe {
                p.probe = Probe::Failed(now + PING_TIMEOUT);
            }
            now = p.deadline().max(now + Duration::from_millis(1));
        }
        assert!(p.tick(&mut mux, (true, true), now).is_err(), "silence has an end");
    }

    #[test]
    fn an_answer_that_did_not_come_before_the_network_changed_is_not_waited_for() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (mut p, mut mux, _session) = liveness(&listener);
        assert!(!p.is_overdue(s(9)), "nothing was asked");
        p.ask(&mut mux, s(9));
        assert!(!p.is_overdue(s(9)) && p.is_overdue(s(11)));
        p.received(s(11));
        assert!(!p.is_overdue(s(99)));
    }

    #[test]
    fn a_server_on_this_computer_is_waited_for() {
        let (session, _server) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut mux = Mux::client(Duration::ZERO, s(0));
        let mut p = Liveness::new(session.as_fd(), Unanswered::Wait, s(0));
        p.sending(&mut mux, s(5));
        p.tick(&mut mux, (true, true), s(3000)).unwrap();
        assert_eq!((mux.control_queued(), p.deadline()), (0, Duration::MAX));
        assert!(!p.network_is_down());
    }

    #[test]
    fn a_suspended_computer_pings_again() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (mut p, mut mux, _session) = liveness(&listener);
        p.sending(&mut mux, s(5));
        p.tick(&mut mux, (true, true), s(7)).unwrap();
        finish_probe(&mut p, 34);
        p.tick(&mut mux, (true, true), s(3000)).unwrap();
        assert!(matches!(p.probe, Probe::None) && p.pinged.is_some_and(|a| a >= s(2999)));
    }
}
