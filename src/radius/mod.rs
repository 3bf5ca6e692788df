//! The RADIUS front.
//!
//! A datagram's way: [`listener`] receives it, [`client`] finds who sent it, [`exchange`] checks it,
//! looks it up in the [`duplicate`] cache, asks [`crate::auth`] and replies, or has a [`drop_cause`]
//! for giving no answer. The codec below them ([`packet`], [`attribute`], [`authenticator`],
//! [`password`], [`request`], [`reply`]) knows the wire and no policy. This front translates; it
//! decides nothing.

pub mod attribute;
pub mod authenticator;
pub mod client;
pub mod drop_cause;
pub mod duplicate;
pub mod exchange;
pub mod listener;
pub mod packet;
pub mod password;
pub mod reply;
pub mod request;
pub mod secret;
pub mod vendor;
pub mod writer;

#[cfg(test)]
mod vector;
