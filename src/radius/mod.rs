//! RADIUS on the wire.
//!
//! The codec ([`packet`], [`attribute`], [`authenticator`], [`password`], [`hidden`], [`request`], [`reply`]) knows octets
//! and no policy. What a proxy passes on between a client and another server, [`relay`] carries from hop to hop. Whoever
//! answers clients is in [`crate::radius_front`], whoever asks another server in [`crate::directory`].

pub mod attribute;
pub mod authenticator;
pub mod hidden;
pub mod packet;
pub mod password;
pub mod relay;
pub mod reply;
pub mod request;
pub mod secret;
pub mod vendor;
pub mod writer;

#[cfg(test)]
mod vector;
