//! How often a process of fived's own was started lately. One that ends again and again is started
//! only once in [`PAUSE`], so that a fault of fived does not become a fork bomb.

use std::time::Duration;

/// So many starts within [`WINDOW`], and the next waits for [`PAUSE`].
pub const STARTS: usize = 5;
pub const WINDOW: Duration = Duration::from_secs(10);
pub const PAUSE: Duration = Duration::from_secs(1);

/// When it was started.
#[derive(Debug, Default)]
pub struct StartLimit(Vec<Duration>);

impl StartLimit {
    /// Was it started too often to be started again now?
    pub fn too_many(&mut self, now: Duration) -> bool {
        self.0.retain(|&s| s + WINDOW > now);
        self.0.len() >= STARTS
    }

    /// It is started.
    pub fn add(&mut self, now: Duration) {
        self.0.push(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_at_once_and_then_one_in_a_while() {
        let (mut starts, s) = (StartLimit::default(), Duration::from_secs);
        for _ in 0..STARTS {
            assert!(!starts.too_many(s(100)));
            starts.add(s(100));
        }
        assert!(starts.too_many(s(100)) && starts.too_many(s(109)) && !starts.too_many(s(110)));
    }
}
