//! What the orders about logins say.

/// Whether a login may be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum May {
    /// `password_first`: the back end needs a name and a password and asks for nothing else; the
    /// try begins when both are there.
    Try { password_first: bool },
    /// A penalty lasts for this many seconds more; or no slot is free, for about as long.
    Later { seconds: u32 },
    /// The connection is neither encrypted nor local, or there were too many tries.
    Never,
}

/// How a user proves who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Password,
    Pubkey,
}

impl Method {
    pub(super) fn number(self) -> u32 {
        self as u32
    }

    pub(super) fn from_number(n: u32) -> Option<Method> {
        [Method::Password, Method::Pubkey].get(n as usize).copied()
    }
}
