//! Why there is no configuration.

use super::status::{REFUSED, WRONG};
use std::io;

/// See the module.
pub enum NotRead {
    /// Its mistakes, one line each.
    Wrong(Vec<String>),
    /// The system refused something; the configuration itself may be right.
    Refused(String),
}

impl NotRead {
    /// The system refused a file in memory.
    pub fn memory(e: io::Error) -> NotRead {
        NotRead::Refused(format!("memory file: {e}"))
    }

    pub fn status(&self) -> i32 {
        match self {
            NotRead::Wrong(_) => WRONG,
            NotRead::Refused(_) => REFUSED,
        }
    }

    pub fn lines(self) -> Vec<String> {
        match self {
            NotRead::Wrong(mistakes) => mistakes,
            NotRead::Refused(what) => vec![what],
        }
    }
}
