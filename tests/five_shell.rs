//! `five HOST shell` feels like ssh, in a real terminal (tmux) below a shell with
//! job control: editors, Control-C, Control-Z, another size, being suspended, and every end.

mod support;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};
use support::*;

const CONF: &str = "shutdown_timeout = 1
resume_timeout_anonymous = 1
shell stream tcp nowait @USER@ /bin/sh sh -c 'cd /; PS1=\"there$ \" exec bash --norc --noprofile -i'
 pty = yes
";
const H: &str = "127.0.0.1";

/// A terminal with a shell in it; whoever sits there.
struct Tmux<'a> {
    five: &'a Five,
    /// What `stty -g` says before five runs.
    before: String,
}

impl Tmux<'_> {
    /// five calls the daemon at its address. None: not here.
    fn start(five: &Five) -> Option<Tmux<'_>> {
        Tmux::with(five, &format!("--accept-new -q -p {} {H}", five.port()))
    }

    /// five is called with these words and the service.
    fn with<'a>(five: &'a Five, words: &str) -> Option<Tmux<'a>> {
        if let Some(missing) = ["tmux", "bash", "vi", "top"].iter().find(|p| !installed(p)) {
            skip(&format!("needs {missing}"));
            return None;
        }
        std::fs::write(format!("{}/tmux.conf", five.home), "set -g status off\n").expect("conf");
        let mut this = Tmux { five, before: String::new() };
        let call = format!("call() {{ {} {words} shell; }}", env!("CARGO_BIN_EXE_five"));
        let conf = format!("{}/tmux.conf", five.home);
        let mut c = this.tmux(&["-f", &conf, "new-session", "-d", "-x", "80", "-y", "24"]);
        c.args(["env", "PS1=here$ ", "bash", "--norc", "--noprofile", "-i"]);
        assert!(c.status().expect("tmux").success());
        this.sees("here$").types(&call).sees("here$");
        this.before = this.settings();
        Some(this)
    }

    fn tmux(&self, words: &[&str]) -> Command {
        let mut c = self.five.program("tmux");
        c.args(["-L", "fived"]).args(words).env("TMUX_TMPDIR", &self.five.home);
        c
    }

    fn does(&self, words: &[&str]) -> String {
        let out = self.tmux(words).output().expect("tmux");
        let messages = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success(), "{words:?}: {messages}");
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    /// Keys, as tmux names them.
    fn keys(&self, keys: &[&str]) -> &Self {
        self.does(&[&["send-keys"], keys].concat());
        self
    }

    /// A line.
    fn types(&self, text: &str) -> &Self {
        self.does(&["send-keys", "-l", text]);
        self.keys(&["Enter"])
    }

    fn screen(&self) -> String {
        self.does(&["capture-pane", "-p"]).trim_end().to_string()
    }

    /// Waits until that is on the screen.
    fn shows(&self, what: &str) -> &Self {
        self.wait(what, |screen| screen.contains(what))
    }

    /// The same at its end: a prompt.
    fn sees(&self, what: &str) -> &Self {
        self.wait(what, |screen| screen.trim_end().ends_with(what))
    }

    fn wait(&self, what: &str, so: impl Fn(&str) -> bool) -> &Self {
        let end = Instant::now() + TIMEOUT;
        loop {
            let screen = self.screen();
            if so(&format!("{screen}\n")) {
                return self;
            }
            assert!(Instant::now() < end, "expected {what:?}, found:\n{screen}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Clears the screen; the shell in front has a prompt that ends like this.
    fn cleared(&self, prompt: &str) -> &Self {
        self.types("clear").wait(prompt, |screen| screen.trim_end() == prompt)
    }

    fn calls(&self) -> &Self {
        self.cleared("here$").types("call; echo status=$?").sees("there$")
    }

    /// The settings of the terminal, between calls.
    fn settings(&self) -> String {
        let path = format!("{}/settings", self.five.home);
        self.types(&format!("stty -g >{path}; echo no$((1))ted")).shows("no1ted");
        read(&path)
    }

    /// five has ended like this, and the terminal is as it was before.
    fn ended(&self, status: i32) -> &Self {
        self.shows(&format!("status={status}\n")).sees("here$");
        assert_eq!(self.settings(), self.before);
        self
    }

    /// five was suspended, and the terminal is as it was before.
    fn suspended(&self) -> &Self {
        self.shows("Stopped").sees("here$");
        assert_eq!(self.settings(), self.before);
        self.cleared("here$")
    }

    fn resized(&self, columns: &str, rows: &str) -> &Self {
        self.does(&["resize-window", "-x", columns, "-y", rows]);
        self
    }

    /// The service's terminal has, or soon gets, this size.
    fn has(&self, size: &str) -> &Self {
        let wait = format!("until [ \"$(stty size)\" = '{size}' ]; do sleep 0.05; done");
        self.types(&format!("{wait}; echo si$((1))ze")).shows("si1ze\n").sees("there$")
    }

    /// The running five.
    fn pid(&self) -> Pid {
        let shell = self.does(&["list-panes", "-F", "#{pane_pid}"]);
        let children = proc::children(shell.trim().parse().expect("a number"));
        Pid::from_raw(*children.first().expect("five"))
    }
}

impl Drop for Tmux<'_> {
    fn drop(&mut self) {
        let _ = self.tmux(&["kill-server"]).output();
    }
}

#[test]
fn editors_and_tables_work() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    let Some(t) = Tmux::start(&f) else { return };
    let directory = d.place.at("open");
    std::fs::create_dir(&directory).expect("a directory");
    let everybody = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(&directory, everybody).expect("permissions");
    let path = format!("{directory}/edited");
    t.calls().types(&format!("vi -u NONE {path}")).shows("~\n~\n~\n");
    t.keys(&["i"]).does(&["send-keys", "-l", "written there"]);
    t.keys(&["Escape"]).shows("written there").types(":wq").sees("there$");
    assert_eq!(read(&path), "written there\n");
    t.types("top")
        .shows(" PID USER")
        .shows("%CPU")
        .resized("100", "30")
        .keys(&["q"])
        .sees("there$");
    t.has("30 100").types("exit 3").ended(3);
}

#[test]
fn keys_and_sizes_are_the_service_s() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    let Some(t) = Tmux::start(&f) else { return };
    t.calls().types("stty size").shows("24 80\n").resized("132", "50");
    t.has("50 132").cleared("there$");
    t.types("sh -c 'echo sle$((1))eps; exec sleep 600'").shows("sle1eps\n").keys(&["C-c"]);
    t.shows("^C\n").sees("there$").types("echo st=$?").shows("st=130\n").cleared("there$");
    t.types("sh -c 'echo sle$((1))eps; exec sleep 601'").shows("sle1eps\n").keys(&["C-z"]);
    t.shows("Stopped").sees("there$").cleared("there$").types("fg").shows("exec sleep 601'\n");
    t.keys(&["C-c"]).sees("there$");
    t.types("jobs; echo jo$((1))bs").shows("jo1bs\n");
    t.types("exit 4").ended(4);
}

/// A daemon that is called through a socket of this computer.
fn at_a_path() -> (Daemon, String) {
    let d = Daemon::with(&format!("listen = 127.0.0.1:0 @DIR@/fived\n{CONF}")).listen("").start();
    let path = d.place.at("fived");
    d.wait_log(&format!("listening on {path}"));
    (d, path)
}

#[test]
fn five_is_suspended_and_goes_on() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    Tmux::start(&f).iter().for_each(is_suspended_and_goes_on);
}

#[test]
fn at_a_socket_of_this_computer_too() {
    let (d, path) = at_a_path();
    let f = Five::new(&d);
    Tmux::with(&f, &path).iter().for_each(is_suspended_and_goes_on);
}

fn is_suspended_and_goes_on(t: &Tmux) {
    t.calls().keys(&["~", "?"]).shows("\n ~^Z  suspend five\n").cleared("there$");
    t.keys(&["~", "C-z"]).shows("[suspend five]\n").suspended();
    t.resized("90", "33").types("fg").keys(&["Enter"]).has("33 90");
    // Another process stops it, with the signal that may be caught, and with the other one.
    for signal in [Signal::SIGTSTP, Signal::SIGSTOP] {
        t.cleared("there$");
        kill(t.pid(), signal).expect("kill");
        t.shows("Stopped").sees("here$");
        if signal == Signal::SIGTSTP {
            assert_eq!(t.settings(), t.before);
        }
        t.cleared("here$").resized("91", "34").types("fg").keys(&["Enter"]).sees("there$");
        t.has("34 91").types("sh -c 'echo ra$((1))w; exec sleep 602'").shows("ra1w\n");
        t.keys(&["C-c"]).sees("there$").resized("90", "33");
        t.has("33 90");
    }
    // One that the shell continues in the background waits until it has the terminal.
    t.cleared("there$").keys(&["~", "C-z"]).suspended();
    t.types("bg");
    // The shell says so before its next prompt.
    until("it has stopped again", || {
        std::thread::sleep(std::time::Duration::from_millis(20));
        t.keys(&["Enter"]).screen().contains("Stopped")
    });
    t.sees("here$");
    assert_eq!(t.settings(), t.before);
    t.types("fg").keys(&["Enter"]).sees("there$").types("exit 5").sees("here$");
    assert_eq!(t.settings(), t.before);
}

#[test]
fn every_end_leaves_the_terminal_as_it_was() {
    let d = Daemon::with(CONF).start();
    let f = Five::new(&d);
    Tmux::start(&f).iter().for_each(|t| every_end(&d, t));
    let (d, path) = at_a_path();
    let f = Five::new(&d);
    Tmux::with(&f, &path).iter().for_each(|t| every_end(&d, t));
}

fn every_end(d: &Daemon, t: &Tmux) {
    t.calls().types("exit 6").ended(6);
    t.calls().keys(&["~", "."]).ended(255);
    t.calls();
    kill(t.pid(), Signal::SIGTERM).expect("kill");
    t.ended(128 + 15);
    t.calls();
    d.signal(Signal::SIGTERM);
    t.ended(255);
}
