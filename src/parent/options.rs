//! The command line (fived(8)).
//!
//! | file | noun |
//! |---|---|
//! | `inetd` | those of inetd and xinetd, where fived is called by such a name |

pub mod inetd;

use crate::policy::{Grammar, Listen, Origin};
use getopts::{Matches, Options as Parser, ParsingStyle};

pub const USAGE: &str = "usage: fived [-bdhtTV] [-f file | --inetd file... | --xinetd file] [-l address]... [-p pidfile]";
const CONFIG: &str = "/etc/fived.conf";

/// What fived was called for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    Serve,
    /// It reads the configuration and says this of it.
    Inspect(Inspection),
    /// `--passwd NAME`
    Passwd(String),
    /// `--reload`
    Reload,
    Version,
    Help,
    /// The usage of a program that fived replaces: this text.
    Usage(&'static str),
}

/// What is said of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inspection {
    /// `-t`
    Test,
    /// `-T`
    Table,
    /// `-T -C QUERY`
    Decide(String),
    Fingerprint,
}

/// The command line, read.
#[derive(Debug, Clone)]
pub struct Options {
    pub task: Task,
    pub origin: Origin,
    /// Instead of those of the setting `listen`, if any.
    pub listen: Vec<Listen>,
    pub background: bool,
    pub pidfile: Option<String>,
    /// How often `-d` was given.
    pub debug: usize,
    /// Called by the name xinetd: signals mean what they mean to it.
    pub as_xinetd: bool,
    /// Warnings about options that change nothing.
    pub notes: Vec<String>,
}

impl Options {
    /// Reads the words after the program's name. Err: one line for the user.
    pub fn read(words: &[String]) -> Result<Options, String> {
        let m = parser().parse(words).map_err(|e| format!("{e}\n{USAGE}"))?;
        if let (Some(word), false) = (m.free.first(), m.opt_present("inetd")) {
            return Err(format!("expected only options, found {word:?}\n{USAGE}"));
        }
        let listen = m
            .opt_strs("l")
            .iter()
            .map(|a| Listen::read(a).map_err(|e| format!("-l {a}: {e}")))
            .collect::<Result<_, _>>()?;
        Ok(Options {
            task: task(&m)?,
            origin: origin(&m)?,
            listen,
            background: m.opt_present("b"),
            pidfile: m.opt_str("p"),
            debug: m.opt_count("d"),
            as_xinetd: false,
            notes: Vec::new(),
        })
    }
}

/// Which files are read.
fn origin(m: &Matches) -> Result<Origin, String> {
    // `--inetd` has more words than its own: all that are no options.
    let inetd = m.opt_strs("inetd").into_iter().chain(m.free.iter().cloned()).collect();
    let all = [
        ("-f", Grammar::Fived, m.opt_strs("f")),
        ("--inetd", Grammar::Inetd, inetd),
        ("--xinetd", Grammar::Xinetd, m.opt_strs("xinetd")),
    ];
    let mut given = all.into_iter().filter(|(_, _, paths)| !paths.is_empty());
    let Some((first, grammar, paths)) = given.next() else {
        return Ok(Origin::new(Grammar::Fived, CONFIG));
    };
    match given.next() {
        None => Ok(Origin::of(grammar, paths)),
        Some((second, ..)) => Err(format!(
            "{second}: expected it alone, found it beside {first}; the settings `inetd` and `xinetd` in a file of -f name the others"
        )),
    }
}

fn task(m: &Matches) -> Result<Task, String> {
    Ok(if m.opt_present("h") {
        Task::Help
    } else if m.opt_present("V") {
        Task::Version
    } else if let Some(name) = m.opt_str("passwd") {
        Task::Passwd(name)
    } else if m.opt_present("fingerprint") {
        Task::Inspect(Inspection::Fingerprint)
    } else if m.opt_present("reload") {
        Task::Reload
    } else if let Some(query) = m.opt_str("C") {
        if !m.opt_present("T") {
            return Err(format!("-C {query}: expected -T as well: fived -T -C {query}"));
        }
        Task::Inspect(Inspection::Decide(query))
    } else if m.opt_present("T") {
        Task::Inspect(Inspection::Table)
    } else if m.opt_present("t") {
        Task::Inspect(Inspection::Test)
    } else {
        Task::Serve
    })
}

fn parser() -> Parser {
    let mut p = Parser::new();
    p.parsing_style(ParsingStyle::FloatingFrees);
    p.optopt("f", "config", "read this configuration (default: /etc/fived.conf)", "FILE")
        .optmulti("", "inetd", "serve what these files in the form of inetd.conf(5) say, and the files of these directories, instead of a configuration", "FILE...")
        .optopt("", "xinetd", "serve what this file in the form of xinetd.conf(5) says, instead of a configuration", "FILE")
        .optmulti("l", "listen", "listen on this address instead of those of the setting `listen`; may be repeated; port 0: any free port", "ADDR")
        .optflag("t", "test", "check the configuration, print `configuration OK`, exit")
        .optflag("T", "table", "print the effective table, every default filled in")
        .optopt(
            "C",
            "decide",
            "with -T: print the decision for service=NAME,host=NAME,addr=ADDRESS,user=NAME,tls=yes (-: read queries from standard input, one a line)",
            "QUERY",
        )
        .optflag("b", "background", "run in the background and log to syslog")
        .optopt("p", "pidfile", "write the parent's process id", "FILE")
        .optflagmulti("d", "debug", "log more; given twice, much more")
        .optopt("", "passwd", "ask for a password twice and print its line for `passwords`", "NAME")
        .optflag("", "fingerprint", "print the public key's fingerprint of each certificate")
        .optflag("", "reload", "make the running fived (named by -p, or the systemd unit's) read its configuration again; print its mistakes")
        .optflag("V", "version", "print the version")
        .optflag("h", "help", "print this help");
    p
}

/// The text of `-h`.
pub fn help() -> String {
    parser().usage(USAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &str) -> Result<Options, String> {
        Options::read(&words.split_whitespace().map(String::from).collect::<Vec<_>>())
    }

    #[test]
    fn options_as_the_manual_has_them() {
        let o = read("-bdd -f x -l 127.0.0.1:0 -l [::1]:7 -p y").expect("good");
        assert_eq!(
            (o.background, o.debug, o.origin, o.pidfile.as_deref()),
            (true, 2, Origin::new(Grammar::Fived, "x"), Some("y"))
        );
        assert_eq!(
            o.listen,
            ["127.0.0.1:0", "[::1]:7"].map(|a| Listen::Internet(a.parse().expect("address")))
        );
        assert_eq!(
            read("-T -C service=a").expect("good").task,
            Task::Inspect(Inspection::Decide("service=a".into()))
        );
        assert_eq!(read("").expect("good").origin.to_string(), "/etc/fived.conf");
        let xinetd = read("--xinetd /x").expect("good").origin;
        assert_eq!(xinetd, Origin::new(Grammar::Xinetd, "/x"));
        let inetd = read("-T --inetd /x /y -d /z").expect("good").origin;
        assert_eq!((inetd.grammar, inetd.to_string()), (Grammar::Inetd, "/x /y /z".into()));
        assert!(read("--xinetd /x -f y").unwrap_err().contains("found it beside -f"));
    }

    #[test]
    fn wrong_use_is_said() {
        assert!(read("-C x").unwrap_err().contains("expected -T as well"));
        assert!(read("-l nowhere").unwrap_err().starts_with("-l nowhere: "));
        assert!(read("word").unwrap_err().contains(USAGE));
        assert!(read("-x").unwrap_err().contains(USAGE));
    }
}
