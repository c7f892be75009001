//! A session whose connection is lost: it has no thread and no buffers, and waits for another
//! connection until its time is up. Its services keep their own connections, on which nothing
//! moves.

use super::builtins::multiplex::Streams;
use super::channel::{self, Channel, GoAway};
use super::end::End;
use super::parked;
use super::resume::Found;
use super::session_state::Session;
use super::threads;
use crate::link::Records;
use crate::sys::clock;
use crate::wire::orders::Ask;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::time::Duration;

/// Serves a session that has a connection again, in this thread.
type Serve = fn(Session, Box<Streams>);

/// See the module. `C`: its channel to the parent, held by a thread or not.
pub struct Lost<C = Channel> {
    session: Session<C, ()>,
    streams: Box<Streams>,
    records: Box<Records>,
    serve: Serve,
}

impl<C> Lost<C> {
    fn hold<D>(self, how: impl FnOnce(C) -> D) -> Lost<D> {
        let Lost { session, streams, records, serve } = self;
        Lost { session: session.hold(how), streams, records, serve }
    }
}

impl parked::Resume for Lost {
    fn waits_for(&self) -> parked::Waits<'_> {
        [Some((self.session.channel.as_fd(), true)), None, None, None]
    }

    fn connection(&self) -> BorrowedFd<'_> {
        self.session.channel.as_fd()
    }

    fn deadline(&self) -> Duration {
        self.session.state.deadline
    }

    fn resume(self: Box<Self>) {
        if let Err(lost) = threads::run_with(self, |lost| lost.hold(Channel::install).go_on()) {
            // The parent notices that the channel is closed.
            let _ = lost.session.channel.try_send(&ended(End::System));
        }
    }
}

fn ended(end: End) -> Ask {
    Ask::End(end.data())
}

impl Lost<Rc<Channel>> {
    /// The connection of this session is lost, for this reason. It is parked for `kept`.
    pub fn new(
        mut session: Session<Rc<Channel>, ()>,
        (streams, records): (Box<Streams>, Box<Records>),
        (why, kept): (End, Duration),
        serve: Serve,
    ) -> Lost<Rc<Channel>> {
        // This fails if the parent is gone, which is noticed at once.
        let _ = session.channel.send(&Ask::Lost(why.data()));
        session.state.deadline = clock::monotonic() + kept;
        Lost { session, streams, records, serve }
    }

    /// Handles what the parent has sent, and what is due; then it has a connection, or is parked
    /// again, or ends.
    pub fn go_on(mut self) {
        match self.news() {
            Ok(Some(found)) => {
                let link = found.accept(&mut self.session, self.records);
                self.streams.resumed(self.session.state.world.table.settings.request_timeout);
                (self.serve)(self.session.with_link(link), self.streams);
            }
            Ok(None) => {
                let world = self.session.state.world.clone();
                if let Some(parking) = &world.parking {
                    parking.park(Box::new(self.hold(Channel::release)));
                }
            }
            Err(end) => {
                let evicted = self.session.state.guard.is_evicted();
                let end = if evicted { End::Evicted } else { end };
                self.streams.abort(&self.session.channel);
                // This fails if the parent is gone, which changes nothing.
                let _ = self.session.channel.send(&ended(end));
                channel::uninstall();
            }
        }
    }

    fn news(&mut self) -> Result<Option<Found>, End> {
        let s = &self.session;
        s.channel.receive_pending()?;
        // The threads of such streams would wait for it until there is another connection.
        for (tag, channel) in s.channel.take_branched() {
            self.streams.branched(tag, channel);
        }
        s.channel.forget_cancelled();
        while let Some(new) = s.channel.new_connection() {
            if let Some(found) =
                new.find(&s.state.world.connections, &s.channel, Some(&self.records))
            {
                return Ok(Some(found));
            }
        }
        if s.channel.take_forget() || clock::monotonic() >= s.state.deadline {
            return Err(End::Lost);
        }
        let drained =
            s.channel.exits() && !self.streams.serves() || s.channel.go_away() == Some(GoAway::Now);
        if drained { Err(End::Drained) } else { Ok(None) }
    }
}
