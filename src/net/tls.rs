pub struct Tls; pub fn configure(a:&crate::wire::archive::Archive,t:&crate::policy::Table)->Result<Option<Tls>,String>{Ok(None)}
