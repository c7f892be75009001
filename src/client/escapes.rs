//! What a person types at the beginning of a line for five itself, as with ssh(1).

/// The text of `~?`.
pub const HELP: &str = "~?
Escapes, at the beginning of a line:
 ~.   end five and the service
 ~^Z  suspend five
 ~?   show this
 ~~   send one ~
";
/// What is shown before five is suspended.
pub const SUSPENDING: &str = "~^Z [suspend five]\n";

/// Control-Z.
const SUSPEND: u8 = 0x1a;

/// What five is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escape {
    /// `~.`: it ends.
    End,
    /// `~^Z`
    Suspend,
    /// `~?`
    Help,
}

/// Where in a line the input is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum At {
    #[default]
    Beginning,
    /// After a `~` at the beginning, which was not passed on.
    Tilde,
    Within,
    /// After `~.`: nothing more is passed on.
    End,
}

/// Looks for escapes in what is typed.
#[derive(Debug, Default)]
pub struct Escapes {
    at: At,
    /// Those that were typed and are still to be obeyed.
    found: Vec<Escape>,
}

impl Escapes {
    /// What of these bytes is for the service.
    pub fn pass(&mut self, typed: &[u8]) -> Vec<u8> {
        let mut passed = Vec::with_capacity(typed.len() + 1);
        for byte in typed {
            self.at = match (self.at, byte) {
                (At::End, _) => At::End,
                (At::Beginning, b'~') => At::Tilde,
                (At::Tilde, b'.') => self.escape(Escape::End, At::End),
                (At::Tilde, b'?') => self.escape(Escape::Help, At::Beginning),
                (At::Tilde, &SUSPEND) => self.escape(Escape::Suspend, At::Beginning),
                (at, byte) => {
                    if at == At::Tilde && *byte != b'~' {
                        passed.push(b'~');
                    }
                    passed.push(*byte);
                    if matches!(byte, b'\r' | b'\n') { At::Beginning } else { At::Within }
                }
            };
        }
        passed
    }

    fn escape(&mut self, escape: Escape, at: At) -> At {
        self.found.push(escape);
        at
    }

    /// The escapes that were typed since the last call, in their order.
    pub fn take(&mut self) -> Vec<Escape> {
        std::mem::take(&mut self.found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_at_the_beginning_of_a_line() {
        use Escape::{End, Help, Suspend};
        for (typed, passed, escapes) in [
            ("a~.b", "a~.b", &[][..]),
            ("~~.\r~~", "~.\r~", &[]),
            ("~x~.", "~x~.", &[]),
            ("~\r~.x", "~\r", &[End]),
            ("a\n~.", "a\n", &[End]),
            ("~?~.", "", &[Help, End]),
            ("~\x1ax~?\r~\x1a~?y", "x~?\ry", &[Suspend, Suspend, Help]),
            ("x~\x1a", "x~\x1a", &[]),
            ("~~\x1a", "~\x1a", &[]),
        ] {
            let (mut whole, mut split) = (Escapes::default(), Escapes::default());
            assert_eq!(whole.pass(typed.as_bytes()), passed.as_bytes(), "{typed:?}");
            let pieces = typed.as_bytes().iter().flat_map(|b| split.pass(&[*b]));
            assert_eq!(pieces.collect::<Vec<_>>(), passed.as_bytes(), "{typed:?}");
            assert_eq!((whole.take(), split.take()), (escapes.into(), escapes.into()), "{typed:?}");
        }
    }
}
