//! The program, tried before the client is greeted: the child asks the kernel all that exec will
//! ask. As everything between clone and exec, this makes raw system calls and nothing else (see
//! `child`).

use super::failure::{Fault, Stage, Step, step};
use super::launch::Launch;
use crate::sys::program::{self, Bytes, Needs};
use std::ffi::{CStr, c_int};
use syscalls::{Errno, Sysno, syscall};

/// Asks all that exec will ask, of the program and of what runs it. Whatever hangs here hangs in
/// this process alone, which is killed then.
pub(super) fn try_program(l: &Launch) -> Step {
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
            Err(Errno::EACCES) => return Ok(()),
            file => file.map_err(|e| Fault::new(stage, e))?,
        };
        match program::needs(&file, &mut buffer).map_err(wrong)? {
            Needs::Nothing => return Ok(()),
            Needs::Interpreter(at) => next = Some(at),
            Needs::Loader(at) => {
                let loader = program::path(&buffer, at).map_err(wrong)?;
                return may_run(loader, Stage::Interpreter);
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
