//! Root without some of its rights, as in a container: fived serves with what it can have and says
//! once what is missing, or ends at the start with a sentence that names the right. It never loops.

mod support;
#[path = "support/tls.rs"]
mod tls;

use support::*;
use tls::Tls;

const CONF: &str = "hello stream tcp nowait @USER@ /bin/echo echo hello\n";
const HELLO: &str = "+Go\r\nhello\n";

/// Root without that right. None: this system cannot be asked so.
fn without(right: &str) -> Option<support::Builder> {
    if !(root() && installed("setpriv")) {
        skip("needs root and setpriv");
        return None;
    }
    let (bounding, inherited) =
        (format!("--bounding-set=-{right}"), format!("--inh-caps=-{right}"));
    Some(Daemon::with(CONF).under(&["setpriv", &bounding, &inherited]))
}

fn serves(d: &Daemon) {
    same(d.ask("hello\r\n"), HELLO);
    let mut c = Tls::start(d.connect().0, "nobody.example");
    c.send(b"hello\r\n");
    assert_eq!(c.read_all(), HELLO.as_bytes());
}

#[test]
fn missing_rights_are_logged_once_and_the_rest_is_served() {
    for right in ["sys_chroot", "kill", "sys_admin", "net_admin", "net_bind_service"] {
        let Some(builder) = without(right) else { return };
        let d = builder.start();
        serves(&d);
        let name = format!("CAP_{}", right.to_uppercase());
        let (log, net) = (d.log(), d.net_pid());
        assert_eq!(log.lines().filter(|l| l.starts_with("WARN ")).count(), 1, "{log}");
        assert!(
            log.contains(&format!("WARN fived does not have all rights of root: {name}: ")),
            "{log}"
        );
        // What can be had is had.
        assert_eq!(
            [proc::status(net, "CapEff"), proc::status(net, "Seccomp")],
            ["0000000000000000", "2"]
        );
        assert!(!proc::status(net, "Uid").starts_with('0'));
    }
}

#[test]
fn without_what_it_cannot_do_without_it_ends_with_a_sentence() {
    for right in ["setuid", "setgid"] {
        for background in [false, true] {
            let Some(builder) = without(right) else { return };
            let (code, message) =
                if background { builder.arg("-b").fails() } else { builder.fails() };
            assert!(
                code == 111
                    && message.contains(&format!("CAP_{} is missing: ", right.to_uppercase())),
                "{code} {message}"
            );
        }
    }
}

#[test]
fn it_needs_no_proc() {
    if !(root() && installed("unshare")) {
        return skip("needs root and unshare");
    }
    let d = Daemon::with(CONF)
        .under(&["unshare", "-m", "sh", "-c", "umount -l /proc; exec \"$@\"", "sh"])
        .start();
    serves(&d);
    // The address sanitizer looks for the program's name there.
    let is_of_fived = |l: &&str| !cfg!(asan) || !l.contains("reading executable name");
    let log = d.log();
    assert!(!log.lines().filter(is_of_fived).any(|l| l.contains("WARN ")), "{log}");
}

/// In a user namespace of its own, whose root is not root over the network that it is in: that of a
/// container without root that shares its host's network.
const IN_THE_HOST_S_NETWORK: &str = "
unshare -U sleep 100 </dev/null >/dev/null 2>&1 &
until [ \"$(readlink /proc/$!/ns/user)\" != \"$(readlink /proc/self/ns/user)\" ]; do sleep 0.02; done
echo 0 0 65536 >/proc/$!/uid_map && echo 0 0 65536 >/proc/$!/gid_map || exit
exec nsenter -t $! -U -S 0 -G 0 \"$@\"";

#[test]
fn a_root_without_rights_over_its_network_serves() {
    if !(root() && installed("unshare") && installed("nsenter")) {
        return skip("needs root, unshare and nsenter");
    }
    let d = Daemon::with(CONF).under(&["sh", "-c", IN_THE_HOST_S_NETWORK, "sh"]).start();
    serves(&d);
    let log = d.log();
    assert_eq!(log.lines().filter(|l| l.starts_with("WARN ")).count(), 1, "{log}");
    assert!(log.contains("WARN network namespace: ") && log.contains("get Unix sockets"), "{log}");
}

/// In a user namespace with these maps, and a network namespace of its own.
const MAPPED: &str = "
unshare -U -n sleep 100 </dev/null >/dev/null 2>&1 &
until [ \"$(readlink /proc/$!/ns/net)\" != \"$(readlink /proc/self/ns/net)\" ]; do sleep 0.02; done
echo @SETGROUPS@ >/proc/$!/setgroups && echo 0 0 @N@ >/proc/$!/uid_map && echo 0 0 @N@ >/proc/$!/gid_map || exit
exec nsenter -t $! -U -n --preserve-credentials \"$@\"";

#[test]
fn a_user_namespace_in_which_nothing_can_be_started_is_named() {
    if !(root() && installed("unshare") && installed("nsenter")) {
        return skip("needs root, unshare and nsenter");
    }
    for (setgroups, n, why) in [
        ("allow", "1000", "uid_map does not have 61184 to 65519"),
        ("deny", "65536", "it does not allow setgroups(2)"),
    ] {
        let script = MAPPED.replace("@SETGROUPS@", setgroups).replace("@N@", n);
        let (code, message) = Daemon::with(CONF).under(&["sh", "-c", &script, "sh"]).fails();
        let wanted = format!("user namespace: {why}");
        assert!(code == 111 && message.contains(&wanted), "{code} {message}");
        assert!(message.contains("or start fived as an ordinary user"), "{message}");
    }
}

#[test]
fn a_network_process_that_can_never_be_had_ends_the_start() {
    if !(root() && installed("strace")) {
        return skip("needs root and strace");
    }
    for background in [false, true] {
        // The parent has one poll, a network process two.
        let builder = Daemon::with(CONF).under(&[
            "strace",
            "-f",
            "-o",
            "/dev/null",
            "-e",
            "inject=epoll_create1:error=EIO:when=2",
        ]);
        let (code, message) = if background { builder.arg("-b").fails() } else { builder.fails() };
        assert!(
            code == 111 && message.contains("no network process was ready in 5 tries"),
            "{code} {message}"
        );
        assert_eq!(message.matches("WARN net: pid ").count(), 5, "{message}");
    }
}

#[test]
fn groups_that_only_root_can_take_away_are_a_warning() {
    if !(root() && installed("setpriv")) {
        return skip("needs root and setpriv");
    }
    let row = "id stream tcp nowait games /usr/bin/id id -G\n";
    for (groups, own, warns) in
        [("60,4", " groups = no\n", true), ("60", " groups = no\n", false), ("60,4", "", false)]
    {
        let groups = format!("--groups={groups}");
        let d = Daemon::with(&format!("{row}{own}"))
            .under(&["setpriv", "--reuid=games", "--regid=60", &groups])
            .start();
        let wanted = "fived.conf:2: groups: no: only root can take groups away";
        assert_eq!(d.log().contains(wanted), warns, "{groups}{own}: {}", d.log());
    }
}
