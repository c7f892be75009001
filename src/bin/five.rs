//! five(1): the session client.

fn main() {
    std::process::exit(fived::client::main(std::env::args_os().skip(1)));
}
