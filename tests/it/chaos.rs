//! Logins while nodes die: each packet goes to any node, replies are lost, the leader is killed.
//!
//! `WATCHWORD_CHAOS_LOGINS` sets how many logins there are.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use watchword::radius::packet::Code;

use crate::harness::{DEADLINE, Nas, Node, Question, SECRET, Sent};
use crate::radius_login::KEY;

/// Threads that log users in, and users of each.
const WORKERS: usize = 8;
const USERS: usize = 40;
/// One reply in so many is lost.
const LOST: u64 = 5;
/// One passcode in so many is tried again in a new request.
const REUSED: u64 = 10;
/// How long a NAS waits before it sends the same packet to another node.
const RETRANSMISSION: Duration = Duration::from_millis(300);
/// Logins between two kills.
const KILL_EVERY: usize = 600;

/// A generator of numbers that only have to look random.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// One NAS whose packets a careless balancer spreads.
struct Client {
    nas: Nas,
    dice: Dice,
    /// The latest request of each identifier, and what it was told.
    told: HashMap<u8, (Sent, Option<Code>)>,
}

impl Client {
    /// Asks until an answer gets through; every answer to the same request must be the same.
    fn ask(&mut self, servers: &[SocketAddr], question: &Question) -> Code {
        let sent = self.nas.sealed(question);
        let identifier = sent.bytes[1];
        let bytes = sent.bytes.clone();
        self.told.insert(identifier, (sent, None));
        let begun = Instant::now();
        loop {
            assert!(begun.elapsed() < DEADLINE, "no answer, whichever node is asked");
            let server = servers[self.dice.roll(servers.len() as u64) as usize];
            self.nas.send_to(&bytes, server);
            if let Some(code) = self.listen(identifier) {
                return code;
            }
        }
    }

    /// Listens for a while; gives the answer to `identifier` unless it gets lost.
    fn listen(&mut self, identifier: u8) -> Option<Code> {
        let begun = Instant::now();
        loop {
            let left =
                RETRANSMISSION.checked_sub(begun.elapsed()).filter(|left| !left.is_zero())?;
            let bytes = self.nas.receive_any(left)?;
            let (sent, told) = self.told.get_mut(&bytes[1]).expect("it was asked");
            let code = self.nas.verified(sent, &bytes).code;
            assert_eq!(*told.get_or_insert(code), code, "one request, one verdict");
            let is_lost = self.dice.roll(LOST) == 0;
            if bytes[1] == identifier && !is_lost {
                return Some(code);
            }
        }
    }
}

/// Logs the users of one worker in; returns how many requests it has made.
fn work(
    worker: usize,
    logins: usize,
    servers: &[SocketAddr],
    passcodes: &[String],
    done: &AtomicUsize,
) -> u64 {
    let dice = Dice(0x9e37_79b9_7f4a_7c15 ^ (worker as u64 + 1));
    let nas = Nas::at("127.0.0.1", servers[0], SECRET);
    let mut client = Client { nas, dice, told: HashMap::new() };
    let mut requests = 0;
    for login in 0..logins {
        let user = format!("user{}", worker * USERS + login % USERS);
        let question = Question::login(&user, &passcodes[login / USERS]);
        assert_eq!(client.ask(servers, &question), Code::AccessAccept, "{user}, login {login}");
        requests += 1;
        if client.dice.roll(REUSED) == 0 {
            assert_eq!(client.ask(servers, &question), Code::AccessReject, "{user}, used");
            requests += 1;
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
    requests
}

#[test]
fn logins_survive_the_death_of_leaders_and_none_is_doubled() {
    let logins = std::env::var("WATCHWORD_CHAOS_LOGINS").ok();
    let logins: usize = logins.map_or(2_000, |logins| logins.parse().expect("a number"));
    let per_worker = logins.div_ceil(WORKERS);
    let mut nodes: Vec<Node> = Node::three().into();
    nodes[0].add_client("vpn", "127.0.0.1", &["--first-factor", "none"]);
    let rows = (0..WORKERS * USERS).map(|user| format!("user{user},{}\n", KEY.0));
    nodes[0].import(&format!("username,hotp_key\n{}", rows.collect::<String>()));
    nodes[0].cli(&["settings", "set", "attempts.kept", "1000000"]).done();
    let servers: Vec<SocketAddr> = nodes.iter().map(|node| node.radius).collect();
    let passcodes = KEY.passcodes(0, per_worker.div_ceil(USERS) as u64 + 1);
    let (done, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let mut kills = 0;
    let requests: u64 = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                let (servers, passcodes, done, failed) = (&servers, &passcodes, &done, &failed);
                scope.spawn(move || {
                    let work = || work(worker, per_worker, servers, passcodes, done);
                    let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
                    failed.fetch_or(worked.is_err(), Ordering::Relaxed);
                    worked
                })
            })
            .collect();
        // The leader dies again and again, and comes back while the others go on.
        let mut next = KILL_EVERY;
        while workers.iter().any(|worker| !worker.is_finished()) && !failed.load(Ordering::Relaxed)
        {
            if done.load(Ordering::Relaxed) < next {
                std::thread::yield_now();
                continue;
            }
            next += KILL_EVERY;
            let status = nodes[0].cli(&["status", "--format", "json"]).json();
            let leader = status["leader"].as_u64().map_or(0, |leader| leader as usize - 1);
            let killed = nodes.remove(leader);
            nodes.insert(leader, killed.kill().serve());
            kills += 1;
        }
        let worked = workers.into_iter().map(|worker| worker.join().expect("it was caught"));
        worked.map(|worked| worked.expect("a worker saw nothing wrong")).sum()
    });
    assert!(kills > 0, "somebody was killed");
    // One attempt for each request, however often it was sent, and the same on all nodes.
    for node in &nodes {
        node.wait_for_status("all attempts", |status| status["attempts"] == requests);
    }
    println!("{logins} logins, {requests} requests, the leader killed {kills} times");
}
