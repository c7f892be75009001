//! Completion in bash and zsh: every option, hosts from five's own files, services from a session
//! that stands and from nowhere else.

mod support;
use std::fs;
use std::process::{Command, Stdio};
use support::page::{text, top};
use support::*;

/// What bash would offer for this line, its last word being completed.
fn offered(f: &Five, line: &str) -> Vec<String> {
    let script = format!(
        "{}\n. etc/five.bash\nCOMP_LINE=$1 COMP_POINT=${{#1}}; read -ra COMP_WORDS <<<\"$1\"; COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\n\
         _five; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        "COMP_WORDBREAKS=$' \\t\\n\"\\'><=;|&(:@'"
    );
    let mut shell = f.program("timeout");
    shell
        .args(["60", "bash", "--norc", "-c", &script, "bash", line])
        .current_dir(top())
        .stdin(Stdio::null());
    let directory = std::path::Path::new(env!("CARGO_BIN_EXE_five")).parent().expect("a directory");
    shell.env("PATH", format!("{}:{}", directory.display(), std::env::var("PATH").expect("PATH")));
    let out = shell.output().expect("bash");
    let err = String::from_utf8_lossy(&out.stderr);
    assert_eq!((out.status.code(), err.as_ref()), (Some(0), ""), "{line}");
    String::from_utf8_lossy(&out.stdout)
        .lines()
        .filter(|l| !l.is_empty())
        .map(String::from)
        .collect()
}

#[test]
fn bash_knows_options_orders_and_hosts() {
    if !installed("bash") {
        return skip("needs bash");
    }
    let place = Place::new();
    let f = Five::at(&place, "127.0.0.1:1".parse().expect("address"))
        .config("user = x\n[alpha.example]\nport=7\n[ beta delt* !epsilon zeta ] # two\n");
    fs::write(
        f.config_path("known_hosts"),
        "gamma.example:1 sha256//x=\n[fe80::1]:1001 sha256//y=\neta.example:1 vouched\n# no line\n",
    )
    .expect("known_hosts");
    assert_eq!(offered(&f, "five --a"), ["--accept-new"]);
    assert_eq!(offered(&f, "five -O "), ["check", "list", "exit", "resume", "forward", "cancel"]);
    assert_eq!(offered(&f, "five -vO e"), ["exit"]);
    assert_eq!(offered(&f, "five alp"), ["alpha.example"]);
    assert_eq!(offered(&f, "five -p 7 -n bet"), ["beta"]);
    assert_eq!(offered(&f, "five zet"), ["zeta"]);
    assert_eq!(offered(&f, "five eta"), ["eta.example"]);
    assert!(
        ["delt", "epsi", "*", "!", "no"]
            .iter()
            .all(|word| offered(&f, &format!("five {word}")).is_empty())
    );
    assert_eq!(offered(&f, "five gam"), ["gamma.example"]);
    // What stands before readline's breaks is not said again.
    assert_eq!(offered(&f, "five me@gam"), ["gamma.example"]);
    assert_eq!(offered(&f, "five fe80:"), [":1"]);
    assert!(offered(&f, "five ").len() > 4 && offered(&f, "five -p ").is_empty());
    // Every option is offered.
    let all = offered(&f, "five -");
    let help = f.program(env!("CARGO_BIN_EXE_five")).arg("-h").output().expect("five").stdout;
    let help = String::from_utf8_lossy(&help).into_owned();
    let (table, zsh) = (help.split_once("Options:").expect("a table").1, text("etc/_five"));
    let options: Vec<String> = table
        .split([' ', ',', '\n'])
        .filter(|w| w.starts_with('-') && w.len() > 1)
        .map(String::from)
        .collect();
    assert!(options.len() > 20, "{options:?}");
    for option in options {
        assert!(all.contains(&option), "{option} in etc/five.bash");
        assert!(zsh.contains(&option), "{option} in etc/_five");
    }
}

#[test]
fn bash_asks_an_open_session_and_nobody_else() {
    if !installed("bash") {
        return skip("needs bash");
    }
    let d = Daemon::with(
        "date stream tcp nowait @USER@ /bin/date date\ndaytime stream tcp nowait @USER@ internal\n",
    )
    .start();
    let f = Five::new(&d);
    let line = format!("five -p {} 127.0.0.1 da", f.port());
    assert!(offered(&f, &line).is_empty());
    assert!(!d.log().contains("SESSION"), "no session was made:\n{}", d.log());
    assert_eq!(f.run(&["127.0.0.1"]).0, 0);
    let sessions = d.wait_logs("SESSION", 1).len();
    assert_eq!(offered(&f, &line), ["date", "daytime"]);
    assert_eq!(offered(&f, &line.replace("-p ", "-np")), ["date", "daytime"]);
    // Another session's; a service that is there already; no service is wanted.
    assert!(offered(&f, &line.replace("five ", "five -l demo ")).is_empty());
    assert!(offered(&f, &format!("{line}te ")).is_empty());
    assert!(offered(&f, &line.replace("five ", "five -O check ")).is_empty());
    assert_eq!(d.log().matches("SESSION").count(), sessions, "{}", d.log());
}

#[test]
fn zsh_reads_its_own() {
    if !installed("zsh") {
        return skip("needs zsh");
    }
    let out =
        Command::new("zsh").args(["-n", "etc/_five"]).current_dir(top()).output().expect("zsh");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}
