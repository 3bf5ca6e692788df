//! Rules that neither the compiler nor clippy keeps: who may import whom, what a file must say about
//! itself, and what may be in the dependency graph. Fast: starts no node.
//!
//! Each rule is data or a small pure function, and has a control: an example that breaks it.
//!
//! * `direction`: who may import, name and propose to whom
//! * `text`: what a source says about itself, and what it may not hold
//! * `document`: what people read
//! * `supply_chain`: what is built in, under which licences
//! * `files`: the files of the repository, for all of them

#![expect(clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod direction;
mod document;
mod files;
mod supply_chain;
mod text;
