//! A client of MULTIPLEX and RESUME inside TLS: the same code for both, so that the difference is
//! the server's. And a way between a client and a server that is cut again and again.
//!
//! -P SSL is asked for first. The words at the end: `multiplex` or `resume`.
use crate::tls::{Cli, client_config, connect, linger0};
use crate::{Opt, cpu, report, us10};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const DATA: u8 = 0;
const WINDOW: u8 = 1;
const PING: u8 = 2;
const SYN: u8 = 1;
const ACK: u8 = 2;
const FIN: u8 = 4;
const RST: u8 = 8;

/// Bytes with a head of N bytes, however they are split.
struct Heads<const N: usize> {
    head: [u8; N],
    known: usize,
}

impl<const N: usize> Heads<N> {
    fn new() -> Self {
        Heads { head: [0; N], known: 0 }
    }
    /// The head, when it is complete.
    fn take(&mut self, bytes: &mut &[u8]) -> Option<[u8; N]> {
        let n = bytes.len().min(N - self.known);
        self.head[self.known..self.known + n].copy_from_slice(&bytes[..n]);
        (self.known, *bytes) = (self.known + n, &bytes[n..]);
        (self.known == N).then(|| {
            self.known = 0;
            self.head
        })
    }
}

#[derive(Default, Clone)]
struct Stream {
    got: u64,
    /// Not given back yet.
    window: u32,
    last: Vec<u8>,
    over: bool,
}

struct Session {
    k: Cli,
    records: bool,
    record: Heads<4>,
    left: usize,
    control: Vec<u8>,
    received: u64,
    told: u64,
    frame: Heads<12>,
    body: (usize, usize),
    streams: Vec<Stream>,
    out: Vec<u8>,
    keep: bool,
}

impl Session {
    fn new(o: &Opt) -> io::Result<Session> {
        let mut k = Cli::new(&client_config(&o.suite), connect(o)?, 256 * 1024)?;
        k.handshake()?;
        let records = o.rest.first().is_some_and(|w| w == "resume");
        k.put(if records { b"RESUME\r\nnew\r\n" } else { b"MULTIPLEX\r\n" })?;
        for _ in 0..1 + usize::from(records) {
            let (mut line, mut b) = (Vec::new(), [0]);
            while line.last() != Some(&b'\n') {
                if k.read(&mut b)? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                line.push(b[0]);
            }
            if line[0] == b'-' {
                return Err(io::Error::other(String::from_utf8_lossy(&line).into_owned()));
            }
        }
        Ok(Session {
            k,
            records,
            record: Heads::new(),
            left: 0,
            control: Vec::new(),
            received: 0,
            told: 0,
            frame: Heads::new(),
            body: (0, 0),
            streams: Vec::new(),
            out: Vec::new(),
            keep: false,
        })
    }

    fn queue(&mut self, kind: u8, flags: u8, stream: usize, length: u32, data: &[u8]) {
        self.out.extend([0, kind, 0, flags]);
        self.out.extend((stream as u32).to_be_bytes());
        self.out.extend(length.to_be_bytes());
        self.out.extend(data);
    }

    /// Opens a stream with a larger window, and asks for a service.
    fn open(&mut self, request: &[u8], window: u32) -> usize {
        let n = self.streams.len();
        self.streams.push(Stream::default());
        self.queue(DATA, SYN, 2 * n + 1, request.len() as u32, request);
        if window > 0 {
            self.queue(WINDOW, 0, 2 * n + 1, window, &[]);
        }
        n
    }

    fn finish(&mut self, n: usize) {
        self.queue(DATA, FIN, 2 * n + 1, 0, &[]);
    }

    /// One write, so that both ways send as many records of TLS.
    fn send(&mut self) -> io::Result<()> {
        let mut all = Vec::new();
        let due = self.received - self.told >= 240 * 1024 || !self.out.is_empty() && self.received > self.told;
        if self.records && due {
            let mut ack = [1, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0];
            ack[4..].copy_from_slice(&self.received.to_be_bytes());
            self.told = self.received;
            all.extend(ack);
        }
        for part in self.out.chunks(65535) {
            if self.records {
                let [_, head @ ..] = (part.len() as u32).to_be_bytes();
                all.push(0);
                all.extend(head);
            }
            all.extend_from_slice(part);
        }
        self.out.clear();
        if !all.is_empty() {
            self.k.write(&all)?;
        }
        self.k.flush()
    }

    /// One read. False: the connection is over.
    fn receive(&mut self, buf: &mut [u8]) -> io::Result<bool> {
        let n = self.k.read(buf)?;
        let mut bytes = &buf[..n];
        while !bytes.is_empty() {
            if !self.records {
                self.frames(bytes);
                break;
            }
            if self.left > 0 {
                let n = self.left.min(bytes.len());
                let (data, rest) = bytes.split_at(n);
                (bytes, self.left) = (rest, self.left - n);
                if self.control.is_empty() {
                    self.received += n as u64;
                    self.frames(data);
                } else if self.left == 0 {
                    self.control.clear();
                }
            } else if let Some([kind, a, b, c]) = self.record.take(&mut bytes) {
                self.left = u32::from_be_bytes([0, a, b, c]) as usize;
                assert!(kind < 2, "a record of kind {kind}");
                if kind == 1 {
                    self.control.push(1);
                }
            }
        }
        Ok(n > 0)
    }

    fn frames(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (n, left) = self.body;
            if left > 0 {
                let some = left.min(bytes.len());
                let (data, rest) = bytes.split_at(some);
                (bytes, self.body.1) = (rest, left - some);
                let s = &mut self.streams[n];
                s.got += some as u64;
                s.window += some as u32;
                if self.keep {
                    s.last.extend(data);
                }
                if s.window >= 128 * 1024 {
                    let window = std::mem::take(&mut s.window);
                    self.queue(WINDOW, 0, 2 * n + 1, window, &[]);
                }
                continue;
            }
            let Some([_, kind, _, flags, a, b, c, d, e, f, g, h]) = self.frame.take(&mut bytes) else { return };
            let (id, length) = (u32::from_be_bytes([a, b, c, d]) as usize, u32::from_be_bytes([e, f, g, h]));
            if kind == PING && flags & SYN != 0 {
                self.queue(PING, ACK, 0, length, &[]);
            }
            if kind == DATA {
                self.body = (id / 2, length as usize);
            }
            if flags & (FIN | RST) != 0 {
                self.streams[id / 2].over = true;
            }
        }
    }
}

pub fn bulk(o: Opt) {
    let mut s = Session::new(&o).expect("session");
    let (c0, t) = (cpu(), Instant::now());
    let request = format!("{}\r\n", o.inner.as_deref().unwrap_or("src"));
    for _ in 0..o.c {
        s.open(request.as_bytes(), if o.c == 1 { 4 << 20 } else { 0 });
    }
    let mut buf = vec![0; 256 * 1024];
    while s.streams.iter().any(|s| !s.over || s.got == 0) {
        s.send().expect("sent");
        if !s.receive(&mut buf).expect("received") {
            break;
        }
    }
    let (got, secs) = (s.streams.iter().map(|s| s.got).sum::<u64>(), t.elapsed().as_secs_f64());
    println!(
        "{{\"bytes\":{got},\"ok\":{},\"secs\":{secs:.4},\"bytes_per_s\":{:.0},\"client_cpu_s\":{:.4}}}",
        got >= o.n / o.c as u64 * o.c as u64,
        got as f64 / secs,
        cpu() - c0
    );
}

pub fn lat(o: Opt) {
    let mut s = Session::new(&o).expect("session");
    s.keep = true;
    let request = format!("{}\r\n", o.inner.as_deref().unwrap_or("tiny"));
    let (mut all, mut errors, c0) = (Vec::new(), 0, cpu());
    let t_on = Instant::now() + Duration::from_secs_f64(o.warm);
    let t_off = t_on + Duration::from_secs_f64(o.secs);
    let mut buf = vec![0; 64 * 1024];
    while Instant::now() < t_off {
        let t = Instant::now();
        let n = s.open(request.as_bytes(), 0);
        s.send().expect("sent");
        while !s.streams[n].over {
            assert!(s.receive(&mut buf).expect("received"), "the end");
            if !s.out.is_empty() {
                s.send().expect("sent");
            }
        }
        errors += u64::from(!s.streams[n].last.ends_with(&o.expect));
        s.streams[n].last = Vec::new();
        if t >= t_on {
            all.push(us10(t));
        }
        s.finish(n);
    }
    report(all, errors, o.secs, cpu() - c0, "");
}

/// Sessions, each with a stream of the service, if one is named. With the first line of its input
/// they lose their connections.
pub fn idle(o: Opt) {
    let (mut all, mut fail, mut last) = (Vec::new(), 0, String::new());
    let mut buf = vec![0; 4096];
    for _ in 0..o.c {
        let made = Session::new(&o).and_then(|mut s| {
            if let Some(name) = &o.inner {
                s.open(format!("{name}\r\n").as_bytes(), 0);
                s.send()?;
                while s.streams[0].got == 0 && s.receive(&mut buf)? {}
            }
            Ok(s)
        });
        match made {
            Ok(s) => all.push(s),
            Err(e) => (fail, last) = (fail + 1, e.to_string()),
        }
        if fail > 20 {
            break;
        }
    }
    println!("{{\"open\":{},\"fail\":{fail},\"lasterr\":{last:?}}}", all.len());
    io::stdout().flush().unwrap();
    let mut b = [0u8; 64];
    if matches!(io::stdin().read(&mut b), Ok(n) if n > 0) {
        drop(all);
        println!("{{}}");
        io::stdout().flush().unwrap();
        while matches!(io::stdin().read(&mut b), Ok(n) if n > 0) {}
    }
}

/// A way from -a, any port, to -h -p, that resets what stands every -d seconds (0: never). It says
/// its port, and, at the end of its input, how often it has cut.
pub fn cutter(o: Opt) {
    let l = TcpListener::bind("127.0.0.1:0").expect("bind");
    println!("{{\"port\":{}}}", l.local_addr().unwrap().port());
    io::stdout().flush().unwrap();
    let (ways, cuts) = (Arc::new(Mutex::new(Vec::<[TcpStream; 2]>::new())), Arc::new(AtomicU64::new(0)));
    if o.secs > 0.0 {
        let (ways, cuts) = (ways.clone(), cuts.clone());
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(Duration::from_secs_f64(o.secs));
                for way in std::mem::take(&mut *ways.lock().unwrap()) {
                    cuts.fetch_add(1, Ordering::SeqCst);
                    way.iter().for_each(linger0);
                    way.iter().for_each(|s| drop(s.shutdown(Shutdown::Both)));
                }
            }
        });
    }
    let to = (o.host.clone(), o.port);
    std::thread::spawn(move || {
        for client in l.incoming().flatten() {
            let Ok(server) = TcpStream::connect(&to) else { continue };
            let copy = |a: &TcpStream, b: &TcpStream| {
                let (mut a, mut b) = (a.try_clone().unwrap(), b.try_clone().unwrap());
                b.set_nodelay(true).unwrap();
                std::thread::spawn(move || {
                    let mut buf = vec![0; 256 * 1024];
                    while let Ok(n @ 1..) = a.read(&mut buf) {
                        if b.write_all(&buf[..n]).is_err() {
                            break;
                        }
                    }
                    let _ = b.shutdown(Shutdown::Write);
                });
            };
            copy(&client, &server);
            copy(&server, &client);
            ways.lock().unwrap().push([client, server]);
        }
    });
    let mut b = [0u8; 64];
    while matches!(io::stdin().read(&mut b), Ok(n) if n > 0) {}
    println!("{{\"cuts\":{}}}", cuts.load(Ordering::SeqCst));
}
