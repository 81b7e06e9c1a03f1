//! Changing one item.

use std::sync::Arc;

use super::node::{Child, Inner, Node};
use super::{Count, Item, Tree};

/// What becomes of the place of a key.
pub(crate) enum Change<T> {
    /// It stays as it is, after what was done to the item in place.
    Keep,
    /// This is there from now on, whatever was.
    Put(T),
    /// Nothing is there from now on.
    Remove,
}

impl<T: Item> Tree<T> {
    /// Changes what is at `key`, in one descent. `change` gets the item that is there; what it puts has that key.
    pub(crate) fn alter<R>(
        &mut self,
        key: &T::Key,
        change: impl FnOnce(Option<&mut T>) -> (Change<T>, R),
    ) -> R {
        let root = self.root.get_or_insert_with(|| Arc::new(Node::Leaf(Vec::new())));
        let mut edit = Edit { before: Count::default(), after: Count::default(), at: 0 };
        let result = edit.alter(Arc::make_mut(root), key, change);
        self.count = self.count + edit.after - edit.before;
        if let Some((separator, upper)) = Arc::make_mut(root).split(edit.at) {
            let lower = Child { node: Arc::clone(root), count: self.count - upper.count };
            let inner = Inner { separators: vec![separator], children: vec![lower, upper] };
            *root = Arc::new(Node::Inner(inner));
        }
        self.lower_root();
        result
    }

    /// Puts an item in its place and returns the one that was there.
    pub(crate) fn insert(&mut self, item: T) -> Option<T> {
        // The key is in the item, which moves: found by a clone of what is cheap to clone.
        let copy = item.clone();
        self.alter(copy.key(), move |there| match there {
            Some(there) => (Change::Keep, Some(std::mem::replace(there, item))),
            None => (Change::Put(item), None),
        })
    }

    /// Removes the item of a key.
    pub(crate) fn remove(&mut self, key: &T::Key) -> Option<T> {
        self.get(key)?;
        self.alter(key, |there| (Change::Remove, there.cloned()))
    }

    /// Lets go of a root with one child, or with nothing.
    pub(super) fn lower_root(&mut self) {
        while let Some(root) = &mut self.root {
            match &**root {
                Node::Leaf(items) if items.is_empty() => self.root = None,
                Node::Inner(inner) if inner.children.is_empty() => self.root = None,
                Node::Inner(inner) if inner.children.len() == 1 => {
                    let only = Arc::clone(&inner.children[0].node);
                    *root = only;
                }
                _ => return,
            }
        }
    }
}

struct Edit {
    /// The item as it was counted before, and as it is now.
    before: Count,
    after: Count,
    /// Where something was added to the node that was left last, if it was.
    at: usize,
}

impl Edit {
    fn alter<T: Item, R>(
        &mut self,
        node: &mut Node<T>,
        key: &T::Key,
        change: impl FnOnce(Option<&mut T>) -> (Change<T>, R),
    ) -> R {
        let inner = match node {
            Node::Leaf(items) => return self.alter_leaf(items, key, change),
            Node::Inner(inner) => inner,
        };
        let at = inner.index_of(key);
        let child = &mut inner.children[at];
        let node = Arc::make_mut(&mut child.node);
        let result = self.alter(node, key, change);
        child.count = child.count + self.after - self.before;
        if self.after.items < self.before.items {
            inner.tidy(at);
        } else if let Some((separator, upper)) = node.split(self.at) {
            child.count = child.count - upper.count;
            inner.add(at, separator, upper);
            self.at = at + 1;
        }
        result
    }

    fn alter_leaf<T: Item, R>(
        &mut self,
        items: &mut Vec<T>,
        key: &T::Key,
        change: impl FnOnce(Option<&mut T>) -> (Change<T>, R),
    ) -> R {
        let place = items.binary_search_by(|item| item.key().cmp(key));
        let there = place.ok().and_then(|at| items.get_mut(at));
        self.before = there.as_ref().map_or_else(Count::default, |item| Count::of(&**item));
        let (change, result) = change(there);
        match (change, place) {
            (Change::Put(item), Ok(at)) => items[at] = item,
            (Change::Put(item), Err(at)) => {
                items.insert(at, item);
                self.at = at;
            }
            (Change::Remove, Ok(at)) => drop(items.remove(at)),
            (Change::Keep, _) | (Change::Remove, Err(_)) => {}
        }
        // Found again: an item was added, is where it was, or is gone.
        let (Ok(at) | Err(at)) = place;
        let now = items.get(at).filter(|item| item.key() == key);
        self.after = now.map_or_else(Count::default, Count::of);
        result
    }
}
