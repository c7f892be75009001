//! The addresses of fived's own port. No row can have one of them: the kernel would deal the
//! clients there out to both listeners.

use crate::policy::{Listen, Table};
use crate::sys::port::{Protocol, Wanted};
use std::net::SocketAddr;

/// See the module.
pub struct OwnAddresses<'a> {
    /// Those of the setting `listen`, or of -l.
    listen: Vec<SocketAddr>,
    /// Those of the sockets that the service manager has handed over. They are used instead; the
    /// others are kept free all the same, so that a table is right with and without it.
    handed: &'a [Wanted],
}

impl OwnAddresses<'_> {
    /// `given`: the addresses of -l.
    pub fn of<'a>(table: &Table, given: &[Listen], handed: &'a [Wanted]) -> OwnAddresses<'a> {
        OwnAddresses { listen: table.settings.own_addresses(given), handed }
    }

    /// The first that is there twice; None: none is. Any free port (0) may be.
    pub fn twice(&self) -> Option<SocketAddr> {
        let mut all = self.listen.iter().enumerate().filter(|(_, l)| l.port() != 0);
        all.find(|(n, l)| self.listen[..*n].contains(l)).map(|(_, l)| *l)
    }

    /// Err: this is one of them, for one family at least.
    pub fn is_not_taken(&self, wanted: &Wanted) -> Result<(), String> {
        let protocol = Protocol::Tcp;
        let mut listen = self.listen.iter().copied().filter(|l| {
            Wanted { protocol, address: *l, only_v6: false, backlog: None }.meets(wanted)
        });
        let handed = self.handed.iter().find(|h| h.meets(wanted));
        let (whose, found) = match (handed, listen.next()) {
            (Some(h), _) => ("the sockets of the service manager (LISTEN_FDS)", h.address),
            (None, Some(l)) => ("`listen` and -l", l),
            (None, None) => return Ok(()),
        };
        Err(format!("expected a port that {whose} leave, found {found}"))
    }
}
