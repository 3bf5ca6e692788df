//! RADIUS servers as directories: FreeRADIUS knows the passwords, and what sessions are allowed.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use watchword::radius::attribute::AttributeType;
use watchword::radius::hidden;
use watchword::radius::packet::{Code, Packet};
use watchword::radius::reply::Reply;
use watchword::radius::secret::Secret;

use crate::harness::{
    Certificates, DEADLINE, FreeRadius, Nas, Node, Question, SECRET, eapol_test, radclient, run,
};
use crate::radius_login::KEY;

/// How long a test waits for an answer that must not come.
const SILENCE: Duration = Duration::from_millis(1_500);

/// Adds directory `far`, whose servers are `servers`, a client that asks it, and alice's token.
fn ask_target(node: &Node, servers: &[&str], more: &[&str]) {
    let secret = node.directory().write_file("far.secret", FreeRadius::SECRET);
    let secret = secret.to_str().expect("UTF-8");
    let add = ["directory", "add", "radius", "far", "--timeout", "1s", "--secret-file", secret];
    let servers: Vec<&str> = servers.iter().flat_map(|server| ["--server", server]).collect();
    node.cli(&[&add[..], &servers, more].concat()).done();
    node.add_client("vpn", "127.0.0.1", &["--first-factor", "far"]);
    node.import(&format!("username,hotp_key\nalice,{}\n", KEY.0));
}

fn typed(counter: u64) -> String {
    format!("{},{}", FreeRadius::password("alice"), KEY.passcode(counter))
}

/// Lets alice in once without a passcode.
fn grant_bypass(node: &Node) {
    node.cli(&["user", "bypass", "alice", "--reason", "test"]).done();
}

#[test]
fn a_password_is_what_the_target_takes_and_its_attributes_come_with_the_accept() {
    let target = FreeRadius::start(&Certificates::new(), &["alice"]);
    let node = Node::start();
    ask_target(&node, &[&target.address.to_string()], &[]);
    let mut nas = Nas::new(&node);
    let sent = nas.sealed(&Question::login("alice", &typed(0)).with(AttributeType::CLASS, b"x"));
    nas.send(&sent.bytes);
    let accept = nas.receive(&sent);
    assert_eq!(accept.code, Code::AccessAccept);
    let texts = |kind| accept.all(kind).map(<[u8]>::to_vec).collect::<Vec<_>>();
    assert_eq!(texts(AttributeType::FILTER_ID), [FreeRadius::FILTER.as_bytes()]);
    assert_eq!(texts(AttributeType::CLASS), [[1, 2, 3]]);
    // Hidden under the secret of this hop, and bound to its request.
    let hidden = accept.first(AttributeType::TUNNEL_PASSWORD).expect("a tunnel's password");
    let request = Packet::parse(&sent.bytes).expect("well formed");
    let secret = Secret::new(SECRET.as_bytes()).expect("a secret");
    let clear = hidden::reveal(&hidden[1..], &secret, &request.authenticator).expect("opens");
    assert_eq!(&clear[..], b"tunnel of alice");

    let reject = nas.ask(&Question::login("alice", "another password"));
    assert_eq!(reject.code, Code::AccessReject);
    assert_eq!(node.last_reason(), "wrong password");
    assert_eq!(reject.first(AttributeType::FILTER_ID), None, "a reject configures nothing");
    // A right password and a wrong passcode get nothing of the session either.
    let wrong = format!("{},{}", FreeRadius::password("alice"), KEY.wrong_passcode(1));
    let reject = nas.ask(&Question::login("alice", &wrong));
    assert_eq!((reject.code, reject.first(AttributeType::FILTER_ID)), (Code::AccessReject, None));
    assert_eq!(node.last_reason(), "wrong passcode");
}

#[test]
fn the_accept_is_held_until_the_passcode_has_come_to_any_node() {
    let target = FreeRadius::start(&Certificates::new(), &["alice"]);
    let [first, second, third] = Node::three();
    ask_target(&first, &[&target.address.to_string()], &[]);
    let asked = Nas::new(&first).ask(&Question::login("alice", &FreeRadius::password("alice")));
    assert_eq!(asked.code, Code::AccessChallenge);
    assert_eq!(asked.first(AttributeType::FILTER_ID), None, "nothing of the session yet");
    first.kill();
    let mut nas = Nas::new(&second);
    let sent = nas.sealed(&Question::login("alice", &KEY.passcode(0)).answering(&asked));
    nas.send(&sent.bytes);
    let accept = nas.receive(&sent);
    assert_eq!(accept.code, Code::AccessAccept);
    assert_eq!(accept.first(AttributeType::FILTER_ID), Some(FreeRadius::FILTER.as_bytes()));
    // A copy at yet another node repeats all of it.
    let elsewhere = Nas::new(&third);
    elsewhere.send(&sent.bytes);
    let again = elsewhere.receive(&sent);
    assert_eq!(again.code, Code::AccessAccept);
    assert_eq!(again.first(AttributeType::FILTER_ID), Some(FreeRadius::FILTER.as_bytes()));
    assert_eq!(again.first(AttributeType::CLASS), Some(&[1, 2, 3][..]));
    assert_eq!(third.attempts().len(), 1);
}

#[test]
fn a_copy_of_a_login_without_challenge_gets_the_same_attributes_elsewhere() {
    let target = FreeRadius::start(&Certificates::new(), &["alice"]);
    let nodes = Node::three();
    ask_target(&nodes[0], &[&target.address.to_string()], &[]);
    let mut nas = Nas::new(&nodes[0]);
    let sent = nas.sealed(&Question::login("alice", &typed(0)));
    nas.send(&sent.bytes);
    assert_eq!(nas.receive(&sent).code, Code::AccessAccept);
    for node in &nodes[1..] {
        let elsewhere = Nas::new(node);
        elsewhere.send(&sent.bytes);
        let again = elsewhere.receive(&sent);
        assert_eq!(again.code, Code::AccessAccept);
        assert_eq!(again.first(AttributeType::FILTER_ID), Some(FreeRadius::FILTER.as_bytes()));
    }
}

#[test]
fn chap_and_ms_chap_are_checked_by_the_target_and_the_passcode_is_asked_for() {
    let target = FreeRadius::start(&Certificates::new(), &["alice"]);
    let node = Node::start();
    ask_target(&node, &[&target.address.to_string()], &[]);
    let password = FreeRadius::password("alice");
    let login = |kind: &str, password: &str| {
        let pairs = format!(
            "User-Name=alice,{kind}=\"{password}\",NAS-Identifier=wifi,Message-Authenticator=0x00\n"
        );
        radclient(node.radius, "auth", SECRET, &pairs)
    };
    for kind in ["CHAP-Password", "MS-CHAP-Password"] {
        let asked = login(kind, &password);
        assert!(asked.stdout.contains("Access-Challenge"), "{kind}: {asked}");
        grant_bypass(&node);
        let accept = login(kind, &password).done();
        assert!(accept.contains("Access-Accept") && accept.contains("staff"), "{kind}: {accept}");
        let reject = login(kind, "another");
        assert!(reject.stdout.contains("Access-Reject"), "{kind}: {reject}");
        assert_eq!(node.last_reason(), "wrong password", "{kind}");
    }
    // Whoever knows the password as a hash alone cannot check these.
    node.cli(&["client", "edit", "vpn", "--first-factor", "local"]).done();
    let reject = login("CHAP-Password", &password);
    assert!(reject.stdout.contains("Access-Reject"), "{reject}");
    assert_eq!(node.last_reason(), "nobody can check this kind of password");
}

#[test]
fn eap_passes_through_unopened_and_the_keys_arrive() {
    let certificates = Certificates::new();
    let target = FreeRadius::start(&certificates, &["alice"]);
    let node = Node::start();
    ask_target(&node, &[&target.address.to_string()], &[]);
    let password = FreeRadius::password("alice");
    let ca = certificates.authority();
    let inner = |outer: &str, phase2: &str| {
        format!(
            "key_mgmt=WPA-EAP\neap={outer}\nidentity=\"alice\"\npassword=\"{password}\"\nca_cert=\"{ca}\"\n\
             phase2=\"{phase2}\""
        )
    };
    let plain = |method: &str| {
        format!("key_mgmt=IEEE8021X\neap={method}\nidentity=\"alice\"\npassword=\"{password}\"")
    };
    let methods = [
        ("MD5", plain("MD5"), false),
        ("MSCHAPV2", plain("MSCHAPV2"), false),
        ("PEAP/MSCHAPv2", inner("PEAP", "auth=MSCHAPV2"), true),
        ("TTLS/PAP", inner("TTLS", "auth=PAP"), true),
    ];
    let log_in =
        |network: &str| eapol_test(&node.directory().path("."), node.radius, SECRET, network);
    for (method, network, has_keys) in methods {
        grant_bypass(&node);
        let said = log_in(&network);
        // MD5 makes no keys, and says so by its status where there should be some.
        assert!(said.stdout.contains("CTRL-EVENT-EAP-SUCCESS"), "{method}: {said}");
        if has_keys {
            assert!(said.stdout.contains("MPPE keys OK: 1  mismatch: 0"), "{method}: {said}");
            assert!(said.stdout.ends_with("SUCCESS"), "{method}: {said}");
        }
        assert_eq!(node.last_reason(), "one-time bypass", "{method}");
        // There is nobody to ask for a passcode.
        let said = log_in(&network);
        assert!(said.stdout.contains("code=3 (Access-Reject)"), "{method}: {said}");
        assert!(said.stdout.contains("EAP Failure"), "{method}: {said}");
        assert_eq!(node.last_reason(), "no passcode given", "{method}");
        let said = log_in(&network.replace(&password, "another"));
        assert!(said.stdout.contains("code=3 (Access-Reject)"), "{method}: {said}");
        assert!(said.stdout.contains("EAP Failure"), "{method}: {said}");
        assert_eq!(node.last_reason(), "wrong password", "{method}");
    }
}

#[test]
fn the_next_server_is_asked_when_one_goes_away_and_the_first_again_when_it_is_back() {
    let certificates = Certificates::new();
    let mut first = FreeRadius::start(&certificates, &["alice"]);
    let second = FreeRadius::start(&certificates, &["alice"]);
    let node = Node::start();
    let servers = [first.address.to_string(), second.address.to_string()];
    ask_target(&node, &[&servers[0], &servers[1]], &[]);
    let mut nas = Nas::new(&node);
    assert_eq!(nas.login("alice", &typed(0)), Code::AccessAccept);
    assert!(!second.log().contains("Login OK"), "the preferred one is asked");
    first.kill();
    for counter in 1..4 {
        assert_eq!(nas.login("alice", &typed(counter)), Code::AccessAccept);
    }
    assert!(second.log().contains("Login OK"));
    let first = FreeRadius::start_at(first.address, &certificates, &["alice"]);
    // Status-Server finds out; no login is needed for that.
    let answers = |line: &str| line.contains("answers again").then_some(());
    node.process().wait_for_error("that the first answers again", answers);
    assert_eq!(nas.login("alice", &typed(4)), Code::AccessAccept);
    assert!(first.log().contains("Login OK"), "{}", first.log());
    drop((first, second));
    let sent = nas.sealed(&Question::login("alice", &typed(5)));
    nas.send(&sent.bytes);
    assert_eq!(nas.receive_any(SILENCE), None, "nobody says that the password is wrong");
}

/// A server that answers each request as `answer` does: the octets of the request come in, those to send go out.
fn liar(answer: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("an address").to_string();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            for reply in answer(&buffer[..length]) {
                _ = socket.send_to(&reply, from);
            }
        }
    });
    address
}

/// An Access-Accept to `request` without Message-Authenticator, as old servers give it.
fn unsigned_accept(request: &[u8]) -> Vec<u8> {
    let mut reply = accept(request, FreeRadius::SECRET)[..20].to_vec();
    reply[3] = 20;
    reply[4..20].copy_from_slice(&request[4..20]);
    let secret = Secret::new(FreeRadius::SECRET.as_bytes()).expect("a secret");
    let digest = secret.md5_suffixed(&[&reply]);
    reply[4..20].copy_from_slice(&digest);
    reply
}

/// An Access-Accept to `request`, as somebody who knows `secret` would sign it.
fn accept(request: &[u8], secret: &str) -> Vec<u8> {
    let secret = Secret::new(secret.as_bytes()).expect("a secret");
    let request = Packet::parse(request).expect("well formed");
    let mut buffer = Vec::new();
    let reply = Reply::start(&mut buffer, Code::AccessAccept, &request);
    reply.sign(&secret).expect("fits").to_vec()
}

#[test]
fn whoever_does_not_know_the_secret_is_taken_for_silent() {
    let forge = |request: &[u8]| {
        let right = accept(request, FreeRadius::SECRET);
        let mut other_identifier = right.clone();
        other_identifier[1] ^= 1;
        let mut other_authenticator = right.clone();
        other_authenticator[4] ^= 1;
        let mut cut = right.clone();
        cut.truncate(19);
        let forged = accept(request, "another secret");
        let unsigned = unsigned_accept(request);
        vec![forged, other_identifier, other_authenticator, cut, unsigned, Vec::new()]
    };
    let node = Node::start();
    let strict = ["--probe", "login", "--require-message-authenticator", "yes"];
    ask_target(&node, &[&liar(forge)], &strict);
    let mut nas = Nas::new(&node);
    let sent = nas.sealed(&Question::login("alice", &typed(0)));
    nas.send(&sent.bytes);
    assert_eq!(nas.receive_any(SILENCE), None);
    assert!(node.attempts().is_empty(), "nothing was decided");

    // The control: what is right is believed, and what has no signature where none is demanded.
    let control = Node::start();
    ask_target(&control, &[&liar(|request| vec![accept(request, FreeRadius::SECRET)])], &[]);
    assert_eq!(Nas::new(&control).login("alice", &typed(0)), Code::AccessAccept);
    let edit = ["directory", "edit", "radius", "far", "--require-message-authenticator", "no"];
    node.cli(&edit).done();
    assert_eq!(nas.login("alice", &typed(1)), Code::AccessAccept);
}

#[test]
fn a_server_that_has_signed_once_must_sign_at_every_node() {
    let nodes = Node::three();
    let signs = Arc::new(AtomicBool::new(false));
    let still = signs.clone();
    let server = liar(move |request| match still.load(Ordering::Relaxed) {
        true => vec![accept(request, FreeRadius::SECRET)],
        false => vec![unsigned_accept(request)],
    });
    ask_target(&nodes[0], &[&server], &["--probe", "login"]);
    // An old server is believed as long as it shows nothing better.
    assert_eq!(Nas::new(&nodes[0]).login("alice", &typed(0)), Code::AccessAccept);
    signs.store(true, Ordering::Relaxed);
    assert_eq!(Nas::new(&nodes[0]).login("alice", &typed(1)), Code::AccessAccept);
    signs.store(false, Ordering::Relaxed);
    for node in &nodes {
        let begun = Instant::now();
        while node.cli(&["directory", "list", "--format", "json"]).json()[0]["radius"]["signs"]
            != serde_json::json!([true])
        {
            assert!(begun.elapsed() < DEADLINE, "it is never recorded");
        }
        let mut nas = Nas::new(node);
        let sent = nas.sealed(&Question::login("alice", &typed(2)));
        nas.send(&sent.bytes);
        assert_eq!(nas.receive_any(SILENCE), None);
    }
}

#[test]
fn an_accept_for_somebody_else_is_none() {
    let node = Node::start();
    let name_of = |name: &'static str| {
        move |request: &[u8]| {
            let secret = Secret::new(FreeRadius::SECRET.as_bytes()).expect("a secret");
            let request = Packet::parse(request).expect("well formed");
            let mut buffer = Vec::new();
            let mut reply = Reply::start(&mut buffer, Code::AccessAccept, &request);
            reply.attributes.push_text(AttributeType::USER_NAME, name).expect("fits");
            vec![reply.sign(&secret).expect("fits").to_vec()]
        }
    };
    ask_target(&node, &[&liar(name_of("mallory"))], &[]);
    assert_eq!(Nas::new(&node).login("alice", &typed(0)), Code::AccessReject);
    assert_eq!(node.last_reason(), "the directory accepted another user");
    for spelling in ["LAB\\Alice", "alice@lab.test", "ALICE"] {
        let edit = ["directory", "edit", "radius", "far", "--server", &liar(name_of(spelling))];
        node.cli(&edit).done();
        let counter = u64::try_from(node.attempts().len() - 1).expect("few");
        assert_eq!(
            Nas::new(&node).login("alice", &typed(counter)),
            Code::AccessAccept,
            "{spelling}"
        );
    }
}

#[test]
fn a_request_that_comes_back_is_not_sent_on_again() {
    let node = Node::start();
    ask_target(&node, &[&node.radius.to_string()], &[]);
    // It is its own client, under the secret that it asks with.
    let secret = node.directory().path("far.secret").display().to_string();
    node.cli(&["client", "edit", "vpn", "--secret-file", &secret]).done();
    let mut nas = Nas::at("127.0.0.1", node.radius, FreeRadius::SECRET);
    let sent = nas.sealed(&Question::login("alice", &typed(0)));
    nas.send(&sent.bytes);
    assert_eq!(nas.receive_any(SILENCE), None);
    assert!(node.dropped("goes_round") >= 1);
    assert!(node.attempts().is_empty(), "no wrong password is counted");
}

#[test]
fn a_target_is_added_tested_listed_changed_and_removed() {
    let target = FreeRadius::start(&Certificates::new(), &["alice"]);
    let node = Node::start();
    let address = target.address.to_string();
    ask_target(&node, &[&address], &[]);
    let test = |password: &str| {
        let test = ["directory", "test", "far", "alice", "--format", "json"];
        run(&mut node.directory().command(&test), &format!("{password}\n"))
    };
    let said = test(&FreeRadius::password("alice")).json();
    assert!(said[0]["accepted"] == true && said[0]["server"] == *address, "{said}");
    assert!(test("another").stderr.contains("the password is wrong"));
    let listed = || node.cli(&["directory", "list", "--format", "json"]).json()[0].clone();
    let shown = listed();
    assert_eq!(shown["kind"], "radius", "{shown}");
    assert_eq!(shown["radius"]["require_message_authenticator"], "auto", "{shown}");
    assert_eq!(shown["radius"]["probe"], "status", "{shown}");
    assert!(!shown.to_string().contains(FreeRadius::SECRET), "{shown}");
    let edit = ["directory", "edit", "radius", "far", "--rename", "nps", "--probe", "login"];
    node.cli(&edit).done();
    let shown = listed();
    assert_eq!((&shown["name"], &shown["radius"]["probe"]), (&"nps".into(), &"login".into()));
    assert_eq!(Nas::new(&node).login("alice", &typed(0)), Code::AccessAccept);
    let other = ["directory", "edit", "ldap", "nps", "--timeout", "5s"];
    let refused = node.cli(&other).refused();
    assert!(refused.contains("directory nps is asked by radius"), "{refused}");
    let secret = node.directory().path("far.secret").display().to_string();
    for arguments in [
        &["--server", "a"][..],
        &["--server", "a:0", "--secret-file", &secret],
        &["--secret-file", &secret],
        &["--server", "a", "--secret-file", &secret, "--timeout", "1h"],
    ] {
        node.cli(&[&["directory", "add", "radius", "other"], arguments].concat()).refused();
    }
}
