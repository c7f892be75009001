//! What a process has mounted below its own directory in /proc, in a namespace of its own, is
//! removed when somebody reaps it, who waits for whoever serves that file system (FUSE): for as long
//! as that likes, and no signal ends it. So nothing that serves all reaps what somebody else's
//! program was.

mod support;

use nix::sys::signal::Signal;
use std::process::Command;
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
    #include <stdio.h>
    #include <stdlib.h>
    #include <string.h>
    #include <sys/mman.h>
    #include <sys/mount.h>
    #include <sys/stat.h>
    #include <unistd.h>

    static int slow, other;
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

    static void *take(void *none) {
        read(slow, nothing, 1 << 18);
        return 0;
    }

    static int mounted(int device, char *at) {
        char how[99];
        sprintf(how, "fd=%d,rootmode=40000,user_id=%d,group_id=%d", device, getuid(), getgid());
        return mount("x", at, "fuse", 0, how);
    }

    int main(int n, char **words) {
        char at[99], file[4200], told;
        int done[2];
        pthread_t serves, takes;
        sprintf(at, "/proc/%d/task", getpid());
        sprintf(file, "%s/x", words[2]);
        if (unshare(CLONE_NEWNS) || mount(0, "/", 0, MS_REC | MS_PRIVATE, 0) || pipe(done)) return 1;
        slow = open("/dev/fuse", O_RDWR);
        other = open("/dev/fuse", O_RDWR);
        if (fork()) {
            close(done[1]);
            close(slow);
            close(other);
            return read(done[0], &told, 1) == 1 ? 0 : 2;
        }
        if (mounted(other, words[2])) return 3;
        pthread_create(&serves, 0, serve, 0);
        int f = open(file, O_RDONLY);
        nothing = mmap(0, 1 << 18, PROT_READ | PROT_WRITE, MAP_PRIVATE, f, 0);
        close(f);
        if (f < 0 || mounted(slow, at)) return 4;
        pthread_create(&takes, 0, take, 0);
        usleep(200000);
        write(done[1], "x", 1);
        for (n = 0; n < 3; n++) close(n);
        for (n = 0; n < 900 && access(words[1], F_OK); n++) usleep(100000);
        _exit(0);
    }"#;

const HELLO: &str = "+Go\r\nhello\n";

#[test]
fn whoever_keeps_a_child_from_being_reaped_keeps_nobody_else_waiting() {
    if !root() || !installed("cc") || !std::path::Path::new("/dev/fuse").exists() {
        return skip("needs root, a C compiler, and fuse");
    }
    let conf = "hello stream tcp nowait nobody /bin/echo echo hello\n\
                x stream tcp nowait root @DIR@/x x @DIR@/release @DIR@/other\n";
    let d = Daemon::with(conf).file("x.c", HANGS);
    let mut cc = Command::new("cc");
    cc.args(["-static", "-O2", "-w", "-pthread", "-o"]).args([d.place.at("x"), d.place.at("x.c")]);
    assert!(cc.status().expect("cc").success());
    std::fs::create_dir(d.place.at("other")).expect("directory");
    let mut d = d.start();
    for n in 1..=3 {
        same(d.ask("x\r\n"), "+Go\r\n");
        let lines = d.wait_logs("EXIT service=x", n);
        assert!(lines.iter().all(|l| l.contains("status=0")), "{lines:?}");
        (0..3).for_each(|_| same(d.ask("hello\r\n"), HELLO));
    }
    d.wait_logs("EXIT service=hello", 9);
    d.reload(conf);
    same(d.ask("hello\r\n"), HELLO);
    d.signal(Signal::SIGTERM);
    d.wait_log("stopping");
    let address = d.addresses[0];
    until("the port is free", || std::net::TcpListener::bind(address).is_ok());
    d.place.write("release", "", 0o644);
    assert_eq!(d.wait(), 0);
}
