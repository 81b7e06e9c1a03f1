//! What every store with etcd's API does. Each check runs against ours, in a store of its own, and all of them against one
//! etcd, which is what makes them worth something.

mod kubernetes;
mod kv;
mod lease;
mod member;
mod queue;
mod txn;
mod watch;

use std::pin::Pin;

use landbridge_kvstore_server::AccessRules;
use landbridge_lab::requirement::{Requirement, etcd, met};

use crate::store::{Client, Etcd, Ours};

type Check = fn(Client) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// Makes a test with our store of each check, and a list of all of them.
macro_rules! suite {
    ($($module:ident: $($name:ident),+ $(,)?;)+) => {
        mod ours {
            $(mod $module {
                $(#[tokio::test]
                async fn $name() {
                    super::super::check_ours(stringify!($name), |client| {
                        Box::pin(super::super::$module::$name(client))
                    })
                    .await;
                })+
            })+
        }

        const SUITE: &[(&str, Check)] =
            &[$($((stringify!($name), |client| Box::pin($module::$name(client)))),+),+];
    };
}

suite! {
    kv:
        a_write_that_changes_something_is_the_next_revision,
        a_key_counts_its_versions_from_its_creation,
        ranges_are_as_etcd_describes_them,
        the_limit_keeps_keys_back_and_the_count_does_not_care,
        keys_are_sorted_by_what_is_asked_for,
        revision_bounds_leave_keys_out_but_not_out_of_the_count,
        the_past_can_be_read_until_it_is_compacted,
        a_put_keeps_what_it_is_told_to_keep,
        a_deletion_tells_what_was_there,
        a_large_reply_arrives_and_a_large_request_is_refused,
        headers_name_the_member_and_its_leader;
    txn:
        one_of_two_branches_is_carried_out_at_one_revision,
        a_missing_key_is_zero_to_compares_and_its_value_compares_with_nothing,
        a_compare_of_a_range_holds_for_every_key,
        an_operation_sees_those_before_it_and_a_compare_does_not,
        a_transaction_that_cannot_be_carried_out_changes_nothing,
        a_branch_changes_each_key_once,
        a_transaction_has_128_operations_at_most,
        what_only_reads_is_answered_too;
    watch:
        a_stream_carries_many_watches_each_with_its_own_number,
        a_watch_that_cannot_be_made_says_why_and_leaves_the_stream_alone,
        a_watch_of_the_past_is_given_everything_since_in_order,
        a_watch_of_the_future_is_given_nothing_before,
        a_watch_of_what_is_compacted_is_told_what_is_left,
        a_revision_arrives_in_one_piece,
        events_say_what_was_and_what_is,
        filters_leave_out_what_is_not_wanted,
        a_quiet_watch_is_told_how_far_it_is,
        progress_on_request_comes_after_everything_before_it,
        large_revisions_are_split_for_those_who_agree_to_it,
        a_client_that_says_no_more_still_hears,
        a_watch_of_everything_hears_every_key,
        nothing_is_heard_of_a_watch_after_its_end,
        many_watches_on_one_stream_each_hear_their_key,
        a_compaction_takes_nothing_from_a_watch_that_is_up_to_date,
        a_watch_that_has_nothing_to_hear_yet_is_up_to_date;
    lease:
        a_lease_is_granted_once_and_for_long_enough,
        keys_go_with_their_lease_at_one_revision,
        a_key_has_the_lease_of_its_last_put,
        a_lease_that_is_kept_alive_lives_and_one_that_is_not_ends,
        unknown_leases_have_no_time_and_are_no_error;
    kubernetes:
        objects_are_created_updated_and_deleted_as_they_were_seen,
        a_list_in_pages_is_of_one_revision_and_a_watch_goes_on_from_it,
        a_cache_is_told_when_it_is_as_new_as_the_store,
        events_share_a_lease_and_go_with_it,
        one_of_several_compacts_each_time;
    member:
        a_member_tells_how_it_is,
        a_downgrade_is_checked_before_it_begins,
        authentication_is_off_and_says_so,
        health_is_served;
    queue:
        a_lock_is_held_by_one_and_then_by_the_next,
        who_has_the_lock_has_it_when_it_asks_again,
        a_lock_without_a_lease_gets_one,
        an_unknown_lease_locks_nothing,
        a_waiter_whose_lease_ends_does_not_get_the_lock,
        a_waiter_that_goes_away_leaves_no_key,
        an_election_has_one_leader_at_a_time_and_is_observed;
}

/// Runs a check against a store of ours.
async fn check_ours(name: &str, check: Check) {
    let ours = Ours::start(AccessRules::Open, None).await;
    check(Client::connect(&ours.endpoint("http"), name).await).await;
    ours.stop().await;
}

#[tokio::test]
async fn etcd_passes_the_suite() {
    if !met(&[Requirement::Etcd]) {
        return;
    }
    let etcd = Etcd::start(&etcd().unwrap());
    let mut failed = Vec::new();
    for (name, check) in SUITE {
        let client = Client::connect(&etcd.endpoint, name).await;
        // One after the other: checks compact, and count revisions.
        if tokio::spawn(check(client)).await.is_err() {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}

/// Checks code and text of a refusal.
pub(crate) fn assert_refused<T: std::fmt::Debug>(
    outcome: Result<T, tonic::Status>,
    code: tonic::Code,
    text: &str,
) {
    let status = outcome.unwrap_err();
    assert_eq!((status.code(), status.message()), (code, text));
}
