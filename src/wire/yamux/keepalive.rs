//! Is the peer alive, and how far away is it? Pings are sent after silence, and measure the round
//! trip, on which the sizes of windows depend.

use std::time::Duration;

/// A session ends after this many intervals of silence.
pub const SILENT_INTERVALS_MAX: u32 = 3;
/// How long a measured round trip is used.
const ROUND_TRIP_VALID: Duration = Duration::from_secs(10);
/// A longer round trip counts as this one: queues delay pings.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(1);

/// What has to be done now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    Ping(u32),
    PeerDead,
}

#[derive(Debug)]
pub(super) struct Keepalive {
    /// Zero: silence does not matter.
    interval: Duration,
    last_alive: Duration,
    /// How many intervals of the present silence have passed, each with a ping.
    pings: u32,
    next: u32,
    /// The last ping, until it is answered.
    probe: Option<(u32, Duration)>,
    /// The last round trip, and when it was measured.
    round_trip: Option<(Duration, Duration)>,
}

impl Keepalive {
    pub fn new(interval: Duration, now: Duration) -> Self {
        Keepalive { interval, last_alive: now, pings: 0, next: 0, probe: None, round_trip: None }
    }

    /// Something has come from the peer.
    pub fn peer_is_alive(&mut self, now: Duration) {
        self.last_alive = self.last_alive.max(now);
        self.pings = 0;
    }

    pub fn deadline(&self) -> Option<Duration> {
        let quiet = self.interval.saturating_mul(self.pings + 1);
        (!self.interval.is_zero()).then(|| self.last_alive.saturating_add(quiet))
    }

    pub fn tick(&mut self, now: Duration) -> Due {
        if self.deadline().is_none_or(|d| now < d) {
            return Due::Nothing;
        }
        let silence = now.saturating_sub(self.last_alive);
        while self.pings < SILENT_INTERVALS_MAX
            && silence >= self.interval.saturating_mul(self.pings + 1)
        {
            self.pings += 1;
        }
        if self.pings >= SILENT_INTERVALS_MAX {
            self.pings = SILENT_INTERVALS_MAX - 1;
            return Due::PeerDead;
        }
        Due::Ping(self.ping(now))
    }

    /// The value of a ping to be sent now, because data flows and the round trip is not known.
    pub fn measure(&mut self, now: Duration) -> Option<u32> {
        let waits = |since: Duration| now.saturating_sub(since) < ROUND_TRIP_VALID;
        let known = self.round_trip.is_some_and(|(_, at)| waits(at));
        let asked = self.probe.is_some_and(|(_, at)| waits(at));
        (!known && !asked).then(|| self.ping(now))
    }

    /// Takes the answer to a ping. One that was not asked for is ignored.
    pub fn answered(&mut self, value: u32, now: Duration) {
        if let Some((_, sent)) = self.probe.take_if(|(asked, _)| *asked == value) {
            self.round_trip = Some((now.saturating_sub(sent), now));
        }
    }

    /// The last round trip, at most one second; zero if none is known.
    pub fn round_trip(&self) -> Duration {
        self.round_trip.map_or(Duration::ZERO, |(t, _)| t.min(ROUND_TRIP_MAX))
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
        assert_eq!(keepalive.tick(s(190)), Due::PeerDead);
    }

    #[test]
    fn any_sign_of_life_begins_again() {
        let mut keepalive = Keepalive::new(s(30), s(0));
        assert_eq!(keepalive.tick(s(60)), Due::Ping(1));
        keepalive.peer_is_alive(s(80));
        assert_eq!(keepalive.deadline(), Some(s(110)));
        assert_eq!(keepalive.tick(s(1000)), Due::PeerDead);
        assert_eq!(Keepalive::new(s(0), s(0)).deadline(), None);
        assert_eq!(Keepalive::new(Duration::MAX, s(5)).deadline(), Some(Duration::MAX));
    }

    #[test]
    fn round_trips_are_those_of_our_own_pings() {
        let mut keepalive = Keepalive::new(s(30), s(0));
        assert_eq!(keepalive.measure(s(1)), Some(1));
        assert_eq!(keepalive.measure(s(2)), None);
        keepalive.answered(7, s(2));
        assert_eq!(keepalive.round_trip(), s(0));
        keepalive.answered(1, Duration::from_millis(1200));
        assert_eq!(keepalive.round_trip(), Duration::from_millis(200));
        keepalive.answered(1, s(9));
        assert_eq!(keepalive.round_trip(), Duration::from_millis(200));
        assert_eq!(keepalive.measure(s(9)), None);
        assert_eq!(keepalive.measure(s(12)), Some(2));
        assert_eq!(keepalive.measure(s(23)), Some(3));
        keepalive.answered(3, s(60));
        assert_eq!(keepalive.round_trip(), s(1));
    }
}
