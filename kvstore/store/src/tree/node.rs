//! Nodes, and what keeps them neither too full nor too many.

use std::borrow::Borrow;
use std::sync::Arc;

use super::{Count, Item, NODE_LEN};

/// Children that have so few together become one: with room left, so that the next insertion does not split it again.
const MERGE_LEN: usize = NODE_LEN / 2;

#[derive(Clone)]
pub(super) enum Node<T: Item> {
    Leaf(Vec<T>),
    Inner(Inner<T>),
}

#[derive(Clone)]
pub(super) struct Inner<T: Item> {
    /// Between the children, so one less.
    pub(super) separators: Vec<T::Separator>,
    pub(super) children: Vec<Child<T>>,
}

pub(super) struct Child<T: Item> {
    pub(super) node: Arc<Node<T>>,
    pub(super) count: Count,
}

impl<T: Item> Clone for Child<T> {
    fn clone(&self) -> Self {
        Self { node: Arc::clone(&self.node), count: self.count }
    }
}

impl<T: Item> Child<T> {
    pub(super) fn new(node: Node<T>) -> Self {
        let count = node.count();
        Self { node: Arc::new(node), count }
    }
}

impl<T: Item> Node<T> {
    /// Items of a leaf, or children.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Leaf(items) => items.len(),
            Self::Inner(inner) => inner.children.len(),
        }
    }

    pub(super) fn count(&self) -> Count {
        match self {
            Self::Leaf(items) => items.iter().map(Count::of).sum(),
            Self::Inner(inner) => inner.children.iter().map(|child| child.count).sum(),
        }
    }

    #[cfg(test)]
    fn first(&self) -> Option<&T> {
        match self {
            Self::Leaf(items) => items.first(),
            Self::Inner(inner) => inner.children.first()?.node.first(),
        }
    }

    /// Takes the upper part away if there is too much. What was added last, at `at`, tells where to cut: keys that only
    /// rise leave full nodes behind.
    pub(super) fn split(&mut self, at: usize) -> Option<(T::Separator, Child<T>)> {
        let len = self.len();
        if len <= NODE_LEN {
            return None;
        }
        let cut = if at + 1 == len { len - 1 } else { len / 2 };
        match self {
            Self::Leaf(items) => {
                let separator = T::separator(&items[cut - 1], &items[cut]);
                let upper = items.split_off(cut);
                items.shrink_to_fit();
                Some((separator, Child::new(Self::Leaf(upper))))
            }
            Self::Inner(inner) => {
                let children = inner.children.split_off(cut);
                let separators = inner.separators.split_off(cut);
                let separator = inner.separators.pop()?;
                Some((separator, Child::new(Self::Inner(Inner { separators, children }))))
            }
        }
    }
}

impl<T: Item> Inner<T> {
    /// The child that has `key` if any has.
    pub(super) fn index_of(&self, key: &T::Key) -> usize {
        self.separators.partition_point(|separator| separator.borrow() <= key)
    }

    /// What is below the children before `at`.
    pub(super) fn count_before(&self, at: usize) -> Count {
        self.children[..at].iter().map(|child| child.count).sum()
    }

    /// Adds what a child was split into.
    pub(super) fn add(&mut self, at: usize, separator: T::Separator, child: Child<T>) {
        self.separators.insert(at, separator);
        self.children.insert(at + 1, child);
    }

    /// Removes the child at `at` if it is empty, or makes it one with a neighbour if both have few. Returns whether there is
    /// one child less.
    pub(super) fn tidy(&mut self, at: usize) -> bool {
        let len = |index: usize| self.children.get(index).map_or(NODE_LEN, |child| child.node.len());
        if len(at) == 0 {
            self.children.remove(at);
            if !self.separators.is_empty() {
                self.separators.remove(at.saturating_sub(1));
            }
            return true;
        }
        let left = match at {
            _ if len(at) + len(at + 1) <= MERGE_LEN => at,
            1.. if len(at - 1) + len(at) <= MERGE_LEN => at - 1,
            _ => return false,
        };
        let upper = self.children.remove(left + 1);
        let separator = self.separators.remove(left);
        let lower = &mut self.children[left];
        lower.count = lower.count + upper.count;
        match (Arc::make_mut(&mut lower.node), Arc::unwrap_or_clone(upper.node)) {
            (Node::Leaf(items), Node::Leaf(more)) => items.extend(more),
            (Node::Inner(inner), Node::Inner(more)) => {
                inner.separators.push(separator);
                inner.separators.extend(more.separators);
                inner.children.extend(more.children);
            }
            _ => unreachable!("all leaves are equally deep"),
        }
        true
    }
}

/// Checks the invariants of the whole tree below; returns its depth.
#[cfg(test)]
pub(super) fn check<T: Item>(node: &Node<T>, is_root: bool) -> usize {
    assert!((1..=NODE_LEN).contains(&node.len()));
    match node {
        Node::Leaf(items) => {
            assert!(items.is_sorted_by(|one, other| one.key() < other.key()));
            0
        }
        Node::Inner(inner) => {
            assert!(!is_root || inner.children.len() > 1);
            assert_eq!(inner.separators.len() + 1, inner.children.len());
            let depths = inner.children.iter().enumerate().map(|(at, child)| {
                assert_eq!(child.count, child.node.count());
                if let Some(before) = at.checked_sub(1) {
                    let separator: &T::Key = inner.separators[before].borrow();
                    assert!(separator <= child.node.first().unwrap().key());
                    let last = super::Tree {
                        root: Some(Arc::clone(&inner.children[before].node)),
                        count: Count::default(),
                    };
                    assert!(last.last().unwrap().key() < separator);
                }
                check(&child.node, false)
            });
            let depths: Vec<usize> = depths.collect();
            assert!(depths.windows(2).all(|pair| pair[0] == pair[1]));
            depths[0] + 1
        }
    }
}
