//! Rows that another inetd reads in another way, or that can be read in two.

use super::super::super::users::UserSpec;
use super::InetdReader;
use super::tests::{Computer, read};

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

#[test]
fn a_colon_ends_the_users_name_before_a_dot_does() {
    for (word, user, group) in [
        ("x.y:g", "x.y", Some("g")),
        ("x.y:g.h", "x.y", Some("g.h")),
        ("x.y:", "x.y", None),
        ("u.g", "u", Some("g")),
        ("u:g/class", "u", Some("g")),
        ("u", "u", None),
    ] {
        let mut reader = InetdReader::new(&[]);
        reader.file("f", format!("5 stream tcp nowait {word} /x").as_bytes(), &mut Computer);
        let (rows, _) = reader.finish();
        let named = UserSpec::Named { user: user.into(), group: group.map(Into::into) };
        assert_eq!(rows[0].2.columns.user, named, "{word}");
    }
}

/// inetd answers an empty datagram; a forged one would have it flood somebody else.
#[test]
fn who_has_services_of_datagrams_is_told_how_they_differ() {
    let (_, warnings) = read(
        "time dgram udp wait root internal\necho dgram udp wait root internal\ntime stream tcp nowait root internal\n",
    );
    let what = "no answer is larger than the datagram that asks for it: an empty one gets none";
    assert_eq!(warnings, [format!("f:1: time: {what}")]);
}
