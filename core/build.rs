//! Lets a control break one rule: `WATCHWORD_MUTANT=NAME` compiles a variant on which a test or the
//! simulation must fail. A release cannot be built so. Core, cluster and the server share this file.

#![allow(
    clippy::disallowed_methods,
    reason = "a build may look at its environment; the crate may not"
)]

const MUTANTS: &[&str] = &[
    // The replicated decision.
    "forget_decisions",
    "accept_used",
    "accept_answered_challenge",
    "accept_expired_challenge",
    "count_no_failure",
    "trust_old_password",
    "trust_old_client",
    "trust_old_directory",
    "keep_bypass",
    "say_regardless",
    "admit_at_node",
    "snapshot_without_used",
    "admit_other_keys",
    "use_unheld_key",
    "reseal_what_changed",
    // The replicas.
    "answer_before_sync",
    "forget_vote",
    "read_locally",
    "trust_leadership",
    "time_at_apply",
    "trust_any_clock",
    "stamp_at_arrival",
    "promote_at_once",
    "accept_rolled_back",
    // The server.
    "skip_password",
    "relay_unchecked",
    "crowd_directory",
];

fn main() {
    let values: Vec<_> = MUTANTS.iter().map(|mutant| format!("{mutant:?}")).collect();
    println!("cargo::rustc-check-cfg=cfg(mutant, values({}))", values.join(", "));
    println!("cargo::rerun-if-env-changed=WATCHWORD_MUTANT");
    let Ok(mutant) = std::env::var("WATCHWORD_MUTANT") else { return };
    assert!(MUTANTS.contains(&&*mutant), "there is no mutant {mutant}");
    assert_ne!(std::env::var("PROFILE").as_deref(), Ok("release"), "a release has no mutants");
    println!("cargo::rustc-cfg=mutant={mutant:?}");
}
