//! Who is admitted to the cluster, and who never is again.

use watchword_core::command::{Countable, NodeChange};
use watchword_core::id::TokenId;
use watchword_core::node::FOUNDER;
use watchword_core::{Applied, Command, Refusal};

use crate::change::refuses;
use crate::common::*;

fn founded() -> Replica {
    let mut replica = Replica::default();
    assert_eq!(replica.apply(found()), Applied::Done);
    replica
}

#[test]
fn a_cluster_is_founded_once() {
    let mut replica = founded();
    assert!(replica.state.nodes().get(FOUNDER).is_some_and(|node| node.votes));
    refuses(&mut replica, found(), Refusal::FoundedAlready);
}

#[test]
fn a_token_admits_as_many_nodes_as_it_was_made_for() {
    let mut replica = founded();
    assert_eq!(replica.apply(create_token(1, 2)), Applied::Done);
    assert_eq!(replica.apply(admit(1, 2, "b:7400")), Applied::Admitted(2));
    assert_eq!(replica.apply(admit(1, 3, "c:7400")), Applied::Admitted(3));
    refuses(&mut replica, admit(1, 4, "d:7400"), Refusal::TokenUsed);
}

#[test]
fn a_node_that_asks_again_is_the_same_node() {
    let mut replica = founded();
    replica.apply(create_token(1, 1));
    assert_eq!(replica.apply(admit(1, 2, "b:7400")), Applied::Admitted(2));
    assert_eq!(replica.apply(admit(1, 2, "b:7400")), Applied::Admitted(2));
    assert_eq!(replica.state.nodes().iter().count(), 2);
}

#[test]
fn a_node_is_known_to_the_token_that_admitted_it_and_to_no_other() {
    let mut replica = founded();
    replica.apply(create_token(1, 1));
    assert_eq!(replica.apply(admit(1, 2, "b:7400")), Applied::Admitted(2));
    assert_eq!(replica.state.nodes().get(2).and_then(|node| node.admitted_by), Some(token_id(1)));
    replica.apply(create_token(2, 1));
    refuses(&mut replica, admit(2, 2, "b:7400"), Refusal::NodeAdmittedOtherwise(2));
    // The founder came by none, and its key is no secret either.
    refuses(&mut replica, admit(2, 1, "b:7400"), Refusal::NodeAdmittedOtherwise(FOUNDER));
    assert_eq!(replica.apply(admit(2, 3, "c:7400")), Applied::Admitted(3), "nothing is used up");
    refuses(&mut replica, admit(2, 2, "b:7400"), Refusal::NodeAdmittedOtherwise(2));
}

#[test]
fn a_token_lapses_and_can_be_taken_back() {
    let mut replica = founded();
    replica.apply(create_token(1, 1));
    replica.now += 3_600_000;
    replica.apply(create_token(2, 1));
    refuses(&mut replica, admit(1, 2, "b:7400"), Refusal::TokenExpired);
    assert_eq!(replica.apply(Command::RevokeToken { token: token_id(2) }), Applied::Done);
    refuses(&mut replica, admit(2, 2, "b:7400"), Refusal::TokenUnknown);
    refuses(&mut replica, Command::RevokeToken { token: token_id(2) }, Refusal::TokenUnknown);
}

#[test]
fn two_nodes_do_not_share_an_address() {
    let mut replica = founded();
    replica.apply(create_token(1, 2));
    let taken = "node1.example.org:7400";
    let refusal = Refusal::NodeAddressTaken { address: taken.into(), node: FOUNDER };
    refuses(&mut replica, admit(1, 2, taken), refusal);
}

#[test]
fn a_removed_node_never_comes_back_under_its_id_and_frees_its_address() {
    let mut replica = founded();
    replica.apply(create_token(1, 3));
    assert_eq!(replica.apply(admit(1, 2, "b:7400")), Applied::Admitted(2));
    assert_eq!(replica.apply(Command::RemoveNode { node: 2 }), Applied::Done);
    assert!(replica.state.nodes().is_removed(2));
    refuses(&mut replica, admit(1, 2, "b:7400"), Refusal::NodeRemoved(2));
    assert_eq!(replica.apply(admit(1, 3, "b:7400")), Applied::Admitted(3));
    refuses(&mut replica, Command::RemoveNode { node: 9 }, Refusal::NodeUnknown(9));
}

#[test]
fn the_last_voter_stays() {
    let mut replica = founded();
    let only = Command::RemoveNode { node: FOUNDER };
    refuses(&mut replica, only.clone(), Refusal::LastVoter(FOUNDER));
    replica.apply(create_token(1, 1));
    replica.apply(admit(1, 2, "b:7400"));
    assert_eq!(replica.apply(only), Applied::Done);
    refuses(&mut replica, Command::RemoveNode { node: 2 }, Refusal::LastVoter(2));
}

#[test]
fn only_a_token_that_lapsed_makes_room_for_another() {
    let mut replica = founded();
    let token = |n: u16| {
        let mut id = [0; 16];
        id[..2].copy_from_slice(&n.to_be_bytes());
        Command::CreateToken {
            token: TokenId(id),
            public_key: id.into(),
            for_ms: if n == 7 { 1_000 } else { 3_600_000 },
            uses: 1,
        }
    };
    for n in 0..256 {
        assert_eq!(replica.apply(token(n)), Applied::Done);
    }
    let too_many = Refusal::TooMany { what: Countable::Tokens, max: 256 };
    refuses(&mut replica, token(256), too_many);
    replica.now += 1_000;
    // Time alone passes with this.
    replica.apply(Command::EnableFeature { level: 0 });
    refuses(&mut replica, token(3), Refusal::IdTaken);
    assert_eq!(replica.apply(token(256)), Applied::Done);
    assert_eq!(replica.state.nodes().tokens().count(), 256);
    assert!(
        replica.state.nodes().token_of(&[0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).is_none()
    );
}

#[test]
fn a_node_gets_another_address_and_priority() {
    let mut replica = founded();
    replica.apply(create_token(1, 1));
    replica.apply(admit(1, 2, "b:7400"));
    let edit = |node, address: Option<&str>, priority| Command::EditNode {
        node,
        change: NodeChange { address: address.map(Into::into), priority },
    };
    assert_eq!(replica.apply(edit(2, Some("b:7401"), Some(200))), Applied::Done);
    let node = replica.state.nodes().get(2).expect("there");
    assert_eq!((&*node.address, node.priority), ("b:7401", 200));
    // Its own address is not taken; another's is.
    assert_eq!(replica.apply(edit(2, Some("b:7401"), None)), Applied::Done);
    let taken = Refusal::NodeAddressTaken { address: "b:7401".into(), node: 2 };
    refuses(&mut replica, edit(FOUNDER, Some("b:7401"), None), taken);
    refuses(&mut replica, edit(9, None, None), Refusal::NodeUnknown(9));
    replica.apply(Command::RemoveNode { node: 2 });
    refuses(&mut replica, edit(2, None, Some(1)), Refusal::NodeRemoved(2));
}

#[test]
fn a_recovery_removes_everybody_else_and_begins_an_epoch() {
    let mut replica = founded();
    replica.apply(create_token(1, 2));
    replica.apply(admit(1, 2, "b:7400"));
    replica.apply(admit(1, 3, "c:7400"));
    assert_eq!(replica.apply(Command::Recover { node: 2 }), Applied::Done);
    let nodes = replica.state.nodes();
    assert_eq!(nodes.epoch(), 1);
    assert!(nodes.is_removed(FOUNDER) && nodes.is_removed(3) && !nodes.is_removed(2));
    refuses(&mut replica, Command::RemoveNode { node: 2 }, Refusal::LastVoter(2));
    replica.apply(create_token(2, 1));
    assert_eq!(replica.apply(admit(2, 4, "d:7400")), Applied::Admitted(4), "ids are not reused");
}
