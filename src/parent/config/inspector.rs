//! Reads certificates and private keys while a configuration is read, and checks the keys. A keys
//! process does that, because the parent never decodes a private key.

use super::catalog;
use super::disk;
use crate::parent::descriptors::own;
use crate::sys::file;
use crate::sys::message;
use crate::sys::poll::{self, Poll};
use crate::sys::socket::is_scarcity;
use crate::sys::spawn::{CList, Child, Env, Launch, Spawner, Stderr};
use crate::wire::orders::{KeysPhase, Message, ORDER};
use crate::wire::roles;
use crate::wire::signing::{self, FromKeys, ToKeys};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;
use zeroize::Zeroizing;

/// How long the process may take to check a key.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// SHA-256 of a public key, and the schemes that its private key can sign by.
pub type Inspected = ([u8; 32], Vec<u16>);

/// See the module. The process is started for the first key, and ended when this is dropped.
pub struct Inspector<'s> {
    spawner: &'s mut Spawner,
    process: Option<(Child, OwnedFd)>,
    /// The first thing that the system refused, and for which no file is to blame.
    refused: Option<String>,
    /// Somebody may wait for fived already ([`disk::ask`]).
    serves: bool,
    /// The first file about which nothing was heard in time: there may be many more, and fived does
    /// not wait for each.
    late: Option<String>,
}

impl Inspector<'_> {
    pub fn new(spawner: &mut Spawner, serves: bool) -> Inspector<'_> {
        Inspector { spawner, process: None, refused: None, serves, late: None }
    }

    /// Checks the key (PEM) of this certificate (DER). Err: what is wrong with it, or why it cannot
    /// be checked (then [`Inspector::refused`] says so too).
    pub fn inspect(&mut self, certificate: &[u8], key: &[u8]) -> Result<Inspected, String> {
        self.ask(certificate, key).unwrap_or_else(|refused| {
            self.refused.get_or_insert_with(|| refused.clone());
            Err(refused)
        })
    }

    /// Reads a file of a pair. Errors: as those of a file that is wrong; where the system has no
    /// descriptor or memory for it, [`Inspector::refused`] says so too.
    pub fn read(&mut self, path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
        let at = path.to_path_buf();
        self.ask_disk(path, move || file::read(at).map(Zeroizing::new)).inspect_err(|e| {
            if is_scarcity(e) {
                self.refused.get_or_insert_with(|| format!("{}: {e}", path.display()));
            }
        })
    }

    /// Asks the disk about a path of a pair. Errors also after one that took too long.
    pub fn ask_disk<T: Send + 'static>(
        &mut self,
        path: &Path,
        what: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        if let Some(late) = &self.late {
            return Err(io::Error::new(
                ErrorKind::TimedOut,
                format!("not looked at, after {late}"),
            ));
        }
        disk::ask(self.serves, path, what).inspect_err(|e| {
            if e.kind() == ErrorKind::TimedOut {
                self.late = Some(path.display().to_string());
            }
        })
    }

    /// What the system refused, if it did.
    pub fn refused(&mut self) -> Option<String> {
        self.refused.take()
    }

    /// The process's answer. Err: the system refused something.
    fn ask(&mut self, certificate: &[u8], key: &[u8]) -> Result<Result<Inspected, String>, String> {
        let text = Zeroizing::new(signing::encode(&[(certificate, key)]));
        let file = own::file(&text).map_err(|e| format!("memory file: {e}"))?;
        if self.process.is_none() {
            self.process =
                Some(launch(self.spawner, Stderr::Ours).map_err(|e| format!("keys process: {e}"))?);
        }
        let (_, channel) = self.process.as_ref().ok_or("keys process: none")?;
        let named = |e: io::Error| format!("keys process: {e}");
        let (pairs, file) = (ToKeys::Pairs.encode(), [file.as_fd()]);
        message::send_within(ANSWER_TIMEOUT, channel.as_fd(), &pairs, &file).map_err(named)?;
        let mut answer = [Poll::new(channel.as_fd(), true, false)];
        if poll::wait(&mut answer, Some(ANSWER_TIMEOUT)).map_err(named)? == 0 {
            return Err(format!("keys process: no answer for {} s", ANSWER_TIMEOUT.as_secs()));
        }
        let mut bytes = [0; ORDER];
        let (n, fds) = message::receive(channel.as_fd(), &mut bytes).map_err(named)?;
        match FromKeys::accept(&bytes[..n], fds.count(), &KeysPhase::Learning) {
            Some(FromKeys::Pair { hash, schemes }) => Ok(Ok((hash, schemes))),
            Some(FromKeys::Wrong(why)) => {
                Ok(Err(String::from_utf8_lossy(why.bytes()).into_owned()))
            }
            _ => Err("keys process: it ended without an answer".into()),
        }
    }
}

impl Drop for Inspector<'_> {
    fn drop(&mut self) {
        if let Some((child, channel)) = self.process.take() {
            drop(channel);
            child.kill();
        }
    }
}

/// Starts a keys process. Returns its child, and the parent's end of its channel.
pub fn launch(spawner: &mut Spawner, stderr: Stderr) -> Result<(Child, OwnedFd), String> {
    let (ours, theirs) = own::channel().map_err(|e| format!("channel: {e}"))?;
    let argv = CList::new([roles::KEYS]).map_err(|e| e.to_string())?;
    let env = Env::new().finish();
    let launch = Launch { stderr, extra: Some(theirs.as_fd()), ..catalog::role(&argv, &env) };
    let child = spawner.start(&launch).map_err(|f| f.to_string())?;
    Ok((child, ours))
}
