//! What RFC 864 and RFC 868 say of the answers of `chargen` and `time`.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds from 1900, where RFC 868 begins to count, to 1970.
const SINCE_1900: u64 = 2_208_988_800;
/// RFC 864: a line's characters, and how many there are to choose from.
pub const LINE: usize = 72;
pub const PRINTABLE: u8 = b'~' - b' ' + 1;

/// RFC 868: as the RFC says, the 32 bits overflow in 2036.
pub fn time() -> u32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    (now + SINCE_1900) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_as_rfc_868_counts() {
        // 2026 is in the first era: more than 3.9e9 seconds after 1900.
        assert!(time() > 3_900_000_000);
    }
}
