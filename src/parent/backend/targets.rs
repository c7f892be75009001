//! Which of a row's upstreams are tried, and in which order.

use crate::policy::Upstream;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// How long an upstream that has refused a connection is tried after all others.
const LAST_FOR: Duration = Duration::from_secs(5);

/// What is connected to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    Tcp(SocketAddr),
    Unix(String),
    /// A session that offers the service, by its number.
    Offer(u64),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Target::Tcp(address) => address.fmt(f),
            Target::Unix(path) => f.write_str(path),
            Target::Offer(session) => session.fmt(f),
        }
    }
}

/// The targets that have lately refused a connection, and until when that counts.
#[derive(Default)]
pub struct Failed(HashMap<Target, Duration>);

impl Failed {
    /// This target has refused a connection.
    pub fn add(&mut self, target: Target, now: Duration) {
        self.0.insert(target, now + LAST_FOR);
    }

    /// This target has accepted a connection.
    pub fn remove(&mut self, target: &Target) {
        if !self.0.is_empty() {
            self.0.remove(target);
        }
    }

    fn has(&self, target: &Target, now: Duration) -> bool {
        self.0.get(target).is_some_and(|until| *until > now)
    }

    /// Forgets what no longer counts.
    pub fn tidy(&mut self, now: Duration) {
        self.0.retain(|_, until| *until > now);
    }
}

/// All targets of these upstreams: first those of the upstream whose turn it is, and last those
/// that have lately refused a connection; and the names that have no address.
pub fn targets<'a>(
    upstreams: &'a [Upstream],
    turn: usize,
    addresses: impl Fn(&str) -> Vec<IpAddr>,
    failed: &Failed,
    now: Duration,
) -> (VecDeque<Target>, Vec<&'a str>) {
    let (before, after) = upstreams.split_at(turn % upstreams.len().max(1));
    let (mut first, mut last, mut unknown) = (VecDeque::new(), VecDeque::new(), Vec::new());
    let mut add = |target: Target| match failed.has(&target, now) {
        true => last.push_back(target),
        false => first.push_back(target),
    };
    for upstream in after.iter().chain(before) {
        match upstream {
            Upstream::Address(ip, port) => add(Target::Tcp(SocketAddr::new(*ip, *port))),
            Upstream::Unix(path) => add(Target::Unix(path.clone())),
            Upstream::Name(name, port) => {
                let all = addresses(name);
                if all.is_empty() {
                    unknown.push(name.as_str());
                }
                all.into_iter().for_each(|ip| add(Target::Tcp(SocketAddr::new(ip, *port))));
            }
        }
    }
    first.append(&mut last);
    (first, unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_take_turns_and_those_that_failed_come_last() {
        let read = |w: &str| Upstream::read(w).expect("an upstream");
        let all = ["192.0.2.1:1", "two:2", "/three", "nowhere:4"].map(read);
        let addresses = |name: &str| match name {
            "two" => vec![[192, 0, 2, 2].into(), [192, 0, 2, 22].into()],
            _ => vec![],
        };
        let mut failed = Failed::default();
        let now = Duration::from_secs(100);
        let order = |failed: &Failed, turn: usize, now: Duration| {
            let (all, unknown) = targets(&all, turn, addresses, failed, now);
            assert_eq!(unknown, ["nowhere"]);
            all.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let (one, two) = ("192.0.2.1:1", ["192.0.2.2:2", "192.0.2.22:2"]);
        assert_eq!(order(&failed, 0, now), [one, two[0], two[1], "/three"]);
        assert_eq!(order(&failed, 5, now), [two[0], two[1], "/three", one]);
        failed.add(Target::Tcp(one.parse().expect("an address")), now);
        failed.add(Target::Unix("/three".into()), now);
        assert_eq!(order(&failed, 4, now), [two[0], two[1], one, "/three"]);
        failed.remove(&Target::Unix("/three".into()));
        assert_eq!(order(&failed, 2, now), ["/three", two[0], two[1], one]);
        assert_eq!(order(&failed, 0, now + LAST_FOR), [one, two[0], two[1], "/three"]);
        failed.tidy(now + LAST_FOR);
        assert!(failed.0.is_empty());
    }
}
