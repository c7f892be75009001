//! fived started under the name inetd or xinetd: it takes the options of that program. Here is what
//! they mean for fived.

use crate::parent::config::disk::Disk;
use crate::parent::options::{Options, Task};
use crate::policy::{Files, GivenOption, Grammar, Origin};
use crate::sys::notify;
use getopts::{HasArg, Matches, Occur, Options as Parser};
use std::net::IpAddr;

/// What an option does.
enum Does {
    /// The option is accepted without effect: fived does so in any case, or has no use for it.
    Nothing,
    /// The same, and who gave it is told why it changes nothing.
    NotHere(&'static str),
    Debug,
    Foreground,
    Pidfile,
    /// Another file instead of the usual ones.
    File,
    /// Gives a setting of fived.conf(5): its name, and the words that stand before the option's
    /// value.
    Set(&'static str, &'static [&'static str]),
    /// Where rows listen that name no address, and fived itself: an address, or the name of a host.
    Address,
    /// The limit of starts a minute of rows that give none themselves; 0: no limit.
    PerMinute,
    Version,
    Help,
}

/// An option: of one letter, or of a word.
struct Opt {
    short: &'static str,
    long: &'static str,
    /// What its value is; empty: it has none.
    value: &'static str,
    does: Does,
}

/// A program that fived can replace.
struct Program {
    name: &'static str,
    usage: &'static str,
    grammar: Grammar,
    files: &'static [&'static str],
    pidfile: &'static str,
    /// Long options have one dash (`-filelog`), and every argument is an option.
    one_dash: bool,
    options: &'static [Opt],
}

const fn opt(short: &'static str, long: &'static str, value: &'static str, does: Does) -> Opt {
    Opt { short, long, value, does }
}

const PROGRAMS: &[Program] = &[
    Program {
        name: "inetd",
        usage: "usage: inetd [-diElV] [-a ADDRESS] [-q N] [-R N] [-p FILE] [--environment] [--resolve] [FILE...]",
        grammar: Grammar::Inetd,
        files: &["/etc/inetd.conf", "/etc/inetd.d"],
        pidfile: "/run/inetd.pid",
        one_dash: false,
        options: &[
            opt("d", "debug", "", Does::Debug),
            opt("i", "", "", Does::Foreground),
            opt("l", "", "", Does::Set("libwrap", &["yes"])),
            opt("a", "", "ADDRESS", Does::Address),
            opt("q", "", "N", Does::Set("backlog", &[])),
            opt("R", "rate", "N", Does::PerMinute),
            opt("p", "pidfile", "FILE", Does::Pidfile),
            opt("", "environment", "", Does::Nothing),
            opt("", "resolve", "", Does::NotHere("REMOTE_HOST is the client's address")),
            opt("E", "", "", Does::NotHere("services have an environment of their own")),
            opt("V", "version", "", Does::Version),
            opt("?", "help", "", Does::Help),
            opt("", "usage", "", Does::Help),
        ],
    },
    Program {
        name: "xinetd",
        usage: "usage: xinetd [-d] [-f FILE] [-filelog FILE | -syslog FACILITY] [-pidfile FILE] [-dontfork] [-stayalive] [-inetd_compat] [-limit N] [-version]",
        grammar: Grammar::Xinetd,
        files: &["/etc/xinetd.conf"],
        pidfile: "/run/xinetd.pid",
        one_dash: true,
        options: &[
            opt("d", "", "", Does::Debug),
            opt("f", "", "FILE", Does::File),
            opt("", "filelog", "FILE", Does::Set("log_type", &["FILE"])),
            opt("", "syslog", "FACILITY", Does::Set("log_type", &["SYSLOG"])),
            opt("", "pidfile", "FILE", Does::Pidfile),
            opt("", "dontfork", "", Does::Foreground),
            opt("", "stayalive", "", Does::Nothing),
            opt("", "reuse", "", Does::Nothing),
            opt("", "remlock", "", Does::Nothing),
            opt("", "loop", "RATE", Does::NotHere("fived limits starts by `cps` alone")),
            opt("", "cc", "SECONDS", Does::NotHere("fived checks itself without it")),
            opt("", "logprocs", "N", Does::NotHere("fived asks nobody for the names of users")),
            opt(
                "",
                "shutdownprocs",
                "N",
                Does::NotHere("fived asks nobody for the names of users"),
            ),
            opt("", "inetd_ipv6", "", Does::Nothing),
            opt("", "inetd_compat", "", Does::Set("inetd", &["/etc/inetd.conf"])),
            opt("", "limit", "N", Does::Set("max_services", &[])),
            opt("", "version", "", Does::Version),
        ],
    },
];

/// The options, if `called` (the path or name that fived was started by) is that of such a program.
/// Err: one line for the user.
pub fn read(called: &str, words: &[String]) -> Option<Result<Options, String>> {
    let name = called.rsplit('/').next().unwrap_or(called);
    PROGRAMS.iter().find(|p| p.name == name).map(|p| p.read(words))
}

/// Is this the name of a process of fived's, by whichever name it was started?
pub fn is_name(name: &str) -> bool {
    name.starts_with("fived") || PROGRAMS.iter().any(|p| p.name == name)
}

impl Program {
    fn read(&self, words: &[String]) -> Result<Options, String> {
        let wrong = |what: String| format!("{what}\n{}", self.usage);
        let m = self.parse(words).map_err(wrong)?;
        let mut o = Options {
            task: Task::Serve,
            origin: Origin::of(self.grammar, Vec::new()),
            listen: Vec::new(),
            background: true,
            pidfile: None,
            debug: 0,
            as_xinetd: self.grammar == Grammar::Xinetd,
            notes: Vec::new(),
        };
        // Told to end, both end at once, and so scripts and units start them again.
        let (option, name) = (self.name.to_string(), "shutdown_timeout".into());
        o.origin.given.push(GivenOption { option, name, words: vec!["0".into()] });
        let mut paths = m.free.clone();
        for option in self.options.iter().filter(|o| m.opt_present(o.key())) {
            let value = m.opt_str(option.key());
            match option.does {
                Does::Nothing => {}
                Does::NotHere(why) => {
                    let option = option.shown(self.one_dash);
                    o.notes.push(format!("{option} changes nothing: {why}"));
                }
                Does::Debug => (o.debug, o.background) = (1, false),
                Does::Foreground => o.background = false,
                Does::Pidfile => o.pidfile = value,
                Does::File => paths.extend(value),
                Does::Set(name, first) => {
                    let words = first.iter().map(|w| w.to_string()).chain(value).collect();
                    let option = option.shown(self.one_dash);
                    o.origin.given.push(GivenOption { option, name: name.into(), words });
                }
                Does::Address => {
                    let all = addresses(&value.unwrap_or_default())?;
                    let words = all.iter().map(ToString::to_string).collect();
                    let (option, name) = (option.shown(self.one_dash), "listen".into());
                    o.origin.given.push(GivenOption { option, name, words });
                    o.origin.addresses = all;
                }
                Does::PerMinute => o.origin.per_minute = per_minute(value).map_err(wrong)?,
                Does::Version => o.task = Task::Version,
                Does::Help => o.task = Task::Usage(self.usage),
            }
        }
        if o.background {
            o.pidfile.get_or_insert_with(|| self.pidfile.into());
            // The unit of Debian's inetd has no option for it, and `Type=notify`.
            o.background = self.grammar != Grammar::Inetd || !notify::is_awaited();
        }
        if paths.is_empty() {
            paths = self.files.iter().map(|f| f.to_string()).collect();
        }
        o.origin.paths = paths;
        Ok(o)
    }

    fn parse(&self, words: &[String]) -> Result<Matches, String> {
        let mut parser = Parser::new();
        for o in self.options {
            let (has, occur) = match o.value {
                "" => (HasArg::No, Occur::Multi),
                _ => (HasArg::Yes, Occur::Optional),
            };
            parser.opt(o.short, o.long, "", o.value, has, occur);
        }
        let two = |w: &String| match w.strip_prefix('-') {
            Some(rest) if self.one_dash && rest.len() > 1 => format!("--{rest}"),
            _ => w.clone(),
        };
        let m = parser.parse(words.iter().map(two)).map_err(|e| e.to_string())?;
        match m.free.first() {
            Some(word) if self.one_dash => Err(format!("expected only options, found {word:?}")),
            _ => Ok(m),
        }
    }
}

impl Opt {
    /// The name by which getopts knows it.
    fn key(&self) -> &'static str {
        if self.short.is_empty() { self.long } else { self.short }
    }

    fn shown(&self, one_dash: bool) -> String {
        let more = if self.short.is_empty() && !one_dash { "-" } else { "" };
        format!("-{more}{}", self.key())
    }
}

/// The addresses of `-a`: of a host, the first of each family. Waits for the resolver, as for a
/// name of `bind`. Err: one line for the user.
fn addresses(word: &str) -> Result<Vec<IpAddr>, String> {
    let wanted = format!("-a {word}: expected an address of this computer, or a host's name");
    let bare = word.strip_prefix('[').and_then(|w| w.strip_suffix(']')).unwrap_or(word);
    if let Ok(address) = bare.parse() {
        return Ok(vec![address]);
    }
    let all = Disk::default().host(word).map_err(|e| format!("{wanted}: {e}"))?;
    let first = |v6: bool| all.iter().find(move |a| a.is_ipv6() == v6).copied();
    let found: Vec<_> = [first(false), first(true)].into_iter().flatten().collect();
    if found.is_empty() { Err(format!("{wanted}, found none")) } else { Ok(found) }
}

fn per_minute(value: Option<String>) -> Result<Option<u32>, String> {
    let word = value.unwrap_or_default();
    let n: u32 = word.parse().map_err(|_| {
        format!("-R {word}: expected how many starts a minute, or 0 for no limit, found {word:?}")
    })?;
    Ok((n > 0).then_some(n))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn called(line: &str) -> Result<Options, String> {
        let words: Vec<String> = line.split_whitespace().map(String::from).collect();
        read(&words[0], &words[1..]).expect("a program that is known")
    }

    const LOOP: &str = "-loop changes nothing: fived limits starts by `cps` alone";

    fn given(o: &Options) -> Vec<String> {
        o.origin.given.iter().map(|g| format!("{} {}", g.name, g.words.join(" "))).collect()
    }

    #[test]
    fn a_program_has_its_own_options_and_files() {
        let o = called("/usr/sbin/inetd").expect("good");
        assert_eq!(
            (o.background, o.pidfile.as_deref(), o.origin.to_string()),
            (true, Some("/run/inetd.pid"), "/etc/inetd.conf /etc/inetd.d".to_string())
        );
        let o = called("inetd -il -q128 -R 40 -p/p --environment a b").expect("good");
        assert_eq!(
            (o.background, o.pidfile.as_deref(), o.origin.to_string(), o.origin.per_minute),
            (false, Some("/p"), "a b".to_string(), Some(40))
        );
        assert_eq!(given(&o), ["shutdown_timeout 0", "libwrap yes", "backlog 128"]);
        let o = called("inetd -a [::1]").expect("good");
        assert_eq!(given(&o), ["shutdown_timeout 0", "listen ::1"]);
        assert_eq!(o.origin.addresses, ["::1".parse::<IpAddr>().expect("an address")]);
        let o = called("./xinetd -f x -filelog /l -pidfile /p -stayalive -inetd_compat -limit 5")
            .expect("good");
        assert_eq!(
            (o.background, o.pidfile.as_deref(), o.origin.to_string(), o.debug),
            (true, Some("/p"), "x".to_string(), 0)
        );
        assert_eq!(
            given(&o),
            ["shutdown_timeout 0", "log_type FILE /l", "inetd /etc/inetd.conf", "max_services 5"]
        );
        assert!(o.notes.is_empty());
        let o = called("xinetd -loop 9 -cc 60 -logprocs 3 -remlock -reuse").expect("good");
        assert_eq!((o.notes.len(), o.notes[0].as_str()), (3, LOOP));
        assert_eq!(called("inetd -E").expect("good").notes.len(), 1);
        let resolve = "--resolve changes nothing: REMOTE_HOST is the client's address";
        assert_eq!(called("inetd --resolve").expect("good").notes, [resolve]);
        for word in ["-?", "--help", "--usage"] {
            let task = called(&format!("inetd {word}")).expect("good").task;
            assert!(matches!(task, Task::Usage(usage) if usage.starts_with("usage: inetd ")));
        }
        let o = called("xinetd -d").expect("good");
        assert_eq!((o.background, o.debug, o.pidfile), (false, 1, None));
        assert_eq!(called("xinetd -version").expect("good").task, Task::Version);
    }

    #[test]
    fn other_options_are_refused() {
        for (line, wanted) in [
            ("inetd -x", "usage: inetd "),
            ("inetd -R many", "-R many: expected how many starts a minute"),
            ("xinetd -filelog", "usage: xinetd "),
            ("xinetd file", "expected only options, found \"file\""),
            ("xinetd -b", "usage: xinetd "),
        ] {
            assert!(called(line).unwrap_err().contains(wanted), "{line}");
        }
        assert!(read("/usr/sbin/fived", &[]).is_none());
    }
}
