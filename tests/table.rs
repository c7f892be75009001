//! The table, by `-t`, `-T` and `-C`.

mod support;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use support::*;

const ROW: &str = "cat stream tcp nowait @USER@ /bin/cat cat\n";

/// The arguments that a service named `x` of this configuration gets, one a line.
fn arguments(conf: &str) -> String {
    let d = Daemon::with(conf).file("show", "#!/bin/sh\nprintf '<%s>' \"$@\"\n").start();
    let text = String::from_utf8(d.ask("x\r\n")).expect("UTF-8");
    text.strip_prefix(GO).unwrap_or_else(|| panic!("{text:?}")).into()
}

/// `-t` must find exactly these mistakes: line and word of each.
#[track_caller]
fn mistakes(conf: &str, wanted: &[(usize, &str)]) {
    let place = Place::new();
    let (code, out, err) = place.fived(conf, &["-t"]);
    let (lines, path): (Vec<&str>, _) = (err.lines().collect(), place.at("fived.conf"));
    assert_eq!((code, out.as_str(), lines.len()), (1, "", wanted.len()), "{err}");
    for (line, (number, word)) in lines.iter().zip(wanted) {
        let head = format!("{path}:{number}: {word}: ");
        assert!(
            line.starts_with(&head) && line.len() > head.len() + 5,
            "{line:?} should begin with {head:?}"
        );
    }
}

/// Whoever can write what says which programs root runs is root.
#[test]
fn a_configuration_that_others_can_write_is_a_warning() {
    let place = Place::new();
    let text = place.fill("include @DIR@/more\nincludedir @DIR@/d\n");
    let conf = place.write("test.conf", &text, 0o644);
    let (more, one) = (place.write("more", ROW, 0o644), place.write("d/one", "", 0o644));
    let directory = place.at("d");
    assert_eq!(run(&["-t", "-f", &conf]), (0, "configuration OK\n".into(), String::new()));
    for (path, good, bad) in [
        (&conf, 0o644, 0o666),
        (&more, 0o644, 0o646),
        (&directory, 0o755, 0o1777),
        (&one, 0o600, 0o602),
    ] {
        let set = |mode| std::fs::set_permissions(path, Permissions::from_mode(mode));
        set(bad).expect("chmod");
        let wanted = format!(
            "warning: {path}: others can write it (mode {bad:04o}): run `chmod go-w` on it\n"
        );
        assert_eq!(run(&["-t", "-f", &conf]).2, wanted);
        set(good).expect("chmod");
    }
    if !root() {
        return skip("needs root for another owner");
    }
    std::os::unix::fs::chown(&more, Some(12345), None).expect("chown");
    let who = "it belongs to another user (uid 12345), who could change what it says";
    assert_eq!(run(&["-t", "-f", &conf]).2, format!("warning: {more}: {who}\n"));
}

#[test]
fn the_effective_table_loads_again_to_itself() {
    let conf = format!(
        "instances = 30\nrequest_timeout = 7\n{ROW} only_from = 10.0.0.0/8 ::1\n no_access = 10.1.0.0/16\n access_times = 01:00-02:00 03:00-04:30\n\
         a.b/c stream tcp4 nowait @USER@ /bin/sh sh -c 'echo \"$1\"; #' \"two words\" \\\\ ''\n cps = 5 10\n rlimit_as = 64M\n umask = 077\n env = A=b \"C=d e\"\n\
         echo stream tcp nowait/4/3/2 @USER@ internal\n reply = Come in\n\
         [www.example.org example.org]\nin stream tcp nowait * /bin/sh sh\n require = tls login\n users = @staff !bob\n\
         [*]\nall stream tcp nowait @USER@ /bin/cat\n hidden = yes\nup stream tcp nowait @USER@ redirect db.example.org:80 [::1]:80 192.0.2.1:1 \"/a b\"\n proxy = v2\n[empty]\n[last]\nz stream tcp nowait @USER@ /bin/cat\n[*]\ny stream tcp nowait @USER@ /bin/cat\n"
    );
    let place = Place::new();
    let (code, once, err) = place.fived(&conf, &["-T"]);
    assert_eq!((code, err.as_str()), (0, ""), "{once}");
    let (code, twice, err) = place.fived(&once, &["-T"]);
    assert_eq!((code, err.as_str()), (0, ""), "{once}");
    assert_eq!(once, twice);
    let order = |text: &str| {
        text.lines()
            .filter(|l| l.starts_with('[') || l.contains(" stream "))
            .map(|l| l.split(' ').next().unwrap_or(l).to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        order(&once),
        [
            "cat",
            "a.b/c",
            "echo",
            "[www.example.org",
            "in",
            "[*]",
            "all",
            "up",
            "[empty]",
            "[last]",
            "z",
            "[*]",
            "y"
        ],
        "as in the file"
    );
}

#[test]
fn the_effective_table_has_every_default() {
    let (_, out, _) = Place::new().fived(ROW, &["-T"]);
    let names = "listen request_timeout login_timeout login_tries pubkey_tries keepalive max_connections max_sessions \
                 max_sessions_per_source max_services max_services_per_source max_streams max_streams_anonymous shutdown_timeout state_directory mptcp plaintext_login instances per_source umask nice reply";
    for name in names.split_whitespace() {
        assert!(
            out.lines().any(|l| l.trim_start().starts_with(&format!("{name} "))),
            "{name} in\n{out}"
        );
    }
    assert!(
        out.contains("[::]:1") && out.contains("10000") && out.contains("/var/lib/fived"),
        "{out}"
    );
}

#[test]
fn words_are_quoted_as_in_a_shell() {
    let row = |words: &str| format!("x stream tcp nowait @USER@ @DIR@/show x {words}\n");
    assert_eq!(
        arguments(&row(r#""two words" 'two words' a" b"c"#)),
        "<two words><two words><a bc>"
    );
    assert_eq!(arguments(&row(r#"\"a a\ b 'c\d' "e\"f" ''"#)), r#"<"a><a b><c\d><e"f><>"#);
    assert_eq!(arguments(&row("a#b # a comment")), "<a#b>");
    assert_eq!(arguments(&row("'#' \\#")), "<#><#>");
    assert_eq!(arguments("x stream tcp nowait @USER@ @DIR@/show\n"), "<>");
}

#[test]
fn indented_words_are_more_arguments_and_settings_attributes() {
    let conf = "x stream tcp nowait @USER@ @DIR@/show x a\n\t if=/dev/zero b=c\n # a comment\n instances = 4\n\n   count=1\n";
    assert_eq!(arguments(conf), "<a><if=/dev/zero><b=c><count=1>");
}

#[test]
fn comments_empty_lines_and_line_ends_do_not_matter() {
    let conf = "# a comment\r\n\r\n\t\r\ncat\tstream\ttcp\tnowait\t@USER@\t/bin/cat\tcat  # behind\r\n\tinstances = 2 # two\r\n#end";
    let place = Place::new();
    assert_eq!(place.fived(conf, &["-t"]).1, "configuration OK\n");
    assert_eq!(
        place.decide(conf, "service=CAT"),
        format!("allow cat {}:4", place.at("fived.conf"))
    );
}

#[test]
fn an_empty_table_is_a_table() {
    let place = Place::new();
    assert_eq!(place.fived("", &["-t"]).1, "configuration OK\n");
    assert_eq!(place.decide("", "service=cat"), "deny cat - unknown");
}

#[test]
fn a_table_that_nobody_can_reach_is_a_warning() {
    let place = Place::new();
    let said = |conf: &str, words: &[&str]| place.fived(&place.fill(conf), words).2;
    let what = "listen: expected an address, or a row with a port of its own, found neither: without sockets from systemd nobody can reach any service";
    let none = format!("mptcp = no\nlisten =\n{ROW}");
    let line = format!("warning: {}:2: {what}\n", place.at("fived.conf"));
    assert_eq!(said(&none, &["-t"]), line);
    assert_eq!(said(&format!("{none} port = 7001\n disable = yes\n"), &["-t"]), line);
    for reached in [" port = 7001\n", " tls_port = 7001\n"] {
        assert_eq!(said(&format!("{none}{reached}"), &["-t"]), "");
    }
    assert_eq!(said(&none, &["-t", "-l", "127.0.0.1:7001"]), "");
    assert_eq!(
        said(&none.replace("listen =", "listen = @DIR@/s"), &["-t"]).matches(what).count(),
        0
    );
    // A reload says so, too.
    let d = Daemon::with("").listen("127.0.0.1:0").start();
    d.reload(ROW);
    assert!(!d.log().contains(what), "-l is an address");
    let d = Daemon::with("hello stream tcp nowait @USER@ /bin/cat\n port = 127.0.0.1:0\n")
        .listen("")
        .start();
    d.reload(&format!("listen =\n{ROW}"));
    d.wait_log(&format!("fived.conf:2: {what}"));
}

#[test]
fn decisions_name_the_row_and_the_reason() {
    let place = Place::new();
    let path = place.at("fived.conf");
    let conf = "a stream tcp nowait @USER@ /bin/cat\nb stream tcp nowait @USER@ /bin/cat\n disable = yes\nc stream tcp nowait @USER@ /bin/cat\n require = tls\n\
                d stream tcp nowait @USER@ /bin/cat\n users = @USER@\n[www w]\ne stream tcp nowait @USER@ /bin/cat\nf stream tcp4 nowait @USER@ /bin/cat\n";
    let me = user();
    let table = [
        ("service=a".to_string(), format!("allow a {path}:1")),
        ("service=A,addr=192.0.2.1".into(), format!("allow a {path}:1")),
        ("service=b".into(), format!("deny b {path}:3 disabled")),
        ("service=c".into(), format!("deny c {path}:5 tls")),
        ("service=c,tls=yes".into(), format!("allow c {path}:4")),
        ("service=d".into(), format!("deny d {path}:7 login")),
        ("service=d,user=somebody-else".into(), format!("deny d {path}:7 user")),
        (format!("service=d,user={me}"), format!("allow d {path}:6")),
        ("service=e,host=www".into(), format!("allow e {path}:9")),
        ("service=e,host=W".into(), format!("allow e {path}:9")),
        ("service=e".into(), format!("deny e {path}:9 host")),
        ("service=f,host=w".into(), format!("allow f {path}:10")),
        ("service=f,host=w,addr=::1".into(), format!("deny f {path}:10 address")),
        ("service=f,addr=::1".into(), format!("deny f {path}:10 host")),
        ("service=none".into(), "deny none - unknown".into()),
    ];
    let (queries, answers): (Vec<_>, Vec<_>) = table.into_iter().unzip();
    for (query, answer) in queries.iter().zip(&answers) {
        assert_eq!(&place.decide(conf, query), answer, "{query}");
    }
    let (code, out, _) = run_with(&["-f", &path, "-T", "-C", "-"], queries.join("\n").as_bytes());
    assert_eq!((code, out), (0, answers.join("\n") + "\n"));
    let (code, out, _) =
        run_with(&["-f", &path, "-T", "-C", "-"], b"service=none\nservice=\xff\r\nservice=none");
    assert_eq!(
        (code, out.as_str()),
        (0, "deny none - unknown\nerror not UTF-8\ndeny none - unknown\n")
    );
}

#[test]
fn a_denial_names_the_line_of_its_rule() {
    let place = Place::new();
    place.write("more.conf", "require = tls\nd stream tcp nowait @USER@ /bin/date date\n", 0o644);
    let row = |name: &str| format!("{name} stream tcp nowait @USER@ /bin/date date\n");
    let conf = format!(
        "listen = 127.0.0.1:0\nonly_from = 10.0.0.0/8\n{}{} only_from = 10.1.0.0/16 10.1.2.3\n no_access = 10.1.2.0/24\n\
         {} users = somebody\n only_from += 192.0.2.0/24\n[h]\nno_access = 10.9.0.0/16\ninclude @DIR@/more.conf\n{} require =\n",
        row("a"),
        row("c"),
        row("u"),
        row("e")
    );
    let conf = place.fill(&conf);
    let (path, more) = (place.at("fived.conf"), place.at("more.conf"));
    for (query, answer) in [
        ("service=a,addr=11.1.1.1", format!("deny a {path}:2 address")),
        ("service=c,addr=10.1.2.4", format!("deny c {path}:6 address")),
        ("service=c,addr=12.0.0.1", format!("deny c {path}:5 address")),
        ("service=c,addr=10.1.2.3", format!("allow c {path}:4")),
        ("service=u,addr=192.0.2.1", format!("deny u {path}:8 login")),
        ("service=u,addr=192.0.2.1,user=root", format!("deny u {path}:8 user")),
        ("service=d,host=h,addr=10.1.1.1", format!("deny d {more}:1 tls")),
        ("service=d,host=h,addr=10.9.1.1,tls=yes", format!("deny d {path}:11 address")),
        ("service=e,host=h,addr=11.1.1.1", format!("deny e {path}:2 address")),
        ("service=e,addr=10.1.1.1", format!("deny e {path}:13 host")),
    ] {
        assert_eq!(place.decide(&conf, query), answer, "{query}");
    }
}

#[test]
fn a_process_at_a_unix_socket_is_logged_in_and_counts_as_encrypted() {
    let place = Place::new();
    let uid = nix::unistd::getuid();
    let me = nix::unistd::User::from_uid(uid).expect("passwd").expect("an account").name;
    let row = |name: &str, protocol: &str| {
        format!("{name} stream {protocol} nowait @USER@ /bin/date date\n require = tls login\n")
    };
    let conf = format!(
        "listen = @DIR@/sock\n{} users = {me}\n{} port = @DIR@/own\n users = {me}\n\
         {} port = @DIR@/else\n users = somebody-else\n",
        row("a", "tcp"),
        row("b", "unix"),
        row("c", "unix")
    );
    let conf = place.fill(&conf);
    let path = place.at("fived.conf");
    for (query, answer) in [
        (format!("service=a,addr=uid:{uid}"), format!("allow a {path}:2")),
        (format!("service=b,addr=uid:{uid}"), format!("allow b {path}:5")),
        (format!("service=c,addr=uid:{uid}"), format!("deny c {path}:12 user")),
        (format!("service=b,addr=uid:{uid},user=nobody-here"), format!("deny b {path}:8 user")),
        // A number without an account is nobody.
        ("service=b,addr=uid:3999999999".into(), format!("deny b {path}:6 login")),
        ("service=b".into(), format!("deny b {path}:5 address")),
    ] {
        assert_eq!(place.decide(&conf, &query), answer, "{query}");
    }
}

#[test]
fn wrong_queries_are_reported() {
    let place = Place::new();
    for query in ["", "name=a", "service=a,addr=nowhere", "service=a,tls=perhaps", "a"] {
        let (code, out, err) = place.fived(ROW, &["-T", "-C", query]);
        assert_eq!((code, out.as_str()), (1, ""), "{query}");
        assert!(!err.is_empty());
    }
}

#[test]
fn settings_before_the_rows_are_their_defaults() {
    let place = Place::new();
    let conf = "only_from = 10.0.0.0/8\na stream tcp nowait @USER@ /bin/cat\nb stream tcp nowait @USER@ /bin/cat\n only_from += 192.0.2.0/24\n\
                c stream tcp nowait @USER@ /bin/cat\n only_from = ::1\nd stream tcp nowait @USER@ /bin/cat\n only_from -= 10.0.0.0/8\n only_from += 203.0.113.7\n";
    let allowed = |name: &str, addr: &str| {
        place.decide(conf, &format!("service={name},addr={addr}")).starts_with("allow")
    };
    let addresses = ["10.1.1.1", "192.0.2.9", "::1", "203.0.113.7"];
    let row = |name: &str| addresses.map(|a| u8::from(allowed(name, a)));
    assert_eq!(
        [row("a"), row("b"), row("c"), row("d")],
        [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    );
}

#[test]
fn hosts_inherit_the_file_s_settings_and_have_their_own() {
    let place = Place::new();
    let conf = "only_from = 10.0.0.0/8\na stream tcp nowait @USER@ /bin/cat\n[one]\nb stream tcp nowait @USER@ /bin/cat\n[two]\nonly_from = 192.0.2.1\nc stream tcp nowait @USER@ /bin/cat\n\
                b stream tcp nowait @USER@ /bin/cat\n[*]\nb stream tcp nowait @USER@ /bin/cat\nall stream tcp nowait @USER@ /bin/cat\n";
    let path = place.at("fived.conf");
    let ask = |q: &str| place.decide(conf, q);
    assert_eq!(ask("service=b,host=one,addr=10.1.1.1"), format!("allow b {path}:4"));
    assert_eq!(ask("service=b,host=one,addr=192.0.2.1"), format!("deny b {path}:1 address"));
    assert_eq!(ask("service=c,host=two,addr=192.0.2.1"), format!("allow c {path}:7"));
    assert_eq!(
        ask("service=b,host=two,addr=192.0.2.1"),
        format!("allow b {path}:8"),
        "a host's own row goes before"
    );
    assert_eq!(ask("service=all,host=two,addr=10.1.1.1"), format!("allow all {path}:11"));
    assert_eq!(ask("service=b,addr=10.1.1.1"), format!("allow b {path}:10"), "[*] is every host's");
    assert_eq!(ask("service=a,host=one,addr=10.1.1.1"), format!("deny a {path}:2 host"));
}

#[test]
fn files_are_included() {
    let place = Place::new();
    place.write("more.conf", "\nb stream tcp nowait @USER@ /bin/cat\n", 0o644);
    for (name, row) in [("d/20", "d"), ("d/10", "c"), ("d/x.conf", "no"), ("d/old~", "no")] {
        place.write(name, &format!("{row} stream tcp nowait @USER@ /bin/cat\n"), 0o644);
    }
    let conf = "include @DIR@/more.conf\nincludedir @DIR@/d\na stream tcp nowait @USER@ /bin/cat\n";
    let conf = place.fill(conf);
    assert_eq!(place.decide(&conf, "service=b"), format!("allow b {}:2", place.at("more.conf")));
    assert_eq!(place.decide(&conf, "service=d"), format!("allow d {}:1", place.at("d/20")));
    assert_eq!(place.decide(&conf, "service=a"), format!("allow a {}:3", place.at("fived.conf")));
    assert_eq!(place.decide(&conf, "service=no"), "deny no - unknown");
    let (code, _, err) = place.fived(&conf, &["-t"]);
    let warning = format!(
        "warning: {}:2: includedir: {}: not read, because its name has a dot or a ~\n",
        place.at("fived.conf"),
        place.at("d/x.conf")
    );
    assert_eq!((code, err), (0, warning));
    let (_, out, _) = place.fived(&conf, &["-T"]);
    let at = |name: &str| out.lines().position(|l| l.starts_with(&format!("{name} "))).expect(name);
    assert!(at("b") < at("c") && at("c") < at("d") && at("d") < at("a"), "in order:\n{out}");
}

#[test]
fn an_include_with_an_equals_sign_is_told_how_it_is_written() {
    let place = Place::new();
    let conf = place.fill(&format!("include = /x\n{ROW}includedir = /d /e\ninclude += /x\n"));
    let (code, _, err) = place.fived(&conf, &["-t"]);
    let path = place.at("fived.conf");
    let wanted = format!(
        "{path}:1: include: expected `include FILE` without `=`, found `=`\n\
         {path}:3: includedir: expected `includedir DIRECTORY` without `=`, found `=`\n\
         {path}:4: include: expected `include FILE` without `=`, found `+=`\n"
    );
    assert_eq!((code, err), (1, wanted));
}

/// What follows an included file is in the section that it was in before.
#[test]
fn a_section_ends_with_the_file_that_begins_it() {
    let place = Place::new();
    let row = |name: &str| format!("{name} stream tcp nowait @USER@ /bin/cat\n");
    for (file, text) in [
        ("deep", format!("{}[deep]\n{}", row("d0"), row("d1"))),
        ("two", format!("include @DIR@/deep\n{}[two]\n{}", row("t0"), row("t1"))),
        ("d/1", format!("[*]\n{}", row("all"))),
        ("d/2", format!("env = A=1\n{}", row("i"))),
    ] {
        place.write(file, &text, 0o644);
    }
    let conf = format!(
        "include @DIR@/two\n{}[one]\nincludedir @DIR@/d\n{}[last]\n{}",
        row("a"),
        row("o"),
        row("z")
    );
    let conf = place.fill(&conf);
    let (code, out, err) = place.fived(&conf, &["-T"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let heads: Vec<&str> = out
        .lines()
        .filter(|l| l.starts_with('[') || l.contains(" stream "))
        .filter_map(|l| l.split(' ').next())
        .collect();
    let wanted = "d0 t0 a [deep] d1 [two] t1 [*] all [one] i o [last] z";
    assert_eq!(heads.join(" "), wanted, "{out}");
    assert!(!out.contains("\to\n") && out.matches("A=1").count() == 2, "i and o: {out}");
    assert_eq!(place.fived(&out, &["-T"]).1, out, "and it is read again");
    // Settings of fived as a whole may follow, too.
    let conf = place.fill(&format!("include @DIR@/d/1\nmptcp = no\n{}", row("a")));
    assert!(place.fived(&conf, &["-T"]).1.contains("mptcp = no\n"));
    // A row of the file that includes still ends its section's settings.
    let conf = place.fill(&format!("{}include @DIR@/d/1\nmptcp = no\n", row("a")));
    assert!(place.fived(&conf, &["-t"]).2.contains(":3: mptcp: "));
}

#[test]
fn what_is_no_file_is_neither_read_nor_waited_for() {
    let place = Place::new();
    place.write("d/10", "a stream tcp nowait @USER@ /bin/cat\n", 0o644);
    for name in ["pipe", "d/20"] {
        nix::unistd::mkfifo(place.at(name).as_str(), nix::sys::stat::Mode::S_IRWXU)
            .expect("a pipe");
    }
    let (code, out, _) = place.fived(&place.fill("includedir @DIR@/d\n"), &["-T"]);
    assert!(code == 0 && out.contains("\na "), "{out}");
    let conf = place.fill("include @DIR@/pipe\nb stream tcp nowait @USER@ /bin/cat\n banner = @DIR@/pipe\n[x]\ncertificate = @DIR@/pipe\n");
    let (code, _, err) = place.fived(&conf, &["-t"]);
    assert_eq!(
        (code, err.matches("pipe: expected a regular file, found a named pipe").count()),
        (1, 3),
        "{err}"
    );
    let (code, _, err) = place.fived("certificate = /dev/null\n", &["-t"]);
    assert!(code == 1 && err.contains("expected a regular file"), "{err}");
}

/// Reading a pipe without a writer is at its end at once, and that is no empty configuration.
#[test]
fn a_configuration_may_come_through_a_pipe_that_somebody_writes_to() {
    use std::io::Write;
    let place = Place::new();
    let pipe = place.at("pipe");
    nix::unistd::mkfifo(pipe.as_str(), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let nobody = "expected a file with text, found a pipe that nobody writes to";
    let (code, _, err) = run(&["-t", "-f", &pipe]);
    assert!(code == 1 && err.contains(nobody), "{code} {err}");
    let (code, _, err) = run_with(&["-t", "-f", "/dev/stdin"], b"");
    assert!(code == 1 && err.contains(nobody), "{code} {err}");
    let row = place.fill(ROW);
    assert_eq!(run_with(&["-t", "-f", "/dev/stdin"], row.as_bytes()).0, 0);
    assert_eq!(run(&["-t", "-f", "/dev/null"]).0, 0);
    // Somebody has it open, and is slow.
    let both = std::fs::OpenOptions::new().read(true).write(true).open(&pipe);
    let mut writer = both.expect("the pipe");
    let writes = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        writer.write_all(b"x stream tcp perhaps\n")?;
        std::thread::sleep(std::time::Duration::from_millis(300));
        writer.write_all(b"y stream tcp perhaps\n")
    });
    let (code, _, err) = run(&["-t", "-f", &pipe]);
    assert!(code == 1 && err.matches("pipe:").count() == 2, "{err}");
    writes.join().expect("it ends").expect("written");
}

#[test]
fn an_empty_word_is_shown() {
    let place = Place::new();
    let (_, _, err) = place.fived("instances = \"\"\nrequire = ''\n", &["-t"]);
    assert!(
        err.contains(":1: instances: expected a number or UNLIMITED, found \"\"")
            && err.contains(":2: require: "),
        "{err}"
    );
}

/// Clients of RUN take such a byte for the beginning of the first record.
#[test]
fn a_banner_with_a_byte_that_begins_a_record_is_a_warning() {
    let row = |name: &str, own: &str| format!("{name} stream tcp nowait @USER@ /bin/cat\n{own}");
    let of = |attribute: &str| format!(" {attribute} = @DIR@/bytes\n");
    let fine = [
        row("a", " banner = @DIR@/text\n banner_success = @DIR@/text\n"),
        // Nobody gets these before a record.
        row("b", &of("banner_fail")),
        row("c", &(of("banner") + " tcpmux = no\n port = 127.0.0.1:7\n")),
        row("d", &(of("banner") + " disable = yes\n")),
        row("tcpmux/e", &of("banner")),
    ];
    let defaults = format!("{}{}{}", of("banner").trim_start(), row("f", ""), row("g", ""));
    let d = Daemon::with(&(defaults.clone() + &row("h", &of("banner_success"))));
    let d = d.file("text", "a\u{4}\u{ff}\n").file("bytes", "ab\u{3}\n").start();
    let told = |line: &str| {
        format!("fived.conf:{line}: {}: its byte 3 is one from 0 to 3", d.place.at("bytes"))
    };
    d.wait_log(&told("2: banner"));
    d.wait_log(&told("6: banner_success"));
    assert_eq!(d.log().matches("its byte").count(), 2, "once for a line: {}", d.log());
    d.reload(&defaults);
    d.wait_logs(&told("2: banner"), 2);
    let check = |conf: &str| d.place.fived(&d.place.fill(conf), &["-t"]);
    assert_eq!(check(&fine.concat()), (0, "configuration OK\n".into(), String::new()));
    let (code, out, err) = check(&defaults);
    assert_eq!((code, &*out, err.lines().count()), (0, "configuration OK\n", 1), "{err}");
    assert!(err.contains(&told("1: banner")), "{err}");
}

#[test]
fn where_passwords_would_be_asked_is_looked_at() {
    let place = Place::new();
    for setting in ["checkpassword = /no/such x", "passwords = /no/such"] {
        let (code, _, err) = place.fived(&format!("{setting}\n"), &["-t"]);
        let wanted =
            format!(":1: {}: /no/such: No such file", setting.split(' ').next().expect("it"));
        assert!(code == 0 && err.contains(&wanted), "{err}");
    }
}

#[test]
fn as_many_addresses_as_can_be_listened_on() {
    let place = Place::new();
    let listen = |n: usize| {
        format!(
            "listen ={}\n",
            (0..n).map(|i| format!(" 127.0.0.1:{}", 2000 + i)).collect::<String>()
        )
    };
    assert_eq!(place.fived(&listen(64), &["-t"]).0, 0);
    let (code, _, err) = place.fived(&listen(65), &["-t"]);
    assert!(code == 1 && err.contains(":1: listen: too many addresses"), "{err}");
}

#[test]
fn the_last_word_of_a_rule_is_not_taken_away_unseen() {
    let place = Place::new();
    let row = "a stream tcp nowait @USER@ /bin/cat\n";
    let conf = place.fill(&format!("users = ann bob\n{row} users -= ann\n b stream\n"));
    assert!(!place.fived(&conf, &["-t"]).2.contains("users: "));
    let (code, _, err) =
        place.fived(&place.fill(&format!("users = ann\n{row} users -= ann\n")), &["-t"]);
    assert!(code == 1 && err.contains(":3: users: nobody is left"), "{err}");
    assert_eq!(place.fived(&place.fill(&format!("users = ann\n{row} users =\n")), &["-t"]).0, 0);
    let hours = |own: &str| {
        let conf = format!("access_times = 01:00-02:00 03:00-04:00\n{row} access_times {own}\n");
        place.fived(&conf, &["-t"])
    };
    assert_eq!(hours("-= 03:00-04:00").0, 0);
    let (code, _, err) = hours("-= 03:00-04:00 01:00-02:00");
    assert!(code == 1 && err.contains(":3: access_times: no hour is left"), "{err}");
    assert_eq!(hours("=").0, 0);
}

#[test]
fn mistakes_in_included_files_bear_their_names() {
    let place = Place::new();
    place.write("more.conf", "\nb stream tcp perhaps @USER@ /bin/cat\n", 0o644);
    let conf = place.fill("include @DIR@/more.conf\ninclude @DIR@/missing\nincludedir @DIR@/none\ninclude @DIR@/fived.conf\n");
    let (code, _, err) = place.fived(&conf, &["-t"]);
    let path = place.at("fived.conf");
    assert_eq!(code, 1);
    assert!(err.contains(&format!("{}:2: perhaps: ", place.at("more.conf"))), "{err}");
    for line in [2, 3, 4] {
        assert!(err.contains(&format!("{path}:{line}: ")), "{line}: {err}");
    }
}

#[test]
fn every_mistake_is_reported_with_line_and_word() {
    mistakes(
        "a stream tcp perhaps @USER@ /bin/cat\nb stream tcp nowait @USER@ /bin/cat\n frobnicate = 1\n instances = many\nc dgram udp wait @USER@ /bin/cat\n",
        &[(1, "perhaps"), (3, "frobnicate"), (4, "instances"), (5, "c")],
    );
}

#[test]
fn a_rule_that_would_silently_be_something_else_is_a_mistake() {
    mistakes(
        &format!(
            "{ROW} only_from=10.0.0.0/8\n instances =5\n cps= 5\n env+=A=b\n only_from = ALL LOCAL 10.0.0.0/8\n if=/dev/zero\n 'only_from=x'\n only_from 10.0.0.0/8\n require: tls\n 'require' tls\n x require\n nice -n 5\n -v only_from = 10.0.0.0/8\n"
        ),
        &[
            (2, "only_from=10.0.0.0/8"),
            (3, "instances"),
            (4, "cps="),
            (5, "env+=A=b"),
            (6, "only_from"),
            (6, "only_from"),
            (9, "only_from"),
            (10, "require:"),
            (14, "only_from"),
        ],
    );
    let inline = "a stream tcp nowait @USER@ /bin/cat cat require = tls\nb stream tcp nowait @USER@ /bin/cat cat 'require' = tls env '=' x\n";
    mistakes(inline, &[(1, "require")]);
    mistakes("127.0.0.1:smtp stream tcp nowait @USER@ /bin/cat\n", &[(1, "127.0.0.1:smtp")]);
    same(
        arguments("x stream tcp nowait @USER@ @DIR@/show show\n if=/dev/zero 'only_from=x'\n"),
        "<if=/dev/zero><only_from=x>",
    );
}

#[test]
fn a_byte_order_mark_is_skipped() {
    let place = Place::new();
    let more = place.write("more.conf", "\u{feff}more stream tcp nowait @USER@ /bin/cat\n", 0o644);
    let (code, out, err) = place.fived(&format!("\u{feff}{ROW}include {more}\n"), &["-T"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("\ncat stream") && out.contains("\nmore stream"), "{out}");
}

#[test]
fn a_name_that_was_meant_as_a_port_is_a_warning() {
    for name in ["874", "*:873", "localhost:smtp", "www.example.org:80", "a:80"] {
        let (code, out, err) =
            Place::new().fived(&format!("{name} stream tcp nowait @USER@ /bin/cat\n"), &["-t"]);
        assert_eq!(
            (code, out.as_str(), err.lines().count()),
            (0, "configuration OK\n", 1),
            "{name}: {err}"
        );
        assert!(err.contains(&format!(":1: {name}: ")) && err.contains("`port = "), "{err}");
    }
    let (code, _, err) = Place::new().fived("a:b stream tcp nowait @USER@ /bin/cat\n", &["-t"]);
    assert_eq!((code, err.as_str()), (0, ""));
}

#[test]
fn a_file_of_another_program_has_one_mistake_that_says_what_to_do() {
    let xinetd = "# default: off\ndefaults\n{\n\tinstances = 60\n}\n\nservice telnet\n{\n\tsocket_type = stream\n\twait = no\n\tuser = root\n}\nincludedir /etc/xinetd.d\n";
    mistakes(xinetd, &[(3, "{")]);
    let (_, _, err) = Place::new().fived(xinetd, &["-t"]);
    assert!(err.contains("`xinetd = FILE` and --xinetd read such a file"), "{err}");
}

#[test]
fn times_have_units() {
    let conf = format!(
        "request_timeout = 2m\nlogin_timeout = 1h\nshutdown_timeout = 90s\n{ROW} server_timeout = 2d\n cps = 5 1m\n"
    );
    let (code, out, err) = Place::new().fived(&conf, &["-T"]);
    assert_eq!(code, 0, "{err}");
    for line in [
        "request_timeout = 120",
        "login_timeout = 3600",
        "shutdown_timeout = 90",
        "server_timeout = 172800",
        "cps = 5 60",
    ] {
        assert!(out.lines().any(|l| l.trim() == line), "{line}: {out}");
    }
    mistakes(
        &format!("keepalive = 5x\n{ROW} server_timeout = 0\n cps = 0 1y\n"),
        &[(1, "keepalive"), (3, "server_timeout"), (4, "cps"), (4, "cps")],
    );
}

#[test]
fn no_number_has_a_plus_sign() {
    let conf = format!(
        "listen = +1\nlogin_tries = +3\nlisten_mode = +666\nmax_lost = +1\nkeepalive = +5\n{ROW} \
         instances = +5\n per_source = +1\n cps = +5 +1\n max_load = +2.5\n nice = +1\n umask = +22\n \
         rlimit_as = +64M\n rlimit_files = +9\n backlog = +5\n only_from = 10.0.0.0/+8\n\
         b stream tcp nowait.+5 @USER@ /bin/cat\nc stream tcp nowait/+5 @USER@ /bin/cat\n"
    );
    mistakes(
        &conf,
        &[
            (1, "listen"),
            (2, "login_tries"),
            (3, "listen_mode"),
            (4, "max_lost"),
            (5, "keepalive"),
            (7, "instances"),
            (8, "per_source"),
            (9, "cps"),
            (9, "cps"),
            (10, "max_load"),
            (11, "nice"),
            (12, "umask"),
            (13, "rlimit_as"),
            (14, "rlimit_files"),
            (15, "backlog"),
            (16, "only_from"),
            (17, "nowait.+5"),
            (18, "nowait/+5"),
        ],
    );
    // What is no number may be a name of services(5).
    mistakes(&format!("{ROW} port = +80\n"), &[(2, "port")]);
}

/// A mistake hides no other: not in its line, not in its row, not in its file.
#[test]
fn a_mistake_hides_no_other() {
    mistakes(
        "listen = nowhere 1.2.3.4:99999\nenv = \"open\ninstances = 4\na dgram tcp nowait @USER@ /bin/cat\n instances = many\n only_from = 1.2.3.4.5 10.0.0.0/33\n\
         b stream tcp nowait @USER@ /bin/cat 'open\n require = tsl lgin\nc stream tcp perhaps @USER@ /bin/cat\n 'open\n cps = 1 x\nd stream tcp nowait *:@USER@ /bin/cat\n\
         [one]\ncertificate += /nonexistent/one\n",
        &[
            (1, "listen"),
            (1, "listen"),
            (2, "env"),
            (4, "tcp"),
            (4, "nowait"),
            (5, "instances"),
            (6, "only_from"),
            (6, "only_from"),
            (7, "b"),
            (8, "require"),
            (8, "require"),
            (9, "perhaps"),
            (10, "'open"),
            (11, "cps"),
            (12, &format!("*:{}", user())),
            (14, "certificate"),
        ],
    );
    let place = Place::new();
    std::fs::write(
        place.at("raw.conf"),
        b"# caf\xe9\ncaf\xe9 stream tcp nowait root /bin/cat # caf\xe9\n",
    )
    .expect("file");
    let (_, _, err) = run(&["-f", &place.at("raw.conf"), "-t"]);
    assert_eq!((err.lines().count(), err.find(":2: caf\u{fffd}: ").is_some()), (1, true), "{err}");
}

#[test]
fn mistakes_beyond_a_thousand_are_counted() {
    let place = Place::new();
    let more = "expected at most 1000 lines about a configuration, found";
    for (wrong, rest) in [(1000, 0), (1001, 1), (1234, 234)] {
        // A mistake of another kind does not come behind it.
        let (code, _, err) = place.fived(&format!("key = /k\n{}", "x\n".repeat(wrong)), &["-t"]);
        assert_eq!((code, err.lines().filter(|l| l.contains(": x: ")).count()), (1, 1000));
        let last = err.lines().last().unwrap_or_default();
        let wanted = format!("fived.conf:1002: {more} {rest} more, which are not shown");
        assert_eq!(last.contains(&wanted), rest != 0, "{wrong}: {last}");
        assert_eq!(err.matches(more).count(), usize::from(rest != 0));
        assert!(err.contains(":1: key: /k: "));
    }
    // The same of remarks about a file of another program.
    place.write("inetd.conf", &"x\n".repeat(1100), 0o644);
    let (_, _, err) = run(&["-t", "--inetd", &place.at("inetd.conf")]);
    assert!(err.contains(&format!("inetd.conf:1001: {more} 100 more")), "{err:.300}");
}

#[test]
fn what_only_this_computer_can_tell_has_its_line_too() {
    let one = "[one]\nkey = /nonexistent/one\n[two]\n\ncertificate = /nonexistent/two\na stream tcp perhaps @USER@ /bin/cat\n";
    mistakes(
        &format!("mptcp = yes\ncertificate = /nonexistent/c\n{one}"),
        &[(8, "perhaps"), (2, "certificate"), (4, "key"), (7, "certificate")],
    );
    // The setting is the word, and what cannot be read is told for each.
    let conf = "include /nonexistent/i\nincludedir /nonexistent/d\ncertificate = /nonexistent/c\nkey = /nonexistent/k\n[one]\ncertificate = /nonexistent/both\n";
    let place = Place::new();
    let (code, _, err) = place.fived(conf, &["-t"]);
    let wanted = [
        (1, "include: /nonexistent/i"),
        (2, "includedir: /nonexistent/d"),
        (3, "certificate: /nonexistent/c"),
        (4, "key: /nonexistent/k"),
        (6, "certificate: /nonexistent/both"),
    ]
    .map(|(line, word)| {
        let path = place.at("fived.conf");
        format!("{path}:{line}: {word}: No such file or directory (os error 2)\n")
    });
    assert_eq!((code, err), (1, wanted.concat()));
    if root() {
        mistakes("mptcp = yes\nuser = no-such-user\n", &[(2, "user")]);
        mistakes("user = root\n", &[(1, "user")]);
    }
}

/// Every such message has the same form: `FILE:LINE: WORD: what`, where the word is the setting.
#[test]
fn what_cannot_be_read_or_opened_is_told_at_the_setting_that_names_it() {
    let place = Place::new();
    let at = |path: &str, line: usize| format!("{}:{line}: ", place.at(path));
    let not_there = "/no/such: No such file or directory (os error 2)\n";
    for (setting, warning) in [("inetd", "warning: "), ("xinetd", "")] {
        let conf = format!("mptcp = yes\n{setting} = /no/such\n{ROW}");
        let wanted = format!("{warning}{}{setting}: {not_there}", at("fived.conf", 2));
        assert_eq!(place.fived(&conf, &["-t"]), (1, String::new(), wanted));
        // An option that names it is no line.
        let wanted = (1, String::new(), not_there.into());
        assert_eq!(run(&["-t", &format!("--{setting}"), "/no/such"]), wanted);
    }
    let conf = format!("mptcp = yes\npasswords = @DIR@\n{ROW}");
    let (code, _, err) = place.fived(&conf, &["-t"]);
    let wanted = format!("warning: {}passwords: ", at("fived.conf", 2));
    assert!(code == 0 && err.starts_with(&wanted), "{err}");
    let conf = format!("mptcp = yes\nlog_type = FILE /no/such/log\n{ROW}");
    let (code, _, err) = place.fived(&conf, &["-l", "127.0.0.1:0"]);
    let wanted = format!("{}log_type: /no/such/log: ", at("fived.conf", 2));
    assert!(code == 111 && err.ends_with("(os error 2)\n") && err.contains(&wanted), "{err}");
}

#[test]
fn rows_that_are_none() {
    for (row, word) in [
        ("a stream tcp nowait @USER@ bin/cat", "bin/cat"),
        ("a stream udp nowait @USER@ /bin/cat", "udp"),
        ("a seqpacket tcp nowait @USER@ /bin/cat", "seqpacket"),
        ("a stream tcp wait @USER@ /bin/cat", "a"),
        ("a dgram udp nowait @USER@ /bin/cat", "nowait"),
        ("a stream tcp wait.x @USER@ /bin/cat", "wait.x"),
        ("a stream tcp nowait.x @USER@ /bin/cat", "nowait.x"),
        ("a stream rpc/tcp nowait @USER@ /bin/cat", "rpc/tcp"),
        ("a stream unix nowait @USER@ /bin/cat", "a"),
        ("a dgram unix wait @USER@ /bin/cat", "unix"),
        ("HELP stream tcp nowait @USER@ /bin/cat", "HELP"),
        ("ssl stream tcp nowait @USER@ /bin/cat", "ssl"),
        ("multiplex stream tcp nowait @USER@ /bin/cat", "multiplex"),
        ("tcpmux stream tcp nowait @USER@ internal", "tcpmux"),
    ] {
        mistakes(&format!("{row}\n"), &[(1, word)]);
    }
}

#[test]
fn rows_with_something_missing_or_twice() {
    for conf in ["a\n", "a stream tcp nowait @USER@\n", "a stream tcp nowait @USER@ 'open\n"] {
        let (code, out, err) = Place::new().fived(conf, &["-t"]);
        assert_eq!((code, out.as_str(), err.lines().count()), (1, "", 1), "{conf}: {err}");
        assert!(err.contains("fived.conf:1: "), "{err}");
    }
    mistakes(&format!("{ROW}CAT stream tcp nowait @USER@ /bin/cat\n"), &[(2, "CAT")]);
    mistakes(&format!("{}{ROW}", ROW.replace("cat stream", "tcpmux/cat stream")), &[(2, "cat")]);
    mistakes(
        &format!("{} stream tcp nowait @USER@ /bin/cat\n", "n".repeat(256)),
        &[(1, &"n".repeat(256))],
    );
    mistakes("b\u{e9} stream tcp nowait @USER@ /bin/cat\n", &[(1, "b\u{e9}")]);
}

#[test]
fn settings_that_are_none() {
    for line in [
        "request_timeout = soon",
        "listen = nowhere",
        "max_connections = -1",
        "only_from = 300.1.1.1",
        "only_from = 10.0.0.0/33",
        "access_times = 25:00-26:00",
        "umask = 999",
        "nice = 99",
        "disable = perhaps",
        "stderr = elsewhere",
        "require = cash",
        "directory = relative",
    ] {
        let name = line.split(' ').next().expect("a name");
        mistakes(&format!("{line}\n"), &[(1, name)]);
    }
    let (code, _, err) = Place::new().fived(&format!("{ROW}instances = 4\n"), &["-t"]);
    assert!(code == 1 && err.contains("fived.conf:2: "), "after a row, not indented: {err}");
    let (code, _, err) = Place::new().fived(&format!("{ROW} listen = [::]:1\n"), &["-t"]);
    assert!(code == 1 && err.contains("fived.conf:2: listen: "), "global only: {err}");
    let (code, _, err) = Place::new().fived(" instances = 4\n", &["-t"]);
    assert!(code == 1 && err.contains("fived.conf:1: "), "indented under nothing: {err}");
}

#[test]
fn a_missing_program_or_user_is_a_warning() {
    let mut conf = String::from("a stream tcp nowait @USER@ /nonexistent/program\n");
    if root() {
        conf += "b stream tcp nowait no-such-user /bin/cat\n";
    }
    let (code, out, err) = Place::new().fived(&conf, &["-t"]);
    assert_eq!((code, out.as_str()), (0, "configuration OK\n"));
    assert!(err.contains("fived.conf:1: /nonexistent/program: "), "{err}");
    assert!(!root() || err.contains("fived.conf:2: no-such-user: "), "{err}");
}

/// A misspelt `!@group` would let everybody in whom it was to keep out, without a word.
#[test]
fn a_row_that_is_switched_off_warns_of_nothing_that_it_would_answer() {
    let off = "a stream tcp nowait @USER@ /no/such/program\n disable = yes\n\
        21 stream tcp nowait @USER@ /bin/cat\n disable = yes\n";
    assert_eq!(Place::new().fived(off, &["-t"]), (0, "configuration OK\n".into(), "".into()));
    let place = Place::new();
    place.write("inetd.conf", "ftp stream tcp nowait @USER@ no-such-program x\n", 0o644);
    let (code, _, err) = run(&["-t", "--inetd", &place.at("inetd.conf")]);
    assert_eq!((code, err.lines().count()), (1, 1), "{err}");
    assert!(err.contains("no-such-program: not served: "), "{err}");
}

#[test]
fn a_missing_group_of_a_rule_is_a_warning_once() {
    let conf = "users = !@no-such-group @root\na stream tcp nowait @USER@ /bin/cat\nb stream tcp nowait @USER@ /bin/cat\n";
    let (code, out, err) = Place::new().fived(conf, &["-t"]);
    assert_eq!((code, out.as_str()), (0, "configuration OK\n"));
    assert!(err.contains("fived.conf:1: @no-such-group: no such group"), "{err}");
    assert_eq!(err.lines().count(), 1, "{err}");
}

#[test]
fn what_a_row_lacks_is_told_at_the_line_that_names_it() {
    let rows = |more: &str| {
        format!(
            "\n\na stream tcp nowait @USER@ /bin/echo\n cps = 5\n{more}b stream tcp nowait @USER@ /bin/cat\n"
        )
    };
    let gone = "No such file or directory (os error 2): this service cannot be started until that is changed";
    let no_group = "no such group: this service cannot be started until that is changed";
    let rule = "no such group: the rule acts as if nobody were in it, until a reload finds it";
    let file = env!("CARGO_MANIFEST_DIR").to_string() + "/Cargo.toml";
    for (conf, wanted) in [
        (rows(" users = @nosuch\n"), vec![(5, format!("@nosuch: {rule}"))]),
        (format!("users = !@nosuch{}", rows("")), vec![(1, format!("@nosuch: {rule}"))]),
        (rows(" group = nosuch\n"), vec![(5, format!("nosuch: {no_group}"))]),
        (rows(" chroot = /nodir\n"), vec![(5, format!("chroot: /nodir: {gone}"))]),
        (rows(" directory = /nodir\n"), vec![(5, format!("directory: /nodir: {gone}"))]),
        (
            format!("directory = /nodir{}", rows("")),
            vec![(1, format!("directory: /nodir: {gone}"))],
        ),
        (
            rows(&format!(" directory = {file}\n")),
            vec![(
                5,
                format!(
                    "directory: {file}: Not a directory (os error 20): this service cannot be started until that is changed"
                ),
            )],
        ),
        // Below the other root.
        (
            rows(" chroot = /etc\n directory = /etc\n"),
            vec![(6, format!("directory: /etc: in /etc: {gone}"))],
        ),
        (rows(" directory = /tmp\n"), vec![]),
    ] {
        let place = Place::new();
        let (code, out, err) = place.fived(&conf, &["-t"]);
        let path = place.at("fived.conf");
        let wanted: String = wanted
            .into_iter()
            .map(|(line, what)| format!("warning: {path}:{line}: {what}\n"))
            .collect();
        assert_eq!((code, out.as_str(), err), (0, "configuration OK\n", wanted), "{conf}");
    }
    let place = Place::new();
    let plain = place.write("plain", "#!/bin/sh\n", 0o644);
    let (code, _, err) = place.fived(&format!("a stream tcp nowait @USER@ {plain}\n"), &["-t"]);
    let wanted = format!("fived.conf:1: {plain}: Permission denied (os error 13): this service");
    assert!(code == 0 && err.contains(&wanted), "{err}");
    let offer = "web stream tcp nowait - offer\n offered_by = @nosuch\n";
    let (_, _, err) = Place::new().fived(offer, &["-t"]);
    assert!(err.contains(&format!("fived.conf:2: @nosuch: {rule}")), "{err}");
}

#[test]
fn values_that_cannot_be_meant_are_mistakes() {
    for (conf, wanted) in [
        (
            "listen_mode = 999\n",
            r#"1: listen_mode: expected permissions of octal digits from 0 to 0777, such as 0660, found "999""#,
        ),
        (
            "rlimit_files = 3\n",
            r#"1: rlimit_files: expected a number of 4 or more, or UNLIMITED, because no program starts with fewer descriptors, found "3""#,
        ),
        (
            "umask = 999\n",
            r#"1: umask: expected a umask of octal digits, such as 022, found "999""#,
        ),
        (
            "authorized_keys = /a/%u /b/%x\n",
            r#"1: authorized_keys: expected a path that begins with / or %h/, with no other % than %u"#,
        ),
        (
            "authorized_keys = /a/%h\n",
            r#"1: authorized_keys: expected a path that begins with / or %h/, with no other % than %u"#,
        ),
        (
            "listen = 127.0.0.1:7001 [::1]:7001 127.0.0.1:7001\n",
            "1: listen: expected each address once, found 127.0.0.1:7001 twice",
        ),
        (
            "listen = 7001\nlisten += [::]:7001\n",
            "2: listen: expected each address once, found [::]:7001 twice",
        ),
    ] {
        let (code, _, err) = Place::new().fived(conf, &["-t"]);
        assert!(code == 1 && err.contains(&format!("fived.conf:{wanted}")), "{conf}: {err}");
    }
    for conf in [
        "listen = 127.0.0.1:0 127.0.0.1:0\n",
        "authorized_keys = %h/%u/%u\n",
        "listen = 0.0.0.0:7001 [::]:7001\n",
    ] {
        assert_eq!(Place::new().fived(conf, &["-t"]).0, 0, "{conf}");
    }
}

#[test]
fn bytes_that_are_no_text_are_reported_and_do_no_harm() {
    let place = Place::new();
    let path = place.at("raw.conf");
    for bytes in [
        &b"a\0b stream tcp nowait root /bin/cat\n"[..],
        b"\xff\xfe stream\n",
        b"[",
        b"[]\n",
        b"[a\nx",
        b"= 1\n",
        b" \t \n\\",
        b"'",
    ] {
        std::fs::write(&path, bytes).expect("file");
        let (code, _, err) = run(&["-f", &path, "-t"]);
        assert!(
            code == 0 || code == 1 && err.starts_with(&path),
            "{:?}: {code} {err}",
            bytes.escape_ascii().to_string()
        );
    }
}

#[test]
fn ten_thousand_services_are_read_and_found() {
    let conf: String = (0..10_000)
        .map(|n| format!("s{n} stream tcp nowait @USER@ /bin/echo echo {n}\n"))
        .collect();
    let d = Daemon::with(&conf).start();
    same(d.ask("s9999\r\n"), "+Go\r\n9999\n");
    assert_eq!(d.help().len(), 10_000);
}

/// Real configurations: whatever is in them, each ends in a verdict with file and line.
#[test]
fn files_from_the_real_world_get_a_verdict() {
    let beside = ["../shared/corpus", "../../shared/corpus"]
        .map(|p| std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(p));
    let Some(corpus) = beside.into_iter().find(|p| p.is_dir()) else {
        return skip("needs ../shared/corpus");
    };
    let files = ["inetd", "xinetd"]
        .iter()
        .flat_map(|d| std::fs::read_dir(corpus.join(d)).expect("corpus").flatten());
    let mut n = 0;
    for file in files.map(|f| f.path()).filter(|p| p.extension().is_some_and(|e| e == "conf")) {
        let path = file.to_str().expect("UTF-8");
        let (code, out, err) = run(&["-f", path, "-t"]);
        n += 1;
        match code {
            0 => assert_eq!(out, "configuration OK\n", "{path}"),
            1 => assert!(!err.is_empty() && err.lines().all(located), "{path}: {err}"),
            _ => panic!("{path}: {code} {err}"),
        }
    }
    assert!(n > 100);
}

/// `FILE:LINE: WORD: what`
fn located(line: &str) -> bool {
    let mut parts = line.splitn(3, ": ");
    let number = parts
        .next()
        .and_then(|p| p.rsplit_once(':'))
        .is_some_and(|(_, n)| n.parse::<u32>().is_ok());
    number && parts.count() == 2
}

/// inetd and xinetd have services of this name that are programs, too. Only `internal` is fived
/// itself.
#[test]
fn a_program_may_be_called_tcpmux() {
    let d = Daemon::with("hello stream tcp nowait @USER@ /bin/echo echo hello\n").start();
    let rows = "tcpmux stream tcp nowait @USER@ /bin/echo echo a program\n";
    let line = d.reload(rows);
    assert!(line.ends_with(" services=1"), "{line}");
    until("the new table is served", || d.ask("tcpmux\r\n") == b"+Go\r\na program\n");
    assert!(!d.log().contains("WARN"), "{}", d.log());
    let line = d.reload("tcpmux stream tcp nowait @USER@ internal\n");
    assert!(line.contains(" refused "), "{line}");
    d.wait_log("tcpmux: expected no row of tcpmux, which fived itself is, found one");
}

/// Lines that say something else than whoever wrote them means, as far as can be seen.
#[test]
fn what_may_be_meant_otherwise_is_a_warning() {
    for (conf, line, word, what) in [
        ("listen = 127.0.0.1:7\nlisten = [::1]:7\n", 2, "listen", "`listen +=` adds to it"),
        (
            "instances = 7\ninstances = 8\n",
            2,
            "instances",
            "takes the place of the value of line 1",
        ),
        (
            "@ROW@ cps = 7\n nice = 2\n cps = 8\n",
            4,
            "cps",
            "takes the place of the value of line 2",
        ),
        ("@ROW@ only_from = ::1\n only_from = 10.1.2.3\n", 3, "only_from", "`only_from +=` adds"),
        ("@ROW@ instances 5\n", 2, "instances", "`instances = VALUE`"),
        ("@ROW@ b stream tcp nowait @USER@ /bin/cat cat\n", 2, "b", "a row is not indented"),
    ] {
        let (code, _, err) = Place::new().fived(&conf.replace("@ROW@", ROW), &["-t"]);
        let wanted = format!(":{line}: {word}: ");
        assert!(code == 0 && err.lines().count() <= 2, "{conf}: {err}");
        assert!(err.lines().any(|l| l.contains(&wanted) && l.contains(what)), "{conf}: {err}");
    }
    // What no other place says is no matter for a warning.
    let fine = format!(
        "instances = 7\nlisten = 127.0.0.1:7\nlisten += [::1]:7\n{ROW} instances = 8\n 'instances' 5\n\
         [one]\ninstances = 9\n{ROW}[two]\ninstances = 9\n{ROW}"
    );
    let (code, _, err) = Place::new().fived(&fine, &["-t"]);
    assert_eq!((code, err.as_str()), (0, ""));
    mistakes(&format!("{ROW} disable yes\n"), &[(2, "disable")]);
    mistakes("listen 127.0.0.1:7\n", &[(1, "listen")]);
}

/// A carriage return, which a terminal obeys, is all that is wrong with many a script.
#[test]
fn control_characters_are_shown_and_not_obeyed() {
    let place = Place::new();
    let script = place.write("script", "#!/bin/sh\r\necho \u{1b}[2J\n", 0o755);
    let conf = format!("x stream tcp nowait @USER@ {script} x\n");
    let (code, _, err) = place.fived(&conf, &["-t"]);
    assert!(code == 0 && err.contains(": /bin/sh\\r: No such file"), "{err:?}");
    assert!(!err.contains('\r'), "{err:?}");
}
