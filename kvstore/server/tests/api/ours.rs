//! What etcd does not do alike in all versions, or does not do well: checked against ours alone.

use std::time::Duration;

use landbridge_kvstore_server::grpc::proto::etcdserverpb as pb;
use landbridge_kvstore_server::{AccessRules, CompactionMode, ServiceSettings};
use landbridge_kvstore_store::Store;
use tonic::Code;

use crate::store::{Client, Ours, soon};
use crate::suite::assert_refused;

/// etcd 3.5 crashes.
#[tokio::test]
async fn an_unknown_order_is_refused() {
    let ours = Ours::start(AccessRules::Open, None).await;
    let client = Client::connect(&ours.endpoint("http"), "a").await;
    let text = "etcdserver: invalid sort option";
    let target = pb::RangeRequest { sort_target: 9, ..client.range_of("a", "b") };
    assert_refused(client.range(target).await, Code::InvalidArgument, text);
    let order = pb::RangeRequest { sort_order: 9, ..client.range_of("a", "b") };
    assert_refused(client.range(order).await, Code::InvalidArgument, text);
    ours.stop().await;
}

/// etcd's answer depends on its version.
#[tokio::test]
async fn a_watch_from_before_the_beginning_is_refused() {
    let ours = Ours::start(AccessRules::Open, None).await;
    let client = Client::connect(&ours.endpoint("http"), "a").await;
    let mut watch = client.watch();
    let request = pb::WatchCreateRequest { key: client.key("a"), start_revision: -1, ..Default::default() };
    let response = watch.create(request).await;
    assert_eq!((response.watch_id, response.canceled), (-1, true));
    assert_eq!(response.cancel_reason, "mvcc: required revision has been compacted");
    ours.stop().await;
}

#[tokio::test]
async fn a_slow_reader_holds_up_no_one_and_misses_nothing_until_it_is_compacted() {
    let ours = Ours::start(AccessRules::Open, None).await;
    let client = Client::connect(&ours.endpoint("http"), "a").await;
    // A connection of its own: flow control is by connection, too.
    let slow = Client::connect(&ours.endpoint("http"), "a").await;
    let mut watch = slow.watch();
    watch.create(pb::WatchCreateRequest { key: client.key("a"), ..Default::default() }).await;
    let mut last = 0;
    for _ in 0..20 {
        let value = vec![b'x'; 1_000_000].into();
        let request = pb::PutRequest { key: client.key("a"), value, ..Default::default() };
        last = client.kv().put(request).await.unwrap().into_inner().header.unwrap().revision;
    }
    client.compact(last).await.unwrap();

    let mut expected = last - 19;
    loop {
        let response = watch.next().await;
        if response.canceled {
            assert_eq!(response.compact_revision, last);
            break;
        }
        for event in response.events {
            assert_eq!(event.kv.unwrap().mod_revision(), expected);
            expected += 1;
        }
    }
    assert!(expected < last, "some of it was still to be read");
    ours.stop().await;
}

#[tokio::test]
async fn what_is_on_its_way_stops_when_the_right_to_it_does() {
    let ours = Ours::start(AccessRules::Open, None).await;
    let client = Client::connect(&ours.endpoint("http"), "a").await;
    let first = client.revision().await + 1;
    for _ in 0..20 {
        let value = vec![b'x'; 1_000_000].into();
        let request = pb::PutRequest { key: client.key("a"), value, ..Default::default() };
        client.kv().put(request).await.unwrap();
    }
    let mut watch = client.watch();
    watch
        .create(pb::WatchCreateRequest { key: client.key("a"), start_revision: first, ..Default::default() })
        .await;
    assert_eq!(watch.next().await.events.len(), 1, "a message is cut where a revision ends");
    ours.access.send(AccessRules::ByUser(Vec::new())).unwrap();
    let mut events = 1;
    let end = loop {
        let response = watch.next().await;
        if response.canceled {
            break response;
        }
        events += response.events.len();
    };
    assert_eq!(end.cancel_reason, "rpc error: code = InvalidArgument desc = etcdserver: user name is empty");
    assert!(events < 20, "what was under way in the connection arrives, and no more");
    ours.stop().await;
}

/// etcd answers too, once all is told, but forgets a question that comes before.
#[tokio::test]
async fn a_question_for_progress_is_answered_however_early_it_comes() {
    let ours = Ours::start(AccessRules::Open, None).await;
    let client = Client::connect(&ours.endpoint("http"), "a").await;
    let first = client.put("a", "").await;
    for _ in 0..50 {
        client.put("a", "").await;
    }
    let mut watch = client.watch();
    watch
        .create(pb::WatchCreateRequest { key: client.key("a"), start_revision: first, ..Default::default() })
        .await;
    watch.request_progress().await;
    let mut events = 0;
    loop {
        let response = watch.next().await;
        if response.watch_id == -1 {
            assert_eq!((events, response.header.unwrap().revision), (51, first + 50));
            break;
        }
        events += response.events.len();
    }
    ours.stop().await;
}

/// etcd forgets nothing unless it is told to, and all changes are in memory.
#[tokio::test]
async fn history_is_forgotten_after_its_time_and_what_is_there_stays() {
    let settings = ServiceSettings {
        compaction: CompactionMode::Periodic(Duration::from_millis(50)),
        ..ServiceSettings::default()
    };
    let ours = Ours::start_with(AccessRules::Open, None, settings).await;
    let client = Client::connect(&ours.endpoint("http"), "a").await;
    client.put("a", "1").await;
    let last = client.put("a", "2").await;
    let compacted = || ours.server.engine().read(Store::compacted_revision);
    soon(async {
        while compacted() < last {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let now = client.range(client.range_of("a", "b")).await.unwrap();
    assert_eq!((now.kvs[0].value(), now.header.unwrap().revision, compacted()), (&b"2"[..], last, last));
    ours.stop().await;
}

#[tokio::test]
async fn a_watch_goes_on_after_a_restart_where_it_was() {
    let ours = Ours::start(AccessRules::Open, None).await;
    let client = Client::connect(&ours.endpoint("http"), "a").await;
    let first = client.put("a", "1").await;
    let mut watch = client.watch();
    let request = || pb::WatchCreateRequest { key: client.key("a"), ..Default::default() };
    watch.create(pb::WatchCreateRequest { start_revision: first, ..request() }).await;
    let heard = watch.next_event().await.header.unwrap().revision;
    let missed = client.put("a", "2").await;
    let dir = ours.stop_and_keep().await;

    let ours = Ours::start_in(dir, AccessRules::Open, None, ServiceSettings::default()).await;
    let client = Client::connect(&ours.endpoint("http"), "a").await;
    let mut watch = client.watch();
    watch.create(pb::WatchCreateRequest { start_revision: heard + 1, ..request() }).await;
    let response = watch.next_event().await;
    let kv = response.events[0].kv.as_ref().unwrap();
    assert_eq!((response.events.len(), kv.mod_revision(), kv.value()), (1, missed, &b"2"[..]));
    // And what comes now.
    let last = client.put("a", "3").await;
    assert_eq!(watch.next_event().await.events[0].kv.as_ref().unwrap().mod_revision(), last);
    ours.stop().await;
}

/// In etcd, too; but it does not tell.
#[tokio::test]
async fn thousands_who_watch_other_keys_are_not_woken() {
    let ours = Ours::start(AccessRules::Open, None).await;
    let client = Client::connect(&ours.endpoint("http"), "a").await;
    let mut idle = Vec::new();
    for stream in 0..20 {
        let mut watch = client.watch();
        for number in 0..100 {
            let key = client.key(&format!("idle/{stream}/{number}"));
            watch.create(pb::WatchCreateRequest { key, ..Default::default() }).await;
        }
        idle.push(watch);
    }
    let mut watch = client.watch();
    watch.create(pb::WatchCreateRequest { key: client.key("hot"), ..Default::default() }).await;
    let counters = ours.server.watch_counters();
    assert_eq!((counters.streams(), counters.watchers(), counters.slow_watchers()), (21, 2_001, 0));
    let before = counters.wakes();
    for _ in 0..50 {
        client.put("hot", "").await;
        assert_eq!(watch.next_event().await.events.len(), 1);
        client.put("cold", "").await;
    }
    // One for each that was heard, and none for what no one watches.
    assert_eq!((counters.wakes() - before, counters.events(), counters.pending_events()), (50, 50, 0));
    drop((idle, watch));
    soon(async {
        while counters.watchers() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(counters.streams(), 0);
    ours.stop().await;
}

/// etcd 3.5.16 answers for watches of the future, too; later ones do not.
#[tokio::test]
async fn progress_is_not_told_below_the_start() {
    let ours = Ours::start(AccessRules::Open, None).await;
    let client = Client::connect(&ours.endpoint("http"), "a").await;
    let now = client.put("a", "0").await;
    let mut watch = client.watch();
    let start_revision = now + 2;
    let request = pb::WatchCreateRequest { key: client.key("a"), start_revision, ..Default::default() };
    watch.create(pb::WatchCreateRequest { progress_notify: true, ..request }).await;
    watch.request_progress().await;
    client.put("elsewhere", "").await;
    client.put("elsewhere", "").await;
    // The question was kept, and answered when that was possible.
    loop {
        let response = watch.next().await;
        assert_eq!((response.events.len(), response.header.unwrap().revision), (0, start_revision));
        if response.watch_id == -1 {
            break;
        }
    }
    ours.stop().await;
}
