//! The generator against the responder, which also gives its ceiling.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::cli::bench::responder::{Answer, Responder};
use crate::radius::attribute::AttributeType;
use crate::radius::packet::{Code, Packet};
use crate::radius::password;
use crate::radius::request::MessageAuthenticatorRule;
use crate::radius::secret::Secret;

const SECRET: &[u8] = b"xyzzy5461";
const ACCEPT: Answer = Answer::Reply(Code::AccessAccept);

/// User name and counter of every request that the responder saw, in order.
type Seen = Arc<Mutex<Vec<(String, String)>>>;

struct Setup {
    users: Users,
    pool: Mutex<Pool>,
    plan: Plan,
}

impl Setup {
    fn new(kind: &str, count: usize) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("users.csv");
        let rows = (0..count).map(|n| format!("u{n},GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ\n"));
        let text = format!("username,{kind}_key\n{}", rows.collect::<String>());
        std::fs::write(&path, text).expect("written");
        Self::from_file(&path)
    }

    fn from_file(path: &Path) -> Self {
        let users = Users::load(path).expect("users");
        let pool = Mutex::new(Pool::new(vec![0; users.all.len()]));
        let plan = Plan {
            secret: Secret::new(SECRET).expect("secret"),
            rule: MessageAuthenticatorRule::Required,
            is_signed: true,
            prefix: "pw,".to_owned(),
            // Long enough for a busy machine, wherever a reply is expected.
            timeout: Duration::from_millis(400),
            retries: 2,
        };
        Self { users, pool, plan }
    }

    fn run(&self, server: &Responder, in_flight: u32, logins: u64) -> Outcome {
        self.measure(server, in_flight, Extent::Logins(logins), &Interrupt::default())
    }

    fn measure(
        &self,
        server: &Responder,
        in_flight: u32,
        extent: Extent,
        interrupt: &Interrupt,
    ) -> Outcome {
        let bench = Bench {
            servers: &[server.address],
            plan: &self.plan,
            users: &self.users,
            pool: &self.pool,
            interrupt,
            warm_up: Duration::ZERO,
            extent,
        };
        bench.run(in_flight).expect("sockets")
    }
}

fn seen_by(request: &Packet<'_>) -> (String, String) {
    let name = request.first_text(AttributeType::USER_NAME).expect("name").to_owned();
    let hidden = request.first(AttributeType::USER_PASSWORD).expect("password");
    let secret = Secret::new(SECRET).expect("secret");
    let clear = password::reveal(hidden, &secret, &request.authenticator).expect("clear");
    (name, String::from_utf8(clear.as_bytes().to_vec()).expect("text"))
}

#[test]
fn every_login_is_another_passcode_and_every_reply_is_counted() {
    let setup = Setup::new("hotp", 40);
    let seen = Seen::default();
    let record = seen.clone();
    let server = Responder::start(SECRET, move |request, _| {
        record.lock().expect("lock").push(seen_by(request));
        ACCEPT
    });
    let outcome = setup.run(&server, 10, 100);
    let counts = outcome.tally.measured;
    assert_eq!((counts.accepts, counts.logins()), (100, 100));
    assert_eq!((outcome.tally.wrong, outcome.tally.replies_in_window > 0), (0, true));
    let seen = seen.lock().expect("lock");
    assert_eq!(seen.iter().collect::<HashSet<_>>().len(), 100);
    // RFC 4226 appendix D, behind the password.
    assert!(seen.contains(&("u0".to_owned(), "pw,755224".to_owned())));
    assert!(seen.contains(&("u0".to_owned(), "pw,287082".to_owned())));
    assert_eq!(setup.pool.lock().expect("lock").next().iter().sum::<u64>(), 100);
}

#[test]
fn a_lost_request_is_sent_again_octet_by_octet() {
    let setup = Setup::new("hotp", 4);
    let mut lost = HashMap::new();
    let server = Responder::start(SECRET, move |request, _| {
        let octets = request.bytes().to_vec();
        let copies: &mut u32 = lost.entry(octets).or_default();
        *copies += 1;
        if *copies < 3 { Answer::Silence } else { ACCEPT }
    });
    let counts = setup.run(&server, 2, 4).tally.measured;
    assert_eq!((counts.accepts, counts.retransmissions, counts.unknown), (4, 8, 0));
}

#[test]
fn an_unanswered_passcode_is_skipped() {
    let setup = Setup::new("hotp", 1);
    let mut first = None;
    let server = Responder::start(SECRET, move |request, _| {
        let (_, passcode) = seen_by(request);
        if *first.get_or_insert(passcode.clone()) == passcode { Answer::Silence } else { ACCEPT }
    });
    let counts = setup.run(&server, 1, 2).tally.measured;
    assert_eq!((counts.accepts, counts.unknown, counts.retransmissions), (1, 1, 2));
    assert_eq!(setup.pool.lock().expect("lock").next(), [2]);
}

#[test]
fn a_forged_reply_is_wrong_and_the_login_goes_on_waiting() {
    let setup = Setup::new("hotp", 2);
    let mut is_first = true;
    let server = Responder::start(SECRET, move |_, _| {
        if std::mem::take(&mut is_first) { Answer::Forged } else { ACCEPT }
    });
    let tally = setup.run(&server, 1, 2).tally;
    assert_eq!((tally.measured.accepts, tally.wrong), (2, 1));
    assert_eq!(tally.first_wrong, Some("response_authenticator"));
}

#[test]
fn a_second_reply_is_extra_unless_it_contradicts_the_first() {
    let replies = |second| {
        let setup = Setup::new("hotp", 50);
        let server =
            Responder::start(SECRET, move |_, _| Answer::Twice(Code::AccessAccept, second));
        let tally = setup.run(&server, 1, 50).tally;
        (tally.measured.accepts, tally.extra > 0, tally.wrong > 0)
    };
    assert_eq!(replies(Code::AccessAccept), (50, true, false));
    let (accepts, _, is_wrong) = replies(Code::AccessReject);
    assert_eq!((accepts, is_wrong), (50, true));
}

#[test]
fn rejects_and_challenges_are_told_apart() {
    let setup = Setup::new("hotp", 2);
    let server = Responder::start(SECRET, |request, _| match seen_by(request).0.as_str() {
        "u0" => Answer::Reply(Code::AccessReject),
        _ => Answer::Reply(Code::AccessChallenge),
    });
    let tally = setup.run(&server, 1, 2).tally;
    assert_eq!((tally.measured.rejects, tally.measured.challenges), (1, 1));
    assert_eq!(tally.first_reject, Some(Login { user: 0, moving_factor: 0 }));
}

#[test]
fn totp_users_log_in_once_per_time_step() {
    let setup = Setup::new("totp", 20);
    let server = Responder::start(SECRET, |_, _| ACCEPT);
    let outcome = setup.run(&server, 2, 1_000);
    // 40 when a step begins in between.
    assert!(matches!(outcome.tally.measured.accepts, 20 | 40));
    assert!(outcome.tally.users_used_up && outcome.users_short.is_some_and(|more| more >= 1));
}

#[test]
fn many_in_flight_take_several_sockets() {
    let mut setup = Setup::new("hotp", 600);
    // A burst may overflow the responder's socket.
    setup.plan.retries = 20;
    let ports = Arc::new(Mutex::new(HashSet::new()));
    let seen = ports.clone();
    let server = Responder::start(SECRET, move |_, client| {
        seen.lock().expect("lock").insert(client.port());
        ACCEPT
    });
    let tally = setup.run(&server, 600, 1_800).tally;
    assert_eq!((tally.measured.accepts, tally.wrong), (1_800, 0));
    assert_eq!(ports.lock().expect("lock").len(), 5);
}

#[test]
fn an_interrupt_ends_a_run_without_waiting_for_replies() {
    let setup = Setup::new("hotp", 9);
    let interrupt = Interrupt::default();
    let raised = interrupt.clone();
    let server = Responder::start(SECRET, move |_, _| {
        raised.raise();
        Answer::Silence
    });
    let hour = Extent::Time(Duration::from_secs(3_600));
    let outcome = setup.measure(&server, 3, hour, &interrupt);
    assert_eq!(outcome.tally.measured.logins(), 0);
    assert_eq!(setup.pool.lock().expect("lock").next().iter().sum::<u64>(), 3);
}

/// Prints the generator's ceiling; run it with `--release` and `--no-capture` on an idle machine.
#[test]
fn the_ceiling_is_printed() {
    let mut setup = Setup::new("hotp", 1_000);
    // On a loaded machine a reply may take long; here only the rate is of interest.
    setup.plan.timeout = Duration::from_secs(10);
    let server = Responder::start(SECRET, |_, _| ACCEPT);
    for in_flight in [1, 32, 256] {
        let outcome = setup.run(&server, in_flight, 10_000);
        assert_eq!(outcome.tally.measured.accepts, 10_000);
        let per_second = rate(outcome.tally.replies_in_window, outcome.measured);
        println!("{in_flight} in flight: {per_second:.0} per second");
    }
}
