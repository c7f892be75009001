//! What fived writes is what five reads.

use super::*;

/// What fived writes, as a line is read.
fn line(written: &[u8]) -> String {
    let text = written.strip_suffix(b"\r\n").expect("every line ends in CRLF");
    String::from_utf8(text.to_vec()).expect("text")
}

#[test]
fn what_fived_writes_is_what_five_reads() {
    assert_eq!(read_login(&line(&logged_in("ann b"))), Some(true));
    assert_eq!(read_login(&line(LOGIN_FAILED)), Some(false));
    assert_eq!(read_login(&line(&try_later(3))), None);
    assert_eq!(read_challenge(&line(&challenge("AAA="))), Some("AAA="));
    let of = |answer: &[u8]| read_host(line(&[WHICH_HOST, answer].concat()).as_bytes());
    assert_eq!(of(&host_selected("main")), Some(Host::Selected));
    assert_eq!(of(NO_SUCH_HOST), Some(Host::NoSuchHost));
    assert_eq!((of(SUCCESS), read_host(line(SUCCESS).as_bytes())), (None, None));
    let offers = |written: &[u8]| is_offering(line(written).as_bytes());
    assert!(offers(&offering("web")) && !offers(NOT_OFFERED) && !offers(SUCCESS));
    assert!(is(b"+ Success", SUCCESS) && !is(SUCCESS, SUCCESS));
    assert_eq!(refusal(NOT_AVAILABLE), "Service not available");
}

#[test]
fn a_login_s_verdict_is_found_after_its_prompt() {
    let prompt = line(&[ENTER_PASSWORD, LOGIN_FAILED].concat());
    let at = find_login(&prompt).expect("a verdict");
    assert_eq!((&prompt[..at], read_login(&prompt[at..])), ("Enter Password: ", Some(false)));
    let good = line(&[ENTER_PASSWORD, &logged_in("ann")].concat());
    assert_eq!(find_login(&good), Some(16));
    assert_eq!(find_login("- Try again later (3 s)"), None);
}
