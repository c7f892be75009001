//! Is the server still there? A session that slept through a change of networks looks as it did before.
//!
//! Whatever is sent into silence takes a ping with it, or is followed by one when silence comes. If nothing at all comes back, a new connection to the same address is tried: as
//! long as that fails the network is away, and nothing is lost yet. Once it stands and the session is silent all the same, the session is
//! dead. So it is found dead within seconds of the network's coming back, and never because the network is away for a while.

use crate::sys::poll::Poll;
use crate::sys::{dial, socket};
use crate::wire::yamux::Mux;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// Silence that is none yet.
const FRESH: Duration = Duration::from_secs(1);
/// A ping's answer may take so long before the way is tried anew.
const DOUBT: Duration = Duration::from_secs(2);
/// A new connection may take so long; then another one is tried.
const PROBE_TIME: Duration = Duration::from_secs(4);
/// So long the session may go on being silent when the way is free: a server may stand still for a moment.
const GRACE: Duration = Duration::from_secs(10);
/// The same while nothing is open that would be cut: who waits for an answer gets it elsewhere.
const SHORT_GRACE: Duration = Duration::from_secs(3);
/// Silence that is asked about though nobody writes.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Silence that ends a session in any case.
const LOST: Duration = Duration::from_secs(90);

/// The way to the server, tried anew.
#[derive(Debug)]
enum Probe {
    None,
    /// The connection, and until when.
    Running(OwnedFd, Duration),
    /// It failed; when the next one is due.
    Failed(Duration),
    /// Since when the way is known to be free.
    Free(Duration),
}

#[derive(Debug)]
pub struct Pulse {
    server: Option<SocketAddr>,
    heard: Duration,
    /// When something was said first of which nothing has come back.
    said: Option<Duration>,
    /// Since when an answer is due.
    asked: Option<Duration>,
    probe: Probe,
    grace: Duration,
}

impl Pulse {
    pub fn new(session: BorrowedFd, now: Duration) -> Pulse {
        Pulse { server: socket::peer(session).ok(), heard: now, said: None, asked: None, probe: Probe::None, grace: GRACE }
    }

    /// When something was heard last.
    pub fn last(&self) -> Duration {
        self.heard
    }

    /// Something came.
    pub fn heard(&mut self, now: Duration) {
        (self.heard, self.said, self.asked, self.probe) = (now, None, None, Probe::None);
    }

    /// Something is going to be sent.
    pub fn said(&mut self, mux: &mut Mux, now: Duration) {
        self.said.get_or_insert(now);
        if self.asked.is_none() && now.saturating_sub(self.heard) >= FRESH {
            self.ask(mux, now);
        }
    }

    fn ask(&mut self, mux: &mut Mux, now: Duration) {
        mux.ping(now);
        self.asked = Some(now);
    }

    /// Does what is due; `open`: a service talks on the session. Err: the session is dead.
    pub fn tick(&mut self, mux: &mut Mux, open: bool, now: Duration) -> Result<(), String> {
        self.grace = if open { GRACE } else { SHORT_GRACE };
        let Some(asked) = self.asked else {
            if now >= self.deadline() {
                self.ask(mux, now);
            }
            return Ok(());
        };
        let dead = Err("the session was lost: the server no longer answers on it".to_string());
        if now.saturating_sub(asked) >= LOST {
            return dead;
        }
        if now.saturating_sub(asked) < DOUBT {
            return Ok(());
        }
        match &self.probe {
            Probe::Running(_, until) if now < *until => {}
            Probe::Failed(until) if now < *until => {}
            Probe::Free(since) if now.saturating_sub(*since) >= self.grace => return dead,
            Probe::Free(_) => {}
            Probe::None | Probe::Failed(_) | Probe::Running(..) => {
                let begun = self.server.and_then(|a| dial::begin(a).ok());
                self.probe = begun.map_or(Probe::Failed(now + DOUBT), |fd| Probe::Running(fd, now + PROBE_TIME));
            }
        }
        Ok(())
    }

    /// What the loop waits for on its behalf: writable.
    pub fn poll(&self) -> Poll<'_> {
        match &self.probe {
            Probe::Running(fd, _) => Poll::new(fd.as_fd(), false, true),
            _ => Poll::none(),
        }
    }

    /// The probe is decided.
    pub fn reached(&mut self, now: Duration) {
        if let Probe::Running(fd, _) = &self.probe {
            let free = dial::finish(fd.as_fd()).is_ok();
            self.probe = if free { Probe::Free(now) } else { Probe::Failed(now + DOUBT) };
        }
    }

    /// When `tick` has something to do.
    pub fn deadline(&self) -> Duration {
        let Some(asked) = self.asked else {
            return (self.heard + KEEPALIVE).min(self.said.map_or(Duration::MAX, |s| s + FRESH));
        };
        let next = match &self.probe {
            Probe::None => asked + DOUBT,
            Probe::Running(_, until) | Probe::Failed(until) => *until,
            Probe::Free(since) => *since + self.grace,
        };
        next.min(asked + LOST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock;

    fn s(seconds: u64) -> Duration {
        clock::monotonic() + Duration::from_secs(seconds)
    }

    /// A pulse whose server is this listener.
    fn pulse(to: &std::net::TcpListener) -> (Pulse, Mux, std::net::TcpStream) {
        let session = std::net::TcpStream::connect(to.local_addr().unwrap()).unwrap();
        (Pulse::new(session.as_fd(), s(0)), Mux::client(Duration::ZERO, s(0)), session)
    }

    fn decided(p: &mut Pulse) {
        let mut polls = [p.poll()];
        crate::sys::poll::wait(&mut polls, Some(Duration::from_secs(9))).unwrap();
        assert!(polls[0].writable());
        p.reached(s(10));
    }

    #[test]
    fn dead_is_who_is_silent_though_the_way_is_free() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (mut p, mut mux, _session) = pulse(&listener);
        p.said(&mut mux, s(0));
        assert_eq!((mux.control_queued(), p.asked), (0, None), "what was just heard needs no ping");
        p.tick(&mut mux, false, s(2)).unwrap();
        assert!(mux.control_queued() > 0, "but an answer");
        p.heard(s(2));
        p.said(&mut mux, s(5));
        assert!(mux.control_queued() > 0);
        p.tick(&mut mux, false, s(6)).unwrap();
        assert!(matches!(p.probe, Probe::None));
        p.tick(&mut mux, false, s(8)).unwrap();
        decided(&mut p);
        p.tick(&mut mux, false, s(11)).unwrap();
        p.tick(&mut mux, true, s(14)).unwrap();
        assert!(p.tick(&mut mux, false, s(14)).is_err(), "nothing is cut");
        assert!(p.tick(&mut mux, true, s(21)).is_err());
    }

    #[test]
    fn a_network_that_is_away_is_waited_for_and_any_answer_is_life() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (mut p, mut mux, _session) = pulse(&listener);
        drop(listener);
        p.tick(&mut mux, false, s(31)).unwrap();
        p.tick(&mut mux, false, s(34)).unwrap();
        decided(&mut p);
        assert!(matches!(p.probe, Probe::Failed(_)));
        p.tick(&mut mux, false, s(60)).unwrap();
        p.heard(s(61));
        assert!(p.asked.is_none() && p.tick(&mut mux, false, s(62)).is_ok());
        p.said(&mut mux, s(70));
        assert!(p.tick(&mut mux, false, s(161)).is_err(), "silence has an end");
    }
}
