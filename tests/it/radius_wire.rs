//! What is on the wire: who is answered, who is not, and what the answer carries.

use std::time::Instant;

use watchword::radius::attribute::AttributeType;
use watchword::radius::packet::Code;

use crate::harness::{Directory, Nas, Node, Question, SECRET, code_of, radclient};
use crate::radius_login::{KEY, node_for_passcodes};

const PROXY_STATE: AttributeType = AttributeType::PROXY_STATE;

#[test]
fn the_message_authenticator_comes_first_in_every_reply() {
    let node = Node::start();
    node.add_client("vpn", "127.0.0.1", &["--require-message-authenticator", "no"]);
    node.import(&format!("username,password,hotp_key\njo,correct horse,{}\n", KEY.0));
    let mut nas = Nas::new(&node);
    let typed = format!("correct horse,{}", KEY.passcode(0));
    for (question, expected) in [
        (Question::login("jo", "correct horse"), Code::AccessChallenge),
        (Question::login("jo", "wrong"), Code::AccessReject),
        (Question::login("jo", &typed), Code::AccessAccept),
        (Question::status(), Code::AccessAccept),
    ] {
        // That it comes first is checked on each answer that any test receives.
        let answer = nas.ask(&question);
        assert_eq!(answer.code, expected);
        let signatures = answer.all(AttributeType::MESSAGE_AUTHENTICATOR).count();
        assert_eq!(signatures, 1, "{expected:?}");
    }
    for (typed, expected) in [
        ("correct horse", Code::AccessChallenge),
        ("wrong", Code::AccessReject),
        (&format!("correct horse,{}", KEY.passcode(1)), Code::AccessAccept),
    ] {
        let answer = nas.ask(&Question::login("jo", typed).unsigned());
        assert_eq!(answer.code, expected, "unsigned");
    }
}

#[test]
fn proxy_state_comes_back_unchanged_and_in_order() {
    let node = node_for_passcodes();
    let mut nas = Nas::new(&node);
    let states = [&b"near"[..], b"", &[0; 253], b"far", b"near"];
    for passcode in [KEY.passcode(0), KEY.wrong_passcode(1)] {
        let login = Question::login("alice", &passcode);
        let question =
            states.iter().fold(login, |question, state| question.with(PROXY_STATE, state));
        let answer = nas.ask(&question);
        assert_eq!(answer.all(PROXY_STATE).collect::<Vec<_>>(), states, "{:?}", answer.code);
        let last = answer.attributes.last().map(|(kind, _)| *kind);
        assert_eq!(last, Some(PROXY_STATE));
    }
}

#[test]
fn status_server_is_answered_while_the_node_can_commit() {
    let node = node_for_passcodes();
    let mut nas = Nas::new(&node);
    let answer = nas.ask(&Question::status().with(PROXY_STATE, b"hop"));
    assert_eq!(answer.code, Code::AccessAccept);
    assert_eq!(answer.all(PROXY_STATE).collect::<Vec<_>>(), [b"hop"]);
    let said = radclient(node.radius, "status", SECRET, "Message-Authenticator = 0x00");
    assert!(said.stdout.contains("Received Access-Accept"), "{said}");
    // Nobody logged in by that.
    assert_eq!(node.attempts(), []);
}

#[test]
fn the_same_octets_again_get_the_same_answer_and_are_one_attempt() {
    let node = node_for_passcodes();
    let (mut nas, other_port) = (Nas::new(&node), Nas::new(&node));
    for (number, passcode) in [KEY.passcode(0), KEY.wrong_passcode(1)].iter().enumerate() {
        let sent = nas.sealed(&Question::login("alice", passcode));
        nas.send(&sent.bytes);
        let first = nas.receive(&sent);
        nas.send(&sent.bytes);
        assert_eq!(nas.receive(&sent), first);
        // As after an address translation that forgot: the cache does not know this source.
        other_port.send(&sent.bytes);
        assert_eq!(other_port.receive(&sent).code, first.code);
        assert_eq!(node.attempts().len(), number + 1);
    }
    assert_eq!(node.sample("watchword_radius_duplicates_total{handled=\"resent\"}"), 2);
}

#[test]
fn copies_that_arrive_together_are_one_attempt() {
    let node = node_for_passcodes();
    let mut nas = Nas::new(&node);
    let sent = nas.sealed(&Question::login("alice", &KEY.passcode(0)));
    let others: Vec<Nas> = (0..16).map(|_| Nas::new(&node)).collect();
    others.iter().for_each(|other| other.send(&sent.bytes));
    for other in &others {
        assert_eq!(other.receive(&sent).code, Code::AccessAccept);
    }
    assert_eq!(node.attempts().len(), 1);
}

#[test]
fn a_copy_that_comes_while_the_first_is_under_way_gets_its_answer() {
    let node = Node::start();
    node.add_client("vpn", "127.0.0.1", &[]);
    node.import(&format!("username,password,hotp_key\njo,correct horse,{}\n", KEY.0));
    let mut nas = Nas::new(&node);
    // Comparing a password takes long enough for all copies to arrive.
    let typed = format!("correct horse,{}", KEY.passcode(0));
    let sent = nas.sealed(&Question::login("jo", &typed));
    (0..6).for_each(|_| nas.send(&sent.bytes));
    assert_eq!(nas.receive(&sent).code, Code::AccessAccept);
    nas.wait_for_turn();
    let copies = ["joined", "resent"]
        .map(|how| format!("watchword_radius_duplicates_total{{handled=\"{how}\"}}"))
        .map(|name| node.sample(&name));
    assert_eq!(copies.iter().sum::<u64>(), 5, "{copies:?}");
    assert_eq!(node.attempts().len(), 1);
}

#[test]
fn a_full_node_drops_the_newest_and_takes_them_when_they_come_again() {
    let directory = Directory::initialised();
    let config = std::fs::read_to_string(directory.config()).expect("the file is there");
    let narrow = config.replace("[radius]\n", "[radius]\nin_flight_max = 1\n");
    directory.write_file("watchword.toml", &narrow);
    let node = directory.serve();
    node.add_client("vpn", "127.0.0.1", &[]);
    node.import(&format!("username,password,hotp_key\njo,correct horse,{}\n", KEY.0));
    let mut nas = Nas::new(&node);
    let sent: Vec<_> =
        (0..40).map(|_| nas.sealed(&Question::login("jo", "correct horse"))).collect();
    sent.iter().for_each(|sent| nas.send(&sent.bytes));
    nas.wait_for_turn();
    assert!(node.dropped("overload") > 0);
    // Whoever comes again, one after the other, is served.
    assert_eq!(nas.ask_again(&sent[39]).code, Code::AccessChallenge);
    assert_eq!(nas.ask_again(&sent[38]).code, Code::AccessChallenge);
}

#[test]
fn a_passcode_is_accepted_once_however_many_ask_at_once() {
    let node = node_for_passcodes();
    let passcode = KEY.passcode(0);
    let questions = vec![Question::login("alice", &passcode); 64];
    let answers = Nas::new(&node).ask_all(&questions);
    let accepted = answers.iter().filter(|answer| answer.code == Code::AccessAccept).count();
    assert_eq!(accepted, 1);
    assert_eq!(node.attempts().len(), 64);
}

#[test]
fn who_does_not_know_the_secret_gets_no_answer() {
    let node = node_for_passcodes();
    let mut liar = Nas::at("127.0.0.1", node.radius, "another-secret");
    let login = Question::login("alice", &KEY.passcode(0));
    let signed = liar.sealed(&login).bytes;
    liar.assert_dropped(&node, &signed, "bad_message_authenticator");
    let status = liar.sealed(&Question::status()).bytes;
    liar.assert_dropped(&node, &status, "bad_message_authenticator");
    assert_eq!(node.attempts(), []);
    // Unsigned, it shows by what nobody can have typed; that is no failure of the user's.
    let unsigned = liar.sealed(&login.clone().unsigned()).bytes;
    liar.assert_dropped(&node, &unsigned, "secret_mismatch");
    assert_eq!(node.user("alice")["passcode_failures"], 0);
    assert_eq!(code_of(&mut Nas::new(&node), &login), Code::AccessAccept);
}

#[test]
fn who_is_no_client_gets_no_answer() {
    let node = node_for_passcodes();
    let mut stranger = Nas::at("127.0.0.9", node.radius, SECRET);
    for question in [Question::login("alice", &KEY.passcode(0)), Question::status()] {
        let sent = stranger.sealed(&question).bytes;
        stranger.assert_dropped(&node, &sent, "unknown_client");
    }
}

#[test]
fn packets_that_break_the_form_get_no_answer() {
    let node = node_for_passcodes();
    let mut nas = Nas::new(&node);
    let good = nas.sealed(&Question::login("alice", &KEY.passcode(0))).bytes;
    let with_length = |length: u16, mut bytes: Vec<u8>| {
        bytes[2..4].copy_from_slice(&length.to_be_bytes());
        bytes
    };
    let length = u16::try_from(good.len()).expect("short");
    let mut padded = good.clone();
    padded.resize(4097, 0);
    let mut zero_attribute = good.clone();
    zero_attribute.extend([1, 0]);
    let mut long_attribute = good.clone();
    long_attribute.extend([1, 9, b'a']);
    for (bytes, cause) in [
        (vec![], "header_truncated"),
        (good[..19].to_vec(), "header_truncated"),
        (good[..good.len() - 1].to_vec(), "truncated"),
        (with_length(19, good.clone()), "length_out_of_range"),
        (with_length(4097, padded), "length_out_of_range"),
        (with_length(length + 2, zero_attribute), "attribute_too_short"),
        (with_length(length + 3, long_attribute), "attribute_overrun"),
        (vec![0xff; 300], "length_out_of_range"),
    ] {
        nas.assert_dropped(&node, &bytes, cause);
    }
    assert_eq!(node.attempts(), []);
    // None of that stands in the way of the good one.
    nas.send(&good);
    node.wait_for_sample("watchword_radius_replies_total{code=\"accept\"}", 1);
}

#[test]
fn requests_that_say_too_little_get_no_answer() {
    let node = node_for_passcodes();
    let mut nas = Nas::new(&node);
    let hidden = |octets: usize| {
        let kind = AttributeType::USER_PASSWORD;
        Question::default().with(AttributeType::USER_NAME, b"alice").with(kind, &vec![7; octets])
    };
    let nameless = Question::default().with(AttributeType::USER_PASSWORD, &[7; 16]);
    let no_text = nameless.clone().with(AttributeType::USER_NAME, b"\xff\xfe");
    let no_password = Question::default().with(AttributeType::USER_NAME, b"alice");
    for (question, cause) in [
        (nameless, "no_user_name"),
        (no_text, "no_user_name"),
        (no_password, "no_user_password"),
        (hidden(0), "password_empty"),
        (hidden(17), "password_partial_block"),
        (hidden(144), "password_too_long"),
    ] {
        let sent = nas.sealed(&question).bytes;
        nas.assert_dropped(&node, &sent, cause);
    }
    let mut reply = nas.sealed(&Question::status()).bytes;
    reply[0] = 2;
    nas.assert_dropped(&node, &reply, "bad_message_authenticator");
    assert_eq!(node.attempts(), []);
}

#[test]
fn attributes_that_are_unknown_or_many_do_no_harm() {
    let node = node_for_passcodes();
    let mut nas = Nas::new(&node);
    // As long as a packet may be.
    let mut longest = Question::login("alice", &KEY.passcode(0));
    for _ in 0..15 {
        longest = longest.with(AttributeType(250), &[7; 253]);
    }
    let length = nas.sealed(&longest).bytes.len();
    longest = longest.with(AttributeType(251), &vec![7; 4096 - length - 2]);
    let sent = nas.sealed(&longest);
    assert_eq!(sent.bytes.len(), 4096);
    nas.send(&sent.bytes);
    assert_eq!(nas.receive(&sent).code, Code::AccessAccept);
    // Of attributes that may be there once, the first counts.
    let twice = Question::login("alice", &KEY.passcode(1))
        .with(AttributeType::USER_NAME, b"nobody")
        .with(AttributeType::USER_PASSWORD, &[7; 16])
        .with(AttributeType::CALLING_STATION_ID, b"198.51.100.7")
        .with(AttributeType::CALLING_STATION_ID, b"203.0.113.9")
        .with(AttributeType::VENDOR_SPECIFIC, b"\0\0\0\x09\x01");
    assert_eq!(code_of(&mut nas, &twice), Code::AccessAccept);
    let attempts = node.cli(&["attempts", "--format", "json"]).json();
    let remotes: Vec<_> = attempts.as_array().expect("a list").iter().collect();
    assert_eq!(remotes[1]["remote"], "198.51.100.7");
    // A request that is full of Proxy-State leaves just enough room for its reply's signature.
    for setting in ["--require-message-authenticator", "--limit-proxy-state"] {
        node.cli(&["client", "edit", "vpn", setting, "no"]).done();
    }
    let mut crowded = Question::login("alice", &KEY.wrong_passcode(2)).unsigned();
    for _ in 0..15 {
        crowded = crowded.with(PROXY_STATE, &[7; 253]);
    }
    let length = nas.sealed(&crowded).bytes.len();
    crowded = crowded.with(PROXY_STATE, &vec![7; 4096 - length - 2]);
    assert_eq!(nas.ask(&crowded).all(PROXY_STATE).count(), 16);
}

#[test]
fn the_most_specific_range_of_addresses_decides_who_asks() {
    let node = Node::start();
    for (name, range, secret) in [
        ("all", "127.0.0.0/8", "secret-of-all"),
        ("site", "127.0.1.0/24", "secret-of-site"),
        ("host", "127.0.1.7", "secret-of-host"),
    ] {
        let file = node.directory().write_file("secret", secret);
        let file = file.to_str().expect("UTF-8");
        let fixed = ["client", "add", "radius", name, "--address", range, "--secret-file", file];
        node.cli(&fixed).done();
    }
    let secrets = ["secret-of-all", "secret-of-site", "secret-of-host"];
    for (address, right) in [
        ("127.0.0.5", "secret-of-all"),
        ("127.0.1.5", "secret-of-site"),
        ("127.0.1.7", "secret-of-host"),
        ("127.0.2.7", "secret-of-all"),
    ] {
        for secret in secrets {
            let mut nas = Nas::at(address, node.radius, secret);
            if secret == right {
                assert_eq!(code_of(&mut nas, &Question::status()), Code::AccessAccept);
            } else {
                let sent = nas.sealed(&Question::status()).bytes;
                nas.assert_dropped(&node, &sent, "bad_message_authenticator");
            }
        }
    }
    // A client that goes leaves its addresses to the next wider range.
    node.cli(&["client", "remove", "host"]).done();
    let mut nas = Nas::at("127.0.1.7", node.radius, "secret-of-site");
    assert_eq!(code_of(&mut nas, &Question::status()), Code::AccessAccept);
}

#[test]
fn a_flood_of_bad_packets_is_counted_in_full_and_logged_once_a_second() {
    let node = node_for_passcodes();
    let nas = Nas::new(&node);
    let stranger = Nas::at("127.0.0.9", node.radius, SECRET);
    let status = Nas::new(&node).sealed(&Question::status()).bytes;
    let counted = |cause| format!("watchword_radius_dropped_total{{cause=\"{cause}\"}}");
    let causes = ["header_truncated", "unknown_client"];
    let begun = Instant::now();
    // In portions that any socket's buffer holds: what the kernel drops, nobody can count.
    for portion in 1..=10 {
        for _ in 0..50 {
            nas.send(b"garbage");
            stranger.send(&status);
        }
        causes.iter().for_each(|cause| node.wait_for_sample(&counted(cause), portion * 50));
    }
    causes.iter().for_each(|cause| assert_eq!(node.dropped(cause), 500));
    let (_, log) = node.stop();
    // Each second that has begun may have its line.
    let seconds_max = usize::try_from(begun.elapsed().as_secs()).expect("few") + 2;
    for cause in causes {
        let lines = log.lines().filter(|line| line.contains(&format!("\"cause\":\"{cause}\"")));
        let lines = lines.count();
        assert!((1..=seconds_max).contains(&lines), "{lines} lines of {cause}\n{log}");
    }
}
