//! Nodes that are lost, replaced, preferred, moved or doubled.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use serde_json::Value;
use watchword::radius::packet::Code;

use crate::cluster::with_alice;
use crate::faults::login;
use crate::harness::{Directory, Nas, Node, Process, Question};
use crate::radius_login::KEY;

#[test]
fn a_node_goes_on_alone_and_the_lost_majority_is_told_so() {
    let [first, second, third] = with_alice(Node::three());
    assert_eq!(login(&first, 0), Code::AccessAccept);
    first.wait_for_status("the attempt", |status| status["attempts"] == 1);
    let (first, second, third) = (first.kill(), second.kill(), third.kill());
    let refused = first.cli(&["recover"]).refused();
    assert!(refused.contains("--yes") && refused.contains("voters are 1, 2, 3"), "{refused}");
    first.cli(&["recover", "--yes"]).done();
    let first = first.serve();
    first.wait_for_voters(1);
    assert_eq!(login(&first, 0), Code::AccessReject, "it stays used");
    assert_eq!(login(&first, 1), Code::AccessAccept);
    // The two others are a quorum of the membership that they know, and decide nothing.
    let back = [second, third].map(|directory| {
        let process = Process::spawn("a lost node", &mut directory.command(&["serve"]));
        (process, directory)
    });
    for (process, directory) in back {
        process.wait_for_error("that it was removed", told_removed);
        // It may be told before it can be asked.
        process.wait_for_error("that it has started", |line| {
            line.contains("\"node started\"").then_some(())
        });
        directory.wait_for_status("it has stopped", |status| {
            status["ready"] == false && status["role"] == "stopped"
        });
        drop(process);
        // It remembers that when nobody is there to tell.
        let refused = directory.cli(&["serve"]).refused();
        assert!(refused.contains("was removed from the cluster"), "{refused}");
    }
    let fourth = Directory::for_peers().join(&first, &first.token(&[]));
    first.wait_for_voters(2);
    assert_eq!(login(&fourth, 1), Code::AccessReject);
    assert_eq!(login(&fourth, 2), Code::AccessAccept);
}

fn told_removed(line: &str) -> Option<()> {
    line.contains("this node was removed from the cluster").then_some(())
}

#[test]
fn a_wiped_node_is_replaced() {
    let [first, second, third] = with_alice(Node::three());
    let third = third.kill();
    let said = first.cli(&["replace", "3", "--yes"]).done();
    let join: Vec<&str> =
        said.split("watchword join ").nth(1).expect("a command").split(' ').collect();
    let [_, "--token", token, ..] = join[..] else { panic!("{said}") };
    third.wipe();
    let back = third.join(&first, token);
    for node in [&first, &second, &back] {
        node.wait_for_voters(3);
    }
    let members = first.cli(&["members", "--format", "json"]).json();
    let ids: Vec<_> = members.as_array().expect("a list").iter().map(|one| &one["node"]).collect();
    assert_eq!(ids, [1, 2, 4]);
    assert_eq!(login(&back, 0), Code::AccessAccept);
}

#[test]
fn the_node_with_the_highest_priority_leads() {
    let [first, second, _third] = Node::three();
    first.cli(&["members", "edit", "3", "--priority", "200"]).done();
    second.wait_for_status("the preferred node leads", |status| status["leader"] == 3);
    let refused = first.cli(&["members", "edit", "9", "--priority", "1"]).refused();
    assert!(refused.contains("no node 9"), "{refused}");
}

#[test]
fn a_node_that_has_moved_is_found_at_its_new_address() {
    let [first, second, third] = with_alice(Node::three());
    let third = third.kill();
    let address = third.move_peers();
    first.cli(&["members", "edit", "3", "--address", &address]).done();
    let third = third.serve();
    second.wait_for_status("all is well", |status| status["ready"] == true);
    assert_eq!(login(&third, 0), Code::AccessAccept);
}

#[test]
fn a_copy_of_a_running_node_decides_nothing() {
    let [first, second, third] = with_alice(Node::three());
    // As somebody does who moves a node by copying its directory and forgets to stop it. The copy
    // listens elsewhere.
    let copy = Directory::for_peers();
    let stopped = second.kill();
    copy_dir(&stopped.path("data"), &copy.path("data"));
    fs::copy(stopped.path("data.key"), copy.path("data.key")).expect("copied");
    let second = stopped.serve();
    let copy = copy.start_by(|command| command);
    copy.wait_for_status("it knows", |status: &Value| {
        status["not_ready"].as_str().is_some_and(|why| why.contains("runs as this node"))
    });
    let mut nas = Nas::new(&copy);
    let asked = nas.sealed(&Question::login("alice", &KEY.passcode(0)));
    nas.send(&asked.bytes);
    copy.wait_for_sample("watchword_radius_dropped_total{cause=\"undecided\"}", 1);
    for node in [&first, &second, &third] {
        node.wait_for_status("it goes on", |status| status["ready"] == true);
    }
    assert_eq!(login(&third, 0), Code::AccessAccept);
}

fn copy_dir(from: &Path, to: &Path) {
    DirBuilder::new().recursive(true).mode(0o700).create(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy_dir(&path, &target);
        } else if path.is_file() {
            fs::copy(&path, &target).expect("copied");
        }
    }
}
