//! The program, tried before the client is greeted: the child asks the kernel all that exec will
//! ask. As everything between clone and exec, this makes raw system calls and nothing else (see
//! `child`).

use super::failure::{Fault, Stage, Step, step};
use super::launch::Launch;
use super::tried::Tried;
use crate::sys::program::{self, Bytes, Needs};
use std::ffi::{CStr, c_int};
use syscalls::{Errno, Sysno, syscall};

/// Tries the program, unless it is the one that passed the last time. True: it was tried now.
pub(super) fn try_if_changed(l: &Launch, groups: &[u32], tried: &Tried) -> Result<bool, Fault> {
    let mark = mark(l, groups);
    if tried.has(mark) {
        return Ok(false);
    }
    if try_program(l)? {
        tried.set(mark);
    }
    Ok(true)
}

/// The program's file and this process's identity, hashed. 0: the file cannot be looked at.
fn mark(l: &Launch, groups: &[u32]) -> u64 {
    let (call, at, mask) = (Sysno::statx, libc::AT_FDCWD, libc::STATX_BASIC_STATS);
    // SAFETY: all zeros is a valid struct statx.
    let mut file: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: a C string; one struct statx is written.
    if unsafe { syscall!(call, at, l.program.as_ptr(), 0, mask, &raw mut file) }.is_err() {
        return 0;
    }
    let device = u64::from(file.stx_dev_major) << 32 | u64::from(file.stx_dev_minor);
    let changed = (file.stx_ctime.tv_sec as u64, u64::from(file.stx_ctime.tv_nsec));
    // Two changes within one tick of the clock have one time.
    let (mode, size) = (u64::from(file.stx_mode), file.stx_size);
    let ids = l.identity.map_or(0, |i| 1 + (u64::from(i.uid) << 32 | u64::from(i.gid)));
    let numbers = [device, file.stx_ino, changed.0, changed.1, mode, size, ids];
    let all = numbers.into_iter().chain(groups.iter().map(|g| u64::from(*g)));
    // FNV-1a with words for bytes: whoever makes two files hash alike has gained a greeting.
    all.fold(0xcbf2_9ce4_8422_2325u64, |h, n| {
        let mixed = (h ^ n).wrapping_mul(0x0000_0100_0000_01b3);
        mixed ^ mixed >> 29
    })
}

/// Asks all that exec will ask, of the program and of what runs it. Whatever hangs here hangs in
/// this process alone, which is killed then. True: the answer depends on this file alone, or on a
/// loader besides.
fn try_program(l: &Launch) -> Result<bool, Fault> {
    let mut buffer = [0; program::BUFFER];
    let mut next = None;
    for _ in 0..=program::DEPTH {
        let stage = if next.is_none() { Stage::Check } else { Stage::Interpreter };
        let wrong = |errno: i32| Fault { stage, errno };
        let path = match next {
            None => l.program,
            Some(at) => program::path(&buffer, at).map_err(wrong)?,
        };
        // First, for it does not wait for who holds a lease on it.
        let file = open(path);
        if matches!(file, Err(Errno::EAGAIN)) {
            return Err(wrong(libc::EBUSY));
        }
        executable(l, path, stage)?;
        let file = match file {
            // It may be run and not be read: exec will tell the rest.
            Err(Errno::EACCES) => return Ok(false),
            file => file.map_err(|e| Fault::new(stage, e))?,
        };
        match program::needs(&file, &mut buffer).map_err(wrong)? {
            Needs::Nothing => return Ok(next.is_none()),
            Needs::Interpreter(at) => next = Some(at),
            Needs::Loader(at) => {
                let loader = program::path(&buffer, at).map_err(wrong)?;
                may_run(loader, Stage::Interpreter)?;
                return Ok(next.is_none());
            }
        }
    }
    Err(Fault { stage: Stage::Interpreter, errno: libc::ELOOP })
}

/// An open file of this process, which exec closes, or this process's end.
struct File(usize);

impl Bytes for File {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> Result<usize, i32> {
        // SAFETY: the buffer is writable for its whole length.
        unsafe { syscall!(Sysno::pread64, self.0, buffer.as_mut_ptr(), buffer.len(), at) }
            .map_err(Errno::into_raw)
    }
}

fn open(path: &CStr) -> Result<File, Errno> {
    // SAFETY: a C string.
    unsafe { syscall!(Sysno::openat, libc::AT_FDCWD, path.as_ptr(), program::OPEN, 0) }.map(File)
}

/// Would exec take it (AT_EXECVE_CHECK, since Linux 6.14)? That is everything but its content:
/// rights, mount options, words that are too long, a program that is open for writing, a user who
/// has too many processes. It costs some 10 µs, for it makes a new process's memory: a loader,
/// which is hardly ever anybody's own, is not asked about so.
fn executable(l: &Launch, path: &CStr, stage: Stage) -> Step {
    const AT_EXECVE_CHECK: c_int = 0x10000;
    let (call, at) = (Sysno::execveat, libc::AT_FDCWD);
    // SAFETY: a C string, and two lists of C strings with a null at the end. With this flag nothing
    // is executed.
    match unsafe {
        syscall!(call, at, path.as_ptr(), l.argv.as_ptr(), l.env.as_ptr(), AT_EXECVE_CHECK)
    } {
        Ok(_) => Ok(()),
        Err(Errno::EAGAIN) => Err(Fault::new(Stage::Exec, Errno::EAGAIN)),
        Err(Errno::EINVAL) => may_run(path, stage),
        Err(e) => Err(Fault::new(stage, e)),
    }
}

/// The real ids are the effective ones by now, so access(2)'s question is exec's.
fn may_run(path: &CStr, stage: Stage) -> Step {
    // SAFETY: a C string.
    step(stage, unsafe { syscall!(Sysno::faccessat, libc::AT_FDCWD, path.as_ptr(), libc::X_OK) })
}
