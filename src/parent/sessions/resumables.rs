//! The sessions that outlive their connections (RESUME): which there are, whose connection may be
//! theirs, and which of them are lost.

use crate::parent::tokens::SessionToken;
use crate::policy::{Peer, Source};
use crate::wire::orders::Claim;
use crate::wire::resume::{self, ID, Id, KEY};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use crate::parent::addresses::Addresses;
use crate::parent::backend::environment::Tls;

/// New connections of one session, at most, about which it has not answered.
pub const CLAIMS_MAX: usize = 16;

/// This many bytes of an id are random; the others are the mark.
const RANDOM: usize = 10;

/// Of whom only this many lost sessions are kept; or whose output waits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SessionOwner {
    User(String),
    /// Nobody has logged in.
    Source(Source),
}

impl SessionOwner {
    /// `user`: who has logged in.
    pub fn of(user: Option<&str>, peer: Peer) -> SessionOwner {
        match user {
            Some(user) => SessionOwner::User(user.into()),
            None => SessionOwner::Source(Source::of(peer)),
        }
    }
}

/// What the parent knows of a session that outlives its connections.
pub struct Resumable {
    pub id: Id,
    /// The connection is lost: whose session it was then, and the number of the loss.
    pub lost: Option<(SessionOwner, u64)>,
    /// Its new connections that it has not answered about, the oldest first.
    pub claims: VecDeque<Claimant>,
}

/// A connection on which a session may go on.
pub struct Claimant {
    /// The session that it has been until now.
    pub token: SessionToken,
    pub addresses: Addresses,
    pub tls: Option<Rc<Tls>>,
    /// Another net process has the session: one end of the pair between the two.
    pub elsewhere: Option<OwnedFd>,
}

/// See the module.
#[derive(Default)]
pub struct Resumables {
    /// Tokens, and the keys of proofs.
    all: HashMap<Id, (SessionToken, [u8; KEY])>,
    /// The lost ones, by the numbers of their losses.
    lost: HashMap<SessionOwner, BTreeMap<u64, SessionToken>>,
    last: u64,
}

impl Resumables {
    /// Names a session, with that mark. None: the system has no random bytes.
    pub fn add(&mut self, token: SessionToken, key: [u8; KEY], mark: &[u8]) -> Option<Resumable> {
        let mut id = [0; ID];
        SystemRandom::new().fill(&mut id[..RANDOM]).ok()?;
        let made = marked(mark, &id[..RANDOM]);
        id[RANDOM..].copy_from_slice(&made.as_ref()[..ID - RANDOM]);
        self.all.insert(Id(id), (token, key));
        Some(Resumable { id: Id(id), lost: None, claims: VecDeque::new() })
    }

    /// Is this the id of a session of this server that has ended? Whoever knows it has had that
    /// session, and claims it once more without knowing that it has ended: the server was started
    /// again, a net process died, or too many were lost.
    pub fn is_of_the_past(&self, id: Id, mark: &[u8]) -> bool {
        let made = marked(mark, &id.0[..RANDOM]);
        made.as_ref()[..ID - RANDOM] == id.0[RANDOM..] && !self.all.contains_key(&id)
    }

    /// The session that the client has proved to be its own. What it costs to refuse a claim is the
    /// same, whatever is wrong with it.
    pub fn proved(&self, c: &Claim) -> Option<SessionToken> {
        let known = self.all.get(&c.claim.id);
        let key = known.map_or(&[0; KEY], |(_, key)| key);
        let text = resume::proof_text(c.claim.id, c.claim.received, &c.exporter);
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        let proved = hmac::verify(&key, text.as_bytes(), &c.claim.proof).is_ok();
        known.filter(|_| proved).map(|(token, _)| *token)
    }

    /// A session is lost. Returns the number of the loss, and the session that must go, by its
    /// token, if there are more than `most` of that owner.
    pub fn lost(
        &mut self,
        owner: &SessionOwner,
        token: SessionToken,
        most: u32,
    ) -> (u64, Option<SessionToken>) {
        self.last += 1;
        let all = self.lost.entry(owner.clone()).or_default();
        all.insert(self.last, token);
        let oldest = if all.len() > most as usize { all.pop_first() } else { None };
        (self.last, oldest.map(|(_, token)| token))
    }

    /// It has a connection again, or has ended.
    pub fn found(&mut self, (owner, number): &(SessionOwner, u64)) {
        if let Some(all) = self.lost.get_mut(owner) {
            all.remove(number);
            if all.is_empty() {
                self.lost.remove(owner);
            }
        }
    }

    /// It has ended.
    pub fn remove(&mut self, of: &Resumable) {
        self.all.remove(&of.id);
        if let Some(lost) = &of.lost {
            self.found(lost);
        }
    }
}

fn marked(mark: &[u8], random: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, mark), random)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(id: Id, key: [u8; KEY]) -> Claim {
        let (received, exporter) = (7, [9; KEY]);
        let text = resume::proof_text(id, received, &exporter);
        let made = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), text.as_bytes());
        let proof = made.as_ref().try_into().expect("32 bytes");
        let claim = resume::Claim { id, received, proof };
        Claim { connection: 1, claim, exporter, challenge: [0; 32] }
    }

    fn session(number: u64) -> SessionToken {
        SessionToken::of_number(number)
    }

    #[test]
    fn only_the_key_proves_a_session() {
        let mut all = Resumables::default();
        let r = all.add(session(5), [1; KEY], b"mark").expect("an id");
        let good = claim(r.id, [1; KEY]);
        assert_eq!(all.proved(&good), Some(session(5)));
        assert_eq!(all.proved(&claim(r.id, [0; KEY])), None);
        assert_eq!(all.proved(&claim(Id([0; 16]), [0; KEY])), None);
        assert_eq!(all.proved(&Claim { exporter: [8; KEY], ..good.clone() }), None);
        let more = resume::Claim { received: 8, ..good.claim.clone() };
        assert_eq!(all.proved(&Claim { claim: more, ..good.clone() }), None);
        all.remove(&r);
        assert_eq!(all.proved(&good), None);
    }

    #[test]
    fn what_it_has_named_is_known_when_it_has_ended_and_in_another_run() {
        let mut all = Resumables::default();
        let (mark, other) = (b"mark", b"another");
        let r = all.add(session(5), [1; KEY], mark).expect("an id");
        assert!(!all.is_of_the_past(r.id, mark));
        all.remove(&r);
        for all in [all, Resumables::default()] {
            assert!(all.is_of_the_past(r.id, mark) && !all.is_of_the_past(r.id, other));
            for at in 0..ID {
                let mut id = r.id;
                id.0[at] ^= 1;
                assert!(!all.is_of_the_past(id, mark), "{at}");
            }
        }
    }

    #[test]
    fn the_oldest_of_an_owner_goes() {
        let mut all = Resumables::default();
        let user = |name: &str| SessionOwner::User(name.into());
        let first = all.lost(&user("a"), session(1), 2).0;
        assert_eq!(all.lost(&user("a"), session(2), 2).1, None);
        assert_eq!(all.lost(&user("b"), session(3), 2).1, None);
        assert_eq!(all.lost(&user("a"), session(4), 2).1, Some(session(1)));
        all.found(&(user("a"), first));
        let number = all.lost(&user("a"), session(5), 3).0;
        all.found(&(user("a"), number));
        assert_eq!(all.lost(&user("a"), session(6), 3).1, None);
        assert_eq!(all.lost(&user("a"), session(7), 3).1, Some(session(2)));
    }
}
