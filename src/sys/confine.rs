//! How a process gives up its rights for good, before it reads a byte that a stranger sent.
//!
//! [`net`] is for the process that strangers talk to: its own user, an empty root directory, no
//! capabilities, no new privileges, no core dump, no debugger, and a system call filter that leaves
//! it sockets, threads and memory. [`keys`] is for the process that has the private keys; its
//! filter allows less, as that of [`terminal`] does, for the process of a terminal. [`login`] is
//! for a process that reads a user's own files, [`helper`] for one that looks something up. If a
//! step fails, the process must end. Call these functions before the first thread is made.

mod filter;
mod login;
mod signer;
mod terminal;

#[cfg(test)]
pub(super) use filter::refuse;

use super::identity::{self, Identity};
use super::{check, clock, prctl};
use nix::sys::resource::{Resource, setrlimit};
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// What the confinement achieved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confined {
    /// It has a user of its own and an empty root directory. False if an ordinary user started it.
    pub apart: bool,
    /// It has a network namespace of its own, that leads nowhere. False without the right to make
    /// one (CAP_SYS_ADMIN).
    pub unconnected: bool,
    /// System calls are filtered. False if the kernel or this architecture has no filters.
    pub filtered: bool,
}

/// The step that failed, and why.
#[derive(Debug)]
pub struct ConfineError {
    pub step: &'static str,
    pub source: io::Error,
}

impl fmt::Display for ConfineError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "confinement: {}: {}", self.step, self.source)
    }
}

impl std::error::Error for ConfineError {}

fn at<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> ConfineError {
    move |e| ConfineError { step, source: e.into() }
}

/// Confines the process that strangers talk to. A process of root becomes `user` (uid, gid),
/// without supplementary groups. None: it keeps its user, and is confined as far as an ordinary
/// user can be. The time zone is loaded first, because its file cannot be opened afterwards.
pub fn net(user: Option<(u32, u32)>) -> Result<Confined, ConfineError> {
    clock::load_zone();
    let (mut rooted, mut unconnected) = (true, false);
    if let Some((uid, gid)) = user {
        // Sockets that it is given stay in their own namespace; one that it made itself would reach
        // nobody.
        unconnected = has_no_network();
        rooted = has_empty_root()?;
        drop_bounding_set()?;
        become_user(uid, gid)?;
    }
    drop_capabilities()?;
    close_up()?;
    let filtered = filter::apply().map_err(at("system call filter"))?;
    confined(rooted, filtered)?;
    Ok(Confined { apart: user.is_some() && rooted, unconnected, filtered })
}

/// Without an empty root and without a filter, nothing would keep the process from this computer's
/// files.
fn confined(rooted: bool, filtered: bool) -> Result<(), ConfineError> {
    if rooted || filtered {
        Ok(())
    } else {
        Err(at("chroot")(io::Error::from_raw_os_error(libc::EPERM)))
    }
}

/// Confines the process that has the private keys. A process of root stays root, so that nobody
/// else may signal it, but without root's capabilities and in an empty directory.
pub fn keys() -> Result<Confined, ConfineError> {
    let apart = identity::effective_uid() == 0;
    let unconnected = apart && has_no_network();
    let mut rooted = true;
    if apart {
        rooted = has_empty_root()?;
        drop_bounding_set()?;
        become_user(0, 0)?;
    }
    drop_capabilities()?;
    close_up()?;
    let filtered = signer::apply().map_err(at("system call filter"))?;
    confined(rooted, filtered)?;
    Ok(Confined { apart: apart && rooted, unconnected, filtered })
}

/// Confines the process of a service's terminal, which becomes this user (uid, gid; no
/// supplementary groups). None: it keeps its user, which is an ordinary one.
pub fn terminal(user: Option<(u32, u32)>) -> Result<(), ConfineError> {
    let mut rooted = true;
    if let Some((uid, gid)) = user {
        rooted = has_empty_root()?;
        drop_bounding_set()?;
        become_user(uid, gid)?;
    }
    drop_capabilities()?;
    close_up()?;
    confined(rooted, terminal::apply().map_err(at("system call filter"))?)
}

/// Moves this process into an empty network namespace of its own. False: it may not make one, or
/// the kernel has none.
fn has_no_network() -> bool {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).is_ok()
}

/// Becomes a user (uid, gid; no supplementary groups) who can gain no rights, so that files are
/// read with that user's rights alone. An ordinary user can only stay the same user.
pub fn login(uid: u32, gid: u32) -> Result<(), ConfineError> {
    let ours = identity::current().map_err(at("user"))?;
    if ours.uid == 0 {
        become_user(uid, gid)?;
    } else if ours.uid != uid {
        return Err(at("user")(io::Error::from_raw_os_error(libc::EPERM)));
    }
    drop_capabilities()?;
    close_up()
}

/// Becomes the user (uid, gid; no supplementary groups) of the processes that look something up.
/// Other processes of that user cannot trace it, nor reach its memory or descriptors: while it is
/// root they may not, and then it is not dumpable (ptrace(2)). Nor can it signal them, or any other
/// process but those that it starts. It has a session keyring of its own.
pub fn helper(uid: u32, gid: u32) -> Result<(), ConfineError> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    let none = std::ptr::null::<libc::c_char>();
    // SAFETY: a keyring without a name. A kernel without keyrings has none to keep apart.
    let _ = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, none) };
    prctl(libc::PR_SET_DUMPABLE, 0).map_err(at("dumpable"))?;
    // An older kernel has no such rules.
    if let Ok(rules) = own_signals() {
        // SAFETY: no memory is handed over.
        let done = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0) };
        check(done as libc::c_int).map_err(at("signals"))?;
    }
    become_user(uid, gid)?;
    prctl(libc::PR_SET_DUMPABLE, 0).map_err(at("dumpable"))
}

/// Rules by which signals reach only processes that have them, too (landlock(7), Linux 6.12).
fn own_signals() -> io::Result<OwnedFd> {
    /// linux/landlock.h
    const LANDLOCK_SCOPE_SIGNAL: u64 = 1 << 1;
    // Nothing about files or the network.
    let scoped: [u64; 3] = [0, 0, LANDLOCK_SCOPE_SIGNAL];
    let (rules, size) = (scoped.as_ptr(), size_of_val(&scoped));
    // SAFETY: so many bytes are read.
    let made = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, rules, size, 0) };
    // SAFETY: it was just made and is nobody else's.
    check(made as libc::c_int).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Gives this process an empty root directory. False: root lacks the right (CAP_SYS_CHROOT).
fn has_empty_root() -> Result<bool, ConfineError> {
    match empty_root() {
        Ok(()) => Ok(true),
        Err(e) if e.step == "chroot" && e.source.raw_os_error() == Some(libc::EPERM) => Ok(false),
        Err(e) => Err(e),
    }
}

/// From now on this process only computes and answers (hashes, signatures): it cannot open a file,
/// connect, or start a program. To be called after [`login`], or by an ordinary user instead of it.
/// The time zone is loaded first, because its file cannot be opened afterwards.
pub fn answer_only() -> Result<(), ConfineError> {
    clock::load_zone();
    login::answer_only().map(drop).map_err(at("system call filter"))
}

/// For a process of root that runs code which is not fived's (PAM modules, a checkpassword
/// program): forbids what no login needs, such as tracing, mounts, and the kernel's modules and
/// keys. An ordinary user's process is left as it is, because its programs may have to gain rights
/// by exec.
pub fn foreign_code() -> Result<(), ConfineError> {
    if identity::effective_uid() != 0 {
        return Ok(());
    }
    match login::without_what_no_login_needs(true) {
        // Root without CAP_SYS_ADMIN may install a filter only if no program can gain rights by
        // exec.
        Err(e) if e.raw_os_error() == Some(libc::EACCES) => {
            login::without_what_no_login_needs(false)
        }
        done => done,
    }
    .map(drop)
    .map_err(at("system call filter"))
}

/// Where an empty directory is made, if one of them can be written.
const WRITABLE: [&str; 3] = ["/run", "/tmp", "/dev/shm"];

/// Makes an empty directory the root. It has no name any more, so nobody can put anything into it.
fn empty_root() -> Result<(), ConfineError> {
    let mut made =
        WRITABLE.iter().map(|at| nix::unistd::mkdtemp(format!("{at}/fived.XXXXXX").as_str()));
    match made.find_map(Result::ok) {
        Some(path) => {
            let entered = nix::unistd::chdir(&path);
            std::fs::remove_dir(&path).map_err(at("empty directory"))?;
            entered.map_err(at("empty directory"))?;
        }
        None => empty_file_system().map_err(at("empty directory"))?,
    }
    nix::unistd::chroot(".").map_err(at("chroot"))?;
    nix::unistd::chdir("/").map_err(at("chroot"))
}

/// Where nothing can be written: enters an empty file system, which only this process sees, and
/// which nobody can write either. (The directory that it covers is any that is there.) The mounts
/// of this computer follow what is mounted and unmounted elsewhere, so that nothing is kept in use.
fn empty_file_system() -> nix::Result<()> {
    use nix::mount::{MsFlags, mount};
    const COVERED: &str = "/dev";
    let none = None::<&str>;
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
    mount(none, "/", none, MsFlags::MS_SLAVE | MsFlags::MS_REC, none)?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOEXEC | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("none"), COVERED, Some("tmpfs"), flags, Some("size=4k"))?;
    nix::unistd::chdir(COVERED)
}

fn become_user(uid: u32, gid: u32) -> Result<(), ConfineError> {
    let groups = Vec::new();
    identity::assume(&Identity { uid, gid, groups }).map_err(at("user"))
}

/// Capabilities are numbered without a gap; the kernel says EINVAL after the last. A process
/// without CAP_SETPCAP cannot drop them, and need not: with no new privileges the set is never
/// used.
fn drop_bounding_set() -> Result<(), ConfineError> {
    for capability in 0..64 {
        match prctl(libc::PR_CAPBSET_DROP, capability) {
            Ok(()) => {}
            Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::EPERM)) => break,
            Err(e) => return Err(at("bounding set")(e)),
        }
    }
    Ok(())
}

/// capset(2), version 3: 64 capabilities in two halves; read back.
fn drop_capabilities() -> Result<(), ConfineError> {
    const VERSION: u32 = 0x2008_0522;
    let header = [VERSION, 0];
    // effective, permitted, inheritable, twice
    let mut sets = [0u32; 6];
    let h = header.as_ptr();
    // SAFETY: the kernel reads a header of two words (this thread) and six words of sets.
    let set = unsafe { libc::syscall(libc::SYS_capset, h, sets.as_ptr()) };
    check(set as libc::c_int).map_err(at("capabilities"))?;
    sets = [!0; 6];
    // SAFETY: the same, written.
    let got = unsafe { libc::syscall(libc::SYS_capget, h, sets.as_mut_ptr()) };
    check(got as libc::c_int).map_err(at("capabilities"))?;
    if sets != [0; 6] {
        return Err(at("capabilities")(io::Error::from_raw_os_error(libc::EPERM)));
    }
    Ok(())
}

/// No new privileges by exec; no core, no debugger of the same user (prctl(2), PR_SET_DUMPABLE).
fn close_up() -> Result<(), ConfineError> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1).map_err(at("no new privileges"))?;
    prctl(libc::PR_SET_DUMPABLE, 0).map_err(at("dumpable"))?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(at("core"))
}

#[cfg(test)]
mod tests;
