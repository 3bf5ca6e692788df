//! Access-Challenge: the passcode in a second round.

use watchword::radius::attribute::AttributeType;
use watchword::radius::packet::Code;

use crate::harness::{Nas, Node, Question, SECRET, code_of};
use crate::radius_login::KEY;

/// A node with two clients that leave the password to it, and jo.
fn node() -> Node {
    let node = Node::start();
    node.add_client("vpn", "127.0.0.1", &[]);
    node.add_client("wifi", "127.0.0.2", &[]);
    node.import(&format!(
        "username,password,hotp_key\njo,correct horse,{0}\nmo,hunter22,{0}\n",
        KEY.0
    ));
    node
}

#[test]
fn a_challenge_says_what_to_type_and_for_how_long() {
    let node = node();
    node.cli(&["settings", "set", "challenge.seconds", "77"]).done();
    let mut nas = Nas::new(&node);
    let challenge = nas.ask(&Question::login("jo", "correct horse"));
    assert_eq!(challenge.code, Code::AccessChallenge);
    assert_eq!(challenge.first(AttributeType::REPLY_MESSAGE), Some(&b"Enter your passcode: "[..]));
    assert_eq!(challenge.first(AttributeType::SESSION_TIMEOUT), Some(&77_u32.to_be_bytes()[..]));
    let states: Vec<_> = challenge.all(AttributeType::STATE).collect();
    assert!(states.len() == 1 && states[0].len() <= 253, "{states:?}");
    // Asking decides nothing, so there is nothing to record yet.
    assert_eq!(node.attempts(), []);
    let answer = Question::login("jo", &KEY.passcode(0)).answering(&challenge);
    assert_eq!(code_of(&mut nas, &answer), Code::AccessAccept);
    assert_eq!(node.attempts().len(), 1);
}

#[test]
fn a_challenge_is_answered_once() {
    let node = node();
    let mut nas = Nas::new(&node);
    let challenge = nas.ask(&Question::login("jo", "correct horse"));
    let answer = |counter| Question::login("jo", &KEY.passcode(counter)).answering(&challenge);
    assert_eq!(code_of(&mut nas, &answer(0)), Code::AccessAccept);
    assert_eq!(code_of(&mut nas, &answer(1)), Code::AccessReject);
    assert_eq!(node.last_reason(), "challenge answered already");
}

#[test]
fn of_many_answers_at_once_one_is_accepted() {
    let node = node();
    let mut nas = Nas::new(&node);
    let challenge = nas.ask(&Question::login("jo", "correct horse"));
    let passcodes = KEY.passcodes(0, 8);
    let answers: Vec<_> = passcodes
        .iter()
        .map(|passcode| Question::login("jo", passcode).answering(&challenge))
        .collect();
    let codes: Vec<_> = nas.ask_all(&answers).into_iter().map(|answer| answer.code).collect();
    let accepted = codes.iter().filter(|&&code| code == Code::AccessAccept).count();
    assert_eq!(accepted, 1, "{codes:?}");
}

#[test]
fn a_wrong_passcode_uses_the_challenge_up() {
    let node = node();
    let mut nas = Nas::new(&node);
    let challenge = nas.ask(&Question::login("jo", "correct horse"));
    let wrong = Question::login("jo", &KEY.wrong_passcode(0)).answering(&challenge);
    assert_eq!(code_of(&mut nas, &wrong), Code::AccessReject);
    let right = Question::login("jo", &KEY.passcode(0)).answering(&challenge);
    assert_eq!(code_of(&mut nas, &right), Code::AccessReject);
    assert_eq!(node.last_reason(), "challenge answered already");
}

#[test]
fn an_empty_answer_is_refused_and_asks_for_nothing_more() {
    let node = node();
    let mut nas = Nas::new(&node);
    let challenge = nas.ask(&Question::login("jo", "correct horse"));
    let empty = Question::login("jo", "").answering(&challenge);
    assert_eq!(code_of(&mut nas, &empty), Code::AccessReject);
    assert_eq!(node.last_reason(), "no passcode given");
}

#[test]
fn the_challenge_of_another_client_or_another_user_is_refused() {
    let node = node();
    let mut vpn = Nas::new(&node);
    let mut wifi = Nas::at("127.0.0.2", node.radius, SECRET);
    let challenge = vpn.ask(&Question::login("jo", "correct horse"));
    let answer = Question::login("jo", &KEY.passcode(0)).answering(&challenge);
    assert_eq!(code_of(&mut wifi, &answer), Code::AccessReject);
    assert_eq!(node.last_reason(), "unknown challenge");
    let others = Question::login("mo", &KEY.passcode(0)).answering(&challenge);
    assert_eq!(code_of(&mut vpn, &others), Code::AccessReject);
    assert_eq!(node.last_reason(), "unknown challenge");
    // The one that it was made for can still use it.
    assert_eq!(code_of(&mut vpn, &answer), Code::AccessAccept);
}

#[test]
fn a_state_that_is_not_ours_is_refused() {
    let node = node();
    let mut nas = Nas::new(&node);
    let challenge = nas.ask(&Question::login("jo", "correct horse"));
    let state = challenge.first(AttributeType::STATE).expect("a State").to_vec();
    let mut damaged = state.clone();
    damaged[state.len() / 2] ^= 1;
    for forged in [&damaged[..], &state[..state.len() - 1], &[0; 253], b""] {
        let answer = Question::login("jo", &KEY.passcode(0)).with(AttributeType::STATE, forged);
        assert_eq!(code_of(&mut nas, &answer), Code::AccessReject, "{forged:?}");
        assert_eq!(node.last_reason(), "unknown challenge");
    }
}

#[test]
fn the_password_changed_meanwhile_makes_the_challenge_worthless() {
    let node = node();
    let mut nas = Nas::new(&node);
    let challenge = nas.ask(&Question::login("jo", "correct horse"));
    node.cli_with(&["user", "edit", "jo", "--password"], "battery staple\n").done();
    let sent = nas.sealed(&Question::login("jo", &KEY.passcode(0)).answering(&challenge));
    nas.send(&sent.bytes);
    let answer = nas.receive(&sent);
    assert_eq!(answer.code, Code::AccessReject);
}

#[test]
fn a_challenge_goes_on_after_a_crash() {
    let node = node();
    let challenge = Nas::new(&node).ask(&Question::login("jo", "correct horse"));
    let node = node.kill().serve();
    let answer = Question::login("jo", &KEY.passcode(0)).answering(&challenge);
    assert_eq!(code_of(&mut Nas::new(&node), &answer), Code::AccessAccept);
}
