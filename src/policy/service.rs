//! A service: how it is reached, what serves it, and every rule of its row, each default filled in.

use super::attributes::Attributes;
use super::backend::Backend;
use super::endpoint::Endpoint;
use super::ids::HostScope;
use super::libwrap::Libwrap;
use super::origin::Grammar;
use super::places::{Place, Places};
use super::subject::Reached;
use super::users::UserSpec;
use std::sync::Arc;

/// A service, from its row and the defaults before it. It is complete when it is made, and never
/// changes.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// As configured, without `tcpmux/`.
    pub name: String,
    pub host: HostScope,
    pub endpoint: Endpoint,
    pub user: UserSpec,
    pub backend: Backend,
    /// Of its row.
    pub grammar: Grammar,
    /// Where its row is.
    pub file: Arc<str>,
    pub line: usize,
    /// Starts a minute (`nowait:N`); None: no limit.
    pub per_minute: Option<u32>,
    /// Starts a minute for one source (`nowait/a/N/b`); None: no limit.
    pub per_source_minute: Option<u32>,
    /// Rows with the same attributes share them.
    pub attributes: Arc<Attributes>,
    /// Where its rules are written.
    pub places: Arc<Places>,
}

impl Service {
    /// Is it the same row, wherever it stands?
    pub fn is_same_row(&self, other: &Service) -> bool {
        let (file, places) = (self.file.clone(), self.places.clone());
        *self == Service { file, line: self.line, places, ..other.clone() }
    }

    /// What fived itself sends to a client before the service's own bytes: at a port of the row's
    /// own there was no request, and there is no reply line.
    pub fn greeting(&self, reached: Reached) -> Vec<u8> {
        match reached {
            Reached::ByName => self.attributes.greeting(self.endpoint.announce),
            Reached::AtPort | Reached::AtTlsPort => self.attributes.welcome(),
        }
    }

    /// `FILE:LINE` of the line that gave an attribute its value, of which lines are kept; else of
    /// the row. Of a list it is the line that has such a word.
    pub fn place(&self, attribute: &str, is: impl Fn(&str) -> bool) -> String {
        let (file, line) = self.file_and_line(attribute, is);
        format!("{file}:{line}")
    }

    /// The same, as its two parts.
    pub fn file_and_line(&self, attribute: &str, is: impl Fn(&str) -> bool) -> Place {
        let (places, row) = (&self.places, || (self.file.clone(), self.line));
        places.naming(attribute, is).or_else(|| places.last(attribute)).unwrap_or_else(row)
    }

    /// The group that it runs as, if the row names one. `user:group` goes before the attribute.
    pub fn group(&self) -> Option<&str> {
        match &self.user {
            UserSpec::Named { group: Some(g), .. } => Some(g),
            _ => self.attributes.group.as_deref(),
        }
    }

    /// The attributes that an offered service lacks, or that cannot hold for it, and why.
    pub fn not_offered(&self) -> Vec<(&'static str, String)> {
        if self.backend != Backend::Offer {
            return Vec::new();
        }
        let a = &*self.attributes;
        let nobody = a.offered_by.0.is_empty().then(|| {
            let what = "expected the users who may offer this service (`offered_by = alice @staff`), found none";
            ("offered_by", what.to_string())
        });
        let proxy = a.proxy.map(|_| {
            let what = "expected `proxy =`, for whoever offers the service is told the client's address in another way, found a version";
            ("proxy", what.to_string())
        });
        nobody.into_iter().chain(proxy).collect()
    }

    /// Has it a name that inetd or xinetd would read as a port: a number, `*:NUMBER` or
    /// `HOST:NAME`? Returns the value that the attribute `port` would need for that port.
    pub fn port_for_a_name(&self) -> Option<&str> {
        let number = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
        if !self.attributes.tcpmux {
            return None;
        }
        match self.name.rsplit_once(':') {
            None => number(&self.name).then_some(&*self.name),
            Some((_, "")) => None,
            Some(("*", port)) => Some(port),
            Some((host, port)) => {
                (host == "localhost" || host.contains('.') || number(port)).then_some(&*self.name)
            }
        }
    }

    /// The daemon whose rules in hosts_access(5) are asked; None: none are.
    pub fn libwrap_daemon(&self) -> Option<&str> {
        match (&self.attributes.libwrap, &self.backend) {
            (Libwrap::No, _) => None,
            (Libwrap::Named(name), _) => Some(name),
            (Libwrap::Yes, Backend::Exec { program, .. }) => program.rsplit('/').next(),
            (
                Libwrap::Yes,
                Backend::Internal(_)
                | Backend::Redirect(_)
                | Backend::Sensor
                | Backend::Handover { .. }
                | Backend::Offer,
            ) => Some(&self.name),
        }
    }

    /// Must the client have logged in?
    pub fn needs_login(&self) -> bool {
        self.attributes.require.login
    }
}
