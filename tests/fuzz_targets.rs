//! The targets of fuzz/, without libFuzzer: each compiles, and holds for its seeds and for what is
//! near them. A seed is an input that reached other code than all others in ten minutes of
//! `make fuzz`; fuzz/seeds has some of each target, in base64, one a line.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

// What a target uses of that crate is here.
extern crate self as libfuzzer_sys;

macro_rules! targets {
    ($($name:ident = $file:literal,)*) => {
        $(
            #[allow(unused_attributes, reason = "no_main is for the target alone")]
            #[path = $file]
            mod $name;
        )*
        const TARGETS: &[(&str, fn(&[u8]))] = &[$((stringify!($name), $name::run),)*];
    };
}

targets! {
    configuration = "../fuzz/fuzz_targets/configuration.rs",
    inetd = "../fuzz/fuzz_targets/inetd.rs",
    keys = "../fuzz/fuzz_targets/keys.rs",
    metrics = "../fuzz/fuzz_targets/metrics.rs",
    orders = "../fuzz/fuzz_targets/orders.rs",
    proxy = "../fuzz/fuzz_targets/proxy.rs",
    request = "../fuzz/fuzz_targets/request.rs",
    resume = "../fuzz/fuzz_targets/resume.rs",
    run = "../fuzz/fuzz_targets/run.rs",
    server = "../fuzz/fuzz_targets/server.rs",
    xinetd = "../fuzz/fuzz_targets/xinetd.rs",
    yamux = "../fuzz/fuzz_targets/yamux.rs",
}

// After the modules, so that they name it as they name libFuzzer's.
/// A target's body, as a function of the bytes that libFuzzer would hand to it.
#[macro_export]
macro_rules! fuzz_target {
    (|$input:ident: $kind:ty| $body:block) => {
        pub fn run(bytes: &[u8]) {
            use arbitrary::{Arbitrary, Unstructured};
            // Bytes of which no input can be made are no input.
            if let Ok($input) = <$kind>::arbitrary_take_rest(Unstructured::new(bytes)) {
                let $input: $kind = $input;
                $body
            }
        }
    };
}

/// Inputs near a seed: some of each kind.
const NEAR: usize = 6;

fn files(directory: &str) -> BTreeSet<String> {
    let at = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(directory);
    let entries = fs::read_dir(at).expect("a directory").map(|e| e.expect("an entry").path());
    entries.map(|p| p.file_stem().expect("a name").to_string_lossy().into_owned()).collect()
}

#[test]
fn every_target_is_here_and_has_seeds() {
    let here: BTreeSet<String> = TARGETS.iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(files("fuzz_targets"), here);
    assert_eq!(files("seeds"), here);
}

#[test]
fn every_target_holds_for_its_seeds_and_what_is_near_them() {
    for (name, target) in TARGETS {
        let path = format!("{}/fuzz/seeds/{name}", env!("CARGO_MANIFEST_DIR"));
        let text = fs::read_to_string(&path).expect("seeds");
        let seeds: Vec<Vec<u8>> =
            text.lines().map(|line| STANDARD.decode(line).expect("base64")).collect();
        assert!(seeds.len() >= 20, "{name}");
        target(b"");
        for (i, seed) in seeds.iter().enumerate() {
            target(seed);
            for n in 1..=NEAR {
                let at = seed.len() * n / (NEAR + 1);
                target(&seed[..at]);
                target(&seed[at..]);
                let mut other = seed.clone();
                other[at] ^= 1 << (n % 8);
                target(&other);
                let next = &seeds[(i + n) % seeds.len()];
                target(&[&seed[..at], &next[next.len() * n / (NEAR + 1)..]].concat());
            }
        }
    }
}
