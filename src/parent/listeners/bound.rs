//! Everything that a configuration listens on, bound before any of it is used: all of it, or
//! nothing has changed, and every address that could not be bound is told. Only rows of inetd.conf
//! and xinetd.conf whose port cannot be bound are left out.

use super::bind_error::Unbound;
use super::tls_ports;
use crate::parent::config::Config;
use crate::parent::listeners::{self, Listeners};
use crate::parent::options::Options;
use crate::parent::ports::port_listeners::{self, PortListeners};

use crate::policy::HostId;
use std::net::SocketAddr;

/// See the module.
pub struct Bound {
    pub ports: port_listeners::Fresh,
    tls: tls_ports::Fresh,
    own: listeners::Fresh,
    /// The ports that are left out, one line each.
    pub missing: Vec<String>,
}

impl Bound {
    /// Binds what is not bound yet. Err: what could not be, one line each.
    pub fn new(
        config: &Config,
        options: &Options,
        ports: &PortListeners,
        listeners: &Listeners,
    ) -> Result<Bound, Vec<String>> {
        let (plain, tls) = (&config.ports.plain, &config.ports.tls);
        let (fresh, Unbound { mut wrong, missing }) = ports.bind(plain, &listeners.all());
        let kept = ports.kept(plain);
        let beside = [listeners.all(), ports.with(plain, &fresh)].concat();
        let (fresh_tls, wrong_tls) = listeners.tls.bind(tls, &beside, &kept);
        wrong.extend(wrong_tls);
        let beside = [ports.with(plain, &fresh), fresh_tls.all()].concat();
        let place = if options.listen.is_empty() {
            config.table.place(HostId::DEFAULT, "listen")
        } else {
            "-l".into()
        };
        let wanted = own_addresses(config, options);
        match listeners.bind(&wanted, &place, config.table.settings.mptcp, &beside, &kept) {
            Ok(own) if wrong.is_empty() => {
                drop(beside);
                Ok(Bound { ports: fresh, tls: fresh_tls, own, missing })
            }
            Ok(_) => Err(wrong),
            Err(more) => {
                wrong.extend(more);
                Err(wrong)
            }
        }
    }

    /// All of it is used from now on, and nothing else. Returns the addresses that are new: those
    /// of fived's own port, and the services' own.
    pub fn adopt(
        self,
        config: &Config,
        options: &Options,
        ports: &mut PortListeners,
        listeners: &mut Listeners,
    ) -> Vec<String> {
        let own = listeners.adopt(&own_addresses(config, options), self.own);
        let plain = ports.adopt(&config.ports.plain, self.ports);
        let tls = listeners.tls.adopt(&config.ports.tls, self.tls);
        let text = |addresses: Vec<SocketAddr>| addresses.into_iter().map(|a| a.to_string());
        text(own).chain(plain).chain(text(tls)).collect()
    }
}

/// The addresses of fived's own port.
fn own_addresses(config: &Config, options: &Options) -> Vec<SocketAddr> {
    config.table.settings.own_addresses(&options.listen)
}
