//! What a process has mounted below its own directory in /proc, in a namespace of its own, is
//! removed when somebody reaps it, who waits for whoever serves that file system (FUSE): for as long
//! as that likes, and no signal ends it. So nothing that serves all reaps what somebody else's
//! program was. And whoever reaps does not keep others that have ended from being noticed.

mod support;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::{Child, Command, Stdio};
use support::*;

/// Mounts, below its own directory in /proc, a file system whose end waits until it is released,
/// for 90 s at most, and ends. (It waits for a request that is being read, to memory that is of
/// another such file system, which does not answer.)
const HANGS: &str = r#"
    #define _GNU_SOURCE
    #include <errno.h>
    #include <fcntl.h>
    #include <linux/fuse.h>
    #include <pthread.h>
    #include <sched.h>
    #include <signal.h>
    #include <stdio.h>
    #include <stdlib.h>
    #include <string.h>
    #include <sys/mman.h>
    #include <sys/mount.h>
    #include <sys/prctl.h>
    #include <sys/stat.h>
    #include <unistd.h>

    static int other;
    static char *nothing;

    static void answer(struct fuse_in_header *asked, void *what, int size, int error) {
        char all[4096];
        struct fuse_out_header head = { sizeof head + size, error, asked->unique };
        memcpy(all, &head, sizeof head);
        memcpy(all + sizeof head, what, size);
        write(other, all, head.len);
    }

    /// A directory in which each name is a file; nothing can be read there.
    static void *serve(void *none) {
        static char in[1 << 17];
        struct fuse_in_header *asked = (void *)in;
        while (read(other, in, sizeof in) > 0) {
            struct fuse_init_out begun = { .major = 7, .minor = 31, .max_write = 4096 };
            struct fuse_attr attr = { .ino = asked->nodeid, .mode = S_IFDIR | 0755, .nlink = 1 };
            struct fuse_entry_out entry = { .nodeid = 2, .attr_valid = 1000, .entry_valid = 1000 };
            struct fuse_attr_out is = { .attr_valid = 1000 };
            struct fuse_open_out open = { .fh = 1 };
            if (asked->opcode == FUSE_LOOKUP || asked->nodeid == 2) {
                attr.ino = 2;
                attr.mode = S_IFREG | 0644;
                attr.size = 1 << 20;
            }
            entry.attr = is.attr = attr;
            switch (asked->opcode) {
            case FUSE_INIT: answer(asked, &begun, sizeof begun, 0); break;
            case FUSE_LOOKUP: answer(asked, &entry, sizeof entry, 0); break;
            case FUSE_GETATTR: answer(asked, &is, sizeof is, 0); break;
            case FUSE_OPEN: answer(asked, &open, sizeof open, 0); break;
            case FUSE_FORGET: case FUSE_BATCH_FORGET: break;
            case FUSE_FLUSH: answer(asked, 0, 0, -ENOSYS); return 0;
            default: answer(asked, 0, 0, -ENOSYS);
            }
        }
        return 0;
    }

    static void *take(void *device) {
        read((long)device, nothing, 1 << 18);
        return 0;
    }

    static int mounted(int device, char *at) {
        char how[99];
        sprintf(how, "fd=%d,rootmode=40000,user_id=%d,group_id=%d", device, getuid(), getgid());
        return mount("x", at, "fuse", 0, how);
    }

    /// 0: such a file system is mounted below the directory of that process.
    static int keep(int pid) {
        char at[99];
        pthread_t takes;
        int device = open("/dev/fuse", O_RDWR);
        sprintf(at, "/proc/%d/task", pid);
        if (mounted(device, at)) return close(device), 1;
        return pthread_create(&takes, 0, take, (void *)(long)device);
    }

    /// Does that with each child of that process that begins from now on, until it is released.
    static void watch(char *parent, char *release) {
        char list[99], all[4096], *rest;
        int first = 1, last = 0;
        sprintf(list, "/proc/%s/task/%s/children", parent, parent);
        while (access(release, F_OK)) {
            int f = open(list, O_RDONLY), n = read(f, all, sizeof all - 1), pid;
            close(f);
            all[n > 0 ? n : 0] = 0;
            for (rest = all; (pid = strtol(rest, &rest, 10)); )
                if (pid > last) {
                    last = pid;
                    if (!first && !keep(pid)) write(1, "kept\n", 5);
                }
            if (first) write(1, "watches\n", 8);
            first = 0;
        }
    }

    int main(int n, char **words) {
        char file[4200], told;
        int done[2], pid = getpid(), watches = n > 3;
        pthread_t serves;
        sprintf(file, "%s/x", words[2]);
        if (unshare(CLONE_NEWNS) || mount(0, "/", 0, MS_REC | MS_PRIVATE, 0) || pipe(done)) return 1;
        other = open("/dev/fuse", O_RDWR);
        if (!watches && fork()) {
            close(done[1]);
            close(other);
            return read(done[0], &told, 1) == 1 ? 0 : 2;
        }
        if (mounted(other, words[2])) return 3;
        pthread_create(&serves, 0, serve, 0);
        int f = open(file, O_RDONLY);
        nothing = mmap(0, 1 << 18, PROT_READ | PROT_WRITE, MAP_PRIVATE, f, 0);
        close(f);
        if (f < 0) return 4;
        if (watches) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            watch(words[3], words[1]);
            _exit(0);
        }
        if (keep(pid)) return 5;
        usleep(200000);
        write(done[1], "x", 1);
        for (n = 0; n < 3; n++) close(n);
        for (n = 0; n < 900 && access(words[1], F_OK); n++) usleep(100000);
        _exit(0);
    }"#;

const HELLO: &str = "+Go\r\nhello\n";
const CONF: &str = "hello stream tcp nowait nobody /bin/echo echo hello\n\
                    root stream tcp nowait root /bin/echo echo hello\n\
                    x stream tcp nowait root @DIR@/x x @DIR@/release @DIR@/other\n";

/// None: this cannot be done here.
fn daemon() -> Option<Daemon> {
    if !root() || !installed("cc") || !std::path::Path::new("/dev/fuse").exists() {
        skip("needs root, a C compiler, and fuse");
        return None;
    }
    let d = Daemon::with(CONF).file("x.c", HANGS);
    let mut cc = Command::new("cc");
    cc.args(["-static", "-O2", "-w", "-pthread", "-o"]).args([d.place.at("x"), d.place.at("x.c")]);
    assert!(cc.status().expect("cc").success());
    std::fs::create_dir(d.place.at("other")).expect("directory");
    Some(d.start())
}

/// The `n`th service has ended that cannot be reaped.
fn ends(d: &Daemon, n: usize) {
    same(d.ask("x\r\n"), "+Go\r\n");
    let lines = d.wait_logs("EXIT service=x", n);
    assert!(lines.iter().all(|l| l.contains("status=0")), "{lines:?}");
}

fn is_free(port: std::net::SocketAddr) {
    until("the port is free", || std::net::TcpListener::bind(port).is_ok());
}

#[test]
fn whoever_keeps_a_child_from_being_reaped_keeps_nobody_else_waiting() {
    let Some(mut d) = daemon() else { return };
    for n in 1..=3 {
        ends(&d, n);
        (0..3).for_each(|_| same(d.ask("hello\r\n"), HELLO));
    }
    d.wait_logs("EXIT service=hello", 9);
    d.reload(CONF);
    same(d.ask("hello\r\n"), HELLO);
    d.signal(Signal::SIGTERM);
    d.wait_log("stopping");
    is_free(d.addresses[0]);
    d.place.write("release", "", 0o644);
    assert_eq!(d.wait(), 0);
}

/// It ends with this, before what it keeps waiting is waited for.
struct Watches(Child);

impl Drop for Watches {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// At a reload others of fived's processes look for what the parent needs.
#[test]
fn nor_do_those_of_a_reload_that_cannot_be_reaped() {
    let Some(d) = daemon() else { return };
    let parent = d.parent_pid().to_string();
    let mut watches = Command::new(d.place.at("x"));
    watches.args([d.place.at("release"), d.place.at("other")]).arg(&parent);
    let mut watches = Watches(watches.stdout(Stdio::piped()).spawn().expect("it watches"));
    let output = BufReader::new(watches.0.stdout.take().expect("its output"));
    let (said, hears) = std::sync::mpsc::channel();
    std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|l| said.send(l)));
    let says = |what| same(hears.recv_timeout(TIMEOUT).expect("a line"), what);
    says("watches");
    for _ in 0..3 {
        d.reload(CONF);
        says("kept");
        same(d.ask("hello\r\n"), HELLO);
    }
    d.place.write("release", "", 0o644);
    assert!(watches.0.wait().expect("it ends").success());
}

/// Threads that hang cannot end, but have no descriptor.
#[test]
fn nor_the_ports_of_a_fived_that_was_killed() {
    let Some(d) = daemon() else { return };
    ends(&d, 1);
    d.signal(Signal::SIGKILL);
    is_free(d.addresses[0]);
    d.place.write("release", "", 0o644);
}

#[test]
fn a_user_with_eight_such_children_gets_no_more() {
    let Some(d) = daemon() else { return };
    (1..=8).for_each(|n| ends(&d, n));
    until("they have hung for so long", || d.ask("root\r\n") == BUSY.as_bytes());
    d.wait_log("REFUSE service=root host= from=127.0.0.1 reason=processes");
    same(d.ask("hello\r\n"), HELLO);
    d.place.write("release", "", 0o644);
    until("they have ended", || d.ask("root\r\n") == HELLO.as_bytes());
}

/// One at a time, each of them seen when the one before was reaped, they would take 25 ms each.
#[test]
fn many_services_that_end_at_once_are_noticed_at_once() {
    let limits = "max_services = 1000\nmax_services_per_source = 1000\n";
    let d = Daemon::with(&format!("{limits}cat stream tcp nowait @USER@ /bin/cat cat\n")).start();
    let clients: Vec<_> = (0..400)
        .map(|_| {
            let mut c = d.connect();
            c.send("cat\r\n").expect("+Go\r\n");
            c
        })
        .collect();
    let services = d.services();
    assert_eq!(services.len(), 400);
    // None of them is reaped before all have ended.
    let parent = proc::hold(d.parent_pid());
    services.iter().for_each(|&pid| kill(Pid::from_raw(pid), Signal::SIGKILL).expect("kill"));
    until("they have ended", || services.iter().all(|&pid| !proc::alive(pid)));
    drop(parent);
    let since = std::time::Instant::now();
    d.wait_logs("EXIT service=cat", 400);
    until("they are reaped", || services.iter().all(|&pid| proc::stat(pid).is_none()));
    assert!(since.elapsed().as_secs() < 6, "{:?}", since.elapsed());
    drop(clients);
}

/// While others come and go there is always one that has ended and was not reaped yet.
#[test]
fn what_starts_no_service_leaves_nothing_behind_however_often_it_is_asked_for() {
    let limits = "cps = UNLIMITED\nmax_sessions_per_source = 1000\n";
    let rows = "hello stream tcp nowait @USER@ /bin/echo echo hello\n\
                bad stream tcp nowait @USER@ @DIR@/bad bad\n\
                away stream tcp nowait root redirect @DIR@/away\n\
                given stream tcp nowait root handover @DIR@/given\n";
    let d = Daemon::with(&format!("{limits}{rows}")).file("bad", "no program").start();
    let bad = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(d.place.at("bad"), bad).expect("mode");
    let listener = |name| UnixListener::bind(d.place.at(name)).expect("a socket");
    let (away, given) = (listener("away"), listener("given"));
    let ask = |what: &str, answer: &str| (0..300).for_each(|_| same(d.ask(what), answer));
    std::thread::scope(|all| {
        let end = |n, at: &UnixListener| (0..n).for_each(|_| drop(at.accept().expect("a call")));
        all.spawn(move || end(600, &away));
        all.spawn(move || end(600, &given));
        for _ in 0..2 {
            all.spawn(|| ask("hello\r\n", HELLO));
            all.spawn(|| ask("bad\r\n", "-Service failed\r\n"));
            all.spawn(|| ask("away\r\n", "+Go\r\n"));
            all.spawn(|| ask("given\r\n", "+Go\r\n"));
        }
    });
    let most = proc::defunct(d.parent_pid());
    assert!(most < 200, "{most} at a time");
    until("all are reaped", || proc::defunct(d.parent_pid()) == 0);
}
