//! Numbers of services and hosts: their places in the configuration.

/// A service, by its place in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceId(pub u32);

/// A virtual host, by its place in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostId(pub u32);

impl HostId {
    /// The host of a client that has chosen none.
    pub const DEFAULT: HostId = HostId(0);
}

/// Which hosts have a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostScope {
    /// This one.
    Host(HostId),
    /// Every host: the section `[*]`.
    All,
}
