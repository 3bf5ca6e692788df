//! Tests of the replicated state through its public face.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod change;
mod common;
mod data_key;
mod decision;
mod golden;
mod node;
mod oathtool;
mod replication;
