//! OFFER: the user of this stream offers a service, which the client's own computer serves.
//!
//! The parent notes the offer. The stream stays open without a service, and the offer lasts as long
//! as it is open: the session's multiplexer takes it (`net::handover`).

use crate::net::end::End;
use crate::net::handover::Got;
use crate::net::request::{Reason, Refusal};
use crate::net::session_state::Session;
use crate::policy::{Denied, ServiceId};
use crate::sys::shared::Shared;
use crate::wire::orders::{Answer, Ask, OfferAsk};
use crate::wire::reply;
use crate::wire::request::DIALOGUE_MAX;

/// Runs the dialogue. None: nothing is offered, and the stream waits for the next request.
pub fn run(s: &mut Session) -> Result<Option<End>, End> {
    s.write(reply::SUCCESS)?;
    let name = s.line(DIALOGUE_MAX)?;
    let (world, host) = (s.state.world.clone(), s.state.facts.host);
    let Some(service) = world.table.offerable(host, &name, s.state.facts.login.as_ref()) else {
        let service = world.table.find(host, &name, s.state.facts.peer);
        return not_offered(s, service, &name);
    };
    let ask = Ask::Offer(OfferAsk::Begin { service: service.0, host: host.0 });
    let offer = match s.channel.ask(&ask)? {
        Answer::Offered { offer } => offer,
        // This session offers it already, or there are too many offers.
        Answer::NotOffered => return not_offered(s, Some(service), &name),
        _ => return Err(End::System),
    };
    let name = world.table.service(service).map_or("", |s| &s.name);
    match s.write(&reply::offering(name)).and_then(|()| keep(s, offer)) {
        Ok(()) => Ok(Some(End::Closed)),
        Err(end) => {
            // This fails if the parent is gone, and the offer with it.
            let _ = s.channel.send(&Ask::Offer(OfferAsk::End { offer }));
            Err(end)
        }
    }
}

/// Refuses an offer of what was called so. The stream waits for the next request.
fn not_offered(
    s: &mut Session,
    service: Option<ServiceId>,
    name: &[u8],
) -> Result<Option<End>, End> {
    let why = Refusal { service, reason: Reason::Denied(Denied::Offer) };
    s.report_refusal(Some(why), name)?;
    s.write(reply::NOT_OFFERED).map(|()| None)
}

/// Leaves the stream to the multiplexer. Err: it has ended.
fn keep(s: &Session, offer: u32) -> Result<(), End> {
    let handover = s.state.handover.as_ref().ok_or(End::System)?;
    let pair = Shared::copy(s.link.socket()).map_err(|_| End::System)?;
    handover.give(Got::Offer(offer), pair).map_err(|_| End::Closed)
}
