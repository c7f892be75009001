//! A row of inetd.conf(5), translated into fived.conf(5): the same columns, and a port.

use super::super::super::backend::Backend;
use super::super::super::endpoint::{Endpoint, Family, Owner, Port, ProgramSocket};
use super::super::assigned::Pair;
use super::super::builder::Row;
use super::super::columns::Columns;
use crate::wire::peer::Peer;
use std::net::IpAddr;
use std::sync::Arc;

/// How clients come to a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reached {
    /// By its name at the TCPMUX port alone, never at a port of its own (CVE-2012-0862).
    Name,
    /// At these ports, at least one, and not by its name.
    Ports(Vec<Port>),
    /// Not at all: it is switched off.
    Off,
}

/// What its protocol says of IPv4 and IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Families {
    /// `tcp` or `udp` without a digit: both, but IPv4 alone where another row serves IPv6 at the
    /// same port.
    Yields,
    /// `tcp6` or `udp6`: IPv6 alone, as on the BSDs. The inetd of GNU serves IPv4 too.
    Six,
    /// All others mean the same everywhere.
    Clear,
}

/// A row, with the columns of fived.conf(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InetdRow {
    pub columns: Columns,
    pub reached: Reached,
    /// The number of its ports.
    pub number: u16,
    pub families: Families,
    /// Whose its Unix socket is, and who may connect (`:USER:GROUP:MODE:/PATH`, FreeBSD).
    pub socket: Option<(Owner, String)>,
}

/// What the options that inetd is started with mean for all rows.
pub struct Defaults {
    /// The limit of starts a minute of rows that give none themselves.
    pub per_minute: Option<u32>,
    /// Every row's clients are checked against hosts.allow and hosts.deny.
    pub wraps: bool,
}

impl InetdRow {
    /// Whether its ports are for datagrams, and their number.
    pub fn port(&self) -> (bool, u16) {
        (self.columns.endpoint.socket == ProgramSocket::Datagrams, self.number)
    }

    /// Has it a port at this address?
    pub fn is_at(&self, address: impl Into<IpAddr>) -> bool {
        let address = Some(address.into());
        matches!(&self.reached, Reached::Ports(ports) if ports.iter().any(|p| p.address == address))
    }

    /// Takes its ports at this address away; it has others.
    pub fn leave(&mut self, address: impl Into<IpAddr>) {
        let address = Some(address.into());
        if let Reached::Ports(ports) = &mut self.reached {
            ports.retain(|p| p.address != address);
        }
    }

    /// Does it have a port at every address?
    pub fn is_everywhere(&self) -> bool {
        match &self.reached {
            Reached::Ports(ports) => self.number != 0 && ports.iter().any(|p| p.address.is_none()),
            Reached::Name | Reached::Off => false,
        }
    }

    /// A program of `wait` gets the socket itself, and may know IPv4 alone: it has one of IPv4 and
    /// one of IPv6, as under the inetd of OpenBSD, and so there are two rows.
    pub fn of_each_family(self) -> Vec<InetdRow> {
        let Endpoint { family, socket, .. } = self.columns.endpoint;
        let runs = matches!(self.columns.backend, Backend::Exec { .. });
        let yields = self.families == Families::Yields && family == Family::Any;
        if !(yields && runs && socket.waits() && self.is_everywhere()) {
            return vec![self];
        }
        let of = |family: Family| {
            let mut row = self.clone();
            row.columns.endpoint.family = family;
            if let Reached::Ports(ports) = &mut row.reached {
                ports.retain(|p| p.address.is_none_or(|a| family.has(Peer::Address(a))));
            }
            row
        };
        vec![of(Family::V4), of(Family::V6)]
    }

    /// The row of fived.conf(5); `before`: how many mistakes there were before it.
    pub fn into_row(
        mut self,
        file: Arc<str>,
        line: usize,
        defaults: &Defaults,
        before: usize,
    ) -> Row {
        let wait = &mut self.columns.wait;
        if wait.per_source_minute.is_none() {
            wait.per_minute = wait.per_minute.or(defaults.per_minute);
        }
        let pair = |name: &str, words: Vec<String>| Pair::new(line, name, words);
        let not_named = || pair("tcpmux", vec!["no".into()]);
        let mut own = match &self.reached {
            Reached::Name => Vec::new(),
            Reached::Ports(ports) => {
                vec![pair("port", ports.iter().map(ToString::to_string).collect()), not_named()]
            }
            Reached::Off => vec![not_named(), pair("disable", vec!["yes".into()])],
        };
        if let Some((owner, mode)) = self.socket {
            own.push(pair("socket_owner", vec![owner.to_string()]));
            own.push(pair("socket_mode", vec![mode]));
        }
        // A program of `wait` accepts its clients itself, so nobody can check them before. For all
        // others inetd uses the name in the first argument. fived would use the program's file
        // name, which is another one where the program is a wrapper of the server.
        if defaults.wraps && self.columns.endpoint.socket.waits() {
            own.push(pair("libwrap", vec!["no".into()]));
        } else if let (true, Backend::Exec { program, arguments }) =
            (defaults.wraps, &self.columns.backend)
            && let Some(first) = arguments.first().map(|word| base(word))
            && first != base(program)
        {
            own.push(pair("libwrap", vec![first.into()]));
        }
        Row { file, line, columns: Ok(self.columns), own, before }
    }
}

/// What stands after the last slash of a path.
pub(super) fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
