//! The Watchword server.
//!
//! One authentication runs like this: a front ([`radius_front`]) reads a request, [`auth`] examines it against
//! the replicated state and proposes the decision, the front answers. [`admin`] is the administrators'
//! way in, [`https`] carries it and [`cli`] calls it. [`join`] asks a cluster to take this node in,
//! [`admission`] answers that; [`keys`] seals the secrets, [`pki`] and [`identity`] say who this node
//! is, [`backup`] carries all of it in one file. [`node`] starts and stops all of them by its
//! [`config`].

pub mod admin;
pub mod admission;
pub mod auth;
pub mod backup;
pub mod cli;
pub mod clock;
pub mod config;
mod custody;
pub mod directory;
pub mod error_chain;
pub mod https;
pub mod identity;
pub mod join;
pub mod keys;
pub mod logging;
pub mod metrics;
pub mod node;
pub mod pki;
pub mod possession;
pub mod radius;
pub mod radius_front;
pub mod random;
pub mod stage;
pub mod throttle;
