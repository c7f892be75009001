//! `-C`: what fived would decide about a client.

use super::ids::{HostScope, ServiceId};
use super::subject::{Facts, Reached};
use super::table::{Denied, Table};
use super::text::parse::expected;
use crate::wire::peer::Peer;
use std::net::Ipv4Addr;

/// `service=NAME,host=NAME,addr=ADDRESS,user=NAME,tls=yes`. All except the service may be left out,
/// and mean the default host, 127.0.0.1, not logged in, not encrypted then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    pub service: String,
    pub host: Option<String>,
    pub peer: Peer,
    pub user: Option<String>,
    pub tls: bool,
}

/// The words of a query.
const WORDS: &str = "service=, host=, addr=, user= or tls=";

impl Query {
    /// Reads a query. Err: the word that is wrong, and what was expected.
    pub fn read(text: &str) -> Result<Query, String> {
        let mut q = Query {
            service: String::new(),
            host: None,
            peer: Peer::Address(Ipv4Addr::LOCALHOST.into()),
            user: None,
            tls: false,
        };
        for part in text.trim().split(',') {
            let wrong = |what: &str| format!("{part}: {}", expected(what, part));
            let (key, value) = part.split_once('=').ok_or_else(|| wrong(WORDS))?;
            match key.trim() {
                "service" => q.service = value.into(),
                "host" => q.host = Some(value.into()).filter(|v: &String| !v.is_empty()),
                "addr" => {
                    q.peer = value.parse().map_err(|_| wrong("addr=ADDRESS or addr=uid:NUMBER"))?;
                }
                "user" => q.user = Some(value.into()).filter(|v: &String| !v.is_empty()),
                "tls" if matches!(value, "yes" | "no") => q.tls = value == "yes",
                "tls" => return Err(wrong("tls=yes or tls=no")),
                _ => return Err(wrong(WORDS)),
            }
        }
        if q.service.is_empty() { Err("expected service=NAME, found none".into()) } else { Ok(q) }
    }
}

impl Table {
    /// The first row of that name that is reached at ports alone and that the client may use there;
    /// else the first of them, and why not.
    fn decide_at_ports(&self, query: &Query, facts: &Facts) -> (Option<ServiceId>, Option<Denied>) {
        let mut denied = (None, None);
        for (n, s) in self.services().iter().enumerate() {
            let a = &s.attributes;
            let here = match s.host {
                HostScope::All => true,
                HostScope::Host(host) => host == facts.host,
            };
            if a.tcpmux || !here || !s.name.eq_ignore_ascii_case(&query.service) {
                continue;
            }
            let id = ServiceId(n as u32);
            let tls = !a.tls_port.is_empty() && (facts.encrypted || a.port.is_empty());
            let reached = if tls { Reached::AtTlsPort } else { Reached::AtPort };
            // Nobody logs in there, and TLS is what the port has.
            let there = Facts { reached, encrypted: tls, login: None, ..facts.clone() };
            match self.usable(id, &there) {
                Ok(()) => return (Some(id), None),
                Err(why) if denied.0.is_none() => denied = (Some(id), Some(why)),
                Err(_) => {}
            }
        }
        denied
    }

    /// The decision: `allow NAME FILE:LINE`, `deny NAME FILE:LINE REASON`, or
    /// `deny NAME - unknown`.
    pub fn decide(&self, query: &Query, facts: &Facts) -> String {
        let (id, why) = match self.allowed(query.service.as_bytes(), facts) {
            Ok(id) => (Some(id), None),
            Err((_, Denied::Unknown)) => self.decide_at_ports(query, facts),
            Err((id, why)) => (id, Some(why)),
        };
        match (id.and_then(|id| self.service(id)), why) {
            (Some(s), None) => format!("allow {} {}:{}", s.name, s.file, s.line),
            (Some(s), Some(why)) => {
                format!("deny {} {}:{} {}", s.name, s.file, s.line, why.as_str())
            }
            (None, why) => format!(
                "deny {} - {}",
                query.service.escape_debug(),
                why.unwrap_or(Denied::Unknown).as_str()
            ),
        }
    }
}
