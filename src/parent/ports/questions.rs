//! Which clients wait at a port, as the system says it (sock_diag(7)). Where somebody else could
//! keep it from answering, before Linux 6.9, a process beside this one asks.

use crate::sys::bounded_calls::BoundedCalls;
use crate::sys::{inet_diag, queue_head, unix_queue};
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

/// See the module. No answer: the system cannot tell, or not in time.
#[derive(Debug)]
pub struct Questions(BoundedCalls);

impl Default for Questions {
    fn default() -> Questions {
        let mut calls = BoundedCalls::default();
        if !inet_diag::answers_at_once() {
            calls.guard();
        }
        Questions(calls)
    }
}

impl Questions {
    /// Those whose connections to that port nobody has accepted yet.
    pub fn clients(&mut self, port: u16) -> Option<BTreeSet<SocketAddr>> {
        self.ask(move || queue_head::unaccepted(port))
    }

    /// The same of a Unix socket: by the inodes of the clients' sockets.
    pub fn unix_clients(&mut self, listener: BorrowedFd) -> Option<BTreeSet<u32>> {
        let inode = unix_queue::inode(listener).ok()?;
        self.ask(move || unix_queue::unaccepted(inode))
    }

    fn ask<T: Send + 'static>(
        &mut self,
        question: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Option<T> {
        let answer = self.0.make(&[], move |_| question());
        self.0.rest();
        answer?.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::fd::AsFd;
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    /// Somebody keeps the system from answering.
    #[test]
    fn one_that_is_not_answered_is_waited_for_once() {
        let (mut questions, began) = (Questions::default(), Instant::now());
        questions.0.guard();
        let l = TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = l.local_addr().expect("bound").port();
        assert_eq!(questions.clients(port), Some(BTreeSet::new()));
        let (end, ended) = mpsc::channel::<()>();
        assert_eq!(questions.ask(move || Ok(ended.recv().is_err())), None);
        assert!((0..1000).all(|_| questions.clients(port).is_none()));
        assert!((0..1000).all(|_| questions.unix_clients(l.as_fd()).is_none()));
        assert!(began.elapsed() < Duration::from_secs(10));
        drop(end);
        let answered = |_| {
            std::thread::sleep(Duration::from_millis(5));
            questions.clients(port).is_some()
        };
        assert!((0..1000).any(answered));
    }
}
