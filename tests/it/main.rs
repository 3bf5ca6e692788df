//! Watchword as its users meet it: real processes, real sockets, foreign peers.
//!
//! Each test starts its own node in a directory of its own, on ports that the system chooses, and
//! speaks to it through the command line, over RADIUS and over HTTP, as an operator and a NAS do.
//! Nothing here waits for a span of time: whoever waits, waits for a line, a datagram or an end.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod harness;

mod attempts;
mod backup;
mod challenge;
mod chaos;
mod clients;
mod cluster;
mod command_line;
mod demo;
mod devices;
mod directory;
mod durability;
mod faults;
mod founding;
mod health;
mod import;
mod join;
mod key_sealing;
mod lockout;
mod membership;
mod pam;
mod privacy;
mod radius_login;
mod radius_signature;
mod radius_target;
mod radius_wire;
mod rekey;
mod settings;
mod time;
mod users;
