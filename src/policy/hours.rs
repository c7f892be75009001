//! `access_times`: when a service may be used.

use std::fmt;

/// One span of `access_times`, in minutes since midnight, both ends included. It may go past
/// midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hours {
    pub from: u16,
    pub to: u16,
}

impl Hours {
    /// Reads `HH:MM-HH:MM`. None: it is not of that form.
    pub fn read(word: &str) -> Option<Hours> {
        let minute = |t: &str| {
            let (h, m) = t.split_once(':')?;
            let n = |t: &str| {
                t.parse::<u16>()
                    .ok()
                    .filter(|_| (1..=2).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_digit()))
            };
            let (h, m) = (n(h)?, n(m)?);
            (h < 24 && m < 60 || h == 24 && m == 0).then_some(h * 60 + m)
        };
        let (from, to) = word.split_once('-')?;
        Some(Hours { from: minute(from)?, to: minute(to)? })
    }

    pub fn contains(self, minute: u16) -> bool {
        if self.from <= self.to {
            (self.from..=self.to).contains(&minute)
        } else {
            minute >= self.from || minute <= self.to
        }
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(
            f,
            "{:02}:{:02}-{:02}:{:02}",
            self.from / 60,
            self.from % 60,
            self.to / 60,
            self.to % 60
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_may_go_over_midnight() {
        let night = Hours::read("22:00-6:30").expect("good");
        assert!(
            night.contains(0)
                && night.contains(1320)
                && night.contains(390)
                && !night.contains(391)
        );
        assert_eq!(night.to_string(), "22:00-06:30");
        for bad in ["25:00-1:00", "1:60-2:00", "1-2", "24:01-1:00", "+1:00-2:00", ""] {
            assert_eq!(Hours::read(bad), None, "{bad}");
        }
    }
}
