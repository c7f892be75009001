//! `fived --reload`: asks the running fived to reload, waits, and says what came of it (fived(8)).

use crate::parent::options::inetd;
use crate::parent::reload::{ENDS, RELOADED};
use crate::parent::status::{SYSTEM, USAGE, print_error};
use crate::sys::outcome::{Question, REPEAT, Said};
use crate::sys::process;
use std::process::Command;
use std::time::{Duration, Instant};

/// The unit whose main process is asked where neither -p nor MAINPID (systemd.exec(5)) says which.
const UNIT: &str = "fived.service";
/// How long the outcome is waited for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// After the acknowledgement: how often this looks whether fived is still there.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Returns the exit status: 0 reloaded, 1 refused or nobody to ask, 111 no answer.
pub fn reload(pidfile: Option<&str>) -> i32 {
    match asked(pidfile) {
        Ok(answer) => {
            let mut lines = answer.lines();
            let outcome = lines.next().unwrap_or_default();
            let (mark, status) = if outcome == RELOADED { ("warning: ", 0) } else { ("", USAGE) };
            lines.for_each(|l| print_error(&format!("{mark}{l}")));
            match outcome {
                RELOADED => {}
                ENDS => print_error(
                    "fived: there was no reload: fived is being ended, and takes no more clients",
                ),
                _ => print_error(
                    "fived: the reload was refused; fived still serves the configuration that it had",
                ),
            }
            status
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
    if let Some(name) = process::name_of(pid).filter(|n| !inetd::is_name(n)) {
        return Err((USAGE, format!("{from}: process {pid}: expected fived, found {name:?}")));
    }
    let question = Question::new().map_err(|e| (SYSTEM, e.to_string()))?;
    let (end, mut noted) = (Instant::now() + ANSWER_TIMEOUT, false);
    while Instant::now() < end {
        if !noted {
            question.ask(pid).map_err(|e| (USAGE, format!("{from}: process {pid}: {e}")))?;
        }
        // Before the socket is read: what it said before its end is there by then.
        let gone = !question.reaches(pid);
        let time = if noted { LOOK_AGAIN } else { REPEAT };
        match question.answer(pid, time).map_err(|e| (SYSTEM, e.to_string()))? {
            Some(Said::Outcome(answer)) => return Ok(answer),
            Some(Said::Noted) => noted = true,
            None if gone => {
                return Err((SYSTEM, format!("process {pid} has ended without an answer")));
            }
            None => {}
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
    pid.map(|pid| (pid, from.clone())).ok_or_else(|| match text.trim() {
        "" | "0" if from == UNIT => {
            format!("{UNIT} does not run; name the process with -p PIDFILE")
        }
        text => format!("{from}: expected the number of a running process, found {text:?}"),
    })
}
