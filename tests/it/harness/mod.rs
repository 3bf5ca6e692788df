//! What the tests are made of.

mod command;
mod http;
mod node;
mod peer;
mod process;
mod radius;
mod slapd;

pub(crate) use command::{Outcome, run, watchword};
pub(crate) use http::get;
pub(crate) use node::{Directory, Node, SECRET, write_secret};
pub(crate) use peer::{HotpKey, oathtool, pamtester, radclient};
pub(crate) use process::{DEADLINE, Process};
pub(crate) use radius::{Nas, Question, Sent, code_of};
pub(crate) use slapd::{Certificates, READER, Slapd};
