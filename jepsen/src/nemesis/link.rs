//! Bad links: slow, lossy, out of order, or changing what they carry.
//!
//! Each kind sets a part of the links of its own, so that several may be in force at once.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::{Field, Nemesis, Outcome};
use crate::lab::{Counters, Link, Port};
use crate::rng::Rng;

/// What is bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Everything arrives later.
    Delay,
    /// Everything arrives at random times.
    Jitter,
    /// Some is lost.
    Loss,
    /// Some arrives twice.
    Duplicate,
    /// Some is overtaken.
    Reorder,
    /// Some arrives changed. Checksums are to catch it.
    Corrupt,
    /// Little fits through.
    Rate,
}

/// Links that may be bad.
pub(super) struct LinkFault {
    kind: Kind,
    links: Vec<(Port, Port)>,
    before: u64,
}

impl LinkFault {
    /// A fault of that kind, not made yet.
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, links: Vec::new(), before: 0 }
    }

    fn affected(&self, field: &Field) -> u64 {
        let affected = |(from, to): &(Port, Port)| {
            self.kind.affected(&field.lab.switch().counters(*from, *to))
        };
        self.links.iter().map(affected).sum::<u64>() - self.before
    }
}

impl Nemesis for LinkFault {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Delay => "link-delay",
            Kind::Jitter => "link-jitter",
            Kind::Loss => "link-loss",
            Kind::Duplicate => "link-duplicate",
            Kind::Reorder => "link-reorder",
            Kind::Corrupt => "link-corrupt",
            Kind::Rate => "link-rate",
        }
    }

    fn start(&mut self, field: &Field, rng: &mut Rng) -> Result<Outcome> {
        if !self.links.is_empty() {
            return Ok(Outcome::skipped("it is in force"));
        }
        let hosts = field.lab.hosts();
        // The links of one host, or all; those to the clients among them.
        let victim = (!rng.one_in(2)).then(|| rng.below(hosts));
        let hit = |port: Port| victim.is_none_or(|victim| victim == port);
        let ports = 0..=field.lab.control();
        let pairs = ports.clone().flat_map(|from| ports.clone().map(move |to| (from, to)));
        self.links = pairs.filter(|(from, to)| from != to && (hit(*from) || hit(*to))).collect();
        self.before = 0;
        self.before = self.affected(field);

        let strength = rng.unit();
        for (from, to) in &self.links {
            field.lab.switch().change(*from, *to, |link| self.kind.set(link, strength));
        }
        let affected = field.proof(|| self.affected(field));
        let mut shown = Link::default();
        self.kind.set(&mut shown, strength);
        let evidence = json!({
            "hosts": victim.map_or_else(|| json!("all"), |victim| json!(field.name(victim))),
            "link": self.kind.shown(&shown),
        });
        Ok(Outcome::of(affected, evidence))
    }

    fn stop(&mut self, field: &Field) -> Result<Outcome> {
        if self.links.is_empty() {
            return Ok(Outcome::skipped("it is not in force"));
        }
        for (from, to) in &self.links {
            field.lab.switch().change(*from, *to, |link| self.kind.clear(link));
        }
        let affected = self.affected(field);
        self.links.clear();
        Ok(Outcome::of(affected, json!({"unit": "frames"})))
    }
}

impl Kind {
    /// Makes its part of `link` bad; `strength` is from 0 to 1.
    fn set(self, link: &mut Link, strength: f64) {
        match self {
            Self::Delay => link.delay = Duration::from_millis(20).mul_f64(1.0 + 9.0 * strength),
            Self::Jitter => link.jitter = Duration::from_millis(10).mul_f64(1.0 + 9.0 * strength),
            Self::Loss => link.loss = 0.05 + 0.25 * strength,
            Self::Duplicate => link.duplicate = 0.05 + 0.45 * strength,
            Self::Reorder => link.reorder = 0.05 + 0.45 * strength,
            Self::Corrupt => link.corrupt = 0.01 + 0.09 * strength,
            // From 256 kbit/s to 4 Mbit/s.
            Self::Rate => link.rate = Some((256_000.0 * 16_f64.powf(strength)) as u32),
        }
    }

    /// Makes its part of `link` perfect.
    fn clear(self, link: &mut Link) {
        let perfect = Link::default();
        match self {
            Self::Delay => link.delay = perfect.delay,
            Self::Jitter => link.jitter = perfect.jitter,
            Self::Loss => link.loss = perfect.loss,
            Self::Duplicate => link.duplicate = perfect.duplicate,
            Self::Reorder => link.reorder = perfect.reorder,
            Self::Corrupt => link.corrupt = perfect.corrupt,
            Self::Rate => link.rate = perfect.rate,
        }
    }

    /// How many frames it has done something to.
    fn affected(self, counters: &Counters) -> u64 {
        match self {
            Self::Delay | Self::Jitter => counters.delayed,
            Self::Loss => counters.lost,
            Self::Duplicate => counters.duplicated,
            Self::Reorder => counters.reordered,
            Self::Corrupt => counters.corrupted,
            Self::Rate => counters.throttled,
        }
    }

    /// Its part of `link`, for the history.
    fn shown(self, link: &Link) -> Value {
        match self {
            Self::Delay => json!({"delay_ms": link.delay.as_millis() as u64}),
            Self::Jitter => json!({"jitter_ms": link.jitter.as_millis() as u64}),
            Self::Loss => json!({"loss": link.loss}),
            Self::Duplicate => json!({"duplicate": link.duplicate}),
            Self::Reorder => json!({"reorder": link.reorder}),
            Self::Corrupt => json!({"corrupt": link.corrupt}),
            Self::Rate => json!({"bits_per_second": link.rate}),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_undoes_its_own_part_and_no_other() {
        let kinds = [
            Kind::Delay,
            Kind::Jitter,
            Kind::Loss,
            Kind::Duplicate,
            Kind::Reorder,
            Kind::Corrupt,
            Kind::Rate,
        ];
        let mut link = Link::default();
        kinds.iter().for_each(|kind| kind.set(&mut link, 0.5));
        for kind in kinds {
            let before = link;
            kind.clear(&mut link);
            assert_ne!(link, before, "{kind:?}");
            kind.set(&mut link, 0.5);
            assert_eq!(link, before, "{kind:?}");
            kind.clear(&mut link);
        }
        assert_eq!(link, Link::default());
    }
}
