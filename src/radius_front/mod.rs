//! The RADIUS front.
//!
//! A datagram's way: [`listener`] receives it, [`client`] finds who sent it, [`exchange`] checks it,
//! looks it up in the [`duplicate`] cache, asks [`crate::auth`] and replies, or has a [`drop_cause`]
//! for giving no answer. This front translates, by the codec in [`crate::radius`]; it decides nothing.

pub mod client;
pub mod drop_cause;
pub mod duplicate;
pub mod exchange;
pub mod listener;
