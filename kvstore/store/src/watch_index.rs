//! Which watchers a change concerns: keys and ranges of keys, found by a key.
//!
//! ```text
//! key ─► single keys: an ordered map ──────────────────────────┐
//!   └──► ranges: a treap by (start, end) ─ below each node the ─┴─► whoever registered
//!                                          furthest end
//! ```
//!
//! Invariants:
//! - Those who watch the same range share a node, so that the tree is no larger than the number of different ranges.
//! - A node's `furthest` is not before any end in its subtree: what ends too early is left out a subtree at a time.
//! - A node's priority is above those below it. Priorities are drawn from a seed that whoever watches does not know, so
//!   that no order of ranges makes the tree deep.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use bytes::Bytes;

use crate::KeyRange;

/// Names one registration of a [`WatchIndex`]; never used again after its removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WatcherId(u64);

/// Ranges of keys, each with a value of whoever watches it.
///
/// Adding and removing one costs the logarithm of how many there are; finding those that a key concerns about that, and
/// as much again for each that is found.
#[derive(Debug)]
pub struct WatchIndex<T> {
    watched: BTreeMap<WatcherId, KeyRange>,
    single: BTreeMap<Bytes, Members<T>>,
    ranges: Link<T>,
    seed: u64,
    next: u64,
}

/// Those who watch one range.
type Members<T> = BTreeMap<WatcherId, T>;
type Link<T> = Option<Box<Node<T>>>;

#[derive(Debug)]
struct Node<T> {
    span: Span,
    members: Members<T>,
    priority: u64,
    furthest: End,
    left: Link<T>,
    right: Link<T>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Span {
    start: Bytes,
    end: End,
}

/// Where a range ends; in this order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Before(Bytes),
    Never,
}

impl End {
    fn is_behind(&self, key: &[u8]) -> bool {
        match self {
            Self::Before(end) => **end > *key,
            Self::Never => true,
        }
    }
}

impl<T> WatchIndex<T> {
    /// An index of nothing. `seed` is random, and unknown to those who watch.
    pub fn new(seed: u64) -> Self {
        Self { watched: BTreeMap::new(), single: BTreeMap::new(), ranges: None, seed, next: 0 }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.watched.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.watched.is_empty()
    }

    /// Adds one who watches `range`.
    pub fn register(&mut self, range: KeyRange, value: T) -> WatcherId {
        let id = WatcherId(self.next);
        self.next += 1;
        match &range {
            KeyRange::Single(key) => {
                self.single.entry(key.clone()).or_default().insert(id, value);
            }
            KeyRange::Between(..) | KeyRange::From(_) => {
                let span = Span::of(&range);
                if let Some(node) = find(&mut self.ranges, &span) {
                    node.members.insert(id, value);
                } else {
                    let priority = mix(self.seed.wrapping_add(id.0));
                    insert(&mut self.ranges, Node::new(span, priority, id, value));
                }
            }
        }
        self.watched.insert(id, range);
        id
    }

    /// Removes one, and returns its value. Nothing if there is no such one, or no longer.
    pub fn remove(&mut self, id: WatcherId) -> Option<T> {
        match self.watched.remove(&id)? {
            KeyRange::Single(key) => {
                let members = self.single.get_mut(&key)?;
                let value = members.remove(&id);
                if members.is_empty() {
                    self.single.remove(&key);
                }
                value
            }
            range => remove(&mut self.ranges, &Span::of(&range), id),
        }
    }

    /// Shows `found` everyone whose range holds `key`, each once.
    pub fn matching<'a>(&'a self, key: &[u8], mut found: impl FnMut(&'a T)) {
        if let Some(members) = self.single.get(key) {
            members.values().for_each(&mut found);
        }
        stab(self.ranges.as_deref(), key, &mut found);
    }
}

impl Span {
    /// Of a range that is no single key.
    fn of(range: &KeyRange) -> Self {
        match range {
            KeyRange::Between(start, end) => Self { start: start.clone(), end: End::Before(end.clone()) },
            KeyRange::From(start) | KeyRange::Single(start) => Self { start: start.clone(), end: End::Never },
        }
    }
}

impl<T> Node<T> {
    fn new(span: Span, priority: u64, id: WatcherId, value: T) -> Box<Self> {
        let (furthest, members) = (span.end.clone(), BTreeMap::from([(id, value)]));
        Box::new(Self { span, members, priority, furthest, left: None, right: None })
    }

    /// Brings `furthest` up to date when a subtree has changed.
    fn update(&mut self) {
        let below = self.left.iter().chain(&self.right).map(|node| &node.furthest);
        self.furthest = below.max().map_or(&self.span.end, |below| below.max(&self.span.end)).clone();
    }
}

fn find<'a, T>(mut link: &'a mut Link<T>, span: &Span) -> Option<&'a mut Node<T>> {
    while let Some(node) = link {
        match span.cmp(&node.span) {
            Ordering::Less => link = &mut node.left,
            Ordering::Greater => link = &mut node.right,
            Ordering::Equal => return Some(node),
        }
    }
    None
}

/// Adds a node whose range is not there yet.
fn insert<T>(link: &mut Link<T>, mut new: Box<Node<T>>) {
    match link {
        Some(node) if node.priority >= new.priority => {
            let side = if new.span < node.span { &mut node.left } else { &mut node.right };
            insert(side, new);
            node.update();
        }
        _ => {
            (new.left, new.right) = split(link.take(), &new.span);
            new.update();
            *link = Some(new);
        }
    }
}

/// Those before `span` and those after.
fn split<T>(link: Link<T>, span: &Span) -> (Link<T>, Link<T>) {
    let Some(mut node) = link else { return (None, None) };
    if node.span < *span {
        let (before, after) = split(node.right.take(), span);
        node.right = before;
        node.update();
        (Some(node), after)
    } else {
        let (before, after) = split(node.left.take(), span);
        node.left = after;
        node.update();
        (before, Some(node))
    }
}

/// Puts two trees together, the first before the second.
fn merge<T>(before: Link<T>, after: Link<T>) -> Link<T> {
    match (before, after) {
        (Some(mut before), Some(after)) if before.priority >= after.priority => {
            before.right = merge(before.right.take(), Some(after));
            before.update();
            Some(before)
        }
        (before @ Some(_), Some(mut after)) => {
            after.left = merge(before, after.left.take());
            after.update();
            Some(after)
        }
        (before, after) => before.or(after),
    }
}

fn remove<T>(link: &mut Link<T>, span: &Span, id: WatcherId) -> Option<T> {
    let node = link.as_mut()?;
    let value = match span.cmp(&node.span) {
        Ordering::Less => remove(&mut node.left, span, id),
        Ordering::Greater => remove(&mut node.right, span, id),
        Ordering::Equal => {
            let value = node.members.remove(&id);
            if node.members.is_empty() {
                let joined = merge(node.left.take(), node.right.take());
                *link = joined;
            }
            return value;
        }
    };
    node.update();
    value
}

fn stab<'a, T>(link: Option<&'a Node<T>>, key: &[u8], found: &mut impl FnMut(&'a T)) {
    let Some(node) = link else { return };
    if !node.furthest.is_behind(key) {
        return;
    }
    stab(node.left.as_deref(), key, found);
    if *node.span.start <= *key {
        if node.span.end.is_behind(key) {
            node.members.values().for_each(&mut *found);
        }
        stab(node.right.as_deref(), key, found);
    }
}

/// Numbers in a row become numbers that look random (`SplitMix64`, Steele et al. 2014).
fn mix(number: u64) -> u64 {
    let z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn height<T>(link: Option<&Node<T>>) -> usize {
        link.map_or(0, |node| 1 + height(node.left.as_deref()).max(height(node.right.as_deref())))
    }

    fn nodes<T>(link: Option<&Node<T>>) -> usize {
        link.map_or(0, |node| 1 + nodes(node.left.as_deref()) + nodes(node.right.as_deref()))
    }

    /// Some thousand in the order that makes a plain tree a list: the paths stay short, so no step is long.
    #[test]
    fn many_in_order_make_no_deep_tree() {
        let mut index = WatchIndex::new(7);
        let ids: Vec<_> = (0..10_000)
            .map(|number| index.register(KeyRange::prefix(format!("{number:05}/").as_bytes()), number))
            .collect();
        assert!(height(index.ranges.as_deref()) < 64, "{}", height(index.ranges.as_deref()));
        let mut found = Vec::new();
        index.matching(b"04711/a", |number| found.push(*number));
        assert_eq!(found, [4711]);
        for (number, id) in (0..).zip(ids) {
            assert_eq!(index.remove(id), Some(number));
        }
        assert!(index.is_empty() && index.ranges.is_none());
    }

    #[test]
    fn one_range_is_one_node_however_many_watch_it() {
        let mut index = WatchIndex::new(7);
        let ids: Vec<_> = (0..1000).map(|number| index.register(KeyRange::prefix(b"a"), number)).collect();
        assert_eq!((nodes(index.ranges.as_deref()), index.len()), (1, 1000));
        let mut count = 0;
        index.matching(b"ab", |_| count += 1);
        assert_eq!(count, 1000);
        assert_eq!(index.remove(ids[3]), Some(3));
        assert_eq!(index.remove(ids[3]), None);
    }

    #[derive(Clone, Debug)]
    enum Action {
        Register(Vec<u8>, Vec<u8>),
        Remove(prop::sample::Index),
    }

    fn any_key() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop::sample::select(vec![0u8, 1, 0x61, 0x62, 0xff]), 0..4)
    }

    proptest! {
        /// Whatever was added and removed before: exactly those whose range holds the key are found.
        #[test]
        fn those_found_are_those_whose_range_holds_the_key(
            actions in prop::collection::vec(
                prop_oneof![
                    3 => (any_key(), any_key()).prop_map(|(start, end)| Action::Register(start, end)),
                    1 => any::<prop::sample::Index>().prop_map(Action::Remove),
                ],
                0..60,
            ),
            keys in prop::collection::vec(any_key(), 1..20),
            seed in any::<u64>(),
        ) {
            let mut index = WatchIndex::new(seed);
            let mut all: Vec<(WatcherId, KeyRange)> = Vec::new();
            for action in actions {
                match action {
                    Action::Register(start, end) => {
                        let range = KeyRange::new(start.into(), end.into());
                        let id = index.register(range.clone(), index.next);
                        all.push((id, range));
                    }
                    Action::Remove(which) if !all.is_empty() => {
                        let (id, _) = all.swap_remove(which.index(all.len()));
                        prop_assert_eq!(index.remove(id), Some(id.0));
                    }
                    Action::Remove(_) => {}
                }
            }
            prop_assert_eq!(index.len(), all.len());
            for key in keys {
                let mut found = Vec::new();
                index.matching(&key, |id| found.push(*id));
                found.sort_unstable();
                let mut expected: Vec<u64> =
                    all.iter().filter(|(_, range)| range.contains(&key)).map(|(id, _)| id.0).collect();
                expected.sort_unstable();
                prop_assert_eq!(found, expected);
            }
        }
    }
}
