//! What the tests are made of.

mod certificates;
mod command;
mod freeradius;
mod http;
mod node;
mod peer;
mod process;
mod radius;
mod slapd;

pub(crate) use certificates::Certificates;
pub(crate) use command::{Outcome, run, watchword};
pub(crate) use freeradius::FreeRadius;
pub(crate) use http::get;
pub(crate) use node::{Directory, Node, SECRET, write_secret};
pub(crate) use peer::{HotpKey, eapol_test, oathtool, pamtester, radclient};
pub(crate) use process::{DEADLINE, Process};
pub(crate) use radius::{Nas, Question, Sent, code_of};
pub(crate) use slapd::{READER, Slapd};
