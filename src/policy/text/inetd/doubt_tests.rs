//! Rows that another inetd reads in another way, or that can be read in two.

use super::tests::read;

/// To the inetd of GNU it is both, to the BSDs IPv6.
#[test]
fn who_writes_tcp6_alone_is_told_what_it_means() {
    let (_, warnings) = read(
        "5 stream tcp6 nowait root /x\n6 dgram udp6 wait root /x\n7 stream tcp6only nowait root /x\n\
         [::1]:8 stream tcp6 nowait root /x\n9 stream tcp6 nowait root /x\n9 stream tcp4 nowait root /x\n",
    );
    let what = |n: usize, both: &str| {
        format!(
            "f:{n}: {}6: IPv6 alone, as on the BSDs; under the inetd of GNU it is IPv4 too, which is {both} here",
            &both[..3]
        )
    };
    assert_eq!(warnings, [what(1, "tcp46"), what(2, "udp46")]);
}
