//! `libwrap`: hosts.allow and hosts.deny (hosts_access(5)) have to agree, too.

/// Whether they are asked, and after which name of a daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Libwrap {
    No,
    /// After the file name of the program; of an internal service: after the service's name.
    Yes,
    Named(String),
}
