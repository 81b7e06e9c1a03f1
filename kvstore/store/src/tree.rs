//! An ordered set of items that counts, and that is cloned at no cost: the index of keys, the leases and their keys, and
//! the history are such trees.
//!
//! ```text
//! Tree ─► Inner: separators, children each with (items, live items) below
//!           ├─► Inner …
//!           └─► Leaf: items in the order of their keys
//! ```
//!
//! Invariants:
//! - Nodes are shared by clones and copied before they are changed. A clone stays as it was.
//! - All leaves are equally deep. No node but the root is empty, and none has more than [`NODE_LEN`] items or children.
//! - A child's counts are those of its leaves; so a range is counted, and one without live items skipped, in O(log n).
//! - Every key below a child is at or above the separator before it and below the one after it.

mod batch;
mod edit;
mod iter;
mod node;
#[cfg(test)]
mod tests;

use std::borrow::Borrow;
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

pub(crate) use edit::Change;
pub(crate) use iter::Iter;
use node::Node;

/// Items of a leaf, and children of an inner node, at most. Few enough to copy a node for a change after a clone.
const NODE_LEN: usize = 64;

/// What is in a tree.
pub(crate) trait Item: Clone {
    /// What it is found by; it has its key in it.
    type Key: Ord + ?Sized;
    /// A key that stands between two children.
    type Separator: Borrow<Self::Key> + Clone;

    /// Its key, which never changes while it is in a tree.
    fn key(&self) -> &Self::Key;

    /// Whether it counts as live.
    fn is_live(&self) -> bool {
        true
    }

    /// Something short that is above the key of `before` and not above the key of `from`.
    fn separator(before: &Self, from: &Self) -> Self::Separator;
}

/// Where a range begins and ends.
pub(crate) type Bounds<'a, K> = (Bound<&'a K>, Bound<&'a K>);

/// How many items there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// All.
    pub(crate) items: usize,
    /// Those that are live.
    pub(crate) live: usize,
}

impl Count {
    fn of(item: &impl Item) -> Self {
        Self { items: 1, live: usize::from(item.is_live()) }
    }
}

impl std::ops::Add for Count {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { items: self.items + other.items, live: self.live + other.live }
    }
}

impl std::ops::Sub for Count {
    type Output = Self;

    /// Nothing where there would be less: the bounds of a range may be the wrong way round.
    fn sub(self, other: Self) -> Self {
        Self { items: self.items.saturating_sub(other.items), live: self.live.saturating_sub(other.live) }
    }
}

impl std::iter::Sum for Count {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), |sum, count| sum + count)
    }
}

/// An ordered set of items.
pub(crate) struct Tree<T: Item> {
    root: Option<Arc<Node<T>>>,
    count: Count,
}

impl<T: Item> Clone for Tree<T> {
    fn clone(&self) -> Self {
        Self { root: self.root.clone(), count: self.count }
    }
}

impl<T: Item> Default for Tree<T> {
    fn default() -> Self {
        Self { root: None, count: Count::default() }
    }
}

impl<T: Item + fmt::Debug> fmt::Debug for Tree<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.iter()).finish()
    }
}

impl<T: Item> Tree<T> {
    /// How many items there are.
    pub(crate) fn count(&self) -> Count {
        self.count
    }

    /// The item of a key.
    pub(crate) fn get(&self, key: &T::Key) -> Option<&T> {
        let mut node = self.root.as_deref()?;
        loop {
            match node {
                Node::Inner(inner) => node = &inner.children[inner.index_of(key)].node,
                Node::Leaf(items) => {
                    return items.binary_search_by(|item| item.key().cmp(key)).ok().map(|at| &items[at]);
                }
            }
        }
    }

    /// The item with the highest key.
    pub(crate) fn last(&self) -> Option<&T> {
        let mut node = self.root.as_deref()?;
        loop {
            match node {
                Node::Inner(inner) => node = &inner.children.last()?.node,
                Node::Leaf(items) => return items.last(),
            }
        }
    }

    /// How many items of a range there are.
    pub(crate) fn count_range(&self, (start, end): Bounds<'_, T::Key>) -> Count {
        let before = match start {
            Bound::Included(key) => self.rank(key, false),
            Bound::Excluded(key) => self.rank(key, true),
            Bound::Unbounded => Count::default(),
        };
        let up_to = match end {
            Bound::Included(key) => self.rank(key, true),
            Bound::Excluded(key) => self.rank(key, false),
            Bound::Unbounded => self.count,
        };
        up_to - before
    }

    /// How many items are before `key`, and with `inclusive` at it.
    fn rank(&self, key: &T::Key, inclusive: bool) -> Count {
        let mut before = Count::default();
        let Some(mut node) = self.root.as_deref() else { return before };
        loop {
            match node {
                Node::Inner(inner) => {
                    let at = inner.index_of(key);
                    before = before + inner.count_before(at);
                    node = &inner.children[at].node;
                }
                Node::Leaf(items) => {
                    let at =
                        items.partition_point(|item| item.key() < key || (inclusive && item.key() == key));
                    return before + items[..at].iter().map(Count::of).sum();
                }
            }
        }
    }

    /// All items in the order of their keys.
    pub(crate) fn iter(&self) -> Iter<'_, T> {
        self.range((Bound::Unbounded, Bound::Unbounded))
    }

    /// The items of a range in the order of their keys.
    pub(crate) fn range(&self, bounds: Bounds<'_, T::Key>) -> Iter<'_, T> {
        Iter::new(self, bounds, false)
    }

    /// The live items of a range. Where there are none, nothing is looked at.
    pub(crate) fn live(&self, bounds: Bounds<'_, T::Key>) -> Iter<'_, T> {
        Iter::new(self, bounds, true)
    }
}
