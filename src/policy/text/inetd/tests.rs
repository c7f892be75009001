//! Rows of inetd.conf(5), and what fived makes of them.

use super::super::super::origin::{Grammar, Origin};
use super::super::load::load;
use super::*;
use proptest::prelude::*;

/// A computer with these services and programs.
pub(super) struct Computer;

impl Files for Computer {
    fn read(&mut self, path: &str) -> Result<Vec<u8>, String> {
        Err(format!("{path} is not asked for"))
    }

    fn list(&mut self, directory: &str) -> Result<Vec<String>, String> {
        Err(format!("{directory} is not asked for"))
    }

    fn port(&mut self, name: &str, protocol: &str) -> Option<u16> {
        const TCP: &str = "tcpmux 1 echo 7 sink 9 discard 9 daytime 13 qotd 17 chargen 19 ftp 21 \
            ssh 22 telnet 23 time 37 gopher 70 finger 79 http 80 pop3 110 ident 113 exec 512 \
            login 513 shell 514 klogin 543 kshell 544 swat 901 eklogin 2105 cvspserver 2401 \
            dict 2628 amanda 10080";
        const UDP: &str = "echo 7 discard 9 daytime 13 chargen 19 time 37 tftp 69 comsat 512 \
            talk 517 ntalk 518";
        let all = if protocol == "udp" { UDP } else { TCP };
        let words: Vec<&str> = all.split_whitespace().collect();
        let at = words.iter().position(|w| *w == name)?;
        words[at + 1].parse().ok()
    }

    fn program(&mut self, name: &str) -> Option<String> {
        (name == "cat").then(|| "/bin/cat".into())
    }
}

/// `NAME FAMILY@PORTS` of each row, and what is wrong.
pub(super) fn read(text: &str) -> (Vec<String>, Vec<String>) {
    let mut reader = InetdReader::new(&[]);
    reader.file("f", text.as_bytes(), &mut Computer);
    let (rows, warnings) = reader.finish();
    let rows = rows.iter().map(|(_, _, row)| shown(row)).collect();
    (rows, warnings.into_vec().iter().map(ToString::to_string).collect())
}

fn shown(row: &InetdRow) -> String {
    let reached = match &row.reached {
        Reached::Name => "by name".into(),
        Reached::Ports(ports) => {
            ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        }
        Reached::Off => "off".into(),
    };
    format!("{} {} {reached}", row.columns.name, row.columns.endpoint.protocol())
}

/// Where fived itself listens, as -T prints it.
fn listens(text: &str, option: &[&str]) -> Option<String> {
    let addresses = option.iter().map(|a| a.parse().expect("an address"));
    let mut reader = InetdReader::new(&addresses.collect::<Vec<_>>());
    reader.file("f", text.as_bytes(), &mut Computer);
    reader.listens().map(|(_, pair)| pair.words.join(" "))
}

#[test]
fn the_row_of_tcpmux_says_where_fived_listens() {
    let mux = "stream tcp nowait root internal\ntcpmux/a stream tcp nowait u /a\n";
    for (text, wanted) in [
        (format!("tcpmux {mux}"), None),
        (format!("*:tcpmux {mux}"), None),
        (format!("127.0.0.1:tcpmux {mux}"), Some("127.0.0.1:1")),
        (format!("localhost,::1:tcpmux {mux}"), Some("127.0.0.1:1 [::1]:1")),
        (format!("localhost:tcpmux {mux}"), Some("127.0.0.1:1 [::1]:1")),
        (format!("127.0.0.1:\ntcpmux {mux}"), Some("127.0.0.1:1")),
        (format!("tcpmux {}", mux.replacen("tcp", "tcp4", 1)), Some("0.0.0.0:1")),
        (format!("127.0.0.1:tcpmux {mux}tcpmux {mux}"), None),
        (format!("10.0.0.1:tcpmux {mux}127.0.0.1:tcpmux {mux}"), Some("10.0.0.1:1 127.0.0.1:1")),
        // Its address cannot be read: nowhere, rather than everywhere.
        (format!("nowhere:tcpmux {mux}"), Some("")),
        ("tcpmux/a stream tcp nowait u /a\n".into(), None),
        // Nothing has a name.
        ("127.0.0.1:tcpmux stream tcp nowait root internal\n".into(), None),
    ] {
        assert_eq!(listens(&text, &[]).as_deref(), wanted, "{text}");
    }
    // -a is a setting of its own, which a row's own address overrides.
    assert_eq!(listens(&format!("tcpmux {mux}*:tcpmux {mux}"), &["127.0.0.1"]), None);
    let own = listens(&format!("10.0.0.1:tcpmux {mux}"), &["127.0.0.1"]);
    assert_eq!(own.as_deref(), Some("10.0.0.1:1"));
}

#[test]
fn the_option_a_says_where_rows_listen_that_do_not_say_it() {
    let text = "echo stream tcp nowait u /e\n*:time stream tcp nowait u /e\n\
        ssh stream tcp6 nowait u /e\n[::1]:ftp stream tcp6 nowait u /e\n127.0.0.2:\n\
        http stream tcp nowait u /e\n*:\ntftp dgram udp4 wait u /e\n";
    let mut reader = InetdReader::new(&["127.0.0.1".parse().expect("an address")]);
    reader.file("f", text.as_bytes(), &mut Computer);
    let (rows, warnings) = reader.finish();
    let rows: Vec<_> = rows.iter().map(|(_, _, row)| shown(row)).collect();
    let wanted = [
        "echo tcp 127.0.0.1:echo",
        "time tcp 127.0.0.1:time",
        "ssh tcp6 off",
        "ftp tcp6 [::1]:ftp",
        "http tcp 127.0.0.2:http",
        "tftp udp4 127.0.0.1:tftp",
    ];
    assert_eq!(rows, wanted);
    let warnings: Vec<_> = warnings.into_vec().iter().map(ToString::to_string).collect();
    let wanted = "f:3: tcp6: not served: at the address of -a, which is of the other family";
    assert_eq!(warnings, [wanted]);
    // A host that has addresses of both families.
    let both = ["127.0.0.1", "::1"].map(|a| a.parse().expect("an address"));
    let mut reader = InetdReader::new(&both);
    let text = b"echo stream tcp nowait u /e\nssh stream tcp4 nowait u /e\n";
    reader.file("f", text, &mut Computer);
    let rows: Vec<_> = reader.finish().0.iter().map(|(_, _, row)| shown(row)).collect();
    assert_eq!(rows, ["echo tcp 127.0.0.1:echo [::1]:echo", "ssh tcp4 127.0.0.1:ssh"]);
}

/// The rows of a text with which nothing is wrong.
pub(super) fn rows(text: &str) -> Vec<String> {
    let (rows, warnings) = read(text);
    assert_eq!(warnings, Vec::<String>::new(), "{text}");
    rows
}

pub(super) const END: &str = "stream tcp nowait root /x";

#[test]
fn a_row_is_reached_where_it_says() {
    for (text, wanted) in [
        (format!("ftp {END}"), vec!["ftp tcp ftp"]),
        (format!("2121 {END}"), vec!["2121 tcp 2121"]),
        (format!("127.0.0.1:ftp {END}"), vec!["ftp tcp 127.0.0.1:ftp"]),
        (format!("*:ftp {END}"), vec!["ftp tcp ftp"]),
        (format!("127.0.0.1,10.0.0.1:21 {END}"), vec!["21 tcp 127.0.0.1:21 10.0.0.1:21"]),
        ("::1:444 stream tcp6 nowait root /x".into(), vec!["444 tcp6 [::1]:444"]),
        ("[::1]:444 stream tcp6only nowait root /x".into(), vec!["444 tcp6 [::1]:444"]),
        ("localhost:5 stream tcp6 nowait root /x".into(), vec!["5 tcp6 [::1]:5"]),
        (
            format!("127.0.0.2:\n5 {END}\n*:6 {END}\n*:\n7 {END}"),
            vec!["5 tcp 127.0.0.2:5", "6 tcp 6", "7 tcp 7"],
        ),
        (format!("tcpmux/a {END}\ntcpmux/+b {END}"), vec!["a tcp by name", "b tcp by name"]),
        ("tcpmux stream tcp nowait root internal".into(), vec![]),
        (format!("tcpmux {END}"), vec!["tcpmux tcp tcpmux"]),
        ("tftp dgram udp wait root /x".into(), vec!["tftp udp4 tftp", "tftp udp6 tftp"]),
        ("5 stream tcp wait.40 root /x".into(), vec!["5 tcp4 5", "5 tcp6 5"]),
        // Where it says its addresses or families, or is fived's own, one socket does.
        ("127.0.0.1:5 dgram udp wait root /x".into(), vec!["5 udp 127.0.0.1:5"]),
        ("5 dgram udp46 wait root /x".into(), vec!["5 udp 5"]),
        ("echo dgram udp nowait root internal".into(), vec!["echo udp echo"]),
        // One port for TCP and one for UDP.
        (format!("5 {END}\n5 dgram udp wait root /x"), vec!["5 tcp 5", "5 udp4 5", "5 udp6 5"]),
        // rlogin's port, not the built-in LOGIN.
        (format!("login {END}"), vec!["login tcp login"]),
        ("5 stream tcp,rcvbuf=12k nowait root /x".into(), vec!["5 tcp 5"]),
        ("/run/s stream unix nowait root /x".into(), vec!["/run/s unix /run/s"]),
        (":u:g:660:/run/s stream unix wait root /x".into(), vec!["/run/s unix /run/s"]),
    ] {
        assert_eq!(rows(&text), wanted, "{text}");
    }
}

#[test]
fn tcp_leaves_ipv6_to_a_row_of_its_own() {
    let rows = rows(
        "5 stream tcp nowait root /x\n5 stream tcp6 nowait root /x\n6 stream tcp46 nowait root /x\n",
    );
    assert_eq!(rows, ["5 tcp4 5", "5 tcp6 5", "6 tcp 6"]);
}

#[test]
fn columns_are_those_of_fived_conf() {
    let text = "5 stream tcp nowait/3/4/5 u.g/class /a/b\n\
                6 stream tcp nowait.40 u:g cat -n 'x y'\n\
                sink stream tcp wait root internal x\n\
                7 stream tcp nowait root internal\n\
                8 stream tcp nowait u /bin/x /usr/bin/other -z\n\
                9 dgram udp4 wait.2 u /bin/x\n\
                echo dgram udp nowait u internal\n\
                tcpmux/a stream tcp wait u /bin/x\n";
    let mut reader = InetdReader::new(&[]);
    reader.file("f", text.as_bytes(), &mut Computer);
    let (rows, _) = reader.finish();
    let columns: Vec<_> = rows.into_iter().map(|(_, _, row)| row.columns).collect();
    let wanted = [
        ["5", "stream", "tcp", "nowait/3/4/5", "u:g", "/a/b", "b"].as_slice(),
        &["6", "stream", "tcp", "nowait:40", "u:g", "/bin/cat", "-n", "x y"],
        &["sink", "stream", "tcp", "nowait", "root", "internal", "discard"],
        &["7", "stream", "tcp", "nowait", "root", "internal", "echo"],
        &["8", "stream", "tcp", "nowait", "u", "/bin/x", "/usr/bin/other", "-z"],
        &["9", "dgram", "udp4", "wait:2", "u", "/bin/x", "x"],
        &["echo", "dgram", "udp", "wait", "u", "internal", "echo"],
        &["tcpmux/a", "stream", "tcp", "nowait", "u", "/bin/x", "x"],
    ];
    let wanted = wanted.map(|words| super::super::columns::Columns::read(words).expect("columns"));
    assert_eq!(columns, wanted);
}

#[test]
fn what_is_not_served_stays_switched_off_and_is_said() {
    for (row, word, why) in [
        (
            "rstatd/1-3 dgram rpc/udp wait root /x",
            "rpc/udp",
            "RPC, which fived does not register with rpcbind",
        ),
        ("a raw icmp wait root /x", "raw", "sockets of this type"),
        (
            "5 dgram udp nowait root /x",
            "nowait",
            "a program for each datagram, which would be started without end",
        ),
        ("/s dgram unix wait root /x", "unix", "Unix sockets of datagrams"),
        (
            "5 stream unix nowait root /x",
            "5",
            "expected the absolute path of a Unix socket, without blanks, found \"5\"",
        ),
        (
            ":u:g:/s stream unix nowait root /x",
            ":u:g",
            "expected /PATH or :USER:GROUP:MODE:/PATH, found \":u:g\"",
        ),
        ("5 stream tcp/faith nowait root /x", "tcp/faith", "this form of the protocol"),
        (
            "what stream tcp nowait root /x",
            "what",
            "expected a port: a number from 0 to 65535, or a name of services(5), found \"what\"",
        ),
        (
            "70000 stream tcp nowait root /x",
            "70000",
            "expected a port: a number from 0 to 65535, or a name of services(5), found \"70000\"",
        ),
        (
            "host.example:5 stream tcp nowait root /x",
            "host.example",
            "expected an address, * or localhost, found \"host.example\"",
        ),
        ("::1:5 stream tcp4 nowait root /x", "::1", "expected an address of tcp4, found \"::1\""),
    ] {
        let (rows, warnings) = read(row);
        assert_eq!(rows.len(), 1, "{row}");
        assert!(rows[0].ends_with(" off"), "{rows:?}");
        assert_eq!(warnings, [format!("f:1: {word}: not served: {why}")]);
    }
    let (rows, warnings) = read(&format!("#@ in ipsec ah/require\n5 {END}\n#@\n6 {END}\n"));
    assert_eq!(rows, ["5 tcp off", "6 tcp 6"]);
    assert_eq!(warnings, ["f:2: 5: not served: rows under a policy of IPsec (#@)"]);
}

#[test]
fn a_broken_row_leaves_the_others() {
    for (row, wanted) in [
        (
            "a b c",
            "a: expected a row of at least six words (name, type, protocol, wait, user, program), found 3",
        ),
        ("5 stream tcp nowait * /x", "*: expected a user of this computer, found \"*\""),
        (
            "5 stream tcp nowait root bin/x",
            "bin/x: expected an absolute path, or a program's name, found \"bin/x\"",
        ),
        (
            "5 stream tcp nowait root x y",
            "x: expected a path, or a program in a directory of PATH, found none of this name",
        ),
        (
            "5 stream tcp nowait.x root /x",
            "nowait.x: expected wait, nowait, nowait:N or nowait/max-child/max-per-ip-per-minute/max-child-per-ip, found \"nowait.x\"",
        ),
        (
            "ftp stream tcp nowait root internal",
            "ftp: expected an internal service (echo, discard, daytime, chargen or time), found \"ftp\"",
        ),
        ("5 stream tcp nowait root 'x", "5: expected a closing quote, found the end of the line"),
        ("a,b:", "a: expected an address, * or localhost, found \"a\""),
    ] {
        let (rows, warnings) = read(&format!("{row}\n*:6 {END}\n"));
        assert_eq!(rows.last().map(String::as_str), Some("6 tcp 6"));
        assert_eq!(warnings[0].replace("not served: ", ""), format!("f:1: {wanted}"));
        assert!(rows.len() == 1 || rows[0].ends_with(" off"), "{rows:?}");
    }
}

#[test]
fn the_later_row_counts() {
    let text = format!(
        "ftp {END}\n127.0.0.1:21 {END}\n*:21 {END}\ntcpmux/a {END}\ntcpmux/+A {END}\n0 {END}\n0 {END}\n"
    );
    let (rows, warnings) = read(&text);
    assert_eq!(
        rows,
        [
            "ftp tcp off",
            "21 tcp 127.0.0.1:21",
            "21 tcp 21",
            "a tcp off",
            "A tcp by name",
            "0 tcp 0",
            "0 tcp 0"
        ]
    );
    assert_eq!(
        warnings,
        [
            "f:1: ftp: not served: the later row at f:3 is served instead",
            "f:4: a: not served: the later row at f:5 is served instead"
        ]
    );
}

/// Files of other people's computers (`../shared/corpus`), and what becomes of each row: where it
/// is reached, or the reason why it is switched off.
#[test]
fn tables_of_other_computers() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/corpus/inetd");
    if !std::path::Path::new(corpus).exists() {
        return eprintln!("SKIPPED: {corpus} is not there");
    }
    let mut all = Vec::new();
    for n in 1..=48 {
        let name = format!("{n:02}");
        let bytes = std::fs::read(format!("{corpus}/{name}.conf")).expect("a file of the corpus");
        let mut reader = InetdReader::new(&[]);
        reader.file(&name, &bytes, &mut Computer);
        let (rows, warnings) = reader.finish();
        let on = rows.iter().filter(|(_, _, row)| row.reached != Reached::Off);
        let on = on.map(|(file, line, row)| (*line, format!("{file}:{line}: {}", shown(row))));
        let off = warnings.into_vec();
        let mut lines: Vec<_> = on.chain(off.iter().map(|w| (w.line, w.to_string()))).collect();
        lines.sort();
        all.extend(lines.into_iter().map(|(_, text)| text));
    }
    let wanted: Vec<&str> = include_str!("corpus.txt").lines().collect();
    let wrong: Vec<_> = all.iter().zip(&wanted).filter(|(a, b)| a != *b).collect();
    assert!(wrong.is_empty() && all.len() == wanted.len(), "{wrong:#?}\n{}", all.join("\n"));
}

/// One file of this text, on that computer.
struct File<'a>(&'a str);

impl Files for File<'_> {
    fn read(&mut self, _: &str) -> Result<Vec<u8>, String> {
        Ok(self.0.into())
    }

    fn list(&mut self, _: &str) -> Result<Vec<String>, String> {
        Err("no directory".into())
    }

    fn port(&mut self, name: &str, protocol: &str) -> Option<u16> {
        Computer.port(name, protocol)
    }

    fn program(&mut self, name: &str) -> Option<String> {
        Computer.program(name)
    }
}

/// The words that a row may have in a column, right and wrong.
const COLUMNS: [&[&str]; 7] = [
    &["ftp", "21", "0", "*:7", "::1:echo", "a,127.0.0.1:5", "tcpmux/a", "tcpmux/+a", "x y", "[#="],
    &["stream", "stream", "stream", "dgram", "raw", "tcp"],
    &["tcp", "tcp4", "tcp6", "tcp46", "tcp6only", "udp", "unix", "rpc/tcp", "tcp,rcvbuf=1"],
    &["nowait", "nowait.3", "nowait/1/2/3", "wait", "wait.2", "x"],
    &["root", "u.g", "u:g/class", "*", "#u"],
    &["/bin/x", "cat", "internal", "a/b", "dog", "/a b"],
    &["", "x", "'a b'", "#", "\"\"", "a\\b", "disable = no"],
];

proptest! {
    /// Whatever stands in an inetd.conf: the table is printed, and read again, as the same table,
    /// and nothing in it makes fived refuse all of it.
    #[test]
    fn a_table_comes_back(rows in prop::collection::vec(prop::array::uniform7(0..100usize), 1..6)) {
        let row = |row: &[usize; 7]| {
            let words = COLUMNS.iter().zip(row).map(|(all, n)| all[n % all.len()]);
            let quoted = words.enumerate().map(|(n, w)| match n < 6 && w.contains(' ') {
                true => format!("'{w}'"),
                false => w.to_string(),
            });
            quoted.collect::<Vec<_>>().join("\t") + "\n"
        };
        let text: String = rows.iter().map(row).collect();
        let read = |grammar, text: &str| load(&Origin::new(grammar, "f"), &mut File(text));
        let (table, mistakes) = read(Grammar::Inetd, &text);
        prop_assert!(mistakes.iter().all(|m| m.weight != Weight::Refused), "{mistakes:?}");
        let printed = table.print();
        let (again, mistakes) = read(Grammar::Fived, &printed);
        prop_assert!(mistakes.is_empty(), "{text}\n{mistakes:?}\n{printed}");
        prop_assert_eq!(again.print(), printed);
    }
}
