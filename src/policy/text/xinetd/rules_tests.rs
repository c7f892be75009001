//! Who may use a service: what becomes of the rules of such a file.

use super::tests::{printed, read, service};

/// As the real xinetd 2.3.15 has it.
#[test]
fn each_file_may_have_defaults_and_they_add_up() {
    let defaults = |text: &str| format!("defaults\n{{\n{text}}}\n");
    let main = defaults(" only_from = 10.0.0.1\n instances = 3\n") + "include d\n";
    let more = defaults(" only_from = 10.0.0.2\n instances = 1\n umask = 077\n");
    let (table, said) = read(&[
        ("/x", &(main.clone() + "include e\n" + &service("ssh", ""))),
        ("/d", &more),
        ("/e", &defaults(" only_from -= 10.0.0.1\n disabled = ssh\n")),
    ]);
    assert_eq!(printed(&table, "only_from"), "10.0.0.2/32");
    assert_eq!(
        (printed(&table, "instances"), printed(&table, "umask")),
        ("3".into(), "077".into())
    );
    assert_eq!(table.services()[0].places.last("disable"), Some(("/e".into(), 4)));
    let said: Vec<_> = said.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        ["/d:4: instances: expected it once, found it a second time: the line is left out"]
    );
    let (table, said) = read(&[
        ("/x", &(main + &service("ssh", "") + &defaults(" only_from = 0.0.0.0/0\n"))),
        ("/d", &more.replace(" instances = 1\n", "")),
    ]);
    assert_eq!(printed(&table, "only_from"), "10.0.0.1/32 10.0.0.2/32");
    let said: Vec<_> = said.iter().map(ToString::to_string).collect();
    let second = "expected one `defaults` in a file, found a second one: it is left out";
    assert_eq!(said, [format!("/x:14: defaults: {second}")]);
}
