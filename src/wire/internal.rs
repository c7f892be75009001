//! The internal services, by name: a row of the table names one, and so does `argv[1]` of its
//! process ([`super::roles::SERVICE`]).

/// fived's own services (RFC 862, 863, 864, 867, 868; `status`, `metrics`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Internal {
    Echo,
    Discard,
    Chargen,
    Daytime,
    Time,
    Status,
    Metrics,
}

const INTERNALS: [(Internal, &str); 7] = [
    (Internal::Echo, "echo"),
    (Internal::Discard, "discard"),
    (Internal::Chargen, "chargen"),
    (Internal::Daytime, "daytime"),
    (Internal::Time, "time"),
    (Internal::Status, "status"),
    (Internal::Metrics, "metrics"),
];

impl Internal {
    /// Its name, as in a row.
    pub fn as_str(self) -> &'static str {
        INTERNALS[self as usize].1
    }

    /// The service of that name, without regard to case.
    pub fn named(name: &str) -> Option<Internal> {
        INTERNALS.iter().find(|(_, n)| n.eq_ignore_ascii_case(name)).map(|(i, _)| *i)
    }

    /// Is there one for datagrams, too?
    pub fn has_datagrams(self) -> bool {
        match self {
            Internal::Echo
            | Internal::Discard
            | Internal::Chargen
            | Internal::Daytime
            | Internal::Time => true,
            Internal::Status | Internal::Metrics => false,
        }
    }

    /// Every name.
    pub fn names() -> impl Iterator<Item = &'static str> {
        INTERNALS.iter().map(|(_, name)| *name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_own_name() {
        for (internal, name) in INTERNALS {
            assert_eq!((internal.as_str(), Internal::named(name)), (name, Some(internal)));
        }
    }
}
