//! Sessions that outlive their connections: the orders about them.

use super::resumables::{CLAIMS_MAX, Claimant, SessionOwner};
use super::session::SessionRecord;
use crate::parent::channel::Broken;
use crate::parent::context::Phase;
use crate::parent::lines;
use crate::parent::run::Parent;
use crate::parent::tokens::SessionToken;
use crate::wire::orders::{Answer, Claim, Claimed, Data, Resumption};
use crate::wire::resume::KEY;
use std::os::fd::AsFd;

impl Parent {
    /// A session begins that outlives its connection.
    pub fn resumable(&mut self, token: SessionToken, key: [u8; KEY]) -> Result<(), Broken> {
        let Some(s) = self.sessions.get_mut(token) else { return Ok(()) };
        if s.resumable.is_some() {
            return Err(Broken::Forbidden);
        }
        let mark = &s.config.keys.mark;
        let resumable = self.logins.resumables.add(token, key, mark).ok_or(Broken::Stuck)?;
        let id = resumable.id.0;
        s.resumable = Some(Box::new(resumable));
        self.sessions.count_resumable(token);
        self.sessions.tell(&self.cx, token, &Answer::Resumable { id });
        Ok(())
    }

    /// The connection of such a session is lost. If too many are, the oldest ends.
    pub fn session_lost(&mut self, token: SessionToken, why: &Data) -> Result<(), Broken> {
        let Some(s) = self.sessions.get_mut(token) else { return Ok(()) };
        let owner = owner(s);
        let r = s.resumable.as_mut().filter(|r| r.lost.is_none()).ok_or(Broken::Forbidden)?;
        let most = s.config.table.settings.max_lost;
        let (number, oldest) = self.logins.resumables.lost(&owner, token, most);
        r.lost = Some((owner, number));
        lines::lost(s.number, &String::from_utf8_lossy(why.bytes()));
        self.sessions.count_lost(token, true);
        self.offers_returned(token);
        self.offers.lost(token);
        // After SIGUSR2 another fived has the ports, and nobody can come back here.
        let leaves = (self.cx.phase == Phase::Leaving).then_some(token);
        for gone in oldest.into_iter().chain(leaves) {
            self.sessions.tell(&self.cx, gone, &Answer::Forget);
        }
        Ok(())
    }

    /// A client asks for another session to go on, on its connection. The session that is meant
    /// answers. If it is in another net process, the two get the ends of a socket pair.
    pub fn claim(&mut self, token: SessionToken, claim: &Claim) -> Result<(), Broken> {
        let Some(s) = self.sessions.get_mut(token) else { return Ok(()) };
        if s.resumable.is_some() {
            return Err(Broken::Forbidden);
        }
        let mut claimant =
            Claimant { token, addresses: s.addresses.clone(), tls: s.tls.clone(), elsewhere: None };
        let (from, net) = (s.addresses.peer(), s.net);
        let resumables = &self.logins.resumables;
        let past = resumables.is_of_the_past(claim.claim.id, &s.config.keys.mark);
        let meant = resumables.proved(claim);
        let Some((meant, s)) = meant.and_then(|t| Some((t, self.sessions.get_mut(t)?))) else {
            match past {
                true => self.sessions.tell(&self.cx, token, &Answer::Claimed(Claimed::No)),
                false => self.refuse_claim(token),
            }
            return Ok(());
        };
        let pair = (s.net != net).then(|| self.cx.descriptors.pair()).transpose();
        let r = s.resumable.as_mut().filter(|r| r.claims.len() < CLAIMS_MAX);
        let (Some(r), Ok(pair)) = (r, pair) else {
            self.sessions.tell(&self.cx, token, &Answer::Claimed(Claimed::No));
            return Ok(());
        };
        let (with, elsewhere) = pair.unzip();
        claimant.elsewhere = elsewhere;
        r.claims.push_back(claimant);
        let resumption = Resumption {
            connection: claim.connection,
            received: claim.claim.received,
            from,
            challenge: claim.challenge,
        };
        let with = with.as_ref().map(AsFd::as_fd);
        let answer = Answer::Resumption(resumption);
        self.sessions.tell_with(&self.cx, meant, &answer, with.as_slice());
        Ok(())
    }

    /// A session answers: it goes on, on the new connection, or its client cannot have
    /// had as much as it says.
    pub fn session_resumed(&mut self, token: SessionToken, taken: bool) -> Result<(), Broken> {
        let Some(s) = self.sessions.get_mut(token) else { return Ok(()) };
        let r = s.resumable.as_mut().ok_or(Broken::Forbidden)?;
        let claimant = r.claims.pop_front().ok_or(Broken::Forbidden)?;
        if !taken {
            self.refuse_claim(claimant.token);
            return Ok(());
        }
        let was_lost = r.lost.take();
        if let Some(lost) = &was_lost {
            self.logins.resumables.found(lost);
            self.sessions.count_lost(token, false);
        }
        let name = self.names.known(self.cx.now, claimant.addresses.peer());
        self.sessions.moved(token, &claimant, name);
        let end = claimant.elsewhere.as_ref().map(AsFd::as_fd);
        let what = if end.is_some() { Claimed::Relay } else { Claimed::Taken };
        let answer = Answer::Claimed(what);
        self.sessions.tell_with(&self.cx, claimant.token, &answer, end.as_slice());
        if was_lost.is_some() {
            self.offers_back(token);
        }
        Ok(())
    }

    /// Such a session has ended.
    pub fn not_resumable(&mut self, s: &SessionRecord) {
        let Some(r) = &s.resumable else { return };
        self.logins.resumables.remove(r);
        for claimant in &r.claims {
            self.sessions.tell(&self.cx, claimant.token, &Answer::Claimed(Claimed::No));
        }
    }

    /// It counts as a failed login.
    fn refuse_claim(&mut self, token: SessionToken) {
        self.logins.claim_failed(&self.cx, &mut self.sessions, token);
        self.sessions.tell(&self.cx, token, &Answer::Claimed(Claimed::No));
    }
}

fn owner(s: &SessionRecord) -> SessionOwner {
    SessionOwner::of(s.user.as_ref().map(|u| u.login.name.as_str()), s.addresses.peer())
}
