//! Bounds on everything that can grow.
//!
//! A bound that an administrator may move within a range is a setting (see [`crate::settings`]);
//! the bounds here protect memory and the log and are part of the replicated rules: changing one
//! changes what `apply` does, so it needs a new feature level.

use std::ops::RangeInclusive;

/// Longest user name as presented or stored, in bytes of UTF-8. RFC 2865 section 5.1 leaves 253.
pub const USER_NAME_BYTES_MAX: usize = 253;
/// Longest free text (full name, mail address, reason, application name), in bytes.
pub const TEXT_BYTES_MAX: usize = 256;
/// Users in the cluster.
pub const USERS_MAX: usize = 2_000_000;
/// Groups that one user may be in.
pub const USER_GROUPS_MAX: usize = 64;
/// Devices that one user may hold.
pub const USER_DEVICES_MAX: usize = 16;
/// Clients in the cluster.
pub const CLIENTS_MAX: usize = 10_000;
/// Address ranges of one client.
pub const CLIENT_ADDRESSES_MAX: usize = 64;
/// Sources of first factors of one client.
pub const CLIENT_SOURCES_MAX: usize = 8;
/// Directories in the cluster.
pub const DIRECTORIES_MAX: usize = 64;
/// Servers of one directory.
pub const DIRECTORY_SERVERS_MAX: usize = 16;
/// Certificates or digests that one directory's servers are recognised by.
pub const TRUSTED_MAX: usize = 16;
/// How long one operation on a directory may take, in milliseconds: less than a client waits.
pub const DIRECTORY_TIMEOUT_MS: RangeInclusive<u64> = 100..=30_000;
/// Longest sealed secret, in bytes including nonce and tag.
pub const SEALED_BYTES_MAX: usize = 1_024;
/// Secrets that one command may seal anew.
pub const RESEALED_MAX: usize = 1_024;
/// How long a decision is repeated to the same request, in milliseconds.
pub const DECISION_MS: u64 = 60_000;
/// How long a challenge may live at most, in milliseconds; bounds the record of answered ones.
pub const CHALLENGE_MS_MAX: u64 = 600_000;
/// Answered challenges that are remembered; the one that expires first gives way.
pub const CHALLENGES_MAX: usize = 131_072;
/// Longest reply that is held with a verdict, in bytes: a RADIUS packet and its seal.
pub const HELD_REPLY_BYTES_MAX: usize = 4_096 + 64;
/// Bytes of all replies that are held; the one that expires first gives way.
pub const HELD_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Changes kept in the history of the settings.
pub const SETTING_HISTORY_MAX: usize = 256;
/// Settings changed by one command.
pub const SETTING_CHANGES_MAX: usize = 64;
/// Nodes in the cluster at one time.
pub const NODES_MAX: u32 = 64;
/// Tokens that are remembered, open or not.
pub const TOKENS_MAX: usize = 256;
/// How long a token may admit nodes, in milliseconds: a week.
pub const TOKEN_MS_MAX: u64 = 7 * 24 * 60 * 60 * 1000;
/// Longest public key or certificate, in bytes of DER.
pub const KEY_BYTES_MAX: usize = 2_048;
/// Longest encoded log entry, in bytes.
pub const ENTRY_BYTES_MAX: usize = 64 * 1024;
