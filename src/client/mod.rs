//! five: the session client (five(1)). "Your computer connects with another computer; your
//! applications use that session just as they do today."
//!
//! ```text
//! application <-> five <== one session ==> fived <-> service
//! ```
//!
//! The process that a person starts reads the options and the configuration, finds the session's
//! holder or opens a session, hands its standard input and output to the holder, and waits until
//! the holder reports how the call ended. It sends nothing to a server that is not trusted. It
//! forks while it has only one thread; the holder is the fork that has the session.
//!
//! | file | what it has |
//! |---|---|
//! | `options`, `config`, `target` | the command line, the configuration, and both put together |
//! | `syntax`, `hop` | how names, places, pins, comments and ways through gates are written |
//! | `paths` | where five keeps its files and sockets |
//! | `error`, `messages` | what can go wrong; what is printed on standard error |
//! | `dial`, `gate`, `server` | the connection, and one through another server; TLS on it, and the dialogue before the first service |
//! | `trust`, `known_hosts` | whether this is the server that was meant |
//! | `keys`, `keygen`, `login`, `open` | keys and agents; signatures by ssh-keygen; logging in; the whole way to a session |
//! | `resume` | how a session that has lost its connection goes on |
//! | `channel`, `rendezvous`, `holder` | one session for all calls, and the process that has it |
//! | `request`, `call`, `caller`, `turn`, `conversation` | calls on it, and how they are made with its holder |
//! | `ended`, `stdio`, `forward` | how a call ends; whose it is: this process's, or an application's |
//! | `kept` | the session that five -N keeps |
//! | `offer`, `offering` | services that this computer serves (-R) |
//! | `terminal`, `escapes` | a terminal for the service: whether it is asked for, raw mode, job control; what is typed for five itself |
//! | `serve`, `list`, `order` | what the command line asks for: a service, a list, `-O` |
//! | `plain` | RFC 1078 alone (`--plain`, and servers on this computer that know nothing else) |

mod call;
mod caller;
mod channel;
mod config;
mod conversation;
mod dial;
mod ended;
pub mod error;
mod escapes;
mod forward;
mod gate;
mod holder;
mod hop;
mod kept;
mod keygen;
mod keys;
mod known_hosts;
mod list;
mod login;
mod messages;
mod offer;
mod offering;
mod open;
pub mod options;
mod order;
mod paths;
mod plain;
mod rendezvous;
mod request;
mod resume;
mod serve;
mod server;
mod stdio;
mod syntax;
mod target;
mod terminal;
mod trust;
mod turn;

use crate::sys::{process, signal};
use error::Error;
use options::{Options, Wanted};
use std::ffi::OsString;
use target::Target;

/// Runs the program with the words after its name, and returns its exit status.
pub fn main(words: impl Iterator<Item = OsString>) -> i32 {
    process::keep_memory_private();
    signal::reset_child_signal();
    let words = words.map(OsString::into_string).collect::<Result<Vec<_>, _>>();
    // With other bytes in its place a path would be that of another file.
    let words = words.map_err(|w| options::usage(format!("{}: expected UTF-8", w.display())));
    let done = words.and_then(|words| options::read(&words)).and_then(|wanted| match wanted {
        Wanted::Help => stdio::print_answer(&options::help()).map(|()| 0),
        Wanted::Version => {
            stdio::print_answer(concat!("five ", env!("CARGO_PKG_VERSION"), "\n")).map(|()| 0)
        }
        Wanted::Run(o) => {
            messages::set(o.level);
            run(&o)
        }
    });
    done.unwrap_or_else(|error| messages::fail(&error))
}

/// The exit status.
fn run(o: &Options) -> Result<i32, Error> {
    let t = Target::new(o)?;
    if let Some(order) = o.order {
        return order::order(&t, order, o).map(|()| 0);
    }
    let stays = o.only_forward || !o.forwards.is_empty() || !o.offers.is_empty();
    match &o.service {
        None if !stays => list::list(&t, o.plain).map(|()| 0),
        service => serve::serve(&t, o, service.as_deref()),
    }
}
