//! fived: a session layer for today's Internet. This page is the map.
//!
//! > A stranger's bytes are read only by a process that can do nothing; the process that can do
//! > everything reads only orders of one fixed size.
//!
//! # Processes
//!
//! One program has several roles, and `argv[0]` says which. Each role is a process of its own with
//! a fresh address space (fork and exec, never fork alone):
//!
//! | role | side | rights | reads |
//! |---|---|---|---|
//! | `fived` | [`parent`] | root | its configuration, orders of fixed size, signals |
//! | `fived-net` | [`net`] | own user, empty root, no capabilities, system call filter | everything that strangers send |
//! | `fived-keys` | [`keys`] | root without capabilities, empty root, a shorter filter | the private keys, texts to sign from the parent |
//! | `fived-login` | [`login`] | root until it has what it needs, then the helpers' user | one name, one password or signature |
//! | `fived-terminal` | [`internal::terminal`] | the helpers' user, empty root, a shorter filter | what it copies: one service's bytes |
//! | `fived-service` | [`internal`] | the row's user | its own connection |
//! | the same, for look-ups | [`internal`] | the helpers' user; root's where it examines rows' programs | a name, an address, a user, a path to look up ([`wire::lookups`]) |
//!
//! # The way of a request
//!
//! | # | stage | where | takes → gives |
//! |---|---|---|---|
//! | 1 | accept | `net::waiting` | listener → waiting client |
//! | 2 | request | `net::request` (`wire` parses) | bytes → a name, decided by the parent's rules |
//! | 3 | built-in, or order | `net::builtins`, [`wire::orders`] | name → a changed session, or `Start` |
//! | 4 | decision | `parent::pipeline`, `policy::Limits::permit` | `Arrival` → `Permit` or `Refusal` |
//! | 5 | deliver | `parent::backend`, `parent::services` | `Permit`, by value → a running service |
//! | 6 | relay | `link::{pump, copy}`, sessions only | two ends → a tally |
//! | 7 | reap, log | `parent::reaping`, `parent::lines` | an exit → one line |
//!
//! Net decides first, so that the answer to a hidden name takes as long as that to an unknown one.
//! The parent decides again from what it knows itself, and only its decision starts anything. The
//! client's own socket goes with the order: when a plain service begins no process of fived that
//! serves others has its connection any more (`sys::spawn::slot`, [`sys::gauges`]), so that none
//! can be kept from going on by what the service does with it. Of a service that ran already
//! (`parent::relays::redirect`) the parent makes the connection and hands both ends back to net,
//! where a few threads copy (`net::relays`). The parent makes the connection of a service that is
//! relayed (`parent::backend::socket_pairs`): it knows the client's address itself, and net must
//! not be able to connect. A session has a thread while it has something to do; between two
//! requests, and while nothing moves between it and its service, it is parked (`net::parked`), and
//! one thread waits for all parked ones. The new process writes `+Go` when nothing but exec is left
//! to do. Meanwhile the parent serves the next order (`sys::spawn::PendingStart`), so a start that
//! hangs before its exec holds up no other. While services start often, the process of the next one
//! is made in advance (`sys::spawn::spare`). Calls that a service could make wait for as long as it
//! likes are made by processes beside the parent that share its memory, and for which nobody waits
//! (`sys::side_process`). Likewise each terminal has a process of its own, and net has the other
//! end of that one's connection ([`internal::terminal`]).
//!
//! # The client
//!
//! `five` is the other program; [`client`] has its own map. The `five` that a user calls opens a
//! session, or finds the process that holds one open. That holder is a fork of the process that
//! opened the session, and copies between the session's streams and the descriptors that later
//! calls of `five` hand over. [`link`] is what it shares with net: a connection on which nothing
//! waits, and copying over it.
//!
//! # Who may import whom
//!
//! | from ↓ may use → | wire | policy | sys | log | link | login | crates |
//! |---|---|---|---|---|---|---|---|
//! | [`wire`] | · | | | | | | base64 |
//! | [`policy`] | ✓ | · | | | | | ipnet |
//! | [`sys`] | | | · | | | | libc, nix, seccompiler, syscalls |
//! | [`log`] | ✓ | | ✓ | · | | | env_logger |
//! | [`link`] | ✓ | | ✓ | | · | | rustls |
//! | [`login`] | ✓ | | ✓ | ✓ | | · | ring, base64 |
//! | [`internal`] | ✓ | | ✓ | | | | |
//! | [`keys`] | ✓ | | ✓ | ✓ | | | rustls, ring |
//! | [`parent`] | ✓ | ✓ | ✓ | ✓ | | ✓ | mio, getopts, rcgen, ring, rustls (certificates), base64, zeroize |
//! | [`net`] | ✓ | ✓ | ✓ | ✓ | ✓ | | mio, rustls, ring, base64 |
//! | [`client`] | ✓ | | ✓ | | ✓ | | getopts, rustls, rustls-native-certs, ring, base64, zeroize |
//!
//! `tests/layers.rs` holds the sources to this table, which permits nothing that no file needs. The
//! macros of the crate log are everybody's. `unsafe` is in [`sys`] alone.

pub mod client;
pub mod internal;
pub mod keys;
pub mod link;
pub mod log;
pub mod login;
pub mod net;
pub mod parent;
pub mod policy;
pub mod sys;
pub mod wire;
