//! What is wrong with the links between hosts: faults that overlap do not mend each other.
//!
//! Each harm is counted, and what the simulated network is told follows from all that is left. A cut
//! comes before everything else: a link that is cut neither holds messages nor loses them now and then.

use std::collections::BTreeMap;
use std::time::Duration;

use turmoil::Sim;

/// How often a link fails by itself that loses messages, for each message.
const FAIL_RATE: f64 = 0.02;

/// From whom, and to whom.
pub(crate) type Way = (String, String);

/// What can be wrong with a way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Harm {
    /// Nothing gets through.
    Cut,
    /// Messages wait, in both directions.
    Held,
    /// It fails now and then, in both directions.
    Lossy,
    /// Messages may take so long, in both directions.
    Slow(Duration),
}

/// The links of all hosts.
pub(crate) struct Links {
    /// How long a message may take on a sound link.
    latency: Duration,
    /// By their ends, in order.
    links: BTreeMap<Way, Link>,
}

#[derive(Default)]
struct Link {
    /// From the first end to the second, and back.
    cuts: [usize; 2],
    held: usize,
    lossy: usize,
    slow: Vec<Duration>,
}

impl Links {
    /// Sound ones.
    pub(crate) fn new(latency: Duration) -> Self {
        Self { latency, links: BTreeMap::new() }
    }

    /// Does `harm` to ways.
    pub(crate) fn harm(&mut self, sim: &mut Sim<'_>, ways: &[Way], harm: Harm) {
        self.change(sim, ways, |link, direction| match harm {
            Harm::Cut => link.cuts[direction] += 1,
            Harm::Held => link.held += 1,
            Harm::Lossy => link.lossy += 1,
            Harm::Slow(latency) => link.slow.push(latency),
        });
    }

    /// Takes `harm` back, which was done to the same ways.
    pub(crate) fn mend(&mut self, sim: &mut Sim<'_>, ways: &[Way], harm: Harm) {
        self.change(sim, ways, |link, direction| match harm {
            Harm::Cut => link.cuts[direction] -= 1,
            Harm::Held => link.held -= 1,
            Harm::Lossy => link.lossy -= 1,
            Harm::Slow(latency) => {
                let position = link.slow.iter().position(|one| *one == latency);
                position.map(|position| link.slow.swap_remove(position));
            }
        });
    }

    fn change(&mut self, sim: &mut Sim<'_>, ways: &[Way], change: impl Fn(&mut Link, usize)) {
        for (from, to) in ways {
            let (ends, direction) = match from < to {
                true => ((from.clone(), to.clone()), 0),
                false => ((to.clone(), from.clone()), 1),
            };
            let link = self.links.entry(ends.clone()).or_default();
            change(link, direction);
            link.tell(sim, (&ends.0, &ends.1), self.latency);
        }
    }
}

impl Link {
    /// Makes the simulated link what this one is.
    fn tell(&self, sim: &mut Sim<'_>, (one, other): (&str, &str), latency: Duration) {
        let is_cut = self.cuts.iter().any(|cuts| *cuts > 0);
        if self.held > 0 && !is_cut {
            sim.hold(one, other);
        } else {
            // Sound in both directions first, whatever it was; then what is left of the harm.
            sim.release(one, other);
            if self.cuts[0] > 0 {
                sim.partition_oneway(one, other);
            }
            if self.cuts[1] > 0 {
                sim.partition_oneway(other, one);
            }
        }
        let fails = self.lossy > 0 && self.held == 0 && !is_cut;
        sim.set_link_fail_rate(one, other, if fails { FAIL_RATE } else { 0.0 });
        let slowest = self.slow.iter().max().map_or(latency, |slow| latency.max(*slow));
        sim.set_link_max_message_latency(one, other, slowest);
    }
}

/// All ways between two groups, in both directions.
pub(crate) fn between(one: &[String], other: &[String]) -> Vec<Way> {
    [towards(one, other), towards(other, one)].concat()
}

/// All ways from one group to another.
pub(crate) fn towards(from: &[String], to: &[String]) -> Vec<Way> {
    let ways = from.iter().flat_map(|from| to.iter().map(move |to| (from.clone(), to.clone())));
    ways.collect()
}
