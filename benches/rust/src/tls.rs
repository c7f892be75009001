use crate::{Opt, cpu, report, us10};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, ServerConfig, ServerConnection, SignatureScheme};
use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The generator must not be the bottleneck: it checks neither chain nor signature.
#[derive(Debug)]
struct NoVerify;
impl ServerCertVerifier for NoVerify {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ED25519, SignatureScheme::RSA_PSS_SHA256]
    }
}

fn provider(suite: &str) -> Arc<CryptoProvider> {
    let mut p = ring::default_provider();
    let one = match suite {
        "" => return Arc::new(p),
        "aes128" => ring::cipher_suite::TLS13_AES_128_GCM_SHA256,
        "aes256" => ring::cipher_suite::TLS13_AES_256_GCM_SHA384,
        "chacha" => ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        s => panic!("unknown suite {s}"),
    };
    p.cipher_suites = vec![one];
    Arc::new(p)
}

pub fn client_config(suite: &str) -> Arc<ClientConfig> {
    let mut c = ClientConfig::builder_with_provider(provider(suite))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(NoVerify))
        .with_no_client_auth();
    c.resumption = Resumption::disabled();
    Arc::new(c)
}

pub fn linger0(s: &TcpStream) {
    let l = libc::linger { l_onoff: 1, l_linger: 0 };
    unsafe {
        libc::setsockopt(
            s.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            &l as *const _ as *const libc::c_void,
            std::mem::size_of_val(&l) as libc::socklen_t,
        );
    }
}

pub fn connect(o: &Opt) -> io::Result<TcpStream> {
    let mut s = TcpStream::connect((o.host.as_str(), o.port))?;
    linger0(&s);
    s.set_nodelay(true)?;
    s.set_read_timeout(Some(Duration::from_secs(60)))?;
    if let Some(p) = &o.pre {
        s.write_all(format!("{p}\r\n").as_bytes())?;
        // byte by byte: nothing after the LF may be swallowed
        let (mut line, mut b) = (Vec::new(), [0u8; 1]);
        while line.last() != Some(&b'\n') {
            if s.read(&mut b)? == 0 || line.len() > 512 {
                return Err(io::Error::new(ErrorKind::InvalidData, "no answer line"));
            }
            line.push(b[0]);
        }
        if line[0] != b'+' {
            return Err(io::Error::new(ErrorKind::InvalidData, String::from_utf8_lossy(&line).into_owned()));
        }
    }
    Ok(s)
}

pub struct Cli {
    c: ClientConnection,
    r: BufReader<TcpStream>,
    w: TcpStream,
}

impl Cli {
    pub fn new(cfg: &Arc<ClientConfig>, s: TcpStream, buf: usize) -> io::Result<Cli> {
        let c = ClientConnection::new(cfg.clone(), ServerName::try_from("fived.test").unwrap()).map_err(|e| io::Error::other(e))?;
        let w = s.try_clone()?;
        Ok(Cli { c, r: BufReader::with_capacity(buf, s), w })
    }
    pub fn flush(&mut self) -> io::Result<()> {
        while self.c.wants_write() {
            self.c.write_tls(&mut self.w)?;
        }
        Ok(())
    }
    /// To be sent by `flush`.
    pub fn write(&mut self, b: &[u8]) -> io::Result<()> {
        self.c.writer().write_all(b)
    }
    pub fn put(&mut self, b: &[u8]) -> io::Result<()> {
        self.write(b)?;
        self.flush()
    }
    /// Feeds one read; Ok(false) = transport EOF.
    fn pump(&mut self) -> io::Result<bool> {
        self.flush()?;
        let n = self.c.read_tls(&mut self.r)?;
        self.c.process_new_packets().map_err(|e| io::Error::new(ErrorKind::InvalidData, e))?;
        Ok(n > 0)
    }
    pub fn handshake(&mut self) -> io::Result<()> {
        while self.c.is_handshaking() {
            if !self.pump()? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        self.flush()
    }
    /// Some(n>0) data, Some(0) end of stream (clean or not).
    pub fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.c.reader().read(buf) {
                Ok(n) => return Ok(n),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    if !self.pump()? {
                        return Ok(0);
                    }
                }
                Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                Err(e) => return Err(e),
            }
        }
    }
    fn bye(&mut self) {
        self.c.send_close_notify();
        let _ = self.flush();
    }
}

fn hs_once(o: &Opt, cfg: &Arc<ClientConfig>, buf: &mut [u8]) -> io::Result<()> {
    let mut k = Cli::new(cfg, connect(o)?, 16384)?;
    k.handshake()?;
    if let Some(i) = &o.inner {
        k.c.writer().write_all(format!("{i}\r\n").as_bytes())?;
        k.flush()?;
    }
    let mut got = Vec::new();
    loop {
        match k.read(buf) {
            Ok(0) => break,
            Ok(n) => got.extend_from_slice(&buf[..n]),
            Err(e) if !got.is_empty() && e.kind() == ErrorKind::ConnectionReset => break,
            Err(e) => return Err(e),
        }
    }
    k.bye();
    if !got.ends_with(&o.expect) {
        return Err(io::Error::new(ErrorKind::InvalidData, format!("got {:?}", String::from_utf8_lossy(&got))));
    }
    Ok(())
}

pub fn hs(o: Opt) {
    let cfg = client_config(&o.suite);
    let (all, errs, last) = (Mutex::new(Vec::new()), AtomicU64::new(0), Mutex::new(String::new()));
    let c0 = cpu();
    let t_on = Instant::now() + Duration::from_secs_f64(o.warm);
    let t_off = t_on + Duration::from_secs_f64(o.secs);
    std::thread::scope(|sc| {
        for _ in 0..o.c {
            sc.spawn(|| {
                let (mut lat, mut buf) = (Vec::new(), vec![0u8; 16384]);
                while Instant::now() < t_off && errs.load(Ordering::Relaxed) < 500 {
                    let t = Instant::now();
                    match hs_once(&o, &cfg, &mut buf) {
                        Ok(()) => {
                            let e = Instant::now();
                            if e >= t_on && e <= t_off {
                                lat.push(us10(t));
                            }
                        }
                        Err(e) => {
                            errs.fetch_add(1, Ordering::Relaxed);
                            *last.lock().unwrap() = e.to_string();
                            std::thread::sleep(Duration::from_millis(2));
                        }
                    }
                }
                all.lock().unwrap().append(&mut lat);
            });
        }
    });
    report(all.into_inner().unwrap(), errs.into_inner(), o.secs, cpu() - c0, &last.into_inner().unwrap());
}

pub fn bulk(o: Opt) {
    let cfg = client_config(&o.suite);
    let c0 = cpu();
    let mut k = Cli::new(&cfg, connect(&o).expect("connect"), 256 * 1024).unwrap();
    k.handshake().expect("handshake");
    let t = Instant::now();
    if let Some(i) = &o.inner {
        k.c.writer().write_all(format!("{i}\r\n").as_bytes()).unwrap();
        k.flush().unwrap();
    }
    let mut buf = vec![0u8; 256 * 1024];
    let (mut got, mut err) = (0u64, String::new());
    loop {
        match k.read(&mut buf) {
            Ok(0) => break,
            Ok(n) => got += n as u64,
            Err(e) => {
                err = e.to_string();
                break;
            }
        }
        if got >= o.n {
            break;
        }
    }
    let s = t.elapsed().as_secs_f64();
    k.bye();
    println!(
        "{{\"bytes\":{got},\"ok\":{},\"secs\":{s:.4},\"bytes_per_s\":{:.0},\"client_cpu_s\":{:.4},\"suite\":{:?},\"lasterr\":{err:?}}}",
        got >= o.n,
        got as f64 / s,
        cpu() - c0,
        k.c.negotiated_cipher_suite().map(|s| format!("{:?}", s.suite())).unwrap_or_default(),
    );
}

pub fn idle(o: Opt) {
    let cfg = client_config(&o.suite);
    let t = Instant::now();
    let mut v = Vec::new();
    let (mut fail, mut last) = (0, String::new());
    for _ in 0..o.c {
        let r = connect(&o).and_then(|s| Cli::new(&cfg, s, 4096)).and_then(|mut k| {
            k.handshake()?;
            Ok(k)
        });
        match r {
            Ok(k) => v.push(k),
            Err(e) => {
                fail += 1;
                last = e.to_string();
                if fail > 20 {
                    break;
                }
            }
        }
    }
    println!("{{\"open\":{},\"fail\":{fail},\"secs\":{:.4},\"lasterr\":{last:?}}}", v.len(), t.elapsed().as_secs_f64());
    io::stdout().flush().unwrap();
    let mut b = [0u8; 64];
    while matches!(io::stdin().read(&mut b), Ok(n) if n > 0) {}
}

fn server_config(o: &Opt) -> Arc<ServerConfig> {
    let certs: Vec<_> = CertificateDer::pem_file_iter(&o.cert).expect("cert").map(|c| c.unwrap()).collect();
    let key = PrivateKeyDer::from_pem_file(&o.key).expect("key");
    let c = ServerConfig::builder_with_provider(provider(&o.suite))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(certs, key)
        .unwrap();
    Arc::new(c)
}

struct Srv {
    c: ServerConnection,
    s: TcpStream,
}
impl Srv {
    fn flush(&mut self) -> io::Result<()> {
        while self.c.wants_write() {
            self.c.write_tls(&mut self.s)?;
        }
        Ok(())
    }
    fn handshake(&mut self) -> io::Result<()> {
        while self.c.is_handshaking() {
            self.flush()?;
            if self.c.read_tls(&mut self.s)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            self.c.process_new_packets().map_err(io::Error::other)?;
        }
        self.flush()
    }
    fn put(&mut self, b: &[u8]) -> io::Result<()> {
        self.c.writer().write_all(b)?;
        self.flush()
    }
}

/// The bare rustls server: a few blocking threads, no superserver around it.
pub fn serve(o: Opt) {
    let cfg = server_config(&o);
    unsafe {
        // rustls allocates each record; without this malloc gives the heap back and re-faults it
        // for every batch
        libc::mallopt(libc::M_TRIM_THRESHOLD, 64 << 20);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 64 << 20);
    }
    let l = TcpListener::bind((o.host.as_str(), o.port)).expect("bind");
    unsafe { libc::listen(l.as_raw_fd(), 4096) };
    let (l, o) = (Arc::new(l), Arc::new(o));
    let mut hs = Vec::new();
    for _ in 0..o.threads {
        let (l, o, cfg) = (l.clone(), o.clone(), cfg.clone());
        hs.push(std::thread::spawn(move || {
            let mut held = Vec::new();
            let mut buf = vec![0u8; 256 * 1024];
            loop {
                let Ok((s, _)) = l.accept() else { continue };
                let _ = s.set_nodelay(true);
                let _ = one(&o, &cfg, s, &mut held, &mut buf);
            }
        }));
    }
    for h in hs {
        let _ = h.join();
    }
}

fn one(o: &Opt, cfg: &Arc<ServerConfig>, s: TcpStream, held: &mut Vec<Srv>, buf: &mut [u8]) -> io::Result<()> {
    let mut v = Srv { c: ServerConnection::new(cfg.clone()).map_err(io::Error::other)?, s };
    v.c.set_buffer_limit(None);
    v.handshake()?;
    let batch = (o.n as usize * 1024).clamp(1024, buf.len());
    match o.rest[0].as_str() {
        "line" => v.put(b"line: one fixed line from the backend\r\n")?,
        "src" => {
            let mut left: u64 = o.rest[1].parse().unwrap();
            buf.fill(0);
            while left > 0 {
                let n = left.min(batch as u64) as usize;
                v.put(&buf[..n])?;
                left -= n as u64;
            }
        }
        "exec" => {
            use std::os::fd::OwnedFd;
            use std::os::unix::net::UnixStream;
            let (mut us, them) = UnixStream::pair()?;
            let mut cmd = std::process::Command::new(&o.rest[1]);
            cmd.args(&o.rest[2..]);
            cmd.stdin(OwnedFd::from(them.try_clone()?)).stdout(OwnedFd::from(them));
            let mut ch = cmd.spawn()?;
            drop(cmd); // our copies of the child's end
            loop {
                let n = us.read(&mut buf[..batch])?;
                if n == 0 {
                    break;
                }
                v.put(&buf[..n])?;
            }
            let _ = ch.wait();
        }
        _ => {
            held.push(v);
            return Ok(());
        }
    }
    v.c.send_close_notify();
    v.flush()
}
