//! The header of a load balancer, of any bytes: it has a bound, more bytes never change what was decided, and the addresses of one
//! survive being written again.
#![no_main]

use fived::wire::proxy::{self, READ_MAX, Read};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let all = proxy::read(bytes);
    for n in [1, 6, 12, 13, 16, 52, 107].into_iter().filter(|n| *n < bytes.len()) {
        let part = proxy::read(&bytes[..n]);
        assert!(part == Read::More || part == all);
    }
    match all {
        Read::More => assert!(bytes.len() < READ_MAX),
        Read::Wrong => {}
        Read::Header { addresses, length } => {
            assert!(length <= bytes.len() && length <= READ_MAX);
            let known = proxy::Client { addresses: addresses.map(|a| (a.client, a.local)), host: "", tls: None, user: None, session: 0 };
            for version in [proxy::Version::V1, proxy::Version::V2] {
                let again = proxy::read(&proxy::header(version, &known));
                assert!(matches!(again, Read::Header { addresses: a, .. } if a == addresses));
            }
        }
    }
});
