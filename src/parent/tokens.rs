//! The tokens by which the poll knows the parent's channels and sockets, and by which the parent's
//! parts name each other's: a type for each kind, so that none is taken for one of another kind.

use mio::Token;

/// Defines the token of one kind.
macro_rules! token {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Token);

        impl From<Token> for $name {
            fn from(token: Token) -> $name {
                $name(token)
            }
        }

        impl From<$name> for Token {
            fn from($name(token): $name) -> Token {
                token
            }
        }
    };
}

token! {
    /// A net process, by its channel.
    NetToken
}
token! {
    /// The socket of a net process's lines for the log.
    NetLogToken
}
token! {
    /// A session, or a stream that has a channel of its own.
    SessionToken
}
token! {
    /// A thread of a net process that relays, by its channel.
    RelayThreadToken
}
token! {
    /// A port of a service's own, or a Unix socket of fived's own, by its listener.
    PortToken
}
token! {
    /// A keys process, by its channel.
    KeysToken
}

impl SessionToken {
    /// As orders have it.
    pub fn number(self) -> u64 {
        self.0.0 as u64
    }

    /// The one that an order names. There may be none such.
    pub const fn of_number(number: u64) -> SessionToken {
        SessionToken(Token(number as usize))
    }
}

/// What the poll watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watched {
    Net(NetToken),
    NetLog(NetLogToken),
    Session(SessionToken),
    RelayThread(RelayThreadToken),
    Port(PortToken),
    Keys(KeysToken),
    /// A connection to an upstream that is pending, or the client that waits for it.
    Connect(Token),
}
