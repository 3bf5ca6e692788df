//! `watchword demo`, as somebody meets it who has just installed it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;
use watchword::radius::packet::Code;

use crate::harness::{Nas, Outcome, Process, Question, code_of, get, run, watchword};

/// A running demo and what it printed.
struct Demo {
    process: Process,
    printed: String,
    /// Where the demo makes its temporary directory.
    temporary: TempDir,
}

impl Demo {
    fn start(arguments: &[&str]) -> Self {
        let temporary = tempfile::tempdir().expect("a directory");
        let mut command = watchword();
        command.arg("demo").args(arguments).env("TMPDIR", temporary.path());
        let process = Process::spawn("the demo", command.current_dir(temporary.path()));
        process.wait_for_output("how to stop it", |line| line.contains("Ctrl-C").then_some(()));
        Self { printed: process.output(), process, temporary }
    }

    /// The printed command line that logs `user` in.
    fn line(&self, user: &str) -> &str {
        let wanted = format!("User-Name = {user},");
        let line = self.printed.lines().find(|line| line.contains(&wanted));
        line.unwrap_or_else(|| panic!("no line for {user}:\n{}", self.printed)).trim()
    }

    /// The word after `mark` on the line that holds it.
    fn word_after(&self, mark: &str) -> &str {
        let (_, rest) = self.printed.split_once(mark).expect("it is printed");
        rest.split_whitespace().next().expect("a word")
    }

    fn radius(&self) -> SocketAddr {
        self.word_after("RADIUS on ").trim_end_matches(',').parse().expect("an address")
    }

    fn metrics(&self) -> SocketAddr {
        let url = self.word_after("curl http://");
        url.trim_end_matches("/metrics").parse().expect("an address")
    }

    fn nas(&self) -> Nas {
        let secret = self.line("bob").split(' ').next_back().expect("a secret");
        Nas::at("127.0.0.1", self.radius(), secret)
    }

    fn config(&self) -> PathBuf {
        PathBuf::from(self.word_after("--config "))
    }

    fn attempts(&self) -> Vec<Value> {
        let mut command = watchword();
        command.args(["attempts", "--format", "json", "--config"]).arg(self.config());
        run(&mut command, "").json().as_array().expect("a list").clone()
    }

    /// Ctrl-C.
    fn interrupt(mut self) -> (Outcome, TempDir) {
        self.process.signal("INT");
        (Outcome::of("the demo", &mut self.process), self.temporary)
    }
}

/// Runs a line as it was printed; the passcodes that it makes on its way are written to `passcodes`.
fn run_as_printed(line: &str, passcodes: &Path) -> Outcome {
    let noting = format!(
        "oathtool() {{ command oathtool \"$@\" | tee -a '{}'; }}\n{line}",
        passcodes.display()
    );
    run(Command::new("sh").args(["-c", &noting]), "")
}

#[test]
fn alice_and_bob_log_in_by_the_lines_that_the_demo_prints() {
    let demo = Demo::start(&[]);
    for (user, make) in [("alice", "--totp"), ("bob", "--hotp")] {
        let line = demo.line(user);
        let passcodes = demo.temporary.path().join(user);
        let said = run_as_printed(line, &passcodes);
        assert!(said.stdout.contains("Received Access-Accept"), "{user}: {said}");
        // The same passcode in a new packet.
        let passcode = std::fs::read_to_string(&passcodes).expect("it was noted");
        let (before, rest) = line.split_once("$(oathtool ").expect("oathtool makes the passcode");
        let (made, after) = rest.split_once(')').expect("the substitution ends");
        assert!(made.starts_with(make), "{made}");
        let again = format!("{before}{}{after}", passcode.trim());
        let said = run(Command::new("sh").args(["-c", &again]), "");
        assert!(said.stdout.contains("Received Access-Reject"), "{user}: {said}");
    }
    // HOTP counts on, and the passcode may be left for a challenge.
    let next = demo.line("bob").replace("-c 0", "-c 1");
    let said = run(Command::new("sh").args(["-c", &next]), "");
    assert!(said.stdout.contains("Received Access-Accept"), "{said}");
    let (before, rest) = demo.line("bob").split_once(",$(").expect("a passcode");
    let (_, after) = rest.split_once(')').expect("the substitution ends");
    let said = run(Command::new("sh").args(["-c", &format!("{before}{after}")]), "");
    assert!(said.stdout.contains("Received Access-Challenge"), "{said}");
    let reasons: Vec<_> = demo.attempts().iter().map(|attempt| attempt["reason"].clone()).collect();
    assert_eq!((&reasons[1], &reasons[3]), (&reasons[3], &"passcode used already".into()));
    assert_eq!(reasons.len(), 5);
}

#[test]
fn what_else_the_demo_prints_works_too() {
    let demo = Demo::start(&[]);
    let (_, told) = demo.printed.split_once("another terminal:\n").expect("it is printed");
    let lines: Vec<&str> = told.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let listed = run(Command::new("sh").args(["-c", lines[0]]), "").done();
    assert!(listed.contains("alice") && listed.contains("bob"), "{listed}");
    let followed = lines.iter().find(|line| line.contains("attempts --follow"));
    let followed = followed.expect("a line that follows attempts");
    let following =
        Process::spawn("follow", Command::new("sh").args(["-c", &format!("exec {followed}")]));
    assert_eq!(code_of(&mut demo.nas(), &Question::login("nobody", "x")), Code::AccessReject);
    following.wait_for_output("nobody", |line| line.contains("nobody").then_some(()));
    let (status, metrics) = get(demo.metrics(), "/metrics");
    assert_eq!(status, 200);
    assert!(metrics.contains("watchword_users 2"), "{metrics}");
}

#[test]
fn a_copy_of_a_packet_gets_the_same_answer_and_is_one_attempt() {
    let demo = Demo::start(&[]);
    let line = demo.line("bob");
    let echo = line.split_once('|').map_or("", |(echo, _)| echo);
    let typed = run(Command::new("sh").args(["-c", echo]), "").done();
    let typed = typed.split('\'').nth(1).expect("a quoted password");
    let mut nas = demo.nas();
    let sent = nas.sealed(&Question::login("bob", typed));
    nas.send(&sent.bytes);
    let first = nas.receive(&sent);
    assert_eq!(first.code, Code::AccessAccept);
    nas.send(&sent.bytes);
    assert_eq!(nas.receive(&sent), first);
    assert_eq!(demo.attempts().len(), 1);
    assert_eq!(code_of(&mut nas, &Question::login("bob", typed)), Code::AccessReject);
    assert_eq!(demo.attempts().len(), 2);
}

#[test]
fn ctrl_c_ends_the_demo_and_leaves_nothing() {
    let demo = Demo::start(&[]);
    let (radius, metrics, config) = (demo.radius(), demo.metrics(), demo.config());
    assert!(config.starts_with(demo.temporary.path()) && config.exists());
    let (ended, temporary) = demo.interrupt();
    // A demo beside this one may have been quicker to take a port that was free a moment before.
    let mut complaints =
        ended.stderr.lines().filter(|line| !line.contains("Address already in use"));
    assert_eq!(complaints.next(), None, "{ended}");
    let said = ended.done();
    assert!(said.ends_with("stopped; everything is removed"), "{said}");
    let left = std::fs::read_dir(temporary.path()).expect("the directory is there").count();
    assert_eq!(left, 0, "nothing is left in the temporary directory");
    drop(std::net::UdpSocket::bind(radius).expect("the RADIUS port is free"));
    drop(std::net::TcpListener::bind(metrics).expect("the metrics port is free"));
}

#[test]
fn demos_run_side_by_side() {
    let demos: Vec<Demo> = std::thread::scope(|scope| {
        let starting: Vec<_> = (0..3).map(|_| scope.spawn(|| Demo::start(&[]))).collect();
        starting.into_iter().map(|demo| demo.join().expect("it starts")).collect()
    });
    for demo in demos {
        assert_eq!(code_of(&mut demo.nas(), &Question::status()), Code::AccessAccept);
        demo.interrupt().0.done();
    }
}

#[test]
fn a_demo_in_a_directory_of_its_own_keeps_its_data_there() {
    let demo = Demo::start(&["--dir", "kept"]);
    let config = demo.config();
    let (ended, temporary) = demo.interrupt();
    assert!(ended.done().ends_with("stopped"));
    let config = temporary.path().join(config);
    assert!(config.starts_with(temporary.path().join("kept")), "{}", config.display());
    let dump = run(watchword().args(["log", "dump", "--config"]).arg(&config), "").done();
    assert!(dump.contains("alice"), "{dump}");
    // What is there already is not touched.
    let again = run(watchword().arg("demo").arg("--dir").arg(temporary.path().join("kept")), "");
    assert!(again.refused().contains("kept"));
}
