//! SSL: begins TLS on the session's connection.

use crate::net::end::End;
use crate::net::session_state::Session;
use crate::policy::{HostId, Reached};
use crate::sys::socket;
use crate::wire::orders::{Ask, Data};
use crate::wire::reply;
use rustls::{Connection, ServerConnection};

/// The word SSL: a reply, then the handshake. Err: the session ends.
pub fn run(s: &mut Session) -> Result<(), End> {
    s.write(reply::SUCCESS)?;
    encrypt(s)
}

/// The handshake, after the word SSL or right at the beginning. Afterwards nobody is logged in, and
/// the host is the one that the client named.
pub fn encrypt(s: &mut Session) -> Result<(), End> {
    let soon = s.soon();
    let tls = s.state.world.tls.as_ref().ok_or(End::Tls)?;
    let config = match s.state.facts.reached {
        Reached::AtTlsPort => &tls.at_ports,
        Reached::ByName | Reached::AtPort => &tls.config,
    };
    s.link.encrypt(ServerConnection::new(config.clone()).map_err(|_| End::Tls)?);
    if let Err(end) = s.link.handshake(&*s.channel, soon) {
        if end == End::Tls {
            // A reset must not overtake the alert.
            s.link.linger();
        }
        // The client can read nothing more, neither plain nor encrypted.
        let _ = socket::shutdown_both(s.link.socket());
        return Err(end);
    }
    let Some(Connection::Server(tls)) = s.link.tls() else { return Err(End::Tls) };
    let name = tls.server_name().unwrap_or("").to_string();
    let suite = tls.negotiated_cipher_suite().map_or(0, |s| u16::from(s.suite()));
    s.state.facts.encrypted = true;
    s.state.facts.login = None;
    s.state.facts.host = s.state.world.table.host_named(name.as_bytes()).unwrap_or(HostId::DEFAULT);
    s.channel.send(&Ask::Encrypted { suite, name: Data::truncate(name.as_bytes()) })?;
    Ok(())
}
