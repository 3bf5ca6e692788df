//! The data key is replaced while users log in; and what wraps it, while the node is stopped.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use serde_json::Value;
use watchword::backup::{self, Backup};
use watchword::config::Config;
use watchword::keys::{Keyring, Owner};
use watchword::radius::packet::Code;
use watchword_core::State;
use watchword_core::data_key::Secret;
use watchword_core::sealed::KeyId;

use crate::cluster::with_alice;
use crate::faults::{by_role, login};
use crate::harness::{DEADLINE, Directory, Nas, Node, Question, SECRET, code_of};
use crate::radius_login::KEY;

const PASSPHRASE: &str = "correct horse battery";

/// Three nodes with clients for passcodes alone (127.0.0.1) and with passwords (127.0.0.2).
fn nodes(users: usize) -> [Node; 3] {
    let nodes = with_alice(Node::three());
    nodes[0].add_client("wifi", "127.0.0.2", &[]);
    let key = KEY.0;
    let rows = (0..users).map(|user| format!("user{user},,{key}\n"));
    let rows = rows.chain((0..4).map(|user| format!("password{user},swordfish,{key}\n")));
    nodes[0].import(&format!("username,password,hotp_key\n{}", rows.collect::<String>()));
    nodes
}

/// Everything that a node holds, opened.
fn taken_from(node: &Node) -> Backup {
    let passphrase = node.directory().write_file("backup.passphrase", PASSPHRASE);
    let file = node.directory().path("taken");
    let words = [&file, &passphrase].map(|path| path.to_str().expect("UTF-8"));
    node.cli(&["backup", words[0], "--passphrase-file", words[1]]).done();
    let bytes = fs::read(&file).expect("a backup");
    fs::remove_file(&file).expect("removed");
    backup::read(&bytes, PASSPHRASE.as_bytes()).expect("it opens")
}

fn keys_of(node: &Node) -> Vec<Option<KeyId>> {
    let state = taken_from(node).state;
    let mut keys: Vec<_> = state.secrets().map(|(_, sealed)| sealed.key()).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

fn keyring(directory: &Directory) -> Keyring {
    let config = Config::read(&directory.config()).expect("its file");
    Keyring::load(&config.data_dir, &config.key_source().expect("one way")).expect("it opens")
}

fn status(node: &Node) -> Value {
    node.cli(&["status", "--format", "json"]).json()
}

/// One step of a replacement, and no more: what is left when the command is interrupted.
fn step(node: &Node, begin: bool) -> Value {
    let mut answer = String::new();
    ask_for_step(node, begin).read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
    serde_json::from_str(body).expect("JSON")
}

/// Asks for a step; the answer comes on what this returns.
fn ask_for_step(node: &Node, begin: bool) -> UnixStream {
    let socket = node.directory().path("data/admin.sock");
    let mut stream = UnixStream::connect(socket).expect("the node runs");
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout is set");
    let body = format!("{{\"begin\":{begin}}}");
    let request = format!(
        "POST /v1/rekey HTTP/1.1\r\nHost: watchword\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).expect("it is sent");
    stream
}

fn wait_until_given_up(nodes: &[&Node]) {
    for node in nodes {
        node.wait_for_status("the old key is given up", |status| {
            status["data_keys_held"] == 1 && status["rekey_unfinished"] == false
        });
        // What needs no old key is on the disk for good before the old key goes.
        assert_ne!(status(node)["snapshot"], 0);
    }
}

/// Logs users of its own in at `node` until told to stop; each login must be accepted.
fn log_in_until(
    stop: &AtomicBool,
    done: &AtomicU64,
    node: &Node,
    worker: usize,
    passcodes: &[String],
) {
    let mut by_passcode = Nas::new(node);
    let mut by_password = Nas::at("127.0.0.2", node.radius, SECRET);
    for passcode in passcodes {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let alone = Question::login(&format!("user{worker}"), passcode);
        let with_password =
            Question::login(&format!("password{worker}"), &format!("swordfish,{passcode}"));
        for (nas, question) in [(&mut by_passcode, alone), (&mut by_password, with_password)] {
            let sent = nas.sealed(&question);
            nas.send(&sent.bytes);
            assert_eq!(nas.ask_again(&sent).code, Code::AccessAccept);
            done.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Waits for some more logins.
fn wait_for_logins(done: &AtomicU64) {
    let before = done.load(Ordering::Relaxed);
    while done.load(Ordering::Relaxed) < before + 20 {
        thread::yield_now();
    }
}

#[test]
fn the_data_key_is_replaced_while_users_log_in_and_the_old_one_opens_nothing_more() {
    let nodes = nodes(4_500);
    let before = taken_from(&nodes[0]);
    let old_key = keyring(nodes[0].directory()).current().id();
    assert_eq!(keys_of(&nodes[0]), [Some(old_key)]);
    let mut wifi = Nas::at("127.0.0.2", nodes[1].radius, SECRET);
    let asked = wifi.ask(&Question::login("password3", "swordfish"));
    assert_eq!(asked.code, Code::AccessChallenge);
    let passcodes = KEY.passcodes(0, 2_000);
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for (worker, node) in nodes.iter().enumerate() {
            let (stop, done, passcodes) = (&stop, &done, &passcodes);
            scope.spawn(move || log_in_until(stop, done, node, worker, passcodes));
        }
        wait_for_logins(&done);
        let said = nodes[1].cli(&["rekey", "--rotate"]).done();
        assert!(said.contains("all 4512 secrets are sealed under data key"), "{said}");
        wait_until_given_up(&nodes.each_ref());
        wait_for_logins(&done);
        stop.store(true, Ordering::Relaxed);
    });
    // No login was doubled, and each is on all nodes.
    let attempts = done.load(Ordering::Relaxed);
    for node in &nodes {
        node.wait_for_status("all attempts", |status| status["attempts"] == attempts);
    }
    // The challenge was issued under the old key.
    let answer = Question::login("password3", &KEY.passcode(0)).answering(&asked);
    let mut elsewhere = Nas::at("127.0.0.2", nodes[2].radius, SECRET);
    assert_eq!(code_of(&mut elsewhere, &answer), Code::AccessAccept);

    let new_key = keyring(nodes[0].directory()).current().id();
    assert_ne!(new_key, old_key);
    for node in &nodes {
        assert_eq!(keys_of(node), [Some(new_key)]);
        assert_eq!(status(node)["data_key"], new_key.to_string());
    }
    let nodes = nodes.map(|node| node.stop().0);
    for directory in &nodes {
        let keys = keyring(directory);
        assert_eq!(keys.ids(), [new_key]);
        for (secret, sealed) in before.state.secrets() {
            assert!(keys.open(owner(&before.state, secret), sealed).is_err(), "{secret:?}");
        }
        assert!(identity_key(directory) == new_key, "the node's own key is sealed anew");
    }
    // They start with what they hold.
    let nodes = nodes.map(|directory| directory.start_by(|command| command)).map(Node::ready);
    assert_eq!(login(&nodes[0], 0), Code::AccessAccept);
    assert_eq!(login(&nodes[1], 0), Code::AccessReject);
}

/// What a secret is sealed for.
fn owner(state: &State, secret: Secret) -> Owner {
    match secret {
        Secret::UserPassword(id) => Owner::UserPassword(id),
        Secret::DeviceKey(id) => Owner::DeviceKey(id),
        Secret::ClientSecret(id) => Owner::ClientSecret(id),
        Secret::AuthorityKey => {
            Owner::AuthorityKey(state.nodes().authority().expect("founded").cluster)
        }
        Secret::DirectorySecret(id) => Owner::DirectorySecret(id),
    }
}

/// Every secret that the node holds, in the clear.
fn in_the_clear(node: &Node) -> Vec<(Secret, Vec<u8>)> {
    let (state, keys) = (taken_from(node).state, keyring(node.directory()));
    let open = |(secret, sealed)| {
        (secret, keys.open(owner(&state, secret), sealed).expect("it opens").to_vec())
    };
    state.secrets().map(open).collect()
}

/// The key that the node's private key is sealed under.
fn identity_key(directory: &Directory) -> KeyId {
    let text = fs::read_to_string(directory.path("data/identity.json")).expect("it is there");
    let identity: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(identity["sealed_authority_key"], Value::Null);
    let sealed = identity["sealed_key"].as_str().expect("a key");
    let sealed = data_encoding::BASE64.decode(sealed.as_bytes()).expect("base64");
    KeyId::split(&sealed).expect("sealed").0
}

#[test]
fn a_node_that_does_not_answer_is_named_and_nothing_changes() {
    let [first, second, third] = with_alice(Node::three());
    let before = status(&first)["data_key"].clone();
    let third = third.kill();
    let refused = second.cli(&["rekey", "--rotate"]).refused();
    assert!(
        refused.contains("node 3 does not answer; bring it back or remove it first"),
        "{refused}"
    );
    for node in [&first, &second] {
        let status = status(node);
        assert_eq!(
            (&status["data_key"], &status["rekey_unfinished"]),
            (&before, &Value::Bool(false))
        );
        assert_eq!(status["data_keys_held"], 1, "no key was made in vain");
    }
    // Nor does it change when a node is there and cannot write the key down.
    let third = third.serve();
    let key_file = third.directory().path("data.key");
    let aside = third.directory().path("aside.key");
    fs::rename(&key_file, &aside).expect("renamed");
    let refused = first.cli(&["rekey", "--rotate"]).refused();
    assert!(refused.contains("node 3 does not take the new data key: cannot access"), "{refused}");
    for node in [&first, &second, &third] {
        assert_eq!(status(node)["data_key"], before);
    }
    fs::rename(&aside, &key_file).expect("renamed");
    let third = third.kill();
    // One that was admitted and has not come yet counts as well.
    let token = first.token(&[]);
    let waiting = Directory::for_peers();
    waiting.cli(&["join", &first.directory().peers(), "--token", &token, "--no-serve"]).done();
    first.cli(&["remove", "3", "--yes"]).done();
    let refused = first.cli(&["rekey", "--rotate"]).refused();
    assert!(refused.contains("node 4 does not answer"), "{refused}");
    let fourth = waiting.serve();
    first.cli(&["rekey", "--rotate"]).done();
    wait_until_given_up(&[&first, &second, &fourth]);
    assert_ne!(status(&fourth)["data_key"], before);
    assert_eq!(login(&fourth, 0), Code::AccessAccept);
    drop(third);
}

#[test]
fn a_replacement_that_was_interrupted_is_gone_on_with_whatever_happened_meanwhile() {
    let [first, second, third] = nodes(10);
    let old = keyring(first.directory()).current().id();
    let begun = step(&first, true);
    assert!(begun["begun"] == true && begun["is_finished"] == false, "{begun}");
    let said = second.cli(&["status"]).done();
    assert!(said.contains("UNFINISHED, run: watchword rekey --rotate"), "{said}");
    // Everything goes on: logins, changes, and what is added is sealed under the new key.
    assert_eq!(login(&third, 0), Code::AccessAccept);
    second.cli_with(&["user", "add", "carol", "--password"], "correct horse\n").done();
    third.add_client("lan", "127.0.0.3", &[]);
    second.cli(&["client", "edit", "wifi", "--passcode-input", "challenge"]).done();
    let new: KeyId = taken_from(&second).state.data_keys().current.expect("a key");
    assert_ne!(new, old);
    // A node that comes in the middle needs both keys; so does a backup.
    let fourth = Directory::for_peers().join(&first, &first.token(&[]));
    assert_eq!(login(&fourth, 1), Code::AccessAccept);
    let restored = restore_from(&fourth);
    // A node that is down goes on with it when it is back, also if it was the one that was asked.
    let (first, third) = (first.kill().serve(), third.kill());
    let said = second.cli(&["rekey", "--rotate"]).done();
    assert!(said.contains("this was begun before and is finished now"), "{said}");
    let third = third.serve();
    let nodes = [&first, &second, &third, &fourth];
    wait_until_given_up(&nodes);
    for (counter, node) in (2..).zip(nodes) {
        assert_eq!(keys_of(node), [Some(new)]);
        assert_eq!(keyring(node.directory()).ids(), [new]);
        assert_eq!(login(node, counter), Code::AccessAccept);
    }
    // The cluster that was made from the backup stands where the backup stood.
    assert_eq!(status(&restored)["rekey_unfinished"], true);
    restored.cli(&["rekey", "--rotate"]).done();
    wait_until_given_up(&[&restored]);
    assert_eq!(keys_of(&restored), [Some(new)]);
    assert_eq!(login(&restored, 13), Code::AccessAccept);
    // Whoever is left alone goes on with the new key.
    let directory = second.kill();
    drop((first, third, fourth));
    directory.cli(&["recover", "--yes"]).done();
    let alone = directory.serve();
    assert_eq!(login(&alone, 6), Code::AccessAccept);
    alone.cli(&["rekey", "--rotate"]).done();
    wait_until_given_up(&[&alone]);
    assert_ne!(keys_of(&alone), [Some(new)]);
}

#[test]
fn a_leader_that_dies_while_it_seals_anew_takes_nothing_along() {
    let (leader, [second, third]) = by_role(nodes(4_500));
    let before = in_the_clear(&leader);
    let old = keyring(leader.directory()).current().id();
    let passcodes = KEY.passcodes(0, 2_000);
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let leader = thread::scope(|scope| {
        for (worker, node) in [&second, &third].into_iter().enumerate() {
            let (stop, done, passcodes) = (&stop, &done, &passcodes);
            scope.spawn(move || log_in_until(stop, done, node, worker, passcodes));
        }
        wait_for_logins(&done);
        assert_eq!(step(&leader, true)["left"], 4_512);
        second.wait_for_status("it has begun", |status| status["rekey_unfinished"] == true);
        let entries = |status: &Value| {
            let number = |name: &str| status[name].as_u64().expect("a number");
            number("applied") - number("attempts")
        };
        let begun = entries(&status(&second));
        // The answer never comes. This step alone cannot seal all of them.
        let _answer = ask_for_step(&leader, false);
        second.wait_for_status("it is under way", |status| entries(status) > begun + 5);
        let leader = leader.kill();
        wait_for_logins(&done);
        assert_eq!(status(&second)["rekey_unfinished"], true);
        let said = second.cli(&["rekey", "--rotate"]).done();
        assert!(said.contains("all 4512 secrets are sealed under data key"), "{said}");
        assert!(said.contains("this was begun before and is finished now"), "{said}");
        let leader = leader.serve();
        wait_until_given_up(&[&leader, &second, &third]);
        wait_for_logins(&done);
        stop.store(true, Ordering::Relaxed);
        leader
    });
    let attempts = done.load(Ordering::Relaxed);
    let new = keyring(second.directory()).current().id();
    assert_ne!(new, old);
    for node in [&leader, &second, &third] {
        node.wait_for_status("all attempts", |status| status["attempts"] == attempts);
        assert_eq!(keyring(node.directory()).ids(), [new]);
        assert_eq!(keys_of(node), [Some(new)]);
        assert!(in_the_clear(node) == before, "every secret is what it was");
    }
    assert_eq!(login(&leader, 0), Code::AccessAccept);
}

/// A new cluster from a backup of `node`.
fn restore_from(node: &Node) -> Node {
    let passphrase = node.directory().write_file("backup.passphrase", PASSPHRASE);
    let file = node.directory().path("to-restore");
    let words = [&file, &passphrase].map(|path| path.to_str().expect("UTF-8"));
    node.cli(&["backup", words[0], "--passphrase-file", words[1]]).done();
    let new = Directory::for_peers();
    new.cli(&["restore", words[0], "--passphrase-file", words[1]]).done();
    new.serve()
}

#[test]
fn a_node_that_crashes_between_two_writes_starts_and_goes_on() {
    let directory = Directory::for_peers();
    directory.cli(&["init"]).done();
    let node = directory.serve();
    node.add_client("vpn", "127.0.0.1", &["--first-factor", "none"]);
    node.import(&format!("username,hotp_key\nalice,{}\n", KEY.0));
    assert_eq!(step(&node, true)["is_finished"], false);
    let read = |directory: &Directory, name: &str| {
        let text = fs::read_to_string(directory.path(name)).expect("it is there");
        (name.to_owned(), text)
    };
    let files = ["data/keyring.json", "data/identity.json"];
    let before = files.map(|name| read(node.directory(), name));
    node.cli(&["rekey", "--rotate"]).done();
    wait_until_given_up(&[&node]);
    let (mut directory, _) = node.stop();
    let new = keyring(&directory).current().id();
    // The identity is written first, then the keyring: one of the two is old, or both are.
    for (counter, old) in (0..).zip([&before[..1], &before[..]]) {
        for (name, text) in old {
            directory.write_file(name, text);
        }
        assert_eq!(keyring(&directory).ids().len(), 2);
        let node = directory.serve();
        wait_until_given_up(&[&node]);
        assert_eq!(login(&node, counter), Code::AccessAccept);
        directory = node.kill();
        assert_eq!(keyring(&directory).ids(), [new]);
        assert_eq!(identity_key(&directory), new);
    }
}

#[test]
fn what_wraps_the_data_key_is_changed_while_the_node_is_stopped() {
    let directory = Directory::initialised();
    let node = directory.serve();
    let key = *keyring(node.directory()).current().as_bytes();
    let file = fs::read_to_string(node.directory().config()).expect("its file");
    let by_key = "[key]\nkey_file = \"data.key\"\n";
    node.directory().write_file("wrapping.passphrase", "correct horse\n");
    node.directory().write_file("old.toml", &file);
    let other = file.replace(by_key, "[key]\npassphrase_file = \"wrapping.passphrase\"\n");
    node.directory().write_file("watchword.toml", &other);
    let wrap = |directory: &Directory, old: &str| {
        let old = directory.path(old);
        directory.cli(&["rekey", "--wrap", "--old-config", old.to_str().expect("UTF-8")])
    };
    let refused = wrap(node.directory(), "old.toml").refused();
    assert!(refused.contains("the node is running; stop it first"), "{refused}");
    let (directory, _) = node.stop();
    let refused = directory.cli(&["serve"]).refused();
    assert!(refused.contains("wrapped by a key file or credential"), "{refused}");
    assert!(refused.contains("watchword rekey --wrap --old-config FILE"), "{refused}");
    let before = fs::read(directory.path("data/keyring.json")).expect("it is there");
    let wrong = file.replace("data.key", "absent.key");
    directory.write_file("wrong.toml", &wrong);
    assert!(wrap(&directory, "wrong.toml").refused().contains("absent.key"));
    directory.write_file("none.toml", "[key]\n");
    assert!(wrap(&directory, "none.toml").refused().contains("needs exactly one of"));
    let same = wrap(&directory, "watchword.toml").refused();
    assert!(same.contains("is the same; edit"), "{same}");
    assert_eq!(fs::read(directory.path("data/keyring.json")).expect("it is there"), before);
    directory.cli(&["rekey", "--wrap"]).misused();
    directory.cli(&["rekey"]).misused();
    directory.cli(&["rekey", "--rotate", "--old-config", "old.toml"]).misused();

    let said = wrap(&directory, "old.toml").done();
    assert!(said.contains("the data key is wrapped by ") && said.contains("passphrase"), "{said}");
    assert!(wrap(&directory, "old.toml").done().contains("already"), "asked twice");
    assert_eq!(*keyring(&directory).current().as_bytes(), key);
    let node = directory.serve();
    // While the node runs, the passphrase is needed again.
    node.cli(&["rekey", "--rotate"]).done();
    wait_until_given_up(&[&node]);
    let (directory, _) = node.stop();
    let key = *keyring(&directory).current().as_bytes();
    // Back, with a copy that holds [key] alone.
    directory.write_file("old.toml", "[key]\npassphrase_file = \"wrapping.passphrase\"\n");
    directory.write_file("watchword.toml", &file);
    fs::remove_file(directory.path("data.key")).expect("removed");
    wrap(&directory, "old.toml").done();
    assert!(Path::new(&directory.path("data.key")).exists(), "a missing key file is made");
    assert_eq!(*keyring(&directory).current().as_bytes(), key);
    directory.serve();
}
