//! Where the log goes.

use crate::log;
use crate::policy::{HostId, LogType, Service, Stderr, Table};
use crate::sys::output::{self, Output};

/// Why the log that `log_type` names cannot be opened, if it is a file: a sentence. It is not made.
pub fn check(table: &Table) -> Option<String> {
    let LogType::File(path) = &table.settings.log_type else { return None };
    output::may_append(path).err().map(|e| wrong(table, path, &e))
}

/// Opens the log that `log_type` names; in the background, syslog in place of standard error. A
/// file is always opened again, because logrotate(8) may have renamed the old one. Err: a sentence.
pub fn open(table: &Table, background: bool) -> Result<(), String> {
    const SYSLOG: LogType = LogType::Syslog { facility: LogType::DAEMON, level: LogType::INFO };
    let log_type = &table.settings.log_type;
    let has_it = |s: &Service| s.attributes.stderr == Stderr::Log;
    let wrong = |what: &str, e: std::io::Error| wrong(table, what, &e);
    let output = match if background && *log_type == LogType::Stderr { &SYSLOG } else { log_type } {
        LogType::Stderr => Output::stderr(table.services().iter().any(has_it)),
        LogType::Syslog { facility, level } => Output::syslog(*facility, *level),
        LogType::File(path) => Output::file(path).map_err(|e| wrong(path, e))?,
    };
    log::open(output);
    Ok(())
}

fn wrong(table: &Table, what: &str, e: &std::io::Error) -> String {
    format!("{}: log_type: {what}: {e}", table.place(HostId::DEFAULT, "log_type"))
}
