//! A failed write or sync is final.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::probe::Step;
use crate::{ProposeError, Role};

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_disk_fails_stops_and_says_why() {
    for (step, panics) in [
        (Step::Written, false),
        (Step::Flushed, false),
        (Step::Synced, false),
        (Step::Marked, false),
        (Step::Flushed, true),
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let cluster = Cluster::create(options(dir.path()), "a:1".into()).await.expect("created");
        cluster.shutdown().await.expect("closed");

        let broken = Arc::new(AtomicBool::new(false));
        let now = broken.clone();
        let probe = Probe::new(move |at| {
            if at == step && now.load(Ordering::SeqCst) {
                assert!(!panics, "the page is gone");
                return Err(io::Error::other("no space left on device"));
            }
            Ok(())
        });
        let cluster = open_probed(options(dir.path()), probe).await.expect("opened");
        cluster.propose(add_user(1)).await.expect("applied");
        assert_eq!(cluster.status().fault, None);
        assert_eq!(cluster.status().role, Role::Leader);

        broken.store(true, Ordering::SeqCst);
        let failed = cluster.propose(add_user(2)).await;
        assert_eq!(failed, Err(ProposeError::OutcomeUnknown), "{step:?}");
        // The disk works again; the node must not.
        broken.store(false, Ordering::SeqCst);
        let reason = if panics { "the page is gone" } else { "no space left on device" };
        let refused = cluster.propose(add_user(3)).await;
        assert!(
            matches!(&refused, Err(ProposeError::Stopped { reason: why }) if why.contains(reason)),
            "{refused:?}"
        );
        let refused = cluster.propose_many(vec![add_user(3)]).await;
        assert!(matches!(refused, Err(ProposeError::Stopped { .. })), "{refused:?}");
        let status = cluster.status();
        assert!(status.fault.is_some_and(|fault| fault.contains(reason)));
        assert_eq!(status.role, Role::Stopped);
        assert!(cluster.snapshot().await.is_err());
        assert!(cluster.shutdown().await.is_err());

        let cluster = Cluster::open(options(dir.path())).await.expect("opened");
        let users = cluster.state().user_count();
        assert!((1..=2).contains(&users), "{step:?}: {users}");
        cluster.shutdown().await.expect("closed");
    }
}
