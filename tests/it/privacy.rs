//! Secrets do not lie about: not in the log, not in the files, not in the lines for the operator.

use std::fs;
use std::path::Path;
use std::process::Command;

use data_encoding::{BASE32_NOPAD, BASE64_NOPAD, HEXLOWER, HEXUPPER};
use watchword::radius::packet::Code;

use crate::harness::{Directory, Nas, Node, Process, Question, SECRET, code_of, oathtool};

const KEY: &str = "a-key-nobody-may-see";
const OTHER_KEY: &str = "second-key-in-hiding";
const PASSWORD: &str = "never-on-any-medium-1";
const OTHER_PASSWORD: &str = "never-on-any-medium-2";
const PASSPHRASE: &str = "for-the-backup-and-nobody-else";
const TYPED_WRONG: &str = "a-wrong-guess-is-private-too";

/// The ways in which somebody might have written `secret` down.
fn spellings(secret: &str) -> Vec<String> {
    let octets = secret.as_bytes();
    let decimals =
        |separator: &str| octets.iter().map(u8::to_string).collect::<Vec<_>>().join(separator);
    vec![
        secret.to_owned(),
        BASE32_NOPAD.encode(octets),
        BASE32_NOPAD.encode(octets).to_lowercase(),
        HEXLOWER.encode(octets),
        HEXUPPER.encode(octets),
        BASE64_NOPAD.encode(octets),
        decimals(","),
        decimals(", "),
    ]
}

/// All files below `dir`. What is no text in them is of no interest: the secrets are ASCII.
fn files(dir: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("the directory is there") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.is_file() {
            found.push((path.display().to_string(), text(&path)));
        }
    }
    found
}

fn text(file: &Path) -> String {
    String::from_utf8_lossy(&fs::read(file).expect("the file is there")).into_owned()
}

/// None of `secrets` shows in any place, however it is spelt.
fn assert_hidden(secrets: &[&str], places: &[(String, String)]) {
    for (place, text) in places {
        for spelling in secrets.iter().flat_map(|secret| spellings(secret)) {
            assert!(!text.contains(&spelling), "{spelling} is in {place}");
        }
    }
}

/// Writes every packet to and from these TCP ports of the loopback device to `file`, whole.
fn capture(ports: &[String], file: &Path) -> Process {
    let filter =
        ports.iter().map(|port| format!("tcp port {port}")).collect::<Vec<_>>().join(" or ");
    let mut command = Command::new("tcpdump");
    command.args(["-i", "lo", "--immediate-mode", "-U", "-Z", "root", "-s", "0", "-w"]).arg(file);
    let capture = Process::spawn("tcpdump", command.arg(filter));
    capture.wait_for_error("that it listens", |line| line.contains("listening on").then_some(()));
    capture
}

/// A node that tells its log everything it ever tells.
fn talkative() -> Node {
    let directory = Directory::initialised();
    let config = fs::read_to_string(directory.config()).expect("the file is there");
    directory.write_file("watchword.toml", &format!("{config}level = \"trace\"\n"));
    directory.serve()
}

#[test]
fn no_secret_is_in_the_clear_in_store_or_log() {
    let node = talkative();
    node.add_client("vpn", "127.0.0.1", &[]);
    node.cli_with(&["user", "add", "jo-in-the-clear", "--password"], &format!("{PASSWORD}\n"))
        .done();
    let key = BASE32_NOPAD.encode(KEY.as_bytes());
    let add = ["device", "add", "jo-in-the-clear", "hotp", "--digits", "8", "--key", &key];
    node.cli(&add).done();
    let other = BASE32_NOPAD.encode(OTHER_KEY.as_bytes());
    node.import(&format!("username,password,totp_key\nmo,{OTHER_PASSWORD},{other}\n"));
    let mut nas = Nas::new(&node);
    let passcode = oathtool(&["--hotp", "-b", "-d", "8", "-c", "0", &key]);
    let asked = nas.ask(&Question::login("jo-in-the-clear", PASSWORD));
    let answer = Question::login("jo-in-the-clear", &passcode).answering(&asked);
    assert_eq!(code_of(&mut nas, &answer), Code::AccessAccept);
    assert_eq!(nas.login("jo-in-the-clear", TYPED_WRONG), Code::AccessReject);
    assert_eq!(nas.login("mo", &format!("{OTHER_PASSWORD},98765432")), Code::AccessReject);
    node.cli_with(&["test", "jo-in-the-clear"], &format!("{PASSWORD},98765432\n")).refused();
    node.cli_with(&["user", "edit", "mo", "--password"], &format!("{PASSWORD}\n")).done();
    // A body that the node cannot read must not be read out to the log either.
    node.cli(&["device", "add", "nobody", "hotp", "--key", &key]).refused();
    let (directory, log) = node.stop();
    assert!(log.contains("\"level\":\"TRACE\"") || log.contains("\"level\":\"DEBUG\""), "{log}");

    let text = directory.cli(&["log", "dump"]).done();
    let json = directory.cli(&["log", "dump", "--format", "json"]).done();
    for line in json.lines() {
        let entry: serde_json::Value = serde_json::from_str(line).expect("a line is JSON");
        assert!(entry["index"].is_u64() || entry["snapshot"].is_u64(), "{line}");
    }
    let mut places = files(&directory.path("data"));
    assert!(places.len() >= 4, "{}", places.len());
    places.push(("the log".to_owned(), log));
    places.push(("log dump".to_owned(), text));
    places.push(("log dump --format json".to_owned(), json));
    let secrets =
        [KEY, OTHER_KEY, PASSWORD, OTHER_PASSWORD, TYPED_WRONG, SECRET, passcode.as_str()];
    assert_hidden(&secrets, &places);
    // The search finds what is there: names are not secret.
    for place in ["data/raft/sled/db", "log dump", "log dump --format json"] {
        let found = places
            .iter()
            .any(|(name, text)| name.ends_with(place) && text.contains("jo-in-the-clear"));
        assert!(found, "the search is blind in {place}");
    }
}

#[test]
fn no_secret_is_in_the_clear_between_nodes_or_in_a_backup() {
    let directories = [(); 3].map(|()| Directory::for_peers());
    let [home, ..] = &directories;
    let file = home.path("peers.pcap");
    let port = |directory: &Directory| directory.peers().rsplit(':').next().expect("a port").into();
    let mut capture = capture(&directories.each_ref().map(port), &file);

    let [first, second, third] = directories;
    first.cli(&["init"]).done();
    let first = first.serve();
    let token = first.token(&["--uses", "2"]);
    let [second, third] = [second, third].map(|directory| directory.join(&first, &token));
    first.wait_for_voters(3);
    // Through a follower, so that all of it is forwarded, too.
    second.add_client("vpn", "127.0.0.1", &[]);
    let key = BASE32_NOPAD.encode(KEY.as_bytes());
    second.import(&format!("username,password,hotp_key\njo-in-the-clear,{PASSWORD},{key}\n"));
    let mut nas = Nas::new(&third);
    let passcode = oathtool(&["--hotp", "-b", "-d", "6", "-c", "0", &key]);
    let login = format!("{PASSWORD},{passcode}");
    assert_eq!(nas.login("jo-in-the-clear", &login), Code::AccessAccept);
    assert_eq!(nas.login("jo-in-the-clear", TYPED_WRONG), Code::AccessReject);
    let passphrase = second.directory().write_file("passphrase", PASSPHRASE);
    let backup = second.directory().path("a.backup");
    let [backup_path, passphrase] =
        [&backup, &passphrase].map(|path| path.to_str().expect("UTF-8"));
    second.cli(&["backup", backup_path, "--passphrase-file", passphrase]).done();

    let mut places = vec![("the backup".to_owned(), text(&backup))];
    for node in [third, second] {
        let (directory, log) = node.stop();
        places.push(("the log".to_owned(), log));
        places.extend(files(&directory.path("data")));
    }
    capture.signal("INT");
    assert!(capture.wait().success(), "{capture}");
    let packets = text(&file);
    // The name of the peer that is called goes before the encryption.
    assert!(packets.contains("node-2."), "the capture is blind");
    places.push(("the capture".to_owned(), packets));
    let secrets = [KEY, PASSWORD, TYPED_WRONG, SECRET, PASSPHRASE, &passcode, &token];
    assert_hidden(&secrets, &places);
}

#[test]
fn the_dump_shows_the_log_in_order_and_needs_the_node_to_be_stopped() {
    let node = Node::start();
    node.import("username\njo\n");
    node.cli(&["settings", "set", "block.days", "7"]).done();
    let said = node.cli(&["log", "dump"]).refused();
    assert!(said.contains("in use by another process"), "{said}");
    let (directory, _) = node.stop();
    let text = directory.cli(&["log", "dump"]).done();
    assert!(text.starts_with("vote term "), "{text}");
    let indices: Vec<u64> = text
        .lines()
        .skip(1)
        .filter_map(|line| line.split(' ').next().and_then(|index| index.parse().ok()))
        .collect();
    assert!(indices.len() >= 4 && indices.is_sorted(), "{text}");
    let added = text.lines().position(|line| line.contains("AddUser") && line.contains("\"jo\""));
    let set = text.lines().position(|line| line.contains("block.days"));
    assert!(added.is_some() && added < set, "{text}");
    // Looking changes nothing.
    assert_eq!(directory.cli(&["log", "dump"]).done(), text);
    let node = directory.serve();
    assert_eq!(node.user("jo")["state"], "enabled");
}
