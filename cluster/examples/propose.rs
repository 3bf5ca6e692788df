//! Measures proposals on the durable store.
//!
//! ```text
//! cargo run --release -p watchword-cluster --example propose -- DIR [seconds] [in flight,…]
//! ```
//!
//! `DIR` must not hold a store yet; put it on the kind of device that counts. Commands are about 150
//! bytes long and change nothing, so the figures are those of the log alone.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use watchword_cluster::{Cluster, Options};
use watchword_core::Command;
use watchword_core::id::UserId;
use watchword_core::time::Timestamp;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(arguments.next().ok_or("usage: propose DIR [seconds] [in flight,…]")?);
    let seconds: u64 = arguments.next().as_deref().unwrap_or("4").parse()?;
    let levels = arguments.next().unwrap_or_else(|| "1,32,256,1024".to_owned());
    let options = Options::new(dir, 1, Arc::new(|| Timestamp(1_700_000_000_000)));
    let cluster = Cluster::create(options, "localhost:7400".to_owned()).await?;
    println!("in flight  proposals/s   p50 µs   p99 µs");
    for level in levels.split(',') {
        let in_flight: usize = level.parse()?;
        let mut times = measure(&cluster, in_flight, Duration::from_secs(seconds)).await?;
        times.sort_unstable();
        let quantile = |percent: usize| {
            times.get(times.len() * percent / 100).map_or(0, |time| time.as_micros())
        };
        println!(
            "{in_flight:>9}  {:>11}  {:>7}  {:>7}",
            times.len() as u64 / seconds,
            quantile(50),
            quantile(99),
        );
    }
    cluster.shutdown().await?;
    Ok(())
}

async fn measure(
    cluster: &Cluster,
    in_flight: usize,
    time: Duration,
) -> Result<Vec<Duration>, Box<dyn Error>> {
    let end = Instant::now() + time;
    let callers: Vec<_> = (0..in_flight)
        .map(|number| {
            let cluster = cluster.clone();
            tokio::spawn(async move {
                let mut times = Vec::new();
                while Instant::now() < end {
                    let begun = Instant::now();
                    cluster.propose(command(number, times.len())).await?;
                    times.push(begun.elapsed());
                }
                Ok::<_, watchword_cluster::ProposeError>(times)
            })
        })
        .collect();
    let mut all = Vec::new();
    for caller in callers {
        all.extend(caller.await??);
    }
    Ok(all)
}

fn command(caller: usize, number: usize) -> Command {
    Command::BlockUser {
        user: UserId([255; 16]),
        reason: format!("{caller:>8} {number:>12} {:.<80}", "a proposal of the usual length")
            .into(),
        by: "benchmark".into(),
        for_ms: Some(60_000),
    }
}
