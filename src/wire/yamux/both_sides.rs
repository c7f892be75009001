//! A client and a server that both open streams, with everything that a caller may do.

use super::tests::{NOW, session};
use super::*;
use proptest::prelude::*;

/// One end of a session in which both sides open streams.
struct End {
    mux: Mux,
    /// Bytes on their way to the other end.
    out: Vec<u8>,
    streams: Vec<StreamId>,
    accepted: Vec<StreamId>,
}

impl End {
    fn new(mux: Mux) -> End {
        End { mux, out: Vec::new(), streams: Vec::new(), accepted: Vec::new() }
    }

    fn act(&mut self, act: u8, pick: usize, much: usize) {
        if act == 0 {
            self.streams.extend(self.mux.open(NOW));
            return self.mux.take_control(&mut self.out);
        }
        let Some(&id) = self.streams.get(pick % self.streams.len().max(1)) else { return };
        match act {
            1 | 2 => {
                let n = self.mux.send_window(id).min(PIECE).min(much);
                if n > 0 {
                    self.mux.take_control(&mut self.out);
                    self.out.extend(self.mux.data(id, n));
                    self.out.resize(self.out.len() + n, 0);
                }
            }
            3 => self.mux.finish(id),
            4 => self.mux.reset(id, NOW),
            5 => self.mux.drain(id, NOW),
            _ => self.mux.accept(id),
        }
    }

    /// Receives what the other end has sent, in two pieces.
    fn receive(&mut self, other: &mut End, cut: usize) {
        other.mux.take_control(&mut other.out);
        let bytes = std::mem::take(&mut other.out);
        let (first, second) = bytes.split_at(cut % (bytes.len() + 1));
        for mut part in [first, second] {
            loop {
                let (taken, event) = self.mux.receive(part, NOW);
                part = &part[taken..];
                match event {
                    None => break,
                    Some(Event::Opened(id)) => {
                        assert!(!self.streams.contains(&id));
                        self.streams.push(id);
                    }
                    Some(Event::Data(id, data)) => {
                        assert!(self.streams.contains(&id));
                        self.mux.delivered(id, data.len(), NOW);
                    }
                    Some(Event::Accepted(id)) => {
                        assert!(id.0.is_multiple_of(2) && !self.accepted.contains(&id));
                        self.accepted.push(id);
                    }
                    Some(Event::Finished(id) | Event::Reset(id)) => {
                        assert!(self.streams.contains(&id));
                    }
                    Some(other) => panic!("{other:?}"),
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn both_sides_may_open_streams(
        steps in proptest::collection::vec(
            (any::<bool>(), 0u8..9, 0usize..100, 1usize..60_000),
            1..200,
        ),
    ) {
        let mut client = Mux::client(Duration::from_secs(30), NOW);
        client.set_max_streams(3);
        let (mut client, mut server) = (End::new(client), End::new(session()));
        for (of_client, act, pick, much) in steps {
            let (one, other) =
                if of_client { (&mut client, &mut server) } else { (&mut server, &mut client) };
            match act {
                0..7 => one.act(act, pick, much),
                _ => one.receive(other, much),
            }
            prop_assert!(server.mux.open_streams() <= 8 && server.mux.own <= 4);
        }
        for _ in 0..3 {
            for end in [&mut client, &mut server] {
                let all = end.streams.clone();
                all.into_iter().for_each(|id| end.mux.finish(id));
            }
            client.receive(&mut server, 7);
            server.receive(&mut client, 7);
        }
        for end in [&client, &server] {
            prop_assert_eq!((end.mux.open_streams(), end.mux.own, end.mux.windows), (0, 0, 0));
        }
    }
}
