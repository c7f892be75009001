//! What is between two computers: it can be slow, it counts who waits for whom, and what stands can
//! be cut without a word.

#![allow(dead_code)] // Each test file uses its own part of this.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// One connection through it.
#[derive(Default)]
pub struct Way {
    /// Nothing passes any more, and nobody is told.
    frozen: AtomicBool,
    /// How often the client has said something after the server's last words had come: as often as
    /// it waited for them, and now and then once more where it took long to say what it could have
    /// said before.
    pub round_trips: AtomicUsize,
    /// The server's words have come since the client's last round trip began.
    heard: AtomicBool,
}

pub struct Proxy {
    pub address: SocketAddr,
    ways: Arc<Mutex<Vec<Arc<Way>>>>,
}

impl Proxy {
    /// To this server, each direction late by `delay`. It ends with the test.
    pub fn new(to: SocketAddr, delay: Duration) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        let ways = Arc::new(Mutex::new(Vec::new()));
        let all = ways.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(to) else { continue };
                let way = Arc::new(Way::default());
                all.lock().expect("ways").push(way.clone());
                for (from, to, of_client) in [(&client, &server, true), (&server, &client, false)] {
                    let (from, to, way) = (
                        from.try_clone().expect("clone"),
                        to.try_clone().expect("clone"),
                        way.clone(),
                    );
                    to.set_nodelay(true).expect("nodelay");
                    thread::spawn(move || pass(from, to, &way, of_client, delay));
                }
            }
        });
        Proxy { address, ways }
    }

    /// Whatever stands now passes nothing any more; new connections do.
    pub fn freeze(&self) {
        self.ways.lock().expect("ways").iter().for_each(|w| w.frozen.store(true, Ordering::SeqCst));
    }

    /// The connections so far.
    pub fn ways(&self) -> Vec<Arc<Way>> {
        self.ways.lock().expect("ways").clone()
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, way: &Way, of_client: bool, delay: Duration) {
    let mut part = [0; 65536];
    let mut first = true;
    loop {
        let n = from.read(&mut part).unwrap_or(0);
        if way.frozen.load(Ordering::SeqCst) {
            // Both ends stay open, for ever as far as anybody can tell.
            loop {
                thread::park();
            }
        }
        if of_client && n > 0 && (way.heard.swap(false, Ordering::SeqCst) || first) {
            way.round_trips.fetch_add(1, Ordering::SeqCst);
            first = false;
        }
        thread::sleep(delay);
        if n == 0 {
            let _ = to.shutdown(Shutdown::Write);
            return;
        }
        if !of_client {
            way.heard.store(true, Ordering::SeqCst);
        }
        if to.write_all(&part[..n]).is_err() {
            return;
        }
    }
}
