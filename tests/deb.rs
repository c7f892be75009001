//! Packages: what `make deb` makes. `tests/deb/trial` (`make deb-trial`) installs it in a clean
//! Debian, upgrades it under running sessions, removes and purges it.

mod support;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};
use support::*;

const UNITS: [&str; 3] = ["fived.service", "fived.socket", "fived-inetd.service"];

fn output(command: &mut Command) -> String {
    let out: Output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(out.status.success(), "{command:?}: {}{}", text(&out.stdout), text(&out.stderr));
    text(&out.stdout)
}

/// The package of what is built here.
struct Package {
    place: Place,
    deb: String,
}

impl Package {
    /// None: the tools are missing.
    fn make() -> Option<Package> {
        let tools = ["make", "dpkg-deb", "dpkg-shlibdeps", "strip"];
        if let Some(tool) = tools.into_iter().find(|t| !installed(t)) {
            skip(&format!("needs {tool}"));
            return None;
        }
        let place = Place::new();
        let mut build = Command::new(top().join("etc/debian/build"));
        build.args([env!("CARGO_BIN_EXE_fived"), env!("CARGO_BIN_EXE_five"), &place.at("")]);
        for variable in ["MAKEFLAGS", "MAKEOVERRIDES", "MFLAGS", "VERSION"] {
            build.env_remove(variable);
        }
        let deb = output(build.env("LEVEL", "0")).trim().to_string();
        output(Command::new("dpkg-deb").args(["-x", &deb, &place.at("root")]));
        output(Command::new("dpkg-deb").args(["-e", &deb, &place.at("control")]));
        Some(Package { place, deb })
    }

    fn text(&self, name: &str) -> String {
        read(&self.place.at(name))
    }
}

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_package_is_as_debian_wants_it() {
    let Some(package) = Package::make() else { return };
    let deb = &package.deb;
    let field = |name: &str| output(Command::new("dpkg-deb").args(["-f", deb, name]));
    assert_eq!(field("Version").trim(), env!("CARGO_PKG_VERSION"));
    for name in ["Provides", "Conflicts", "Replaces"] {
        assert_eq!(field(name).trim(), "inet-superserver", "{name}");
    }
    assert!(field("Depends").contains("libc6 (>= "), "{}", field("Depends"));
    let there = output(Command::new("dpkg-deb").args(["-c", deb]));
    let files: Vec<(&str, &str)> = there
        .lines()
        .filter_map(|l| Some((l.get(..22)?, l.rsplit(' ').next()?.trim_start_matches('.'))))
        .collect();
    let has = |path: &str| files.iter().any(|(_, f)| *f == path);
    for path in [
        "/usr/sbin/fived",
        "/usr/bin/five",
        "/usr/share/man/man8/fived.8.gz",
        "/usr/share/man/man5/fived.conf.5.gz",
        "/usr/share/man/man1/five.1.gz",
        "/usr/share/doc/fived/copyright",
        "/usr/share/doc/fived/changelog.gz",
        "/usr/share/doc/fived/crates.gz",
        // As fived(8) names them.
        "/usr/share/doc/fived/fived-prometheus.rules.yml",
        "/usr/share/doc/fived/fived-grafana.json",
        "/usr/share/bash-completion/completions/five",
        // Debian's zsh looks for it here, and not in site-functions.
        "/usr/share/zsh/vendor-completions/_five",
        "/usr/lib/sysusers.d/fived.conf",
    ] {
        assert!(has(path), "{path}: {there}");
    }
    for unit in UNITS {
        assert!(has(&format!("/usr/lib/systemd/system/{unit}")), "{unit}: {there}");
    }
    assert!(files.iter().all(|(mode, _)| mode.contains("root/root")), "{there}");
    assert!(files.iter().all(|(mode, _)| !mode[..10].contains(['s', 't'])), "{there}");
    // All that is below /etc is the administrator's.
    let conffiles: BTreeSet<String> =
        package.text("control/conffiles").lines().map(String::from).collect();
    let in_etc = files.iter().filter(|(mode, f)| f.starts_with("/etc/") && mode.starts_with('-'));
    assert_eq!(conffiles, in_etc.map(|(_, f)| f.to_string()).collect());
    configuration(&package);
    what_the_scripts_ask(&package);
    let pages = ["man8/fived.8", "man1/five.1"].map(|page| {
        output(Command::new("zcat").arg(package.place.at(&format!("root/usr/share/man/{page}.gz"))))
    });
    for path in ["/usr/sbin/fived /usr/sbin/inetd", "/usr/share/doc/fived\n", "=/usr/bin/five "] {
        assert!(pages.iter().any(|page| page.contains(path)), "{path}");
    }
    // update-inetd(8) looks for a script whose name ends so, and takes the first.
    assert!(conffiles.iter().any(|f| f.starts_with("/etc/init.d/") && f.ends_with("inetd")));
}

/// It serves /etc/inetd.conf and one harmless service.
fn configuration(package: &Package) {
    let place = &package.place;
    let conf = package.text("root/etc/fived.conf");
    assert!(conf.contains("\ninetd           = /etc/inetd.conf "), "{conf}");
    let inetd = place.write("inetd.conf", "#:OTHER:\n", 0o644);
    let conf = place.write("conf", &conf.replace("/etc/inetd.conf", &inetd), 0o644);
    let fived = || Command::new(env!("CARGO_BIN_EXE_fived"));
    assert_eq!(output(fived().args(["-t", "-f", &conf])), "configuration OK\n");
    let decide =
        |name: &str| output(fived().args(["-f", &conf, "-T", "-C", &format!("service={name}")]));
    assert!(decide("daytime").starts_with("allow daytime "));
    for name in ["echo", "shell", "status", "git"] {
        assert!(decide(name).starts_with(&format!("deny {name} - unknown")), "{}", decide(name));
    }
}

/// Before they end the old fived the scripts ask whether the new one would start. It would with a
/// row of inetd.conf that it leaves out, and would not with a mistake in its own file.
fn what_the_scripts_ask(package: &Package) {
    for script in ["control/postinst", "root/etc/init.d/fived"] {
        let text = package.text(script);
        let mut code = text.lines().map(str::trim).filter(|l| !l.starts_with('#'));
        assert!(code.clone().any(|l| l.contains("\"$DAEMON\" -T ") || l.contains("fived -T ")));
        assert!(!code.any(|l| l.contains("\"$DAEMON\" -t ") || l.contains("fived -t ")), "{text}");
    }
    let place = &package.place;
    let inetd = place.write("inetd.broken", "no-such-service stream tcp\n", 0o644);
    for (more, wanted) in [("", [0, 1]), ("no-such-setting = 1\n", [1, 1])] {
        let conf = place.write("conf", &format!("inetd = {inetd}\n{more}"), 0o644);
        let ask = |option: &str| run(&[option, "-f", &conf]).0;
        assert_eq!(["-T", "-t"].map(ask), wanted, "{more}");
    }
}

#[test]
fn lintian_finds_no_error() {
    if !installed("lintian") {
        return skip("needs lintian");
    }
    let Some(package) = Package::make() else { return };
    let deb = &package.deb;
    // `--fail-on`: the exit status says it.
    output(Command::new("lintian").args(["--allow-root", "--fail-on", "error,warning", deb]));
}

/// systemd gives up after five starts within ten seconds (`DefaultStartLimitBurst`). An address of
/// `listen` may come later than that after the computer has started.
#[test]
fn the_unit_is_started_again_until_its_address_is_there() {
    let unit = read(top().join("etc/fived.service").to_str().expect("UTF-8"));
    let value = |key: &str| unit.lines().find_map(|l| l.strip_prefix(key));
    assert_eq!(value("Restart="), Some("on-failure"));
    assert_eq!(value("RestartPreventExitStatus="), Some("1"));
    let pause: u32 = value("RestartSec=").map_or(0, |s| s.parse().expect("seconds"));
    assert!(pause * 5 > 10, "RestartSec={pause}");
    assert!(!unit.contains("Also=fived.socket"), "who enables the unit keeps `listen`");
}

#[test]
fn the_units_are_clean_and_give_a_reason_for_each_restriction_that_they_leave_out() {
    if !installed("systemd-analyze") {
        return skip("needs systemd-analyze");
    }
    let place = Place::new();
    let mut paths = Vec::new();
    for unit in UNITS {
        let directory = if unit.contains("inetd") { "etc/debian" } else { "etc" };
        let text = read(top().join(directory).join(unit).to_str().expect("UTF-8"));
        let text = text.replace("/usr/local/sbin/fived", env!("CARGO_BIN_EXE_fived"));
        paths.push(place.write(unit, &text, 0o644));
    }
    let mut verify = Command::new("systemd-analyze");
    let out = verify.args(["verify", "--man=no"]).args(&paths).output().expect("systemd-analyze");
    let errors = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && errors.is_empty(), "{errors}");
    let mut security = Command::new("systemd-analyze");
    let found = output(security.args([
        "security",
        "--offline=true",
        "--json=short",
        "--no-pager",
        &paths[0],
    ]));
    let names: BTreeSet<&str> = found
        .split("\"json_field\":\"")
        .skip(1)
        .filter_map(|f| f.split('"').next()?.split('_').next())
        .collect();
    // What is none of a root's unit, or the default.
    let rest = ["SupplementaryGroups", "RemoveIPC", "AmbientCapabilities", "Delegate"];
    assert!(names.len() > 30, "{found}");
    let unit = std::fs::read_to_string(top().join("etc/fived.service")).expect("the unit");
    let page = std::fs::read_to_string(top().join("man/fived.8")).expect("the page");
    for name in names.into_iter().filter(|n| !rest.contains(n)) {
        let words: Vec<&str> = name.split("Or").collect();
        for word in words {
            assert!(unit.contains(&format!("{word}=")), "fived.service does not name {word}");
            assert!(page.contains(word), "fived(8) does not name {word}");
        }
    }
}
