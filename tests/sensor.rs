//! A sensor (xinetd.conf(5), `flags = SENSOR`, and the row `internal sensor`), and a file of xinetd
//! beside the rows of fived.conf(5).

mod support;
#[path = "support/tls.rs"]
mod tls;

use std::net::{IpAddr, Ipv4Addr};
use support::*;
use tls::Tls;

const XINETD: &str = "defaults\n{\n instances = 3\n}\nservice trap\n{\n type = UNLISTED\n port = 0\n bind = 127.0.0.1\n flags = SENSOR\n deny_time = 60\n only_from = 192.0.2.1\n socket_type = stream\n wait = no\n}\n\
    service hello\n{\n type = UNLISTED\n port = 0\n bind = 127.0.0.1\n socket_type = stream\n wait = no\n user = @USER@\n server = /bin/echo\n server_args = hi  there\n}\n";

const TRAP_IN_SESSION: &str =
    "+ Success\r\nWhich VHOST? Host  selected\r\n-Service not available\r\n";
const RUN_TRAP: &str = "+ Success\r\n-Service not available\r\n";

/// A client from this address of the loopback at the nth port of a row: all that it is told.
fn answer(d: &Daemon, n: usize, from: u8) -> String {
    let from: IpAddr = Ipv4Addr::new(127, 0, 0, from).into();
    String::from_utf8_lossy(&connect_from(from, d.port(n)).read_all()).into_owned()
}

#[test]
fn who_touches_a_sensor_is_refused_everywhere() {
    let conf = "xinetd = @DIR@/xinetd.conf\ndate stream tcp nowait @USER@ /bin/echo echo now\n";
    let d = Daemon::with(conf).file("xinetd.conf", XINETD).start();
    assert_eq!(answer(&d, 1, 2), "hi there\n");
    same(d.ask("date\r\n"), "+Go\r\nnow\n");
    assert_eq!(answer(&d, 0, 1), "", "the sensor says nothing");
    let line = d.wait_log("PENALTY from=127.0.0.1");
    assert!(line.contains(" reason=sensor seconds=3600 "), "{line}");
    d.wait_log("REFUSE service=trap host= reason=sensor");
    assert_eq!(answer(&d, 1, 1), "", "at another port");
    same(d.ask("date\r\n"), NOT_AVAILABLE);
    assert_eq!(answer(&d, 1, 2), "hi there\n", "from another source");
    // A reload forgets nobody.
    d.reload(conf);
    same(d.ask("date\r\n"), NOT_AVAILABLE);
}

/// However it is reached, and whatever its rules on addresses say.
#[test]
fn a_sensor_is_touched_by_its_name_and_in_tls_too() {
    let trap = "trap stream tcp nowait @USER@ internal sensor\n deny_time = 10m\n only_from = 192.0.2.1\n port = 127.0.0.1:0\n tls_port = 127.0.0.1:0\n";
    let d =
        Daemon::with(&format!("{trap}date stream tcp nowait @USER@ /bin/echo echo now\n")).start();
    let [port, tls_port] = d.ports::<2>();
    let from = |n: u8| d.connect_from(&format!("127.0.0.{n}"));
    let date = |n| String::from_utf8_lossy(&from(n).send("date\r\n").read_all()).into_owned();
    let touches: [&dyn Fn(u8); 6] = [
        &|n| same(from(n).send("trap\r\n").read_all(), NOT_AVAILABLE),
        &|n| same(from(n).send("HOST\r\n\r\ntrap\r\n").read_all(), TRAP_IN_SESSION),
        &|n| same(from(n).send("RUN\r\ntrap\r\n").read_all(), RUN_TRAP),
        &|n| {
            let mut c = Tls::start(from(n).0, "localhost");
            c.send(b"trap\r\n");
            same(c.read_all(), NOT_AVAILABLE);
        },
        &|n| assert_eq!(connect_from(Ipv4Addr::new(127, 0, 0, n).into(), port).read_any(), b""),
        &|n| {
            let c = connect_from(Ipv4Addr::new(127, 0, 0, n).into(), tls_port);
            assert_eq!(Tls::start(c.0, "localhost").read_all(), b"");
        },
    ];
    for (n, touch) in (2..).zip(touches) {
        assert_eq!(date(n), "+Go\r\nnow\n");
        touch(n);
        d.wait_log(&format!("PENALTY from=127.0.0.{n} reason=sensor seconds=600"));
        assert_eq!(date(n), NOT_AVAILABLE);
    }
    // HELP names it only to whom its rules let in.
    assert!(!d.help().contains(&"trap".to_string()));
}

#[test]
fn a_file_of_xinetd_that_is_wrong_keeps_nobody_else_from_being_served() {
    let conf = "xinetd = @DIR@/xinetd.conf\ndate stream tcp nowait @USER@ /bin/echo echo now\n";
    let wrong = XINETD.replace("server_args =", "rlimit_cpu = many\n server_args =");
    let d = Daemon::with(conf).file("xinetd.conf", &wrong).start();
    d.wait_log("rlimit_cpu: expected a time");
    same(d.ask("date\r\n"), "+Go\r\nnow\n");
    assert_eq!(d.log().matches("listening on ").count(), 2, "{}", d.log());
    let (code, out, err) = d.place.fived(conf, &["-t"]);
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
}
