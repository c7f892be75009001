//! The request, byte for byte.

mod support;
use std::io::Write;
use support::*;

const CONF: &str = "
cat        stream tcp nowait @USER@ /bin/cat  cat
hello      stream tcp nowait @USER@ /bin/echo echo hello
Mixed.Case stream tcp nowait @USER@ /bin/echo echo mixed
";
const HELLO: &str = "+Go\r\nhello\n";

fn row(name: &str, program: &str) -> String {
    format!("{name} stream tcp nowait @USER@ {program}\n")
}

#[test]
fn a_usable_name_gets_go_and_the_service() {
    let d = Daemon::with(CONF).start();
    same(d.ask("hello\r\n"), HELLO);
    let mut c = d.connect();
    c.send("cat\r\n")
        .expect(GO)
        .send("there")
        .expect("there")
        .send(" and back")
        .expect(" and back");
    c.half_close().end();
}

#[test]
fn a_bare_lf_ends_a_line_too() {
    let d = Daemon::with(CONF).start();
    same(d.ask("hello\n"), HELLO);
    same(d.ask("cat\nmore\r\n"), "+Go\r\nmore\r\n");
    same(d.ask("nothing\n"), NOT_AVAILABLE);
}

#[test]
fn help_has_the_order_and_spelling_of_the_file_and_the_built_ins() {
    let d = Daemon::with(CONF).start();
    let all = format!("cat\r\nhello\r\nMixed.Case\r\n{BUILTINS}");
    same(d.ask("HELP\r\n"), &all);
    same(d.ask("help\n"), &all);
    // It closes by itself, and what was sent after it is discarded.
    same(d.connect().send("hElP\r\nhello\r\nhello\r\n").read_all(), &all);
}

#[test]
fn names_are_compared_without_case_and_untrimmed() {
    let d = Daemon::with(CONF).start();
    same(d.ask("HELLO\r\n"), HELLO);
    same(d.ask("mixed.CASE\r\n"), "+Go\r\nmixed\n");
    for name in ["hello ", " hello", "hello\t", "hell", "hello.", "HELP "] {
        same(d.ask(format!("{name}\r\n")), NOT_AVAILABLE);
    }
}

#[test]
fn what_is_no_name_is_not_available() {
    let d = Daemon::with(CONF).start();
    let none: [&[u8]; 8] = [
        b"",
        b"nothing",
        b"he\0llo",
        b"hello\r\r",
        b"he\x7fllo",
        b"h\xc3\xa9llo",
        b"\x1b[2J",
        b"tcpmux/hello",
    ];
    for name in none {
        same(d.ask([name, b"\r\n"].concat()), NOT_AVAILABLE);
        same(d.connect().send([name, b"\n"].concat()).read_all(), NOT_AVAILABLE);
    }
}

#[test]
fn names_that_may_not_be_used_get_the_bytes_of_unknown_ones() {
    let conf = format!(
        "{}\tdisable = yes\n{}\tno_access = 127.0.0.0/8\n{}\tonly_from = 192.0.2.1\n{}\trequire = tls\n{}\trequire = login\n{}\tusers = root\n",
        row("a", "/bin/echo"),
        row("b", "/bin/echo"),
        row("c", "/bin/echo"),
        row("d", "/bin/echo"),
        row("e", "/bin/echo"),
        row("f", "/bin/echo"),
    );
    let d = Daemon::with(&conf).start();
    for name in ["a", "b", "c", "d", "e", "f", "unknown"] {
        same(d.connect().send(format!("{name}\r\n")).read_all(), NOT_AVAILABLE);
    }
    assert_eq!(d.help(), Vec::<String>::new());
}

#[test]
fn hours_and_other_hosts_are_hidden_alike() {
    let conf = format!(
        "{}\taccess_times = {}\n[www.example.org]\n{}",
        row("late", "/bin/echo"),
        other_hours(),
        row("there", "/bin/echo")
    );
    let d = Daemon::with(&conf).start();
    same(d.ask("late\r\n"), NOT_AVAILABLE);
    same(d.ask("there\r\n"), NOT_AVAILABLE);
    assert_eq!(d.help(), Vec::<String>::new());
    d.wait_log("service=late host= from=127.0.0.1 reason=hours");
    d.wait_log("service=there host= from=127.0.0.1 reason=host");
}

/// Hours that are far from now.
fn other_hours() -> &'static str {
    let now = std::process::Command::new("date").arg("+%H").output().expect("date").stdout;
    match String::from_utf8_lossy(&now).trim().parse() {
        Ok(6..18) => "20:00-21:00",
        _ => "12:00-13:00",
    }
}

#[test]
fn a_service_at_its_limit_is_busy() {
    let d = Daemon::with("cat stream tcp nowait @USER@ /bin/cat\n instances = 1\n").start();
    let mut first = d.connect();
    first.send("cat\r\n").expect(GO);
    same(d.ask("cat\r\n"), BUSY);
    assert_eq!(d.help(), ["cat"], "HELP names busy ones too");
    first.send("undisturbed").expect("undisturbed").half_close().end();
    until("a place is free again", || d.ask("cat\r\n") == GO.as_bytes());
}

#[test]
fn a_missing_program_or_user_has_failed() {
    let mut conf = row("program", "@DIR@/missing") + &row("directory", "@DIR@/");
    if root() {
        conf += "user stream tcp nowait no-such-user /bin/cat\ngroup stream tcp nowait nobody.no-such-group /bin/cat\n";
    }
    let d = Daemon::with(&conf).start();
    same(d.ask("program\r\n"), FAILED);
    same(d.ask("directory\r\n"), FAILED);
    assert!(d.wait_log("REFUSE service=program").contains("reason=failed"));
    if root() {
        same(d.ask("user\r\n"), FAILED);
        same(d.ask("group\r\n"), FAILED);
        assert!(d.wait_log("REFUSE service=user").contains("no-such-user"));
    }
    // The program comes: nobody has to tell.
    d.place.write("missing", "#!/bin/sh\necho here\n", 0o755);
    same(d.ask("program\r\n"), "+Go\r\nhere\n");
}

#[test]
fn go_only_when_that_user_can_execute_the_program() {
    let d = Daemon::with(
        &(row("mode", "@DIR@/mode") + &row("shut", "@DIR@/shut/x") + &row("not", "@DIR@/not")),
    )
    .file("shut/x", "#!/bin/sh\necho x\n")
    .file("not", "\u{1}\u{2}\u{3}neither a program nor a script")
    .start();
    d.place.write("mode", "#!/bin/sh\necho mode\n", 0o644);
    let mode = |m| std::os::unix::fs::PermissionsExt::from_mode(m);
    std::fs::set_permissions(d.place.at("shut"), mode(0o600)).expect("chmod");
    for name in ["mode\r\n", "shut\r\n", "not\r\n"] {
        same(d.ask(name), FAILED);
    }
    std::fs::set_permissions(d.place.at("shut"), mode(0o755)).expect("chmod");
    std::fs::set_permissions(d.place.at("mode"), mode(0o755)).expect("chmod");
    same(d.ask("shut\r\n"), "+Go\r\nx\n");
    same(d.ask("mode\r\n"), "+Go\r\nmode\n");
}

#[test]
fn go_only_for_what_the_row_s_user_may_execute() {
    if !root() {
        return skip("needs root");
    }
    let d = Daemon::with(
        "mine stream tcp nowait nobody @DIR@/mine\nroots stream tcp nowait root @DIR@/mine\n",
    )
    .start();
    d.place.write("mine", "#!/bin/sh\necho mine\n", 0o700);
    same(d.ask("mine\r\n"), FAILED);
    same(d.ask("roots\r\n"), "+Go\r\nmine\n");
}

#[test]
fn go_only_when_a_script_s_interpreter_can_run() {
    let d = Daemon::with(
        &["gone", "mode", "good", "chain", "text", "loop"]
            .map(|n| row(n, &format!("@DIR@/{n}")))
            .concat(),
    )
    .file("gone", "#!@DIR@/interpreter\necho gone\n")
    .file("chain", "#!@DIR@/gone\necho chain\n")
    .file("text", "#!@DIR@/no-program\necho text\n")
    .file("no-program", "only text\n")
    .file("loop", "#!@DIR@/loop\n")
    .file("mode", "#! @DIR@/plain -x\necho mode\n")
    .file("good", "#! /bin/sh -e\necho good $#\n")
    .start();
    d.place.write("plain", "not to be executed", 0o644);
    same(d.ask("gone\r\n"), FAILED);
    for name in ["mode", "chain", "text", "loop"] {
        same(d.ask(format!("{name}\r\n")), FAILED);
    }
    d.place.write("interpreter", "#!/bin/sh\necho \"interpreted $#\"\n", 0o755);
    same(d.ask("gone\r\n"), "+Go\r\ninterpreted 1\n");
    same(d.ask("chain\r\n"), "+Go\r\ninterpreted 2\n");
    same(d.ask("good\r\n"), "+Go\r\ngood 0\n");
}

/// Who may execute a program need not be able to read it.
#[test]
fn go_for_a_program_that_nobody_may_read() {
    if !root() {
        return skip("needs root, to take the right from itself");
    }
    let d = Daemon::with(&row("x", "@DIR@/x hidden")).user("nobody").start();
    std::fs::copy("/bin/echo", d.place.at("x")).expect("copy");
    d.place.write("keep", "", 0o644);
    std::fs::set_permissions(d.place.at("x"), std::os::unix::fs::PermissionsExt::from_mode(0o711))
        .expect("mode");
    nobody_writes(d.place.at("x"));
    same(d.ask("x\r\n"), "+Go\r\n\n");
}

/// A pipe under a program's name is no program, and nobody waits for it.
#[test]
fn a_pipe_is_no_program() {
    let place = Place::new();
    nix::unistd::mkfifo(
        std::path::Path::new(&place.at("fifo")),
        nix::sys::stat::Mode::from_bits_truncate(0o755),
    )
    .expect("fifo");
    let conf = row("fifo", &place.at("fifo")) + &row("good", "/bin/echo echo good");
    let d = Daemon::with(&conf).start();
    same(d.ask("fifo\r\n"), FAILED);
    same(d.ask("good\r\n"), "+Go\r\ngood\n");
}

#[test]
fn a_name_may_have_255_bytes() {
    let long = "n".repeat(255);
    let d = Daemon::with(&row(&long, "/bin/echo echo long")).start();
    same(d.ask(format!("{long}\r\n")), "+Go\r\nlong\n");
    same(d.ask(format!("{long}\n")), "+Go\r\nlong\n");
    same(d.ask(format!("{}\r\n", "m".repeat(255))), NOT_AVAILABLE);
    same(d.ask(format!("{long}n\r\n")), TOO_LONG);
    same(d.ask(format!("{long}n\n")), TOO_LONG);
    // It is too long already, whether an end comes or not.
    same(d.connect().send("m".repeat(300)).read_all(), TOO_LONG);
    same(d.connect().send(format!("{long}\rx")).read_all(), TOO_LONG);
}

#[test]
fn an_end_before_a_line_end_gets_nothing() {
    let d = Daemon::with(CONF).start();
    for part in ["", "h", "hello", "hello\r", "HELP"] {
        println!("{part:?}");
        same(d.ask(part), "");
    }
}

#[test]
fn the_request_may_come_in_any_pieces() {
    let d = Daemon::with(CONF).start();
    let pause = || std::thread::sleep(std::time::Duration::from_millis(20));
    let mut c = d.connect();
    for byte in b"cat\r\nx" {
        c.send([*byte]);
        pause();
    }
    c.expect("+Go\r\nx");
    for (one, two) in [("hello\r", "\n"), ("hel", "lo\r\n"), ("h", "ello\n"), ("hello", "\r\n")] {
        let mut c = d.connect();
        c.send(one);
        pause();
        same(c.send(two).half_close().read_all(), HELLO);
    }
}

#[test]
fn what_follows_the_line_reaches_the_service_in_order() {
    let d = Daemon::with(CONF).start();
    let sent: Vec<u8> = (0..200_000u32).flat_map(|n| n.to_le_bytes()).take(200_000).collect();
    let mut c = d.connect();
    let mut writer = Client(c.0.try_clone().expect("clone"));
    let all = [&b"cat\r\n"[..], &sent].concat();
    let thread = std::thread::spawn(move || {
        writer.send(all).half_close();
    });
    c.expect(GO);
    assert!(c.read_all() == sent, "200,000 bytes come back as they went");
    thread.join().expect("sent");
}

#[test]
fn line_ends_after_the_line_belong_to_the_service() {
    let d = Daemon::with(CONF).start();
    same(d.ask("cat\r\n\r\n\n\0HELP\r\n"), "+Go\r\n\r\n\n\0HELP\r\n");
}

#[test]
fn no_reset_overtakes_a_refusal() {
    let d = Daemon::with(CONF).start();
    // What is read and thrown away ends in an orderly way; far more than that is cut off, but not
    // before the answer was there.
    let some = [&b"nothing\r\n"[..], &[b'x'; 50_000]].concat();
    same(d.connect().send(&some).half_close().read_all(), NOT_AVAILABLE);
    let much = [&b"nothing\r\n"[..], &vec![b'x'; 1 << 20]].concat();
    for _ in 0..20 {
        same(d.connect().try_send(&much).read_any(), NOT_AVAILABLE);
    }
    let long = vec![b'x'; 1 << 20];
    same(d.connect().try_send(&long).read_any(), TOO_LONG);
    // So is what comes after the refusal, for a while.
    until("it can go on sending", || {
        let mut c = d.connect();
        same(c.send("nothing\r\n").read_all(), NOT_AVAILABLE);
        let mut more = || {
            std::thread::sleep(std::time::Duration::from_millis(20));
            c.0.write_all(b"more").is_ok()
        };
        (0..4).all(|_| more())
    });
}

#[test]
fn tcpmux_rows_answer_for_themselves() {
    let d = Daemon::with(
        &(row("tcpmux/self", "/bin/echo echo own") + &row("tcpmux/+plus", "/bin/echo echo plus")),
    )
    .start();
    same(d.ask("self\r\n"), "own\n");
    same(d.ask("SELF\n"), "own\n");
    same(d.ask("plus\r\n"), "+Go\r\nplus\n");
    same(d.ask("+plus\r\n"), NOT_AVAILABLE);
    same(d.ask("tcpmux/plus\r\n"), NOT_AVAILABLE);
    assert_eq!(d.help(), ["self", "plus"]);
}

#[test]
fn the_reply_is_the_row_s() {
    let conf = row("text", "/bin/echo echo 1")
        + " reply = Come in\n"
        + &row("empty", "/bin/echo echo 2")
        + " reply =\n";
    let d = Daemon::with(&conf).start();
    same(d.ask("text\r\n"), "+Come in\r\n1\n");
    same(d.ask("empty\r\n"), "+\r\n2\n");
}

#[test]
fn banners_follow_the_reply_and_tell_no_secret() {
    let all = " banner = @DIR@/always\n banner_success = @DIR@/good\n banner_fail = @DIR@/bad\n";
    let conf = row("cat", "/bin/cat")
        + all
        + " instances = 1\n"
        + &row("gone", "@DIR@/gone")
        + all
        + &row("off", "/bin/cat")
        + all
        + " disable = yes\n";
    let d = Daemon::with(&conf)
        .file("always", "A\r\n")
        .file("good", "G\r\n")
        .file("bad", "B\r\n")
        .start();
    let mut c = d.connect();
    c.send("cat\r\nx").expect("+Go\r\nA\r\nG\r\nx");
    same(d.ask("cat\r\n"), format!("{BUSY}A\r\nB\r\n"));
    same(d.ask("gone\r\n"), format!("{FAILED}A\r\nB\r\n"));
    same(d.ask("off\r\n"), NOT_AVAILABLE);
}

#[test]
fn hidden_is_usable_but_not_in_help() {
    let d = Daemon::with(
        &(row("secret", "/bin/echo echo s") + " hidden = yes\n" + &row("open", "/bin/echo echo o")),
    )
    .start();
    assert_eq!(d.help(), ["open"]);
    same(d.ask("secret\r\n"), "+Go\r\ns\n");
}

#[test]
fn clients_do_not_wait_for_each_other() {
    let d = Daemon::with(CONF).start();
    let mut waiting: Vec<Client> = (0..50).map(|_| d.connect()).collect();
    waiting.iter_mut().for_each(|c| {
        c.send("hel");
    });
    same(d.ask("hello\r\n"), HELLO);
    for mut c in waiting {
        same(c.send("lo\r\n").read_all(), HELLO);
    }
}

#[test]
fn a_netcat_is_client_enough() {
    if !installed("nc") {
        return skip("needs nc");
    }
    let d = Daemon::with(CONF).start();
    let words = format!("printf 'hello\\r\\n' | nc -w 60 127.0.0.1 {}", d.address().port());
    let out = std::process::Command::new("sh").args(["-c", &words]).output().expect("sh");
    same(out.stdout, HELLO);
}
