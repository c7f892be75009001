//! fived: a session layer for today's Internet. This page is the map (grown from DESIGN.md).
pub mod log;
pub mod login;
pub mod net;
pub mod parent;
pub mod policy;
pub mod sys;
pub mod wire;
