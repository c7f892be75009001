//! Questions to the processes that look something up, and their answers, on their standard input
//! and output ([`super::roles`] has the rest of the questions).

use std::net::IpAddr;
use std::str::FromStr;

/// Who a user is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub home: String,
    pub shell: String,
    pub groups: Vec<u32>,
}

impl User {
    /// One line, with NUL between its parts: no part can contain one.
    pub fn encode(&self) -> String {
        let User { name, uid, gid, home, shell, groups } = self;
        let groups: Vec<String> = groups.iter().map(ToString::to_string).collect();
        format!("{name}\0{uid}\0{gid}\0{home}\0{shell}\0{}\n", groups.join(" "))
    }

    /// None: it is not a complete line, or there is no such user.
    pub fn decode(text: &str) -> Option<User> {
        let mut words = text.strip_suffix('\n')?.split('\0');
        let mut word = || words.next().map(ToString::to_string);
        let (name, uid, gid) = (word()?, word()?.parse().ok()?, word()?.parse().ok()?);
        let (home, shell, groups) = (word()?, word()?, word()?);
        let groups = groups.split_ascii_whitespace().map(|g| g.parse().ok());
        Some(User { name, uid, gid, home, shell, groups: groups.collect::<Option<_>>()? })
    }
}

/// What the system's name service is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Entry {
    /// By name or number.
    User(String),
    /// By name or number.
    Group(String),
    Uid(u32),
    Gid(u32),
    /// The port of a name of services(5).
    Port {
        name: String,
        /// `tcp` or `udp`.
        protocol: String,
    },
}

/// The byte at the end of each question.
pub const QUESTION_END: u8 = 0;

impl Entry {
    /// A question. It is answered by a line: a user as [`User::encode`] has it, a group and a port
    /// by its number; an empty one says that there is none.
    pub fn encode(&self) -> String {
        match self {
            Entry::User(name) => format!("user {name}\0"),
            Entry::Group(name) => format!("group {name}\0"),
            Entry::Uid(uid) => format!("uid {uid}\0"),
            Entry::Gid(gid) => format!("gid {gid}\0"),
            Entry::Port { name, protocol } => format!("{protocol} {name}\0"),
        }
    }

    /// None: it is no such question.
    pub fn decode(text: &str) -> Option<Entry> {
        Some(match text.strip_suffix('\0')?.split_once(' ')? {
            ("user", name) => Entry::User(name.into()),
            ("group", name) => Entry::Group(name.into()),
            ("uid", uid) => Entry::Uid(uid.parse().ok()?),
            ("gid", gid) => Entry::Gid(gid.parse().ok()?),
            (protocol @ ("tcp" | "udp"), name) => {
                Entry::Port { name: name.into(), protocol: protocol.into() }
            }
            _ => return None,
        })
    }
}

/// The number of a group or a port.
pub fn number(n: u32) -> String {
    format!("{n}\n")
}

/// None: there is no such group or port.
pub fn read_number<T: FromStr>(text: &str) -> Option<T> {
    text.trim_end().parse().ok()
}

/// The decision of the rules of hosts_access(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LibwrapAnswer {
    Allowed,
    Denied,
    /// They could not be asked; why.
    Unknown(String),
}

impl LibwrapAnswer {
    pub fn of(allowed: bool) -> LibwrapAnswer {
        if allowed { LibwrapAnswer::Allowed } else { LibwrapAnswer::Denied }
    }

    pub fn encode(&self) -> String {
        match self {
            LibwrapAnswer::Allowed => "allowed\n".into(),
            LibwrapAnswer::Denied => "denied\n".into(),
            LibwrapAnswer::Unknown(why) => wrong(&format!("unknown {why}")),
        }
    }

    /// None: it is not a complete answer.
    pub fn decode(bytes: &[u8]) -> Option<LibwrapAnswer> {
        match std::str::from_utf8(bytes).ok()?.strip_suffix('\n')? {
            "allowed" => Some(LibwrapAnswer::Allowed),
            "denied" => Some(LibwrapAnswer::Denied),
            text => text.strip_prefix("unknown ").map(|why| LibwrapAnswer::Unknown(why.into())),
        }
    }
}

/// What must be at a path that a row names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    Program,
    Directory,
}

const DIRECTORY: &str = "directory";

/// Asks what is wrong with the program or directory at this path, below this root directory (empty:
/// none).
pub fn file(kind: FileKind, root: &str, path: &str) -> String {
    let kind = match kind {
        FileKind::Program => "program",
        FileKind::Directory => DIRECTORY,
    };
    format!("{kind}\0{root}\0{path}\0")
}

/// The files in question: kind, root and path of each.
pub fn read_files(text: &str) -> Vec<(FileKind, &str, &str)> {
    let mut words = text.split('\0');
    let kind = |word| if word == DIRECTORY { FileKind::Directory } else { FileKind::Program };
    let mut next = || Some((words.next().map(kind)?, words.next()?, words.next()?));
    std::iter::from_fn(&mut next).collect()
}

/// What is wrong with one of them; empty: nothing.
pub fn wrong(what: &str) -> String {
    format!("{}\n", what.replace('\n', " "))
}

/// The answers that are complete, in their order.
pub fn read_wrong(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text.split('\n').map(Into::into).collect();
    // What follows the last line end is incomplete.
    lines.pop();
    lines
}

/// Addresses of a host that are used, at most.
const ADDRESSES_MAX: usize = 16;

/// The answer to a look-up of a host: its addresses, one a line.
pub fn addresses(all: impl IntoIterator<Item = IpAddr>) -> String {
    all.into_iter().map(|a| format!("{a}\n")).collect()
}

/// None: it is no such answer.
pub fn read_addresses(text: &str) -> Option<Vec<IpAddr>> {
    text.lines().take(ADDRESSES_MAX).map(|l| l.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_a_whole_answer_is_one() {
        let whole = "demo\x001000\x001001\0/home/demo\0/bin/sh\x001001 27\n";
        let user = User::decode(whole).expect("a user");
        assert_eq!((user.uid, user.gid, &user.groups[..]), (1000, 1001, &[1001, 27][..]));
        assert_eq!(user.encode(), whole);
        for cut in 0..whole.len() {
            assert!(User::decode(&whole[..cut]).is_none(), "{cut}");
        }
        assert_eq!((read_number(&number(27)), read_number::<u32>("")), (Some(27), None));
    }

    #[test]
    fn a_question_for_an_entry_comes_back() {
        let port = |p: &str| Entry::Port { name: "x y".into(), protocol: p.into() };
        let names = [Entry::User("a b".into()), Entry::Group("1".into())];
        let numbers = [Entry::Uid(2), Entry::Gid(3)];
        for entry in names.into_iter().chain(numbers).chain([port("tcp"), port("udp")]) {
            assert_eq!(Entry::decode(&entry.encode()), Some(entry));
        }
        for text in ["", "uid x\0", "user a", "sctp http\0"] {
            assert_eq!(Entry::decode(text), None, "{text}");
        }
    }

    #[test]
    fn a_verdict_is_one_of_three_whole_lines() {
        for v in [
            LibwrapAnswer::Allowed,
            LibwrapAnswer::Denied,
            LibwrapAnswer::Unknown("a reason".into()),
        ] {
            let whole = v.encode();
            assert_eq!(LibwrapAnswer::decode(whole.as_bytes()), Some(v));
            for cut in 0..whole.len() {
                assert_eq!(LibwrapAnswer::decode(&whole.as_bytes()[..cut]), None);
            }
        }
        assert_eq!(LibwrapAnswer::decode(b"allowed\nallowed\n"), None);
    }

    #[test]
    fn programs_are_answered_in_their_order() {
        use FileKind::{Directory, Program};
        let asked = [file(Program, "", "/bin/true"), file(Directory, "/srv", "/x y")].concat();
        let all = [(Program, "", "/bin/true"), (Directory, "/srv", "/x y")];
        assert_eq!(read_files(&asked), all);
        assert_eq!(read_files(""), []);
        let answers = [wrong(""), wrong("not\nthere"), "in pa".into()].concat();
        assert_eq!(read_wrong(&answers), ["", "not there"]);
    }

    proptest! {
        #[test]
        fn what_any_text_says_comes_back(
            text in "([a-z]{1,6}|user|uid|tcp|unknown|[0-9]{1,11}|::1|[ \\x00\n./-]){0,14}[\\x00\n]?",
        ) {
            if let Some(user) = User::decode(&text) {
                let again = User::decode(&user.encode());
                prop_assert_eq!(again, Some(user));
            }
            if let Some(entry) = Entry::decode(&text) {
                let again = Entry::decode(&entry.encode());
                prop_assert_eq!(again, Some(entry));
            }
            if let Some(answer) = LibwrapAnswer::decode(text.as_bytes()) {
                let again = LibwrapAnswer::decode(answer.encode().as_bytes());
                prop_assert!(text.contains("unknown") || again == Some(answer));
            }
            if let Some(all) = read_addresses(&text) {
                prop_assert!(all.len() <= ADDRESSES_MAX);
                prop_assert_eq!(read_addresses(&addresses(all.iter().copied())), Some(all));
            }
            let files = read_files(&text);
            let asked = files.iter().map(|(kind, root, path)| file(*kind, root, path));
            let asked: String = asked.collect();
            prop_assert_eq!(read_files(&asked), files);
            let lines = read_wrong(&text);
            prop_assert_eq!(lines.len(), text.matches('\n').count());
        }
    }
}
