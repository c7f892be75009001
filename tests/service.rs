//! What a service gets, exactly. It is looked at from outside, in /proc, while it runs.

mod support;
use support::*;

/// A running `cat` with these attributes (and settings before the row), its client, and its process
/// id.
fn cat(attributes: &str) -> (Daemon, Client, i32) {
    running(&format!(
        "cat stream tcp nowait @USER@ /bin/cat cat\n {}\n",
        attributes.replace('\n', "\n ")
    ))
}

fn running(conf: &str) -> (Daemon, Client, i32) {
    held(Daemon::with(conf).start())
}

fn held(d: Daemon) -> (Daemon, Client, i32) {
    let mut c = d.connect();
    c.send("cat\r\nx").expect("+Go\r\nx");
    let pid = d.service("cat");
    (d, c, pid)
}

/// What a script says, run as the service `x` with these attributes.
fn output_of(script: &str, attributes: &str) -> String {
    let conf =
        format!("x stream tcp nowait @USER@ @DIR@/script\n {}\n", attributes.replace('\n', "\n "));
    let d = Daemon::with(&conf).file("script", &format!("#!/bin/sh\n{script}\n")).start();
    let text = String::from_utf8(d.ask("x\r\n")).expect("UTF-8");
    text.strip_prefix(GO).unwrap_or_else(|| panic!("{text:?}: {}", d.log())).into()
}

/// uid and gid of somebody.
fn ids(name: &str) -> (String, String) {
    let user = nix::unistd::User::from_name(name).expect("passwd").expect("user");
    (user.uid.to_string(), user.gid.to_string())
}

#[test]
fn three_descriptors_the_client_s_own_socket() {
    let (_d, c, pid) = cat("");
    let open = proc::descriptors(pid);
    assert_eq!(open.iter().map(|d| d.0).collect::<Vec<_>>(), [0, 1, 2]);
    let socket = &open[0].1;
    assert!(socket.starts_with("socket:") && open.iter().all(|d| &d.1 == socket), "{open:?}");
    // getpeername: the kernel's table has this very socket, and the client at its other end.
    let port = c.0.local_addr().expect("address").port();
    let inode = socket.trim_matches(|c: char| !c.is_ascii_digit());
    let tables = ["tcp", "tcp6"]
        .map(|t| std::fs::read_to_string(format!("/proc/net/{t}")).unwrap_or_default())
        .concat();
    let line =
        tables.lines().find(|l| l.split_whitespace().nth(9) == Some(inode)).expect("a TCP socket");
    let remote = line.split_whitespace().nth(2).expect("an address");
    assert!(remote.ends_with(&format!(":{port:04X}")), "{line}");
}

#[test]
fn getpeername_is_the_client() {
    if !installed("perl") {
        return skip("needs perl");
    }
    let perl = r#"exec perl -MSocket -e 'my ($p, $a) = sockaddr_in(getpeername(STDIN)); print inet_ntoa($a), ":$p"'"#;
    let d = Daemon::with("x stream tcp nowait @USER@ @DIR@/script\n")
        .file("script", &format!("#!/bin/sh\n{perl}\n"))
        .start();
    let mut c = d.connect();
    let me = c.0.local_addr().expect("address").to_string();
    same(c.send("x\r\n").read_all(), format!("{GO}{me}"));
}

#[test]
fn the_socket_blocks() {
    let (_d, _c, pid) = cat("");
    let info = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/0")).expect("fdinfo");
    let flags = info.lines().find_map(|l| l.strip_prefix("flags:")).expect("flags").trim();
    let flags = u32::from_str_radix(flags, 8).expect("octal");
    assert_eq!(flags & 0o4000, 0, "O_NONBLOCK");
}

#[test]
fn the_client_s_connection_is_out_of_fived_s_hands() {
    let (d, _c, pid) = cat("");
    let socket = &proc::descriptors(pid)[0].1;
    if !root() {
        return skip("needs root to see net's descriptors");
    }
    for other in [d.parent_pid(), d.net_pid()] {
        until("the socket is the service's alone", || {
            proc::descriptors(other).iter().all(|o| &o.1 != socket)
        });
    }
}

#[test]
fn the_environment_is_this_and_nothing_else() {
    let conf = "Cat stream tcp nowait @USER@ /bin/cat cat\n";
    let (d, c, pid) = held(Daemon::with(conf).env("FIVED_TEST_LEAK", "1").start());
    let me = nix::unistd::User::from_name(&user()).expect("passwd").expect("user");
    let session =
        d.wait_log("START service=Cat").rsplit_once("session=").expect("session").1.to_string();
    let mut wanted = vec![
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_string(),
        "PROTO=TCP".into(),
        "TCPLOCALIP=127.0.0.1".into(),
        format!("TCPLOCALPORT={}", d.address().port()),
        "TCPREMOTEIP=127.0.0.1".into(),
        format!("TCPREMOTEPORT={}", c.0.local_addr().expect("address").port()),
        "REMOTE_ADDR=127.0.0.1".into(),
        format!("REMOTE_PORT={}", c.0.local_addr().expect("address").port()),
        "REMOTE_HOST=127.0.0.1".into(),
        "FIVED_SERVICE=Cat".into(),
        "FIVED_HOST=".into(),
        format!("FIVED_SESSION={session}"),
        format!("HOME={}", me.dir.display()),
        format!("USER={}", me.name),
        format!("LOGNAME={}", me.name),
        format!("SHELL={}", me.shell.display()),
    ];
    wanted.sort();
    assert_eq!(proc::environment(pid), wanted);
}

#[test]
fn a_mapped_address_is_written_as_ipv4() {
    if !has_ipv6() {
        return;
    }
    let d = Daemon::with("x stream tcp nowait @USER@ /bin/sh sh -c 'echo $TCPREMOTEIP $REMOTE_ADDR $TCPLOCALIP $REMOTE_HOST'\n")
        .listen("[::]:0")
        .start();
    let ask = |ip: &str| {
        Client::connect(std::net::SocketAddr::new(ip.parse().expect("ip"), d.address().port()))
            .send("x\r\n")
            .read_all()
    };
    same(ask("127.0.0.1"), "+Go\r\n127.0.0.1 127.0.0.1 127.0.0.1 127.0.0.1\n");
    same(ask("::1"), "+Go\r\n::1 ::1 ::1 ::1\n");
}

#[test]
fn env_and_passenv() {
    let conf = "cat stream tcp nowait @USER@ /bin/cat cat\n env = A=1 \"B=two words\" HOME=/elsewhere\n env += C=3\n passenv = FIVED_TEST_GIVEN FIVED_TEST_MISSING SHELL HOME SHELL\n";
    let (_d, _c, pid) = held(
        Daemon::with(conf)
            .env("FIVED_TEST_GIVEN", "given")
            .env("FIVED_TEST_LEAK", "1")
            .env("SHELL", "/passed")
            .start(),
    );
    let env = proc::environment(pid);
    for word in
        ["A=1", "B=two words", "C=3", "HOME=/elsewhere", "FIVED_TEST_GIVEN=given", "SHELL=/passed"]
    {
        assert!(env.iter().any(|w| w == word), "{word} in {env:?}");
    }
    assert!(!env.iter().any(|w| w.contains("MISSING") || w.contains("LEAK")), "{env:?}");
    let names: std::collections::HashSet<_> = env.iter().map(|w| w.split('=').next()).collect();
    assert_eq!(names.len(), env.len(), "each once: {env:?}");
}

#[test]
fn arguments_as_written() {
    let (_d, _c, pid) = running("cat stream tcp nowait @USER@ /bin/cat cat -u -\n");
    assert_eq!(proc::arguments(pid), ["cat", "-u", "-"]);
    let (_d, _c, pid) = running("cat stream tcp nowait @USER@ /bin/cat\n");
    assert_eq!(proc::arguments(pid), ["cat"], "the base name where none is given");
}

#[test]
fn its_user_and_group() {
    let (_d, _c, pid) = cat("");
    let (uid, gid) = ids(&user());
    assert_eq!(proc::status(pid, "Uid"), [&*uid; 4].join(" "));
    assert_eq!(proc::status(pid, "Gid"), [&*gid; 4].join(" "));
    if root() {
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(proc::status(pid, set), "0000000000000000", "{set}");
        }
        let groups = proc::status(pid, "Groups");
        assert!(groups.is_empty() || groups == gid, "{groups}");
    }
}

#[test]
fn groups_named_in_the_row_or_beside_it() {
    if !root() {
        return skip("needs root");
    }
    let daemon =
        nix::unistd::Group::from_name("daemon").expect("group").expect("daemon").gid.to_string();
    for (user, more) in [
        ("nobody.daemon", ""),
        ("nobody:daemon", ""),
        ("nobody:daemon/class", ""),
        ("nobody", " group = daemon\n"),
    ] {
        let (_d, _c, pid) = running(&format!("cat stream tcp nowait {user} /bin/cat\n{more}"));
        assert_eq!(proc::status(pid, "Gid"), [&*daemon; 4].join(" "), "{user} {more}");
        assert_eq!(proc::status(pid, "Uid"), [&*ids("nobody").0; 4].join(" "));
    }
}

#[test]
fn supplementary_groups_are_the_user_s() {
    if !root() || !installed("unshare") {
        return skip("needs root and unshare");
    }
    // A group file that has nobody in two groups more, seen by this daemon alone.
    let own = "grep -v ^fivedtest /etc/group >@DIR@/group; printf 'fivedtest1:x:61001:nobody\\nfivedtest2:x:61002:nobody\\n' >>@DIR@/group; mount --bind @DIR@/group /etc/group && exec \"$0\" \"$@\"";
    let conf = "cat stream tcp nowait nobody /bin/cat\nnone stream tcp nowait nobody /bin/cat none\n groups = no\n";
    let d = Daemon::with(conf).under(&["unshare", "-m", "sh", "-c", own]).start();
    let (d, _c, pid) = held(d);
    let groups = proc::status(pid, "Groups");
    assert!(groups.contains("61001") && groups.contains("61002"), "{groups}");
    let mut c = d.connect();
    c.send("none\r\nx").expect("+Go\r\nx");
    let groups = proc::status(d.service("none"), "Groups");
    assert!(groups.is_empty() || groups == ids("nobody").1, "{groups}");
}

#[test]
fn root_is_root_where_the_row_says_so() {
    if !root() {
        return skip("needs root");
    }
    let (d, _c, pid) = running("cat stream tcp nowait root /bin/cat\n");
    assert_eq!(proc::status(pid, "Uid"), "0 0 0 0");
    assert_eq!(proc::status(pid, "CapEff"), proc::status(d.parent_pid(), "CapEff"));
    assert!(proc::environment(pid).contains(&"USER=root".to_string()));
}

#[test]
fn its_own_session_and_process_group() {
    let (_d, _c, pid) = cat("");
    let stat = proc::stat(pid).expect("it runs");
    assert_eq!((&stat[2], &stat[3]), (&pid.to_string(), &pid.to_string()));
}

#[test]
fn a_session_keyring_of_its_own() {
    if !root() || !std::path::Path::new("/proc/keys").exists() {
        return skip("needs root and a kernel with keyrings");
    }
    // It begins with the keyring's number.
    let keyring = |text: &str| {
        text.lines().find(|l| l.contains("keyring   _ses")).map(|l| l[..8].to_string())
    };
    let d = Daemon::with("keys stream tcp nowait @USER@ /bin/cat cat /proc/keys\n").start();
    let of = || keyring(&String::from_utf8_lossy(&d.ask("keys\r\n"))).expect("a session keyring");
    let (first, second) = (of(), of());
    assert_ne!(first, second);
}

#[test]
fn no_signal_blocked_or_ignored() {
    let (_d, _c, pid) = cat("");
    for set in ["SigBlk", "SigIgn", "SigCgt"] {
        assert_eq!(proc::status(pid, set), "0000000000000000", "{set}");
    }
}

#[test]
fn signals_ignored_by_whoever_started_fived_are_at_default() {
    let d = Daemon::with("cat stream tcp nowait @USER@ /bin/cat\n")
        .under(&["sh", "-c", "trap '' PIPE HUP INT QUIT USR2; exec \"$0\" \"$@\""])
        .start();
    let (_d, _c, pid) = held(d);
    assert_eq!(proc::status(pid, "SigIgn"), "0000000000000000");
    assert_eq!(proc::status(pid, "SigBlk"), "0000000000000000");
}

#[test]
fn umask_and_directory_by_default() {
    let (_d, _c, pid) = cat("");
    assert_eq!(proc::status(pid, "Umask"), "0022");
    assert_eq!(proc::link(pid, "cwd"), "/");
    assert_eq!(proc::status(pid, "NoNewPrivs"), "0");
    assert_eq!(proc::status(pid, "Seccomp"), "0");
}

#[test]
fn umask_directory_nice_and_no_new_privs_as_written() {
    let (d, _c, pid) = cat("umask = 077\ndirectory = @DIR@\nnice = 5\nno_new_privs = yes");
    assert_eq!(proc::status(pid, "Umask"), "0077");
    assert_eq!(
        proc::link(pid, "cwd"),
        std::fs::canonicalize(&d.place.path).expect("path").to_str().expect("UTF-8")
    );
    // As nice(2) has it: from where fived, and here this test, was started.
    let nice = |pid| proc::stat(pid).expect("it runs")[16].parse::<i32>().expect("a number");
    assert_eq!(nice(pid), (nice(std::process::id() as i32) + 5).min(19));
    assert_eq!(proc::status(pid, "NoNewPrivs"), "1");
}

#[test]
fn limits_as_written() {
    let (_d, _c, pid) = cat(
        "rlimit_as = 512M\nrlimit_cpu = 10\nrlimit_data = 64M\nrlimit_files = 33\nrlimit_stack = 1024K",
    );
    let soft = |name| proc::limit(pid, name).0;
    assert_eq!(soft("Max address space"), (512u64 << 20).to_string());
    assert_eq!(soft("Max cpu time"), "10");
    assert_eq!(soft("Max data size"), (64u64 << 20).to_string());
    assert_eq!(soft("Max open files"), "33");
    assert_eq!(soft("Max stack size"), (1u64 << 20).to_string());
}

#[test]
fn limits_as_fived_was_started_with() {
    if !installed("prlimit") {
        return skip("needs prlimit");
    }
    let d = Daemon::with("cat stream tcp nowait @USER@ /bin/cat\n")
        .under(&["prlimit", "--nofile=200:1000", "--core=0:0"])
        .start();
    let (_d, _c, pid) = held(d);
    assert_eq!(
        proc::limit(pid, "Max open files"),
        ("200".into(), "1000".into()),
        "fived's own need is no service's limit"
    );
    assert_eq!(proc::limit(pid, "Max core file size").1, "0");
}

/// Linux knows no unlimited number of descriptors: each such service failed.
#[test]
fn unlimited_descriptors_are_as_many_as_fived_may_have() {
    if !installed("prlimit") {
        return skip("needs prlimit");
    }
    let d = Daemon::with("cat stream tcp nowait @USER@ /bin/cat\n rlimit_files = UNLIMITED\n")
        .under(&["prlimit", "--nofile=200:1000"])
        .start();
    let (_d, _c, pid) = held(d);
    assert_eq!(proc::limit(pid, "Max open files"), ("1000".into(), "1000".into()));
}

/// A root directory with cat(1) in it, which these commands change.
fn jail(d: &Daemon, commands: &str) {
    let all = format!(
        "mkdir -p $0/bin; for f in /bin/cat $(ldd /bin/cat | grep -o '/[^ ]*'); do mkdir -p $0$(dirname $f); cp -L $f $0$f; done; {commands}; chmod -R a+rX $0"
    );
    let made = std::process::Command::new("sh")
        .args(["-c", &all, &d.place.at("jail")])
        .status()
        .expect("sh");
    assert!(made.success());
}

#[test]
fn chroot() {
    if !root() || !installed("ldd") {
        return skip("needs root and ldd");
    }
    let conf =
        "cat stream tcp nowait nobody /bin/cat cat\n chroot = @DIR@/jail\n directory = /sub\n";
    let d = Daemon::with(conf).start();
    jail(&d, "mkdir $0/sub");
    let (d, _c, pid) = held(d);
    assert_eq!(proc::link(pid, "root"), d.place.at("jail"));
    assert_eq!(proc::link(pid, "cwd"), d.place.at("jail/sub"));
    assert_eq!(proc::status(pid, "Uid"), [&*ids("nobody").0; 4].join(" "));
}

/// A link in a root leads to what it names there.
#[test]
fn a_program_in_a_chroot_may_be_a_link() {
    if !root() || !installed("ldd") {
        return skip("needs root and ldd");
    }
    let conf = "cat stream tcp nowait nobody /bin/cat cat\n chroot = @DIR@/jail\n directory = /\n";
    // As it is started at boot.
    let d = Daemon::with(conf).under(&["env", "-C", "/"]).start();
    jail(&d, "mv $0/bin/cat $0/bin/a-cat-of-its-own; ln -s /bin/a-cat-of-its-own $0/bin/cat");
    let (d, _c, pid) = held(d);
    // Nothing outside of it is in reach.
    assert_eq!(proc::link(pid, "cwd"), d.place.at("jail"));
}

/// As a home that is not there is `/` without one.
#[test]
fn a_home_that_is_not_in_the_root_is_that_root() {
    if !root() || !installed("ldd") {
        return skip("needs root and ldd");
    }
    let conf =
        "passwords = @DIR@/passwords\ncat stream tcp nowait * /bin/cat cat\n chroot = @DIR@/jail\n";
    let d = Daemon::with(conf).file("passwords", &passwords(&["games"])).start();
    jail(&d, ":");
    let mut c = d.connect();
    c.send("AUTH\r\ngames\r\ndemopass\r\ncat\r\nx");
    c.expect("+ Success\r\nEnter Username: Enter Password: Authentication as games successful\r\n");
    c.expect("+Go\r\nx");
    assert_eq!(proc::link(d.service("cat"), "cwd"), d.place.at("jail"));
}

#[test]
fn a_directory_that_is_not_there_has_failed() {
    let d = Daemon::with("x stream tcp nowait @USER@ /bin/cat\n directory = @DIR@/none\n").start();
    same(d.ask("x\r\n"), FAILED);
    assert!(d.wait_log("REFUSE service=x").contains("reason=failed"));
}

#[test]
fn a_directory_that_its_user_may_not_enter_has_failed() {
    if !root() {
        return skip("needs root");
    }
    let d = Daemon::with("x stream tcp nowait nobody /bin/cat\n directory = @DIR@/mine\n").start();
    let mine = d.place.at("mine");
    std::fs::create_dir(&mine).expect("a directory");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(&mine, mode).expect("mode");
    same(d.ask("x\r\n"), FAILED);
}

#[test]
fn standard_error_goes_to_the_connection() {
    assert_eq!(output_of("echo out; echo err >&2", ""), "out\nerr\n");
    assert_eq!(output_of("echo out; echo err >&2", "stderr = socket"), "out\nerr\n");
}

#[test]
fn standard_error_goes_to_the_log_or_nowhere() {
    let conf = "x stream tcp nowait @USER@ @DIR@/script\n stderr = log\n";
    let d = Daemon::with(conf)
        .file("script", "#!/bin/sh\necho out; echo a word of the service >&2\n")
        .start();
    same(d.ask("x\r\n"), "+Go\r\nout\n");
    d.wait_log("a word of the service");
    let (_d, _c, pid) = cat("stderr = null");
    assert_eq!(proc::descriptors(pid)[2], (2, "/dev/null".into()));
    assert_eq!(output_of("echo out; echo err >&2", "stderr = null"), "out\n");
}

#[test]
fn a_service_over_its_time_is_ended() {
    let d = Daemon::with("cat stream tcp nowait @USER@ /bin/cat\n server_timeout = 3\n").start();
    let mut c = d.connect();
    c.send("cat\r\nx").expect("+Go\r\nx").end();
    assert!(d.wait_log("EXIT service=cat").contains(" signal=15 "));
}

#[test]
fn a_service_that_will_not_end_is_killed_with_its_children() {
    let d = Daemon::with("x stream tcp nowait @USER@ @DIR@/script\n server_timeout = 3\n")
        .file(
            "script",
            "#!/bin/sh\ntrap '' TERM\necho on\nsleep 300 &\nwhile :; do sleep 300; done\n",
        )
        .start();
    let mut c = d.connect();
    c.send("x\r\n").expect("+Go\r\non\n").end();
    assert!(d.wait_log("EXIT service=x").contains(" signal=9 "));
}

#[test]
fn what_a_service_over_its_time_leaves_behind_is_killed_too() {
    let d = Daemon::with("x stream tcp nowait @USER@ @DIR@/script\n server_timeout = 3\n")
        .file("script", "#!/bin/sh\n(trap '' TERM; echo on; while :; do sleep 1; done) &\nwait\n")
        .start();
    let mut c = d.connect();
    c.send("x\r\n").expect("+Go\r\non\n").end();
    assert!(d.wait_log("EXIT service=x").contains(" signal=15 "));
}

#[test]
fn fived_ends_only_when_what_is_left_behind_was_killed() {
    let mut d = Daemon::with("x stream tcp nowait @USER@ @DIR@/script\n server_timeout = 3\n")
        .file("script", "#!/bin/sh\n(trap '' TERM; echo on; while :; do sleep 1; done) &\nwait\n")
        .start();
    let mut c = d.connect();
    c.send("x\r\n").expect("+Go\r\non\n");
    d.wait_log("EXIT service=x");
    d.signal(nix::sys::signal::Signal::SIGTERM);
    c.end();
    assert_eq!(d.wait(), 0);
}

/// What was killed is waited for by nobody, even if it is still in the table of processes: here a
/// process of the service's group whose own parent, outside of the group, never asks for its status.
#[test]
fn fived_does_not_wait_for_what_it_has_killed() {
    if !installed("perl") {
        return skip("needs perl");
    }
    let row = "x stream tcp nowait @USER@ /usr/bin/perl perl @DIR@/script\n server_timeout = 3\n";
    let mut d = Daemon::with(&format!("shutdown_timeout = 1h\n{row}"))
        .file(
            "script",
            "my $g = $$; $| = 1;\n\
             if (!fork) { setpgrp(0, 0); if (!fork) { setpgrp(0, $g); sleep 300; exit }\n\
             print qq(on\\n); sysread(STDIN, my $b, 1); exit }\n\
             $SIG{TERM} = 'IGNORE'; sleep 300 while 1;\n",
        )
        .start();
    let mut c = d.connect();
    c.send("x\r\n").expect("+Go\r\non\n");
    assert!(d.wait_log("EXIT service=x").contains(" signal=9 "));
    d.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(d.wait(), 0);
}

#[test]
fn exit_statuses_are_logged() {
    let d = Daemon::with("x stream tcp nowait @USER@ /bin/sh sh -c 'exit 7'\ny stream tcp nowait @USER@ /bin/sh sh -c 'kill -USR1 $$'\n")
        .start();
    same(d.ask("x\r\n"), GO);
    same(d.ask("y\r\n"), GO);
    assert!(d.wait_log("EXIT service=x").contains(" status=7 "));
    assert!(d.wait_log("EXIT service=y").contains(" signal=10 "));
}

#[test]
fn half_close_reaches_the_service_and_it_can_go_on() {
    assert_eq!(output_of("cat >/dev/null; echo after the end", ""), "after the end\n");
}

#[test]
fn a_service_may_outlive_its_client_and_its_child_the_service() {
    let d = Daemon::with("x stream tcp nowait @USER@ @DIR@/script\n")
        .file("script", "#!/bin/sh\n(sleep 0.3; echo late) &\necho early\n")
        .start();
    same(d.ask("x\r\n"), "+Go\r\nearly\nlate\n");
}

#[test]
fn a_number_that_is_no_user() {
    let conf = "x stream tcp nowait 3999999999 @DIR@/x\ny stream tcp nowait 3999999999:daemon @DIR@/x\nz stream tcp nowait 4294967295 @DIR@/x\n";
    let script = "#!/bin/sh\necho $(id -u) $(id -g) $(id -G) $HOME $USER $(pwd)\n";
    if !root() {
        return skip("needs root");
    }
    let daemon = ids_of_group("daemon");
    let d = Daemon::with(conf).file("x", script).start();
    same(d.ask("x\r\n"), "+Go\r\n3999999999 3999999999 3999999999 / 3999999999 /\n");
    same(d.ask("y\r\n"), format!("+Go\r\n3999999999 {daemon} {daemon} / 3999999999 /\n"));
    same(d.ask("z\r\n"), FAILED);
    // fived itself as such a user, as in a container.
    if !installed("setpriv") {
        return skip("needs setpriv");
    }
    let d = Daemon::with("x stream tcp nowait 54321 @DIR@/x\n").file("x", script);
    let d = d.under(&["setpriv", "--reuid=54321", "--regid=54320", "--clear-groups"]).start();
    same(d.ask("x\r\n"), "+Go\r\n54321 54320 54320 / 54321 /\n");
}

fn ids_of_group(name: &str) -> String {
    nix::unistd::Group::from_name(name).expect("group").expect("group").gid.to_string()
}

#[test]
fn what_has_ended_leaves_no_timer() {
    let conf = "x stream tcp nowait @USER@ /bin/true true\n server_timeout = 3d\nstatus stream tcp nowait @USER@ internal\n";
    let d = Daemon::with(conf).start();
    let timers = || {
        let text = String::from_utf8(d.ask("status\r\n")).expect("UTF-8");
        text.lines()
            .find_map(|l| l.strip_prefix("timers_now=")?.parse::<usize>().ok())
            .expect("timers_now")
    };
    let before = timers();
    (0..20).for_each(|_| same(d.ask("x\r\n"), GO));
    // That a net starts in time is looked at later than that.
    until("no timer is left", || timers() <= before);
}

/// An HTTP health check: a script that answers and does not read what it was asked.
#[test]
fn a_client_that_is_not_read_to_its_end_has_no_reset_where_the_close_lingers() {
    let d = Daemon::with(
        "health stream tcp nowait @USER@ /bin/sh sh -c 'printf \"HTTP/1.0 200 OK\\r\\n\\r\\nfine\\n\"'\n lingering_close = yes\n\
         again stream tcp nowait/1 @USER@ /bin/echo echo once\n lingering_close = yes\n",
    )
    .start();
    let headers = format!("Host: here\r\nCookie: {}\r\n\r\n", "c".repeat(8000));
    for n in 0..200 {
        let mut c = d.connect();
        c.send("health\r\nGET / HTTP/1.0\r\n").expect("+Go\r\nHTTP/1.0 200 OK\r\n\r\nfine\n");
        // After the answer, as a client that is slow to ask.
        if n % 2 == 0 {
            d.wait_logs("EXIT service=health", n + 1);
        }
        c.try_send(headers.as_bytes()).end();
    }
    // What has ended gives its place back at once, however long its client is heard out.
    let mut first = d.connect();
    first.send("again\r\n").expect("+Go\r\nonce\n");
    d.wait_log("EXIT service=again");
    same(d.ask("again\r\n"), "+Go\r\nonce\n");
    // And the client's end is seen: it was said with the service's.
    first.end();
}
