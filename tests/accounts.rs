//! A name service that does not answer while fived reads its configuration again: the reload ends,
//! and the users, groups and names of ports that it has asked for in vain stay as they were. The
//! directory of fived(8), MANY COMPUTERS, by a module of the name service that stands in for SSSD's.

mod support;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use std::collections::HashSet;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use support::*;

const ROWS: &str = "
who stream tcp nowait local /usr/bin/id id -un
group stream tcp nowait local:locals /usr/bin/id id -gn
number stream tcp nowait 54322 /bin/sh sh -c 'id -u; id -g'
nobody stream tcp nowait * /usr/bin/id id
 require = login
 users = @locals
at stream unix nowait local /bin/cat cat
 port = @DIR@/socket
 socket_owner = local:locals
";

/// fived with a passwd and a group file of its own. None: not here.
fn with_users() -> Option<Builder> {
    with_users_and(ROWS)
}

fn with_users_and(conf: &str) -> Option<Builder> {
    if !root() || !installed("unshare") || !installed("nsenter") {
        skip("needs root, unshare and nsenter");
        return None;
    }
    let more = |path: &str, line: &str| std::fs::read_to_string(path).expect(path) + line;
    let mounts = "mount --bind @DIR@/users /etc/passwd && mount --bind @DIR@/groups /etc/group && exec \"$0\" \"$@\"";
    let d = Daemon::with(conf)
        .file("users", &more("/etc/passwd", "local:x:54321:54321::/:/bin/sh\n"))
        .file("groups", &more("/etc/group", "locals:x:54400:\n"));
    Some(d.under(&["unshare", "-m", "sh", "-c", mounts]))
}

/// Runs mount(8) or umount(8) where fived sees it.
fn mount(d: &Daemon, words: &[&str]) {
    let target = format!("--target={}", d.parent_pid());
    let done = Command::new("nsenter").args([&target, "--mount"]).args(words).status();
    assert!(done.expect("nsenter").success(), "{words:?}");
}

/// Changes a file of the place.
fn change(d: &Daemon, name: &str, from: &str, to: &str) {
    let path = d.place.at(name);
    let text = std::fs::read_to_string(&path).expect("read");
    std::fs::write(path, text.replace(from, to)).expect("write");
}

#[test]
fn a_reload_keeps_users_and_groups_that_nobody_can_look_up() {
    let Some(d) = with_users().map(Builder::start) else { return };
    let served = || {
        same(d.ask("who\r\n"), "+Go\r\nlocal\n");
        same(d.ask("group\r\n"), "+Go\r\nlocals\n");
        same(d.ask("number\r\n"), "+Go\r\n54322\n54322\n");
    };
    served();
    let net = proc::status(d.net_pid(), "Uid");
    // Whoever opens a pipe waits for the other end.
    mkfifo(d.place.at("pipe").as_str(), Mode::from_bits_truncate(0o644)).expect("mkfifo");
    mount(&d, &["mount", "--bind", &d.place.at("pipe"), "/etc/passwd"]);
    let new = "new stream tcp nowait local /bin/echo echo new\n\
        unknown stream tcp nowait somebody /bin/echo echo unknown\n";
    let line = d.reload(&format!("{ROWS}{new}"));
    assert!(line.ends_with(" services=7"), "{line}");
    let line = d.wait_log("WARN users: ");
    let why = "users: no answer within 3 s: users and groups without one stay as in the configuration before";
    assert!(line.contains(why), "{line}");
    // Programs that ask for their own name would wait, too.
    until("the new table is served", || d.ask("new\r\n") == b"+Go\r\nnew\n");
    same(d.ask("number\r\n"), "+Go\r\n54322\n54322\n");
    assert_eq!(proc::status(d.net_pid(), "Uid"), net);
    let log = d.log();
    assert!(!log.contains("local: no such") && !log.contains("locals: no such"), "{log}");
    d.wait_log("somebody: no such user: this service cannot be started");

    // A user who is new to this configuration is found when the name service is back.
    mount(&d, &["umount", "/etc/passwd"]);
    served();
    let users = std::fs::read_to_string(d.place.at("users")).expect("users");
    let users = users + "somebody:x:54323:54323::/:/bin/sh\n";
    std::fs::write(d.place.at("users"), users).expect("users");
    same(d.ask("unknown\r\n"), "+Go\r\nunknown\n");
    let before = d.log().matches("WARN users: ").count();
    d.reload(ROWS);
    served();
    assert_eq!(d.log().matches("WARN users: ").count(), before);
}

/// As after every start, so after a reload: what the name service says now.
#[test]
fn a_reload_asks_again_for_every_user_and_group() {
    let Some(d) = with_users().map(Builder::start) else { return };
    same(d.ask("who\r\n"), "+Go\r\nlocal\n");
    change(&d, "users", "local:x:54321:54321:", "local:x:54331:54331:");
    change(&d, "groups", "locals:x:54400:", "locals:x:54401:");
    d.reload(&ROWS.replace("/usr/bin/id id -un", "/usr/bin/id id -u").replace("id -gn", "id -g"));
    until("the new table is served", || d.ask("who\r\n") == b"+Go\r\n54331\n");
    same(d.ask("group\r\n"), "+Go\r\n54401\n");
    change(&d, "users", "local:x:", "gone:x:");
    d.reload("who stream tcp nowait local /usr/bin/id id -un\n");
    d.wait_log("local: no such user: this service cannot be started");
    until("the new table is served", || d.ask("who\r\n") == FAILED.as_bytes());
}

const LOGINS: &str = "
passwords = @DIR@/passwords
id stream tcp nowait * /usr/bin/id id -u
members stream tcp nowait nobody /bin/echo echo member
 users = @locals
others stream tcp nowait nobody /bin/echo echo other
 users = !@locals
";

/// A user's rights at a login are those that the user has then, as under sshd(8).
#[test]
fn who_logs_in_is_looked_up_at_that_time() {
    let Some(b) = with_users_and(LOGINS) else { return };
    let passwords = passwords(&["local", "54323"]);
    let d = b.file("passwords", &passwords).start();
    let ask = |name: &str, service: &str| {
        let all = d.ask(format!("AUTH\r\n{name}\r\ndemopass\r\n{service}\r\n"));
        let yes = format!("{ASKED}Authentication as {name} successful\r\n");
        let all = String::from_utf8_lossy(&all).into_owned();
        all.strip_prefix(&yes).expect(&all).to_string()
    };
    same(ask("local", "id"), "+Go\r\n54321\n");
    same(ask("local", "members"), NOT_AVAILABLE);
    same(ask("local", "others"), "+Go\r\nother\n");
    change(&d, "groups", "locals:x:54400:", "locals:x:54400:local");
    same(ask("local", "members"), "+Go\r\nmember\n");
    same(ask("local", "others"), NOT_AVAILABLE);
    change(&d, "users", "local:x:54321:54321:", "local:x:54331:54331:");
    same(ask("local", "id"), "+Go\r\n54331\n");
    // Of a user who is gone the password file still has the name, but no service runs as it.
    change(&d, "users", "local:x:", "gone:x:");
    same(ask("local", "id"), FAILED);
    // The name of nobody is not a uid either.
    same(ask("54323", "id"), FAILED);
}

/// The same at a Unix socket, but for a moment.
#[test]
fn who_connects_to_a_unix_socket_is_looked_up_again() {
    let Some(b) = with_users_and(TABLE) else { return };
    let d = b.arg("-l").arg("@DIR@/fived").start();
    let ask = |path: &str, request: &str| {
        let mut c = UnixStream::connect(d.place.at(path)).expect("connect");
        c.write_all(request.as_bytes()).expect("write");
        let mut all = String::new();
        c.read_to_string(&mut all).expect("read");
        all
    };
    same(ask("fived", "name\r\n"), "+Go\r\nroot\n");
    same(ask("own", ""), "root\n");
    change(&d, "users", "root:x:0:", "admin:x:0:");
    until("the name is new", || ask("fived", "name\r\n") == "+Go\r\nadmin\n");
    until("here too", || ask("own", "") == "admin\n");
    change(&d, "users", "admin:x:0:", "admin:x:54999:");
    // (The module `systemd` of the name service may still know a root.)
    until("the name is gone", || !ask("fived", "name\r\n").contains("admin"));
}

const TABLE: &str = "
name stream tcp nowait nobody /bin/sh sh -c 'echo $FIVED_USER'
 require = login
own stream unix nowait nobody /bin/sh sh -c 'echo $FIVED_USER'
 port = @DIR@/own
";

const DIRECTORY: &str = "
passwords = @DIR@/passwords
hello stream tcp nowait nobody /bin/echo echo hello
demos stream tcp nowait demo /bin/sh sh -c 'id -u; id -g'
shell stream tcp nowait * /bin/sh sh -c 'id -u; id -g'
 require = login
 users = @colleagues
";
const IDS: &str = "54511\n54600\n";

/// The module whose place ours takes: it belongs to the C library, and nobody uses it.
fn unused_module() -> Option<String> {
    let directories = ["/lib", "/usr/lib"].map(|d| std::fs::read_dir(d).into_iter().flatten());
    let below = directories.into_iter().flatten().flatten().map(|e| e.path());
    let all = below.chain(["/lib64", "/usr/lib64"].map(Into::into));
    let mut modules = all.map(|d| d.join("libnss_hesiod.so.2")).filter(|m| m.exists());
    Some(modules.next()?.to_str()?.to_string())
}

/// fived on a computer whose users are also in a directory. None: not here.
fn with_directory(conf: &str) -> Option<Builder> {
    let module = unused_module().filter(|_| root() && installed("unshare") && installed("cc"));
    let Some(module) = module else {
        skip("needs root, unshare, cc and the module hesiod of the C library");
        return None;
    };
    let mounts = format!(
        "mount --bind @DIR@/module {module} && mount --bind @DIR@/nsswitch.conf /etc/nsswitch.conf && exec \"$0\" \"$@\""
    );
    let databases = "passwd: files hesiod\ngroup: files hesiod\nservices: files hesiod\n";
    let d = Daemon::with(conf)
        .file("nsswitch.conf", databases)
        .file("directory.c", include_str!("support/directory.c"))
        .file("passwords", &passwords(&["demo"]))
        .file("directory", "");
    let out = Command::new("cc")
        .args(["-shared", "-fPIC", "-o", &d.place.at("module"), &d.place.at("directory.c")])
        .arg(d.place.fill("-DDIRECTORY=\"@DIR@\""))
        .output()
        .expect("cc");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    Some(d.under(&["unshare", "-m", "sh", "-c", &mounts]))
}

/// What the service says to the user of the directory, who logs in.
fn as_demo(d: &Daemon, service: &str) -> String {
    let all = d.ask(format!("AUTH\r\ndemo\r\ndemopass\r\n{service}\r\n"));
    let all = String::from_utf8_lossy(&all).into_owned();
    let (_, after) = all.split_once("Password: ").expect("a dialogue");
    after.split_once("\r\n").expect("an answer").1.to_string()
}

#[test]
fn users_and_groups_of_a_directory_and_a_directory_that_does_not_answer() {
    let Some(d) = with_directory(DIRECTORY).map(Builder::start) else { return };
    let shell = || as_demo(&d, "shell");
    same(d.ask("demos\r\n"), format!("{GO}{IDS}"));
    same(shell(), format!("{GO}{IDS}"));

    // It does not answer: who was known is served, also after a reload.
    d.place.write("hangs", "", 0o644);
    same(shell(), format!("{GO}{IDS}"));
    d.reload(&DIRECTORY.replace("echo hello", "echo again"));
    d.wait_log("WARN users: no answer within 3 s");
    until("the new table is served", || d.ask("hello\r\n") == b"+Go\r\nagain\n");
    let log = d.log();
    assert!(!log.contains("no such group") && !log.contains("demo: no such user: this"), "{log}");
    same(d.ask("demos\r\n"), format!("{GO}{IDS}"));
    same(shell(), format!("{GO}{IDS}"));

    // A rule that refuses a group would refuse nobody, if nobody is known to be in it.
    let refusing =
        |group: &str| DIRECTORY.replace("users = @colleagues", &format!("users = !@{group}"));
    let line = d.reload(&refusing("others"));
    assert!(line.ends_with(" refused mistakes=2"), "{line}");
    d.wait_log("!@others: expected a group that can be looked up, found no answer");
    same(shell(), format!("{GO}{IDS}"));
    d.reload(&refusing("colleagues"));
    until("the new table is served", || as_demo(&d, "shell") == NOT_AVAILABLE);
}

/// What one of them has put into its keyring, a name server's answer among it, another does not
/// find.
#[test]
fn each_look_up_has_a_session_keyring_of_its_own() {
    let Some(d) = with_directory(DIRECTORY).map(Builder::start) else { return };
    d.place.write("keyrings", "", 0o666);
    for n in 1..4 {
        same(as_demo(&d, "shell"), format!("{GO}{IDS}"));
        let keyrings = read(&d.place.at("keyrings"));
        let all: HashSet<&str> = keyrings.lines().collect();
        assert!(all.len() >= n && all.iter().all(|k| !k.starts_with('-')), "{all:?}");
    }
}

const ASKED: &str = "+ Success\r\nEnter Username: Enter Password: ";
const REFUSING: &str = "
passwords = @DIR@/passwords
others stream tcp nowait nobody /bin/echo echo others
 users = !@colleagues
";

/// A rule that refuses a group would not refuse a user whose groups nobody knows.
#[test]
fn a_user_about_whom_the_directory_does_not_answer_is_not_logged_in() {
    let Some(d) = with_directory(REFUSING).map(Builder::start) else { return };
    let is_not_logged_in = |lines| {
        let all = d.ask("AUTH\r\ndemo\r\ndemopass\r\nothers\r\n");
        same(all, format!("{ASKED}- Authentication failed\r\n{NOT_AVAILABLE}"));
        d.wait_logs("LOGIN user=demo method=password result=later", lines);
        assert!(!d.log().contains("PENALTY"), "{}", d.log());
    };
    d.place.write("hangs", "", 0o644);
    is_not_logged_in(1);
    std::fs::remove_file(d.place.at("hangs")).expect("remove");
    std::fs::remove_file(d.place.at("directory")).expect("remove");
    is_not_logged_in(2);

    d.place.write("directory", "", 0o644);
    same(as_demo(&d, "others"), NOT_AVAILABLE);
    d.wait_log("LOGIN user=demo method=password result=yes");
    // Who is known is as before.
    std::fs::remove_file(d.place.at("directory")).expect("remove");
    same(as_demo(&d, "others"), NOT_AVAILABLE);
    d.wait_logs("LOGIN user=demo method=password result=yes", 2);

    // A reload does not forget who is known by a login alone.
    d.place.write("hangs", "", 0o644);
    d.reload(&format!("{REFUSING}next stream tcp nowait nobody /bin/echo echo next\n"));
    until("the new table is served", || d.ask("next\r\n") == b"+Go\r\nnext\n");
    same(as_demo(&d, "others"), NOT_AVAILABLE);
    d.wait_logs("LOGIN user=demo method=password result=yes", 3);
}

/// A directory may know a user by several names, such as one in capitals. Under such a name the
/// user would be none of those whom rules refuse.
#[test]
fn a_user_logs_in_by_no_other_name_than_the_directory_s_own() {
    let Some(d) = with_directory(&format!("{REFUSING} users += !demo\n")) else { return };
    let d = d.file("passwords", &passwords(&["demo", "DEMO"])).start();
    same(as_demo(&d, "others"), NOT_AVAILABLE);
    let all = d.ask("AUTH\r\nDEMO\r\ndemopass\r\nothers\r\n");
    same(all, format!("{ASKED}- Authentication failed\r\n{NOT_AVAILABLE}"));
    d.wait_log("LOGIN user=DEMO method=password result=no-account");
    assert!(!d.log().contains("PENALTY"), "{}", d.log());
}

#[test]
fn a_directory_that_is_away() {
    let Some(d) = with_directory(DIRECTORY).map(Builder::start) else { return };
    let gone = || std::fs::remove_file(d.place.at("directory")).expect("remove");
    gone();
    d.reload(DIRECTORY);
    d.wait_log("WARN ");
    d.wait_log("@colleagues: no such group: the rule acts as if nobody were in it, until a reload");
    d.wait_log("demo: no such user: this service cannot be started until that is changed");
    until("the new table is served", || d.ask("demos\r\n") == FAILED.as_bytes());
    // It is back: users are found again, a group at a reload.
    d.place.write("directory", "", 0o644);
    same(d.ask("demos\r\n"), format!("{GO}{IDS}"));
    same(as_demo(&d, "shell"), NOT_AVAILABLE);
    d.reload(DIRECTORY);
    until("its group is known", || as_demo(&d, "shell") == format!("{GO}{IDS}"));
}

const PORTS: &str = "
inetd = @DIR@/inetd.conf
hello stream tcp nowait nobody /bin/echo echo hello
demos stream tcp nowait nobody /bin/echo echo demos
 port = @NET@.11:demo
";
const INETD: &str = "@NET@.12:demo stream tcp nowait nobody /bin/echo echo inetd\n";

#[test]
fn names_of_ports_and_a_directory_that_does_not_answer() {
    let Some(d) = with_directory(PORTS) else { return };
    let d = d.file("inetd.conf", INETD).start();
    let at = |end: &str| {
        let address = format!("{}.{end}", own_network());
        Client::connect(address.parse().expect("an address")).read_all()
    };
    let served = || {
        same(at("11:5411"), "demos\n");
        same(at("12:5411"), "inetd\n");
    };
    served();

    // It does not answer: what was known stays, and what /etc/services has is found.
    d.place.write("hangs", "", 0o644);
    let unknown = "@NET@.12:unknown stream tcp nowait nobody /bin/echo echo unknown\n";
    d.place.write("inetd.conf", &format!("{unknown}{INETD}"), 0o644);
    let listed = " port = @NET@.11:demo @NET@.11:discard\n";
    let line = d.reload(&PORTS.replace(" port = @NET@.11:demo\n", listed));
    assert!(line.ends_with(" services=4"), "{line}");
    let line = d.wait_log("WARN ports: ");
    let why = "ports: unknown/tcp and 1 other: no answer within 3 s: they stay as in the configuration before";
    assert!(line.contains(why), "{line}");
    d.wait_log(
        "unknown: not served: expected a port: a number from 0 to 65535, or a name of services(5)",
    );
    served();
    same(at("11:9"), "demos\n");
    assert!(!d.log().contains("found \"demo\""), "{}", d.log());

    // A row whose name has no answer and had none before: as for a name that does not exist.
    let line = d.reload(&PORTS.replace("@NET@.11:demo", "@NET@.11:missing"));
    assert!(line.contains(" refused "), "{line}");
    d.wait_log("port: expected a number or a name of services(5), found \"missing\"");
    served();

    // It answers again.
    std::fs::remove_file(d.place.at("hangs")).expect("remove");
    d.place.write("inetd.conf", INETD, 0o644);
    let before = d.log().matches("WARN ports: ").count();
    d.reload(PORTS);
    served();
    assert_eq!(d.log().matches("WARN ports: ").count(), before);
}
