//! What is known of whoever asks, and the rules on people and hours.

use super::HostId;
use std::fmt;
use std::net::IpAddr;

/// Groups that the `users` attributes of a table may name, all together.
pub const GROUPS_MAX: usize = 256;

/// The groups that somebody is in: bit `i` is `Table::groups()[i]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GroupSet(pub [u64; 4]);

impl GroupSet {
    pub fn insert(&mut self, i: usize) {
        if let Some(word) = self.0.get_mut(i / 64) {
            *word |= 1 << (i % 64);
        }
    }

    pub fn contains(&self, i: usize) -> bool {
        self.0.get(i / 64).is_some_and(|word| word >> (i % 64) & 1 == 1)
    }
}

/// Who logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    pub name: String,
    pub groups: GroupSet,
    /// Is it uid 0?
    pub superuser: bool,
}

/// All that a decision is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The peer's address, canonical.
    pub peer: IpAddr,
    pub host: HostId,
    pub encrypted: bool,
    pub login: Option<Login>,
    /// Minutes since midnight, local time.
    pub minute: u16,
    pub peer_name: PeerName,
}

/// What is known of the name of the peer's address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PeerName {
    /// It was not asked for; where a rule needs it, it will be.
    #[default]
    NotAsked,
    /// It was asked for, and there was no answer: it may have any name, so every rule that refuses
    /// one refuses it.
    Unknown,
    /// It has none.
    None,
    Is(String),
}

/// Why a name may not be used; the client is not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    Unknown,
    Disabled,
    Host,
    Tls,
    Login,
    User,
    Root,
    Address,
    Hours,
}

const DENIED: [(Denied, &str); 9] = [
    (Denied::Unknown, "unknown"),
    (Denied::Disabled, "disabled"),
    (Denied::Host, "host"),
    (Denied::Tls, "tls"),
    (Denied::Login, "login"),
    (Denied::User, "user"),
    (Denied::Root, "root"),
    (Denied::Address, "address"),
    (Denied::Hours, "hours"),
];

impl Denied {
    pub fn as_str(self) -> &'static str {
        DENIED[self as usize].1
    }

    pub fn number(self) -> u32 {
        self as u32
    }

    pub fn from_number(n: u32) -> Option<Denied> {
        DENIED.get(n as usize).map(|d| d.0)
    }
}

/// `users`: names, `@group`, `!` before either.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Users(pub Vec<Who>);

/// One word of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    pub no: bool,
    pub what: Whom,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whom {
    Name(String),
    /// A group's name, and its number in the table.
    Group(String, usize),
}

impl Users {
    /// Nobody who is refused by a `!`; of the others whoever is named, or everybody where nobody
    /// is.
    pub fn allow(&self, login: &Login) -> bool {
        let is = |w: &Who| match &w.what {
            Whom::Name(n) => *n == login.name,
            Whom::Group(_, i) => login.groups.contains(*i),
        };
        let named = self.0.iter().any(|w| !w.no);
        !self.0.iter().any(|w| w.no && is(w)) && (!named || self.0.iter().any(|w| !w.no && is(w)))
    }

    /// Does it say that root may?
    pub fn name_root(&self) -> bool {
        self.0.iter().any(|w| !w.no && matches!(&w.what, Whom::Name(n) if n == "root"))
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let no = if self.no { "!" } else { "" };
        match &self.what {
            Whom::Name(n) => write!(f, "{no}{n}"),
            Whom::Group(n, _) => write!(f, "{no}@{n}"),
        }
    }
}

/// One span of `access_times`, in minutes since midnight, both ends within it. It may go over
/// midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hours {
    pub from: u16,
    pub to: u16,
}

impl Hours {
    /// Reads `HH:MM-HH:MM`.
    pub fn read(word: &str) -> Option<Hours> {
        let minute = |t: &str| {
            let (h, m) = t.split_once(':')?;
            let n = |t: &str| {
                t.parse::<u16>()
                    .ok()
                    .filter(|_| (1..=2).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_digit()))
            };
            let (h, m) = (n(h)?, n(m)?);
            (h < 24 && m < 60 || h == 24 && m == 0).then_some(h * 60 + m)
        };
        let (from, to) = word.split_once('-')?;
        Some(Hours { from: minute(from)?, to: minute(to)? })
    }

    pub fn contains(self, minute: u16) -> bool {
        if self.from <= self.to {
            (self.from..=self.to).contains(&minute)
        } else {
            minute >= self.from || minute <= self.to
        }
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(
            f,
            "{:02}:{:02}-{:02}:{:02}",
            self.from / 60,
            self.from % 60,
            self.to / 60,
            self.to % 60
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_may_go_over_midnight() {
        let night = Hours::read("22:00-6:30").expect("good");
        assert!(
            night.contains(0)
                && night.contains(1320)
                && night.contains(390)
                && !night.contains(391)
        );
        assert_eq!(night.to_string(), "22:00-06:30");
        for bad in ["25:00-1:00", "1:60-2:00", "1-2", "24:01-1:00", "+1:00-2:00", ""] {
            assert_eq!(Hours::read(bad), None, "{bad}");
        }
    }

    #[test]
    fn who_is_refused_is_refused_whoever_else_allows() {
        let login = |name: &str, group: Option<usize>| {
            let mut groups = GroupSet::default();
            group.into_iter().for_each(|g| groups.insert(g));
            Login { name: name.into(), groups, superuser: false }
        };
        let who = |no, what| Who { no, what };
        let users = Users(vec![
            who(false, Whom::Group("staff".into(), 70)),
            who(true, Whom::Name("eve".into())),
        ]);
        assert!(
            users.allow(&login("ann", Some(70)))
                && !users.allow(&login("ann", None))
                && !users.allow(&login("eve", Some(70)))
        );
        let all_but = Users(vec![who(true, Whom::Name("eve".into()))]);
        assert!(all_but.allow(&login("ann", None)) && !all_but.allow(&login("eve", None)));
    }

    #[test]
    fn numbers_are_words() {
        for (i, (d, _)) in DENIED.iter().enumerate() {
            assert_eq!((d.number(), Denied::from_number(i as u32)), (i as u32, Some(*d)));
        }
    }
}
