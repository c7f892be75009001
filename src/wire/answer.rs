//! What a server answers to a request, as a client reads it: lines, split anywhere, and then the
//! service's own bytes.

use super::line::{Fed, Line};
use super::reply::{self, Host};

/// The most bytes of a line of an answer.
pub const ANSWER_MAX: usize = 512;

/// What the bytes say.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The answer is not complete.
    More,
    /// `+`: what follows comes from the service.
    Accepted,
    /// `-`, and the text after it. What follows explains it (a banner).
    Refused(String),
    /// There is no such virtual host.
    NoHost,
    /// The server does not know the word RUN. Nothing was done for what follows it.
    NoRun,
    /// No tcpmux server sends this; the line, or its beginning.
    Unexpected(String),
}

/// What is expected next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// `+ Success`, of HOST.
    Success,
    /// `Which VHOST? Host NAME selected`
    Host,
    /// `+ Success`, of RUN.
    Run,
    /// The line of RFC 1078.
    Reply,
    /// `+ Success`, of OFFER.
    OfferSuccess,
    /// `Offering NAME`
    Offering,
    /// Nothing: the answer is complete.
    Done,
}

/// An answer that is being read.
#[derive(Debug)]
pub struct AnswerReader {
    step: Step,
    /// What follows the answer to HOST.
    then: Step,
    line: Line,
}

impl AnswerReader {
    /// The answer to a request, after HOST or not, for HELP or a service.
    pub fn new(host: bool, help: bool) -> AnswerReader {
        // HELP's answer has no reply line: the names follow at once.
        AnswerReader::of(host, if help { Step::Done } else { Step::Reply })
    }

    /// The answer to HOST alone.
    pub fn to_host() -> AnswerReader {
        AnswerReader::of(true, Step::Done)
    }

    /// The answer to RUN and a service's name, after HOST or not.
    pub fn to_run(host: bool) -> AnswerReader {
        AnswerReader::of(host, Step::Run)
    }

    /// The answer to OFFER and a service's name, after HOST or not.
    pub fn offer(host: bool) -> AnswerReader {
        AnswerReader::of(host, Step::OfferSuccess)
    }

    fn of(host: bool, then: Step) -> AnswerReader {
        let step = if host { Step::Success } else { then };
        AnswerReader { step, then, line: Line::new(ANSWER_MAX) }
    }

    /// Takes what has come; returns how many bytes belong to the answer. To be called again with
    /// more bytes while it returns `More`.
    pub fn feed(&mut self, bytes: &[u8]) -> (usize, Outcome) {
        let mut at = 0;
        loop {
            if self.step == Step::Done {
                return (at, Outcome::Accepted);
            }
            let (text, taken) = match self.line.feed(&bytes[at..]) {
                Fed::More => return (bytes.len(), Outcome::More),
                Fed::TooLong => return (at, Outcome::Unexpected(words(&bytes[at..]))),
                Fed::Line { text, taken } => (text.to_vec(), taken),
            };
            at += taken;
            match (self.step, text.strip_prefix(reply::REFUSED)) {
                (Step::Success, None) if reply::is(&text, reply::SUCCESS) => self.step = Step::Host,
                (Step::Host, _) => match reply::read_host(&text) {
                    Some(Host::NoSuchHost) => return (at, Outcome::NoHost),
                    Some(Host::Selected) => self.step = self.then,
                    None => return (at, Outcome::Unexpected(words(&text))),
                },
                (Step::Run, None) if reply::is(&text, reply::SUCCESS) => self.step = Step::Reply,
                (Step::Run, Some(_)) if reply::is(&text, reply::NOT_AVAILABLE) => {
                    return (at, Outcome::NoRun);
                }
                (Step::Reply, None) if text.starts_with(reply::ACCEPTED) => self.step = Step::Done,
                (Step::OfferSuccess, None) if reply::is(&text, reply::SUCCESS) => {
                    self.step = Step::Offering;
                }
                (Step::Offering, None) if reply::is_offering(&text) => self.step = Step::Done,
                (
                    Step::Success | Step::Run | Step::Reply | Step::OfferSuccess | Step::Offering,
                    Some(why),
                ) => {
                    return (at, Outcome::Refused(words(why)));
                }
                _ => return (at, Outcome::Unexpected(words(&text))),
            }
        }
    }
}

/// Text that can be shown to a person: no control bytes, and not too long.
pub fn words(bytes: &[u8]) -> String {
    const SHOWN: usize = 200;
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN)]);
    text.trim().chars().map(|c| if is_shown(c) { c } else { '?' }).collect()
}

/// Does a terminal show this character, and do nothing else? Control characters move its cursor,
/// or do more; those for two directions of writing put a line's words into another order.
pub fn is_shown(c: char) -> bool {
    let orders = matches!(
        c,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    !c.is_control() && !orders
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn answers_are_told_from_what_follows() {
        let all = |host, help, text: &[u8]| AnswerReader::new(host, help).feed(text);
        assert_eq!(all(false, false, b"+Go\r\nrest"), (5, Outcome::Accepted));
        assert_eq!(all(false, false, b"+\n"), (2, Outcome::Accepted));
        assert_eq!(
            all(false, false, b"-Service busy\r\nlater"),
            (15, Outcome::Refused("Service busy".into()))
        );
        assert_eq!(all(false, true, b"date\r\n"), (0, Outcome::Accepted));
        assert_eq!(
            all(true, false, b"+ Success\r\nWhich VHOST? Host main selected\r\n+Go\r\nx"),
            (49, Outcome::Accepted)
        );
        assert_eq!(
            all(true, true, b"+ Success\r\nWhich VHOST? Host main selected\r\nx"),
            (44, Outcome::Accepted)
        );
        let offer = |text: &[u8]| AnswerReader::offer(false).feed(text);
        assert_eq!(offer(b"+ Success\r\nOffering web\r\n"), (25, Outcome::Accepted));
        let refused = Outcome::Refused("Not offered".into());
        assert_eq!(offer(b"+ Success\r\n- Not offered\r\n"), (26, refused));
        assert_eq!(
            all(true, false, b"+ Success\r\nWhich VHOST? - No such host\r\n").1,
            Outcome::NoHost
        );
        assert_eq!(
            all(true, false, b"-Service busy\r\n").1,
            Outcome::Refused("Service busy".into())
        );
        assert_eq!(
            all(false, false, b"SSH-2.0-x\x1b[2J\r\n").1,
            Outcome::Unexpected("SSH-2.0-x?[2J".into())
        );
        assert!(matches!(all(false, false, &[b'x'; 600]).1, Outcome::Unexpected(_)));
        assert_eq!(words("a\u{202e}b\u{9b}\u{e4}\u{2066}".as_bytes()), "a?b?\u{e4}?");
    }

    #[test]
    fn a_server_knows_run_or_not() {
        let of = |host, text: &[u8]| AnswerReader::to_run(host).feed(text);
        assert_eq!(of(false, b"+ Success\r\n+Go\r\nrest"), (16, Outcome::Accepted));
        assert_eq!(of(false, b"-Service not available\r\n"), (24, Outcome::NoRun));
        let host = b"+ Success\r\nWhich VHOST? Host main selected\r\n";
        assert_eq!(
            of(true, &[&host[..], b"-Service not available\r\n"].concat()).1,
            Outcome::NoRun
        );
        let refused = of(false, b"+ Success\r\n-Service not available\r\n");
        assert_eq!(refused.1, Outcome::Refused("Service not available".into()));
        assert_eq!(of(false, b"-Service busy\r\n").1, Outcome::Refused("Service busy".into()));
        assert_eq!(of(false, b"+Go\r\n").1, Outcome::Unexpected("+Go".into()));
    }

    proptest! {
        #[test]
        fn splitting_changes_nothing(cut in 0usize..54, host: bool) {
            let text: &[u8] = if host { b"+ Success\r\nWhich VHOST? Host main selected\r\n+Go\r\nrest" } else { b"+Go\r\nrest" };
            let cut = cut.min(text.len());
            let mut answer = AnswerReader::new(host, false);
            let (taken, outcome) = answer.feed(&text[..cut]);
            let rest = if outcome == Outcome::More {
                let (more, outcome) = answer.feed(&text[cut..]);
                prop_assert_eq!(outcome, Outcome::Accepted);
                &text[cut + more..]
            } else {
                &text[taken..]
            };
            prop_assert_eq!(rest, b"rest");
        }
    }
}
