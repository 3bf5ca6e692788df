//! Members that leave, come back, are replaced; leadership that moves on request.

use anyhow::Result;
use serde_json::json;

use super::field::Resource;
use super::{Field, Nemesis, Outcome};
use crate::rng::Rng;

/// What changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A member leaves, and joins again when the fault is undone.
    Remove,
    /// A member's data is wiped, and it is replaced at once.
    Replace,
    /// Another member leads.
    Transfer,
}

/// A membership that may be changed.
pub(super) struct Churn {
    kind: Kind,
    /// Who has left.
    gone: Option<usize>,
}

impl Churn {
    /// A change of that kind, not made yet.
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, gone: None }
    }

    fn transfer(field: &Field, rng: &mut Rng) -> Result<Outcome> {
        let before = field.system.leader();
        let mut members = field.system.members().unwrap_or_default();
        members.retain(|host| Some(*host) != before && field.system.is_ready(*host));
        let (Some(before), Some(to)) = (before, rng.pick(&members).copied()) else {
            return Ok(Outcome::skipped("nobody leads, or nobody else could"));
        };
        if let Err(error) = field.system.transfer(to) {
            return Ok(Outcome::Indeterminate { why: format!("{error:#}") });
        }
        let leader = field.system.leader();
        let moved = leader.is_some_and(|leader| leader != before);
        let leader = leader.map(|leader| field.name(leader));
        let evidence = json!({"from": field.name(before), "to": field.name(to), "leader": leader});
        Ok(Outcome::of(u64::from(moved), evidence))
    }
}

impl Nemesis for Churn {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Remove => "member-remove",
            Kind::Replace => "member-replace",
            Kind::Transfer => "leader-transfer",
        }
    }

    fn start(&mut self, field: &Field, rng: &mut Rng) -> Result<Outcome> {
        if self.kind == Kind::Transfer {
            return Self::transfer(field, rng);
        }
        if self.gone.is_some() {
            return Ok(Outcome::skipped("a member has left already"));
        }
        let Some(host) = field.claim_expendable(rng) else {
            return Ok(Outcome::skipped("no member can be spared now"));
        };
        // Until it is a member again for certain: what failed half-way is put right by `stop`.
        self.gone = Some(host);
        let led = field.system.leader() == Some(host);
        let replaces = self.kind == Kind::Replace;
        let changed = match replaces {
            true => field.system.replace(host),
            false => field.system.remove(host),
        };
        let members = match changed.and_then(|()| field.system.members()) {
            Ok(members) => members,
            // Other faults may have taken the majority by now.
            Err(error) => return Ok(Outcome::Indeterminate { why: format!("{error:#}") }),
        };
        let acted = members.contains(&host) == replaces;
        if replaces && acted {
            self.gone = None;
            field.release(Resource::Node(host));
        }
        let evidence = json!({"host": field.name(host), "led": led});
        Ok(Outcome::of(u64::from(acted), evidence))
    }

    fn stop(&mut self, field: &Field) -> Result<Outcome> {
        let Some(host) = self.gone else {
            return Ok(Outcome::skipped("nobody has left"));
        };
        // One whose removal was refused, or whose answer was lost, may still be a member.
        match field.system.members()?.contains(&host) {
            true => field.system.replace(host)?,
            false => field.system.add(host)?,
        }
        self.gone = None;
        field.release(Resource::Node(host));
        let votes = field.system.members()?.contains(&host);
        Ok(Outcome::done(json!({"host": field.name(host), "votes": votes})))
    }
}
