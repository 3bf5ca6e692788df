//! Watchword's replicated state and the rules that change it.
//!
//! Every node feeds the same log entries to [`State::apply`] and must arrive at the same state, so
//! nothing in this crate reads a clock, draws a random number, does I/O or looks at the environment.
//! Time, ids and sealed secrets travel inside the entries.
//!
//! The modules in reading order:

/// The bounded record of every decision.
pub mod attempt;
/// Questions that a node has asked and whose single answer is recorded.
pub mod challenge;
/// Whoever asks on a user's behalf: a NAS.
pub mod client;
/// Bytes as stored and sent: versioned bincode.
pub mod codec;
/// Everything that can be written into the log.
pub mod command;
/// Which data key seals what.
pub mod data_key;
mod decision;
/// What a user holds: OATH tokens.
pub mod device;
pub mod directory;
/// The pure rules of each factor.
pub mod factor;
/// Identifiers of users, devices, clients, requests and challenges.
pub mod id;
/// Bounds on everything that can grow, in one place.
pub mod limits;
/// When too many failures lock a user out.
pub mod lockout;
mod map;
/// Canonical user names.
pub mod name;
/// The nodes of the cluster: who was admitted, by which token, and who certifies them.
pub mod node;
/// What is required of this user at this client.
pub mod policy;
/// What is to be said along with a verdict, held for whoever gives it.
pub mod reply;
mod restore;
/// Secrets that only ever appear sealed.
pub mod sealed;
/// The table of replicated settings.
pub mod settings;
/// The state as bytes.
pub mod snapshot;
/// The replicated state itself.
pub mod state;
/// Milliseconds since the Unix epoch, as stamped by the leader.
pub mod time;
/// People who log in.
pub mod user;

pub use command::{Applied, Command, Entry, Refusal};
pub use state::State;
