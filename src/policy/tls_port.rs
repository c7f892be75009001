//! A port of services' own at which TLS begins with the first byte. Rows of several hosts may share
//! it; the server name of the handshake chooses among them.

use super::ids::{HostId, HostScope, ServiceId};
use super::table::Table;

/// The rows that share one port: one of a host at most, and one of all hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsPort {
    /// In the order of their scopes, each once.
    rows: Vec<(HostScope, ServiceId)>,
    /// The first of them in the configuration.
    first: Option<ServiceId>,
}

impl TlsPort {
    /// The port of these services of the table; of one scope the first counts.
    pub fn new(table: &Table, services: &[ServiceId]) -> TlsPort {
        let scope = |id: &ServiceId| Some((table.service(*id)?.host, *id));
        let mut rows: Vec<_> = services.iter().filter_map(scope).collect();
        rows.sort_unstable();
        rows.dedup_by_key(|(scope, _)| *scope);
        TlsPort { rows, first: services.iter().min().copied() }
    }

    /// The row for a client that asked for this host, and the host that it is served as: that
    /// host's, else the default host's, else the first.
    pub fn choose(&self, host: HostId) -> Option<(ServiceId, HostId)> {
        let of = |scope: HostScope| {
            let n = self.rows.binary_search_by_key(&scope, |(scope, _)| *scope).ok()?;
            Some(self.rows[n].1)
        };
        let of_host = |host: HostId| {
            let id = of(HostScope::Host(host)).or_else(|| of(HostScope::All))?;
            Some((id, host))
        };
        of_host(host).or_else(|| of_host(HostId::DEFAULT)).or_else(|| {
            let first = self.first?;
            self.rows.iter().find_map(|(scope, id)| match scope {
                HostScope::Host(host) if *id == first => Some((first, *host)),
                HostScope::Host(_) | HostScope::All => None,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::text::entry::Files;
    use super::super::text::load::load;
    use super::super::{Grammar, Origin};
    use super::*;

    struct One(&'static str);

    impl Files for One {
        fn read(&mut self, _: &str) -> Result<Vec<u8>, String> {
            Ok(self.0.into())
        }

        fn list(&mut self, _: &str) -> Result<Vec<String>, String> {
            Err("none".into())
        }
    }

    /// What each of four hosts gets at a port of these services, the default host first.
    fn chosen(services: &[u32]) -> [Option<(u32, u32)>; 4] {
        const ROW: &str = "w stream tcp nowait u /p\n[a]\nw stream tcp nowait u /p\n[b]\nw stream tcp nowait u /p\n[c]\n[*]\nall stream tcp nowait u /p\n";
        let (table, mistakes) = load(&Origin::new(Grammar::Fived, "c"), &mut One(ROW));
        assert_eq!(mistakes, []);
        let ids: Vec<_> = services.iter().map(|n| ServiceId(*n)).collect();
        let port = TlsPort::new(&table, &ids);
        [0, 1, 2, 3].map(|h| port.choose(HostId(h)).map(|(s, h)| (s.0, h.0)))
    }

    #[test]
    fn the_host_chooses_else_the_default_host_else_the_first() {
        assert_eq!(chosen(&[0, 1, 2]), [(0, 0), (1, 1), (2, 2), (0, 0)].map(Some));
        assert_eq!(chosen(&[2, 1]), [(1, 1), (1, 1), (2, 2), (1, 1)].map(Some));
        assert_eq!(chosen(&[2, 3]), [(3, 0), (3, 1), (2, 2), (3, 3)].map(Some));
        assert_eq!(chosen(&[]), [None; 4]);
    }
}
