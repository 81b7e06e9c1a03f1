//! Changing many items in one walk over the tree, in the order of their keys.

use std::borrow::Borrow;
use std::iter::Peekable;
use std::sync::Arc;

use super::node::{Inner, Node};
use super::{Count, Item, Tree};

impl<T: Item> Tree<T> {
    /// Changes the items of `keys`, which rise. `change` returns whether an item stays. Keys without one are passed over.
    pub(crate) fn alter_each<'k>(
        &mut self,
        keys: impl IntoIterator<Item = &'k T::Key>,
        mut change: impl FnMut(&mut T) -> bool,
    ) where
        T::Key: 'k,
    {
        let Some(root) = &mut self.root else { return };
        let mut keys = keys.into_iter().peekable();
        self.count = alter_node(Arc::make_mut(root), &mut keys, None, &mut change);
        self.lower_root();
    }
}

/// Changes what is below a node, as far as `keys` are below `end`. Returns what there is then.
fn alter_node<'k, T: Item>(
    node: &mut Node<T>,
    keys: &mut Peekable<impl Iterator<Item = &'k T::Key>>,
    end: Option<&T::Key>,
    change: &mut impl FnMut(&mut T) -> bool,
) -> Count
where
    T::Key: 'k,
{
    match node {
        Node::Leaf(items) => {
            alter_leaf(items, keys, end, change);
            items.iter().map(Count::of).sum()
        }
        Node::Inner(inner) => {
            alter_children(inner, keys, end, change);
            inner.children.iter().map(|child| child.count).sum()
        }
    }
}

fn alter_children<'k, T: Item>(
    inner: &mut Inner<T>,
    keys: &mut Peekable<impl Iterator<Item = &'k T::Key>>,
    end: Option<&T::Key>,
    change: &mut impl FnMut(&mut T) -> bool,
) where
    T::Key: 'k,
{
    let mut last = usize::MAX;
    while let Some(key) = keys.peek().copied() {
        if end.is_some_and(|end| key >= end) {
            break;
        }
        let at = inner.index_of(key);
        let end = inner.separators.get(at).map(Borrow::borrow).or(end);
        let child = &mut inner.children[at];
        child.count = alter_node(Arc::make_mut(&mut child.node), keys, end, change);
        debug_assert_ne!(at, last, "each child is come to once");
        last = at;
    }
    // Only once all are done: what is tidied away moves those behind it.
    let mut at = 0;
    while at < inner.children.len() {
        if !inner.tidy(at) {
            at += 1;
        }
    }
}

fn alter_leaf<'k, T: Item>(
    items: &mut Vec<T>,
    keys: &mut Peekable<impl Iterator<Item = &'k T::Key>>,
    end: Option<&T::Key>,
    change: &mut impl FnMut(&mut T) -> bool,
) where
    T::Key: 'k,
{
    let mut key = keys.next_if(|key| end.is_none_or(|end| *key < end));
    // Keys and items rise together: each item is compared with the first key that is not below it.
    items.retain_mut(|item| {
        while key.is_some_and(|wanted| wanted < item.key()) {
            key = keys.next_if(|key| end.is_none_or(|end| *key < end));
        }
        if key != Some(item.key()) {
            return true;
        }
        key = keys.next_if(|key| end.is_none_or(|end| *key < end));
        change(item)
    });
    while key.is_some() {
        key = keys.next_if(|key| end.is_none_or(|end| *key < end));
    }
}
