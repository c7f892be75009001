//! The numbers of ports that the tables name (services(5)). One for which the name service has no
//! answer while a configuration is read again is as in the configuration that stands.

use super::name_service::NameService;
use super::own_users::OwnUsers;
use crate::sys::port;
use crate::wire::lookups::{self, Entry};
use std::collections::HashMap;

/// Numbers by protocol and name.
pub type Numbers = HashMap<(String, String), u16>;

/// See the module.
#[derive(Debug, Default)]
pub struct PortNames<'a> {
    found: HashMap<(String, String), Option<u16>>,
    /// Those of the configuration that stands, and who is asked now. None: there is no such
    /// configuration, and this process asks.
    again: Option<(&'a Numbers, NameService)>,
    /// How many had no answer, and the first.
    silent: (usize, String),
}

impl<'a> PortNames<'a> {
    /// For a configuration that is to take the place of another one, whose numbers and users these
    /// are.
    pub fn again(last: &'a Numbers, own: Option<OwnUsers>) -> PortNames<'a> {
        PortNames { again: Some((last, NameService::new(own))), ..PortNames::default() }
    }

    /// The number of a name. None: there is none. `protocol`: `tcp` or `udp`.
    pub fn number(&mut self, name: &str, protocol: &str) -> Option<u16> {
        let key = (protocol.to_string(), name.to_string());
        if let Some(known) = self.found.get(&key) {
            return *known;
        }
        let number = match &mut self.again {
            None => port::named(name, protocol),
            Some((last, service)) => {
                let entry = Entry::Port { name: name.into(), protocol: protocol.into() };
                service.ask(&entry).map_or_else(
                    || {
                        let (count, first) = &mut self.silent;
                        if *count == 0 {
                            *first = format!("{name}/{protocol}");
                        }
                        *count += 1;
                        last.get(&key).copied()
                    },
                    |line| lookups::read_number(&line),
                )
            }
        };
        self.found.insert(key, number);
        number
    }

    /// What the administrator should know about those without an answer.
    pub fn warning(&self) -> Option<String> {
        let why = self.again.as_ref()?.1.why()?;
        let names = match &self.silent {
            (0 | 1, first) => first.clone(),
            (2, first) => format!("{first} and 1 other"),
            (n, first) => format!("{first} and {} others", n - 1),
        };
        Some(format!("ports: {names}: {why}: they stay as in the configuration before"))
    }

    /// Those that were found.
    pub fn numbers(self) -> Numbers {
        self.found.into_iter().filter_map(|(key, number)| Some((key, number?))).collect()
    }
}
