//! Keys are looked at while a configuration is read, by a process of its own: the parent reads no
//! private key.

use super::catalog;
use super::descriptors::own;
use crate::sys::message;
use crate::sys::poll::{self, Poll};
use crate::sys::spawn::{CList, Child, Env, Launch, Spawner, Stderr};
use crate::wire::orders::{KeysPhase, Message, ORDER};
use crate::wire::roles;
use crate::wire::signing::{self, FromKeys, ToKeys};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;
use zeroize::Zeroizing;

/// How long a process may take to say whether a key is one.
const LOOKS: Duration = Duration::from_secs(10);

/// The hash of a public key, and the schemes that its private key can sign by.
pub type Looked = ([u8; 32], Vec<u16>);

/// Has keys looked at while a configuration is read: by a process of its own, which is started for
/// the first of them and ended with this.
pub struct Inspector<'s> {
    spawner: &'s mut Spawner,
    process: Option<(Child, OwnedFd)>,
    /// The first that the system refused: no key is to blame for it.
    refused: Option<String>,
}

impl Inspector<'_> {
    pub fn new(spawner: &mut Spawner) -> Inspector<'_> {
        Inspector { spawner, process: None, refused: None }
    }

    /// The hash of the public key of this certificate (DER), and the schemes that its key (PEM) can
    /// sign by. Err: what is wrong, or why that cannot be told ([`Inspector::refused`]).
    pub fn look(&mut self, certificate: &[u8], key: &[u8]) -> Result<Looked, String> {
        self.ask(certificate, key).unwrap_or_else(|refused| {
            self.refused.get_or_insert_with(|| refused.clone());
            Err(refused)
        })
    }

    /// What the system refused, if it did.
    pub fn refused(&mut self) -> Option<String> {
        self.refused.take()
    }

    fn ask(&mut self, certificate: &[u8], key: &[u8]) -> Result<Result<Looked, String>, String> {
        let text = Zeroizing::new(signing::encode(&[(certificate, key)]));
        let file = own::file(&text).map_err(|e| format!("memory file: {e}"))?;
        if self.process.is_none() {
            self.process =
                Some(launch(self.spawner, Stderr::Ours).map_err(|e| format!("keys process: {e}"))?);
        }
        let (_, channel) = self.process.as_ref().ok_or("keys process: none")?;
        let said = |e: std::io::Error| format!("keys process: {e}");
        message::send_message(channel.as_fd(), &ToKeys::Pairs.encode(), &[file.as_fd()], false)
            .map_err(said)?;
        if poll::wait(&mut [Poll::new(channel.as_fd(), true, false)], Some(LOOKS)).map_err(said)?
            == 0
        {
            return Err(format!("keys process: no answer for {} s", LOOKS.as_secs()));
        }
        let mut bytes = [0; ORDER];
        let (n, fds) =
            message::receive_message(channel.as_fd(), &mut bytes, false).map_err(said)?;
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
            child.end();
        }
    }
}

/// A keys process: its child, and our end of its channel.
pub fn launch(spawner: &mut Spawner, stderr: Stderr) -> Result<(Child, OwnedFd), String> {
    let (ours, theirs) = own::channel().map_err(|e| format!("channel: {e}"))?;
    let argv = CList::new([roles::KEYS]).map_err(|e| e.to_string())?;
    let env = Env::new().finish();
    let launch = Launch { stderr, extra: Some(theirs.as_fd()), ..catalog::role(&argv, &env) };
    let child = spawner.start(&launch).map_err(|f| f.to_string())?;
    Ok((child, ours))
}
