//! Lets a control break one rule: `WATCHWORD_MUTANT=NAME` compiles a variant on which a test must fail.
//! A release cannot be built so.

#![expect(
    clippy::disallowed_methods,
    reason = "a build may look at its environment; the crate may not"
)]

const MUTANTS: &[&str] = &[
    "forget_decisions",
    "accept_used",
    "accept_answered_challenge",
    "count_no_failure",
    "trust_old_password",
    "keep_bypass",
    "admit_other_keys",
    "use_unheld_key",
    "reseal_what_changed",
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
