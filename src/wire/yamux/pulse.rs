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
pub(super) enum Beat {
    Nothing,
    Ping(u32),
    Dead,
}

#[derive(Debug)]
pub(super) struct Pulse {
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

impl Pulse {
    pub fn new(interval: Duration, now: Duration) -> Self {
        Pulse { interval, heard: now, pings: 0, next: 0, probe: None, trip: None }
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

    pub fn tick(&mut self, now: Duration) -> Beat {
        if self.deadline().is_none_or(|d| now < d) {
            return Beat::Nothing;
        }
        let silence = now.saturating_sub(self.heard);
        while self.pings < SILENCES && silence >= self.interval.saturating_mul(self.pings + 1) {
            self.pings += 1;
        }
        if self.pings >= SILENCES {
            self.pings = SILENCES - 1;
            return Beat::Dead;
        }
        Beat::Ping(self.ping(now))
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
        let mut pulse = Pulse::new(s(30), s(100));
        assert_eq!(pulse.tick(s(129)), Beat::Nothing);
        assert_eq!(pulse.deadline(), Some(s(130)));
        assert_eq!(pulse.tick(s(130)), Beat::Ping(1));
        assert_eq!(pulse.tick(s(131)), Beat::Nothing);
        assert_eq!(pulse.tick(s(160)), Beat::Ping(2));
        assert_eq!(pulse.deadline(), Some(s(190)));
        assert_eq!(pulse.tick(s(190)), Beat::Dead);
    }

    #[test]
    fn any_sign_of_life_begins_again() {
        let mut pulse = Pulse::new(s(30), s(0));
        assert_eq!(pulse.tick(s(60)), Beat::Ping(1));
        pulse.heard(s(80));
        assert_eq!(pulse.deadline(), Some(s(110)));
        assert_eq!(pulse.tick(s(1000)), Beat::Dead);
        assert_eq!(Pulse::new(s(0), s(0)).deadline(), None);
        assert_eq!(Pulse::new(Duration::MAX, s(5)).deadline(), Some(Duration::MAX));
    }

    #[test]
    fn round_trips_are_those_of_our_own_pings() {
        let mut pulse = Pulse::new(s(30), s(0));
        assert_eq!(pulse.measure(s(1)), Some(1));
        assert_eq!(pulse.measure(s(2)), None);
        pulse.answered(7, s(2));
        assert_eq!(pulse.trip(), s(0));
        pulse.answered(1, Duration::from_millis(1200));
        assert_eq!(pulse.trip(), Duration::from_millis(200));
        pulse.answered(1, s(9));
        assert_eq!(pulse.trip(), Duration::from_millis(200));
        assert_eq!(pulse.measure(s(9)), None);
        assert_eq!(pulse.measure(s(12)), Some(2));
        assert_eq!(pulse.measure(s(23)), Some(3));
        pulse.answered(3, s(60));
        assert_eq!(pulse.trip(), s(1));
    }
}
