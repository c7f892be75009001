//! The offers of the command line (-R): made by the holder of the session, and made again on
//! another session when that has ended, for as long as this five runs.

use super::call::CallEvent;
use super::caller::Caller;
use super::ended::{Ended, hint, nobody};
use super::error::Error;
use super::messages;
use super::offer::{CANCELLED, Offer};
use super::target::Target;
use crate::sys::clock;
use std::time::Duration;

/// The pause before an offer is made again; it doubles each time, up to the second.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// One of them.
struct RepeatedOffer {
    offer: Offer,
    /// The tag of its call. Err: it has none now, and is made again at that time.
    call: Result<u32, Duration>,
    pause: Duration,
    /// The server has taken it before.
    was_taken: bool,
}

/// See the module.
pub struct Offering {
    host: String,
    /// Nobody is logged in.
    nobody: bool,
    all: Vec<RepeatedOffer>,
    /// There was a session when offers were made last.
    had_session: bool,
}

impl Offering {
    /// Makes these offers, whose addresses are known. Err: there is no session.
    pub fn begin(t: &Target, offers: Vec<Offer>, caller: &mut Caller) -> Result<Offering, Error> {
        let mut all = Vec::new();
        for offer in offers {
            let call = Ok(caller.offer(t.virtual_host.clone(), offer.clone())?);
            all.push(RepeatedOffer { offer, call, pause: PAUSE, was_taken: false });
        }
        let host = t.virtual_host.clone();
        Ok(Offering { host, nobody: nobody(t), all, had_session: true })
    }

    /// Is that the call of one of them?
    pub fn has(&self, tag: u32) -> bool {
        self.all.iter().any(|s| s.call == Ok(tag))
    }

    /// Handles the event of one of these calls. Err: it cannot be offered, or none is left.
    pub fn event(&mut self, tag: u32, event: Result<CallEvent, Error>) -> Result<(), Error> {
        let Some(s) = self.all.iter_mut().find(|s| s.call == Ok(tag)) else { return Ok(()) };
        let name = format!("-R {}", s.offer.text());
        match event {
            Ok(CallEvent::Started) => {
                (s.pause, s.was_taken) = (PAUSE, true);
                messages::step(&format!("{name}: offered"));
            }
            Ok(CallEvent::Terminal(_)) => {}
            Ok(CallEvent::Ended(Ended::Refused(text))) if text == CANCELLED => {
                s.call = Err(Duration::MAX);
                if self.all.iter().all(|s| s.call == Err(Duration::MAX)) {
                    return Err(Error::System { what: name, why: text });
                }
                messages::info(&format!("{name}: {text}"));
            }
            // The server has another configuration now, and may have a third one soon.
            Ok(CallEvent::Ended(Ended::Refused(text))) if s.was_taken => s.again(&text),
            Ok(CallEvent::Ended(Ended::Refused(text))) => {
                s.call = Err(Duration::MAX);
                let why = format!("{text}{}", hint(self.nobody, &text));
                return Err(Error::System { what: name, why });
            }
            Ok(CallEvent::Ended(Ended::Lost(why))) => s.again(&why),
            Ok(CallEvent::Ended(Ended::Over(_) | Ended::Unread)) => s.again("it has ended"),
            Err(error) => return s.failed(error),
        }
        Ok(())
    }

    /// Makes those again whose time has come, or all if there is a session again.
    pub fn make_again(&mut self, caller: &mut Caller) -> Result<(), Error> {
        if !std::mem::replace(&mut self.had_session, caller.has_session()) && self.had_session {
            self.hurry();
        }
        for s in &mut self.all {
            if s.call.is_ok() || s.call.is_err_and(|at| at > clock::monotonic()) {
                continue;
            }
            match caller.offer(self.host.clone(), s.offer.clone()) {
                Ok(tag) => s.call = Ok(tag),
                Err(error) => s.failed(error)?,
            }
        }
        Ok(())
    }

    /// Makes none of them wait any longer.
    fn hurry(&mut self) {
        for s in &mut self.all {
            s.call = s.call.map_err(|at| if at == Duration::MAX { at } else { Duration::ZERO });
        }
    }

    /// How long to wait at most until the next is made again.
    pub fn timeout(&self) -> Option<Duration> {
        let next = self.all.iter().filter_map(|s| s.call.err()).min()?;
        (next != Duration::MAX).then(|| next.saturating_sub(clock::monotonic()))
    }
}

impl RepeatedOffer {
    /// It could not be made. Once the server has taken it, five goes on whatever happens: a server
    /// or a gate that starts again may say anything.
    fn failed(&mut self, error: Error) -> Result<(), Error> {
        if self.was_taken || error.may_pass() {
            self.again(&error.to_string());
            return Ok(());
        }
        self.call = Err(Duration::MAX);
        Err(error)
    }

    fn again(&mut self, why: &str) {
        let text = format!("-R {}: {why}: it will be offered again", self.offer.text());
        // The first time, and then only with -v.
        if self.pause == PAUSE {
            messages::info(&text)
        } else {
            messages::step(&text)
        }
        self.call = Err(clock::monotonic() + self.pause);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_that_is_back_has_all_offers_at_once_but_those_that_were_cancelled() {
        let offer = Offer::read("web:127.0.0.1:8080").expect("an offer");
        let one =
            |call| RepeatedOffer { offer: offer.clone(), call, pause: PAUSE, was_taken: true };
        let later = clock::monotonic() + PAUSE_MAX;
        let all = vec![one(Ok(7)), one(Err(Duration::MAX)), one(Err(later))];
        let mut offering = Offering { host: String::new(), nobody: false, all, had_session: false };
        assert!(offering.timeout().is_some_and(|left| !left.is_zero()));
        offering.hurry();
        assert_eq!(offering.timeout(), Some(Duration::ZERO));
        let calls: Vec<_> = offering.all.iter().map(|s| s.call).collect();
        assert_eq!(calls, [Ok(7), Err(Duration::MAX), Err(Duration::ZERO)]);
    }
}
