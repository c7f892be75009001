//! How many bytes a connection has carried. Every copy counts here, those of a service also for
//! whoever looks at the process now ([`gauges`]), so that `EXIT`, `status` and `metrics` agree:
//! what went to the service and came from it, its standard error and a reply line that it writes
//! itself included, and nothing that fived says.

use crate::sys::gauges;

/// Where the service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Service {
    /// The local end is its connection.
    #[default]
    Here,
    /// The peer is the service, and the local end its client.
    There,
    /// Neither is, or another copy counts what it carries.
    Elsewhere,
}

/// See the module.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// From the peer, and taken by the local end.
    pub received: u64,
    /// To the peer.
    pub sent: u64,
    service: Service,
    /// This many of the next bytes of the local end are fived's own.
    greeting: u32,
}

impl Tally {
    /// Of a service whose connection begins with this many bytes of fived's own.
    pub fn of_service(greeting: u32) -> Tally {
        Tally { greeting, ..Tally::default() }
    }

    /// The peer is the service.
    pub fn of_client() -> Tally {
        Tally { service: Service::There, ..Tally::default() }
    }

    /// What is copied is no service's, or is counted elsewhere.
    pub fn of_no_service() -> Tally {
        Tally { service: Service::Elsewhere, ..Tally::default() }
    }

    pub(super) fn receive(&mut self, n: usize) {
        self.received += n as u64;
        match self.service {
            Service::Here => gauges::relayed(n, 0),
            Service::There => gauges::relayed(0, n),
            Service::Elsewhere => {}
        }
    }

    pub(super) fn send(&mut self, n: usize) {
        let own = n.min(self.greeting as usize);
        self.greeting -= own as u32;
        let n = n - own;
        self.sent += n as u64;
        match self.service {
            Service::Here => gauges::relayed(0, n),
            Service::There => gauges::relayed(n, 0),
            Service::Elsewhere => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_does_not_count_however_it_comes() {
        let mut tally = Tally::of_service(5);
        for (n, sent) in [(3, 0), (3, 1), (0, 1), (7, 8)] {
            tally.send(n);
            assert_eq!(tally.sent, sent);
        }
        tally.receive(4);
        assert_eq!((tally.received, tally.sent), (4, 8));
    }
}
