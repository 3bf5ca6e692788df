//! Measures how long a node with many users takes to start, and the memory it needs.
//!
//! ```text
//! cargo run --release -p watchword-cluster --example restart -- DIR fill [users]
//! cargo run --release -p watchword-cluster --example restart -- DIR open
//! cargo run --release -p watchword-cluster --example restart -- DIR snapshot
//! ```
//!
//! `fill` adds the users, each with one device; `open` starts the node, says how long that took and
//! stops it; `snapshot` also takes a snapshot. Run them as separate processes: memory is a process's.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use watchword_cluster::{Cluster, Options};
use watchword_core::Command;
use watchword_core::command::{NewDevice, NewOath, NewUser};
use watchword_core::factor::Algorithm;
use watchword_core::id::{DeviceId, UserId};
use watchword_core::name::UserName;
use watchword_core::sealed::Sealed;
use watchword_core::time::Timestamp;
use watchword_core::user::Profile;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(arguments.next().ok_or("usage: restart DIR fill|open|snapshot")?);
    let what = arguments.next().unwrap_or_else(|| "open".to_owned());
    let options = Options::new(dir, 1, Arc::new(|| Timestamp(1_700_000_000_000)));
    let begun = Instant::now();
    let cluster = if what == "fill" {
        let users: u64 = arguments.next().as_deref().unwrap_or("100000").parse()?;
        let cluster = Cluster::create(options, "localhost:7400".to_owned()).await?;
        for first in (0..users).step_by(10_000) {
            let last = users.min(first + 10_000);
            let commands = (first..last).map(add_user).collect::<Result<Vec<_>, _>>()?;
            cluster.propose_many(commands).await?;
        }
        cluster
    } else {
        Cluster::open(options).await?
    };
    report(&what, begun, &cluster)?;
    if what == "snapshot" {
        let begun = Instant::now();
        cluster.snapshot().await?;
        report("snapshot taken", begun, &cluster)?;
    }
    cluster.shutdown().await?;
    Ok(())
}

fn add_user(number: u64) -> Result<Command, Box<dyn Error>> {
    let mut id = [0; 16];
    for (to, from) in id.iter_mut().zip(number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes()) {
        *to = from;
    }
    Ok(Command::AddUser(Box::new(NewUser {
        id: UserId(id),
        name: UserName::canonical(&format!("user{number}"))?,
        profile: Profile {
            full_name: format!("User Number {number}").into(),
            mail: format!("user{number}@example.com").into(),
            groups: Arc::from([Arc::from("employees")]),
        },
        password: None,
        enabled: true,
        devices: vec![NewDevice {
            id: DeviceId(id),
            label: "token".into(),
            key: Sealed::new(&[7; 60]),
            algorithm: Algorithm::Sha1,
            digits: 6,
            oath: NewOath::Totp { period_seconds: 30 },
        }],
    })))
}

fn report(what: &str, begun: Instant, cluster: &Cluster) -> Result<(), Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let memory: Vec<_> = status
        .lines()
        .filter(|line| line.starts_with("VmHWM") || line.starts_with("VmRSS"))
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    let (users, time) = (cluster.state().user_count(), begun.elapsed());
    println!("{what}: {users} users after {time:?}; {}", memory.join(", "));
    Ok(())
}
