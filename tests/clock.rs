//! The wall clock jumps by years, there and back: what waits, what is refused for a time, and what
//! runs go by the clock that never jumps. All of fived's processes see the jumps, by a library that
//! their loader is told to load in a mount namespace of their own.

mod support;
#[path = "support/tls.rs"]
mod tls;
#[path = "support/yamux_raw.rs"]
mod yamux_raw;

use std::os::unix::fs::FileExt;
use std::process::Command;
use support::*;

const CONF: &str = "
request_timeout = 600
cat     stream tcp nowait @USER@ /bin/cat cat
hello   stream tcp nowait @USER@ /bin/echo echo hello
paused  stream tcp nowait @USER@ /bin/echo echo paused
 cps = 1 600
resumes stream tcp nowait @USER@ /bin/echo echo resumes
 cps = 1 1
timed   stream tcp nowait @USER@ /bin/cat cat
 server_timeout = 600
time    stream tcp nowait @USER@ internal
";

/// Adds the number in the file OFFSET to the wall clock.
const LIBRARY: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static volatile long long *offset;
__attribute__((constructor)) static void begin(void) {
    int fd = open(OFFSET, O_RDONLY | O_CLOEXEC);
    void *at = fd < 0 ? MAP_FAILED : mmap(0, 4096, PROT_READ, MAP_SHARED, fd, 0);
    if (fd >= 0) close(fd);
    if (at != MAP_FAILED) offset = at;
}
int clock_gettime(clockid_t id, struct timespec *t) {
    /* dlsym(3) would free memory, and who frees it may ask for the time. */
    int r = syscall(SYS_clock_gettime, id, t);
    if (r == 0 && offset && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) t->tv_sec += *offset;
    return r;
}
time_t time(time_t *to) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    if (to) *to = t.tv_sec;
    return t.tv_sec;
}
int gettimeofday(struct timeval *restrict to, void *restrict zone) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    to->tv_sec = t.tv_sec;
    to->tv_usec = t.tv_nsec / 1000;
    return 0;
}
"#;

/// In `/etc` as fived sees it, and in nobody else's, the loader is told of the library.
const MOUNTS: &str = "set -e
mkdir @DIR@/etc; mount -t tmpfs tmpfs @DIR@/etc; mkdir @DIR@/etc/upper @DIR@/etc/work
mount -t overlay overlay -o lowerdir=/etc,upperdir=@DIR@/etc/upper,workdir=@DIR@/etc/work /etc
echo @DIR@/jump.so >/etc/ld.so.preload
exec \"$0\" \"$@\"";

/// Seconds since 1900, which is what the service says (RFC 868).
fn seen(d: &Daemon) -> i64 {
    let answer = d.ask("time\r\n");
    let four: [u8; 4] =
        answer.strip_prefix(GO.as_bytes()).and_then(|b| b.try_into().ok()).expect("four bytes");
    i64::from(u32::from_be_bytes(four))
}

#[test]
fn jumps_of_the_wall_clock_change_nothing() {
    if !root() || !installed("unshare") || !installed("cc") {
        return skip("needs root, unshare and cc");
    }
    let overlays = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !overlays.contains("\toverlay\n") {
        return skip("needs overlay file systems");
    }
    let jumps = trial_size("clock", 6, 500);
    let builder = Daemon::with(CONF);
    let (source, library) =
        (builder.place.write("jump.c", LIBRARY, 0o644), builder.place.at("jump.so"));
    let offset = builder.place.write("offset", &"\0".repeat(4096), 0o644);
    let made = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o", &library, &source])
        .arg(format!("-DOFFSET=\"{offset}\""))
        .status();
    assert!(made.expect("cc").success());
    let file = std::fs::OpenOptions::new().write(true).open(&offset).expect("offset");
    let jump = |seconds: i64| file.write_all_at(&seconds.to_ne_bytes(), 0).expect("written");
    let d = builder.under(&["unshare", "-m", "sh", "-c", MOUNTS]).start();
    for pid in [d.parent_pid(), d.net_pid(), d.keys_pid()] {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("maps");
        assert!(maps.contains("jump.so"), "{:?} sees no jump", proc::arguments(pid));
    }

    let mut half = d.connect();
    half.send("hel");
    let (mut running, mut timed) = (d.connect(), d.connect());
    running.send("cat\r\nx").expect("+Go\r\nx");
    timed.send("timed\r\nx").expect("+Go\r\nx");
    let mut encrypted = tls::Tls::start(d.connect().0, "nobody.example");
    encrypted.send(b"HOST\r\n\r\n");
    encrypted.expect(b"+ Success\r\nWhich VHOST? Host  selected\r\n");
    let mut tcp = d.connect();
    tcp.send("MULTIPLEX\r\n").expect("+ Success\r\n");
    let mut streams = yamux_raw::Raw(tcp.0);
    streams.data(yamux_raw::SYN, 1, "cat\r\n");
    until("it pauses", || d.ask("paused\r\n") == BUSY.as_bytes());

    let (net, begun) = (d.net_pid(), seen(&d));
    const YEAR: i64 = 365 * 86_400;
    for n in 0..jumps as i64 {
        let to = [1, -1, 9, -9, 3, 0][n as usize % 6] * YEAR + n * 3600;
        jump(to);
        let moved = seen(&d) - begun - to;
        assert!((-5..3600).contains(&moved), "it is seen: {to} {moved}");
        same(d.ask("hello\r\n"), "+Go\r\nhello\n");
        same(d.ask("paused\r\n"), BUSY);
        running.send("still here").expect("still here");
        timed.send("still here").expect("still here");
        streams.data(0, 1, "still here");
    }
    until("it goes on after its pause", || {
        let now = d.ask("resumes\r\n");
        now == b"+Go\r\nresumes\n"
    });
    jump(-2 * YEAR);
    until("and after another", || d.ask("resumes\r\n") == BUSY.as_bytes());
    jump(-4 * YEAR);
    until("which is over soon", || d.ask("resumes\r\n") != BUSY.as_bytes());
    same(half.send("lo\r\n").read_all(), "+Go\r\nhello\n");
    encrypted.send(b"hello\r\n");
    same(encrypted.read_all(), "+Go\r\nhello\n");
    let (mut heard, wanted) = (0, "+Go\r\n".len() + jumps * "still here".len());
    while heard < wanted {
        heard += streams.next().payload.len();
    }
    assert_eq!(d.net_pid(), net, "nobody was replaced");
    assert!(!d.log().contains("WARN"), "{}", d.log());
    trial(
        "clock",
        format!("{jumps} jumps of up to nine years, nothing ended and nothing was let in for it"),
    );
}
