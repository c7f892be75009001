//! The names of networks(5), which `only_from` and `no_access` may have.

use super::super::entry::Files;
use std::collections::HashMap;

/// What the file says; nothing, where it cannot be read.
#[derive(Debug, Default)]
pub struct Etc {
    networks: HashMap<String, String>,
}

impl Etc {
    pub fn read(files: &mut dyn Files) -> Etc {
        let mut etc = Etc::default();
        for words in lines(files, "/etc/networks") {
            let [name, network, aliases @ ..] = &words[..] else { continue };
            for name in [name].into_iter().chain(aliases) {
                etc.networks.entry(name.to_ascii_lowercase()).or_insert_with(|| network.clone());
            }
        }
        etc
    }

    /// The network of that name, as an address.
    pub fn network(&self, name: &str) -> Option<&str> {
        self.networks.get(&name.to_ascii_lowercase()).map(String::as_str)
    }
}

/// The words of each line that has some, without comments.
fn lines(files: &mut dyn Files, path: &str) -> Vec<Vec<String>> {
    let Ok(bytes) = files.read(path) else { return Vec::new() };
    let text = String::from_utf8_lossy(&bytes);
    let words = |line: &str| {
        let words = line.split_ascii_whitespace().take_while(|w| !w.starts_with('#'));
        words.map(String::from).collect::<Vec<_>>()
    };
    text.lines().map(words).filter(|words| !words.is_empty()).collect()
}
