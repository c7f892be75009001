//! A fived of one's own: every test starts the real program on a free port of the loopback, in a
//! directory of its own.
//!
//! Nothing here waits without a bound, and everything that was started is ended and reaped by its
//! process id. Tests run as root and as an ordinary user; what needs more than there is says so and
//! is skipped (`FIVED_NO_SKIP=1` makes that a failure).
//!
//! In a configuration's text `@DIR@` is the test's directory, `@KEYS@` one for files of keys,
//! `@NET@` a network of 256 addresses of the loopback, and `@USER@` somebody whom services may run
//! as.

#![allow(dead_code, unused_imports)] // Each test file uses its own part of this.

mod calls;
mod client;
mod daemon;
pub mod five;
mod free;
pub mod page;
mod place;
pub mod proc;
pub mod signals;
mod trial;

pub use calls::Calls;
pub use client::{Client, connect_from, reset};
pub use daemon::{Builder, Daemon};
pub use five::Five;
pub use free::{free_address, free_port, own_network};
pub use place::{Place, kill_and_wait, nobody_writes, read, run, run_with};
pub use trial::{trial, trial_size};

use std::time::{Duration, Instant};

/// How long anything may take on a busy machine. No test waits for this long unless something is
/// wrong.
pub const TIMEOUT: Duration = Duration::from_secs(60);

pub const GO: &str = "+Go\r\n";
pub const NOT_AVAILABLE: &str = "-Service not available\r\n";
pub const BUSY: &str = "-Service busy\r\n";
pub const FAILED: &str = "-Service failed\r\n";
pub const TOO_LONG: &str = "-Request too long\r\n";
/// What HELP says of the built-ins on a plain connection from the loopback.
pub const BUILTINS: &str = "AUTH\r\nHOST\r\nMULTIPLEX\r\nPUBKEY\r\nRUN\r\nSSL\r\n";

/// A test that cannot be made here says why and goes.
pub fn skip(why: &str) {
    assert!(
        std::env::var_os("FIVED_NO_SKIP").is_none(),
        "skipped, and nothing may be skipped: {why}"
    );
    println!("SKIPPED: {why}");
}

/// A program that the address sanitizer has ended (`make asan`) has failed its test, whatever else
/// the test asks for.
#[track_caller]
pub fn sane(text: &str) {
    assert!(!text.contains("AddressSanitizer"), "a finding of the sanitizer:\n{text}");
}

/// Are we root?
pub fn root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// May we look into the processes of other users, as net is one? Root may not in each container. If
/// not, the test was told to be skipped.
pub fn looks_into_net() -> bool {
    const CAP_SYS_PTRACE: u64 = 1 << 19;
    let rights = proc::status(std::process::id() as i32, "CapEff");
    let rights = u64::from_str_radix(&rights, 16).expect("a mask");
    let may = root() && rights & CAP_SYS_PTRACE != 0;
    if !may {
        skip("needs root with CAP_SYS_PTRACE");
    }
    may
}

/// The same, and may a script do there what a captured net could do?
pub fn takes_net_over() -> bool {
    let can = installed("python3");
    if !can {
        skip("needs python3");
    }
    can && looks_into_net()
}

/// Whom services run as: nobody, or the user who runs the tests.
pub fn user() -> String {
    if root() {
        return "nobody".into();
    }
    let me = nix::unistd::User::from_uid(nix::unistd::geteuid());
    me.expect("passwd").expect("a user with a name").name
}

/// The number of a user without an account, as whom no other test program runs anything.
pub fn user_of_its_own() -> u32 {
    30_000 + std::process::id() % 10_000
}

/// Has this computer addresses of IPv6? If not, the test was told to be skipped.
pub fn has_ipv6() -> bool {
    let there = std::net::TcpListener::bind("[::1]:0").is_ok();
    if !there {
        skip("needs IPv6");
    }
    there
}

/// Is this program installed?
pub fn installed(program: &str) -> bool {
    let found = std::process::Command::new("sh")
        .args(["-c", "command -v \"$0\" >/dev/null", program])
        .status();
    found.is_ok_and(|s| s.success())
}

/// Asks again and again until it is so; panics with `what` when it is not within [`TIMEOUT`].
pub fn until(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + TIMEOUT;
    while !so() {
        assert!(Instant::now() < end, "not within {TIMEOUT:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until somebody listens at this path: the file is there a moment before.
pub fn until_listened_at(path: &str) {
    until(path, || std::os::unix::net::UnixStream::connect(path).is_ok());
}

/// The lines of a password file: these users, each with the password `demopass`.
pub fn passwords(names: &[&str]) -> String {
    const HASH: &str = "$5$fivedtest$aF7TYyX/okCSYkmpkB7BUyLsCpQnzMOh36YizxX91R.";
    names.iter().map(|name| format!("{name}:{HASH}\n")).collect()
}

/// Compares bytes so that a person can read the difference.
#[track_caller]
pub fn same(got: impl AsRef<[u8]>, wanted: impl AsRef<[u8]>) {
    let text = |b: &[u8]| b.escape_ascii().to_string();
    assert_eq!(text(got.as_ref()), text(wanted.as_ref()));
}

/// Lets this process have `n` descriptors; false where it may not.
pub fn descriptors(n: u64) -> bool {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("getrlimit");
    soft >= n || hard >= n && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok()
}
