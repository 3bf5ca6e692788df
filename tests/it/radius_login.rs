//! Logins as a NAS sends them: which factor is asked of whom, and how the passcode arrives.

use watchword::radius::packet::Code;

use crate::harness::{HotpKey, Nas, Node, Question, SECRET, code_of, oathtool, radclient};

pub(crate) const KEY: HotpKey = HotpKey("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");

/// A node with one client, which has checked the password itself, and alice.
pub(crate) fn node_for_passcodes() -> Node {
    let node = Node::start();
    node.add_client("vpn", "127.0.0.1", &["--first-factor", "none"]);
    node.import(&format!("username,hotp_key\nalice,{}\n", KEY.0));
    node
}

#[test]
fn a_passcode_alone_opens_where_the_client_checks_the_password() {
    let node = node_for_passcodes();
    let mut nas = Nas::new(&node);
    assert_eq!(nas.login("alice", &KEY.passcode(0)), Code::AccessAccept);
    assert_eq!(nas.login("alice", &KEY.passcode(0)), Code::AccessReject);
    assert_eq!(node.last_reason(), "passcode used already");
    assert_eq!(nas.login("alice", &KEY.wrong_passcode(1)), Code::AccessReject);
    assert_eq!(node.last_reason(), "wrong passcode");
    assert_eq!(nas.login("alice", &KEY.passcode(1)), Code::AccessAccept);
}

#[test]
fn each_way_of_passcode_input_takes_its_own_form_only() {
    let node = Node::start();
    let ways = ["auto", "challenge", "separator", "appended"];
    let mut csv = "username,password,hotp_key\n".to_owned();
    for (number, way) in ways.iter().enumerate() {
        node.add_client(way, &format!("127.0.0.1{number}"), &["--passcode-input", way]);
        csv += &format!("{way},correct horse,{}\n", KEY.0);
    }
    node.import(&csv);
    let (accept, challenge, reject) =
        (Code::AccessAccept, Code::AccessChallenge, Code::AccessReject);
    for (number, (way, separated, appended)) in [
        ("auto", accept, accept),
        ("challenge", reject, reject),
        ("separator", accept, reject),
        ("appended", reject, accept),
    ]
    .into_iter()
    .enumerate()
    {
        let mut nas = Nas::at(&format!("127.0.0.1{number}"), node.radius, SECRET);
        let typed = format!("correct horse,{}", KEY.passcode(0));
        assert_eq!(nas.login(way, &typed), separated, "{way}, separated");
        let typed = format!("correct horse{}", KEY.passcode(1));
        assert_eq!(nas.login(way, &typed), appended, "{way}, appended");
        let asked = nas.ask(&Question::login(way, "correct horse"));
        assert_eq!(asked.code, challenge, "{way}, the password alone");
        let answer = Question::login(way, &KEY.passcode(2)).answering(&asked);
        assert_eq!(code_of(&mut nas, &answer), accept, "{way}, by challenge");
    }
}

#[test]
fn a_wrong_password_is_refused_whatever_the_passcode() {
    let node = Node::start();
    node.add_client("vpn", "127.0.0.1", &[]);
    node.import(&format!("username,password,hotp_key\njo,correct horse,{}\n", KEY.0));
    let mut nas = Nas::new(&node);
    for typed in [format!("correct house,{}", KEY.passcode(0)), "correct house".to_owned()] {
        assert_eq!(nas.login("jo", &typed), Code::AccessReject);
        assert_eq!(node.last_reason(), "wrong password");
    }
    // The passcode behind the wrong password was not used up by it.
    let typed = format!("correct horse,{}", KEY.passcode(0));
    assert_eq!(nas.login("jo", &typed), Code::AccessAccept);
}

#[test]
fn a_password_may_hold_commas_and_end_in_digits() {
    let node = Node::start();
    node.add_client("vpn", "127.0.0.1", &[]);
    let key = KEY.0;
    node.import(&format!(
        "username,password,hotp_key\ncomma,\"one,two,three\",{key}\ndigits,pass123456,{key}\n"
    ));
    let mut nas = Nas::new(&node);
    for (user, password) in [("comma", "one,two,three"), ("digits", "pass123456")] {
        let asked = nas.ask(&Question::login(user, password));
        assert_eq!(asked.code, Code::AccessChallenge, "{user}");
        let typed = format!("{password},{}", KEY.passcode(0));
        assert_eq!(nas.login(user, &typed), Code::AccessAccept, "{user}, separated");
        let typed = format!("{password}{}", KEY.passcode(1));
        assert_eq!(nas.login(user, &typed), Code::AccessAccept, "{user}, appended");
    }
}

#[test]
fn time_based_passcodes_of_every_make_are_accepted_once() {
    let node = Node::start();
    node.add_client("vpn", "127.0.0.1", &["--first-factor", "none"]);
    let key = KEY.0;
    node.import(&format!(
        "username,totp_key,algorithm,digits,period_seconds\n\
         plain,{key},,,\nlong,{key},sha1,8,30\nslow,{key},sha256,6,60\nstrong,{key},SHA-512,7,30\n"
    ));
    let mut nas = Nas::new(&node);
    for (user, make) in [
        ("plain", &["--totp"][..]),
        ("long", &["--totp", "-d", "8"]),
        ("slow", &["--totp=SHA256", "-s", "60"]),
        ("strong", &["--totp=SHA512", "-d", "7"]),
    ] {
        let passcode = oathtool(&[make, &["-b", key]].concat());
        assert_eq!(nas.login(user, &passcode), Code::AccessAccept, "{user}");
        assert_eq!(nas.login(user, &passcode), Code::AccessReject, "{user}, again");
        assert_eq!(node.last_reason(), "passcode used already");
    }
}

#[test]
fn another_spelling_of_a_name_or_a_passcode_is_the_same_login() {
    let node = node_for_passcodes();
    let mut nas = Nas::new(&node);
    let spellings = |passcode: &str| {
        let wide = passcode.bytes().map(|digit| {
            char::from_u32(u32::from('０') + u32::from(digit - b'0')).expect("a digit")
        });
        [
            ("ALICE", format!(" {} {} ", &passcode[..3], &passcode[3..])),
            ("CORP\\alice", wide.collect()),
            ("alice@corp.example", format!("{}-{}", &passcode[..3], &passcode[3..])),
        ]
    };
    for (counter, (name, typed)) in (0..).zip(spellings("000000")) {
        let passcode = KEY.passcode(counter);
        let typed = spellings(&passcode)
            .into_iter()
            .find_map(|(one, typed)| (one == name).then_some(typed))
            .unwrap_or(typed);
        assert_eq!(nas.login(name, &typed), Code::AccessAccept, "{name} {typed}");
        for (name, typed) in spellings(&passcode) {
            assert_eq!(nas.login(name, &typed), Code::AccessReject, "{name} {typed}, again");
            assert_eq!(node.last_reason(), "passcode used already");
        }
    }
}

#[test]
fn an_unknown_user_passes_only_where_the_client_says_so_and_has_checked_the_password() {
    let node = Node::start();
    for (name, address, first_factor, match_required) in [
        ("strict", "127.0.0.11", "none", "yes"),
        ("lenient", "127.0.0.12", "none", "no"),
        ("local", "127.0.0.13", "local", "no"),
    ] {
        let policy = ["--first-factor", first_factor, "--require-user-match", match_required];
        node.add_client(name, address, &policy);
    }
    node.import(&format!("username,hotp_key\nalice,{}\n", KEY.0));
    for (address, expected) in [
        ("127.0.0.11", Code::AccessReject),
        ("127.0.0.12", Code::AccessAccept),
        ("127.0.0.13", Code::AccessReject),
    ] {
        let mut nas = Nas::at(address, node.radius, SECRET);
        assert_eq!(nas.login("nobody", "123456"), expected, "{address}");
        // For those who are known nothing is any laxer.
        assert_eq!(nas.login("alice", &KEY.wrong_passcode(0)), Code::AccessReject, "{address}");
    }
    // A name that no user can have is nobody's.
    let mut nas = Nas::at("127.0.0.12", node.radius, SECRET);
    assert_eq!(nas.login("no\u{200b}body", "123456"), Code::AccessReject);
    assert_eq!(node.last_reason(), "malformed user name");
}

#[test]
fn a_user_without_device_or_without_password_is_refused_with_the_reason_on_record() {
    let node = Node::start();
    node.add_client("vpn", "127.0.0.1", &[]);
    let key = KEY.0;
    node.import(&format!(
        "username,password,hotp_key\nno-device,correct horse,\nno-password,,{key}\n"
    ));
    let mut nas = Nas::new(&node);
    assert_eq!(nas.login("no-device", "correct horse"), Code::AccessReject);
    assert_eq!(node.last_reason(), "user has no device");
    assert_eq!(nas.login("no-password", &KEY.passcode(0)), Code::AccessReject);
    assert_eq!(node.last_reason(), "user has no password");
}

#[test]
fn radclient_gets_in_with_and_without_signature() {
    let node = Node::start();
    node.add_client("vpn", "127.0.0.1", &["--require-message-authenticator", "no"]);
    node.import(&format!("username,password,hotp_key\njo,correct horse,{}\n", KEY.0));
    for (counter, signature) in [(0, ""), (1, ", Message-Authenticator = 0x00")] {
        let passcode = KEY.passcode(counter);
        let pairs =
            format!("User-Name = jo, User-Password = 'correct horse,{passcode}'{signature}");
        let said = radclient(node.radius, "auth", SECRET, &pairs);
        assert!(said.stdout.contains("Received Access-Accept"), "{said}");
        let again = radclient(node.radius, "auth", SECRET, &pairs);
        assert!(again.stdout.contains("Received Access-Reject"), "{again}");
    }
}
