//! The columns of a row, as inetd reads them.

use super::super::super::endpoint::{Family, Owner, Port, socket_path};
use super::super::columns::Columns;
use super::super::entry::Files;
use super::super::parse::{Wrong, any_of};
use super::listen_address::{At, addresses};
use super::row::{Families, InetdRow, Reached, base};
use std::net::{IpAddr, Ipv4Addr};

/// Services that inetd itself has, by name and by number.
const INTERNAL: [(&str, u16); 5] =
    [("echo", 7), ("discard", 9), ("daytime", 13), ("chargen", 19), ("time", 37)];

/// The columns of a row, as inetd reads them.
struct Words<'a> {
    /// Before the last colon of the name.
    addresses: Option<&'a str>,
    service: &'a str,
    kind: &'a str,
    protocol: &'a str,
    families: Families,
    wait: &'a str,
    user: &'a str,
    program: &'a str,
    arguments: &'a [&'a str],
}

/// The warnings about a line.
#[derive(Debug, Default)]
pub struct Remarks {
    /// Words that are wrong.
    pub wrong: Vec<Wrong>,
    /// What inetd serves and fived does not.
    pub noted: Vec<Wrong>,
}

/// What a row is for.
#[derive(Debug)]
pub enum Read {
    Service(Box<InetdRow>),
    /// The row of tcpmux: where fived itself listens. None stands for every address.
    Tcpmux(Vec<Option<IpAddr>>),
}

/// Reads a row. `at`: where it listens, if it does not say so itself, and what `*` stands for
/// where it does. A row that cannot be served is returned switched off, so that the table shows it.
/// None: not even its name and its user can be read.
pub fn read(
    words: &[&str],
    at: (&At, &At),
    files: &mut dyn Files,
    remarks: &mut Remarks,
) -> Option<Read> {
    let row = match Words::of(words) {
        Ok(row) => row,
        Err(e) => {
            remarks.wrong.push(e);
            return None;
        }
    };
    if row.service == "tcpmux" && row.program == "internal" {
        return Some(Read::Tcpmux(row.listens(at, files, remarks)));
    }
    let read = match row.not_served() {
        Some(why) => {
            remarks.noted.push(why);
            row.switched_off()
        }
        None => row.read(at, files, remarks).map(Some).unwrap_or_else(|all| {
            remarks.wrong.extend(all);
            row.switched_off()
        }),
    };
    read.map(|row| Read::Service(Box::new(row)))
}

impl<'a> Words<'a> {
    fn of(words: &'a [&'a str]) -> Result<Words<'a>, Wrong> {
        let [name, kind, protocol, wait, user, program, arguments @ ..] = words else {
            let what = format!(
                "expected a row of at least six words (name, type, protocol, wait, user, program), found {}",
                words.len()
            );
            return Err(Wrong::new(words.first().unwrap_or(&""), what));
        };
        let (addresses, service) = match name.rsplit_once(':') {
            Some((addresses, service)) if !name.starts_with('/') => (Some(addresses), service),
            _ => (None, *name),
        };
        // On NetBSD sizes of the socket's buffers may follow (`tcp,rcvbuf=16k`). They are left
        // out: the system chooses the sizes.
        let protocol = protocol.split(',').next().unwrap_or(protocol);
        let families = match protocol {
            "tcp" | "udp" => Families::Yields,
            "tcp6" | "udp6" => Families::Six,
            _ => Families::Clear,
        };
        let protocol = match protocol {
            "tcp6only" => "tcp6",
            "udp6only" => "udp6",
            other => other,
        };
        Ok(Words { addresses, service, kind, protocol, families, wait, user, program, arguments })
    }

    /// Err: it cannot be served.
    fn read(
        &self,
        at: (&At, &At),
        files: &mut dyn Files,
        remarks: &mut Remarks,
    ) -> Result<InetdRow, Vec<Wrong>> {
        if self.user == "*" {
            return Err(Wrong::expected("a user of this computer", self.user).into());
        }
        let named = self.is_named();
        let unix = self.protocol == "unix";
        let number = if named || unix { Some(0) } else { self.number(files) };
        let columns = self.columns(number, files)?;
        let reached = match number {
            _ if named => Reached::Name,
            _ if unix => Reached::Ports(vec![self.path_of_socket()?]),
            Some(_) => match self.ports(at, columns.endpoint.family, files, remarks) {
                ports if ports.is_empty() => {
                    if remarks.wrong.is_empty() && remarks.noted.is_empty() {
                        let what = "expected an address in the line `ADDR:` above, found none";
                        remarks.wrong.push(Wrong::new(self.service, what));
                    }
                    Reached::Off
                }
                ports => Reached::Ports(ports),
            },
            None => {
                let what = "a port: a number from 0 to 65535, or a name of services(5)";
                remarks.wrong.push(Wrong::expected(what, self.service));
                Reached::Off
            }
        };
        let less = columns.answers_less().filter(|_| reached != Reached::Off);
        remarks.noted.extend(less.map(|what| Wrong::new(self.service, what)));
        let families = self.families;
        let socket = if unix { self.owner_of_socket()? } else { None };
        Ok(InetdRow { columns, reached, number: number.unwrap_or(0), families, socket })
    }

    /// What of it fived does not serve.
    fn not_served(&self) -> Option<Wrong> {
        let (word, what) = match (self.kind, self.protocol) {
            (_, p) if p.starts_with("rpc/") => {
                (p, "RPC, which fived does not register with rpcbind")
            }
            ("raw" | "rdm" | "seqpacket", _) => (self.kind, "sockets of this type"),
            (_, p) if p.contains('/') => (p, "this form of the protocol"),
            ("dgram", "unix") => (self.protocol, "Unix sockets of datagrams"),
            ("dgram", _) if !self.waits() && self.program != "internal" => {
                (self.wait, "a program for each datagram, which would be started without end")
            }
            _ => return None,
        };
        Some(Wrong::new(word, what))
    }

    /// Is it reached by a name?
    fn is_named(&self) -> bool {
        self.service.starts_with("tcpmux/")
    }

    fn waits(&self) -> bool {
        self.wait.strip_prefix("wait").is_some_and(|r| r.is_empty() || r.starts_with(['.', ':']))
    }

    /// The number of the service. None: nothing says it.
    fn number(&self, files: &mut dyn Files) -> Option<u16> {
        if self.service.bytes().all(|b| b.is_ascii_digit()) {
            return self.service.parse().ok();
        }
        files.port(self.service, if self.kind == "dgram" { "udp" } else { "tcp" })
    }

    /// Where the Unix socket is.
    fn path_of_socket(&self) -> Result<Port, Wrong> {
        let path = socket_path(self.service).map_err(|what| Wrong::new(self.service, what))?;
        Ok(Port { address: None, name: path.into() })
    }

    /// What stands before its path.
    fn owner_of_socket(&self) -> Result<Option<(Owner, String)>, Wrong> {
        let Some(before) = self.addresses else { return Ok(None) };
        let wrong = || Wrong::expected("/PATH or :USER:GROUP:MODE:/PATH", before);
        let mut words = before.strip_prefix(':').ok_or_else(wrong)?.split(':');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some(user), Some(group), Some(mode), None) => {
                let owner = Owner::read(&format!("{user}:{group}")).map_err(|_| wrong())?;
                Ok(Some((owner, mode.into())))
            }
            _ => Err(wrong()),
        }
    }

    /// The columns, as fived.conf(5) has them.
    fn columns(&self, number: Option<u16>, files: &mut dyn Files) -> Result<Columns, Vec<Wrong>> {
        // inetd corrects this column: its own datagram services wait, its own stream services
        // and all services of tcpmux do not.
        let internal = self.program == "internal";
        let wait = match (internal, self.kind) {
            (true, "dgram") if !self.waits() => "wait",
            (true, "stream") if self.waits() => "nowait",
            _ if self.is_named() && self.waits() => "nowait",
            _ => self.wait,
        };
        let (program, arguments) = if internal {
            (self.program.to_string(), vec![self.internal(number)?])
        } else {
            (self.path(files)?, self.argv())
        };
        let words = [self.service, self.kind, self.protocol, wait, self.user, &program];
        let words: Vec<&str> = words.into_iter().chain(arguments).collect();
        Columns::read(&words)
    }

    /// Which of inetd's own services it is.
    fn internal(&self, number: Option<u16>) -> Result<&'static str, Wrong> {
        let is = |(name, port): &&(&str, u16)| *name == self.service || Some(*port) == number;
        INTERNAL.iter().find(is).map(|(name, _)| *name).ok_or_else(|| {
            let what = format!("an internal service ({})", any_of(INTERNAL.map(|(name, _)| name)));
            Wrong::expected(what, self.service)
        })
    }

    /// The program's path.
    fn path(&self, files: &mut dyn Files) -> Result<String, Wrong> {
        if self.program.starts_with('/') {
            return Ok(self.program.into());
        }
        if self.program.contains('/') {
            return Err(Wrong::expected("an absolute path, or a program's name", self.program));
        }
        files.program(self.program).ok_or_else(|| {
            let what =
                "expected a path, or a program in a directory of PATH, found none of this name";
            Wrong::new(self.program, what)
        })
    }

    /// The arguments; without any, the name that the program is called by.
    fn argv(&self) -> Vec<&str> {
        match self.arguments {
            [] => vec![base(self.program)],
            given => given.to_vec(),
        }
    }

    /// Where fived itself listens, as the row of tcpmux says. Nowhere: no address could be read.
    /// What the option -a says is a setting of its own.
    fn listens(
        &self,
        at: (&At, &At),
        files: &mut dyn Files,
        remarks: &mut Remarks,
    ) -> Vec<Option<IpAddr>> {
        let said = match self.addresses {
            None => at.0,
            Some("*") => at.1,
            Some(_) => &At::Everywhere,
        };
        if matches!(said, At::Option(_)) {
            return vec![None];
        }
        let (family, everywhere) = match self.protocol {
            "tcp4" => (Family::V4, Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED))),
            "tcp6" => (Family::V6, None),
            _ => (Family::Any, None),
        };
        let ports = self.ports(at, family, files, remarks);
        ports.into_iter().map(|port| port.address.or(everywhere)).collect()
    }

    /// The row's ports: at the addresses before its name, or else at those of `at`.
    fn ports(
        &self,
        (at, usual): (&At, &At),
        family: Family,
        files: &mut dyn Files,
        remarks: &mut Remarks,
    ) -> Vec<Port> {
        let own = self.addresses.map(|list| {
            let (at, unknown) = addresses(list, usual);
            remarks.wrong.extend(unknown);
            at
        });
        let mut ports = Vec::new();
        let mut add = |address| ports.push(Port { address, name: self.service.into() });
        match own.as_ref().unwrap_or(at) {
            At::Everywhere => add(None),
            At::Option(given) => {
                let fits = |a: &&IpAddr| family.has((**a).into());
                given.iter().filter(fits).for_each(|a| add(Some(*a)));
                if !given.iter().any(|a| fits(&a)) {
                    let what = "at the address of -a, which is of the other family";
                    remarks.noted.push(Wrong::new(self.protocol, what));
                }
            }
            At::Addresses(places) => {
                let six = files.has_v6_loopback();
                for address in places.iter().flat_map(|place| place.of(family, six)) {
                    if family.has(address.into()) {
                        add(Some(address));
                    } else {
                        let what = format!("an address of {}", self.protocol);
                        remarks.wrong.push(Wrong::expected(what, &address.to_string()));
                    }
                }
            }
        }
        ports
    }

    /// The row as it stands in a table for somebody to see. It is never started, so what fived.conf
    /// has no words for is left out. None: it has no name or no user.
    fn switched_off(&self) -> Option<InetdRow> {
        let user = if self.user == "*" { "nobody" } else { self.user };
        let path = match self.program {
            path if path.starts_with('/') || path == "internal" => path.to_string(),
            name => format!("/{name}"),
        };
        let arguments = if path == "internal" { vec!["discard"] } else { self.argv() };
        let words = [self.service, "stream", "tcp", "nowait", user, &path];
        let words: Vec<&str> = words.into_iter().chain(arguments).collect();
        let columns = Columns::read(&words).ok()?;
        let families = Families::Clear;
        Some(InetdRow { columns, reached: Reached::Off, number: 0, families, socket: None })
    }
}
