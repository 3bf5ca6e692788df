//! Directories: first factors that OpenLDAP knows, and directories that hang, lie and go away.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use serde_json::json;
use watchword::radius::packet::Code;

use crate::harness::{Certificates, Nas, Node, Question, READER, SECRET, Slapd, run};
use crate::radius_login::KEY;

/// How long a test waits for an answer that must not come.
const SILENCE: Duration = Duration::from_millis(1_500);

/// A node that knows people by their tokens alone.
fn node(people: &[&str]) -> Node {
    let node = Node::start();
    let rows: String = people.iter().map(|name| format!("{name},{}\n", KEY.0)).collect();
    node.import(&format!("username,hotp_key\n{rows}"));
    node
}

/// Adds directory `corp`, and a client that asks it.
fn ask_directory(node: &Node, arguments: &[&str]) {
    node.cli(&[&["directory", "add", "ldap", "corp", "--timeout", "1s"], arguments].concat())
        .done();
    node.add_client("vpn", "127.0.0.1", &["--first-factor", "corp"]);
}

/// Adds it with a search, and the server's own words for whom it searches.
fn ask_by_search(node: &Node, server: &[&str], certificates: &Certificates) {
    let secret = node.directory().write_file("reader.secret", READER.1).display().to_string();
    let search = [
        "--base",
        "dc=example,dc=org",
        "--filter",
        "(uid={user})",
        "--account",
        READER.0,
        "--account-password-file",
        &secret,
        "--ca-file",
        &certificates.authority(),
    ];
    ask_directory(node, &[server, &search].concat());
}

fn typed(name: &str, counter: u64) -> String {
    format!("{},{}", Slapd::password(name), KEY.passcode(counter))
}

#[test]
fn a_password_is_what_the_directory_takes_and_the_passcode_is_asked_for_as_ever() {
    let certificates = Certificates::new();
    let slapd = Slapd::start(&certificates, &["alice", "bob"]);
    for server in [&slapd.ldap, &slapd.ldaps] {
        let node = node(&["alice", "carol"]);
        ask_by_search(&node, &["--server", server], &certificates);
        let mut nas = Nas::new(&node);
        assert_eq!(nas.login("alice", &typed("alice", 0)), Code::AccessAccept, "{server}");
        let asked = nas.ask(&Question::login("ALICE@example.org", &Slapd::password("alice")));
        assert_eq!(asked.code, Code::AccessChallenge);
        let answer = Question::login("alice", &KEY.passcode(1)).answering(&asked);
        assert_eq!(nas.ask(&answer).code, Code::AccessAccept);
        assert_eq!(nas.login("alice", "another password"), Code::AccessReject);
        assert_eq!(node.last_reason(), "wrong password");
        // A password is no password when nothing is typed: the directory would let anybody in by it.
        assert_eq!(nas.login("alice", ""), Code::AccessReject);
        assert_eq!(nas.login("alice", &format!(",{}", KEY.passcode(2))), Code::AccessReject);
        // Who is in one of both only is nobody.
        assert_eq!(nas.login("bob", &typed("bob", 0)), Code::AccessReject);
        assert_eq!(node.last_reason(), "unknown user");
        assert_eq!(nas.login("carol", &typed("carol", 0)), Code::AccessReject);
        assert_eq!(node.last_reason(), "user has no password");
    }
}

#[test]
fn users_may_bind_by_a_template_and_servers_be_known_by_their_fingerprint() {
    let certificates = Certificates::new();
    let slapd = Slapd::start(&certificates, &["alice"]);
    let node = node(&["alice"]);
    let template = "uid={user},ou=people,dc=example,dc=org";
    let pinned = ["--server", &slapd.ldaps, "--fingerprint", &certificates.fingerprint];
    ask_directory(&node, &[&pinned[..], &["--template", template]].concat());
    let mut nas = Nas::new(&node);
    assert_eq!(nas.login("alice", &typed("alice", 0)), Code::AccessAccept);
    // One digit of the digest is another: nobody is asked any more, and nobody refused.
    let other = certificates.fingerprint.replace(&certificates.fingerprint[..1], "_");
    let digit = if certificates.fingerprint.starts_with('0') { "1" } else { "0" };
    let other = other.replacen('_', digit, 1).replace('_', &certificates.fingerprint[..1]);
    node.cli(&["directory", "edit", "ldap", "corp", "--fingerprint", &other]).done();
    let sent = nas.sealed(&Question::login("alice", &typed("alice", 1)));
    nas.send(&sent.bytes);
    assert_eq!(nas.receive_any(SILENCE), None, "a server that may be anybody's");
}

#[test]
fn a_name_stays_a_name_in_filters_and_distinguished_names() {
    let certificates = Certificates::new();
    let slapd = Slapd::start(&certificates, &["alice"]);
    let names = ["*", "alice)(uid=*", "alice*", "alice,ou=people", "alice)(objectClass=*)"];
    let node = node(&["alice"]);
    node.import(&names.iter().fold("username,hotp_key\n".to_owned(), |rows, name| {
        format!("{rows}\"{name}\",{}\n", KEY.0)
    }));
    ask_by_search(&node, &["--server", &slapd.ldap], &certificates);
    let mut nas = Nas::new(&node);
    for name in names {
        assert_eq!(nas.login(name, &typed("alice", 0)), Code::AccessReject, "{name}");
        assert_eq!(node.last_reason(), "user has no password", "{name}");
    }
    assert_eq!(nas.login("alice", &typed("alice", 0)), Code::AccessAccept);
    let log = slapd.log();
    assert!(log.contains("(uid=\\2A)") || log.contains("(uid=\\2a)"), "{log}");
}

#[test]
fn the_next_server_is_asked_when_one_goes_away() {
    let certificates = Certificates::new();
    let mut first = Slapd::start(&certificates, &["alice"]);
    let second = Slapd::start(&certificates, &["alice"]);
    let node = node(&["alice"]);
    let servers = ["--server", &first.ldaps, "--server", &second.ldap];
    ask_by_search(&node, &servers, &certificates);
    let mut nas = Nas::new(&node);
    assert_eq!(nas.login("alice", &typed("alice", 0)), Code::AccessAccept);
    assert!(!second.log().contains("BIND dn=\"uid=alice"), "the preferred one is asked");
    first.kill();
    for counter in 1..4 {
        assert_eq!(nas.login("alice", &typed("alice", counter)), Code::AccessAccept);
    }
    assert!(second.log().contains("BIND dn=\"uid=alice"));
    drop(second);
    let sent = nas.sealed(&Question::login("alice", &typed("alice", 4)));
    nas.send(&sent.bytes);
    assert_eq!(nas.receive_any(SILENCE), None, "nobody says that the password is wrong");
}

#[test]
fn a_directory_sees_no_more_wrong_passwords_than_the_limit() {
    let certificates = Certificates::new();
    let slapd = Slapd::start(&certificates, &["alice"]);
    let node = node(&["alice"]);
    ask_by_search(&node, &["--server", &slapd.ldap], &certificates);
    node.cli(&["settings", "set", "lockout.password_failures", "3"]).done();
    let mut nas = Nas::new(&node);
    let guesses: Vec<_> =
        (0..40).map(|number| Question::login("alice", &format!("guess {number}"))).collect();
    let answers = nas.ask_all(&guesses);
    assert!(answers.iter().all(|answer| answer.code == Code::AccessReject));
    let log = slapd.log();
    let refused =
        log.lines().filter(|line| line.contains("RESULT") && line.contains("err=49")).count();
    assert_eq!(refused, 3, "{log}");
    assert_eq!(nas.login("alice", &typed("alice", 0)), Code::AccessReject);
    assert_eq!(node.last_reason(), "locked after failed passwords");
}

#[test]
fn a_directory_that_hangs_or_lies_holds_up_nobody_else() {
    let node = node(&["alice"]);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    // What each connection is answered with. The last is a message that nests without end.
    let levels: u32 = 200_000;
    let nested = (0..levels).flat_map(|level| {
        let [_, high, middle, low] = (5 * (levels - level - 1)).to_be_bytes();
        [0x30, 0x83, high, middle, low]
    });
    let answers: Vec<Vec<u8>> = vec![
        Vec::new(),
        b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
        vec![0x30, 0x84, 0x7f, 0xff, 0xff, 0xff],
        vec![0x30, 12, 2, 1, 1, 0x61, 7, 10, 1, 0, 4, 1, 0xff, 4, 0],
        vec![0x30, 5, 2, 1, 1, 0x61, 0],
        nested.collect(),
    ];
    let count = answers.len();
    thread::spawn(move || {
        let mut open = Vec::new();
        for (connection, answer) in listener.incoming().zip(answers.into_iter().cycle()) {
            let mut connection = connection.expect("a connection");
            let mut asked = [0; 512];
            _ = connection.read(&mut asked);
            _ = connection.write_all(&answer);
            // Neither closed nor answered any more.
            open.push(connection);
        }
    });
    let server = format!("ldap://{address}");
    ask_directory(
        &node,
        &["--server", &server, "--unprotected", "yes", "--template", "uid={user},dc=example"],
    );
    node.add_client("host", "127.0.0.2", &["--first-factor", "none"]);
    let mut host = Nas::at("127.0.0.2", node.radius, SECRET);
    for counter in 0..count {
        let test = ["directory", "test", "corp", "alice", "--format", "json"];
        let said = run(&mut node.directory().command(&test), "a password\n");
        assert_eq!(said.status, Some(1), "{said}");
        assert!(said.stdout.contains("\"accepted\": false"), "{said}");
        let mut nas = Nas::new(&node);
        let sent = nas.sealed(&Question::login("alice", "a password"));
        nas.send(&sent.bytes);
        // Meanwhile.
        let passcode = KEY.passcode(u64::try_from(counter).expect("few"));
        assert_eq!(host.login("alice", &passcode), Code::AccessAccept);
    }
    assert_eq!(node.attempts().len(), count, "nothing was decided about the password");
    assert!(!node.process().errors().contains("panicked"), "{}", node.process());
}

#[test]
fn a_directory_is_added_tested_listed_changed_and_removed() {
    let certificates = Certificates::new();
    let slapd = Slapd::start(&certificates, &["alice"]);
    let node = node(&["alice"]);
    ask_by_search(&node, &["--server", &slapd.ldap, "--server", &slapd.ldaps], &certificates);
    let test = |name: &str, password: &str| {
        let test = ["directory", "test", "corp", name, "--format", "json"];
        run(&mut node.directory().command(&test), &format!("{password}\n"))
    };
    let said = test("alice", &Slapd::password("alice")).json();
    assert_eq!(said.as_array().map(Vec::len), Some(2), "each server: {said}");
    assert!(said[0]["accepted"] == true && said[1]["accepted"] == true, "{said}");
    let wrong = test("alice", "another");
    assert_eq!(wrong.status, Some(1));
    assert!(wrong.stderr.contains("the password is wrong"), "{wrong}");
    assert!(test("bob", "another").stderr.contains("the user is unknown"));

    let listed = || node.cli(&["directory", "list", "--format", "json"]).json()[0].clone();
    let shown = listed();
    assert_eq!(shown["ldap"]["security"], json!(["starttls", "tls"]), "{shown}");
    assert_eq!(shown["ldap"]["trust"], "authorities", "{shown}");
    assert_eq!(shown["clients"], json!(["vpn"]), "{shown}");
    assert!(!shown.to_string().contains(READER.1), "{shown}");
    node.cli(&["directory", "edit", "ldap", "corp", "--rename", "people", "--timeout", "5s"])
        .done();
    assert_eq!((&listed()["name"], &listed()["timeout_ms"]), (&json!("people"), &json!(5_000)));
    let client = node.cli(&["client", "list", "--format", "json"]).json();
    assert_eq!(client[0]["first_factor"], "people");
    assert_eq!(Nas::new(&node).login("alice", &typed("alice", 0)), Code::AccessAccept);

    node.cli(&["directory", "remove", "people"]).refused();
    node.cli(&["client", "edit", "vpn", "--first-factor", "local,people"]).done();
    node.cli(&["directory", "remove", "people"]).refused();
    node.cli(&["client", "edit", "vpn", "--first-factor", "nobody"]).refused();
    node.cli(&["client", "edit", "vpn", "--first-factor", "local"]).done();
    assert_eq!(node.cli(&["directory", "remove", "people"]).done(), "directory people removed");
    for arguments in [
        &["--server", "http://a", "--template", "{user}"][..],
        &["--server", "ldaps://a", "--template", "alice"],
        &["--server", "ldaps://a", "--base", "dc=a", "--filter", "(uid=alice)"],
        &["--server", "ldaps://a", "--template", "{user}", "--fingerprint", "ab"],
        &["--template", "{user}"],
    ] {
        node.cli(&[&["directory", "add", "ldap", "corp"], arguments].concat()).refused();
    }
}
