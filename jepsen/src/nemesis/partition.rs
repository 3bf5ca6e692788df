//! Partitions: who cannot reach whom.
//!
//! Cut links drop silently, as a network does. Except for [`Shape::Clients`], clients still reach
//! every host: what a minority answers is of interest.

use anyhow::Result;
use serde_json::json;

use super::{Field, Nemesis, Outcome};
use crate::lab::{Port, between};
use crate::rng::Rng;

/// Which links are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// A minority from the rest.
    Halves,
    /// Every host still reaches a majority, and no two the same one.
    Ring,
    /// One host hears nobody, or is heard by nobody.
    OneWay,
    /// The leader from the rest.
    Leader,
    /// Some pairs of hosts.
    Random,
    /// Clients from some hosts, which still reach each other.
    Clients,
}

/// A partition that may be in force.
pub(super) struct Partition {
    shape: Shape,
    cut: Vec<(Port, Port)>,
    /// Frames that the links had dropped before.
    before: u64,
}

impl Partition {
    /// A partition that is not in force.
    pub(super) fn new(shape: Shape) -> Self {
        Self { shape, cut: Vec::new(), before: 0 }
    }

    fn dropped(&self, field: &Field) -> u64 {
        let dropped = |(from, to): &(Port, Port)| field.lab.switch().counters(*from, *to).cut;
        self.cut.iter().map(dropped).sum::<u64>() - self.before
    }
}

impl Nemesis for Partition {
    fn name(&self) -> &'static str {
        match self.shape {
            Shape::Halves => "partition-halves",
            Shape::Ring => "partition-ring",
            Shape::OneWay => "partition-one-way",
            Shape::Leader => "partition-leader",
            Shape::Random => "partition-random",
            Shape::Clients => "partition-clients",
        }
    }

    fn start(&mut self, field: &Field, rng: &mut Rng) -> Result<Outcome> {
        if !self.cut.is_empty() {
            return Ok(Outcome::skipped("it is in force"));
        }
        let links = self.shape.links(field.lab.hosts(), field.system.leader(), rng);
        if links.is_empty() {
            return Ok(Outcome::skipped("nobody leads, or there are too few hosts for this shape"));
        }
        self.cut = links;
        self.before = 0;
        self.before = self.dropped(field);
        field.lab.switch().cut(&self.cut);
        // Nodes say something to each other many times a second.
        let dropped = field.proof(|| self.dropped(field));
        let name = |port: Port| match port == field.lab.control() {
            true => "clients".to_owned(),
            false => field.name(port),
        };
        let cut: Vec<_> =
            self.cut.iter().map(|(from, to)| format!("{}>{}", name(*from), name(*to))).collect();
        Ok(Outcome::of(dropped, json!({"cut": cut})))
    }

    fn stop(&mut self, field: &Field) -> Result<Outcome> {
        if self.cut.is_empty() {
            return Ok(Outcome::skipped("it is not in force"));
        }
        field.lab.switch().join(&self.cut);
        let dropped = self.dropped(field);
        let links = self.cut.len();
        self.cut.clear();
        Ok(Outcome::of(dropped, json!({"links": links})))
    }
}

impl Shape {
    /// The links to cut among `hosts` hosts; none when the shape cannot be had.
    fn links(self, hosts: usize, leader: Option<usize>, rng: &mut Rng) -> Vec<(Port, Port)> {
        let mut order: Vec<Port> = (0..hosts).collect();
        rng.shuffle(&mut order);
        match self {
            Self::Halves => {
                let rest = order.split_off(hosts.saturating_sub(1) / 2);
                between(&[order, rest])
            }
            Self::Ring => ring(&order),
            Self::OneWay => {
                let others = order.split_off(1.min(hosts));
                let deaf = rng.one_in(2);
                let mut links = between(&[order.clone(), others]);
                links.retain(|(from, _)| order.contains(from) != deaf);
                links
            }
            Self::Leader => {
                let Some(leader) = leader else { return Vec::new() };
                order.retain(|host| *host != leader);
                between(&[vec![leader], order])
            }
            Self::Random => {
                let mut pairs: Vec<_> =
                    between(&order.iter().map(|h| vec![*h]).collect::<Vec<_>>());
                pairs.retain(|(one, other)| one < other);
                rng.shuffle(&mut pairs);
                pairs.truncate(1 + rng.below(pairs.len()));
                pairs.iter().flat_map(|(one, other)| [(*one, *other), (*other, *one)]).collect()
            }
            Self::Clients => {
                order.truncate(1 + rng.below(hosts));
                between(&[vec![hosts], order])
            }
        }
    }
}

/// Cuts each host of a ring from those that are too far away to be of its majority.
fn ring(order: &[Port]) -> Vec<(Port, Port)> {
    let hosts = order.len();
    let majority = hosts / 2 + 1;
    // With itself and so many on both sides, a host reaches a majority.
    let near = majority / 2;
    let mut links = Vec::new();
    for (place, from) in order.iter().enumerate() {
        for (other, to) in order.iter().enumerate() {
            let apart = place.abs_diff(other);
            if apart.min(hosts - apart) > near {
                links.push((*from, *to));
            }
        }
    }
    links
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Whom each of five hosts hears, itself included.
    fn hears(shape: Shape, seed: u64) -> Vec<BTreeSet<Port>> {
        let cut = shape.links(5, Some(3), &mut Rng::new(seed));
        let heard = |to| (0..5).filter(|from| !cut.contains(&(*from, to))).collect();
        (0..5).map(heard).collect()
    }

    #[test]
    fn in_a_ring_every_host_hears_a_majority_and_no_two_the_same() {
        for seed in 0..20 {
            let heard = hears(Shape::Ring, seed);
            assert!(heard.iter().all(|heard| heard.len() == 3), "{heard:?}");
            assert_eq!(heard.iter().collect::<BTreeSet<_>>().len(), 5);
        }
    }

    #[test]
    fn halves_are_two_and_three_hosts_that_hear_each_other() {
        for seed in 0..20 {
            let heard = hears(Shape::Halves, seed);
            assert_eq!(heard.iter().collect::<BTreeSet<_>>().len(), 2);
            assert_eq!(heard.iter().filter(|heard| heard.len() == 2).count(), 2);
        }
    }

    #[test]
    fn one_way_is_cut_one_way() {
        for seed in 0..20 {
            let cut = Shape::OneWay.links(5, None, &mut Rng::new(seed));
            assert_eq!(cut.len(), 4);
            assert!(cut.iter().all(|(from, to)| !cut.contains(&(*to, *from))));
        }
    }

    #[test]
    fn the_leader_is_alone_and_without_a_leader_nothing_is_cut() {
        assert_eq!(hears(Shape::Leader, 1)[3].len(), 1);
        assert!(Shape::Leader.links(5, None, &mut Rng::new(1)).is_empty());
    }

    #[test]
    fn random_cuts_something_and_clients_cuts_only_clients() {
        for seed in 0..20 {
            assert!(!Shape::Random.links(5, None, &mut Rng::new(seed)).is_empty());
            let cut = Shape::Clients.links(5, None, &mut Rng::new(seed));
            assert!(!cut.is_empty());
            assert!(cut.iter().all(|(from, to)| *from == 5 || *to == 5));
        }
    }
}
