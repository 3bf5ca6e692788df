//! Joining: who is let in, and what becomes of a join that is cut off.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;

use tokio::runtime::{Builder, Runtime};
use tonic::Code;
use watchword::join::Door;
use watchword::pki::{PrivateKey, Token};
use watchword_proto::{JoinAnswer, JoinRequest};

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
    DirBuilder::new().mode(0o700).create(joiner.path("data")).expect("made");
    fs::write(joiner.path("data/raft.new"), "in the way").expect("written");
    joiner.cli(&["join", &first.directory().peers(), "--token", token, "--no-serve"]).refused();
    fs::remove_file(joiner.path("data/raft.new")).expect("removed");
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
