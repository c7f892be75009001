//! Rights of root that may be missing (capabilities(7)): in a container, or if the service manager
//! removed them.

use super::check;
use std::fs;
use std::io;
use std::ops::RangeInclusive;

/// A right that fived uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Right {
    number: u32,
    pub name: &'static str,
    /// What does not work without it.
    pub without: &'static str,
    /// Without it root cannot serve at all.
    pub vital: bool,
}

impl Right {
    /// Is it needed to make or to set up a network namespace?
    pub fn makes_namespaces(&self) -> bool {
        matches!(self.number, SYS_ADMIN | NET_ADMIN | NET_BIND_SERVICE)
    }
}

const NET_BIND_SERVICE: u32 = 10;
const NET_ADMIN: u32 = 12;
const SYS_ADMIN: u32 = 21;

const RIGHTS: [Right; 7] = [
    Right {
        number: 7,
        name: "CAP_SETUID",
        without: "root cannot become any other user",
        vital: true,
    },
    Right { number: 6, name: "CAP_SETGID", without: "root cannot give up its groups", vital: true },
    Right {
        number: 18,
        name: "CAP_SYS_CHROOT",
        without: "the network process has no empty root directory, only its filter of system calls; rows with chroot fail",
        vital: false,
    },
    Right {
        number: 5,
        name: "CAP_KILL",
        without: "processes of other users cannot be ended: server_timeout does not hold, and a network process that stands still stays",
        vital: false,
    },
    Right {
        number: SYS_ADMIN,
        name: "CAP_SYS_ADMIN",
        without: "network processes have no network namespace of their own, and services of encrypted and multiplexed connections get Unix sockets",
        vital: false,
    },
    Right {
        number: NET_ADMIN,
        name: "CAP_NET_ADMIN",
        without: "services of encrypted and multiplexed connections get Unix sockets",
        vital: false,
    },
    // In a new network namespace net.ipv4.ip_unprivileged_port_start is 1024.
    Right {
        number: NET_BIND_SERVICE,
        name: "CAP_NET_BIND_SERVICE",
        without: "services of encrypted and multiplexed connections get Unix sockets; ports below 1024 need net.ipv4.ip_unprivileged_port_start",
        vital: false,
    },
];

/// The rights that this process lacks. None if it is not root: an ordinary user is not expected to
/// have them.
pub fn missing() -> io::Result<Vec<Right>> {
    const VERSION: u32 = 0x2008_0522;
    if !nix::unistd::geteuid().is_root() {
        return Ok(Vec::new());
    }
    let header = [VERSION, 0];
    // effective, permitted, inheritable, twice
    let mut sets = [0u32; 6];
    // SAFETY: the kernel reads a header of two words (this thread) and writes six words of sets.
    check(unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr()) }
        as libc::c_int)?;
    let has = |r: &Right| sets[3 * (r.number / 32) as usize] >> (r.number % 32) & 1 == 1;
    Ok(RIGHTS.into_iter().filter(|r| !has(r)).collect())
}

/// What the user namespace of this process does not let root do (user_namespaces(7)), so that it
/// can start nothing: drop its groups, or become one of the users `own`. None: it does, or there is
/// no /proc to say so.
pub fn namespace_lacks(own: &RangeInclusive<u32>) -> Option<String> {
    let of_this = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).ok();
    if !nix::unistd::geteuid().is_root() {
        return None;
    }
    if of_this("setgroups").is_some_and(|s| s.trim() == "deny") {
        return Some("it does not allow setgroups(2)".into());
    }
    let (first, last) = (own.start(), own.end());
    ["uid_map", "gid_map"].into_iter().find_map(|name| {
        let text = of_this(name)?;
        let all = maps(&text, *first) && maps(&text, *last);
        (!all).then(|| {
            format!("{name} does not have {first} to {last}, which fived's own processes need")
        })
    })
}

/// Is that id one of those inside? Each line is the first id inside, the first outside, and how
/// many.
fn maps(text: &str, id: u32) -> bool {
    text.lines().any(|line| {
        let numbers: Vec<u64> = line.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        matches!(numbers[..], [inside, _, n] if (inside..inside + n).contains(&u64::from(id)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_a_namespace() {
        for (text, is) in [
            ("         0          0 4294967295\n", true),
            ("0 100000 65536\n", true),
            ("0 1000 1\n1 100000 65519\n", true),
            ("0 1000 1\n1 100000 65518\n", false),
            ("0 1000 1\n", false),
            ("", false),
        ] {
            assert_eq!(maps(text, 65_519), is, "{text}");
        }
    }

    #[test]
    fn whoever_is_no_root_misses_nothing() {
        let missing = missing().unwrap();
        assert!(nix::unistd::geteuid().is_root() || missing.is_empty());
        assert!(missing.len() <= RIGHTS.len());
    }
}
