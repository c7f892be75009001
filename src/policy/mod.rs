//! The policy: a table read from text, and decisions made from it. Text and facts in, values out.
//!
//! PURE: no descriptor, no clock, no look-up: files are handed in by [`Files`], time and addresses
//! by [`Facts`]. A [`Permit`] is made by [`Limits::permit`] alone and can neither be copied nor
//! made otherwise.
//!
//! What a row means:
//!
//! | file | what |
//! |---|---|
//! | `table` | services by name, host and clients; who may use which |
//! | `limits` | how many at a time; makes the [`Permit`] |
//! | `query`, `places` | `-C`: what would be decided, and the line of the rule that denies |
//! | `extract` | what the network process is told of a table |
//! | `service` | a service, whole: its endpoint, backend and attributes |
//! | `endpoint`, `listen`, `backend` | how it is reached, what serves it |
//! | `tls_port` | which row a client at a shared TLS port has |
//! | `attributes`, `settings`, `inapplicable` | what may be said of a row, and of fived as a whole, one entry each; what cannot hold for a row |
//! | `subject` | what is known of the client that asks |
//! | `users`, `access`, `client_pattern`, `hours`, `libwrap` | rules on who may come, from where, when |
//! | `banner`, `ids`, `source` | values of these |
//! | `by_source` | what waits; the sources that it is for take turns |
//! | `source_counts` | which source has most of something |
//! | `proxies` | load balancers that say who their clients are |
//! | `origin` | the files that a table is read from |
//!
//! How it is written: `text`. Nothing that decides depends on a grammar.

mod access;
mod attributes;
mod backend;
mod banner;
mod by_source;
mod client_pattern;
mod endpoint;
mod extract;
mod hours;
mod ids;
mod inapplicable;
mod libwrap;
mod limits;
mod listen;
mod origin;
mod places;
mod proxies;
mod query;
mod service;
mod settings;
mod source;
mod source_counts;
mod subject;
mod table;
#[cfg(test)]
mod tests;
mod text;
mod tls_port;
mod users;

pub use crate::wire::internal::Internal;
pub use crate::wire::peer::Peer;
pub use crate::wire::proxy::Version as ProxyVersion;
pub use access::Access;
pub use attributes::{Attributes, LogFailure, LogSuccess, RlimitKind, SocketKind, Stderr};
pub use backend::{Backend, Upstream};
pub use banner::Banner;
pub use by_source::BySource;
pub use client_pattern::ClientPattern;
pub use endpoint::{Endpoint, Family, Owner, Port, ProgramSocket};
pub use extract::Extract;
pub use hours::Hours;
pub use ids::{HostId, HostScope, ServiceId};
pub use libwrap::Libwrap;
pub use limits::{Busy, Limits, Permit, Refusal, Ticket};
pub use listen::{LISTEN_MAX, Listen};
pub use origin::{GivenOption, Grammar, Origin};
pub use proxies::Proxies;
pub use query::Query;
pub use service::Service;
pub use settings::{DIALOGUES_MAX, LogType, STANDING_MAX, Settings};
pub use source::Source;
pub use source_counts::SourceCounts;
pub use subject::{Facts, GroupSet, Login, PeerName, Reached};
pub use table::{Denied, Host, Table};
pub use text::builder::names;
pub use text::entry::Files;
pub use text::load::load;
pub use text::mistake::{Mistake, Weight};
pub use tls_port::TlsPort;
pub use users::{UserSpec, Users};
