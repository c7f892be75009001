//! A way between two computers that is cut again and again: connections are reset, closed, or stand
//! still, in the middle of a record, as it comes. It may be slow, too.

#![allow(dead_code)] // Each test file uses its own part of this.

use super::support::reset;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::Duration;

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Both ends see a reset.
    Reset,
    /// Both ends see an end that is none of TLS's.
    Close,
    /// Nothing passes any more, and nobody is told.
    Stall,
}

#[derive(Default)]
struct State {
    /// New connections are closed at once.
    refuses_new: AtomicBool,
    /// A connection is cut after about so many bytes; 0: never.
    every: AtomicU64,
    /// Some pieces are held for so many microseconds at most.
    delay: AtomicU64,
    cuts: AtomicUsize,
    made: AtomicUsize,
    seed: AtomicU64,
    ways: Mutex<Vec<Weak<Way>>>,
}

struct Way {
    client: TcpStream,
    server: TcpStream,
    /// What comes goes nowhere, not even the end.
    silent: AtomicBool,
    /// How many bytes may still pass before it is cut.
    left: AtomicU64,
}

pub struct Cutter {
    pub address: SocketAddr,
    state: Arc<State>,
}

impl Cutter {
    /// To this server; it ends with the test.
    pub fn new(to: SocketAddr) -> Cutter {
        Cutter::at("127.0.0.1:0", to)
    }

    /// The same at this address.
    pub fn at(here: &str, to: SocketAddr) -> Cutter {
        let listener = TcpListener::bind(here).expect("bind");
        let address = listener.local_addr().expect("address");
        let state = Arc::new(State::default());
        let all = state.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if all.refuses_new.load(Ordering::SeqCst) {
                    reset(&client);
                    continue;
                }
                let Ok(server) = TcpStream::connect(to) else { continue };
                all.made.fetch_add(1, Ordering::SeqCst);
                let (silent, left) = (AtomicBool::new(false), AtomicU64::new(all.next()));
                let way = Arc::new(Way { client, server, silent, left });
                all.ways.lock().expect("ways").push(Arc::downgrade(&way));
                for of_client in [true, false] {
                    let (way, all) = (way.clone(), all.clone());
                    thread::spawn(move || way.pass(of_client, &all));
                }
            }
        });
        Cutter { address, state }
    }

    /// Cuts each connection after some bytes, about so many, in one way or another.
    pub fn cut_every(&self, bytes: u64) {
        self.state.every.store(bytes, Ordering::SeqCst);
    }

    /// From now on one piece of four is late by so much at most.
    pub fn delay(&self, most: Duration) {
        self.state.delay.store(most.as_micros() as u64, Ordering::SeqCst);
    }

    /// Cuts what stands.
    pub fn cut(&self, how: Cut) {
        let ways = std::mem::take(&mut *self.state.ways.lock().expect("ways"));
        ways.iter().filter_map(Weak::upgrade).for_each(|way| way.cut(how));
    }

    /// From now on new connections are closed at once, or not.
    pub fn refuse_new(&self, refuse: bool) {
        self.state.refuses_new.store(refuse, Ordering::SeqCst);
    }

    /// How many connections were cut by themselves.
    pub fn cuts(&self) -> usize {
        self.state.cuts.load(Ordering::SeqCst)
    }

    /// How many connections were made.
    pub fn made(&self) -> usize {
        self.state.made.load(Ordering::SeqCst)
    }
}

impl State {
    /// Any number, the same ones in each run.
    fn random(&self) -> u64 {
        let n = self.seed.fetch_add(1, Ordering::SeqCst).wrapping_add(1);
        let n = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (n ^ (n >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 16
    }

    fn wait(&self) {
        let most = self.delay.load(Ordering::SeqCst);
        if most > 0 && self.random().is_multiple_of(4) {
            thread::sleep(Duration::from_micros(self.random() % most));
        }
    }

    fn next(&self) -> u64 {
        match self.every.load(Ordering::SeqCst) {
            0 => u64::MAX,
            every => every / 4 + self.random() % (every * 3 / 2),
        }
    }
}

impl Way {
    fn pass(&self, of_client: bool, all: &State) {
        let (mut from, mut to) =
            if of_client { (&self.client, &self.server) } else { (&self.server, &self.client) };
        let _ = to.set_nodelay(true);
        let mut part = vec![0; 65536];
        loop {
            let n = from.read(&mut part).unwrap_or(0);
            all.wait();
            if self.silent.load(Ordering::SeqCst) {
                return;
            }
            if n == 0 {
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
            let left = self.left.load(Ordering::SeqCst);
            let some = n.min(usize::try_from(left).unwrap_or(usize::MAX));
            if left != u64::MAX {
                self.left.fetch_sub(some as u64, Ordering::SeqCst);
            }
            // Half of a record may pass.
            if to.write_all(&part[..some]).is_err() {
                return;
            }
            if some < n {
                all.cuts.fetch_add(1, Ordering::SeqCst);
                self.cut(if all.random().is_multiple_of(2) { Cut::Reset } else { Cut::Close });
                return;
            }
        }
    }

    fn cut(&self, how: Cut) {
        match how {
            Cut::Stall => {
                self.silent.store(true, Ordering::SeqCst);
                let (client, server) = (self.client.try_clone(), self.server.try_clone());
                // Both ends stay open as long as the test.
                std::mem::forget((client, server));
            }
            Cut::Close => {
                let _ =
                    (self.client.shutdown(Shutdown::Both), self.server.shutdown(Shutdown::Both));
            }
            Cut::Reset => {
                self.silent.store(true, Ordering::SeqCst);
                // Whoever reads it wakes up.
                [&self.client, &self.server].into_iter().for_each(reset);
            }
        }
    }
}
