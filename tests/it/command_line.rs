//! The command line as scripts rely on it, and what keeps a node from running as it should not.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::harness::{Directory, Node, Outcome, Process, run, watchword};
use crate::radius_login::{KEY, node_for_passcodes};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("chmod");
}

/// The commands below `path`, as its help lists them.
fn subcommands(path: &[String]) -> (String, Vec<String>) {
    let help = run(watchword().args(path).arg("--help"), "").done();
    let listed = help.split_once("\nCommands:\n").map_or("", |(_, rest)| rest);
    let names = listed.lines().take_while(|line| line.starts_with("  ")).filter_map(|line| {
        // A name stands two columns in; a line that goes on stands further in.
        let line = line.strip_prefix("  ").filter(|line| !line.starts_with(' '))?;
        line.split(' ').next().map(str::to_owned)
    });
    let names = names.filter(|name| name != "help").collect();
    (help, names)
}

#[test]
fn every_command_explains_itself_with_an_example() {
    let mut waiting = vec![Vec::new()];
    let mut commands = 0;
    while let Some(path) = waiting.pop() {
        let (help, names) = subcommands(&path);
        assert!(help.contains("Usage: watchword"), "{path:?}\n{help}");
        if names.is_empty() {
            commands += 1;
            let example = format!("watchword {}", path.join(" "));
            let after = help.split_once("\nExample").map_or("", |(_, after)| after);
            assert!(after.contains(&example), "the help of {path:?} has no example\n{help}");
        }
        waiting.extend(names.into_iter().map(|name| [&path[..], &[name]].concat()));
    }
    assert!(commands >= 35, "only {commands} commands were found");
}

#[test]
fn wrong_usage_ends_with_status_2() {
    for arguments in [
        &[][..],
        &["frobnicate"],
        &["user"],
        &["user", "frobnicate"],
        &["user", "add"],
        &["user", "add", "jo", "--no-such-flag"],
        &["user", "list", "--format", "xml"],
        &["user", "list", "--limit", "many"],
        &["device", "add", "jo", "abacus"],
        &["client", "add", "radius", "vpn"],
        &["settings", "rollback", "now"],
        &["serve", "extra"],
    ] {
        let said = run(watchword().args(arguments), "");
        assert!(said.stdout.is_empty(), "{said}");
        said.misused();
    }
    let version = run(watchword().arg("--version"), "").done();
    assert_eq!(version, format!("watchword {}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_failure_is_status_1_and_one_line() {
    let directory = Directory::initialised();
    let every = [
        &["status"][..],
        &["user", "list"],
        &["user", "show", "jo"],
        &["client", "list"],
        &["settings", "show"],
        &["attempts"],
        &["test", "jo"],
        &["device", "list", "jo"],
    ];
    for arguments in every {
        let said = directory.cli(arguments).refused();
        assert!(said.contains("is it running?"), "{said}");
    }
    for arguments in
        every.into_iter().chain([&["serve"][..], &["init"], &["check"], &["log", "dump"]])
    {
        let said = run(watchword().args(arguments).args(["--config", "/no/such/file.toml"]), "");
        assert!(said.refused().contains("/no/such/file.toml"), "{arguments:?}");
    }
    for (text, reason) in [
        ("", "data_dir"),
        ("data_dir = ", "line 1"),
        ("data_dir = \"data\"\n", "exactly one of key_file, passphrase_file"),
        ("data_dir = \"data\"\n[key]\nkey_file = \"k\"\nkey_fil = \"k\"\n", "line 4"),
        ("data_dir = \"data\"\n[key]\nkey_file = \"k\"\n[radius]\nlisten = [\"here\"]\n", "line 5"),
        ("data_dir = \"data\"\n[key]\nkey_file = \"k\"\n[raft]\nheartbeat = \"1h\"\n", "[raft]"),
        ("data_dir = \"data\"\n[key]\nkey_file = \"k\"\n[log]\nlevel = \"=,loud\"\n", ""),
    ] {
        directory.write_file("watchword.toml", text);
        for command in ["serve", "init", "check"] {
            let said = directory.cli(&[command]).refused();
            assert!(said.contains(reason), "{text}\n{said}");
        }
    }
}

#[test]
fn every_listing_is_json_on_demand() {
    let node = node_for_passcodes();
    node.cli(&["settings", "set", "block.days", "7"]).done();
    for arguments in [
        &["status"][..],
        &["user", "list"],
        &["user", "show", "alice"],
        &["user", "add", "bob"],
        &["user", "edit", "bob", "--mail", "b@example.org"],
        &["device", "list", "alice"],
        &["device", "add", "alice", "hotp"],
        &["client", "list"],
        &["client", "edit", "vpn", "--rename", "gateway"],
        &["settings", "show"],
        &["settings", "history"],
        &["attempts"],
    ] {
        let said = node.cli(&[arguments, &["--format", "json"]].concat());
        assert!(said.stderr.is_empty(), "{said}");
        let value = said.json();
        assert!(value.is_object() || value.is_array(), "{arguments:?}");
        // Without the flag it is for people.
        if !arguments.contains(&"add") {
            let table = node.cli(arguments);
            assert!(table.status == Some(0) || arguments.contains(&"edit"), "{table}");
            assert!(serde_json::from_str::<serde_json::Value>(&table.stdout).is_err(), "{table}");
        }
    }
}

#[test]
fn the_status_tells_how_the_node_is() {
    let node = node_for_passcodes();
    let status = node.cli(&["status", "--format", "json"]).json();
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&status["ready"], &status["role"]), (&true.into(), &"leader".into()));
    assert_eq!((&status["node"], &status["leader"]), (&1.into(), &1.into()));
    assert_eq!(status["voters"], serde_json::json!([1]));
    assert_eq!(status["failure_tolerance"], 0);
    assert!(status["fault"].is_null());
    assert_eq!((&status["users"], &status["clients"]), (&1.into(), &1.into()));
    assert_eq!(status["applied"], status["last_log"]);
    let table = node.cli(&["status"]).done();
    assert!(table.contains("failure tolerance"), "{table}");
}

#[test]
fn the_admin_socket_is_the_owners_alone() {
    let node = Node::start();
    let data = node.directory().path("data");
    assert_eq!(mode(&data), 0o700);
    assert_eq!(mode(&data.join("admin.sock")), 0o600);
    assert_eq!(mode(&data.join("keyring.json")), 0o600);
    assert_eq!(mode(&node.directory().path("data.key")), 0o600);
    // A socket that a killed node left behind is no obstacle.
    let directory = node.kill();
    assert!(directory.path("data/admin.sock").exists());
    let node = directory.serve();
    assert_eq!(mode(&node.directory().path("data/admin.sock")), 0o600);
    node.cli(&["status"]).done();
}

#[test]
fn a_key_or_a_data_directory_that_others_can_read_keeps_the_node_from_starting() {
    let directory = Directory::initialised();
    for (name, open, closed) in
        [("data.key", 0o644, 0o600), ("data/keyring.json", 0o640, 0o600), ("data", 0o755, 0o700)]
    {
        let path = directory.path(name);
        set_mode(&path, open);
        let said = directory.cli(&["serve"]).refused();
        assert!(said.contains(&format!("chmod {closed:o}")), "{said}");
        set_mode(&path, closed);
    }
    drop(directory.serve());
}

#[test]
fn another_key_does_not_open_the_data() {
    let directory = Directory::initialised();
    directory.write_file("data.key", &format!("{}\n", "0".repeat(64)));
    let said = directory.cli(&["serve"]).refused();
    assert!(said.contains("does not open with the configured key"), "{said}");
    directory.write_file("data.key", "no key\n");
    let said = directory.cli(&["serve"]).refused();
    assert!(said.contains("does not hold 64 hexadecimal digits"), "{said}");
    fs::remove_file(directory.path("data.key")).expect("the file goes");
    let said = directory.cli(&["serve"]).refused();
    assert!(said.contains("data.key"), "{said}");
}

#[test]
fn a_passphrase_serves_in_place_of_a_key_file() {
    let directory = Directory::new();
    let config = fs::read_to_string(directory.config()).expect("the file is there");
    let config = config.replace("key_file = \"data.key\"", "passphrase_file = \"passphrase\"");
    directory.write_file("watchword.toml", &config);
    directory.cli(&["init"]).refused();
    directory.write_file("passphrase", "correct horse battery staple\n");
    directory.cli(&["init"]).done();
    let node = directory.serve();
    node.import(&format!("username,hotp_key\njo,{}\n", KEY.0));
    let directory = node.kill();
    directory.write_file("passphrase", "correct horse battery stapler\n");
    directory.cli(&["serve"]).refused();
    directory.write_file("passphrase", "correct horse battery staple\n");
    assert_eq!(directory.serve().user("jo")["state"], "enabled");
}

#[test]
fn a_second_node_on_the_same_data_is_told_so() {
    let node = node_for_passcodes();
    let said = node.cli(&["serve"]).refused();
    assert!(said.contains("is in use by another process"), "{said}");
    // The first one goes on, its socket included.
    assert_eq!(node.user("alice")["state"], "enabled");
}

#[test]
fn a_second_init_is_refused_and_leaves_the_first_alone() {
    let node = node_for_passcodes();
    let said = node.cli(&["init"]).refused();
    assert!(said.contains("in use") || said.contains("already"), "{said}");
    assert_eq!(node.user("alice")["state"], "enabled");
    let (directory, _) = node.stop();
    let said = directory.cli(&["init"]).refused();
    assert!(said.contains("already"), "{said}");
    assert_eq!(directory.serve().user("alice")["state"], "enabled");
}

#[test]
fn a_node_without_init_and_a_node_whose_port_is_taken_do_not_start() {
    let directory = Directory::new();
    directory.cli(&["serve"]).refused();
    directory.cli(&["init"]).done();
    let other = Node::start();
    let config = fs::read_to_string(directory.config()).expect("the file is there");
    for (free, taken) in [
        ("listen = [\"127.0.0.1:0\"]", format!("listen = [\"{}\"]", other.radius)),
        ("listen = \"127.0.0.1:0\"", format!("listen = \"{}\"", other.metrics)),
    ] {
        directory.write_file("watchword.toml", &config.replace(free, &taken));
        let said = directory.cli(&["serve"]).refused();
        assert!(said.contains("cannot listen for"), "{said}");
        let said = directory.cli(&["check"]);
        assert_eq!(said.status, Some(1), "{said}");
        assert!(said.stdout.contains("FAILED"), "{said}");
    }
    directory.write_file("watchword.toml", &config);
    drop(directory.serve());
}

#[test]
fn check_tries_all_that_the_file_names() {
    let directory = Directory::new();
    let ok = |said: Outcome| {
        let text = said.done();
        assert!(
            text.lines().count() == 7 && text.lines().all(|line| line.starts_with("ok ")),
            "{text}"
        );
        text
    };
    let said = ok(directory.cli(&["check"]));
    assert!(said.contains("init makes it"), "{said}");
    assert!(!directory.path("data").exists(), "a check makes nothing");
    directory.cli(&["init"]).done();
    ok(directory.cli(&["check"]));
    let node = directory.serve();
    ok(node.cli(&["check"]));
    let directory = node.kill();
    set_mode(&directory.path("data.key"), 0o644);
    set_mode(&directory.path("data"), 0o755);
    let said = directory.cli(&["check"]);
    assert_eq!(said.status, Some(1), "{said}");
    assert_eq!(said.stderr, "watchword: 2 of the checks failed", "{said}");
    assert!(said.stdout.contains("FAILED  key: "), "{said}");
    assert!(said.stdout.contains("FAILED  data_dir: "), "{said}");
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let node = Node::start();
    let names: Vec<String> = (0..3_000).map(|number| format!("user{number:04}")).collect();
    node.import(&format!("username\n{}\n", names.join("\n")));
    let line = format!(
        "'{}' user list --config '{}' | head -1",
        env!("CARGO_BIN_EXE_watchword"),
        node.directory().config().display()
    );
    let said = run(std::process::Command::new("bash").args(["-o", "pipefail", "-c", &line]), "");
    assert!(said.stderr.is_empty(), "{said}");
    assert!(said.done().contains("USER"));
}

#[test]
fn the_logs_are_lines_for_people_unless_json_is_asked_for() {
    let directory = Directory::initialised();
    let config = fs::read_to_string(directory.config()).expect("the file is there");
    directory.write_file("watchword.toml", &config.replace("format = \"json\"", ""));
    let process = Process::spawn("the node", &mut directory.command(&["serve"]));
    process.wait_for_error("that it has started", |line| {
        (line.contains(" INFO ") && line.contains("node started radius=[127.0.0.1:")).then_some(())
    });
}

/// The command lines of the README that call the program, each as its words.
fn lines_of_the_readme() -> Vec<Vec<String>> {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md"));
    let text = text.expect("there is a README");
    let mut found = Vec::new();
    for line in text.lines() {
        // Inline code stands between backquotes, a line of a block begins with the command.
        for piece in line.split('`') {
            let piece = piece.trim_start_matches("cargo run --release -- ");
            if let Some(rest) = piece.strip_prefix("watchword ") {
                let rest = rest.split(['#', '|', '>', ';']).next().unwrap_or(rest);
                found.push(rest.split_whitespace().map(str::to_owned).collect());
            }
        }
    }
    found
}

#[test]
fn what_the_readme_tells_to_type_exists() {
    let lines = lines_of_the_readme();
    assert!(lines.len() >= 15, "{lines:?}");
    for line in lines {
        let (mut path, mut names) = (Vec::new(), subcommands(&[]).1);
        for word in &line {
            if !names.contains(word) {
                break;
            }
            path.push(word.clone());
            names = subcommands(&path).1;
        }
        assert!(!path.is_empty(), "{line:?} is no command");
        let (help, _) = subcommands(&path);
        for flag in line.iter().filter(|word| word.starts_with("--") && *word != "--help") {
            assert!(help.contains(flag.as_str()), "{line:?}: {path:?} knows no {flag}");
        }
    }
}

#[test]
fn the_readme_lists_what_the_file_may_hold() {
    let directory = Directory::new();
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md"));
    let text = text.expect("there is a README");
    // A key that does not exist is answered by those that do.
    for section in ["key", "key.pkcs11", "peers", "radius", "metrics", "log", "raft"] {
        directory.write_file("watchword.toml", &format!("[{section}]\nno_such_key = 1\n"));
        let said = directory.cli(&["check"]).refused();
        let known: Vec<&str> = said.split('`').skip(3).step_by(2).collect();
        assert!(!known.is_empty(), "{said}");
        for key in known {
            let line = text.lines().find(|line| {
                line.contains(&format!("`[{section}]")) && { line.contains(&format!("{key}`")) }
            });
            assert!(line.is_some(), "the README does not tell of [{section}] {key}");
        }
    }
}
