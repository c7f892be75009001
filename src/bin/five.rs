//! five(1): the session client.

fn main() {
    let words: Vec<String> =
        std::env::args_os().skip(1).map(|w| w.to_string_lossy().into_owned()).collect();
    std::process::exit(fived::client::main(&words));
}
