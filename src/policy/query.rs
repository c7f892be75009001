//! `-C`: what would be decided.

use super::subject::Facts;
use super::table::{Denied, Table};
use std::net::{IpAddr, Ipv4Addr};

/// `service=NAME,host=NAME,addr=ADDRESS,user=NAME,tls=yes`; all but the service may be left out
/// (the default host, 127.0.0.1, nobody, plain).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    pub service: String,
    pub host: Option<String>,
    pub address: IpAddr,
    pub user: Option<String>,
    pub tls: bool,
}

impl Query {
    /// Err: the word that is wrong, and what would be right.
    pub fn read(text: &str) -> Result<Query, String> {
        let mut q = Query {
            service: String::new(),
            host: None,
            address: Ipv4Addr::LOCALHOST.into(),
            user: None,
            tls: false,
        };
        for part in text.trim().split(',') {
            let (key, value) = part
                .split_once('=')
                .ok_or_else(|| format!("{part}: not a word of a query; service=, host=, addr=, user= or tls= would be right"))?;
            match key.trim() {
                "service" => q.service = value.into(),
                "host" => q.host = Some(value.into()).filter(|v: &String| !v.is_empty()),
                "addr" => {
                    q.address = value
                        .parse::<IpAddr>()
                        .map_err(|_| format!("{part}: not an address"))?
                        .to_canonical()
                }
                "user" => q.user = Some(value.into()).filter(|v: &String| !v.is_empty()),
                "tls" if matches!(value, "yes" | "no") => q.tls = value == "yes",
                "tls" => return Err(format!("{part}: neither yes nor no, which would be right")),
                _ => {
                    return Err(format!(
                        "{part}: unknown; service=, host=, addr=, user= or tls= would be right"
                    ));
                }
            }
        }
        if q.service.is_empty() { Err("service=NAME is missing".into()) } else { Ok(q) }
    }
}

impl Table {
    /// `allow NAME FILE:LINE`, `deny NAME FILE:LINE REASON`, or `deny NAME - unknown`.
    pub fn decide(&self, query: &Query, facts: &Facts) -> String {
        let (id, why) = match self.allowed(query.service.as_bytes(), facts) {
            Ok(id) => (Some(id), None),
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
