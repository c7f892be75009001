//! What time it is, and how busy the system is.

use std::time::{Duration, SystemTime};

/// The time since some moment in the past. It never goes back, and stands still while the computer
/// is suspended (CLOCK_MONOTONIC).
pub fn monotonic() -> Duration {
    read(libc::CLOCK_MONOTONIC)
}

/// The wall clock's time.
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// Minutes since midnight, local time.
pub fn minute_of_day() -> u16 {
    let now = read(libc::CLOCK_REALTIME).as_secs() as libc::time_t;
    // SAFETY: all zeros is a valid tm; localtime_r writes it and keeps nothing.
    let local = unsafe {
        let mut tm: libc::tm = std::mem::zeroed();
        libc::localtime_r(&now, &mut tm);
        tm
    };
    (local.tm_hour * 60 + local.tm_min) as u16
}

/// Reads the time zone now, while its file can be opened; later calls of [`minute_of_day`] open
/// nothing.
pub fn load_zone() {
    minute_of_day();
}

/// The load average of the last minute; 0 if the system does not say.
pub fn load_average() -> f64 {
    // SAFETY: all zeros is a valid sysinfo, which the call fills.
    let (answer, info) = unsafe {
        let mut info: libc::sysinfo = std::mem::zeroed();
        (libc::sysinfo(&mut info), info)
    };
    if answer < 0 {
        return 0.0;
    }
    // sysinfo(2): fixed point with 16 fractional bits (SI_LOAD_SHIFT).
    info.loads[0] as f64 / 65536.0
}

/// What the wall clock shows at a monotonic moment, past or future, in UTC (RFC 3339):
/// `2026-11-24T05:00:00Z`.
pub fn stamp(moment: Duration, now: Duration) -> String {
    let past = wall().checked_sub(now.saturating_sub(moment));
    let then = past
        .and_then(|t| t.checked_add(moment.saturating_sub(now)))
        .unwrap_or(SystemTime::UNIX_EPOCH);
    let seconds = then.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    format_time(c"%Y-%m-%dT%H:%M:%SZ", seconds, libc::gmtime_r)
}

/// Now, UTC (RFC 3339), with milliseconds: `2026-11-24T05:00:00.123Z`.
pub fn now() -> String {
    let since = wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!(
        "{}.{:03}Z",
        format_time(c"%Y-%m-%dT%H:%M:%S", since.as_secs(), libc::gmtime_r),
        since.subsec_millis()
    )
}

/// The day of a moment, in seconds since 1970, UTC: `2026-11-24`.
pub fn date(seconds: u64) -> String {
    format_time(c"%Y-%m-%d", seconds, libc::gmtime_r)
}

/// The local time as RFC 867's servers send it: `Tue Nov 24 05:00:00 2026`.
pub fn daytime() -> String {
    let seconds = wall().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    format_time(c"%a %b %e %H:%M:%S %Y", seconds, libc::localtime_r)
}

/// Now as 14 digits, `YYYYMMDDHHMMSS`, local time or UTC.
pub fn digits(utc: bool) -> String {
    let seconds = wall().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    format_time(c"%Y%m%d%H%M%S", seconds, if utc { libc::gmtime_r } else { libc::localtime_r })
}

type Broken = unsafe extern "C" fn(*const libc::time_t, *mut libc::tm) -> *mut libc::tm;

fn format_time(format: &std::ffi::CStr, seconds: u64, broken: Broken) -> String {
    let time = libc::time_t::try_from(seconds).unwrap_or(libc::time_t::MAX);
    let mut out = [0u8; 64];
    // SAFETY: a tm of zeros is valid; both functions read `time` and fill `tm`; strftime writes at
    // most the buffer's length.
    let n = unsafe {
        let mut tm: libc::tm = std::mem::zeroed();
        broken(&time, &mut tm);
        libc::strftime(out.as_mut_ptr().cast(), out.len(), format.as_ptr(), &tm)
    };
    String::from_utf8_lossy(&out[..n]).into_owned()
}

fn read(clock: libc::clockid_t) -> Duration {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes one timespec; both clocks exist on every Linux.
    unsafe { libc::clock_gettime(clock, &mut t) };
    Duration::new(u64::try_from(t.tv_sec).unwrap_or(0), u32::try_from(t.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_run() {
        let a = monotonic();
        assert!(monotonic() >= a && minute_of_day() < 1440 && load_average() >= 0.0);
        assert!(wall() > SystemTime::UNIX_EPOCH);
    }
}
