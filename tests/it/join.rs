//! Joining: who is let in, and what becomes of a join that is cut off.

use std::fs;

use tokio::runtime::{Builder, Runtime};
use tonic::Code;
use watchword::join::Door;
use watchword::pki::{PrivateKey, Token};
use watchword_proto::{JoinAnswer, JoinRequest};

use crate::founding::{Obstacle, make_data, obstruct_store};
use crate::harness::{Directory, Node};

/// A founder that others can join.
fn founder() -> Node {
    let directory = Directory::for_peers();
    directory.cli(&["init"]).done();
    directory.serve()
}

/// Joins with something in the way of the store: the node is admitted, and has no store yet.
fn admitted(first: &Node, token: &str) -> Directory {
    let joiner = Directory::for_peers();
    make_data(&joiner);
    let before_the_store = obstruct_store(&joiner);
    joiner.cli(&["join", &first.directory().peers(), "--token", token, "--no-serve"]).refused();
    before_the_store.clear();
    joiner
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Asks as the node with `public_key`; what proves it is made for the door.
async fn ask(
    first: &Node,
    token: &Token,
    public_key: &[u8],
    prove: impl FnOnce(&Door) -> Vec<u8>,
) -> Result<JoinAnswer, (Code, String)> {
    let door = Door::knock(&first.directory().peers(), token).await.expect("it opens");
    let request = JoinRequest {
        address: "127.0.0.1:1".to_owned(),
        public_key: public_key.to_vec().into(),
        votes: true,
        proof: prove(&door).into(),
    };
    door.ask(request).await.map_err(|status| (status.code(), status.message().to_owned()))
}

#[test]
fn who_does_not_hold_a_members_key_gets_nothing_in_its_place() {
    let first = founder();
    let used_up = first.token(&["--uses", "1"]);
    let joiner = admitted(&first, &used_up);
    let key = fs::read(joiner.path("data/join.key")).expect("its key");
    let key = PrivateKey::from_pkcs8(&key).expect("a key");
    let public_key = key.public_key();
    let _second = joiner.join(&first, &used_up);
    first.wait_for_voters(2);

    let other = PrivateKey::generate().expect("a key");
    let token: Token = used_up.parse().expect("a token");
    let another: Token = first.token(&[]).parse().expect("a token");
    runtime().block_on(async {
        let elsewhere = Door::knock(&first.directory().peers(), &token).await.expect("it opens");
        let replayed = elsewhere.claim(&public_key).prove(&key).expect("signed");
        let by_other = |door: &Door| door.claim(&public_key).prove(&other).expect("signed");
        let by_node = |door: &Door| door.claim(&public_key).prove(&key).expect("signed");
        let refused = [
            ask(&first, &token, &public_key, |_| Vec::new()).await,
            ask(&first, &token, &public_key, by_other).await,
            ask(&first, &token, &public_key, |_| replayed).await,
        ];
        for refused in refused {
            let (code, reason) = refused.expect_err("the key is not held");
            assert_eq!(code, Code::FailedPrecondition);
            assert!(reason.contains("has not proven"), "{reason}");
        }
        first.process().wait_for_error("that somebody was refused", |line| {
            (line.contains("a node was not admitted") && line.contains("has not proven"))
                .then_some(())
        });
        let refused = ask(&first, &another, &public_key, by_node).await;
        let (_, reason) = refused.expect_err("not the token that admitted it");
        assert!(reason.contains("another token admitted node 2"), "{reason}");
        let repeated = ask(&first, &token, &public_key, by_node).await;
        assert_eq!(repeated.expect("token and key are the node's own").node, 2);
    });
}

#[test]
fn a_join_that_is_cut_off_anywhere_ends_as_the_same_node() {
    let first = founder();
    let token = first.token(&["--uses", "1"]);
    let peers = first.directory().peers();
    let joiner = Directory::for_peers();
    make_data(&joiner);
    let join = |peers: &str| joiner.cli(&["join", peers, "--token", &token, "--no-serve"]);
    // Nobody is there: the key is made, and nobody has heard of the node.
    join("127.0.0.1:1").refused();
    let key = fs::read(joiner.path("data/join.key")).expect("its key");
    // From here on it is admitted, and the token is used up.
    let obstacles = [
        Obstacle::directory(joiner.path("data/keyring.json.new")),
        Obstacle::directory(joiner.path("data/identity.json.new")),
        obstruct_store(&joiner),
    ];
    let last = obstacles.len() - 1;
    for (number, obstacle) in obstacles.into_iter().enumerate() {
        // Those that are still to come do not matter to those before.
        join(&peers).refused();
        assert_eq!(joiner.path("data/identity.json").exists(), number == last);
        assert_eq!(fs::read(joiner.path("data/join.key")).expect("its key"), key);
        let cut_off = joiner.cli(&["serve"]).refused();
        assert!(cut_off.contains("`watchword join` was cut off"), "{cut_off}");
        let other = joiner.cli(&["init"]).refused();
        assert!(other.contains("`watchword join` was cut off"), "{other}");
        obstacle.clear();
    }
    join(&peers).done();
    assert!(!joiner.path("data/join.key").exists());
    // Cut off between the store and the key: the next command is done at once, or a start goes on.
    for _ in 0..2 {
        joiner.write_file("data/join.key", "a key that is left over");
        join(&peers).done();
        assert!(!joiner.path("data/join.key").exists());
    }
    joiner.write_file("data/join.key", "a key that is left over");
    joiner.write_file("data/join.key.new", "and half of one");
    let joiner = joiner.serve();
    for left_over in ["data/join.key", "data/join.key.new"] {
        assert!(!joiner.directory().path(left_over).exists(), "no key lies about in the clear");
    }
    first.wait_for_voters(2);
    let members = first.cli(&["members", "--format", "json"]).json();
    let ids: Vec<_> = members.as_array().expect("a list").iter().map(|one| &one["node"]).collect();
    assert_eq!(ids, [1, 2], "it is one node");
    let known = joiner.cli(&["join", &peers, "--token", &token]).refused();
    assert!(known.contains("there is a node in"), "{known}");
}

#[test]
fn a_node_that_has_lost_its_store_does_not_come_back_under_its_id() {
    let first = founder();
    let token = first.token(&["--uses", "2"]);
    let second = Directory::for_peers().join(&first, &token);
    first.wait_for_voters(2);
    let second = second.kill();
    fs::remove_dir_all(second.path("data/raft")).expect("removed");
    let peers = first.directory().peers();
    let join = ["join", &peers, "--token", &token];
    for command in [&join[..], &["serve"], &["init"], &["recover"]] {
        let refused = second.cli(command).refused();
        assert!(refused.contains("the store of node 2 is gone"), "{refused}");
        assert!(refused.contains("watchword replace 2 --yes"), "{refused}");
        assert!(!second.path("data/raft").exists(), "{command:?} has made another");
    }
    let checked = second.cli(&["check"]);
    assert!(checked.stdout.contains("the store of node 2 is gone"), "{checked}");
}
