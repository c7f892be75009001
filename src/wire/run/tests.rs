use super::super::request::{DIALOGUE_MAX, NAME_MAX};
use super::*;
use proptest::prelude::*;

/// What was decoded: data joined, the rest as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Got {
    Banner(Vec<u8>),
    Data(Data, Vec<u8>),
    End,
    Size(Size),
    Terminal,
    Status(Status),
    Broken,
}

/// Decodes pieces of these lengths, taking at most `most` bytes of data at once.
fn decode(from: Sender, bytes: &[u8], cuts: &[usize], most: usize) -> Vec<Got> {
    let mut decoder = Decoder::new(from);
    let (mut got, mut held, mut at): (Vec<Got>, Vec<u8>, usize) = (Vec::new(), Vec::new(), 0);
    for cut in cuts.iter().copied().chain([bytes.len()]) {
        let to = (at + cut).min(bytes.len());
        held.extend_from_slice(&bytes[at..to]);
        at = to;
        loop {
            let (taken, part) = decoder.next(&held);
            assert!(taken <= held.len());
            let mut more = 0;
            match part {
                Part::More => {
                    assert_eq!(taken, held.len());
                    held.clear();
                    break;
                }
                Part::Broken => {
                    got.push(Got::Broken);
                    return got;
                }
                Part::Banner(b) => {
                    assert!(!b.is_empty());
                    more = b.len().min(most);
                    match got.last_mut() {
                        Some(Got::Banner(all)) => all.extend_from_slice(&b[..more]),
                        _ => got.push(Got::Banner(b[..more].to_vec())),
                    }
                }
                Part::Data(data, b) => {
                    assert!(!b.is_empty());
                    more = b.len().min(most);
                    match got.last_mut() {
                        Some(Got::Data(d, all)) if *d == data => all.extend_from_slice(&b[..more]),
                        _ => got.push(Got::Data(data, b[..more].to_vec())),
                    }
                }
                Part::End => got.push(Got::End),
                Part::Size(size) => got.push(Got::Size(size)),
                Part::Terminal => got.push(Got::Terminal),
                Part::Status(status) => got.push(Got::Status(status)),
            }
            decoder.took(more);
            held.drain(..taken + more);
        }
    }
    got
}

fn encode(all: &[Got]) -> Vec<u8> {
    let one = |got: &Got| match got {
        Got::Banner(bytes) => bytes.clone(),
        Got::Data(data, bytes) => [&head(*data, bytes.len())[..], bytes].concat(),
        Got::End => end(),
        Got::Size(s) => size(*s),
        Got::Terminal => terminal(),
        Got::Status(s) => status(*s),
        Got::Broken => vec![9, 0, 0, 0],
    };
    all.iter().flat_map(one).collect()
}

fn whole(from: Sender, bytes: &[u8]) -> Vec<Got> {
    decode(from, bytes, &[], usize::MAX)
}

#[test]
fn records_are_as_the_manual_says() {
    assert_eq!(head(Data::Main, 0x012345), [0, 1, 0x23, 0x45]);
    assert_eq!(head(Data::Errors, 7), [2, 0, 0, 7]);
    assert_eq!(end(), [1, 0, 0, 0]);
    assert_eq!(size(Size { rows: 24, columns: 300 }), [2, 0, 0, 4, 0, 24, 1, 44]);
    assert_eq!(status(Status::Exited(3)), [3, 0, 0, 4, 0, 0, 0, 3]);
    assert_eq!(status(Status::Killed(15)), [3, 0, 0, 4, 0, 0, 1, 15]);
}

#[test]
fn what_a_side_may_not_send_is_broken() {
    let (client, server) = (Sender::Client, Sender::Server);
    let broken = |from, bytes: &[u8]| whole(from, bytes).last() == Some(&Got::Broken);
    for (from, bytes) in [
        (client, &[3, 0, 0, 4, 0, 0, 0, 0][..]),
        (client, &[1, 0, 0, 1]),
        (client, &[2, 0, 0, 5]),
        (client, &[4, 0, 0, 0]),
        (client, &[1, 0, 0, 0, 0, 0, 0, 1]),
        (client, &[1, 0, 0, 0, 1, 0, 0, 0]),
        (server, &[1, 0, 0, 0, 0, 0, 0, 1]),
        // A status before the end of the output, of the wrong length, of no such number, twice.
        (server, &[3, 0, 0, 4, 0, 0, 0, 0]),
        (server, &[1, 0, 0, 0, 3, 0, 0, 3]),
        (server, &[1, 0, 0, 0, 3, 0, 0, 4, 0, 0, 1, 0]),
        (server, &[1, 0, 0, 0, 3, 0, 0, 4, 0, 0, 2, 9]),
        (server, &[1, 0, 0, 0, 3, 0, 0, 4, 0, 0, 0, 0, 2, 0, 0, 0]),
    ] {
        assert!(broken(from, bytes), "{from:?} {bytes:?}");
    }
    // Errors may come after the end of the output, and data of no bytes at any time before it.
    let ends = [Got::End, Got::Data(Data::Errors, b"x".into()), Got::Status(Status::Exited(255))];
    assert_eq!(whole(server, &encode(&ends)), ends);
    assert_eq!(whole(client, &[0, 0, 0, 0, 1, 0, 0, 0]), [Got::End]);
    // Of the server's, one of no bytes that comes first says that there is a terminal.
    assert_eq!(whole(server, &[0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]), [Got::Terminal, Got::End]);
    assert_eq!(whole(server, &[2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]), [Got::End]);
}

#[test]
fn a_banner_comes_before_the_server_s_first_record_alone() {
    let banner = |text: &[u8]| Got::Banner(text.into());
    let records = [Got::Data(Data::Main, b"x".into()), Got::End, Got::Status(Status::Exited(3))];
    for text in [&b"be nice\n"[..], b"\x04", b"\xff\xfe+Go\r\n", &[b'b'; 40_000]] {
        let all = [&[banner(text)], &records[..]].concat();
        assert_eq!(whole(Sender::Server, &encode(&all)), all);
        // The service has a terminal all the same: that is in its first record.
        let all = [&[banner(text), Got::Terminal], &records[..]].concat();
        assert_eq!(whole(Sender::Server, &encode(&all)), all);
        // A client sends none.
        assert_eq!(whole(Sender::Client, &encode(&all)), [Got::Broken]);
    }
    // What has come is known at once: the service may say nothing for long.
    assert_eq!(whole(Sender::Server, b"be"), [banner(b"be")]);
    // Its first byte that may be a kind is one, and what comes after a record is no banner.
    assert_eq!(whole(Sender::Server, b"be\x01nice"), [banner(b"be"), Got::Broken]);
    for first in [&records[..1], &[Got::Terminal], &[Got::Data(Data::Errors, Vec::new())]] {
        let broken = whole(Sender::Server, &[&encode(first)[..], b"nice\n"].concat());
        assert_eq!(broken.last(), Some(&Got::Broken), "{first:?}");
        assert!(!broken.iter().any(|got| matches!(got, Got::Banner(_))), "{broken:?}");
    }
    let kinds: Vec<u8> = (0..=255).filter(|b| is_kind_of_server(*b)).collect();
    assert_eq!(kinds, [0, 1, 2, 3]);
}

#[test]
fn a_terminal_is_asked_for_behind_the_name() {
    let size = Size { rows: 24, columns: 80 };
    let xterm = Terminal::new("xterm-256color", size).expect("a name");
    let text = line("a shell", Some(&xterm));
    assert_eq!(text, b"a shell pty xterm-256color 24 80\r\n");
    let read = |text: &'static [u8]| read_line(text);
    assert_eq!(read_line(&text[..text.len() - 2]), (&b"a shell"[..], Some(xterm)));
    assert_eq!(line("x", None), b"x\r\n");
    for name in [
        &b"shell"[..],
        b"shell pty xterm 24",
        b"shell pty xterm 24 65536",
        b"shell pty xterm +24 80",
        b"shell pty xterm 024 80",
        b"shell pty  24 80",
        b"shell pty x/y 24 80",
        b"shell tty xterm 24 80",
        b"pty xterm 24 80",
        b"",
    ] {
        assert_eq!(read(name), (name, None));
    }
    assert_eq!(Terminal::new(&"x".repeat(TERM_MAX + 1), size), None);
    let long = Terminal::new(&"x".repeat(TERM_MAX), Size { rows: 65535, columns: 65535 });
    assert!(line(&"n".repeat(NAME_MAX), long.as_ref()).len() <= DIALOGUE_MAX + 2);
}

#[test]
fn an_end_is_a_number_of_a_shell() {
    for n in 0..=0xffff {
        if let Some(status) = Status::from_number(n) {
            assert_eq!(status.number(), n);
        }
    }
    let code = |n| Status::from_number(n).map(Status::code);
    assert_eq!(
        [code(0), code(255), code(256), code(256 + 9)],
        [Some(0), Some(255), None, Some(137)]
    );
}

fn any(server: bool) -> impl Strategy<Value = Vec<Got>> {
    let bytes = || proptest::collection::vec(any_byte(), 1..40);
    let client = prop_oneof![
        bytes().prop_map(|b| Got::Data(Data::Main, b)),
        (0u16.., 0u16..).prop_map(|(rows, columns)| Got::Size(Size { rows, columns })),
    ];
    let output = prop_oneof![
        bytes().prop_map(|b| Got::Data(Data::Main, b)),
        bytes().prop_map(|b| Got::Data(Data::Errors, b)),
    ];
    let banner = proptest::collection::vec(4u8.., 0..40).prop_map(move |b| match b.is_empty() {
        false if server => vec![Got::Banner(b)],
        _ => Vec::new(),
    });
    let (one, last) = match server {
        true => (output.boxed(), Just(vec![Got::End, Got::Status(Status::Exited(3))]).boxed()),
        false => (client.boxed(), Just(vec![Got::End]).boxed()),
    };
    (banner, proptest::collection::vec(one, 0..12), last).prop_map(|(a, b, c)| [a, b, c].concat())
}

fn any_byte() -> impl Strategy<Value = u8> {
    0u8..
}

/// Neighbours of the same data are one.
fn joined(all: Vec<Got>) -> Vec<Got> {
    let mut out: Vec<Got> = Vec::new();
    for got in all {
        match (out.last_mut(), got) {
            (Some(Got::Data(d, a)), Got::Data(e, b)) if *d == e => a.extend(b),
            (_, got) => out.push(got),
        }
    }
    out
}

proptest! {
    #[test]
    fn splitting_changes_nothing(
        (server, all) in proptest::bool::ANY.prop_flat_map(|s| (Just(s), any(s))),
        cuts in proptest::collection::vec(0usize..9, 0..60),
        most in 1usize..30,
    ) {
        let from = if server { Sender::Server } else { Sender::Client };
        prop_assert_eq!(decode(from, &encode(&all), &cuts, most), joined(all));
    }

    #[test]
    fn any_bytes_are_decoded_alike_however_they_are_split(
        server: bool,
        bytes in proptest::collection::vec(prop_oneof![0u8..5, any_byte()], 0..80),
        cuts in proptest::collection::vec(0usize..9, 0..40),
    ) {
        let from = if server { Sender::Server } else { Sender::Client };
        prop_assert_eq!(decode(from, &bytes, &cuts, 3), whole(from, &bytes));
    }

    #[test]
    fn lines_of_any_bytes_are_read(text in proptest::collection::vec(any_byte(), 0..120)) {
        let (name, terminal) = read_line(&text);
        if let Some(terminal) = terminal {
            let name = String::from_utf8_lossy(name).into_owned();
            if name.as_bytes() == read_line(&text).0 {
                prop_assert_eq!(line(&name, Some(&terminal)), [&text[..], b"\r\n"].concat());
            }
        } else {
            prop_assert_eq!(name, &text[..]);
        }
    }
}
