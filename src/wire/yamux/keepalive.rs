//! Is the peer there, and how far away? Pings against silence, and the round trip that windows are
//! measured by.

use std::time::Duration;

/// So many intervals of silence end a session.
pub const SILENCES: u32 = 3;
/// A round trip that was measured counts for so long.
const FRESH: Duration = Duration::from_secs(10);
/// No round trip counts for more: queues make pings slow.
const LONGEST: Duration = Duration::from_secs(1);

/// What silence asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    Ping(u32),
    Dead,
}

#[derive(Debug)]
pub(super) struct Keepalive {
    /// Zero: silence is no matter.
    interval: Duration,
    heard: Duration,
    /// Intervals of the present silence that were answered with a ping.
    pings: u32,
    next: u32,
    /// The last ping that was sent, until it is answered.
    probe: Option<(u32, Duration)>,
    /// The last round trip, and when it was measured.
    trip: Option<(Duration, Duration)>,
}

impl Keepalive {
    pub fn new(interval: Duration, now: Duration) -> Self {
        Keepalive { interval, heard: now, pings: 0, next: 0, probe: None, trip: None }
    }

    /// A sign of life.
    pub fn heard(&mut self, now: Duration) {
        self.heard = self.heard.max(now);
        self.pings = 0;
    }

    pub fn deadline(&self) -> Option<Duration> {
        let quiet = self.interval.saturating_mul(self.pings + 1);
        (!self.interval.is_zero()).then(|| self.heard.saturating_add(quiet))
    }

    pub fn tick(&mut self, now: Duration) -> Due {
        if self.deadline().is_none_or(|d| now < d) {
            return Due::Nothing;
        }
        let silence = now.saturating_sub(self.heard);
        while self.pings < SILENCES && silence >= self.interval.saturating_mul(self.pings + 1) {
            self.pings += 1;
        }
        if self.pings >= SILENCES {
            self.pings = SILENCES - 1;
            return Due::Dead;
        }
        Due::Ping(self.ping(now))
    }

    /// The value of a ping that is worth sending now because data flows and the round trip is not
    /// known.
    pub fn measure(&mut self, now: Duration) -> Option<u32> {
        let waits = |since: Duration| now.saturating_sub(since) < FRESH;
        let known = self.trip.is_some_and(|(_, at)| waits(at));
        let asked = self.probe.is_some_and(|(_, at)| waits(at));
        (!known && !asked).then(|| self.ping(now))
    }

    /// An answer that nobody waits for says nothing.
    pub fn answered(&mut self, value: u32, now: Duration) {
        if let Some((_, sent)) = self.probe.take_if(|(asked, _)| *asked == value) {
            self.trip = Some((now.saturating_sub(sent), now));
        }
    }

    /// The last round trip, at most a second; zero as long as none is known.
    pub fn trip(&self) -> Duration {
        self.trip.map_or(Duration::ZERO, |(t, _)| t.min(LONGEST))
    }

    /// The value of a ping that is sent now.
    pub fn ping(&mut self, now: Duration) -> u32 {
        self.next = self.next.wrapping_add(1);
        self.probe = Some((self.next, now));
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn two_pings_and_then_the_end() {
        let mut keepalive = Keepalive::new(s(30), s(100));
        assert_eq!(keepalive.tick(s(129)), Due::Nothing);
        assert_eq!(keepalive.deadline(), Some(s(130)));
        assert_eq!(keepalive.tick(s(130)), Due::Ping(1));
        assert_eq!(keepalive.tick(s(131)), Due::Nothing);
        assert_eq!(keepalive.tick(s(160)), Due::Ping(2));
        assert_eq!(keepalive.deadline(), Some(s(190)));
        assert_eq!(keepalive.tick(s(190)), Due::Dead);
    }

    #[test]
    fn any_sign_of_life_begins_again() {
        let mut keepalive = Keepalive::new(s(30), s(0));
        assert_eq!(keepalive.tick(s(60)), Due::Ping(1));
        keepalive.heard(s(80));
        assert_eq!(keepalive.deadline(), Some(s(110)));
        assert_eq!(keepalive.tick(s(1000)), Due::Dead);
        assert_eq!(Keepalive::new(s(0), s(0)).deadline(), None);
        assert_eq!(Keepalive::new(Duration::MAX, s(5)).deadline(), Some(Duration::MAX));
    }

    #[test]
    fn round_trips_are_those_of_our_own_pings() {
        let mut keepalive = Keepalive::new(s(30), s(0));
        assert_eq!(keepalive.measure(s(1)), Some(1));
        assert_eq!(keepalive.measure(s(2)), None);
        keepalive.answered(7, s(2));
        assert_eq!(keepalive.trip(), s(0));
        keepalive.answered(1, Duration::from_millis(1200));
        assert_eq!(keepalive.trip(), Duration::from_millis(200));
        keepalive.answered(1, s(9));
        assert_eq!(keepalive.trip(), Duration::from_millis(200));
        assert_eq!(keepalive.measure(s(9)), None);
        assert_eq!(keepalive.measure(s(12)), Some(2));
        assert_eq!(keepalive.measure(s(23)), Some(3));
        keepalive.answered(3, s(60));
        assert_eq!(keepalive.trip(), s(1));
    }
}
