//! RESUME: streams that outlive their connection; and a connection on which such streams go on.

use super::login::not_now;
use super::multiplex;
use super::next::Next;
use super::pubkey::exporter;
use crate::link::{Breaks, Link, Tally, copy};
use crate::net::channel::Received;
use crate::net::end::End;
use crate::net::request;
use crate::net::session_state::{Begin, Copying, ServiceRelay, Session};
use crate::sys::poll;
use crate::sys::{clock, retransmit, socket};
use crate::wire::builtins::Builtin;
use crate::wire::labels::RESUME_EXPORTER;
use crate::wire::orders::{self, Answer, Ask, Claimed};
use crate::wire::reply;
use crate::wire::request::DIALOGUE_MAX;
use crate::wire::resume::{Claim, Id, KEY, Made, ProofKey, Request};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// When a claim that is refused is answered, whatever was wrong with it.
const REFUSED_AFTER: Duration = Duration::from_millis(200);

/// Stands for a claim that cannot be read.
const NONSENSE: Claim = Claim { id: Id([0; 16]), received: 0, proof: [0; KEY] };

/// Runs the dialogue. Err: the session ends.
pub fn run(s: &mut Session, begin: Begin) -> Result<Next, End> {
    s.write(reply::SUCCESS)?;
    retransmit::often(s.link.socket());
    match (Request::read(&s.line(DIALOGUE_MAX)?), s.spare()) {
        (Some(Request::New), Some(full)) => {
            s.report_refusal(Some(request::full(None, full)), Builtin::Resume.as_str().as_bytes())?;
            s.close_with(reply::BUSY)?;
            Err(End::Refused)
        }
        (Some(Request::New), None) if s.state.world.table.settings.resume_timeout.is_zero() => {
            // Only those may be resumed that stand since an older table.
            s.close_with(reply::NOT_AVAILABLE)?;
            Err(End::Refused)
        }
        (Some(Request::New), None) => new(s, begin),
        (Some(Request::Claim(claim)), _) => go_on(s, claim),
        (None, _) => go_on(s, NONSENSE),
    }
}

fn key(s: &Session) -> Result<[u8; KEY], End> {
    s.link.export(RESUME_EXPORTER)?.ok_or(End::System)
}

/// A new session: the same streams as of MULTIPLEX, in records.
fn new(s: &mut Session, begin: Begin) -> Result<Next, End> {
    let key = ProofKey(key(s)?);
    let Answer::Resumable { id } = s.channel.ask(&Ask::Resumable { key })? else {
        return Err(End::System);
    };
    let seconds = s.kept(s.state.facts.login.is_none()).as_secs();
    s.write(Made { id: Id(id), seconds }.line().as_bytes())?;
    let streams = multiplex::streams(s, begin);
    s.link.begin_records();
    s.state.guard.is_resumable();
    Ok(Next::Streams(streams))
}

/// Another session is to go on, on this connection.
fn go_on(s: &mut Session, claim: Claim) -> Result<Next, End> {
    let until = clock::monotonic() + REFUSED_AFTER;
    let (exporter, challenge) = (key(s)?, exporter(s)?.ok_or(End::System)?);
    let world = s.state.world.clone();
    let Ok((instead, _other)) = world.descriptors.unless_reserved(socket::pair()) else {
        return not_now(s, 1);
    };
    // For one end of a pair, if another process has the session.
    let Some(_place) = s.reserve() else { return not_now(s, 1) };
    // The connection may soon be another session's.
    if !s.state.guard.stays() {
        return Err(End::Evicted);
    }
    let link = std::mem::replace(&mut s.link, Link::plain(instead));
    let connection = world.connections.put(link);
    let ask = Ask::Resume(orders::Claim { connection, claim, exporter, challenge });
    let (claimed, end) = match s.channel.send(&ask).and_then(|()| s.channel.answer_with()) {
        Ok(Received { answer: Answer::Claimed(claimed), connection, .. }) => {
            (Some(claimed), connection)
        }
        _ => (None, None),
    };
    if claimed == Some(Claimed::Taken) {
        return Ok(Next::Ended(End::Resumed));
    }
    s.link = world.connections.take(connection).ok_or(End::System)?;
    match (claimed, end) {
        (Some(Claimed::Relay), Some(end)) => Ok(relay(s, end)),
        (Some(Claimed::No), _) => refuse(s, until),
        _ => Err(End::System),
    }
}

/// The session is in another process, which has the other end of the pair.
fn relay(s: &mut Session, ours: OwnedFd) -> Next {
    let copying =
        Copying::Bytes(ours, copy::bytes::State::new(Breaks::Reset, Tally::of_no_service()));
    s.state.relay = Some(ServiceRelay { counted: None, copying });
    Next::Request
}

fn refuse(s: &mut Session, until: Duration) -> Result<Next, End> {
    let left = until.saturating_sub(clock::monotonic());
    poll::wait(&mut [], Some(left)).map_err(|_| End::System)?;
    s.state.tries[0] += 1;
    if s.state.tries[0] >= s.state.world.table.settings.login_tries {
        s.close_with(reply::NO_SUCH_SESSION)?;
        return Err(End::Tries);
    }
    s.write(reply::NO_SUCH_SESSION)?;
    Ok(Next::Request)
}
