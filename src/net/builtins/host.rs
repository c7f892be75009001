//! HOST: chooses a virtual host.

use crate::net::end::End;
use crate::net::session_state::Session;
use crate::policy::HostId;
use crate::wire::reply;
use crate::wire::request::DIALOGUE_MAX;

/// Runs the dialogue. An empty line goes back to the default host.
pub fn run(s: &mut Session) -> Result<(), End> {
    s.write(reply::SUCCESS)?;
    s.write(reply::WHICH_HOST)?;
    let name = s.line(DIALOGUE_MAX)?;
    let found =
        if name.is_empty() { Some(HostId::DEFAULT) } else { s.state.world.table.host_named(&name) };
    let answer = match found.and_then(|id| Some((id, s.state.world.table.host(id)?))) {
        Some((id, host)) => {
            s.state.facts.host = id;
            reply::host_selected(&host.name)
        }
        None => reply::NO_SUCH_HOST.to_vec(),
    };
    s.write(&answer)
}
