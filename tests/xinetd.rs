//! Tables of xinetd.conf(5), by the real program. (The files of other computers are in
//! `tests/xinetd_tables.rs`.)

mod support;
use support::*;

/// A service of that id, at its port, with more lines.
fn service(id: &str, more: &str) -> String {
    format!(
        "service {id}\n{{\n type = UNLISTED\n port = 0\n bind = 127.0.0.1\n socket_type = stream\n wait = no\n user = @USER@\n server = /bin/echo\n server_args = {id}\n{more}}}\n"
    )
}

/// A daemon that has this table, and nothing else.
fn table(text: &str) -> Builder {
    Daemon::with("xinetd = @DIR@/xinetd.conf\n").file("xinetd.conf", text)
}

#[test]
fn files_are_included_and_defaults_say_which_services_are_on() {
    let defaults = "defaults\n{\n enabled = a b d own\n disabled = b\n log_on_success = PID HOST EXIT\n \
        only_from = 127.0.0.1\n only_from += 127.0.0.2\n}\n";
    let main = defaults.to_string()
        + &service("a", " log_on_success -= PID\n")
        + &service("b", "")
        + "includedir @DIR@/xinetd.d\ninclude @DIR@/more\n";
    let d = table(&main)
        .file("xinetd.d/c", &service("c", ""))
        .file("xinetd.d/d", &service("d", " only_from -= 127.0.0.1\n"))
        // What a package manager or an editor leaves is no service.
        .file("xinetd.d/d.dpkg-old", "nonsense")
        .file("xinetd.d/d~", "nonsense")
        .file("more", &service("e", " id = own\n"))
        .start();
    let at = d.ports::<3>();
    let says = |n: usize, from: u8| {
        let from = std::net::Ipv4Addr::new(127, 0, 0, from).into();
        String::from_utf8_lossy(&connect_from(from, at[n]).read_all()).into_owned()
    };
    let all = [says(0, 1), says(1, 1), says(1, 2), says(2, 2), says(2, 3)];
    assert_eq!(all, ["a\n", "", "d\n", "e\n", ""]);
    let starts = ["a", "d", "own"].map(|id| d.wait_log(&format!("START service={id} host= ")));
    assert_eq!(starts.map(|l| l.contains(" pid=")), [false, true, true]);
    assert_eq!(d.ports_named(), 3, "{}", d.log());
    assert!(!d.log().contains("WARN"), "{}", d.log());
}

#[test]
fn what_is_not_served_is_switched_off_and_all_else_is_served() {
    let not_served = [
        " type = RPC UNLISTED\n",
        " flags = INTERCEPT\n",
        " flags = IDONLY\n",
        " flags = LABELED\n",
        " socket_type = raw\n",
        " socket_type = seqpacket\n",
    ];
    for lines in not_served {
        let attribute = lines.split_whitespace().next().expect("an attribute");
        let usual = service("off", "");
        let kept = usual.lines().filter(|l| !l.trim_start().starts_with(attribute));
        let row: Vec<&str> = kept.collect();
        let off = row.join("\n").replace("\n}", &format!("\n{lines}}}\n"));
        let place = Place::new();
        let path = place.write("xinetd.conf", &(off + &service("on", "")), 0o644);
        let (code, out, err) = run(&["-T", "--xinetd", &path]);
        assert_eq!((code, err.lines().count()), (0, 1), "{lines}{err}");
        let word = lines.split_whitespace().nth(2).expect("a word");
        assert!(err.starts_with(&format!("warning: {path}:")), "{err}");
        assert!(err.contains(&format!(": {word}: not served: ")), "{lines}{err}");
        let states: Vec<&str> =
            out.lines().filter_map(|l| l.strip_prefix("\tdisable = ")).collect();
        assert_eq!(states, ["yes", "no"], "{lines}{out}");
    }
}

/// xinetd sends none there either. One of the service's own is told of.
#[test]
fn a_banner_of_defaults_does_not_touch_a_service_that_sends_none() {
    let lines: String = ["banner", "banner_success", "banner_fail"]
        .map(|b| format!(" {b} = /etc/hostname\n"))
        .concat();
    let row = |id: &str, form: &str, more: &str| {
        let row = service(id, more).replace("stream\n wait = no", form);
        row.replace("bind", "flags = NOLIBWRAP\n bind")
    };
    for form in ["stream\n wait = yes", "dgram\n wait = yes"] {
        let place = Place::new();
        let text = format!("defaults\n{{\n{lines}}}\n{}", row("own", form, ""));
        let path = place.write("xinetd.conf", &text, 0o644);
        assert_eq!(run(&["-t", "--xinetd", &path]), (0, "configuration OK\n".into(), "".into()));
        let (code, out, _) = run(&["-T", "--xinetd", &path]);
        assert!(code == 0 && out.contains("\tdisable = no\n") && !out.contains("banner"), "{out}");
        let path = place.write("xinetd.conf", &row("own", form, &lines), 0o644);
        let (code, out, err) = run(&["-T", "--xinetd", &path]);
        assert!(code == 0 && out.contains("\tdisable = no\n"), "{out}{err}");
        let told = err.lines().filter(|l| l.contains(": expected a row of `nowait`, for nobody"));
        assert_eq!((told.count(), err.lines().count()), (3, 3), "{err}");
    }
}

/// As xinetd does; a row of fived.conf sends nothing (`ports.rs`).
#[test]
fn who_may_not_use_a_service_is_sent_its_banners() {
    let banners = " banner = @DIR@/all\n banner_fail = @DIR@/no\n banner_success = @DIR@/yes\n";
    let far = " only_from = 192.0.2.1\n";
    let d = table(&(service("far", &(banners.to_string() + far)) + &service("mute", far)))
        .file("all", "here\n")
        .file("no", "not you\n")
        .file("yes", "you\n")
        .start();
    let [far, mute] = d.ports();
    same(Client::connect(far).read_all(), "here\nnot you\n");
    assert!(d.wait_log("REFUSE service=far").contains("reason=address"));
    assert_eq!(Client::connect(mute).read_any(), b"");
    // Nobody waits for what such a client still sends.
    let mut c = Client::connect(far);
    c.expect("here\nnot you\n").end();
}

/// A service that is wrong is printed switched off. If it were a mistake there, too, all that is
/// printed would be refused.
#[test]
fn whatever_services_are_together_what_is_printed_is_read_again() {
    let forms = ["stream\n wait = no", "stream\n wait = yes", "dgram\n wait = yes"];
    let servers = [
        " server = /bin/echo\n",
        " redirect = 127.0.0.1 1\n",
        " flags = SENSOR\n",
        " type = UNLISTED INTERNAL\n",
        " flags = SENSOR IPv4\n bind = ::1\n",
    ];
    let rules = ["only_from = 127.0.0.1", "no_access = 127.0.0.1", "banner = /etc/hostname", ""];
    let defaults = ["", " only_from = ::1\n", " banner = /etc/hostname\n"];
    for defaults in defaults {
        let mut text = format!("defaults\n{{\n{defaults}}}\n");
        let mut count = 0;
        for (form, server, rule) in forms.iter().flat_map(|form| {
            let all = servers.iter().flat_map(|s| rules.iter().map(move |r| (s, r)));
            all.map(move |(server, rule)| (form, server, rule))
        }) {
            count += 1;
            let kind = if server.contains("type") { "" } else { " type = UNLISTED\n" };
            text += &format!(
                "service echo\n{{\n id = n{count}\n{kind} port = 0\n user = @USER@\n \
                 socket_type = {form}\n{server} {rule}\n}}\n"
            );
        }
        let place = Place::new();
        let path = place.write("xinetd.conf", &text, 0o644);
        let (code, out, err) = run(&["-T", "--xinetd", &path]);
        assert_eq!((code, out.matches("\tdisable = ").count()), (0, count), "{err}");
        assert!(out.contains("\tdisable = yes\n"), "{err}");
        assert_eq!(place.fived(&out, &["-T"]), (0, out, "".into()), "{err}");
    }
}

#[test]
fn a_service_that_xinetd_alone_can_serve_is_no_mistake() {
    let alone = "expected a row of `nowait`, found one of `wait`";
    for (form, lines, wanted) in [
        (
            "stream\n wait = yes",
            " only_from = ::1\n",
            format!("11: only_from: not served: {alone}"),
        ),
        (
            "stream\n wait = yes",
            " no_access = ::1\n",
            format!("11: no_access: not served: {alone}"),
        ),
        ("stream\n wait = yes", " redirect = ::1 1\n", "1: off: not served: expected a ".into()),
        ("stream\n wait = yes", " flags = SENSOR\n", "11: SENSOR: not served: a sensor ".into()),
        ("dgram\n wait = yes", " flags = SENSOR\n", "11: SENSOR: not served: a sensor ".into()),
    ] {
        let place = Place::new();
        let row = service("off", lines).replace("stream\n wait = no", form);
        let path = place.write("xinetd.conf", &row, 0o644);
        let (code, out, err) = run(&["-t", "--xinetd", &path]);
        assert_eq!((code, out.as_str()), (0, "configuration OK\n"), "{err}");
        let wanted = format!("warning: {path}:{wanted}");
        assert!(err.starts_with(&wanted) && err.lines().count() == 1, "{wanted}: {err}");
        let (_, out, _) = run(&["-T", "--xinetd", &path]);
        assert!(out.contains("\tdisable = yes\n"), "{out}");
    }
}

/// Whoever migrates prints the table, and must see there what becomes of each row.
#[test]
fn what_fived_conf_prints_of_such_a_file_has_its_warnings() {
    let place = Place::new();
    place.write("xinetd.conf", &service("off", " flags = INTERCEPT\n"), 0o644);
    place.write("inetd.conf", "x raw udp wait @USER@ /bin/true\n", 0o644);
    for (option, setting, word) in [
        ("--xinetd", "xinetd = @DIR@/xinetd.conf\n", "INTERCEPT"),
        ("--inetd", "inetd = @DIR@/inetd.conf\n", "raw"),
    ] {
        let file = place.fill(setting).split_whitespace().last().expect("a file").to_string();
        let (code, _, wanted) = run(&["-T", option, &file]);
        assert!(code == 0 && wanted.contains(&format!(": {word}: not served: ")), "{wanted}");
        let (code, out, err) = place.fived(setting, &["-T"]);
        assert_eq!((code, &err), (0, &wanted));
        assert_eq!(place.fived(setting, &["-t"]).2, wanted);
        // It is one of fived's own now, whose rows are as they stand.
        assert_eq!(place.fived(&out, &["-T"]), (0, out, "".into()));
    }
}

/// As xinetd does, fived asks for the name's address while it reads the table.
#[test]
fn bind_takes_the_name_of_a_host() {
    let row = |id: &str, bind: &str| {
        format!(
            "service {id}\n{{\n type = UNLISTED\n port = 0\n socket_type = stream\n wait = no\n user = @USER@\n server = /bin/echo\n server_args = {id}\n bind = {bind}\n}}\n"
        )
    };
    let text = row("named", "localhost") + &row("unknown", "no-such-host.invalid");
    let d = table(&text).start();
    let at = d.port(0);
    assert_eq!(at.ip().to_string(), "127.0.0.1");
    Client::connect(at).expect("named\n").end();
    let line = d.wait_log("no-such-host.invalid");
    assert!(line.starts_with("WARN ") && line.contains("bind: "), "{line}");
    // The one that could not be found is off, and the other is at its address in fived's own form.
    let (code, out, err) = run(&["-T", "--xinetd", &d.place.at("xinetd.conf")]);
    assert!(code == 0 && out.contains("port = 127.0.0.1:0\n"), "{out}{err}");
}

/// xinetd reads numbers with strtol(3).
#[test]
fn a_number_may_have_a_plus_sign() {
    let lines = " instances = +5\n per_source = +2\n cps = +3 +4\n max_load = +2.5\n nice = +1\n umask = +22\n \
        rlimit_as = +64M\n rlimit_cpu = +9\n";
    let place = Place::new();
    let service = service("a", lines).replace("port = 0", "port = +5999");
    let path = place.write("xinetd.conf", &service, 0o644);
    let (code, out, err) = run(&["-T", "--xinetd", &path]);
    assert_eq!(code, 0, "{err}");
    for line in [
        "port = 127.0.0.1:5999",
        "instances = 5",
        "per_source = 2",
        "cps = 3 4",
        "max_load = 2.5",
        "nice = 1",
        "umask = 022",
        "rlimit_as = 67108864",
        "rlimit_cpu = 9",
    ] {
        let words = |l: &str| l.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(out.lines().any(|l| words(l) == line), "{line}: {out}");
    }
}

/// fived(8), The files of xinetd: where fived differs, a warning says so.
#[test]
fn each_difference_is_told_with_its_line() {
    let own = |more: &str| service("a", more);
    let named = |types: &str| {
        own("").replace("type = UNLISTED", types).replace(" port = 0\n bind = 127.0.0.1\n", "")
    };
    let defaults = |line: &str| format!("defaults\n{{\n {line}\n}}\n{}", own(""));
    let internal = named("type = INTERNAL")
        .replace("service a", "service time")
        .replace("stream", "dgram")
        .replace("wait = no", "wait = yes")
        .replace(" server = /bin/echo\n server_args = a\n", "");
    let place = Place::new();
    for (text, wanted) in [
        (own(" per_source = 3 # of them\n"), "11: #: a comment begins here"),
        (own(" only_from = 10.9\n"), "11: 10.9: "),
        (own(" only_from = 10.9.0.0/255.255.0.0\n"), "11: 10.9.0.0/255.255.0.0: "),
        (
            own(" only_from = 10.0.0.1\n no_access = 10.0.0.2\n"),
            "1: no_access: of `only_from` and `no_access` the more specific decides",
        ),
        (own(" access_times = 22:00-06:00\n"), "11: 22:00-06:00: served at these hours"),
        (own(" access_times = 08:00-24:00\n"), "11: 08:00-24:00: served at these hours"),
        (own(" cps = 3 5\n"), "11: cps: clients above the rate are refused"),
        (own(" v6only = no\n"), "11: v6only: serves IPv4 too"),
        (own(" log_on_success = USERID\n"), "11: USERID: the log has the user who logged in"),
        (own(" log_on_success = TRAFFIC\n"), "11: log_on_success: served with TRAFFIC"),
        (own(" log_type = FILE /l 1 2\n"), "11: log_type: the log lines of this service go where"),
        (own(" banner = /no/such\n"), "11: banner: /no/such: "),
        (own(" env = a-b=c\n"), "11: env: a-b=c: "),
        (own(" flags = NODELAY\n"), "11: NODELAY: fived does not set TCP_NODELAY"),
        (own(" group = nogroup\n groups = yes\n"), "11: group: stands in place of"),
        (
            named("type = TCPMUX"),
            "3: type: the service is reached by its name; in xinetd it is so only with UNLISTED",
        ),
        (named("type = TCPMUX UNLISTED"), "1: a: its rules and limits hold"),
        (
            named("type = TCPMUX UNLISTED"),
            "1: a: is reached by its name at fived's own port; xinetd asks for a service tcpmux",
        ),
        (defaults("v6only = yes"), "3: v6only: holds for every service"),
        (defaults("log_type = FILE /l 1 2"), "3: log_type: the file may grow without limits"),
        (internal, "1: time: no answer is larger than the datagram that asks for it"),
    ] {
        let path = place.write("x", &place.fill(&text), 0o644);
        let (_, _, said) = run(&["-t", "--xinetd", &path]);
        let wanted = format!("warning: {path}:{wanted}");
        assert!(said.lines().any(|line| line.starts_with(&wanted)), "{wanted}: {said}\n{text}");
    }
}
