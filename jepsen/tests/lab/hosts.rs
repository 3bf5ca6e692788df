//! What each part of a host does, shown by ordinary programs: `ping`, `dd`, `date`, `sleep`, `perl`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use watchword_jepsen::lab::{Injection, Lab, Link, Port, Process, Trace, between, process};
use watchword_jepsen::wait;

use crate::build;

/// Asks this program to build a laboratory and stay in it until it is killed.
pub(crate) const HOLD: &str = "hold-a-laboratory";

pub(crate) const TESTS: &[crate::Test] = &[
    ("every_host_reaches_every_other_and_the_clients", every_host_reaches_every_other),
    ("a_cut_acts_in_its_direction_and_heals", a_cut_acts_and_heals),
    ("a_bad_link_counts_what_it_does", a_bad_link_counts_what_it_does),
    ("a_power_cut_loses_what_was_not_synced_and_nothing_else", a_power_cut_loses_the_unsynced),
    ("a_full_disk_takes_nothing_until_it_is_freed", a_full_disk_takes_nothing),
    ("a_clock_is_set_for_one_host_only", a_clock_is_set_for_one_host),
    ("a_paused_process_stands_still", a_paused_process_stands_still),
    ("a_sync_fails_while_it_is_traced", a_sync_fails_while_it_is_traced),
    ("a_killed_laboratory_leaves_nothing", a_killed_laboratory_leaves_nothing),
];

fn every_host_reaches_every_other(dir: &Path) {
    let lab = build(3, dir);
    for (from, to) in between(&[vec![0], vec![1], vec![2], vec![3]]) {
        assert!(reaches(&lab, from, to), "{from} does not reach {to}");
    }
}

fn a_cut_acts_and_heals(dir: &Path) {
    let lab = build(3, dir);
    let switch = lab.switch();
    switch.cut(&[(0, 1)]);
    assert!(!reaches(&lab, 0, 1));
    let counters = switch.counters(0, 1);
    assert!(counters.cut > 0 && counters.delivered == 0, "{counters:?}");
    // The request arrives, and the answer does not.
    let before = switch.counters(1, 0).delivered;
    assert!(!reaches(&lab, 1, 0));
    assert!(switch.counters(1, 0).delivered > before);
    assert!(reaches(&lab, 0, 2) && reaches(&lab, 2, 1));
    switch.join(&[(0, 1)]);
    assert!(reaches(&lab, 0, 1), "the first packet after a heal arrives");

    // Clients are on a link of their own.
    switch.cut(&[(lab.control(), 1)]);
    assert!(!reaches(&lab, lab.control(), 1) && reaches(&lab, 0, 1));
}

fn a_bad_link_counts_what_it_does(dir: &Path) {
    let lab = build(2, dir);
    let switch = lab.switch();
    let delay = Duration::from_millis(30);
    switch.set(0, 1, Link { delay, duplicate: 1.0, ..Link::default() });
    assert!(reaches(&lab, 0, 1));
    let counters = switch.counters(0, 1);
    assert!(counters.delayed > 0 && counters.delivered > counters.received, "{counters:?}");
    // The kernel's checksum finds every changed packet.
    switch.set(0, 1, Link { corrupt: 1.0, ..Link::default() });
    assert!(!reaches(&lab, 0, 1));
    assert!(switch.counters(0, 1).corrupted > 0);
    switch.heal();
    assert!(reaches(&lab, 0, 1));
}

fn a_power_cut_loses_the_unsynced(dir: &Path) {
    let lab = build(1, dir);
    let disk = lab.disk(0).expect("a disk");
    let write = |name: &str, conv: &str| {
        let to = disk.root().join(name);
        let mut dd = lab.command(0, "dd").expect("a command");
        dd.args(["if=/dev/urandom", "bs=64k", "count=4", conv]).arg(format!("of={}", to.display()));
        assert!(dd.output().expect("dd").status.success());
        fs::read(to).expect("what was written")
    };
    let synced = write("synced", "conv=fsync");
    assert!(!disk.remount().expect("mounted"), "nothing to recover after an orderly unmount");
    let unsynced = write("unsynced", "conv=notrunc");
    disk.cut().expect("cut");
    assert!(disk.remount().expect("mounted"), "a journal was recovered");
    assert_eq!(fs::read(disk.root().join("synced")).expect("there"), synced);
    assert_ne!(fs::read(disk.root().join("unsynced")).unwrap_or_default(), unsynced);
    fs::write(disk.root().join("after"), "x").expect("it can be written again");
}

fn a_full_disk_takes_nothing(dir: &Path) {
    let lab = build(1, dir);
    let disk = lab.disk(0).expect("a disk");
    let before = disk.usage().expect("usage");
    assert!(disk.fill().expect("filled") > 300 << 20);
    assert_eq!(disk.usage().expect("usage").free, 0);
    disk.free().expect("freed");
    disk.free().expect("again is nothing");
    assert_eq!(disk.usage().expect("usage"), before);
}

fn a_clock_is_set_for_one_host(dir: &Path) {
    let lab = build(2, dir);
    let offset = |host| lab.clock_offset(host).expect("date");
    for seconds in [0.0, 1000.0, -600.5] {
        lab.clock(0).and_then(|clock| clock.set(seconds)).expect("set");
        assert!((offset(0) - seconds).abs() < 60.0, "{} for {seconds}", offset(0));
        assert!(offset(1).abs() < 60.0);
    }
    let strobe = lab.clock(1).expect("a clock").strobe(3600.0, Duration::from_millis(1));
    assert!(wait::holds(Duration::from_secs(60), || offset(1) > 3000.0));
    assert!(wait::holds(Duration::from_secs(60), || offset(1) < 60.0));
    assert!(strobe.stop().expect("stopped") > 1);
    assert!(offset(1).abs() < 60.0);
}

fn a_paused_process_stands_still(dir: &Path) {
    let lab = build(1, dir);
    let mut sleep = lab.command(0, "sleep").expect("a command");
    sleep.arg("1000");
    let mut sleep = Process::start(sleep, &dir.join("log")).expect("started");
    process::pause(sleep.pid()).expect("paused");
    assert_eq!(process::states(sleep.pid()), Some(vec!['T']));
    process::resume(sleep.pid()).expect("resumed");
    assert_ne!(process::states(sleep.pid()), Some(vec!['T']));
    assert!(sleep.is_alive().expect("told"));
    assert!(sleep.wait(Duration::ZERO).expect("told").is_none());
    assert!(sleep.terminate(Duration::from_secs(60)).expect("told").is_some());
    assert!(process::states(sleep.pid()).is_none(), "it was reaped");
}

fn a_sync_fails_while_it_is_traced(dir: &Path) {
    let lab = build(1, dir);
    let file = lab.disk(0).expect("a disk").root().join("file");
    // Says for each sync whether it succeeded, and never ends by itself.
    let script = "use IO::Handle; $| = 1; open(F, '>', $ARGV[0]); \
                  for (;;) { syswrite(F, 'x'); print(F->sync ? \"synced\\n\" : \"failed\\n\") }";
    let mut perl = lab.command(0, "perl").expect("a command");
    perl.args(["-e", script]).arg(&file);
    let log = dir.join("log");
    let mut perl = Process::start(perl, &log).expect("started");
    let said = |word: &str| fs::read_to_string(&log).is_ok_and(|log| log.ends_with(word));
    let comes = |word: &str| wait::holds(Duration::from_secs(60), || said(word));
    assert!(comes("synced\n"));
    let trace =
        Trace::start(perl.pid(), Injection::SyncFails, &dir.join("strace")).expect("traced");
    assert!(comes("failed\n"));
    assert!(trace.stop().expect("stopped") > 0);
    assert!(comes("synced\n"), "it goes on as before");
    perl.kill().expect("killed");
}

fn a_killed_laboratory_leaves_nothing(dir: &Path) {
    // One laboratory within this one, as an independent program.
    let program = std::env::current_exe().expect("this program");
    let mut holder = Command::new(program)
        .arg(HOLD)
        .arg(dir)
        .env_remove("WATCHWORD_JEPSEN_PART")
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let mut line = String::new();
    BufReader::new(holder.stdout.take().expect("its output")).read_line(&mut line).expect("a line");
    assert_eq!(line, "built\n");
    assert_eq!(devices(dir).len(), 2);
    holder.kill().expect("killed");
    holder.wait().expect("reaped");
    let gone = || devices(dir).is_empty();
    assert!(wait::holds(Duration::from_secs(60), gone), "{:?}", devices(dir));

    // Should one stay behind all the same, the next laboratory detaches it.
    let image = dir.join("watchword-jepsen-left.img");
    fs::write(&image, vec![0; 1 << 20]).expect("an image");
    assert!(Command::new("losetup").arg("-f").arg(&image).status().expect("losetup").success());
    assert_eq!(devices(dir).len(), 1);
    drop(build(1, dir));
    assert!(wait::holds(Duration::from_secs(60), gone), "{:?}", devices(dir));
}

/// Builds a laboratory where the argument says, says so, and waits to be killed.
pub(crate) fn hold() -> ExitCode {
    let dir = std::env::args_os().nth(2).expect("a directory");
    let _lab = build(2, Path::new(&dir));
    println!("built");
    loop {
        std::thread::park();
    }
}

/// What is behind the loop devices of this test; others may run beside it.
fn devices(dir: &Path) -> Vec<String> {
    let list = Command::new("losetup").args(["-n", "-O", "BACK-FILE"]).output().expect("losetup");
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    let dir = dir.display().to_string();
    list.lines().filter(|file| file.starts_with(&dir)).map(str::to_owned).collect()
}

/// Whether `to` answers `from`.
fn reaches(lab: &Lab, from: Port, to: Port) -> bool {
    let address = match to == lab.control() {
        true => "10.77.0.254".to_owned(),
        false => lab.address(to).expect("an address").to_string(),
    };
    let ping = match from == lab.control() {
        true => Ok(Command::new("ping")),
        false => lab.command(from, "ping"),
    };
    let mut ping = ping.expect("a command");
    // By the host's clock ping would measure nonsense; here all clocks are right.
    ping.args(["-n", "-q", "-c1", "-W1", &address]);
    ping.output().expect("ping").status.success()
}
