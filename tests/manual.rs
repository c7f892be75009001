//! The manuals: clean, complete, and what they show works as typed.
//!
//! A comment `test: conf` before a literal block: a table that `fived -t` takes. `test: decide N`:
//! what `-T -C` says of the Nth table of fived.conf.5. `test: expect A|B`: a command, typed beside
//! a daemon with etc/demo.conf, in whose output these come in this order. `test: typed A|B`: a
//! dialogue, these lines typed, the rest the output. `test: key`: a command that logs in with a
//! key.

mod support;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;
use support::page::{Block, blocks, in_order, lacks, page, text, top};
use support::*;

const PAGES: [&str; 4] = ["fived.8", "fived.conf.5", "fived-session.7", "five.1"];

fn all_blocks(kind: &str) -> Vec<(&'static str, Block)> {
    let files = ["man/fived.8", "man/fived.conf.5", "man/fived-session.7", "README.md"];
    let all = files.into_iter().flat_map(|f| blocks(f).into_iter().map(move |b| (f, b)));
    all.filter(|(_, b)| b.kind == kind).collect()
}

/// A table for whoever runs the tests: an ordinary user's fived takes no rows of others.
fn mine(conf: &str) -> String {
    if root() {
        return conf.into();
    }
    let row = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.get(1..5) {
            Some(["stream", _, _, user @ ("nobody" | "root")]) => {
                line.replacen(&format!(" {user} "), " @USER@ ", 1)
            }
            _ => line.into(),
        }
    };
    conf.lines().map(|l| row(l) + "\n").collect()
}

/// etc/demo.conf as `make run` serves it; the daemon of a test has a state directory of its own.
fn demo_conf() -> String {
    let place = Place::new();
    let made =
        Command::new("etc/demo.sh").args(["conf", &place.at("demo")]).current_dir(top()).status();
    assert!(made.expect("etc/demo.sh").success());
    let conf = fs::read_to_string(place.at("demo/demo.conf")).expect("demo.conf");
    conf.lines().filter(|l| !l.starts_with("state_directory")).map(|l| format!("{l}\n")).collect()
}

/// It on a free port, with more settings before it.
fn demo(more: &str) -> Daemon {
    Daemon::with(&format!("{more}{}", demo_conf())).start()
}

/// Types it in a shell; the daemon's port is the one of the text.
fn typed(d: &Daemon, command: &str, input: &str) -> String {
    let port = d.address().port();
    let command = command
        .replace("localhost 1\n", &format!("localhost {port}\n"))
        .replace("localhost 1 ", &format!("localhost {port} "));
    let command = command
        .replace("localhost:1\n", &format!("localhost:{port}\n"))
        .replace("localhost:1 ", &format!("localhost:{port} "));
    assert!(command.contains(&port.to_string()), "{command}");
    let command =
        command.lines().map(|l| l.strip_prefix("$ ").unwrap_or(l)).collect::<Vec<_>>().join("\n")
            + "\n";
    // A block that is pasted is its shell's standard input, and a command in it that reads on
    // swallows the lines after it (of which bash reads none ahead).
    let (script, input): (&[&str], &str) =
        if input.is_empty() { (&["-s"], &command) } else { (&["-c", &command], input) };
    d.place.write("input", input, 0o644);
    let out = Command::new("timeout")
        .args(["60", "bash"])
        .args(script)
        .current_dir(&d.place.path)
        .env("HOME", &d.place.path)
        .env("USER", user())
        .stdin(fs::File::open(d.place.at("input")).expect("input"))
        .stderr(Stdio::piped())
        .output()
        .expect("a shell");
    assert_ne!(out.status.code(), Some(124), "it does not end:\n{command}");
    let both = [out.stdout, out.stderr].concat();
    String::from_utf8_lossy(&both).replace('\r', "")
}

#[test]
fn pages_are_clean() {
    if !installed("mandoc") {
        return skip("needs mandoc");
    }
    for name in PAGES.into_iter().chain(["fived-security.7"]) {
        let out = Command::new("mandoc")
            .args(["-T", "lint", name])
            .current_dir(top().join("man"))
            .output()
            .expect("mandoc");
        let errors = String::from_utf8_lossy(&out.stdout).into_owned();
        // Which of the system's own manuals are installed is not the page's fault.
        let ours = |l: &&str| !l.contains("referenced manual not found") || l.contains("Xr five");
        assert_eq!(errors.lines().filter(ours).collect::<Vec<_>>(), Vec::<&str>::new());
    }
}

#[test]
fn every_option_is_there() {
    let (code, out, err) = run(&["-h"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let page = page("fived.8");
    let words = out.split(|c: char| c.is_whitespace() || c == ',');
    let options: Vec<&str> = words.filter(|w| w.starts_with("--") && w.len() > 2).collect();
    assert!(options.len() > 9, "{out}");
    for option in options {
        assert!(page.contains(&format!("Fl {}", &option[1..])), "{option} in fived.8");
    }
}

#[test]
fn every_setting_is_there() {
    let page = page("fived.conf.5");
    let entries = page.split(".It Cm ").skip(1).filter_map(|entry| {
        let (name, rest) = entry.split_once(' ')?;
        rest.starts_with("No =").then_some(name)
    });
    let documented: BTreeSet<&str> = entries.collect();
    let known: BTreeSet<&str> = fived::policy::names().collect();
    assert_eq!(documented, known, "fived.conf.5");
    // They are those of the program.
    let (code, out, _) = Place::new().fived("x stream tcp nowait @USER@ /bin/cat\n", &["-T"]);
    assert_eq!(code, 0);
    let names: Vec<&str> =
        out.lines().filter_map(|l| Some(l.trim_start().split_once(" =")?.0)).collect();
    assert!(names.len() > 20 && names.iter().all(|n| known.contains(n)), "{out}");
}

#[test]
fn every_default_is_there() {
    let conf = Place::new();
    let (_, out, _) = conf.fived("x stream tcp nowait @USER@ /bin/cat\n", &["-T"]);
    let page = page("fived.conf.5");
    for line in out.lines() {
        let Some((name, value)) = line.split_once(" = ") else {
            continue;
        };
        let (name, value) = (name.trim(), value.trim());
        // A number of seconds, or a count.
        if value.parse::<u32>().is_ok() {
            let at = page
                .find(&format!(".It Cm {name} No ="))
                .unwrap_or_else(|| panic!("{name} in fived.conf.5"));
            let entry = &page[at..];
            let entry = entry.find("Default").map_or("", |i| &entry[i..(i + 60).min(entry.len())]);
            let number = entry.split(|c: char| !c.is_ascii_digit()).any(|w| w == value);
            assert!(number, "{line} in fived.conf.5: {entry}");
        }
    }
}

#[test]
fn every_reply_is_there() {
    let source = include_str!("../src/wire/reply.rs");
    let source = source.split("\nmod tests {").next().expect("the file before its tests");
    let page = page("fived-session.7");
    let mut n = 0;
    for literal in source.split('"').skip(1).step_by(2).filter(|l| !l.starts_with("\\")) {
        for piece in literal.trim_end_matches("\\r\\n").split(['{', '}']).step_by(2) {
            let piece = piece.trim();
            assert!(page.contains(piece), "{piece:?} in fived-session.7");
            n += 1;
        }
    }
    assert!(n > 15);
}

#[test]
fn every_built_in_is_there() {
    let page = page("fived-session.7");
    for row in fived::wire::builtins::BUILTINS {
        assert!(
            page.contains(&format!(".It Ic {} Ta ", row.name)),
            "{} in fived-session.7",
            row.name
        );
    }
}

#[test]
fn every_verb_of_the_log_is_there() {
    let page = page("fived.8");
    let mut n = 0;
    for file in sources(&top().join("src")) {
        let source = fs::read_to_string(&file).expect("source");
        for verb in source.split("Event::new(\"").skip(1).filter_map(|s| s.split('"').next()) {
            assert!(
                page.contains(&format!(".It Li {verb} ")),
                "{verb} ({}) in fived.8",
                file.display()
            );
            n += 1;
        }
    }
    assert!(n > 5);
}

#[test]
fn every_reason_is_there() {
    let page = page("fived.8");
    let mut n = 0;
    for (file, mark) in [
        ("src/policy/table.rs", "const DENIED"),
        ("src/policy/limits.rs", "impl Busy"),
        ("src/net/end.rs", "impl End"),
        ("src/wire/login.rs", "const LOGIN_RESULTS"),
    ] {
        let source = text(file);
        let after = source.split(mark).nth(1).unwrap_or_else(|| panic!("{mark} in {file}"));
        let table = after.split("\n}").next().and_then(|t| t.split("\n];").next()).expect("an end");
        for word in table.split('"').skip(1).step_by(2) {
            assert!(page.contains(word), "{word} ({file}) in fived.8");
            n += 1;
        }
    }
    assert!(n > 25);
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    files(directory).into_iter().filter(|p| p.extension().is_some_and(|e| e == "rs")).collect()
}

/// The kinds of marked blocks that tests read: those of this file, `daemon` (`tests/handover.rs`),
/// `haproxy` (`tests/balanced.rs`), and in five.1 and README.md those of `tests/five_manual.rs`.
const KINDS: [&str; 8] =
    ["conf", "decide", "expect", "typed", "key", "rootless", "daemon", "haproxy"];
const KINDS_OF_FIVE: [&str; 3] = ["five", "terminal", "config"];

#[test]
fn each_marked_block_is_of_a_kind_that_a_test_reads() {
    let (mut n, five) = (0, ["man/five.1", "README.md"]);
    for file in ["man/fived.8", "man/fived.conf.5", "man/fived-session.7"].into_iter().chain(five) {
        for block in blocks(file) {
            let kind = &*block.kind;
            let read =
                KINDS.contains(&kind) || five.contains(&file) && KINDS_OF_FIVE.contains(&kind);
            assert!(read, "{file}: {kind}");
            n += 1;
        }
    }
    assert!(n > 30);
}

#[test]
fn tables_of_the_manuals_are_tables() {
    let all = all_blocks("conf");
    assert!(all.len() > 6);
    for (file, block) in all {
        let (code, out, err) = Place::new().fived(&mine(&block.body), &["-t"]);
        assert_eq!(
            (code, out.as_str()),
            (0, "configuration OK\n"),
            "{file}:\n{}\n{err}",
            block.body
        );
    }
}

#[test]
fn an_ordinary_user_can_start_it_as_shown() {
    let all = all_blocks("rootless");
    assert_eq!(all.len(), 1);
    for (file, block) in all {
        let words =
            block.body.trim_end().strip_prefix("$ fived -f ~/fived.conf -l ").expect("a command");
        let port = words.rsplit_once(':').and_then(|(_, p)| p.parse::<u16>().ok()).expect("a port");
        assert!(port > 1023, "{file}: {}", block.body);
        let d = Daemon::with("cat stream tcp nowait @USER@ /bin/cat cat\n").user("nobody").start();
        same(d.connect().send("cat\r\nx").half_close().read_all(), "+Go\r\nx");
    }
}

#[test]
fn samples_are_tables() {
    let sample = text("etc/fived.conf");
    // What is commented out, but for what wants files.
    let wants_files = ["#certificate", "#key", "#includedir"];
    let uncommented: String = sample
        .lines()
        .filter(|l| !wants_files.iter().any(|w| l.starts_with(w)))
        .map(|l| match l.strip_prefix('#') {
            Some(rest)
                if rest.starts_with("        ")
                    || rest.starts_with(|c: char| !c.is_whitespace()) =>
            {
                format!("{rest}\n")
            }
            _ => format!("{l}\n"),
        })
        .collect();
    assert!(uncommented.matches("stream").count() > 10);
    for conf in [sample, uncommented, demo_conf()] {
        let (code, out, err) = Place::new().fived(&mine(&conf), &["-t"]);
        assert_eq!((code, out.as_str()), (0, "configuration OK\n"), "{conf}\n{err}");
    }
}

#[test]
fn decisions_are_as_shown() {
    let tables: Vec<Block> =
        blocks("man/fived.conf.5").into_iter().filter(|b| b.kind == "conf").collect();
    let all = all_blocks("decide");
    assert!(all.len() > 1);
    for (file, block) in all {
        let table = &tables[block.rest.parse::<usize>().expect("a number")];
        let (place, conf) = (Place::new(), mine(&table.body));
        let (question, answer) = block.body.split_once('\n').expect("two lines");
        let query = question.strip_prefix("# fived -T -C ").expect("a query");
        let answer = answer.trim_end().replace("/etc/fived.conf", &place.at("fived.conf"));
        assert_eq!(place.decide(&conf, query), answer, "{file}: {query}");
    }
}

#[test]
fn commands_do_what_the_page_says() {
    if !(installed("nc") && installed("openssl")) {
        return skip("needs nc and openssl");
    }
    let d = demo("");
    let all = all_blocks("expect");
    assert!(all.len() > 7);
    for (_, block) in all {
        let says = || {
            let out = typed(&d, &block.body, "");
            // od(1) shows characters apart.
            if block.body.contains("| od ") { together(&out) } else { out }
        };
        let (mut out, end) = (says(), Instant::now() + TIMEOUT);
        // Some wait for a second before they end; a slow machine may need more for all its answers.
        while block.body.contains("sleep 1")
            && lacks(&out, &block.rest).is_some()
            && Instant::now() < end
        {
            out = says();
        }
        in_order(&out, &block.rest, &block.body);
    }
}

/// What `od -c` shows, without addresses and blanks between characters; a blank itself is three.
fn together(shown: &str) -> String {
    let cells = shown
        .lines()
        .flat_map(|l| l.as_bytes().chunks(4))
        .map(|c| String::from_utf8_lossy(c).into_owned());
    cells.map(|c| if c == "    " { " ".into() } else { c.trim_start().to_string() }).collect()
}

#[test]
fn dialogues_go_as_shown() {
    if !(installed("nc") && installed("openssl")) {
        return skip("needs nc and openssl");
    }
    let d = demo("");
    let all = all_blocks("typed");
    assert!(all.len() > 3);
    for (file, block) in all {
        let (command, shown) = block.body.split_once('\n').expect("a command");
        let (mut wanted, mut rest) = (String::new(), shown);
        for word in block.rest.split('|') {
            let line = format!("{word}\n");
            let at = rest.find(&line).unwrap_or_else(|| panic!("{file}: {word} in {shown}"));
            wanted += &rest[..at];
            rest = &rest[at + line.len()..];
        }
        wanted += rest;
        let input = block.rest.replace('|', "\n") + "\n";
        let out = typed(&d, &format!("{command}\n"), &input);
        assert_eq!(out.trim_end(), wanted.trim_end(), "{file}: {command}, {}", block.rest);
    }
}

#[test]
fn a_key_logs_in_as_typed() {
    if !(installed("nc") && installed("ssh-keygen")) {
        return skip("needs nc and ssh-keygen");
    }
    let all = all_blocks("key");
    assert!(!all.is_empty());
    for (_, block) in all {
        let d = demo("authorized_keys = @KEYS@/%u\n");
        fs::create_dir(d.place.at(".ssh")).expect("directory");
        let key = d.place.at(".ssh/id_ed25519");
        let made =
            Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &key]).status();
        assert!(made.expect("ssh-keygen").success());
        let public = fs::read_to_string(format!("{key}.pub")).expect("key");
        d.place.write_keys(&user(), &public);
        let out = typed(&d, &block.body, "");
        in_order(
            &out,
            &format!("Authentication as {} successful|+Go|{} by pubkey", user(), user()),
            &block.body,
        );
    }
}

#[test]
fn the_readme_names_the_tests_that_there_are() {
    let readme = text("README.md");
    for entry in fs::read_dir(top().join("tests")).expect("tests").flatten() {
        let name = entry.file_name().into_string().expect("UTF-8");
        if name.ends_with(".rs") {
            assert!(readme.contains(&format!("`tests/{name}`")), "{name} in README.md");
        }
    }
    for name in readme.split("`tests/").skip(1).filter_map(|s| s.split('`').next()) {
        assert!(top().join("tests").join(name).exists(), "tests/{name}");
    }
}

/// A row of README.md's promises ends in a cell: a file of tests/ in backquotes, then tests of it.
#[test]
fn each_promise_of_the_readme_names_tests_that_exist() {
    let readme = text("README.md");
    let mut promises = 0;
    for row in readme.lines().filter(|l| l.starts_with("| ") && l.contains("`tests/")) {
        let cell = row.trim_end_matches(" |").rsplit("| ").next().expect("a cell");
        let (mut source, mut named) = (None, 0);
        for word in cell.split('`').skip(1).step_by(2) {
            if word.starts_with("tests/") {
                source = Some(text(word));
                continue;
            }
            let test = format!("#[test]\nfn {word}() {{");
            assert!(source.as_ref().is_some_and(|s| s.contains(&test)), "{word} of {row}");
            named += 1;
        }
        assert!(named > 0, "{row}");
        promises += 1;
    }
    assert!(promises > 40, "{promises}");
}

/// README.md has the trials in a table, the Makefile in a list, and the sizes are the tests' own.
#[test]
fn the_trials_of_the_readme_are_those_of_the_makefile_and_of_the_tests() {
    let (readme, makefile) = (text("README.md"), text("Makefile"));
    let table = readme.split("| trial |").nth(1).expect("a table");
    let in_readme: BTreeSet<String> = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let cells: Vec<&str> = line.split(" | ").map(|c| c.trim_matches(['|', ' '])).collect();
            let [name, _, small, full, tests] = cells[..] else { panic!("{line}") };
            let words: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
            let file = words[0].trim_start_matches("tests/").trim_end_matches(".rs");
            let [small, full] = [small, full].map(|n| n.replace(',', ""));
            format!("{}:{file}:{} {small} {full}", name.trim_matches('`'), words[1..].join(","))
        })
        .collect();
    let list = makefile.split("\nTRIALS =").nth(1).and_then(|l| l.split("\n\n").next());
    let sizes = sizes_of_trials();
    let listed = list.expect("a list").split_whitespace().filter(|w| *w != "\\").map(|trial| {
        let name = trial.split(':').next().expect("a name");
        let of = |s: &&(String, String)| s.0 == name;
        let size = sizes.iter().find(of).unwrap_or_else(|| panic!("trial_size of {name}"));
        format!("{trial} {}", size.1)
    });
    assert_eq!(in_readme, listed.collect());
    assert_eq!(in_readme.len(), sizes.len(), "each trial is in README.md: {sizes:?}");
}

/// Each `trial_size` of the tests: the name, and the small and the full size.
fn sizes_of_trials() -> BTreeSet<(String, String)> {
    let sources = files(&top().join("tests")).into_iter();
    let texts = sources.filter(|p| p.extension().is_some_and(|e| e == "rs"));
    let words = |call: &str| {
        let rest = call.trim_start().strip_prefix('"')?.split(')').next()?.replace('_', "");
        let [name, small, full] = rest.split(',').map(str::trim).take(3).collect::<Vec<_>>()[..]
        else {
            return None;
        };
        // Names have no `_`.
        Some((name.trim_end_matches('"').to_string(), format!("{small} {full}")))
    };
    texts
        .flat_map(|p| {
            let text = fs::read_to_string(p).expect("source");
            let calls: Vec<_> = text.split("trial_size(").skip(1).filter_map(words).collect();
            calls
        })
        .collect()
}

#[test]
fn what_is_installed_is_taken_away_again() {
    if !installed("make") {
        return skip("needs make");
    }
    let place = Place::new();
    // What is built here stands for the release.
    for program in [env!("CARGO_BIN_EXE_fived"), env!("CARGO_BIN_EXE_five")] {
        let name = Path::new(program).file_name().and_then(|n| n.to_str()).expect("a name");
        place.write(&format!("target/release/{name}"), "a program", 0o755);
    }
    let make = |goal: &str| {
        let mut make = Command::new("make");
        make.args(["-s", goal, "PREFIX=/usr", &format!("DESTDIR={}", place.at("root"))])
            .current_dir(top());
        for variable in ["MAKEFLAGS", "MAKEOVERRIDES", "MFLAGS"] {
            make.env_remove(variable);
        }
        let out = make.env("CARGO_TARGET_DIR", place.at("target")).output().expect("make");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        files(&place.path.join("root"))
            .iter()
            .map(|p| p.strip_prefix(&place.path).expect("below").display().to_string())
            .collect::<Vec<_>>()
    };
    let there = make("install");
    let pages = PAGES
        .into_iter()
        .chain(["fived-security.7"])
        .map(|p| format!("root/usr/share/man/man{}/{p}", p.chars().last().expect("a section")));
    let rest = [
        "bin/five",
        "sbin/fived",
        "share/doc/fived/fived-grafana.json",
        "share/doc/fived/fived-prometheus.rules.yml",
        "share/bash-completion/completions/five",
        "share/zsh/site-functions/_five",
    ];
    for file in pages.chain(rest.map(|f| format!("root/usr/{f}"))) {
        assert!(there.contains(&file), "{file} in {there:?}");
    }
    assert_eq!(make("uninstall"), ["root/etc/fived.conf"]);
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("directory").flatten().map(|e| e.path());
    entries.flat_map(|p| if p.is_dir() { files(&p) } else { vec![p] }).collect()
}
