//! Puts values into etcd as fast as it answers: the load of etcd.sh.
//!
//!   etcd_put IN_FLIGHT COUNT ADDRESS...
//!
//! Keeps IN_FLIGHT puts under way, each of 200 bytes under a key of its own, spread evenly over the
//! addresses, with a connection to each. Prints puts per second, and the median and the 99th
//! percentile in microseconds, as JSON. A put that fails ends it.

#![expect(clippy::print_stdout, reason = "a benchmark")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::future::try_join_all;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

const VALUE_BYTES: usize = 200;

/// What `etcdserverpb.KV/Put` takes, as far as it is needed here.
#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// What it gives: a revision that nobody looks at here.
#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {}

/// Takes numbers below `count` as long as there are any; returns how long each put took.
async fn put_all(channel: Channel, next: Arc<AtomicUsize>, count: usize) -> Result<Vec<Duration>> {
    let mut client = Grpc::new(channel);
    let mut times = Vec::new();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= count {
            return Ok(times);
        }
        let request = PutRequest {
            key: format!("bench/{number:08}").into_bytes(),
            value: vec![b'v'; VALUE_BYTES],
        };
        let began = Instant::now();
        client.ready().await.context("not ready")?;
        let codec = ProstCodec::<PutRequest, PutResponse>::default();
        let path = PathAndQuery::from_static("/etcdserverpb.KV/Put");
        client.unary(tonic::Request::new(request), path, codec).await.context("a put failed")?;
        times.push(began.elapsed());
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [in_flight, count, addresses @ ..] = arguments.as_slice() else {
        bail!("usage: etcd_put IN_FLIGHT COUNT ADDRESS...");
    };
    let in_flight: usize = in_flight.parse().context("IN_FLIGHT is not a number")?;
    let count: usize = count.parse().context("COUNT is not a number")?;
    let connections = addresses.iter().map(|address| async move {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
        endpoint.connect().await.with_context(|| format!("cannot connect to {address}"))
    });
    let channels = try_join_all(connections).await?;
    let next = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let tasks = channels.iter().cycle().take(in_flight).map(|channel| {
        let putting = tokio::spawn(put_all(channel.clone(), next.clone(), count));
        async move { putting.await? }
    });
    let mut times = try_join_all(tasks).await?.concat();
    let seconds = began.elapsed().as_secs_f64();
    times.sort_unstable();
    let percentile = |of_hundred: usize| {
        times.get(times.len() * of_hundred / 100).map_or(0, |time| time.as_micros())
    };
    let (p50, p99) = (percentile(50), percentile(99));
    let per_second = times.len() as f64 / seconds;
    println!("{{\"per_second\": {per_second:.1}, \"p50\": {p50}, \"p99\": {p99}}}");
    Ok(())
}
