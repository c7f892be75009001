//! The system calls that a process makes, as strace(1) tells them.

use super::{Daemon, proc, until};
use std::process::{Child, Command, Stdio};

/// strace, until it is dropped.
pub struct Calls {
    strace: Child,
    to: String,
}

impl Calls {
    /// Those of the parent, from now on. `words`: what of them is told.
    pub fn of_parent(d: &Daemon, words: &[&str]) -> Calls {
        let (pid, to) = (d.parent_pid(), d.place.at("calls"));
        let mut strace = Command::new("strace");
        strace.args(["-q", "-o", &to, "-p", &pid.to_string()]).args(words);
        let strace = strace.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("strace");
        let calls = Calls { strace, to };
        until("it is traced", || proc::traced(pid));
        calls
    }

    /// Those until now, one a line; the last one may be there in part.
    pub fn until_now(&self) -> String {
        std::fs::read_to_string(&self.to).expect("calls")
    }

    /// All of them.
    pub fn end(self) -> String {
        let to = self.to.clone();
        drop(self);
        std::fs::read_to_string(&to).expect("calls")
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        let ended = self.strace.kill().and_then(|()| self.strace.wait());
        assert!(ended.is_ok() || std::thread::panicking(), "{ended:?}");
    }
}
