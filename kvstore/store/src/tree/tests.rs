//! The tree against the standard library's.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug, PartialEq)]
struct Entry {
    key: u16,
    value: u8,
}

impl Item for Entry {
    type Key = u16;
    type Separator = u16;

    fn key(&self) -> &u16 {
        &self.key
    }

    fn is_live(&self) -> bool {
        !self.value.is_multiple_of(3)
    }

    fn separator(_: &Self, from: &Self) -> u16 {
        from.key
    }
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u16, u8),
    /// So many after the last one.
    Append(u8),
    Remove(u16),
    /// Removes or sets all in a range that have this remainder by three.
    Each {
        from: u16,
        len: u16,
        remainder: u16,
        value: Option<u8>,
    },
    Clone,
}

fn any_step() -> impl Strategy<Value = Step> {
    let each = (0u16..2000, 0u16..1500, 0u16..3, prop::option::of(any::<u8>()));
    prop_oneof![
        4 => (0u16..2000, any::<u8>()).prop_map(|(key, value)| Step::Insert(key, value)),
        3 => any::<u8>().prop_map(Step::Append),
        4 => (0u16..2000).prop_map(Step::Remove),
        2 => each.prop_map(|(from, len, remainder, value)| Step::Each { from, len, remainder, value }),
        1 => Just(Step::Clone),
    ]
}

fn any_bound() -> impl Strategy<Value = Bound<u16>> {
    prop_oneof![
        (0u16..2000).prop_map(Bound::Included),
        (0u16..2000).prop_map(Bound::Excluded),
        Just(Bound::Unbounded)
    ]
}

fn entry((key, value): (&u16, &u8)) -> Entry {
    Entry { key: *key, value: *value }
}

fn check(tree: &Tree<Entry>, model: &BTreeMap<u16, u8>) {
    if let Some(root) = &tree.root {
        node::check(root, true);
    }
    assert_eq!(tree.count(), tree.iter().map(Count::of).sum());
    assert!(tree.iter().cloned().eq(model.iter().map(entry)));
    assert_eq!(tree.last().cloned(), model.last_key_value().map(entry));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn the_tree_is_what_the_model_is_and_its_clones_stay_as_they_were(
        steps in prop::collection::vec(any_step(), 0..60),
        bounds in prop::collection::vec((any_bound(), any_bound(), prop::collection::vec(any::<bool>(), 0..30)), 8),
    ) {
        let (mut tree, mut model) = (Tree::default(), BTreeMap::new());
        let mut clones = Vec::new();
        for step in steps {
            match step {
                Step::Insert(key, value) => {
                    let before = tree.insert(Entry { key, value });
                    prop_assert_eq!(before.map(|entry| entry.value), model.insert(key, value));
                }
                Step::Append(count) => for _ in 0..count {
                    let key = model.last_key_value().map_or(0, |(key, _)| key + 1);
                    tree.insert(Entry { key, value: 1 });
                    model.insert(key, 1);
                },
                Step::Remove(key) => {
                    prop_assert_eq!(tree.get(&key).cloned(), model.get(&key).map(|value| entry((&key, value))));
                    prop_assert_eq!(tree.remove(&key).map(|entry| entry.value), model.remove(&key));
                }
                Step::Each { from, len, remainder, value } => {
                    let keys: Vec<u16> = (from..from + len).filter(|key| key % 3 == remainder).collect();
                    let mut seen = Vec::new();
                    tree.alter_each(&keys, |entry| {
                        seen.push(entry.key);
                        entry.value = value.unwrap_or(entry.value);
                        value.is_some()
                    });
                    prop_assert!(seen.iter().eq(keys.iter().filter(|key| model.contains_key(key))));
                    for key in seen {
                        match value {
                            Some(value) => model.insert(key, value),
                            None => model.remove(&key),
                        };
                    }
                }
                Step::Clone => clones.push((tree.clone(), model.clone())),
            }
            check(&tree, &model);
        }
        for (tree, model) in clones.iter().chain([&(tree, model)]) {
            check(tree, model);
            for (start, end, from_front) in &bounds {
                let bounds = (start.as_ref(), end.as_ref());
                let is_in = |key: &u16| std::ops::RangeBounds::contains(&bounds, key);
                for live_only in [false, true] {
                    let mut expected = model.iter().map(entry).filter(|entry| is_in(&entry.key))
                        .filter(|entry| !live_only || entry.is_live());
                    let mut found = if live_only { tree.live(bounds) } else { tree.range(bounds) };
                    let count = tree.count_range(bounds);
                    prop_assert_eq!(if live_only { count.live } else { count.items }, expected.clone().count());
                    for from_front in from_front {
                        if *from_front {
                            prop_assert_eq!(found.next().cloned(), expected.next());
                        } else {
                            prop_assert_eq!(found.next_back().cloned(), expected.next_back());
                        }
                    }
                    prop_assert!(found.cloned().eq(expected));
                }
            }
        }
    }
}

#[test]
fn keys_that_only_rise_leave_full_nodes_behind() {
    let mut tree = Tree::default();
    for key in 0..10_000 {
        tree.insert(Entry { key, value: 1 });
    }
    fn leaves(node: &Node<Entry>) -> usize {
        match node {
            Node::Leaf(_) => 1,
            Node::Inner(inner) => inner.children.iter().map(|child| leaves(&child.node)).sum(),
        }
    }
    assert_eq!(leaves(tree.root.as_ref().unwrap()), 10_000usize.div_ceil(NODE_LEN));
}
