//! The policy: a table read from text, and decisions made from it. Text and facts in, values out.
//!
//! PURE: no descriptor, no clock, no look-up: files are handed in by [`Files`], time and addresses
//! by [`Facts`]. A [`Permit`] is made by [`Limits::permit`] alone and can neither be copied nor
//! made otherwise.

mod access;
mod attributes;
mod extract;
mod facts;
mod limits;
mod print;
mod query;
mod read;
mod rows;
mod settings;
mod source;
mod table;
mod values;
mod words;

pub use access::{Access, Place};
pub use attributes::{Attributes, Banner, LogFailure, LogSuccess, RlimitKind, SocketKind, Stderr};
pub use extract::{Extract, TEXT};
pub use facts::{Denied, Facts, GroupSet, Hours, Login, PeerName, Users};
pub use limits::{Busy, Limits, Permit, Refusal, Ticket};
pub use query::Query;
pub use read::{Mistake, load};
pub use rows::{Family, Internal, Program, Service, UserSpec};
pub use settings::{LISTEN_MAX, LogType, Settings, listen as parse_listen};
pub use source::Source;
pub use table::{Host, HostId, HostScope, ServiceId, Table};

/// Where text comes from. Errors are the system's words for why not.
pub trait Files {
    fn read(&mut self, path: &str) -> Result<Vec<u8>, String>;
    /// The names in a directory, of files alone, in order.
    fn list(&mut self, directory: &str) -> Result<Vec<String>, String>;
}
