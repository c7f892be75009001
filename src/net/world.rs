//! What one configuration means to the net process: read once from the parent's archive, shared by
//! all threads.

use super::connections::Connections;
use super::descriptors::Descriptors;
use super::{parked, session_counts, tls};
use crate::log;
use crate::policy::{Extract, ServiceId, Table, TlsPort};
use crate::wire::archive::Archive;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// See the module. It never changes.
pub struct World {
    pub table: Table,
    /// None: there is no certificate at all.
    pub tls: Option<tls::Tls>,
    /// The services' own ports where TLS is expected, by their numbers.
    pub tls_ports: Vec<TlsPort>,
    /// The sessions, parked ones too.
    pub sessions: session_counts::SessionCounts,
    pub descriptors: Arc<Descriptors>,
    /// To the parent: the only one on which this process may send descriptors.
    pub channel: Arc<OwnedFd>,
    /// Sessions may stand that can be resumed, whatever the table says of new ones.
    pub resumes: bool,
    /// Connections on which sessions may go on.
    pub connections: Connections,
    /// None: the system had no thread for it, and every session keeps its own.
    pub parking: Option<parked::Parking>,
}

impl World {
    /// Reads the configuration's archive. Err: one sentence that says what is wrong.
    pub fn read(
        bytes: &[u8],
        (descriptors, channel): (Arc<Descriptors>, Arc<OwnedFd>),
    ) -> Result<World, String> {
        let mut archive =
            Archive::decode(bytes).ok_or("the configuration's archive cannot be read")?;
        let table = Extract::read(archive.files.drain(..).collect())?;
        let tls = tls::configure(&archive, &table)?;
        let port = |services: &Vec<u32>| {
            let services: Vec<_> = services.iter().map(|n| ServiceId(*n)).collect();
            TlsPort::new(&table, &services)
        };
        let tls_ports = archive.tls_ports.iter().map(port).collect();
        let parking = parked::Parking::open()
            .inspect_err(|e| log::warn(&format!("net: no thread for parked sessions: {e}")))
            .ok();
        let sessions = session_counts::SessionCounts::default();
        let (connections, resumes) = (Connections::default(), archive.resumes);
        Ok(World {
            table,
            tls,
            tls_ports,
            sessions,
            descriptors,
            channel,
            resumes,
            connections,
            parking,
        })
    }
}
