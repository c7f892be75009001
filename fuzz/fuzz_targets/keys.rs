//! What a stranger shows to log in, and what stands in authorized_keys: read or refused, never believed by halves.
#![no_main]

use fived::wire::login::LoginMessage;
use fived::wire::{authorized_keys, sshsig};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some(signature) = sshsig::read(bytes) {
        assert!(sshsig::takes(signature.key));
        assert_eq!(sshsig::key(bytes), Some(signature.key));
    }
    if let Some(message) = LoginMessage::decode(bytes) {
        assert_eq!(message.encode().as_deref(), Some(bytes));
    }
    String::from_utf8_lossy(bytes).lines().for_each(|line| drop(authorized_keys::read(line)));
});
