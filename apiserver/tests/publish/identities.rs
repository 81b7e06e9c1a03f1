//! Numbers of identities, over any history of a cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, UNIX_EPOCH};

use landbridge_apiserver::identities::{Allocation, KEEP_UNUSED};
use landbridge_kvstore_schema::{ClusterId, Label, Labels, MaxClusters, NumericIdentity};
use proptest::prelude::*;

fn cluster() -> ClusterId {
    ClusterId::new(1, MaxClusters::Of255).unwrap()
}

fn labels(app: &str) -> Labels {
    [Label::new("k8s", "app", app).unwrap()].into_iter().collect()
}

/// Gives numbers as the publisher does.
fn allocate(allocation: &mut Allocation, wanted: &BTreeSet<Labels>) {
    let missing: Vec<_> = allocation.missing(wanted).cloned().collect();
    for labels in missing {
        allocation.insert(allocation.next_free().unwrap(), labels);
    }
}

#[test]
fn numbers_start_after_the_reserved_ones_and_none_comes_again_soon() {
    let mut allocation = Allocation::new(cluster());
    allocate(&mut allocation, &["a", "b", "c"].map(labels).into());
    assert_eq!(allocation.number(&labels("a")), Some(NumericIdentity(65_536 + 256)));
    assert_eq!(allocation.number(&labels("c")), Some(NumericIdentity(65_536 + 258)));
    let without_b = ["a", "c"].map(labels).into();
    allocation.forget_unused(&without_b, UNIX_EPOCH);
    allocation.forget_unused(&without_b, UNIX_EPOCH + KEEP_UNUSED);
    assert_eq!(allocation.number(&labels("b")), None);
    allocate(&mut allocation, &["a", "c", "d"].map(labels).into());
    assert_eq!(allocation.number(&labels("d")), Some(NumericIdentity(65_536 + 259)), "not the one of b");
    // Only when there is no other one left.
    allocation.insert(NumericIdentity(2 * 65_536 - 1), labels("last"));
    assert_eq!(allocation.next_free(), Ok(NumericIdentity(65_536 + 257)));
}

#[test]
fn an_unused_number_is_kept_for_ten_minutes_and_as_long_as_it_is_used_in_between() {
    let mut allocation = Allocation::new(cluster());
    let used = BTreeSet::from([labels("a")]);
    allocate(&mut allocation, &used);
    let unused = BTreeSet::new();
    let at = |seconds: u64| UNIX_EPOCH + Duration::from_secs(seconds);
    allocation.forget_unused(&unused, at(1000));
    allocation.forget_unused(&unused, at(1599));
    assert!(allocation.number(&labels("a")).is_some());
    allocation.forget_unused(&used, at(1599));
    allocation.forget_unused(&unused, at(1600));
    allocation.forget_unused(&unused, at(2199));
    assert!(allocation.number(&labels("a")).is_some());
    // A clock that is set back starts the time anew.
    allocation.forget_unused(&unused, at(100));
    allocation.forget_unused(&unused, at(699));
    assert!(allocation.number(&labels("a")).is_some());
    allocation.forget_unused(&unused, at(700));
    assert!(allocation.number(&labels("a")).is_none());
}

#[test]
fn when_all_numbers_are_given_out_it_is_said_so() {
    let mut allocation = Allocation::new(cluster());
    let sets: BTreeSet<_> = (0..65_536 - 256).map(|at| labels(&format!("app-{at}"))).collect();
    allocate(&mut allocation, &sets);
    assert_eq!(
        allocation.next_free().unwrap_err().to_string(),
        "cluster 1 has given out all of its 65280 identities: use fewer different sets of labels on pods and namespaces"
    );
    assert_eq!(allocation.number(sets.last().unwrap()).is_some(), allocation.missing(&sets).next().is_none());
}

#[test]
fn of_several_numbers_the_lowest_counts_and_the_others_go() {
    let mut allocation = Allocation::new(cluster());
    for number in [70_000, 66_000] {
        allocation.insert(NumericIdentity(number), labels("a"));
    }
    assert_eq!(allocation.number(&labels("a")), Some(NumericIdentity(66_000)));
    let used = BTreeSet::from([labels("a")]);
    allocation.forget_unused(&used, UNIX_EPOCH);
    allocation.forget_unused(&used, UNIX_EPOCH + KEEP_UNUSED);
    assert_eq!(allocation.iter().map(|(number, _)| number.0).collect::<Vec<_>>(), [66_000]);
    // A number that turns out to be another set's is not the first one's any more.
    allocation.insert(NumericIdentity(66_000), labels("b"));
    assert_eq!(allocation.number(&labels("a")), None);
}

proptest! {
    /// A number never changes while its set of labels is used, and is never that of two sets.
    #[test]
    fn numbers_are_unique_and_stay(
        history in proptest::collection::vec((proptest::collection::btree_set("[a-h]", 0..6), 0_u64..900), 1..20),
    ) {
        let mut allocation = Allocation::new(cluster());
        let mut now = UNIX_EPOCH;
        let mut before: BTreeMap<Labels, NumericIdentity> = BTreeMap::new();
        for (apps, pause) in history {
            let wanted: BTreeSet<_> = apps.iter().map(|app| labels(app)).collect();
            now += Duration::from_secs(pause);
            allocate(&mut allocation, &wanted);
            allocation.forget_unused(&wanted, now);
            let given: BTreeMap<_, _> =
                wanted.iter().map(|labels| (labels.clone(), allocation.number(labels).unwrap())).collect();
            prop_assert_eq!(given.values().collect::<BTreeSet<_>>().len(), given.len());
            for (labels, number) in &given {
                prop_assert!(cluster().owns(*number) && (number.0 & 0xffff) >= 256);
                prop_assert!(before.get(labels).is_none_or(|earlier| earlier == number));
            }
            // What the store has leads to the same allocation.
            let mut restarted = Allocation::new(cluster());
            for (number, labels) in allocation.iter() {
                restarted.insert(number, labels.clone());
            }
            for (labels, number) in &given {
                prop_assert_eq!(restarted.number(labels), Some(*number));
            }
            let next = restarted.next_free().unwrap();
            prop_assert!(allocation.iter().all(|(number, _)| number != next));
            before = given;
        }
    }
}
