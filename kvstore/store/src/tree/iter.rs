//! Walking over a range, from both ends.

use std::ops::Bound;

use super::node::{Inner, Node};
use super::{Bounds, Item, Tree};

/// The items of a range in the order of their keys; a walk from the other end meets this one in the middle.
///
/// Each end is a path from the root to the next item. How many items are left tells when they have met.
pub(crate) struct Iter<'a, T: Item> {
    front: Path<'a, T>,
    back: Path<'a, T>,
    left: usize,
    live_only: bool,
}

/// The inner nodes on the way, each with the child that was gone to, and the items of the leaf that are left.
struct Path<'a, T: Item> {
    way: Vec<(&'a Inner<T>, usize)>,
    items: &'a [T],
}

impl<'a, T: Item> Iter<'a, T> {
    pub(super) fn new(tree: &'a Tree<T>, bounds: Bounds<'_, T::Key>, live_only: bool) -> Self {
        let count = tree.count_range(bounds);
        let left = if live_only { count.live } else { count.items };
        let none = || Path { way: Vec::new(), items: &[] };
        let Some(root) = tree.root.as_deref().filter(|_| left > 0) else {
            return Self { front: none(), back: none(), left: 0, live_only };
        };
        let mut front = none();
        front.descend(root, |inner| match bounds.0 {
            Bound::Included(key) | Bound::Excluded(key) => inner.index_of(key),
            Bound::Unbounded => 0,
        });
        let skipped = front.items.partition_point(|item| match bounds.0 {
            Bound::Included(key) => item.key() < key,
            Bound::Excluded(key) => item.key() <= key,
            Bound::Unbounded => false,
        });
        front.items = &front.items[skipped..];
        let mut back = none();
        back.descend(root, |inner| match bounds.1 {
            Bound::Included(key) | Bound::Excluded(key) => inner.index_of(key),
            Bound::Unbounded => inner.children.len() - 1,
        });
        let kept = back.items.partition_point(|item| match bounds.1 {
            Bound::Included(key) => item.key() <= key,
            Bound::Excluded(key) => item.key() < key,
            Bound::Unbounded => true,
        });
        back.items = &back.items[..kept];
        Self { front, back, left, live_only }
    }
}

impl<'a, T: Item> Path<'a, T> {
    /// Goes down to a leaf, by the child that `choose` tells.
    fn descend(&mut self, mut node: &'a Node<T>, choose: impl Fn(&Inner<T>) -> usize) {
        loop {
            match node {
                Node::Leaf(items) => return self.items = items,
                Node::Inner(inner) => {
                    let at = choose(inner);
                    self.way.push((inner, at));
                    node = &inner.children[at].node;
                }
            }
        }
    }

    /// Goes on to the next leaf, or the one before, that has something. Returns whether there is one.
    fn turn(&mut self, forward: bool, live_only: bool) -> bool {
        while let Some((inner, at)) = self.way.pop() {
            let has = |index: usize| {
                inner.children.get(index).is_some_and(|child| !live_only || child.count.live > 0)
            };
            let next = if forward {
                (at + 1..inner.children.len()).find(|at| has(*at))
            } else {
                (0..at).rfind(|at| has(*at))
            };
            let Some(next) = next else { continue };
            self.way.push((inner, next));
            let has = |child: &super::node::Child<T>| !live_only || child.count.live > 0;
            self.descend(&inner.children[next].node, |inner| {
                let mut children = inner.children.iter();
                let found = if forward { children.position(has) } else { children.rposition(has) };
                found.unwrap_or(0)
            });
            return true;
        }
        false
    }
}

impl<'a, T: Item> Iterator for Iter<'a, T> {
    type Item = &'a T;

    fn next(&mut self) -> Option<&'a T> {
        if self.left == 0 {
            return None;
        }
        loop {
            while let Some((item, rest)) = self.front.items.split_first() {
                self.front.items = rest;
                if !self.live_only || item.is_live() {
                    self.left -= 1;
                    return Some(item);
                }
            }
            if !self.front.turn(true, self.live_only) {
                return None;
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<'a, T: Item> DoubleEndedIterator for Iter<'a, T> {
    fn next_back(&mut self) -> Option<&'a T> {
        if self.left == 0 {
            return None;
        }
        loop {
            while let Some((item, rest)) = self.back.items.split_last() {
                self.back.items = rest;
                if !self.live_only || item.is_live() {
                    self.left -= 1;
                    return Some(item);
                }
            }
            if !self.back.turn(false, self.live_only) {
                return None;
            }
        }
    }
}

impl<T: Item> ExactSizeIterator for Iter<'_, T> {}
