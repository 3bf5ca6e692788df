//! How a cluster is founded, and a node admitted to it, in the tests inside and outside the crate.

use watchword_core::Command;
use watchword_core::command::{Admit, Found};
use watchword_core::id::{ClusterId, TokenId};
use watchword_core::node::Authority;
use watchword_core::sealed::Sealed;

pub(crate) const CLUSTER: ClusterId = ClusterId([9; 16]);

/// Founds a cluster on node 1, which is reached at `address`.
pub(crate) fn founding(address: &str) -> Command {
    Command::Found(Box::new(Found {
        authority: Authority {
            cluster: CLUSTER,
            certificate: [1].into(),
            key: Sealed::new(b"sealed"),
        },
        address: address.into(),
        public_key: [1].into(),
    }))
}

/// Creates the token by which [`admission`] admits nodes.
pub(crate) fn token() -> Command {
    Command::CreateToken {
        token: TokenId([1; 16]),
        public_key: [100].into(),
        for_ms: 60_000,
        uses: 8,
    }
}

/// Admits `node`, the next one, which is reached at `address`.
pub(crate) fn admission(node: u64, address: &str) -> Command {
    Command::AdmitNode(Box::new(Admit {
        token: TokenId([1; 16]),
        address: address.into(),
        public_key: [u8::try_from(node).expect("small")].into(),
        votes: true,
    }))
}
