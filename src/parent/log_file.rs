//! Where the log goes.

use crate::log;
use crate::policy::LogType;
use crate::sys::output::Output;

/// Opens the log that `log_type` names; in the background, syslog in place of standard error. A
/// file is always opened again, because logrotate(8) may have renamed the old one. Err: a sentence.
pub fn open(log_type: &LogType, background: bool) -> Result<(), String> {
    const SYSLOG: LogType = LogType::Syslog { facility: LogType::DAEMON, level: LogType::INFO };
    let output = match if background && *log_type == LogType::Stderr { &SYSLOG } else { log_type } {
        LogType::Stderr => Output::stderr(),
        LogType::Syslog { facility, level } => {
            Output::syslog(*facility, *level).map_err(|e| format!("log_type: SYSLOG: {e}"))?
        }
        LogType::File(path) => Output::file(path).map_err(|e| format!("log_type: {path}: {e}"))?,
    };
    log::open(output);
    Ok(())
}
