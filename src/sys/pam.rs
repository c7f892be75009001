//! PAM (pam(3)) of the system's own library, which is opened when it is needed.

use super::library::Library;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;
use std::ptr;

const NAMES: [&CStr; 1] = [c"libpam.so.0"];
const SUCCESS: c_int = 0;
const CONV_ERR: c_int = 19;
const DISALLOW_NULL_AUTHTOK: c_int = 1;
const USER: c_int = 2;
const RHOST: c_int = 4;
const FAIL_DELAY: c_int = 10;
/// Messages of one conversation at most (PAM_MAX_NUM_MSG).
const MESSAGES: c_int = 32;

/// What a message of a PAM module is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// A prompt whose answer must not be echoed.
    Secret,
    /// A prompt whose answer may be echoed.
    Shown,
    /// A text to show; it takes no answer.
    Text,
}

/// Asks the user; None: nobody answers any more.
pub type Ask<'a> = &'a mut dyn FnMut(Style, &[u8]) -> Option<Vec<u8>>;

#[repr(C)]
struct Message {
    style: c_int,
    text: *const c_char,
}

#[repr(C)]
struct Response {
    text: *mut c_char,
    code: c_int,
}

type Converse =
    extern "C" fn(c_int, *const *const Message, *mut *mut Response, *mut c_void) -> c_int;

#[repr(C)]
struct Conversation {
    converse: Converse,
    data: *mut c_void,
}

type Start = unsafe extern "C" fn(
    *const c_char,
    *const c_char,
    *const Conversation,
    *mut *mut c_void,
) -> c_int;
type SetItem = unsafe extern "C" fn(*mut c_void, c_int, *const c_void) -> c_int;
type GetItem = unsafe extern "C" fn(*mut c_void, c_int, *mut *const c_void) -> c_int;
type Words = unsafe extern "C" fn(*mut c_void, c_int) -> *const c_char;
type Step = unsafe extern "C" fn(*mut c_void, c_int) -> c_int;

/// PAM's decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Yes,
    /// The step that failed, and PAM's reason.
    No(String),
}

/// Where PAM looks for the file of a service.
pub const SERVICES: [&str; 2] = ["/etc/pam.d", "/usr/lib/pam.d"];

/// Is there such a service (pam.d(5))?
pub fn is_configured(service: &str) -> bool {
    let named = |directory: &&str| Path::new(directory).join(service).exists();
    // Without the directory PAM reads its one file.
    SERVICES.iter().any(named)
        || !Path::new(SERVICES[0]).is_dir() && Path::new("/etc/pam.conf").exists()
}

/// Asks PAM whether it is that user, and whether that account may be used now. Err: a sentence; PAM
/// cannot be asked.
pub fn authenticate(service: &CStr, user: &CStr, from: &CStr, ask: Ask) -> Result<Answer, String> {
    run(service, user, from, ask, &[c"pam_authenticate", c"pam_acct_mgmt"])
}

/// Asks PAM whether that account may be used now, for a user who is authenticated already. Prompts
/// of a module get no answer.
pub fn account(service: &CStr, user: &CStr, from: &CStr) -> Result<Answer, String> {
    run(
        service,
        user,
        from,
        &mut |style, _| (style == Style::Text).then(Vec::new),
        &[c"pam_acct_mgmt"],
    )
}

/// Runs the steps in order, until one fails. A module may decide that it is another user: then they
/// have said nothing about the one who was named.
fn run(
    service: &CStr,
    user: &CStr,
    from: &CStr,
    mut ask: Ask,
    steps: &[&CStr],
) -> Result<Answer, String> {
    let functions = Functions::open(steps)?;
    let conversation = Conversation { converse, data: (&raw mut ask).cast() };
    let mut handle = ptr::null_mut();
    // SAFETY: C strings; the conversation and what it leads to outlive pam_end below.
    let started =
        unsafe { (functions.start)(service.as_ptr(), user.as_ptr(), &conversation, &mut handle) };
    if started != SUCCESS || handle.is_null() {
        return Err(format!("pam_start: error {started}"));
    }
    // SAFETY: the handle is open; the items are a C string and a function of the type that
    // FAIL_DELAY takes. fived itself delays failed logins.
    unsafe {
        (functions.set_item)(handle, RHOST, from.as_ptr().cast());
        (functions.set_item)(handle, FAIL_DELAY, no_delay as *const c_void);
    }
    let (mut last, mut name) = (SUCCESS, c"");
    for (step, of) in functions.steps.iter().zip(steps) {
        if last == SUCCESS {
            name = of;
            // SAFETY: the handle is open.
            last = unsafe { step(handle, DISALLOW_NULL_AUTHTOK) };
        }
    }
    let mut decided = ptr::null();
    // SAFETY: the handle is open; the item is a C string that lives until it is set again, or null.
    let is_user = unsafe {
        (functions.get_item)(handle, USER, &mut decided) == SUCCESS
            && !decided.is_null()
            && CStr::from_ptr(decided.cast()) == user
    };
    // SAFETY: the handle is open; the answer is a C string that lives as long as the library, or
    // null.
    let why = unsafe {
        let text = (functions.words)(handle, last);
        if text.is_null() { c"" } else { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    };
    // SAFETY: the handle is open, and closed once.
    unsafe { (functions.end)(handle, last) };
    Ok(match (last, is_user) {
        (SUCCESS, true) => Answer::Yes,
        (SUCCESS, false) => Answer::No("a module has changed the user's name".into()),
        (_, true | false) => Answer::No(format!("{}: {why}", name.to_string_lossy())),
    })
}

/// The library's functions; it stays open as long as the process runs.
struct Functions {
    start: Start,
    set_item: SetItem,
    get_item: GetItem,
    words: Words,
    end: Step,
    steps: Vec<Step>,
}

impl Functions {
    /// `steps`: pam_authenticate or pam_acct_mgmt, each. Err: a sentence.
    fn open(steps: &[&CStr]) -> Result<Functions, String> {
        let pam = Library::open(&NAMES)?;
        let symbol = |name: &CStr| {
            pam.symbol(name).ok_or_else(|| format!("{}: not in libpam", name.to_string_lossy()))
        };
        // SAFETY: this is the type that pam_end(3), pam_authenticate(3) and pam_acct_mgmt(3) give.
        let step =
            |name| symbol(name).map(|s| unsafe { std::mem::transmute::<*mut c_void, Step>(s) });
        // SAFETY: these are the types that the manual pages of pam_start(3), pam_set_item(3),
        // pam_get_item(3) and pam_strerror(3) give.
        let (start, set_item, get_item, words) = unsafe {
            (
                std::mem::transmute::<*mut c_void, Start>(symbol(c"pam_start")?),
                std::mem::transmute::<*mut c_void, SetItem>(symbol(c"pam_set_item")?),
                std::mem::transmute::<*mut c_void, GetItem>(symbol(c"pam_get_item")?),
                std::mem::transmute::<*mut c_void, Words>(symbol(c"pam_strerror")?),
            )
        };
        let (end, steps) =
            (step(c"pam_end")?, steps.iter().map(|n| step(n)).collect::<Result<_, _>>()?);
        Ok(Functions { start, set_item, get_item, words, end, steps })
    }
}

extern "C" fn no_delay(_: c_int, _: u32, _: *mut c_void) {}

/// What PAM calls: each message goes to `Ask`, the answers go back in memory that PAM frees.
extern "C" fn converse(
    n: c_int,
    messages: *const *const Message,
    out: *mut *mut Response,
    data: *mut c_void,
) -> c_int {
    if !(1..=MESSAGES).contains(&n) {
        return CONV_ERR;
    }
    // SAFETY: `data` is the `Ask` of the call to authenticate that is still running.
    let ask = unsafe { &mut *data.cast::<Ask>() };
    // SAFETY: calloc(3) of a bounded number of Responses; zeros are valid ones.
    let answers = unsafe { libc::calloc(n as usize, size_of::<Response>()) }.cast::<Response>();
    if answers.is_null() {
        return CONV_ERR;
    }
    for i in 0..n as usize {
        // SAFETY: PAM on Linux hands over an array of `n` pointers to messages, each with a C
        // string.
        let (style, text) = unsafe {
            let m = &**messages.add(i);
            (m.style, if m.text.is_null() { c"" } else { CStr::from_ptr(m.text) })
        };
        let style = match style {
            1 => Style::Secret,
            2 => Style::Shown,
            _ => Style::Text,
        };
        let Some(answer) = ask(style, text.to_bytes()) else {
            return give_up(answers, n);
        };
        if style != Style::Text {
            let Ok(answer) = CString::new(answer) else { return give_up(answers, n) };
            // SAFETY: a C string; strdup(3)'s memory is for free(3), as PAM wants it; `i` is below
            // `n`.
            unsafe { (*answers.add(i)).text = libc::strdup(answer.as_ptr()) };
        }
    }
    // SAFETY: PAM gives a place for the answers.
    unsafe { *out = answers };
    SUCCESS
}

fn give_up(answers: *mut Response, n: c_int) -> c_int {
    // SAFETY: `n` Responses made by calloc above, their texts null or made by strdup.
    unsafe {
        for i in 0..n as usize {
            libc::free((*answers.add(i)).text.cast());
        }
        libc::free(answers.cast());
    }
    CONV_ERR
}
