//! Trials: tests whose size can be chosen. `make test` runs them small, `make trials` in full.
//!
//! `FIVED_TRIAL_SIZE` is `full`, or a number that every trial of the run takes as its size. Each
//! trial is a row of README.md's table and of the Makefile's list, which tests/manual.rs compares.

use std::fmt::Display;

/// The size of the trial `name` in this run; what it counts is the trial's own matter.
#[track_caller]
pub fn trial_size(name: &str, small: usize, full: usize) -> usize {
    match std::env::var("FIVED_TRIAL_SIZE").ok().as_deref() {
        None | Some("") => small,
        Some("full") => full,
        Some(n) => match n.parse() {
            Ok(n @ 1..) => n,
            _ => panic!("{name}: FIVED_TRIAL_SIZE: expected full or a number, found {n:?}"),
        },
    }
}

/// What has come of it, in one line. Without `--nocapture` nobody sees it.
pub fn trial(name: &str, figure: impl Display) {
    println!("trial: {name}: {figure}");
}
