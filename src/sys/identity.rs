//! Users and groups of the system (passwd(5), group(5), through the system's name service), and
//! those that this process has.

use super::clock;
use nix::unistd::{self, Gid, Group, Uid};
use std::ffi::CString;
use std::io;
use std::path::Path;
use std::time::SystemTime;

/// Its seconds.
const DAY: u64 = 24 * 60 * 60;

/// A user of the system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub home: String,
    pub shell: String,
}

/// The user and groups that a process is to have, as real, effective and saved ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    /// The supplementary groups.
    pub groups: Vec<u32>,
}

/// The user of that name. None also if the user's home or shell is not UTF-8. Err: the name service
/// fails, and nobody knows.
pub fn find(name: &str) -> io::Result<Option<User>> {
    found(unistd::User::from_name(name))
}

/// The user of that number, likewise.
pub fn find_uid(uid: u32) -> io::Result<Option<User>> {
    found(unistd::User::from_uid(Uid::from_raw(uid)))
}

fn found(answer: nix::Result<Option<unistd::User>>) -> io::Result<Option<User>> {
    match answer {
        Ok(found) => Ok(found.and_then(user)),
        // A container without users: that there are none is no failure.
        Err(_) if !Path::new("/etc/passwd").exists() => Ok(None),
        Err(e) => Err(io::Error::other(e)),
    }
}

/// The user of that name. None also if the name service fails.
pub fn lookup(name: &str) -> Option<User> {
    find(name).ok()?
}

/// The user of that number, likewise.
pub fn by_uid(uid: u32) -> Option<User> {
    find_uid(uid).ok()?
}

/// The user of a number. If the system does not know it, the group has the same number, and `/` is
/// the home. None: not a number, or the one that no user can have (setresuid(2) takes it for "leave
/// it as it is").
pub fn by_number(text: &str) -> Option<User> {
    let uid = number(text)?;
    let known = by_uid(uid);
    Some(known.unwrap_or_else(|| User {
        name: uid.to_string(),
        uid,
        gid: uid,
        home: "/".into(),
        shell: "/bin/sh".into(),
    }))
}

/// The uid or gid in a text, if a process can have it.
pub fn number(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|&n| digits && n != u32::MAX)
}

/// The number of the group of that name.
pub fn group(name: &str) -> Option<u32> {
    Group::from_name(name).ok()?.map(|g| g.gid.as_raw())
}

/// Has any group that number?
pub fn is_group(gid: u32) -> bool {
    matches!(Group::from_gid(Gid::from_raw(gid)), Ok(Some(_)))
}

/// All groups of a user, with the primary one. If the name service fails: the primary one alone.
/// For a number that has no name: none.
pub fn groups_of(user: &User) -> Vec<u32> {
    if number(&user.name) == Some(user.uid) && lookup(&user.name).is_none() {
        return Vec::new();
    }
    let all = CString::new(user.name.as_str())
        .ok()
        .and_then(|name| unistd::getgrouplist(&name, Gid::from_raw(user.gid)).ok());
    all.map_or_else(|| vec![user.gid], |all| all.into_iter().map(Gid::as_raw).collect())
}

/// Has the account of this user expired (shadow(5))? Its last day is the one before the date of
/// chage(1), as PAM counts. Only root is told; for others no account has. For a process of one
/// thread.
pub fn has_expired(name: &str) -> bool {
    let Ok(name) = CString::new(name) else { return false };
    let today = clock::wall().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |t| t.as_secs());
    // SAFETY: the name ends in a zero byte, and nothing else in this process calls getspnam(3)
    // while what it returned is read.
    let expires = unsafe { libc::getspnam(name.as_ptr()).as_ref() }.map(|entry| entry.sp_expire);
    expires.is_some_and(|day| day >= 0 && today / DAY >= day as u64)
}

/// This process's effective uid.
pub fn effective_uid() -> u32 {
    unistd::geteuid().as_raw()
}

/// This process's effective gid.
pub fn effective_gid() -> u32 {
    unistd::getegid().as_raw()
}

/// A process of root takes root's own supplementary groups in place of those that it inherited.
/// Another user's process may not, and keeps its own.
pub fn take_own_groups() -> io::Result<()> {
    match by_uid(0) {
        Some(root) if effective_uid() == 0 => {
            let groups: Vec<Gid> = groups_of(&root).into_iter().map(Gid::from_raw).collect();
            Ok(unistd::setgroups(&groups)?)
        }
        _ => Ok(()),
    }
}

/// This process's user and groups.
pub fn current() -> io::Result<Identity> {
    Ok(Identity {
        uid: effective_uid(),
        gid: effective_gid(),
        groups: unistd::getgroups()?.into_iter().map(Gid::as_raw).collect(),
    })
}

/// Calls `what` with another user's rights, then takes back root's. For root alone, in a process of
/// one thread. Errors: the rights could not be changed. If they cannot be taken back, the process
/// aborts.
pub fn acting_as<T>(who: &Identity, what: impl FnOnce() -> T) -> io::Result<T> {
    let groups: Vec<Gid> = who.groups.iter().map(|g| Gid::from_raw(*g)).collect();
    let before = nix::unistd::getgroups()?;
    let back = || {
        let done = nix::unistd::seteuid(Uid::from_raw(0))
            .and_then(|()| nix::unistd::setegid(Gid::from_raw(0)))
            .and_then(|()| nix::unistd::setgroups(&before));
        if done.is_err() {
            std::process::abort();
        }
    };
    nix::unistd::setgroups(&groups)?;
    let became = nix::unistd::setegid(Gid::from_raw(who.gid))
        .and_then(|()| nix::unistd::seteuid(Uid::from_raw(who.uid)));
    let done = became.map(|()| what());
    back();
    Ok(done?)
}

/// Takes this identity for good, in every thread, and reads it back to be sure. After an error it
/// may be half done: the process must end.
pub fn assume(identity: &Identity) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    let groups: Vec<Gid> = identity.groups.iter().copied().map(Gid::from_raw).collect();
    unistd::setgroups(&groups)?;
    unistd::setresgid(gid, gid, gid)?;
    unistd::setresuid(uid, uid, uid)?;
    let (u, g) = (unistd::getresuid()?, unistd::getresgid()?);
    let mut found = current()?.groups;
    let mut wanted = identity.groups.clone();
    found.sort_unstable();
    wanted.sort_unstable();
    let is = [u.real, u.effective, u.saved] == [uid; 3]
        && [g.real, g.effective, g.saved] == [gid; 3]
        && found == wanted;
    if !is {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok(())
}

fn user(u: unistd::User) -> Option<User> {
    // What an empty field means: passwd(5) says it of the shell, and login(1) does it for the home.
    let or = |text: String, usual: &str| if text.is_empty() { usual.into() } else { text };
    Some(User {
        uid: u.uid.as_raw(),
        gid: u.gid.as_raw(),
        home: or(u.dir.into_os_string().into_string().ok()?, "/"),
        shell: or(u.shell.into_os_string().into_string().ok()?, "/bin/sh"),
        name: u.name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_fields_have_the_meaning_of_passwd() {
        let u = unistd::User::from_uid(Uid::from_raw(0)).expect("passwd").expect("root");
        let empty = unistd::User { dir: "".into(), shell: "".into(), ..u.clone() };
        let found = user(empty).expect("a user");
        assert_eq!((found.home.as_str(), found.shell.as_str()), ("/", "/bin/sh"));
        let other = unistd::User { dir: "/h".into(), shell: "/s".into(), ..u };
        let found = user(other).expect("a user");
        assert_eq!((found.home.as_str(), found.shell.as_str()), ("/h", "/s"));
    }

    #[test]
    fn root_is_root() {
        let root = lookup("root").unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!(by_uid(0).as_ref(), Some(&root));
        assert!(groups_of(&root).contains(&0));
        assert_eq!(group("root"), Some(0));
        assert_eq!(lookup("no such user"), None);
        assert_eq!(group("no such group"), None);
        assert_eq!(by_number("0").as_ref(), Some(&root));
        let nobody = by_number("3999999999").unwrap();
        assert_eq!(
            (nobody.uid, nobody.gid, nobody.home.as_str(), nobody.name.as_str()),
            (3_999_999_999, 3_999_999_999, "/", "3999999999")
        );
        for bad in ["4294967295", "-1", "+1", "", "1x", "root"] {
            assert_eq!(by_number(bad), None, "{bad}");
        }
        assert_eq!(current().unwrap().uid, effective_uid());
    }
}
