//! A persistent ordered map: a clone is one pointer, and a change copies one path.
//!
//! A B+ tree of small nodes behind [`Arc`]s. Nodes that nobody else holds are changed in place, so
//! a batch of changes between two clones copies each node once at most. Every login walks maps of
//! all users; a node's keys lie side by side, so a walk waits for memory three or four times where a
//! binary tree of this size does so at each of its seventeen levels.
//!
//! Values are cloned along with their node: keep them small, or behind an `Arc`.

use std::ops::Bound;
use std::slice;
use std::sync::Arc;

use arrayvec::ArrayVec;

/// Pairs in a leaf, children in a branch. Larger nodes make changes dearer, smaller ones walks.
const WIDTH: usize = 16;
/// A node with fewer is merged into a neighbour that has room.
const FEW: usize = WIDTH / 4;

/// See the [module](self).
#[derive(Clone)]
pub(crate) struct OrdMap<K, V> {
    root: Arc<Node<K, V>>,
    len: usize,
}

#[derive(Clone)]
enum Node<K, V> {
    /// Pairs by key.
    Leaf(ArrayVec<(K, V), WIDTH>),
    /// Children by a key that is above all keys of the child before, and not above the child's own.
    /// Never empty; the first child's key is not looked at.
    Branch(ArrayVec<Child<K, V>, WIDTH>),
}

type Child<K, V> = (K, Arc<Node<K, V>>);

impl<K, V> Default for OrdMap<K, V> {
    fn default() -> Self {
        Self { root: Arc::new(Node::Leaf(ArrayVec::new())), len: 0 }
    }
}

impl<K: Ord + Clone, V: Clone> FromIterator<(K, V)> for OrdMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut map = Self::default();
        for (key, value) in pairs {
            map.insert(key, value);
        }
        map
    }
}

impl<K: Ord + Clone, V: Clone> OrdMap<K, V> {
    /// Number of pairs.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The value of `key`.
    pub(crate) fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: std::borrow::Borrow<Q>,
    {
        let mut node = &*self.root;
        loop {
            match node {
                Node::Branch(children) => node = &children.get(child_of(children, key))?.1,
                Node::Leaf(pairs) => {
                    let at = place_of(pairs, key).ok()?;
                    return pairs.get(at).map(|(_, value)| value);
                }
            }
        }
    }

    /// Whether there is a value of `key`.
    pub(crate) fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// The value of `key`, to be changed. Copies the path to it if it is shared.
    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        // A key that is not there must not cost a copy.
        if !self.contains_key(key) {
            return None;
        }
        let mut node = Arc::make_mut(&mut self.root);
        loop {
            match node {
                Node::Branch(children) => {
                    let at = child_of(children, key);
                    node = Arc::make_mut(&mut children.get_mut(at)?.1);
                }
                Node::Leaf(pairs) => {
                    let at = place_of(pairs, key).ok()?;
                    return pairs.get_mut(at).map(|(_, value)| value);
                }
            }
        }
    }

    /// Sets the value of `key`; returns the one before.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let (before, split) = insert(&mut self.root, key, value);
        if let Some(right) = split {
            let left = std::mem::replace(&mut self.root, Arc::new(Node::Leaf(ArrayVec::new())));
            // Whatever key: that of the first child is not looked at.
            let children = [(right.0.clone(), left), right];
            self.root = Arc::new(Node::Branch(children.into_iter().collect()));
        }
        self.len += usize::from(before.is_none());
        before
    }

    /// Removes `key`; returns its value.
    pub(crate) fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.get(key)?;
        let removed = remove(&mut self.root, key);
        if let Node::Branch(children) = &*self.root {
            match children.as_slice() {
                [] => self.root = Arc::new(Node::Leaf(ArrayVec::new())),
                [(_, only)] => self.root = only.clone(),
                _ => {}
            }
        }
        self.len -= usize::from(removed.is_some());
        removed
    }

    /// The pair with the lowest key.
    pub(crate) fn first(&self) -> Option<(&K, &V)> {
        self.iter().next()
    }

    /// All pairs, by key.
    pub(crate) fn iter(&self) -> Iter<'_, K, V> {
        self.range_from(Bound::Unbounded)
    }

    /// The pairs from `from` on, by key.
    pub(crate) fn range_from(&self, from: Bound<&K>) -> Iter<'_, K, V> {
        let mut above = Vec::new();
        let mut node = &*self.root;
        loop {
            match node {
                Node::Branch(children) => {
                    let at = match from {
                        Bound::Included(key) | Bound::Excluded(key) => child_of(children, key),
                        Bound::Unbounded => 0,
                    };
                    let mut rest = children.get(at..).unwrap_or_default().iter();
                    let Some((_, child)) = rest.next() else {
                        return Iter { above, pairs: [].iter() };
                    };
                    above.push(rest);
                    node = child;
                }
                Node::Leaf(pairs) => {
                    let at = match from {
                        Bound::Included(key) => pairs.partition_point(|(other, _)| other < key),
                        Bound::Excluded(key) => pairs.partition_point(|(other, _)| other <= key),
                        Bound::Unbounded => 0,
                    };
                    return Iter { above, pairs: pairs.get(at..).unwrap_or_default().iter() };
                }
            }
        }
    }
}

/// Pairs by key.
pub(crate) struct Iter<'a, K, V> {
    /// What is left of each branch above the leaf, the root's first.
    above: Vec<slice::Iter<'a, Child<K, V>>>,
    /// What is left of the leaf.
    pairs: slice::Iter<'a, (K, V)>,
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((key, value)) = self.pairs.next() {
                return Some((key, value));
            }
            match self.above.last_mut()?.next().map(|(_, child)| &**child) {
                None => drop(self.above.pop()),
                Some(Node::Branch(children)) => self.above.push(children.iter()),
                Some(Node::Leaf(pairs)) => self.pairs = pairs.iter(),
            }
        }
    }
}

/// Which child holds `key`, if any does.
fn child_of<K, V, Q: Ord + ?Sized>(children: &[Child<K, V>], key: &Q) -> usize
where
    K: std::borrow::Borrow<Q>,
{
    let others = children.get(1..).unwrap_or_default();
    others.partition_point(|(first, _)| first.borrow() <= key)
}

/// Where `key` is among `pairs`, or belongs.
fn place_of<K, V, Q: Ord + ?Sized>(pairs: &[(K, V)], key: &Q) -> Result<usize, usize>
where
    K: std::borrow::Borrow<Q>,
{
    pairs.binary_search_by(|(other, _)| other.borrow().cmp(key))
}

/// Inserts below `node`. Returns the value before, and the right half of `node` if it was split.
fn insert<K: Ord + Clone, V: Clone>(
    node: &mut Arc<Node<K, V>>,
    key: K,
    value: V,
) -> (Option<V>, Option<Child<K, V>>) {
    match Arc::make_mut(node) {
        Node::Leaf(pairs) => match place_of(pairs, &key) {
            Ok(at) => {
                let before = pairs.get_mut(at).map(|pair| std::mem::replace(&mut pair.1, value));
                (before, None)
            }
            Err(at) => {
                let right = insert_or_split(pairs, at, (key, value));
                let first = |pairs: &[(K, V)]| pairs.first().map(|(key, _)| key.clone());
                let right =
                    right.and_then(|right| Some((first(&right)?, Arc::new(Node::Leaf(right)))));
                (None, right)
            }
        },
        Node::Branch(children) => {
            let at = child_of(children, &key);
            let Some((_, child)) = children.get_mut(at) else { return (None, None) };
            let (before, split) = insert(child, key, value);
            let right = split.and_then(|split| insert_or_split(children, at + 1, split));
            let first = |children: &[Child<K, V>]| children.first().map(|(key, _)| key.clone());
            let right =
                right.and_then(|right| Some((first(&right)?, Arc::new(Node::Branch(right)))));
            (before, right)
        }
    }
}

/// Inserts `item` at `at`; when there is no room, returns the upper half, split off.
fn insert_or_split<T>(
    items: &mut ArrayVec<T, WIDTH>,
    at: usize,
    item: T,
) -> Option<ArrayVec<T, WIDTH>> {
    if !items.is_full() {
        items.insert(at, item);
        return None;
    }
    // What grows at its end, like a record of what happens, is left full.
    let middle = if at == items.len() { at } else { items.len() / 2 };
    let mut right: ArrayVec<T, WIDTH> = items.drain(middle..).collect();
    match at.checked_sub(middle) {
        Some(at) => right.insert(at, item),
        None => items.insert(at, item),
    }
    Some(right)
}

/// Removes `key` below `node`. What is left of that may be empty.
fn remove<K, V, Q>(node: &mut Arc<Node<K, V>>, key: &Q) -> Option<V>
where
    K: Ord + Clone + std::borrow::Borrow<Q>,
    V: Clone,
    Q: Ord + ?Sized,
{
    match Arc::make_mut(node) {
        Node::Leaf(pairs) => {
            let at = place_of(pairs, key).ok()?;
            Some(pairs.remove(at).1)
        }
        Node::Branch(children) => {
            let at = child_of(children, key);
            let child = &mut children.get_mut(at)?.1;
            let removed = remove(child, key);
            match child.len() {
                // It had no neighbour to be merged with: what was split off at the end is alone at first.
                0 => drop(children.remove(at)),
                1..FEW => merge(children, at),
                _ => {}
            }
            removed
        }
    }
}

/// Merges the child at `at` with a neighbour if both fit into one node.
fn merge<K: Clone, V: Clone>(children: &mut ArrayVec<Child<K, V>, WIDTH>, at: usize) {
    let length = |at: usize| children.get(at).map(|(_, child)| child.len());
    let fits = |left: usize| {
        length(left).zip(length(left + 1)).is_some_and(|(left, right)| left + right <= WIDTH)
    };
    let Some(left) = [Some(at), at.checked_sub(1)].into_iter().flatten().find(|&left| fits(left))
    else {
        return;
    };
    let (_, right) = children.remove(left + 1);
    let Some((_, left)) = children.get_mut(left) else { return };
    match (Arc::make_mut(left), Arc::unwrap_or_clone(right)) {
        (Node::Leaf(left), Node::Leaf(right)) => left.extend(right),
        (Node::Branch(left), Node::Branch(right)) => left.extend(right),
        // All leaves are equally deep, so neighbours are of one kind.
        (Node::Leaf(_), Node::Branch(_)) | (Node::Branch(_), Node::Leaf(_)) => {}
    }
}

impl<K, V> Node<K, V> {
    fn len(&self) -> usize {
        match self {
            Self::Leaf(pairs) => pairs.len(),
            Self::Branch(children) => children.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    type Map = OrdMap<u16, u32>;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u16, u32),
        Change(u16, u32),
        Remove(u16),
        RemoveFirst,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let key = || 0..600_u16;
        let step = prop_oneof![
            4 => (key(), any::<u32>()).prop_map(|(key, value)| Step::Insert(key, value)),
            1 => (key(), any::<u32>()).prop_map(|(key, value)| Step::Change(key, value)),
            3 => key().prop_map(Step::Remove),
            1 => Just(Step::RemoveFirst),
        ];
        prop::collection::vec(step, 0..2_000)
    }

    fn take(map: &mut Map, model: &mut BTreeMap<u16, u32>, step: &Step) {
        match *step {
            Step::Insert(key, value) => {
                assert_eq!(map.insert(key, value), model.insert(key, value));
            }
            Step::Change(key, value) => {
                let (changed, modelled) = (map.get_mut(&key), model.get_mut(&key));
                assert_eq!(changed.is_some(), modelled.is_some());
                for place in changed.into_iter().chain(modelled) {
                    *place = value;
                }
            }
            Step::Remove(key) => assert_eq!(map.remove(&key), model.remove(&key)),
            Step::RemoveFirst => {
                let first = map.first().map(|(&key, _)| key);
                assert_eq!(first, model.first_key_value().map(|(&key, _)| key));
                let removed = first.and_then(|first| map.remove(&first));
                assert_eq!(removed, model.pop_first().map(|(_, value)| value));
            }
        }
    }

    fn pairs(map: &Map) -> Vec<(u16, u32)> {
        map.iter().map(|(&key, &value)| (key, value)).collect()
    }

    /// The depth of `node`, whose keys lie in `low..high`; panics unless it is well formed.
    fn depth(node: &Node<u16, u32>, low: Option<u16>, high: Option<u16>) -> usize {
        match node {
            Node::Leaf(pairs) => {
                assert!(pairs.is_sorted_by(|(one, _), (next, _)| one < next));
                assert!(pairs.iter().all(|(key, _)| low.is_none_or(|low| low <= *key)));
                assert!(pairs.iter().all(|(key, _)| high.is_none_or(|high| *key < high)));
                0
            }
            Node::Branch(children) => {
                let below = |at: usize| {
                    let first = |at: usize| children.get(at).map(|(first, _)| *first);
                    let low = if at == 0 { low } else { first(at) };
                    depth(&children[at].1, low, first(at + 1).or(high))
                };
                let deep: Vec<_> = (0..children.len()).map(below).collect();
                assert!(deep.windows(2).all(|two| two[0] == two[1]), "{deep:?}");
                assert!(children.iter().all(|(_, child)| child.len() > 0));
                deep[0] + 1
            }
        }
    }

    proptest! {
        #[test]
        fn it_does_what_the_standard_map_does(steps in steps()) {
            let (mut map, mut model) = (Map::default(), BTreeMap::new());
            for step in &steps {
                take(&mut map, &mut model, step);
                prop_assert_eq!(map.len(), model.len());
                for key in [0, 17, 300, 599] {
                    prop_assert_eq!(map.get(&key), model.get(&key));
                }
            }
            depth(&map.root, None, None);
            prop_assert!(map.iter().eq(model.iter()));
            for from in [Bound::Included(&250), Bound::Excluded(&250)] {
                let range = (from.cloned(), Bound::Unbounded);
                prop_assert!(map.range_from(from).eq(model.range(range)));
            }
        }

        #[test]
        fn a_clone_never_sees_what_comes_after(before in steps(), after in steps()) {
            let (mut map, mut model) = (Map::default(), BTreeMap::new());
            for step in &before {
                take(&mut map, &mut model, step);
            }
            let (held, expected) = (map.clone(), pairs(&map));
            for step in &after {
                take(&mut map, &mut model, step);
            }
            prop_assert_eq!(pairs(&held), expected);
            prop_assert!(map.iter().eq(model.iter()));
        }
    }

    #[test]
    fn it_stays_shallow_whatever_the_order_and_shrinks_again() {
        let deepest = 4;
        let upwards = 0..20_000_u16;
        let downwards = upwards.clone().rev();
        let scattered = upwards.clone().map(|n| n.wrapping_mul(40_503));
        for order in [upwards.collect::<Vec<_>>(), downwards.collect(), scattered.collect()] {
            let mut map: Map = order.iter().map(|&key| (key, 0)).collect();
            assert!(depth(&map.root, None, None) <= deepest);
            for key in &order {
                assert_eq!(map.remove(key), Some(0));
            }
            assert_eq!((map.len(), depth(&map.root, None, None)), (0, 0));
        }
    }

    /// The last of 257 pairs that came in order is alone in its leaf, and that in its branch.
    #[test]
    fn a_branch_whose_only_leaf_gets_empty_goes() {
        let all = || (0..=256).map(|key| (key, 0)).collect::<Map>();
        assert_eq!(depth(&all().root, None, None), 2);
        let mut map = all();
        assert_eq!(map.remove(&256), Some(0));
        assert_eq!((map.len(), depth(&map.root, None, None)), (256, 1));
        assert_eq!((map.insert(256, 1), map.get(&256)), (None, Some(&1)));
        let mut map = all();
        for key in (0..=256).rev() {
            assert_eq!(map.remove(&key), Some(0));
            depth(&map.root, None, None);
        }
        assert_eq!((map.len(), map.first()), (0, None));
        assert_eq!((map.insert(1, 1), map.len()), (None, 1));
    }

    #[test]
    fn what_is_shared_stays_shared() {
        let mut map: Map = (0..1_000).map(|key| (key, 0)).collect();
        let held = map.clone();
        assert!(map.get_mut(&1_000).is_none() && map.remove(&1_000).is_none());
        assert!(Arc::ptr_eq(&map.root, &held.root));
        *map.get_mut(&500).expect("there") = 1;
        let (Node::Branch(mine), Node::Branch(others)) = (&*map.root, &*held.root) else {
            panic!("a thousand pairs do not fit into a leaf");
        };
        let copied = mine.iter().zip(others).filter(|(one, two)| !Arc::ptr_eq(&one.1, &two.1));
        assert_eq!(copied.count(), 1);
    }
}
