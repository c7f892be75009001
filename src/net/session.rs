#[derive(Clone,Copy,PartialEq,Eq)] pub enum First { Builtin(crate::wire::request::Builtin), Tls }
pub fn begin(w:std::sync::Arc<super::World>, s:std::os::fd::OwnedFd, peer:std::net::SocketAddr, f:crate::policy::Facts, c:std::os::fd::OwnedFd, first:First) {}
