//! One node of three is in trouble: it says so, the others go on, and no decision is lost or doubled.

use watchword::radius::packet::Code;

use crate::cluster::with_alice;
use crate::harness::{Nas, Node, Question};
use crate::radius_login::KEY;

/// Logs alice in with this counter, and asks until the node answers, as a NAS does.
pub(crate) fn login(node: &Node, counter: u64) -> Code {
    let mut nas = Nas::new(node);
    let sent = nas.sealed(&Question::login("alice", &KEY.passcode(counter)));
    nas.send(&sent.bytes);
    nas.ask_again(&sent).code
}

/// The leader, and the others.
pub(crate) fn by_role(nodes: [Node; 3]) -> (Node, [Node; 2]) {
    let leader = nodes[0].cli(&["status", "--format", "json"]).json()["leader"].as_u64();
    let mut nodes = Vec::from(nodes);
    let leader = nodes.remove(leader.expect("a leader") as usize - 1);
    (leader, nodes.try_into().ok().expect("two others"))
}

#[test]
fn a_node_that_stands_still_holds_nobody_up_and_catches_up() {
    let (first, [second, third]) = by_role(with_alice(Node::three()));
    third.process().signal("STOP");
    for (counter, node) in (0..20).zip([&first, &second].into_iter().cycle()) {
        assert_eq!(login(node, counter), Code::AccessAccept);
    }
    third.process().signal("CONT");
    third.wait_for_status("it has caught up", |status| {
        status["ready"] == true && status["attempts"] == 20
    });
    assert_eq!(login(&third, 19), Code::AccessReject);
    assert_eq!(login(&third, 20), Code::AccessAccept);
}

#[test]
fn a_leader_that_stands_still_is_replaced_and_decides_nothing_when_it_goes_on() {
    let (first, [second, third]) = by_role(with_alice(Node::three()));
    first.process().signal("STOP");
    assert_eq!(login(&second, 0), Code::AccessAccept);
    first.process().signal("CONT");
    // It believes for a moment that it leads still.
    assert_eq!(login(&first, 0), Code::AccessReject);
    assert_eq!(login(&first, 1), Code::AccessAccept);
    for node in [&first, &second, &third] {
        node.wait_for_status("all attempts", |status| status["attempts"] == 3);
    }
}

#[test]
fn a_node_whose_disk_is_full_stops_and_says_so_while_the_others_go_on() {
    let [first, second, third] = with_alice(Node::three());
    // The node's files may grow no further: what a full disk does to it.
    third.process().limit_files();
    let rows = (0..3_000).map(|user| format!("user{user},{}\n", KEY.0));
    first.import(&format!("username,hotp_key\n{}", rows.collect::<String>()));
    third.wait_for_status("it says so", |status| {
        status["ready"] == false && status["fault"].as_str().is_some_and(|why| !why.is_empty())
    });
    for (counter, node) in (0..10).zip([&first, &second].into_iter().cycle()) {
        assert_eq!(login(node, counter), Code::AccessAccept);
    }
    // With room again it catches up.
    let third = third.kill().serve();
    third.wait_for_status("it has caught up", |status| status["users"] == 3_001);
    assert_eq!(login(&third, 9), Code::AccessReject);
}

/// It wakes up on an old state, by which the next passcodes of a token that was used elsewhere are wrong.
#[test]
fn a_node_that_was_frozen_refuses_no_right_passcode() {
    let [first, second, third] = Node::three();
    first.add_client("vpn", "127.0.0.1", &["--first-factor", "none"]);
    let users = || (0..20).map(|number| format!("user-{number}"));
    let rows = users().map(|user| format!("{user},{}\n", KEY.0));
    first.import(&format!("username,hotp_key\n{}", rows.collect::<String>()));
    third.process().signal("STOP");
    let mut nas = Nas::new(&second);
    for user in users() {
        assert_eq!(nas.login(&user, &KEY.passcode(9)), Code::AccessAccept);
    }
    let mut nas = Nas::new(&third);
    let questions = users().map(|user| Question::login(&user, &KEY.passcode(15)));
    let sent: Vec<_> = questions.map(|question| nas.sealed(&question)).collect();
    for one in &sent {
        nas.send(&one.bytes);
    }
    third.process().signal("CONT");
    for answer in nas.receive_all(&sent) {
        assert_eq!(answer.code, Code::AccessAccept);
    }
}
