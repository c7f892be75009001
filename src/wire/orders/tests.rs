//! Every order is decoded as it was encoded, and nothing else is an order.

use super::*;
use crate::wire;
use crate::wire::peer::Peer;
use crate::wire::resume::ProofKey;
use crate::wire::run::{Size, Status, Terminal, Way};
use crate::wire::signing::{FromKeys, ToKeys};
use proptest::prelude::*;
use std::fmt::Debug;
use std::time::Duration;

fn there_and_back<M: Message + PartialEq + Debug>(m: M) {
    let rows: Vec<_> = M::ROWS.iter().filter(|row| row.kind == m.raw().kind).collect();
    assert!(matches!(rows[..], [row] if !row.phases.is_empty()), "{m:?}");
    for phase in rows[0].phases {
        let bytes = m.encode();
        let with = |n| M::accept(&bytes, n, phase);
        let (least, most) = (*rows[0].descriptors.start(), *rows[0].descriptors.end());
        assert_eq!((with(Some(least)).as_ref(), with(Some(most)).as_ref()), (Some(&m), Some(&m)));
        assert_eq!((with(Some(most + 1)), with(None).as_ref()), (None, Some(&m)));
    }
    assert_eq!(M::decode(&m.encode()), Some(m));
}

/// Is it allowed in that phase, with the descriptors that it comes with?
fn may<M: Message>(m: &M, phase: &M::Phase) -> bool {
    let all = 0..=3;
    all.into_iter().any(|n| M::accept(&m.encode(), Some(n), phase).is_some())
}

#[test]
fn an_order_out_of_its_phase_is_none() {
    let start = FromNet::Start { service: 1, host: 0, addresses: ClientAddresses::default() };
    assert!(!may(&start, &NetPhase::Starting) && may(&start, &NetPhase::Draining));
    assert!(
        !may(&FromNet::Ready, &NetPhase::Serving)
            && !may(&FromNet::ListenersClosed, &NetPhase::Serving)
    );
    let done = Ask::Encrypted { suite: 0x1301, name: Data::default() };
    assert!(may(&done, &SessionPhase::Signed) && !may(&done, &SessionPhase::Plain));
    assert!(!may(&done, &SessionPhase::Encrypted) && !may(&done, &SessionPhase::Stream));
    let branch = Ask::Branch { host: 0, tag: 1 };
    assert!(may(&branch, &SessionPhase::Encrypted) && !may(&branch, &SessionPhase::Stream));
    let sign = Ask::Sign { chain: 0, scheme: 0, message: Data::default() };
    let phases = [SessionPhase::Signing, SessionPhase::Encrypted, SessionPhase::LoggingIn];
    assert!(may(&sign, &SessionPhase::Plain) && !phases.iter().any(|p| may(&sign, p)));
    let verify = Ask::Verify { method: Method::Password, user: Data::default() };
    assert!(!may(&verify, &SessionPhase::LoggingIn));
    assert!(may(&Ask::End(Data::default()), &SessionPhase::LoggingIn));
    let offer = Ask::Offer(OfferAsk::Begin { service: 0, host: 0 });
    assert!(may(&offer, &SessionPhase::Stream) && !may(&offer, &SessionPhase::Encrypted));
    let taken = Ask::Offer(OfferAsk::Taken { client: 1 });
    assert!(may(&taken, &SessionPhase::Plain) && !may(&taken, &SessionPhase::Stream));
}

#[test]
fn every_reason_is_its_number() {
    let address = "2001:db8::1".parse().expect("an address");
    for reason in [
        Reason::Denied(0),
        Reason::Denied(99),
        Reason::TooLong,
        Reason::Sessions,
        Reason::SourceSessions,
        Reason::Connections,
        Reason::Descriptors,
        Reason::Proxy,
    ] {
        let name = vec![b'n'; 255];
        there_and_back(FromNet::Refused(Refused {
            service: Some(0),
            host: 0,
            reason,
            from: address,
            name,
        }));
        let word = reason.word(|n| (n == 99).then_some("denied"));
        assert_eq!(word.is_none(), reason == Reason::Denied(0));
    }
}

fn claim() -> Claim {
    let claim =
        wire::resume::Claim { id: wire::resume::Id([1; 16]), received: u64::MAX, proof: [2; 32] };
    Claim { connection: 3, claim, exporter: [4; 32], challenge: [5; 32] }
}

fn resumption() -> Resumption {
    let from = "2001:db8::1".parse().expect("a peer");
    Resumption { connection: 3, received: u64::MAX, from, challenge: [5; 32] }
}

#[test]
fn ends_of_relays_come_together() {
    there_and_back(ToRelays::Begin { relay: u32::MAX });
    there_and_back(ToRelays::BeginTwo { relays: [1, u32::MAX] });
    let over = |n: usize| RelayEnd { relay: n as u32, to: 2, from: u64::MAX };
    for n in [0, 1, ENDS_MAX] {
        there_and_back(FromRelays::Ended((0..n).map(over).collect()));
    }
    // No part of one.
    let mut bytes = FromRelays::Ended(vec![over(1), over(2)]).encode();
    bytes[12] -= 1;
    assert_eq!(FromRelays::decode(&bytes), None);
}

fn refused() -> Refused {
    Refused {
        service: None,
        host: 2,
        reason: Reason::SourceSessions,
        from: [192, 0, 2, 1].into(),
        name: b"some name".to_vec(),
    }
}

#[test]
fn orders_of_net_come_as_they_were_given() {
    let refused = refused();
    let pair = Some(AddressPair {
        client: ([192, 0, 2, 1], 1).into(),
        local: "[2001:db8::1]:65535".parse().expect("an address"),
    });
    let addresses = ClientAddresses { own: pair, proxied: None };
    let both = ClientAddresses { own: None, proxied: pair };
    for m in [
        FromNet::Ready,
        FromNet::Start { service: 1, host: 2, addresses: ClientAddresses::default() },
        FromNet::Start { service: 1, host: 2, addresses: both },
        FromNet::Session { tls_port: None, addresses },
        FromNet::Session { tls_port: Some(0), addresses: ClientAddresses::default() },
        FromNet::StartOnClient { session: u64::MAX, service: 1, host: 2 },
        FromNet::AtPort { addresses },
        FromNet::ListenersClosed,
        FromNet::Refused(refused.clone()),
        FromNet::Refused(Refused { from: Peer::User(1000), ..refused.clone() }),
        FromNet::Unlogged { refusals: u64::MAX },
        FromNet::Name { client: 3, generation: 4, addresses },
        FromNet::Pong,
        FromNet::Close,
    ] {
        there_and_back(m);
    }
}

#[test]
fn orders_to_net_come_as_they_were_given() {
    let data = Data::truncate(b"some text");
    for m in [
        ToNet::Listener { tls_port: None },
        ToNet::Listener { tls_port: Some(7) },
        ToNet::Header,
        ToNet::Linger,
        ToNet::Client { uid: 7, login: None },
        ToNet::Client {
            uid: u32::MAX,
            login: Some(KnownLogin { name: data.clone(), superuser: true, groups: [1, 2, 3, 4] }),
        },
        ToNet::Refuse { service: 1, why: Why::Failed },
        ToNet::Drain { last: true },
        ToNet::Name { client: 1, generation: 2, name: Named::Is(data.clone()) },
        ToNet::Name { client: 1, generation: 2, name: Named::Unknown },
        ToNet::Ping,
        ToNet::Relays,
        ToNet::Gauges,
    ] {
        there_and_back(m);
    }
}

#[test]
fn orders_of_sessions_come_as_they_were_given() {
    let data = Data::truncate(b"some text");
    let (method, size) = (Method::Pubkey, Size { rows: 0x1234, columns: 0xfedc });
    for m in [
        Ask::Sign { chain: 1, scheme: 0x403, message: data.clone() },
        Ask::Encrypted { suite: 0x1301, name: data.clone() },
        Ask::MayLogin { method },
        Ask::Verify { method, user: data.clone() },
        Ask::Start { service: 1, host: 2, tag: 3, way: Way::Plain },
        Ask::Start { service: 1, host: 2, tag: 3, way: Way::Run },
        Ask::Start { service: 1, host: 2, tag: 3, way: Way::run(Terminal::new("xterm", size)) },
        Ask::Branch { host: 7, tag: 8 },
        Ask::Refused(Refused { service: Some(9), ..refused() }),
        Ask::Tally { tag: 1, to: u64::MAX, from: 2 },
        Ask::End(data.clone()),
        Ask::Name,
        Ask::RelayEnded { relay: 1, to: u64::MAX, from: 2 },
        Ask::Offer(OfferAsk::Begin { service: 1, host: 2 }),
        Ask::Offer(OfferAsk::End { offer: 3 }),
        Ask::Offer(OfferAsk::Taken { client: 4 }),
        Ask::Offer(OfferAsk::Refused { client: u32::MAX, busy: true }),
        Ask::Offer(OfferAsk::Returned { client: 4 }),
        Ask::Resumable { key: ProofKey([7; 32]) },
        Ask::Lost(data.clone()),
        Ask::Resume(claim()),
        Ask::Resumed { taken: true },
    ] {
        there_and_back(m);
    }
}

#[test]
fn answers_to_sessions_come_as_they_were_given() {
    let data = Data::truncate(b"some text");
    let of_client = |what| Answer::OfferClient { client: 1, what };
    let extras = Extras {
        tells_end: true,
        errors: false,
        terminal: true,
        server: true,
        greeting: 0xf_fffe,
        ends_at: Some(Duration::from_millis(0xff_ffff_fffe)),
    };
    for m in [
        Answer::Signed(data.clone()),
        Answer::NotSigned,
        Answer::Login(May::Never),
        Answer::Login(May::Later { seconds: 600 }),
        Answer::Login(May::Try { password_first: true }),
        Answer::LoginResult {
            status: 1,
            superuser: true,
            groups: [1, u64::MAX, 3, 0x0102_0304_0506_0708],
        },
        Answer::Started { tag: 5, relay: 0, greeting: Data::default(), extras: Extras::default() },
        Answer::Started { tag: 5, relay: 9, greeting: Data::truncate(b"+Go\r\n"), extras },
        Answer::Ended { tag: 5, status: Some(Status::Exited(255)) },
        Answer::Ended { tag: 5, status: Some(Status::Killed(9)) },
        Answer::Ended { tag: 5, status: None },
        Answer::Refused { tag: 5, service: 6, why: Why::NotAvailable },
        Answer::GoAway { last: false },
        Answer::Full,
        Answer::Name(Named::None),
        Answer::Name(Named::Is(data.clone())),
        Answer::Offered { offer: u32::MAX },
        Answer::NotOffered,
        of_client(OfferClient::Open { first: data.clone(), greeting: None }),
        of_client(OfferClient::Open {
            first: Data::truncate(b"web ::1 1 -\r\n"),
            greeting: Some(Data::truncate(b"+Go\r\n")),
        }),
        of_client(OfferClient::Open { first: data.clone(), greeting: Some(Data::default()) }),
        of_client(OfferClient::Connect { relay: 0 }),
        of_client(OfferClient::Cancel),
        Answer::Resumable { id: [7; 16] },
        Answer::Claimed(Claimed::No),
        Answer::Claimed(Claimed::Relay),
        Answer::Resumption(resumption()),
        Answer::Forget,
        Answer::EndNow,
        Answer::Channel { session: u64::MAX },
        Answer::Branched { tag: 7 },
    ] {
        there_and_back(m);
    }
}

#[test]
fn another_version_or_size_is_refused() {
    let mut b = FromNet::Ready.encode();
    assert_eq!(FromNet::decode(&b[..ORDER - 1]), None);
    assert_eq!(ToNet::decode(&b), None);
    b[0] ^= 0x80;
    assert_eq!(FromNet::decode(&b), None);
}

/// Numbers that are nearly right, so that random orders are often good ones.
fn number() -> impl Strategy<Value = u8> {
    prop_oneof![4 => Just(0u8), 2 => 1u8..4, 1 => any::<u8>()]
}

fn again<M: Message + PartialEq + Debug>(bytes: &[u8; ORDER]) {
    for row in M::ROWS {
        let mut bytes = *bytes;
        bytes[2..4].copy_from_slice(&row.kind.to_le_bytes());
        if let Some(order) = M::decode(&bytes) {
            assert_eq!(M::decode(&order.encode()), Some(order));
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_decode_or_not(
        head in proptest::collection::vec(number(), HEAD),
        data in proptest::collection::vec(number(), 0..=DATA_MAX),
    ) {
        let mut bytes = [0; ORDER];
        bytes[..HEAD].copy_from_slice(&head);
        bytes[HEAD..HEAD + data.len()].copy_from_slice(&data);
        bytes[..2].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&(data.len() as u32).to_le_bytes());
        again::<FromNet>(&bytes);
        again::<ToNet>(&bytes);
        again::<Ask>(&bytes);
        again::<Answer>(&bytes);
        again::<FromRelays>(&bytes);
        again::<ToRelays>(&bytes);
        again::<FromKeys>(&bytes);
        again::<ToKeys>(&bytes);
    }
}

/// With -d -d the log has every order.
#[test]
fn no_order_shows_a_key() {
    let shown = format!("{:?}", Ask::Resumable { key: ProofKey([199; 32]) });
    assert!(!shown.contains("199"), "{shown}");
}
