//! The TLS and yamux halves of the benchmarks: clients, and bare servers that are the limit.
//!
//!   fived-bench tls-hs    -h HOST -p PORT -c CLIENTS -d SECS [-w WARM] [-P PRE] [-I INNER] [-e EXPECT] [-s SUITE]
//!   fived-bench tls-bulk  -h HOST -p PORT -n BYTES [-P PRE] [-I INNER] [-s SUITE]
//!   fived-bench tls-idle  -h HOST -p PORT -c CONNECTIONS [-P PRE]
//!   fived-bench tls-serve -a ADDR -p PORT -C CERT -K KEY -t THREADS [-n KIB_PER_WRITE] line|hold|src BYTES|exec PROG ARGS...
//!   fived-bench yamux-serve -a ADDR -p PORT
//!   fived-bench yamux-lat   -h HOST -p PORT -c IN_FLIGHT -d SECS
//!   fived-bench yamux-bulk  -h HOST -p PORT -c STREAMS -n BYTES_TOTAL
//!   fived-bench resume-lat  -h HOST -p PORT -P SSL -I NAME -d SECS [-e EXPECT] multiplex|resume
//!   fived-bench resume-bulk -h HOST -p PORT -P SSL -I NAME -c STREAMS -n BYTES_TOTAL multiplex|resume
//!   fived-bench resume-idle -h HOST -p PORT -P SSL [-I NAME] -c SESSIONS multiplex|resume
//!   fived-bench cutter      -h HOST -p PORT -d SECS
//!
//! -P PRE: a TCPMUX name asked for in the clear first (answer line must begin with '+'), e.g. SSL.
//! -I INNER: a TCPMUX name asked for inside TLS (its "+..." line counts as data).
mod resume;
mod tls;
mod yam;

use std::time::Instant;

#[derive(Default, Clone)]
pub struct Opt {
    pub host: String,
    pub port: u16,
    pub c: usize,
    pub secs: f64,
    pub warm: f64,
    pub n: u64,
    pub pre: Option<String>,
    pub inner: Option<String>,
    pub expect: Vec<u8>,
    pub suite: String,
    pub cert: String,
    pub key: String,
    pub threads: usize,
    pub rest: Vec<String>,
}

fn main() {
    let mut a = std::env::args().skip(1);
    let cmd = a.next().unwrap_or_default();
    let mut o = Opt { host: "127.0.0.1".into(), c: 1, secs: 2.0, warm: 0.2, threads: 1, ..Default::default() };
    let mut it = a.peekable();
    while let Some(f) = it.next() {
        let mut v = || it.next().unwrap_or_else(|| panic!("{f} needs a value"));
        match f.as_str() {
            "-h" | "-a" => o.host = v(),
            "-p" => o.port = v().parse().unwrap(),
            "-c" => o.c = v().parse().unwrap(),
            "-d" => o.secs = v().parse().unwrap(),
            "-w" => o.warm = v().parse().unwrap(),
            "-n" => o.n = v().parse().unwrap(),
            "-P" => o.pre = Some(v()),
            "-I" => o.inner = Some(v()),
            "-e" => o.expect = v().replace("\\r", "\r").replace("\\n", "\n").into_bytes(),
            "-s" => o.suite = v(),
            "-C" => o.cert = v(),
            "-K" => o.key = v(),
            "-t" => o.threads = v().parse().unwrap(),
            _ => {
                o.rest.push(f);
                o.rest.extend(it.by_ref());
            }
        }
    }
    match cmd.as_str() {
        "tls-hs" => tls::hs(o),
        "tls-bulk" => tls::bulk(o),
        "tls-idle" => tls::idle(o),
        "tls-serve" => tls::serve(Opt { n: if o.n == 0 { 32 } else { o.n }, ..o }),
        "yamux-serve" => yam::serve(o),
        "yamux-lat" => yam::lat(o),
        "yamux-bulk" => yam::bulk(o),
        "resume-lat" => resume::lat(o),
        "resume-bulk" => resume::bulk(o),
        "resume-idle" => resume::idle(o),
        "cutter" => resume::cutter(o),
        _ => {
            eprintln!("fived-bench: unknown command {cmd:?}");
            std::process::exit(2);
        }
    }
}

pub fn cpu() -> f64 {
    unsafe {
        let mut r: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut r);
        let t = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
        t(r.ru_utime) + t(r.ru_stime)
    }
}

/// One JSON line in the shape muxload prints.
pub fn report(mut lat: Vec<u32>, errors: u64, secs: f64, cpu_s: f64, last: &str) {
    lat.sort_unstable();
    let q = |f: f64| if lat.is_empty() { 0.0 } else { lat[((lat.len() - 1) as f64 * f) as usize] as f64 / 10.0 };
    let mean = if lat.is_empty() { 0.0 } else { lat.iter().map(|&x| x as f64).sum::<f64>() / lat.len() as f64 / 10.0 };
    println!(
        "{{\"conns\":{},\"errors\":{errors},\"secs\":{secs:.4},\"rate\":{:.2},\"mean_us\":{mean:.1},\"p50_us\":{:.1},\"p99_us\":{:.1},\"max_us\":{:.1},\"client_cpu_s\":{cpu_s:.4},\"lasterr\":{last:?}}}",
        lat.len(),
        lat.len() as f64 / secs,
        q(0.5),
        q(0.99),
        q(1.0)
    );
}

pub fn us10(t: Instant) -> u32 {
    (t.elapsed().as_nanos() / 100).min(u32::MAX as u128) as u32
}
