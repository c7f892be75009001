//! xinetd.conf(5). Files of the real world, and what xinetd itself made of each of them, are in
//! ../shared/corpus, which is no part of this project.

mod support;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use support::page::top;
use support::*;

/// Where a row may be otherwise than xinetd has it: in what, and what the warning for it says.
const DIFFERENCES: &[(&str, &str)] = &[
    ("state", "not served: "),
    // xinetd switches it off for the value, and on again for the next line, `disable = no`.
    ("state", "port: expected a number from 0 to 65535"),
    ("per_source", "a comment begins here"),
    ("rlimit_cpu", "a comment begins here"),
    ("rlimit_as", "a comment begins here"),
    ("env", "xinetd knows no quotes"),
    ("per_source", "per_source: expected none (the program itself accepts its clients)"),
];

/// What is the same of every row whose file does not say it.
const USUAL: &[(&str, &str)] = &[
    ("Instances", "UNLIMITED"),
    ("CPS", "50 10"),
    ("Groups", "no"),
    ("Nice", "0"),
    ("umask", "022"),
    ("Access times", ""),
    ("Environment additions", ""),
];

/// A row or a service: what is said of it, by name.
type Columns = BTreeMap<String, String>;

/// The files of the corpus, or None and the reason.
fn corpus() -> Option<PathBuf> {
    let path = top().join("../shared/corpus");
    if !root() {
        skip("an ordinary user's fived takes no rows of others");
        return None;
    }
    if !path.join("xinetd-golden").is_dir() {
        // Whoever has the sources alone does not have it, so it is no failure anywhere.
        println!("SKIPPED: ../shared/corpus is not there");
        return None;
    }
    Some(path)
}

/// Their numbers.
fn numbers(corpus: &std::path::Path) -> Vec<String> {
    let all = fs::read_dir(corpus.join("xinetd")).expect("corpus").flatten();
    let name = |f: fs::DirEntry| f.file_name().into_string().expect("UTF-8");
    let mut all: Vec<String> =
        all.filter_map(|f| Some(name(f).strip_suffix(".conf")?.to_string())).collect();
    all.sort();
    all
}

/// The file as xinetd was given it: with a program, user and address that every computer has.
fn as_given(text: &str) -> String {
    let given = [
        ("server", "/bin/true"),
        ("user", "nobody"),
        ("group", "nogroup"),
        ("disable", "no"),
        ("bind", "127.0.0.1"),
    ];
    let line = |line: &str| {
        let name = line.split_once('=').map_or("", |(name, _)| name.trim());
        match given.iter().find(|(n, _)| *n == name) {
            Some((name, value)) => format!("{name} = {value}\n"),
            // There was nothing in these directories.
            None if line.trim_start().starts_with("includedir") => "\n".into(),
            None => format!("{line}\n"),
        }
    };
    text.lines().map(line).collect()
}

/// `fived` with these words: exit status, standard output, standard error.
fn fived(words: &[&str]) -> (i32, String, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_fived")).args(words).output().expect("fived");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (out.status.code().expect("a status"), text(out.stdout), text(out.stderr))
}

/// The services of xinetd's dump, and its defaults, which stand in each.
fn golden(text: &str) -> Vec<Columns> {
    let dump = text.split_once("## dump\n").expect("a dump").1;
    let (mut all, mut defaults): (Vec<Columns>, Columns) = (Vec::new(), Columns::new());
    defaults.extend(USUAL.iter().map(|(n, v)| (n.to_string(), v.to_string())));
    let mut adding = false;
    for line in dump.lines() {
        let now = all.last_mut().unwrap_or(&mut defaults);
        let text = line.trim();
        if let Some(name) = text.strip_prefix("Service = ") {
            all.push(Columns::from([("name".into(), name.into())]));
        } else if text == "Environment additions:" || text == "Environment strings:" {
            adding = text.contains("additions");
        } else if adding && text.starts_with('"') {
            let more = now.entry("Environment additions".into()).or_default();
            *more = format!("{more} {}", &text[1..text.len() - 1]).trim().into();
        } else if let Some((name, value)) = text.split_once(" = ").or(text.split_once(":")) {
            now.insert(name.trim().into(), value.trim().into());
        } else {
            adding = false;
        }
    }
    for service in &mut all {
        for (name, value) in &defaults {
            service.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }
    all
}

/// xinetd's words for places, as -T has them.
fn places(text: &str) -> String {
    let place = |word: &str| {
        let (text, kind) = word.trim_end_matches(')').split_once('(').expect("a kind");
        match (kind, text.split_once('/')) {
            ("NET", Some((address, mask))) => {
                let mask: std::net::Ipv4Addr = mask.parse().expect("a mask");
                format!("{address}/{}", u32::from(mask).count_ones())
            }
            ("NUMERIC", None) if text.contains(':') => format!("{text}/128"),
            ("NUMERIC", None) => {
                let zeros = text.rsplit('.').take_while(|part| *part == "0").count();
                format!("{text}/{}", 32 - 8 * zeros)
            }
            _ => text.into(),
        }
    };
    match text {
        "All sites" => "0.0.0.0/0 ::/0".into(),
        "No blocked sites" => String::new(),
        _ => text.split_whitespace().map(place).collect::<Vec<_>>().join(" "),
    }
}

/// What -T says of its rows.
fn rows(printed: &str) -> Vec<Columns> {
    let mut all: Vec<Columns> = Vec::new();
    for line in printed.lines() {
        if let Some((name, value)) = line.strip_prefix('\t').and_then(|l| l.split_once(" =")) {
            let row = all.last_mut().expect("a row above");
            row.insert(name.into(), value.trim().replace('\'', ""));
        } else if let [name, kind, protocol, wait, user, rest] =
            &line.splitn(6, ' ').collect::<Vec<_>>()[..]
            && *protocol != "="
            && *kind != "="
        {
            let columns = [
                ("name", *name),
                ("kind", kind),
                ("protocol", protocol),
                ("wait", wait),
                ("user", user),
                ("server", rest),
            ];
            all.push(columns.map(|(n, v)| (n.to_string(), v.replace('\'', ""))).into());
        }
    }
    all
}

/// A service of xinetd's, in the words of -T.
fn wanted(g: &Columns) -> Columns {
    let get = |name: &str| g.get(name).map_or("", String::as_str);
    let dgram = get("socket_type") == "dgram";
    let address = match get("Bind") {
        "All addresses." => "",
        "localhost" => "127.0.0.1:",
        other => panic!("{other}"),
    };
    let limit = |text: &str| if text == "-1" { "UNLIMITED".into() } else { text.to_string() };
    let server = match g.get("Server") {
        Some(program) => format!("{program} {}", get("Server argv")),
        None if get("flags").contains("SENSOR") => "internal sensor".into(),
        None => format!("internal {}", get("name")),
    };
    let v4 = get("flags").contains("IPv4") && !get("flags").contains("IPv6");
    let family = if v4 { "4" } else { "" };
    let cps = get("CPS").replace("max conn:", "").replace("wait:", "");
    let umask = u32::from_str_radix(get("umask"), 8).expect("octal");
    let all = [
        ("kind", get("socket_type").to_string()),
        ("protocol", format!("{}{family}", if dgram { "udp" } else { "tcp" })),
        ("wait", if get("wait") == "yes" { "wait" } else { "nowait" }.into()),
        ("user", "nobody".into()),
        ("server", server),
        ("port", format!("{address}{}", get("port"))),
        ("tcpmux", "no".into()),
        ("group", if get("group") == "65534" { "nogroup" } else { "" }.into()),
        ("groups", get("Groups").into()),
        ("instances", if get("wait") == "yes" { "1".into() } else { limit(get("Instances")) }),
        ("per_source", limit(get("PER_SOURCE"))),
        ("cps", cps),
        ("nice", get("Nice").into()),
        ("umask", format!("{umask:03o}")),
        ("only_from", places(get("Only from"))),
        ("no_access", places(get("No access"))),
        ("access_times", get("Access times").into()),
        ("env", get("Environment additions").into()),
        ("rlimit_as", String::new()),
        ("rlimit_cpu", String::new()),
        ("rlimit_data", String::new()),
        ("rlimit_files", String::new()),
        ("rlimit_stack", String::new()),
    ];
    all.map(|(n, v)| (n.to_string(), v)).into()
}

/// The lines of the blocks of a text: first and last, and the id.
fn blocks(text: &str) -> Vec<(usize, usize, String)> {
    let mut all: Vec<(usize, usize, String)> = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["service", name, ..] => all.push((n + 1, n + 1, name.into())),
            ["id", "=", id, ..] => all.last_mut().expect("a block").2 = id.into(),
            _ => {}
        }
        if let Some(last) = all.last_mut().filter(|_| !line.starts_with('}') || words == ["}"]) {
            last.1 = n + 1;
        }
    }
    all
}

/// Is there a warning in these lines that says this?
fn warned(said: &str, path: &str, lines: (usize, usize), what: &str) -> bool {
    let of_line = |l: &&str| {
        let rest = l.split_once(&format!("{path}:"))?.1;
        rest.split_once(':')?.0.parse::<usize>().ok()
    };
    said.lines()
        .any(|l| l.contains(what) && of_line(&l).is_some_and(|n| (lines.0..=lines.1).contains(&n)))
}

/// Each difference between a service of xinetd's and the row for it that no warning is for.
fn differences(g: &Columns, row: Option<&Columns>, warned: impl Fn(&str) -> bool) -> Vec<String> {
    let explained = |what: &str| DIFFERENCES.iter().any(|(n, w)| *n == what && warned(w));
    let on = row.filter(|r| r["disable"] == "no");
    let Some(row) = on else {
        return if explained("state") { Vec::new() } else { vec!["state: off".into()] };
    };
    let wanted = wanted(g);
    let other = wanted.iter().filter(|(name, value)| {
        row.get(*name).map_or("", String::as_str) != value.as_str() && !explained(name)
    });
    other.map(|(n, v)| format!("{n}: {v:?}, found {:?}", row.get(n))).collect()
}

#[test]
fn services_are_those_that_xinetd_itself_has() {
    let Some(corpus) = corpus() else { return };
    let (place, mut wrong, mut services) = (Place::new(), Vec::new(), 0);
    for n in numbers(&corpus) {
        let text = fs::read(corpus.join(format!("xinetd/{n}.conf"))).expect("a file");
        let text = as_given(&String::from_utf8_lossy(&text));
        let path = place.at(&format!("{n}.conf"));
        fs::write(&path, &text).expect("a file");
        let (code, out, err) = fived(&["-T", "--xinetd", &path]);
        let dump = fs::read(corpus.join(format!("xinetd-golden/{n}.txt"))).expect("a dump");
        let dump = String::from_utf8_lossy(&dump);
        // xinetd did not start with it, and fived does not.
        assert_eq!(code == 1, dump.contains("xinetd will exit"), "{n}: {err}");
        if code == 1 {
            continue;
        }
        let (golden, mut rows) = (golden(&dump), rows(&out));
        for g in &golden {
            services += 1;
            let id = &g["id"];
            // fived itself.
            if g["name"] == "tcpmux" {
                continue;
            }
            let block = blocks(&text).into_iter().find(|b| b.2 == *id).expect("its block");
            let at = rows.iter().position(|r| r["name"] == *id);
            let row = at.map(|i| rows.remove(i));
            let warned = |what: &str| warned(&err, &path, (block.0, block.1), what);
            let all = differences(g, row.as_ref(), warned);
            wrong.extend(all.into_iter().map(|d| format!("{n}: {id}: {d}")));
        }
        // What xinetd does not have is switched off, and a warning says why.
        for row in rows.iter().filter(|r| r["disable"] == "no") {
            wrong.push(format!("{n}: {}: state: on", row["name"]));
        }
    }
    assert!(wrong.is_empty(), "{services} services\n{}", wrong.join("\n"));
    assert!(services > 100, "{services} services");
}

#[test]
fn what_is_printed_is_read_back_as_the_same_table() {
    let Some(corpus) = corpus() else { return };
    let place = Place::new();
    for n in numbers(&corpus) {
        let path = corpus.join(format!("xinetd/{n}.conf"));
        let (code, out, err) = fived(&["-T", "--xinetd", path.to_str().expect("UTF-8")]);
        if code == 1 {
            assert!(err.contains("log_type: expected"), "{n}: {err}");
            continue;
        }
        let printed = place.at("printed");
        fs::write(&printed, &out).expect("a file");
        let (code, again, err) = fived(&["-T", "-f", &printed]);
        assert_eq!((code, again), (0, out), "{n}: {err}");
    }
}
