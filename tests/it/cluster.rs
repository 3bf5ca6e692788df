//! Several nodes: any of them answers, and a passcode opens once in all of them together.

use watchword::radius::packet::Code;

use crate::harness::{Directory, Nas, Node, Process, Question, code_of, get};
use crate::radius_login::KEY;

/// Adds a client that has checked the password, and alice.
pub(crate) fn with_alice(nodes: [Node; 3]) -> [Node; 3] {
    nodes[0].add_client("vpn", "127.0.0.1", &["--first-factor", "none"]);
    nodes[0].import(&format!("username,hotp_key\nalice,{}\n", KEY.0));
    nodes
}

#[test]
fn any_node_answers_and_a_passcode_opens_once_in_the_whole_cluster() {
    let nodes = with_alice(Node::three());
    for (counter, node) in (0..).zip(&nodes) {
        let mut nas = Nas::new(node);
        assert_eq!(nas.login("alice", &KEY.passcode(counter)), Code::AccessAccept);
        for other in &nodes {
            let mut nas = Nas::new(other);
            assert_eq!(nas.login("alice", &KEY.passcode(counter)), Code::AccessReject);
        }
    }
}

#[test]
fn a_copy_that_reaches_another_node_repeats_the_decision() {
    let nodes = with_alice(Node::three());
    let mut nas = Nas::new(&nodes[0]);
    let sent = nas.sealed(&Question::login("alice", &KEY.passcode(0)));
    nas.send(&sent.bytes);
    assert_eq!(nas.receive(&sent).code, Code::AccessAccept);
    for node in &nodes[1..] {
        let elsewhere = Nas::new(node);
        elsewhere.send(&sent.bytes);
        assert_eq!(elsewhere.receive(&sent).code, Code::AccessAccept);
    }
    for node in &nodes {
        node.wait_for_status("the attempt", |status| status["attempts"] == 1);
    }
}

#[test]
fn a_challenge_is_answered_at_another_node_after_the_first_died() {
    let [first, second, third] = Node::three();
    first.add_client("vpn", "127.0.0.1", &[]);
    first.import(&format!("username,password,hotp_key\nalice,correct horse,{}\n", KEY.0));
    let asked = Nas::new(&first).ask(&Question::login("alice", "correct horse"));
    assert_eq!(asked.code, Code::AccessChallenge);
    first.kill();
    let answer = Question::login("alice", &KEY.passcode(0)).answering(&asked);
    assert_eq!(code_of(&mut Nas::new(&second), &answer), Code::AccessAccept);
    let mut again = Nas::new(&third);
    let answer = Question::login("alice", &KEY.passcode(1)).answering(&asked);
    assert_eq!(code_of(&mut again, &answer), Code::AccessReject, "a challenge is answered once");
}

#[test]
fn a_node_without_quorum_answers_nothing_and_says_so() {
    let [first, second, third] = with_alice(Node::three());
    drop((second, third));
    first.wait_for_status("it is not ready", |status| status["ready"] == false);
    let (status, text) = get(first.metrics, "/health/ready");
    assert!(status == 503 && text.contains("do not answer"), "{text}");
    let mut nas = Nas::new(&first);
    let question = nas.sealed(&Question::login("alice", &KEY.passcode(0)));
    nas.send(&question.bytes);
    let status = nas.sealed(&Question::status());
    nas.send(&status.bytes);
    first.wait_for_sample("watchword_radius_dropped_total{cause=\"not_ready\"}", 1);
    first.wait_for_sample("watchword_radius_dropped_total{cause=\"undecided\"}", 1);
    nas.assert_silence("nothing can be decided");
}

#[test]
fn a_drained_node_hands_over_and_is_not_ready() {
    let [first, second, third] = Node::three();
    let said = first.cli(&["drain"]).done();
    assert!(said.contains("out of service"), "{said}");
    let ready = get(first.metrics, "/health/ready");
    assert_eq!(ready, (503, "not ready: taken out of service\n".to_owned()));
    first.wait_for_status("another leads", |status| status["leader"] != 1);
    let led = second.cli(&["status", "--format", "json"]).json()["leader"].clone();
    assert!(led == 2 || led == 3, "{led}");
    first.cli(&["drain", "--undo"]).done();
    first.wait_for_status("it is ready", |status| status["ready"] == true);
    let leader = if led == 2 { &second } else { &third };
    let said = leader.cli(&["transfer", "1"]).done();
    assert_eq!(said, "node 1 leads");
}

#[test]
fn a_removed_node_leaves_and_is_told_so_when_it_comes_back() {
    let [first, second, third] = Node::three();
    let directory = third.kill();
    let refused = first.cli(&["remove", "3"]).refused();
    assert!(refused.contains("--yes"), "{refused}");
    first.cli(&["remove", "3", "--yes"]).done();
    for node in [&first, &second] {
        node.wait_for_voters(2);
    }
    let unknown = first.cli(&["remove", "9", "--yes"]).refused();
    assert!(unknown.contains("no node 9"), "{unknown}");
    let mut command = directory.command(&["serve"]);
    let back = Process::spawn("the removed node", &mut command);
    back.wait_for_error("that it was removed", |line| {
        line.contains("this node was removed from the cluster").then_some(())
    });
}

#[test]
fn a_token_that_is_no_good_is_refused_by_name() {
    let directory = Directory::for_peers();
    directory.cli(&["init"]).done();
    let first = directory.serve();
    let peers = first.directory().peers();
    let join = |token: &str| {
        let joiner = Directory::for_peers();
        joiner.cli(&["join", &peers, "--no-serve", "--token", token])
    };
    let garbage = join("rubbish").refused();
    assert!(garbage.contains("no join token"), "{garbage}");
    // Used up: one node was admitted with it.
    let token = first.token(&[]);
    join(&token).done();
    let used = join(&token).refused();
    assert!(used.contains("used up"), "{used}");
    // Taken back.
    let token = first.token(&[]);
    let listed = first.cli(&["token", "list", "--format", "json"]).json();
    let open = listed.as_array().expect("a list").iter().find(|one| one["uses_left"] == 1);
    let id = open.expect("the open one")["id"].as_str().expect("an id").to_owned();
    first.cli(&["token", "revoke", &id]).done();
    join(&token).refused();
    // Of another cluster.
    let other = Directory::for_peers();
    other.cli(&["init"]).done();
    let other = other.serve();
    let foreign = join(&other.token(&[])).refused();
    assert!(foreign.contains("cannot join through"), "{foreign}");
}
