//! The internal services: small programs of fived's own. Each runs as a process, like any other
//! service, on its own connection.
//!
//! They read their connection from descriptor 0 and write to descriptor 1, use only [`crate::wire`]
//! and [`crate::sys`] of fived, and end when the client does.
//!
//! | file | noun |
//! |---|---|
//! | `mod.rs` | services of connections, and what fived's own look-ups run as |
//! | `datagrams` | the same services as rows of `dgram` |
//! | `http` | the service `metrics`: one request of HTTP |
//! | `terminal` | no service, but what serves the terminal of one |
//! | `rfcs` | what the RFCs say of their answers |

mod datagrams;
pub mod http;
mod rfcs;
pub mod terminal;

use crate::sys::libwrap::{self, Libwrap};
use crate::sys::{
    clock, confine, identity, inherit, memfd, message, port, process, program, resolve,
};
use crate::wire::internal::Internal;
use crate::wire::lookups::{self, Entry, FileKind, LibwrapAnswer};
use crate::wire::roles::{self, LookUp};
use rfcs::{LINE, PRINTABLE, time};
use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::time::Duration;

/// How long a look-up may take.
const LOOK_UP: Duration = Duration::from_secs(5);

/// Runs the service that the first word names. Returns the exit status: 111 if there is no such
/// service, or if the connection fails; a client that closes it is no failure.
pub fn main(words: &[String]) -> i32 {
    let role = words.first().map_or("", String::as_str);
    if Internal::named(role).is_none() && become_helper().is_err() {
        return 111;
    }
    let done = match (Internal::named(role), role) {
        (Some(service), _) if datagrams::are_served() => match words.get(1) {
            None => datagrams::serve(service),
            Some(most) => datagrams::serve_one_sender(service, most.parse().unwrap_or(1)),
        },
        (Some(Internal::Echo), _) => echo(),
        (Some(Internal::Discard), _) => discard(),
        (Some(Internal::Chargen), _) => chargen(),
        (Some(Internal::Daytime), _) => print(format!("{}\r\n", clock::daytime()).as_bytes()),
        (Some(Internal::Time), _) => print(&time().to_be_bytes()),
        (Some(Internal::Status), _) => status(),
        (Some(Internal::Metrics), _) => metrics(),
        (None, roles::NAME) => name(),
        (None, roles::HOST) => host(),
        (None, roles::PROGRAMS) => programs(),
        (None, roles::ACCOUNT) => account(),
        (None, roles::ENTRIES) => entries(),
        (None, roles::LIBWRAP) => ask_libwrap(),
        (None, _) => return 111,
    };
    match done {
        Ok(()) => 0,
        Err(e) if matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => 0,
        Err(_) => 111,
    }
}

/// Of a look-up: it ends with the parent, and becomes the user that all of them have. Whom an
/// answer of a name server has taken over must not change what others answer: who a user is, say.
fn become_helper() -> Result<(), String> {
    if let Some((uid, gid)) = roles::helper(inherit::variable)? {
        confine::helper(uid, gid).map_err(|e| e.to_string())?;
    }
    // A name service may never answer.
    process::end_with_parent().map_err(|e| e.to_string())
}

fn print(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// RFC 862.
fn echo() -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    let mut input = io::stdin().lock();
    loop {
        let n = match input.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => n,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        print(&buffer[..n])?;
    }
}

/// RFC 863.
fn discard() -> io::Result<()> {
    io::copy(&mut io::stdin().lock(), &mut io::sink()).map(drop)
}

/// RFC 864: lines of 72 characters, each beginning one character further, until the client has
/// enough.
fn chargen() -> io::Result<()> {
    let mut block = Vec::new();
    for first in 0..PRINTABLE {
        block.extend((0..LINE).map(|i| b' ' + (first + i as u8) % PRINTABLE));
        block.extend_from_slice(b"\r\n");
    }
    loop {
        print(&block)?;
    }
}

fn status() -> io::Result<()> {
    print(&told()?)
}

fn metrics() -> io::Result<()> {
    print(&http::answer(&told()?)?)
}

/// What the parent tells about fived, once it has composed it.
fn told() -> io::Result<Vec<u8>> {
    let channel = inherit::take(roles::STATUS)?;
    let (_, mut files) = message::receive_waiting(channel.as_fd(), &mut [0; 1])?;
    let text = files.take().ok_or(ErrorKind::UnexpectedEof)?;
    memfd::read(text.as_fd())
}

/// Not a service: prints the name of an address, for the parent; nothing if it has none.
fn name() -> io::Result<()> {
    end_soon();
    let Some(LookUp::Address(address)) = LookUp::read(inherit::variable) else { return Ok(()) };
    match resolve::name_of(address)? {
        Some(name) => print(name.as_bytes()),
        None => Ok(()),
    }
}

/// Not a service: prints the addresses of a host, for the parent (`parent::lookups::hosts`).
fn host() -> io::Result<()> {
    end_soon();
    let Some(LookUp::Host(name)) = LookUp::read(inherit::variable) else { return Ok(()) };
    print(lookups::addresses(resolve::addresses_of(&name)?).as_bytes())
}

/// A look-up that takes too long ends without an answer.
fn end_soon() {
    std::thread::spawn(|| {
        std::thread::sleep(LOOK_UP);
        std::process::exit(1);
    });
}

/// Not a service: prints what the system knows of a user, or a group's number, for the parent
/// (`parent::lookups::accounts`); nothing if there is none. Err: the name service fails, which is
/// no answer. The parent ends it if it takes too long.
fn account() -> io::Result<()> {
    let entry = match LookUp::read(inherit::variable) {
        Some(LookUp::User(name)) => Entry::User(name),
        Some(LookUp::Uid(uid)) => Entry::Uid(uid),
        Some(LookUp::Group(name)) => Entry::Group(name),
        Some(LookUp::Address(_) | LookUp::Host(_) | LookUp::Libwrap { .. }) | None => return Ok(()),
    };
    print(known_of(&entry)?.unwrap_or_default().as_bytes())
}

/// Not a service: prints what the system knows of whatever the parent asks for, one answer after
/// another (`parent::config::name_service`).
fn entries() -> io::Result<()> {
    for question in io::stdin().lock().split(lookups::QUESTION_END) {
        let mut question = question?;
        question.push(lookups::QUESTION_END);
        let entry = str::from_utf8(&question).ok().and_then(Entry::decode);
        let entry = entry.ok_or(ErrorKind::InvalidData)?;
        // Where the name service fails there is nobody of that name for now (fived.conf(5)).
        let known = known_of(&entry).unwrap_or_default();
        print(known.unwrap_or_else(|| "\n".into()).as_bytes())?;
    }
    Ok(())
}

/// A user, or the number of a group or a port, as one line. Err: about that user the name service
/// fails.
fn known_of(entry: &Entry) -> io::Result<Option<String>> {
    Ok(match entry {
        Entry::User(name) => match identity::by_number(name) {
            None => identity::find(name)?,
            number => identity::lookup(name).or(number),
        }
        .and_then(user),
        Entry::Uid(uid) => identity::find_uid(*uid)?.and_then(user),
        Entry::Group(name) => {
            identity::group(name).or_else(|| identity::number(name)).map(lookups::number)
        }
        Entry::Gid(gid) => identity::is_group(*gid).then(|| lookups::number(*gid)),
        Entry::Port { name, protocol } => {
            port::named(name, protocol).map(|n| lookups::number(n.into()))
        }
    })
}

/// None: it cannot be said in one line.
fn user(u: identity::User) -> Option<String> {
    let groups = identity::groups_of(&u);
    let identity::User { name, uid, gid, home, shell } = u;
    let line = lookups::User { name, uid, gid, home, shell, groups }.encode();
    (line.find('\n') == Some(line.len() - 1)).then_some(line)
}

/// Not a service: asks the rules of hosts_access(5), for the parent
/// (`parent::lookups::hosts_access`), which ends it when it takes too long. Asked about nobody:
/// what is wrong with the rules, if anything is.
fn ask_libwrap() -> io::Result<()> {
    let library = match (Libwrap::open(), libwrap::has_rules()) {
        (_, Err(e)) => Err(e.to_string()),
        (Err(e), Ok(true)) => Err(e),
        (library, Ok(_)) => Ok(library.ok()),
    };
    let answer = match (LookUp::read(inherit::variable), library) {
        (None, wrong) => lookups::wrong(&wrong.err().unwrap_or_default()),
        (Some(_), Err(why)) => LibwrapAnswer::Unknown(why).encode(),
        // There are no rules.
        (Some(_), Ok(None)) => LibwrapAnswer::Allowed.encode(),
        (Some(asked), Ok(Some(library))) => match asked {
            LookUp::Libwrap { daemon, addresses } => {
                let allowed = library.allows(&daemon, addresses);
                allowed.map_or_else(LibwrapAnswer::Unknown, LibwrapAnswer::of).encode()
            }
            LookUp::Address(_)
            | LookUp::Host(_)
            | LookUp::User(_)
            | LookUp::Group(_)
            | LookUp::Uid(_) => String::new(),
        },
    };
    print(answer.as_bytes())
}

/// Not a service: prints what is wrong with each of the programs and directories that the parent
/// names.
fn programs() -> io::Result<()> {
    let mut all = String::new();
    io::stdin().lock().read_to_string(&mut all)?;
    for (kind, root, path) in lookups::read_files(&all) {
        let root = Some(root).filter(|r| !r.is_empty());
        let inspected = match kind {
            FileKind::Program => program::inspect(root, path),
            FileKind::Directory => program::inspect_directory(root, path),
        };
        let wrong = inspected.err().unwrap_or_default();
        print(lookups::wrong(&wrong).as_bytes())?;
    }
    Ok(())
}
