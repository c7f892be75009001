//! Writes a table in the grammar of fived.conf(5). For `-T`, with every default filled in: reading
//! the text gives the same table again. For the net process, only what that decides by.

use super::super::attributes::{ATTRIBUTES, Attributes};
use super::super::backend::{Backend, SENSOR};
use super::super::banner::Banner;
use super::super::endpoint::ProgramSocket;
use super::super::ids::{HostId, HostScope};
use super::super::service::Service;
use super::super::settings::{SETTINGS, Settings};
use super::super::table::{HOST_SETTINGS, Host, Table};
use super::super::users::UserSpec;
use super::entry::{Audience, Entry, Printed};
use super::lexer::quote;
use crate::wire::internal::Internal;
use std::fmt::Write;

impl Table {
    /// What `-T` prints.
    pub fn print(&self) -> String {
        let path = &mut |banner: &Banner| banner.path.clone();
        Printer { audience: Audience::Parent, path, out: String::new() }.table(self)
    }

    /// The text for the net process: the entries of [`Audience::Net`] whose values are not the
    /// defaults; no program, user, certificate or path. Services, hosts and groups keep their
    /// numbers. `path`: the name by which net finds a banner.
    pub(in crate::policy) fn print_for_net(
        &self,
        path: &mut dyn FnMut(&Banner) -> String,
    ) -> String {
        Printer { audience: Audience::Net, path, out: String::new() }.table(self)
    }
}

struct Printer<'a> {
    /// Which process reads the text.
    audience: Audience,
    /// The name of a banner's file.
    path: &'a mut dyn FnMut(&Banner) -> String,
    out: String,
}

impl Printer<'_> {
    fn table(mut self, table: &Table) -> String {
        self.entries("", SETTINGS, &table.settings, &Settings::default());
        if self.audience == Audience::Net {
            // Groups are numbered in the order in which the text names them, so it names all of
            // them first, in their order.
            let groups = table.groups().iter().map(|g| quote(&format!("@{g}")));
            self.line("", "users", &groups.collect::<Vec<_>>().join(" "));
            self.line("", "users", "");
        }
        // The sections come in the order of the file, because HELP shows services in that order.
        let (mut last, mut scope) = (HostId::DEFAULT, HostScope::Host(HostId::DEFAULT));
        let usual = Attributes::default();
        for s in table.services() {
            match s.host {
                same if same == scope => {}
                HostScope::All => self.out.push_str("\n[*]\n"),
                HostScope::Host(id) => self.headings(table, &mut last, id),
            }
            scope = s.host;
            self.row(s);
            self.entries("\t", ATTRIBUTES, &s.attributes, &usual);
        }
        self.headings(table, &mut last, HostId(table.hosts().len() as u32 - 1));
        self.out
    }

    /// Prints the headings of the sections after `last`, up to this one.
    fn headings(&mut self, table: &Table, last: &mut HostId, to: HostId) {
        for h in table.hosts().iter().take(to.0 as usize + 1).skip(last.0 as usize + 1) {
            self.put(format_args!("\n[{}]\n", h.names.join(" ")));
            self.entries("", HOST_SETTINGS, h, &Host::default());
        }
        *last = to;
    }

    /// Prints the lines of all entries. For net, it leaves out entries that net does not decide by,
    /// and values that are the same as in `usual`.
    fn entries<T>(&mut self, indent: &str, all: &[Entry<T>], of: &T, usual: &T) {
        for entry in all {
            let value = (entry.print)(of);
            let left_out = self.audience == Audience::Net
                && (entry.audience != Audience::Net || value == (entry.print)(usual));
            match value {
                _ if left_out => {}
                Printed::Nothing => {}
                Printed::Words(words) => self.line(indent, entry.name, &words),
                Printed::File(banner) => {
                    let path = quote(&(self.path)(banner));
                    self.line(indent, entry.name, &path);
                }
            }
        }
    }

    fn line(&mut self, indent: &str, name: &str, value: &str) {
        let blank = if value.is_empty() { "" } else { " " };
        self.put(format_args!("{indent}{name} ={blank}{value}\n"));
    }

    /// Prints the columns of a service's row.
    fn row(&mut self, s: &Service) {
        let name = quote(&s.name);
        let name = if s.endpoint.announce { name } else { format!("tcpmux/{name}") };
        // Net has no row that is not reached by a name.
        let (kind, protocol) = match (self.audience, s.endpoint.socket) {
            (Audience::Parent, ProgramSocket::Datagrams) => ("dgram", s.endpoint.protocol()),
            _ => ("stream", s.endpoint.family.protocol()),
        };
        let rest = match self.audience {
            Audience::Parent => format!("{} {} {}", wait(s), user(&s.user), backend(&s.backend)),
            Audience::Net if s.backend == Backend::Offer => "nowait - offer".into(),
            // Net learns only whether that is the user who logged in, and whether it is a sensor.
            Audience::Net => {
                let user = if s.user == UserSpec::Login { "*" } else { "x" };
                let sensor = s.backend == Backend::Sensor;
                let what = if sensor { SENSOR } else { Internal::Discard.as_str() };
                format!("nowait {user} internal {what}")
            }
        };
        self.put(format_args!("\n{name} {kind} {protocol} {rest}\n"));
    }

    fn put(&mut self, text: std::fmt::Arguments) {
        // Writing to a string cannot fail.
        let _ = self.out.write_fmt(text);
    }
}

fn wait(s: &Service) -> String {
    if s.endpoint.socket.waits() {
        return s.per_minute.map_or("wait".into(), |n| format!("wait:{n}"));
    }
    match (s.per_minute, s.per_source_minute) {
        (Some(n), _) => format!("nowait:{n}"),
        // The other limits of `nowait` are printed as attributes.
        (None, Some(n)) => format!("nowait/0/{n}"),
        (None, None) => "nowait".into(),
    }
}

fn user(user: &UserSpec) -> String {
    match user {
        UserSpec::Login => "*".into(),
        UserSpec::None => "-".into(),
        UserSpec::Named { user, group: None } if user.contains('.') => quote(&format!("{user}:")),
        UserSpec::Named { user, group: None } => quote(user),
        UserSpec::Named { user, group: Some(g) } => quote(&format!("{user}:{g}")),
    }
}

fn backend(backend: &Backend) -> String {
    match backend {
        Backend::Exec { program, arguments } => {
            let words = std::iter::once(program).chain(arguments);
            words.map(|w| quote(w)).collect::<Vec<_>>().join(" ")
        }
        Backend::Sensor => format!("internal {SENSOR}"),
        Backend::Internal(i) => format!("internal {}", i.as_str()),
        Backend::Redirect(upstreams) => {
            let words = upstreams.iter().map(|u| quote(&u.to_string()));
            ["redirect".to_string()].into_iter().chain(words).collect::<Vec<_>>().join(" ")
        }
        Backend::Handover { path } => format!("handover {}", quote(path)),
        Backend::Offer => "offer".into(),
    }
}
