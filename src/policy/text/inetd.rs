//! The grammar of inetd.conf(5), as GNU, OpenBSD, FreeBSD and NetBSD (its classic rows) have it. It
//! translates each row into the columns and attributes of fived.conf(5).
//!
//! A row that inetd itself passes over is reported and left out; one that inetd serves and fived
//! does not is reported and stays in the table, switched off. All other rows are served. Of two
//! rows for the same port the later one counts, as under inetd.

#[cfg(test)]
mod doubt_tests;
mod lines;
mod listen_address;
mod row;
#[cfg(test)]
mod tests;
mod words;

use super::super::endpoint::{Family, Port};
use super::super::origin::{Grammar, Origin};
use super::assigned::Pair;
use super::builder::Builder;
use super::directory::is_leftover;
use super::entry::Files;
use super::mistake::{Mistakes, Weight};
use super::parse::Wrong;
use super::tcpmux::{self, TCPMUX_PORT};
use lines::{What, lines};
use listen_address::At;
use row::{Defaults, Families, InetdRow, Reached};
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use words::{Read, Remarks};

/// A directory that need not exist, where inetd has a file for each package that brings a service.
const MAY_BE_MISSING: &str = "/etc/inetd.d";

/// Reads files, and all files of directories. `origin`: what options say of rows that do not say
/// it themselves.
///
/// A path that options name must be readable. One that a setting names is left out if it is not:
/// /etc/inetd.conf belongs to no package, and one that is removed takes it away. That must not keep
/// the rest of the configuration from being served.
pub fn read(builder: &mut Builder, paths: &[String], origin: &Origin) {
    let mut reader = InetdReader::new(&origin.addresses);
    let unread = if origin.grammar == Grammar::Inetd { Weight::Refused } else { Weight::LeftOut };
    for path in paths {
        let names = builder.files.list(path);
        let all = match &names {
            Ok(names) => {
                names.iter().filter(|n| !is_leftover(n)).map(|n| format!("{path}/{n}")).collect()
            }
            Err(_) => vec![path.clone()],
        };
        for file in all {
            match builder.files.read(&file) {
                Ok(bytes) => reader.file(&file, &bytes, builder.files),
                Err(_) if file == MAY_BE_MISSING => {}
                // A file of a directory that cannot be read is reported and left out.
                Err(e) if names.is_err() => builder.unreadable("inetd", path, &e, unread),
                Err(e) => builder.mistakes.push(&file, 0, "", e),
            }
        }
    }
    let listens = reader.listens();
    if listens.as_ref().is_some_and(|(_, pair)| pair.words.is_empty()) {
        reader.switch_off_named();
    }
    let (rows, warnings) = reader.finish();
    if let Some((file, pair)) = listens.filter(|(_, pair)| !pair.words.is_empty()) {
        tcpmux::listen(builder, &file, &pair, origin.grammar);
    }
    builder.mistakes.append(warnings);
    for (file, line, row) in rows {
        let before = builder.mistakes.len();
        let defaults = Defaults { per_minute: origin.per_minute, wraps: builder.wraps_all() };
        builder.row(row.into_row(file, line, &defaults, before));
    }
}

/// A line, with its row and the warnings about it.
#[derive(Debug)]
struct Entry {
    file: Arc<str>,
    line: usize,
    /// None: the line adds no row to the table.
    row: Option<InetdRow>,
    remarks: Remarks,
}

/// Reads files, one after the other.
#[derive(Debug)]
struct InetdReader {
    /// Where rows listen that name no address.
    usual: At,
    all: Vec<Entry>,
    /// The rows of tcpmux: the file and the line of each, and its addresses.
    tcpmux: Vec<(Arc<str>, usize, Vec<Option<IpAddr>>)>,
}

impl InetdReader {
    /// `addresses`: of the option -a.
    fn new(addresses: &[IpAddr]) -> InetdReader {
        let usual = match addresses {
            [] => At::Everywhere,
            given => At::Option(given.to_vec()),
        };
        InetdReader { usual, all: Vec::new(), tcpmux: Vec::new() }
    }

    /// Reads one file. `bytes`: what is in it.
    fn file(&mut self, path: &str, bytes: &[u8], files: &mut dyn Files) {
        let file: Arc<str> = path.into();
        let (mut at, mut ipsec) = (self.usual.clone(), false);
        for line in lines(bytes) {
            let (mut row, mut remarks) = (None, Remarks::default());
            match line.what {
                What::Addresses(list) => {
                    (at, remarks.wrong) = listen_address::addresses(&list, &self.usual);
                }
                What::Ipsec(policy) => ipsec = policy,
                What::Unread(word, why) => remarks.wrong.push(Wrong::new(&word, why)),
                What::Row(words) => {
                    let words: Vec<&str> = words.iter().map(String::as_str).collect();
                    match words::read(&words, (&at, &self.usual), files, &mut remarks) {
                        Some(Read::Service(service)) => row = Some(*service),
                        Some(Read::Tcpmux(at)) => self.tcpmux.push((file.clone(), line.number, at)),
                        None => {}
                    }
                    if let (Some(row), true) = (&mut row, ipsec) {
                        row.reached = Reached::Off;
                        remarks
                            .noted
                            .push(Wrong::new(words[0], "rows under a policy of IPsec (#@)"));
                    }
                }
            }
            self.all.push(Entry { file: file.clone(), line: line.number, row, remarks });
        }
    }

    /// Where fived itself listens, if the rows of tcpmux name addresses and there are services with
    /// names; and where that is said.
    fn listens(&self) -> Option<(Arc<str>, Pair)> {
        let named = |e: &Entry| e.row.as_ref().is_some_and(|r| r.reached == Reached::Name);
        let (file, line, _) = self.tcpmux.first().filter(|_| self.all.iter().any(named))?;
        let mut words: Vec<String> = Vec::new();
        for address in self.tcpmux.iter().flat_map(|(_, _, at)| at) {
            let word = SocketAddr::new((*address)?, TCPMUX_PORT).to_string();
            if !words.contains(&word) {
                words.push(word);
            }
        }
        Some((file.clone(), Pair::new(*line, "listen", words)))
    }

    /// No address of the rows of tcpmux could be read: nobody may reach what they would lead to.
    fn switch_off_named(&mut self) {
        let named = |r: &&mut InetdRow| r.reached == Reached::Name;
        for Entry { row, remarks, .. } in &mut self.all {
            if let Some(row) = row.as_mut().filter(named) {
                row.reached = Reached::Off;
                let what = "a named service, while the address of the row of tcpmux is not known";
                remarks.noted.push(Wrong::new(&row.columns.name, what));
            }
        }
    }

    /// The rows of all files, and what is wrong with them, in the order of the text.
    fn finish(mut self) -> (Vec<(Arc<str>, usize, InetdRow)>, Mistakes) {
        self.leave_ipv6();
        self.later_counts();
        let (mut rows, mut warnings) = (Vec::new(), Mistakes::default());
        for Entry { file, line, row, remarks: Remarks { wrong, noted } } in self.all {
            let off = row.as_ref().is_some_and(|s| s.reached == Reached::Off);
            let all = [(Weight::LeftOut, wrong), (Weight::Noted, noted)];
            for (weight, Wrong { word, what }) in
                all.into_iter().flat_map(|(weight, all)| all.into_iter().map(move |w| (weight, w)))
            {
                let what = if off { format!("not served: {what}") } else { what };
                warnings.push_as(weight, &file, line, &word, what);
            }
            let each = row.map(InetdRow::of_each_family).into_iter().flatten();
            rows.extend(each.map(|row| (file.clone(), line, row)));
        }
        (rows, warnings)
    }

    /// `tcp` is IPv4 and IPv6, but IPv4 alone where a row for IPv6 has the same port (of
    /// `localhost` that at ::1). Where no row serves IPv4 there, the administrator is told what
    /// `tcp6` means.
    fn leave_ipv6(&mut self) {
        let everywhere = InetdRow::is_everywhere;
        let all = || self.all.iter().filter_map(|e| e.row.as_ref());
        let six: HashSet<_> = all()
            .filter(|s| s.columns.endpoint.family == Family::V6 && everywhere(s))
            .map(InetdRow::port)
            .collect();
        let four: HashSet<_> = all()
            .filter(|s| s.columns.endpoint.family != Family::V6 && s.reached != Reached::Off)
            .map(InetdRow::port)
            .collect();
        let six_local: HashSet<_> = all()
            .filter(|s| s.columns.endpoint.family == Family::V6 && s.is_at(Ipv6Addr::LOCALHOST))
            .map(InetdRow::port)
            .collect();
        for row in self.all.iter_mut().filter_map(|e| e.row.as_mut()) {
            let both = row.is_at(Ipv4Addr::LOCALHOST) && row.is_at(Ipv6Addr::LOCALHOST);
            if both && row.families == Families::Yields && six_local.contains(&row.port()) {
                row.leave(Ipv6Addr::LOCALHOST);
            }
        }
        for Entry { row, remarks, .. } in &mut self.all {
            let Some(row) = row.as_mut().filter(|row| everywhere(row)) else { continue };
            if row.families == Families::Yields && six.contains(&row.port()) {
                row.columns.endpoint.family = Family::V4;
            } else if row.families == Families::Six && !four.contains(&row.port()) {
                let protocol = row.columns.endpoint.protocol();
                let (base, _) = protocol.split_at(3);
                let what = format!(
                    "IPv6 alone, as on the BSDs; under the inetd of GNU it is IPv4 too, which is {base}46 here"
                );
                remarks.noted.push(Wrong::new(protocol, what));
            }
        }
    }

    /// Takes from each row the ports, or the name, that a later row has too.
    fn later_counts(&mut self) {
        let mut ports: Taken<(Option<IpAddr>, (bool, u16))> = Taken::default();
        let mut names: Taken<String> = Taken::default();
        for Entry { file, line, row, remarks } in self.all.iter_mut().rev() {
            let Some(row) = row else { continue };
            let port = row.port();
            let InetdRow { columns, reached, .. } = row;
            let (family, place) = (columns.endpoint.family, (file.clone(), *line));
            let mut later = |word: &str, found: Option<FileLine>| {
                let Some((file, line)) = found else { return true };
                let what = format!("the later row at {file}:{line} is served instead");
                remarks.noted.push(Wrong::new(word, what));
                false
            };
            let left = match reached {
                Reached::Off => continue,
                Reached::Name => {
                    let found = names.take(columns.name.to_ascii_lowercase(), family, &place);
                    later(&columns.name, found)
                }
                Reached::Ports(own) => {
                    own.retain(|p: &Port| {
                        let key = (p.address, port);
                        port.1 == 0 || later(&p.to_string(), ports.take(key, family, &place))
                    });
                    !own.is_empty()
                }
            };
            if !left {
                *reached = Reached::Off;
            }
        }
    }
}

/// A file, and a line of it.
type FileLine = (Arc<str>, usize);

/// The ports, or the names, that rows have: for clients of which family, and by which line.
struct Taken<K>(HashMap<K, Vec<(Family, FileLine)>>);

impl<K> Default for Taken<K> {
    fn default() -> Self {
        Taken(HashMap::new())
    }
}

impl<K: Eq + std::hash::Hash> Taken<K> {
    /// Takes one for the row at `place`, or returns the line of the row that has it already.
    fn take(&mut self, key: K, family: Family, place: &FileLine) -> Option<FileLine> {
        let all = self.0.entry(key).or_default();
        let found = all.iter().find(|(f, _)| f.meets(family)).map(|(_, place)| place.clone());
        if found.is_none() {
            all.push((family, place.clone()));
        }
        found
    }
}
