//! The process that has the private keys. It signs the one text that a TLS 1.3 server signs in its
//! handshake, and does nothing else.
//!
//! It is this program, started anew by the parent with one descriptor, the channel. It confines
//! itself (`sys::confine`) before it receives the keys, reports with which schemes each can sign,
//! and then signs for sessions what the parent asks for. One thread for each processor takes the
//! next order from the channel, so that nobody else waits for the milliseconds of an RSA signature.
//! It refuses every text that is not a CertificateVerify of a server: whoever has taken over net,
//! or has the parent's channel to this process, gets no other signature. It never writes a key
//! anywhere. `pair` is one private key, and what it signs.

mod pair;

use crate::log;
use crate::sys::shared::Shared;
use crate::sys::{confine, inherit, memfd, message, process, signal};
use crate::wire::orders::{Data, KeysPhase, Message, ORDER};
use crate::wire::roles;
use crate::wire::signing::{self, FromKeys, ToKeys};
use pair::Pair;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Runs the process. Returns its exit status: 0 when the parent closed the channel, 111 when it
/// cannot go on.
pub fn main() -> i32 {
    signal::ignore_orders();
    process::limit_malloc_arenas(1);
    match serve() {
        Ok(()) => 0,
        Err(e) => {
            log::warn(&format!("keys: {e}"));
            log::finish(100);
            111
        }
    }
}

fn serve() -> Result<(), String> {
    let channel = inherit::take(roles::CHANNEL).map_err(|e| format!("channel: {e}"))?;
    let threads = process::processors();
    confine::keys().map_err(|e| e.to_string())?;
    let channel = channel.as_fd();
    let Some(pairs) = learn(channel)? else { return Ok(()) };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            // If a thread cannot be made, the others do its work.
            let _ =
                std::thread::Builder::new().spawn_scoped(scope, || finish(work(channel, &pairs)));
        }
        finish(work(channel, &pairs))
    })
}

/// Ends the process as soon as one thread has ended: the channel is closed, or cannot be used.
fn finish(done: Result<(), String>) -> ! {
    std::process::exit(match done {
        Ok(()) => 0,
        Err(e) => {
            log::warn(&format!("keys: {e}"));
            log::finish(100);
            111
        }
    })
}

/// Receives the keys. None: the parent has closed the channel; it only wanted to know whether they
/// can be used.
fn learn(channel: BorrowedFd) -> Result<Option<Vec<Pair>>, String> {
    let mut pairs = Vec::new();
    while let Some((order, file)) = receive(channel, KeysPhase::Learning)? {
        match (order, file) {
            (ToKeys::Pairs, Some(file)) => {
                let text = memfd::read(file.as_fd()).map_err(|e| format!("private keys: {e}"))?;
                for (certificate, key) in
                    signing::decode(&text).ok_or("private keys: the file cannot be read")?
                {
                    let answer = match Pair::new(certificate, key) {
                        Ok(pair) => {
                            let (hash, schemes) = (pair.hash(), pair.schemes());
                            pairs.push(pair);
                            FromKeys::Pair { hash, schemes }
                        }
                        Err(why) => FromKeys::Wrong(Data::truncate(why.as_bytes())),
                    };
                    answer_with(channel, &answer)?;
                }
            }
            (ToKeys::Serve, None) => return Ok(Some(pairs)),
            (order, _) => return Err(format!("a forbidden order: {order:?}")),
        }
    }
    Ok(None)
}

/// Answers until the parent closes the channel.
fn work(channel: BorrowedFd, pairs: &[Pair]) -> Result<(), String> {
    while let Some((order, _)) = receive(channel, KeysPhase::Signing)? {
        let ToKeys::Sign { number, pair, scheme, message } = &order else {
            return Err(format!("a forbidden order: {order:?}"));
        };
        let signature = pairs.get(*pair as usize).and_then(|p| p.sign(*scheme, message.bytes()));
        let answer = match signature.and_then(|s| Data::new(&s)) {
            Some(signature) => FromKeys::Signed { number: *number, signature },
            None => FromKeys::NotSigned { number: *number },
        };
        answer_with(channel, &answer)?;
    }
    Ok(())
}

/// The next order. None: the parent has closed the channel.
fn receive(
    channel: BorrowedFd,
    phase: KeysPhase,
) -> Result<Option<(ToKeys, Option<OwnedFd>)>, String> {
    let mut bytes = [0; ORDER];
    match message::receive_waiting(channel, &mut bytes) {
        Ok((0, _)) => Ok(None),
        Ok((n, mut fds)) => Ok(Some((
            ToKeys::accept(&bytes[..n], fds.count(), &phase).ok_or("a forbidden order")?,
            fds.take().map(Shared::our_own),
        ))),
        Err(e) if e.kind() == io::ErrorKind::ConnectionReset => Ok(None),
        Err(e) => Err(format!("channel: {e}")),
    }
}

/// Answers, and waits until the parent reads. A parent that has gone is no error here: the next
/// order says that the channel is closed.
fn answer_with(channel: BorrowedFd, answer: &FromKeys) -> Result<(), String> {
    match message::send_waiting(channel, &answer.encode(), &[]) {
        Err(e)
            if !matches!(e.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) =>
        {
            Err(format!("channel: {e}"))
        }
        _ => Ok(()),
    }
}
