//! Every nemesis on the toy cluster: it acts, proves it, undoes it, and the nodes live on.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use watchword_jepsen::lab::Lab;
use watchword_jepsen::nemesis::schedule::Pace;
use watchword_jepsen::nemesis::{Action, Field, Outcome, Schedule, System, by_name, list};
use watchword_jepsen::rng::Rng;
use watchword_jepsen::wait;

use crate::build;
use crate::toy::Toy;

pub(crate) const TESTS: &[crate::Test] = &[
    ("every_nemesis_acts_and_is_undone", every_nemesis_acts_and_is_undone),
    ("a_damaged_store_is_refused_and_replaced", a_damaged_store_is_refused),
    ("nothing_acknowledged_is_lost_when_the_power_of_all_is_cut", nothing_acknowledged_is_lost),
    ("what_was_acknowledged_and_not_synced_is_lost_then", what_was_not_synced_is_lost),
    ("faults_that_destroy_spare_a_majority", faults_that_destroy_spare_a_majority),
    ("a_schedule_that_mixes_faults_ends_healed", a_schedule_that_mixes_faults_ends_healed),
];

const HOSTS: usize = 5;

fn every_nemesis_acts_and_is_undone(dir: &Path) {
    let lab = build(HOSTS, dir);
    let toy = Toy::start(&lab);
    let field = Field::new(&lab, &toy);
    let mut rng = Rng::new(7);
    // The toy has no leadership to move.
    for name in list().filter(|name| *name != "leader-transfer") {
        let mut nemesis = by_name(name).expect("it exists");
        let start = nemesis.start(&field, &mut rng).expect("started");
        let stop = nemesis.stop(&field).expect("stopped");
        println!("  {name}: {}", serde_json::to_string(&start).expect("text"));
        let acted = |outcome: &Outcome| matches!(outcome, Outcome::Acted { .. });
        assert!(acted(&start) || acted(&stop), "{name}: {start:?}, {stop:?}");
        let nothing_left = name == "rolling-restart" || name == "member-replace";
        assert_eq!(matches!(stop, Outcome::Skipped { .. }), nothing_left, "{name}: {stop:?}");
        let again = nemesis.stop(&field).expect("stopped again");
        assert!(matches!(again, Outcome::Skipped { .. }), "{name}: {again:?}");
        assert_all_live(&lab, &toy, name);
    }
    // Nobody has kept a claim, and no link stayed bad.
    assert_eq!(
        field.claim_nodes(watchword_jepsen::nemesis::field::Target::All, &mut rng).len(),
        HOSTS
    );
}

fn a_damaged_store_is_refused(dir: &Path) {
    let lab = build(3, dir);
    let toy = Toy::start(&lab);
    let field = Field::new(&lab, &toy);
    let mut damage = by_name("damage-flip").expect("it exists");
    let start = damage.start(&field, &mut Rng::new(7)).expect("started");
    let Outcome::Acted { evidence } = start else { panic!("{start:?}") };
    assert_eq!(evidence["refused"], true);
    assert!(evidence["said"].as_str().is_some_and(|said| said.starts_with("damaged: record ")));
    damage.stop(&field).expect("replaced");
    assert_all_live(&lab, &toy, "damage");
}

fn nothing_acknowledged_is_lost(dir: &Path) {
    let lab = build(HOSTS, dir);
    let toy = Toy::start(&lab);
    for _ in 0..10 {
        for (acknowledged, recovered) in cut_power_of_all(&lab, &toy) {
            assert!(recovered >= acknowledged, "{recovered} of {acknowledged}");
        }
    }
}

fn what_was_not_synced_is_lost(dir: &Path) {
    let lab = build(HOSTS, dir);
    let toy = Toy::start_careless(&lab);
    for (acknowledged, recovered) in cut_power_of_all(&lab, &toy) {
        assert!(recovered < acknowledged, "{recovered} of {acknowledged}");
    }
}

/// For each host, how many records it had acknowledged, and how many it found afterwards.
fn cut_power_of_all(lab: &Lab, toy: &Toy) -> Vec<(u64, u64)> {
    let field = Field::new(lab, toy);
    let mut power = by_name("power-all").expect("it exists");
    let acknowledge = || (0..HOSTS).all(|host| toy.acknowledged(host) > 0);
    assert!(wait::holds(Duration::from_secs(60), acknowledge));
    power.start(&field, &mut Rng::new(7)).expect("cut");
    let acknowledged: Vec<_> = (0..HOSTS).map(|host| toy.acknowledged(host)).collect();
    let restored = power.stop(&field).expect("restored");
    let Outcome::Done { evidence } = restored else { panic!("{restored:?}") };
    assert_eq!(evidence["journals"], HOSTS);
    let recovered = (0..HOSTS).map(|host| toy.recovered(host));
    acknowledged.into_iter().zip(recovered).collect()
}

fn faults_that_destroy_spare_a_majority(dir: &Path) {
    let lab = build(3, dir);
    let toy = Toy::start(&lab);
    let field = Field::new(&lab, &toy);
    toy.kill(2).expect("killed");
    for name in ["damage-flip", "member-remove", "member-replace"] {
        let mut nemesis = by_name(name).expect("it exists");
        let outcome = nemesis.start(&field, &mut Rng::new(7)).expect("considered");
        assert!(matches!(outcome, Outcome::Skipped { .. }), "{name}: {outcome:?}");
    }
}

fn a_schedule_that_mixes_faults_ends_healed(dir: &Path) {
    let lab = build(HOSTS, dir);
    let toy = Toy::start(&lab);
    let field = Field::new(&lab, &toy);
    let names = [
        "partition-ring",
        "kill-random",
        "pause-random",
        "power-one",
        "clock-jump",
        "disk-full",
        "disk-slow",
        "kill-in-write",
        "link-loss",
        "link-delay",
        "member-remove",
        "damage-flip",
    ];
    let pace = Pace { min: Duration::from_millis(100), max: Duration::from_secs(2) };
    let schedule = Schedule::new(&names, Duration::from_secs(8), pace, &Rng::new(7));
    let acted = AtomicUsize::new(0);
    let report = |name: &str, action: Action, outcome: &Result<Outcome>| match outcome {
        Ok(Outcome::Acted { .. }) => drop(acted.fetch_add(1, Ordering::Relaxed)),
        Ok(Outcome::Done { .. } | Outcome::Skipped { .. }) => {}
        other => println!("  {name} {action:?}: {other:?}"),
    };
    let faults = schedule.run(&field, &Rng::new(7), &report).expect("it ran");
    faults.undo().expect("healed");
    let acted = acted.into_inner();
    println!("  {acted} steps acted");
    assert!(acted > 0);
    assert_all_live(&lab, &toy, "everything");
}

/// Every node runs, acknowledges more, and goes by the right time.
fn assert_all_live(lab: &Lab, toy: &Toy, after: &str) {
    for host in 0..lab.hosts() {
        let before = toy.acknowledged(host);
        let lives = || toy.pid(host).is_some() && toy.acknowledged(host) > before;
        assert!(wait::holds(Duration::from_secs(60), lives), "host {host} is dead after {after}");
        let right = || toy.clock_offset(host).is_some_and(|offset| offset.abs() < 60.0);
        assert!(wait::holds(Duration::from_secs(60), right), "host {host} is late after {after}");
    }
}
