//! Life in the background: a process that no terminal and no shell holds, while the one that was called waits until it serves.

use super::{check, null};
use nix::fcntl::OFlag;
use nix::unistd::{ForkResult, fork, pipe2, setsid};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};

/// The status of the process that was called when the daemon ended without a word: refused by the system (fived(8)).
const DIED: u8 = 111;

/// The daemon's word to the process that was called, which still waits. Dropping it means that the start failed.
#[derive(Debug)]
pub struct Detached {
    caller: File,
    null: File,
}

impl Detached {
    /// It serves: the process that was called exits with 0, and descriptor 2 is /dev/null from now on.
    pub fn ready(self) {
        // Where it fails, the log's lines still have a place to go.
        let _ = redirect(&self.null, 2);
        self.tell(0);
    }

    /// It does not: the process that was called exits with `status`. What is wrong was told on descriptor 2.
    pub fn failed(self, status: u8) {
        self.tell(status);
    }

    fn tell(mut self, status: u8) {
        // A caller that is gone need not know.
        let _ = self.caller.write_all(&[status]);
    }
}

/// Goes on as a daemon: in a session of its own that has no leader, descriptors 0 and 1 on /dev/null; only there it returns. The
/// process that was called waits for the daemon's word and exits with it. Working directory and umask stay (a configuration may
/// have been named by a relative path). To be called before the first thread is made; signals, timers and what `std::process::id`
/// says are the new process's.
pub fn daemonize() -> io::Result<Detached> {
    let null = File::from(null()?);
    let (word, caller) = pipe2(OFlag::O_CLOEXEC)?;
    let (word, caller) = (File::from(word), File::from(caller));
    // SAFETY: this process has one thread, so the child may go on as it did.
    if let ForkResult::Parent { .. } = unsafe { fork() }? {
        drop(caller);
        exit(wait(word));
    }
    drop(word);
    setsid()?;
    // SAFETY: as above. The leader of the session ends, so that no terminal can become the session's.
    if let ForkResult::Parent { .. } = unsafe { fork() }? {
        exit(0);
    }
    redirect(&null, 0)?;
    redirect(&null, 1)?;
    Ok(Detached { caller, null })
}

fn wait(mut word: File) -> u8 {
    let mut status = [DIED];
    // Its end without a byte: the daemon died.
    let _ = word.read_exact(&mut status);
    status[0]
}

/// Without what is to be done at an exit: that is the daemon's.
fn exit(status: u8) -> ! {
    // SAFETY: ends the process at once.
    unsafe { libc::_exit(status.into()) }
}

fn redirect(to: &File, number: i32) -> io::Result<()> {
    // SAFETY: the standard descriptors belong to the whole process and stay open; what they lead to is ours to choose.
    check(unsafe { libc::dup2(to.as_fd().as_raw_fd(), number) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    const TOLD: &str = "FIVED_TEST_DAEMON";

    /// Becomes a daemon in a process of its own (see below).
    #[test]
    fn inside() {
        let Ok(told) = std::env::var(TOLD) else {
            return;
        };
        let detached = daemonize().unwrap();
        match told.as_str() {
            "ready" => detached.ready(),
            "failed" => detached.failed(7),
            _ => {}
        }
        exit(99);
    }

    #[test]
    fn the_caller_exits_with_the_daemons_word() {
        for (told, status) in [("ready", 0), ("failed", 7), ("died", DIED.into())] {
            let ended = Command::new("/proc/self/exe")
                .args([
                    "--exact",
                    "sys::process::daemon::tests::inside",
                    "--nocapture",
                ])
                .env(TOLD, told)
                .output()
                .unwrap();
            assert_eq!(ended.status.code(), Some(status), "{told}");
        }
    }
}
