//! `fived --reload`: asks the running fived to reload, waits, and says what came of it (fived(8)).

use super::by_name;
use super::reload::RELOADED;
use super::status::{SYSTEM, USAGE, print_error};
use crate::sys::outcome::Question;
use crate::sys::process;
use std::process::Command;
use std::time::Duration;

/// The unit whose main process is asked where neither -p nor MAINPID (systemd.exec(5)) says which.
const UNIT: &str = "fived.service";
/// How long an answer is waited for before the signal is sent again: one that comes while another
/// is pending is lost.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
const TRIES: u32 = 3;

/// Returns the exit status: 0 reloaded, 1 refused or nobody to ask, 111 no answer.
pub fn reload(pidfile: Option<&str>) -> i32 {
    match asked(pidfile) {
        Ok(answer) => {
            let mut lines = answer.lines();
            let good = lines.next() == Some(RELOADED);
            let mark = if good { "warning: " } else { "" };
            lines.for_each(|l| print_error(&format!("{mark}{l}")));
            if !good {
                let still = "fived still serves the configuration that it had";
                print_error(&format!("fived: the reload was refused; {still}"));
            }
            i32::from(!good) * USAGE
        }
        Err((status, text)) => {
            print_error(&format!("fived: --reload: {text}"));
            status
        }
    }
}

fn asked(pidfile: Option<&str>) -> Result<String, (i32, String)> {
    let (pid, from) = whom(pidfile).map_err(|e| (USAGE, e))?;
    // A pidfile that outlived its fived may name any process.
    if let Some(name) = process::name_of(pid).filter(|n| !by_name::is_name(n)) {
        return Err((USAGE, format!("{from}: process {pid}: expected fived, found {name:?}")));
    }
    let question = Question::new().map_err(|e| (SYSTEM, e.to_string()))?;
    for _ in 0..TRIES {
        question.ask(pid).map_err(|e| (USAGE, format!("{from}: process {pid}: {e}")))?;
        if let Some(answer) =
            question.answer(pid, ANSWER_TIMEOUT).map_err(|e| (SYSTEM, e.to_string()))?
        {
            return Ok(answer);
        }
    }
    Err((SYSTEM, format!("process {pid} did not answer; read its log")))
}

/// The parent's process id, and who says so.
fn whom(pidfile: Option<&str>) -> Result<(i32, String), String> {
    let (text, from) = match (pidfile, std::env::var("MAINPID")) {
        (Some(path), _) => {
            (std::fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?, path.to_string())
        }
        (None, Ok(pid)) => (pid, "MAINPID".into()),
        (None, Err(_)) => {
            let show = Command::new("systemctl")
                .args(["show", "--property=MainPID", "--value", UNIT])
                .output();
            let out =
                show.map_err(|e| format!("systemctl: {e}; name the process with -p PIDFILE"))?;
            (String::from_utf8_lossy(&out.stdout).into_owned(), UNIT.into())
        }
    };
    // 0 is a unit that does not run; 1 and below are not one process.
    let pid = text.trim().parse().ok().filter(|&pid: &i32| pid > 0);
    pid.map(|pid| (pid, from.clone())).ok_or_else(|| {
        format!("{from}: expected the number of a running process, found {:?}", text.trim())
    })
}
