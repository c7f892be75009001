//! five(1), and five in README.md: complete, and what they show works as typed.
//!
//! `test: config`: a configuration. `test: five A|B`: commands, typed beside a daemon, in whose
//! output these come in this order; those of five.1 beside the daemon of [`server`], which is
//! called server.example there, those of README.md beside etc/demo.conf. `test: terminal A|B`: one
//! command at a terminal, these lines typed.

mod support;
use std::fs;
use std::path::Path;
use std::process::Command;
use support::page::{Block, blocks, in_order, page, text, top};
use support::*;

/// What five.1's examples want of a server.
const CONF: &str = "
motd  stream tcp nowait @USER@ /bin/echo echo hello from there
cat   stream tcp nowait @USER@ /bin/cat cat
ssh   stream tcp nowait @ME@ /usr/sbin/sshd sshd -i -f @DIR@/sshd_config
git   stream tcp nowait @ME@ /usr/bin/env env HOME=@DIR@/git git daemon --inetd --export-all --base-path=@DIR@/git
      stderr = log
rsync stream tcp nowait @ME@ /usr/bin/rsync rsync --daemon --config=@DIR@/rsyncd.conf
web   stream tcp nowait @USER@ /bin/sh sh @DIR@/server-of-web
";
const WEB: &str = "while read -r line && [ ${#line} -gt 1 ]; do :; done\nprintf 'HTTP/1.0 200 OK\\r\\n\\r\\npage of the server\\n'\n";
const SSHD: &str = "HostKey @DIR@/host\nAuthorizedKeysFile @DIR@/user.pub\nStrictModes no\nPidFile none\nUsePAM no\nPermitRootLogin yes\n";
const RSYNCD: &str = "use chroot = no\nreverse lookup = no\n[module]\npath = @DIR@/module\n";

/// A script, its complaint if it fails.
fn sh(directory: &Path, script: &str) {
    let out = Command::new("sh").args(["-ec", script]).current_dir(directory).output().expect("sh");
    assert!(out.status.success(), "{script}\n{}", String::from_utf8_lossy(&out.stderr));
}

/// The daemon of five.1's examples, as far as its programs are here.
fn server() -> Daemon {
    let me =
        nix::unistd::User::from_uid(nix::unistd::geteuid()).expect("passwd").expect("user").name;
    let here = |line: &&str| {
        let program = line.split_whitespace().nth(5).unwrap_or("/");
        Path::new(program).exists() && (root() || !line.starts_with("ssh"))
    };
    let conf: String =
        CONF.replace("@ME@", &me).lines().filter(here).map(|l| format!("{l}\n")).collect();
    let d = Daemon::with(&conf)
        .file("server-of-web", WEB)
        .file("sshd_config", SSHD)
        .file("rsyncd.conf", RSYNCD)
        .start();
    let directory = &d.place.path;
    d.place.write("module/file", "file of the module\n", 0o644);
    if installed("ssh-keygen") {
        sh(
            directory,
            "ssh-keygen -q -t ed25519 -N '' -f host; ssh-keygen -q -t ed25519 -N '' -f user",
        );
    }
    if root() {
        sh(directory, "mkdir -p /run/sshd");
    }
    if installed("git") {
        let commit = "git add file && git -c user.name=a -c user.email=a@b commit -qm file";
        sh(
            directory,
            &format!(
                "git init -q git/repo && cd git/repo && echo file of the repository >file && {commit}"
            ),
        );
    }
    d
}

/// Types it in a shell. `five` there knows the daemon's port, `ssh` nothing of the tester's own.
fn typed(f: &Five, d: &Daemon, commands: &str) -> String {
    let (five, port) = (env!("CARGO_BIN_EXE_five"), f.port());
    d.place.write("bin/five", &format!("#!/bin/sh\nexec '{five}' -p {port} \"$@\"\n"), 0o755);
    let options = "-q -F none -i @DIR@/user -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o BatchMode=yes";
    d.place.write("bin/ssh", &format!("#!/bin/sh\nexec /usr/bin/ssh {options} \"$@\"\n"), 0o755);
    let script: String =
        commands.lines().map(|l| l.strip_prefix("$ ").unwrap_or(l).to_string() + "\n").collect();
    let path = format!("{}:{}", d.place.at("bin"), std::env::var("PATH").expect("PATH"));
    let mut shell = f.program("timeout");
    // As it is pasted: a command that reads its standard input swallows the lines after it (of
    // which bash reads none ahead).
    d.place.write("pasted", &script, 0o644);
    shell
        .args(["60", "bash", "-s"])
        .current_dir(&d.place.path)
        .env("PATH", path)
        .env_remove("GIT_CONFIG_GLOBAL");
    let out = shell
        .stdin(fs::File::open(d.place.at("pasted")).expect("script"))
        .output()
        .expect("a shell");
    assert_ne!(out.status.code(), Some(124), "it does not end:\n{script}");
    String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned()
}

#[test]
fn examples_work_as_typed() {
    let d = server();
    let f = Five::new(&d);
    let (code, _, err) = f.run(&["localhost"]);
    assert_eq!(code, 0, "{err}");
    let known = fs::read_to_string(f.config_path("known_hosts")).expect("known_hosts");
    let key = known.split_whitespace().nth(1).expect("a key");
    d.place.write("server.pin", key, 0o644);
    let all: Vec<Block> = blocks("man/five.1").into_iter().filter(|b| b.kind == "five").collect();
    assert!(all.len() > 8);
    for block in all {
        let names = ["ssh", "git", "rsync", "curl"];
        let wanted = names.iter().find(|p| block.body.contains(&format!("$ {p} ")));
        if let Some(program) = wanted.filter(|p| {
            !installed(p) || **p == "ssh" && !(root() && Path::new("/usr/sbin/sshd").exists())
        }) {
            skip(&format!("needs {program} and its daemon"));
            continue;
        }
        let commands = block.body.replace("server.example", "localhost");
        in_order(&typed(&f, &d, &commands), &block.rest, &block.body);
    }
}

/// ssh, git and rsync talk with five through pipes of their own, in turns.
#[test]
fn programs_that_use_five_can_use_it_plainly() {
    let d = server();
    let f = Five::new(&d);
    let programs = [("ssh", "five %h"), ("git", "five server.example"), ("rsync", "five %H")];
    for (program, five) in programs {
        let block = blocks("man/five.1")
            .into_iter()
            .find(|b| b.kind == "five" && b.body.contains(five))
            .expect("an example");
        if !installed(program)
            || program == "ssh" && !(root() && Path::new("/usr/sbin/sshd").exists())
        {
            skip(&format!("needs {program} and its daemon"));
            continue;
        }
        let commands = block
            .body
            .replace(five, &five.replace("five", "five --plain"))
            .replace("server.example", "localhost");
        assert!(commands.contains("--plain"));
        in_order(&typed(&f, &d, &commands), &block.rest, &commands);
    }
}

#[test]
fn the_readme_works_as_typed() {
    if !(installed("nc") && installed("script")) {
        return skip("needs nc and script");
    }
    let place = Place::new();
    let made =
        Command::new("etc/demo.sh").args(["conf", &place.at("demo")]).current_dir(top()).status();
    assert!(made.expect("etc/demo.sh").success());
    let conf = fs::read_to_string(place.at("demo/demo.conf")).expect("demo.conf");
    let conf: String = conf
        .lines()
        .filter(|l| !l.starts_with("state_directory"))
        .map(|l| format!("{l}\n"))
        .collect();
    let d = Daemon::with(&conf).start();
    let f = Five::new(&d);
    // One person, one after the other.
    let all: Vec<Block> = blocks("README.md")
        .into_iter()
        .filter(|b| b.kind == "five" || b.kind == "terminal")
        .collect();
    assert!(all.len() > 4);
    for block in all {
        assert!(block.body.contains("five -p 1 "), "{}", block.body);
        if block.kind == "five" {
            in_order(
                &typed(&f, &d, &block.body.replace("five -p 1 ", "five ")),
                &block.rest,
                &block.body,
            );
            continue;
        }
        let (command, shown) = block.body.split_once('\n').expect("a command");
        let port = f.port();
        let words: Vec<&str> =
            command.strip_prefix("$ five -p 1 ").expect("five").split(' ').collect();
        let (code, out) =
            f.on_terminal(&[&["-p", &port], &words[..]].concat(), &block.rest.replace('|', "\n"));
        assert_eq!(code, 0, "{command}\n{out}");
        // Where lines end, and what is typed unseen, is the terminal's.
        let plain = out.replace(&format!(":{port}"), ":1").replace(&f.home, "~");
        let plain: Vec<&str> = plain
            .split_whitespace()
            .map(|w| if w.starts_with("sha256//") { "sha256//..." } else { w })
            .collect();
        assert_eq!(plain, shown.split_whitespace().collect::<Vec<_>>(), "{command}");
    }
}

#[test]
fn the_configuration_is_one() {
    let all: Vec<Block> = blocks("man/five.1").into_iter().filter(|b| b.kind == "config").collect();
    assert_eq!(all.len(), 1);
    let place = Place::new();
    let f = Five::at(&place, "127.0.0.1:1".parse().expect("address")).config(&all[0].body);
    for (host, who) in [
        ("server.example", "alice@server.example:1"),
        ("lab2", "lab2.example.org:1001"),
        ("other", "other:1"),
    ] {
        let out = f.command(&["-O", "check", host]).output().expect("five");
        assert_eq!(String::from_utf8_lossy(&out.stderr), format!("five: {who}: no session\n"));
    }
}

#[test]
fn every_option_is_there() {
    let help = Command::new(env!("CARGO_BIN_EXE_five")).arg("-h").output().expect("five");
    assert!(help.status.success());
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    let (usage, table) = help.split_once("\nOptions:\n").expect("the table");
    let options: Vec<&str> =
        table.split([' ', ',', '\n']).filter(|w| w.starts_with('-') && w.len() > 1).collect();
    assert!(options.len() > 20, "{options:?}");
    let page = page("five.1");
    for option in options {
        let flag = format!("Fl {} ", &option[1..]);
        let items =
            page.split(".It ").skip(1).map(|i| i.split(['.', '"']).next().unwrap_or_default());
        assert!(
            items
                .clone()
                .any(|i| format!("{i} ").contains(&flag) || i.contains(&flag.replace("Fl ", ", "))),
            "{option} in five.1"
        );
    }
    // Each says what it means, and the usage is the synopsis.
    for line in table.lines().filter(|l| l.trim_start().starts_with('-')) {
        assert!(
            line.split_whitespace()
                .filter(|w| w.starts_with(|c: char| c.is_ascii_lowercase()))
                .count()
                > 1,
            "{line:?}"
        );
    }
    assert!(page.contains(".Op Fl 46NnqTtvx") && usage.contains("[-46NnqTtvx]"));
}

#[test]
fn every_key_is_there() {
    let source = text("src/client/config.rs");
    let all = source
        .split("expected one of the keys ")
        .nth(1)
        .and_then(|s| s.split('"').next())
        .expect("the keys");
    let (page, keys) =
        (page("five.1"), all.split([',', ' ']).filter(|k| !k.is_empty() && *k != "or"));
    assert!(keys.clone().count() > 6);
    for key in keys {
        assert!(page.contains(&format!(".It Cm {key} No =")), "{key} in five.1");
    }
}

#[test]
fn every_message_is_there() {
    let source = text("src/client/error.rs");
    let display = source.split("impl fmt::Display").nth(1).expect("Display");
    let page = page("five.1").replace("\n", " ");
    let mut n = 0;
    for literal in display.split('"').skip(1).step_by(2) {
        // Its first sentence, between what is filled in.
        let literal = literal.split("\\n").next().unwrap_or_default();
        let pieces = literal
            .split('}')
            .flat_map(|p| p.split('{').next())
            .map(|p| p.split([':', '(']).find(|s| s.len() > 6));
        if let Some(piece) = pieces.flatten().next() {
            let piece = piece
                .split(", and")
                .next()
                .unwrap_or(piece)
                .trim()
                .trim_end_matches(|c| ",;".contains(c));
            assert!(page.contains(piece), "{piece:?} in five.1");
            n += 1;
        }
    }
    assert!(n > 8);
}

#[test]
fn every_line_of_the_orders_is_there() {
    let page = text("man/five.1");
    for (file, first) in [
        ("src/client/holder/orders.rs", "session="),
        ("src/client/holder/call.rs", "service="),
        ("src/client/holder/call.rs", "offer="),
        ("src/client/holder/forwards.rs", "forward="),
    ] {
        let source = text(file);
        let names = |line: &str| {
            line.split(' ')
                .filter_map(|w| Some(w.split_once('=')?.0.to_string()))
                .collect::<Vec<_>>()
        };
        let printed = source
            .split(&format!("\"{first}"))
            .nth(1)
            .and_then(|s| s.split('"').next())
            .expect("a line");
        let shown = page.lines().find(|l| l.starts_with(first)).expect("a line in five.1");
        assert_eq!(names(&format!("{first}{printed}")), names(shown), "{shown}");
    }
}
