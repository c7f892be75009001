//! Why a configuration could not be read.

use crate::parent::status;
use std::io;

/// See the module.
pub enum ConfigError {
    /// Its mistakes, one line each.
    Mistakes(Vec<String>),
    /// The system refused something. The configuration itself may be right.
    System(String),
}

impl ConfigError {
    /// The system refused a memory file.
    pub fn memory(e: io::Error) -> ConfigError {
        ConfigError::System(format!("memory file: {e}"))
    }

    /// The exit status of a fived that ends for this.
    pub fn status(&self) -> i32 {
        match self {
            ConfigError::Mistakes(_) => status::USAGE,
            ConfigError::System(_) => status::SYSTEM,
        }
    }

    /// What to print or log, one line each.
    pub fn lines(self) -> Vec<String> {
        match self {
            ConfigError::Mistakes(mistakes) => mistakes,
            ConfigError::System(what) => vec![what],
        }
    }
}
