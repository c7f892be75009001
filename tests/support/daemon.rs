//! The daemon, started as a user would start it and ended when the test is.

use super::{
    Client, Place, TIMEOUT, connect_from, free_address, nobody_writes, proc, root, sane, until,
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// A daemon that is going to be.
pub struct Builder {
    pub place: Place,
    conf: String,
    arguments: Vec<String>,
    listen: Vec<String>,
    environment: Vec<(String, String)>,
    under: Vec<String>,
    user: Option<String>,
    stdin: Option<OwnedFd>,
    /// The configuration names a state directory in the test's own.
    state: bool,
    /// Lines that begin so are read and not kept.
    unkept: &'static [&'static str],
}

/// A daemon that serves.
pub struct Daemon {
    pub place: Place,
    pub addresses: Vec<SocketAddr>,
    child: Child,
    /// The end of the pipe that `log` reads.
    stderr: OwnedFd,
    log: Arc<Log>,
    code: Option<i32>,
}

/// What has come of standard error; `gate` is held by whoever wants nobody to read it.
#[derive(Default)]
struct Log {
    text: Mutex<(String, bool)>,
    more: Condvar,
    gate: Mutex<()>,
    /// Somebody wants nobody to read it.
    unread: AtomicBool,
}

/// Nobody reads the log as long as this lives.
pub struct Unread<'a> {
    log: &'a Log,
    _gate: MutexGuard<'a, ()>,
}

impl Drop for Unread<'_> {
    fn drop(&mut self) {
        self.log.unread.store(false, Ordering::SeqCst);
    }
}

impl Daemon {
    /// With this configuration; the state directory is in the test's own.
    pub fn with(conf: &str) -> Builder {
        Builder {
            place: Place::new(),
            conf: conf.into(),
            arguments: Vec::new(),
            listen: Vec::new(),
            environment: Vec::new(),
            under: Vec::new(),
            user: None,
            stdin: None,
            state: true,
            unkept: &[],
        }
    }
}

impl Builder {
    pub fn arg(mut self, word: &str) -> Builder {
        self.arguments.push(self.place.fill(word));
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Builder {
        self.environment.push((name.into(), self.place.fill(value)));
        self
    }

    /// Listens there instead of at 127.0.0.1:0; may be repeated. An empty one: no `-l` at all.
    pub fn listen(mut self, address: &str) -> Builder {
        self.listen.push(address.into());
        self
    }

    /// A file of mode 0755 in the test's directory.
    pub fn file(self, name: &str, text: &str) -> Builder {
        self.place.write(name, text, 0o755);
        self
    }

    /// The daemon is started by this command (`prlimit --nofile=40`), which must become it by exec.
    pub fn under(mut self, words: &[&str]) -> Builder {
        self.under = words.iter().map(|w| self.place.fill(w)).collect();
        self
    }

    /// Its standard input.
    pub fn stdin(mut self, fd: OwnedFd) -> Builder {
        self.stdin = Some(fd);
        self
    }

    /// Root starts it as this user; who is no root starts it as who he is.
    pub fn user(mut self, name: &str) -> Builder {
        self.user = root().then(|| name.into());
        self
    }

    /// Its state is where fived itself would have it, by HOME.
    pub fn stateless(mut self) -> Builder {
        self.state = false;
        self
    }

    /// Lines of the log that begin so are not kept: there are too many of them.
    pub fn unkept(mut self, beginnings: &'static [&'static str]) -> Builder {
        self.unkept = beginnings;
        self
    }

    /// Starts it and waits until it serves.
    #[track_caller]
    pub fn start(self) -> Daemon {
        let wanted = self.listen.iter().filter(|l| !l.is_empty()).count().max(1);
        let mut daemon = self.launch();
        let end = Instant::now() + TIMEOUT;
        loop {
            daemon.addresses = listening(&daemon.log());
            if daemon.addresses.len() >= wanted {
                return daemon;
            }
            assert!(
                Instant::now() < end && daemon.exited().is_none(),
                "fived does not serve:\n{}",
                daemon.log()
            );
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    /// Starts it and waits until it serves. Err: it ended; exit status and standard error.
    #[track_caller]
    pub fn try_start(self) -> Result<Daemon, (i32, String)> {
        let mut daemon = self.launch();
        let mut found = None;
        until("it serves, or ends", || {
            found = listening(&daemon.log()).first().copied();
            found.is_some() || daemon.exited().is_some()
        });
        match found {
            Some(address) => {
                daemon.addresses = vec![address];
                Ok(daemon)
            }
            None => Err((daemon.wait(), daemon.log())),
        }
    }

    /// Starts it where the log goes elsewhere: at a port that was free a moment ago.
    #[track_caller]
    pub fn start_unlogged(mut self) -> Daemon {
        let address = free_address();
        self.listen = vec![address.to_string()];
        let mut daemon = self.launch();
        daemon.addresses = vec![address];
        until("it serves", || std::net::TcpStream::connect(address).is_ok());
        daemon
    }

    /// It must not start: exit status and standard error.
    #[track_caller]
    pub fn fails(self) -> (i32, String) {
        let mut daemon = self.launch();
        let code = daemon.wait();
        (code, daemon.log())
    }

    fn launch(self) -> Daemon {
        let state = self.place.at("state");
        std::fs::create_dir(&state).expect("state directory");
        let head = if self.state { "state_directory = @DIR@/state\n" } else { "" };
        let conf = self.place.write("fived.conf", &format!("{head}{}", self.conf), 0o644);
        let mut program = env!("CARGO_BIN_EXE_fived").to_string();
        let mut ids = None;
        if let Some(name) = &self.user {
            let user = nix::unistd::User::from_name(name).expect("passwd").expect("user");
            std::os::unix::fs::chown(&state, Some(user.uid.as_raw()), None).expect("chown");
            program = reachable(&self.place, &program);
            ids = Some((user.uid.as_raw(), user.gid.as_raw()));
        }
        let mut command = match self.under.split_first() {
            Some((first, rest)) => {
                let mut c = Command::new(first);
                c.args(rest).arg(&program);
                c
            }
            None => Command::new(&program),
        };
        if let Some((uid, gid)) = ids {
            command.uid(uid).gid(gid);
        }
        command.args(["-f", &conf]);
        let usual = vec!["127.0.0.1:0".to_string()];
        let listen = if self.listen.is_empty() { &usual } else { &self.listen };
        for address in listen.iter().filter(|l| !l.is_empty()) {
            command.args(["-l", address]);
        }
        for name in [
            "LISTEN_FDS",
            "LISTEN_PID",
            "NOTIFY_SOCKET",
            "WATCHDOG_PID",
            "WATCHDOG_USEC",
            "RUST_LOG",
            "TZ",
        ] {
            command.env_remove(name);
        }
        command.args(&self.arguments).envs(self.environment.clone());
        command
            .stdin(self.stdin.map_or_else(Stdio::null, Stdio::from))
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        // The state directory of who may write none of his own must not be the tester's.
        match self.state {
            true => command.env("XDG_STATE_HOME", &state),
            false => command.env_remove("XDG_STATE_HOME"),
        };
        let mut child = command.spawn().expect("fived starts");
        let log = Arc::new(Log::default());
        let (end, keeper) = (child.stderr.take().expect("piped"), log.clone());
        let stderr = end.as_fd().try_clone_to_owned().expect("dup");
        std::thread::spawn(move || keeper.keep(end, self.unkept));
        Daemon { place: self.place, addresses: Vec::new(), child, stderr, log, code: None }
    }
}

/// A copy of the program that an ordinary user may run, wherever the original is.
fn reachable(place: &Place, program: &str) -> String {
    let copy = place.at("fived");
    if std::fs::hard_link(program, &copy).is_err() {
        std::fs::copy(program, &copy).expect("copy of fived");
        nobody_writes(&copy);
    }
    copy
}

/// The addresses that the log's whole lines name, in their order.
fn listening(log: &str) -> Vec<SocketAddr> {
    let lines = log.split_inclusive('\n').filter_map(|l| l.strip_suffix('\n'));
    let named = |l: &str| l.strip_prefix("listening on ")?.split(' ').next()?.parse().ok();
    lines.filter_map(named).collect()
}

/// Is there something to read, or an end, within this time?
fn readable(fd: &impl AsFd, within: PollTimeout) -> Option<PollFlags> {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, within).ok().and_then(|_| fds[0].revents())
}

impl Log {
    fn keep(&self, mut end: ChildStderr, unkept: &[&str]) {
        let mut part = [0; 65536];
        loop {
            readable(&end, PollTimeout::NONE);
            // Read while `text` is held: so what is in neither of the two is nowhere.
            let mut text = self.text.lock().expect("log");
            let Ok(n @ 1..) = end.read(&mut part) else { break };
            let line = text.0.rfind('\n').map_or(0, |at| at + 1);
            text.0.push_str(&String::from_utf8_lossy(&part[..n]));
            if !unkept.is_empty() {
                let new = text.0.split_off(line);
                let kept = |l: &&str| {
                    !l.ends_with('\n') || unkept.iter().all(|beginning| !l.starts_with(beginning))
                };
                text.0.extend(new.split_inclusive('\n').filter(kept));
            }
            drop(text);
            self.more.notify_all();
            drop(self.gate.lock().expect("gate"));
        }
        self.text.lock().expect("log").1 = true;
        self.more.notify_all();
    }
}

impl Daemon {
    /// The addresses that it has begun to listen on, in the order of its log: waits for so many, for
    /// the log says one after the other.
    #[track_caller]
    pub fn listening(&self, n: usize) -> Vec<SocketAddr> {
        self.wait_whole(&format!("{n} addresses that it listens on"), |log| {
            let all = listening(log);
            (all.len() >= n).then_some(all)
        })
    }

    /// The first of the rows' own ports, where there is one address besides them: waits for as many
    /// as are wanted.
    #[track_caller]
    pub fn ports<const N: usize>(&self) -> [SocketAddr; N] {
        let all = self.listening(N + 1);
        all[1..=N].try_into().expect("as many as were waited for")
    }

    /// The nth of them, counted from 0.
    #[track_caller]
    pub fn port(&self, n: usize) -> SocketAddr {
        self.listening(n + 2)[n + 1]
    }

    /// How many of them the log has named: for who has waited for a later line.
    pub fn ports_named(&self) -> usize {
        listening(&self.log()).len().saturating_sub(1)
    }

    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    #[track_caller]
    pub fn connect(&self) -> Client {
        Client::connect(self.address())
    }

    pub fn connect_from(&self, from: &str) -> Client {
        connect_from(from.parse::<IpAddr>().expect("address"), self.address())
    }

    /// Sends this and no more, reads to the end.
    #[track_caller]
    pub fn ask(&self, request: impl AsRef<[u8]>) -> Vec<u8> {
        self.connect().send(request).half_close().read_all()
    }

    /// The services that HELP names, without the built-ins.
    pub fn help(&self) -> Vec<String> {
        let text = String::from_utf8(self.ask("HELP\r\n")).expect("ASCII");
        text.lines()
            .filter(|l| !super::BUILTINS.lines().any(|b| b == *l))
            .map(String::from)
            .collect()
    }

    /// Standard error so far: all that was written, unless somebody wants nobody to read it. A line
    /// that is yet to be written is waited for with `wait_log`.
    pub fn log(&self) -> String {
        self.read_up();
        self.log.text.lock().expect("log").0.clone()
    }

    /// Waits until all that was written to standard error has been read.
    fn read_up(&self) {
        until("standard error is read", || {
            if self.log.unread.load(Ordering::SeqCst) {
                return true;
            }
            let _text = self.log.text.lock().expect("log");
            let left = readable(&self.stderr, PollTimeout::ZERO);
            !left.is_some_and(|f| f.contains(PollFlags::POLLIN))
        });
    }

    /// Waits for a line with this in it, and gives it back.
    #[track_caller]
    pub fn wait_log(&self, part: &str) -> String {
        self.wait_logs(part, 1).pop().expect("one line")
    }

    /// Waits for so many of them.
    #[track_caller]
    pub fn wait_logs(&self, part: &str, n: usize) -> Vec<String> {
        self.wait_whole(&format!("{n} lines with {part:?}"), |log| {
            let found: Vec<_> =
                log.lines().filter(|l| l.contains(part)).map(String::from).collect();
            (found.len() >= n).then_some(found)
        })
    }

    /// Waits until this is found in the whole lines of the log.
    #[track_caller]
    fn wait_whole<T>(&self, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        let end = Instant::now() + TIMEOUT;
        let mut text = self.log.text.lock().expect("log");
        loop {
            let whole = text.0.rfind('\n').map_or(0, |i| i + 1);
            if let Some(found) = find(&text.0[..whole]) {
                return found;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || text.1 {
                let all = text.0.clone();
                drop(text);
                panic!("expected {what} in the log:\n{all}");
            }
            text = self.log.more.wait_timeout(text, left).expect("log").0;
        }
    }

    /// From now on nobody reads the log, until this is dropped.
    pub fn unread(&self) -> Unread<'_> {
        let gate = self.log.gate.lock().expect("gate");
        self.log.unread.store(true, Ordering::SeqCst);
        Unread { log: &self.log, _gate: gate }
    }

    // Processes.

    pub fn parent_pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// The net process; panics where there is none within `TIMEOUT`, or more than one for good.
    #[track_caller]
    pub fn net_pid(&self) -> i32 {
        let mut found = Vec::new();
        until("one net process", || {
            found = self.nets();
            found.len() == 1
        });
        found[0]
    }

    pub fn nets(&self) -> Vec<i32> {
        self.children(|argv0| argv0 == "fived-net")
    }

    /// The processes that have the private keys: one for each table that is still served.
    pub fn keys(&self) -> Vec<i32> {
        self.children(|argv0| argv0 == "fived-keys")
    }

    /// The one that has them where there is one table; panics where there is none within `TIMEOUT`,
    /// or more for good.
    #[track_caller]
    pub fn keys_pid(&self) -> i32 {
        let mut found = Vec::new();
        until("one keys process", || {
            found = self.keys();
            found.len() == 1
        });
        found[0]
    }

    /// Services that run, by process id.
    pub fn services(&self) -> Vec<i32> {
        self.children(|argv0| !["fived-net", "fived-keys", "fived-login"].contains(&argv0))
    }

    /// Waits for one service to run, whose program is this (by argv[0]).
    #[track_caller]
    pub fn service(&self, argv0: &str) -> i32 {
        let mut found = Vec::new();
        until(argv0, || {
            found = self.children(|a| a == argv0);
            !found.is_empty()
        });
        found[0]
    }

    fn children(&self, which: impl Fn(&str) -> bool) -> Vec<i32> {
        let all = proc::children(self.parent_pid()).into_iter();
        all.filter(|&pid| {
            proc::alive(pid) && proc::arguments(pid).first().is_some_and(|a| which(a))
        })
        .collect()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.parent_pid()), signal).expect("kill");
    }

    /// Ends it in a way that lets none of its processes say a word to anybody, as when its computer
    /// is switched off.
    #[track_caller]
    pub fn switch_off(&mut self) {
        let (net, parent) = (self.net_pid(), self.parent_pid());
        self.signal(Signal::SIGSTOP);
        until("it starts no other net", || proc::stat(parent).is_some_and(|s| s[0] == "T"));
        kill(Pid::from_raw(net), Signal::SIGKILL).expect("kill");
        until("its connections are closed", || !proc::alive(net));
        self.signal(Signal::SIGKILL);
        self.wait();
    }

    /// Writes the configuration anew and has it read.
    pub fn begin_reload(&self, conf: &str) {
        self.place.write("fived.conf", &format!("state_directory = @DIR@/state\n{conf}"), 0o644);
        self.signal(Signal::SIGHUP);
    }

    /// The same, and waits for the log to say that the configuration is served.
    #[track_caller]
    pub fn reload(&self, conf: &str) -> String {
        self.read_up();
        // Nobody reads on while a log is searched, and one of an hour is long.
        let from = self.log.text.lock().expect("log").0.len();
        self.begin_reload(conf);
        let reload =
            |log: &str| log.get(from..)?.lines().find(|l| l.contains("RELOAD ")).map(String::from);
        self.wait_whole("a RELOAD line", reload)
    }

    /// The exit status, if it has ended (128 and the number of the signal).
    pub fn exited(&mut self) -> Option<i32> {
        use std::os::unix::process::ExitStatusExt;
        if self.code.is_none() {
            let status = self.child.try_wait().expect("wait")?;
            self.code = Some(status.code().unwrap_or(128 + status.signal().unwrap_or(0)));
        }
        self.code
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&mut self) -> i32 {
        let end = Instant::now() + TIMEOUT;
        loop {
            if let Some(code) = self.exited() {
                // Its last words are in the pipe.
                self.read_up();
                return code;
            }
            if Instant::now() > end {
                panic!("it does not end:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let pids = match self.code {
            Some(_) => Vec::new(),
            None => [vec![self.parent_pid()], proc::descendants(self.parent_pid())].concat(),
        };
        for pid in pids {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!("--- log of fived:\n{}---", self.log());
        } else if cfg!(asan) {
            sane(&self.log());
        }
    }
}
