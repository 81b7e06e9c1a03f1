use landbridge_kvstore_server::grpc::proto::etcdserverpb as pb;
use landbridge_kvstore_server::grpc::proto::mvccpb::event::EventType;
use pb::request_op::Request;

use crate::store::{Client, Watch};

/// A watch of all keys of the check.
fn all(client: &Client) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest { key: client.key(""), range_end: client.key("~"), ..Default::default() }
}

fn of(client: &Client, name: &str) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest { key: client.key(name), ..Default::default() }
}

/// What happened to which key at which revision.
fn told(client: &Client, response: &pb::WatchResponse) -> Vec<(String, String, i64)> {
    let event = |event: &crate::store::pb_kv::Event| {
        let kv = event.kv.as_ref().unwrap();
        let key = String::from_utf8(kv.key().to_vec()).unwrap();
        let name = key.strip_prefix(&format!("{}/", client.prefix)).unwrap().to_owned();
        let what = match event.r#type() {
            EventType::Put => format!("={}", String::from_utf8_lossy(kv.value())),
            EventType::Delete => "gone".to_owned(),
        };
        (name, what, kv.mod_revision())
    };
    response.events.iter().map(event).collect()
}

/// Reads changes of one watch until `count` have come. Every response has to be whole revisions in order, and its header no
/// further than what has come.
async fn collect(client: &Client, watch: &mut Watch, count: usize) -> Vec<(String, String, i64)> {
    let mut events = Vec::new();
    while events.len() < count {
        let response = watch.next_event().await;
        assert!(!response.canceled && !response.fragment, "{response:?}");
        let more = told(client, &response);
        let last = events.last().map_or(0, |(_, _, revision)| *revision);
        assert!(last < more[0].2, "a revision is not split: {events:?} {more:?}");
        assert!(response.header.unwrap().revision >= more.last().unwrap().2);
        events.extend(more);
    }
    assert!(events.is_sorted_by_key(|(_, _, revision)| *revision));
    events
}

fn event(name: &str, what: &str, revision: i64) -> (String, String, i64) {
    (name.to_owned(), what.to_owned(), revision)
}

pub(crate) async fn a_stream_carries_many_watches_each_with_its_own_number(client: Client) {
    let mut watch = client.watch();
    let now = client.revision().await;
    let first = watch.create(of(&client, "a")).await;
    assert_eq!((first.watch_id, first.canceled, first.header.unwrap().revision), (0, false, now));
    let second = watch.create(pb::WatchCreateRequest { watch_id: 1, ..of(&client, "b") }).await;
    assert_eq!(second.watch_id, 1);
    let third = watch.create(of(&client, "c")).await;
    assert_eq!(third.watch_id, 2);

    let revision = client.put("c", "1").await;
    let response = watch.next_event().await;
    assert_eq!((response.watch_id, told(&client, &response)), (2, vec![event("c", "=1", revision)]));
    client.put("b", "1").await;
    assert_eq!(watch.next_event().await.watch_id, 1);

    watch.cancel(99).await;
    watch.cancel(1).await;
    let ended = watch.next_event().await;
    assert_eq!((ended.watch_id, ended.canceled, &ended.cancel_reason[..]), (1, true, ""));
    assert_eq!(ended.compact_revision, 0);
    client.put("b", "2").await;
    client.put("a", "2").await;
    assert_eq!(watch.next_event().await.watch_id, 0);
}

pub(crate) async fn a_watch_that_cannot_be_made_says_why_and_leaves_the_stream_alone(client: Client) {
    let mut watch = client.watch();
    let refused = async |watch: &mut Watch, request, reason: &str| {
        let response = watch.create(request).await;
        assert_eq!((response.watch_id, response.canceled, &response.cancel_reason[..]), (-1, true, reason));
    };
    assert_eq!(watch.create(pb::WatchCreateRequest { watch_id: 7, ..of(&client, "a") }).await.watch_id, 7);
    let twice = pb::WatchCreateRequest { watch_id: 7, ..of(&client, "b") };
    refused(&mut watch, twice, "mvcc: duplicate watch ID provided on the WatchStream").await;
    let empty =
        pb::WatchCreateRequest { key: client.key("b"), range_end: client.key("a"), ..Default::default() };
    refused(&mut watch, empty, "mvcc: watcher range is empty").await;

    client.put("a", "1").await;
    assert_eq!(watch.next_event().await.watch_id, 7);
}

pub(crate) async fn a_watch_of_the_past_is_given_everything_since_in_order(client: Client) {
    client.put("a", "0").await;
    let first = client.put("a", "1").await;
    client.put("b", "2").await;
    client.delete("a").await;
    let mut watch = client.watch();
    let created = watch.create(pb::WatchCreateRequest { start_revision: first, ..all(&client) }).await;
    assert!(created.events.is_empty());
    client.put("c", "3").await;
    let expected = [
        event("a", "=1", first),
        event("b", "=2", first + 1),
        event("a", "gone", first + 2),
        event("c", "=3", first + 3),
    ];
    assert_eq!(collect(&client, &mut watch, 4).await, expected);

    // Far back, and more than fits in one step.
    let many = 2_500;
    let start = client.revision().await + 1;
    let puts = (0..many).map(|number| {
        let client = client.clone();
        tokio::spawn(async move { client.put("many", &number.to_string()).await })
    });
    for put in puts.collect::<Vec<_>>() {
        put.await.unwrap();
    }
    watch
        .create_behind(pb::WatchCreateRequest { start_revision: start, watch_id: 5, ..of(&client, "many") })
        .await;
    let mut revisions = Vec::new();
    while revisions.len() < many {
        let response = watch.next_event().await;
        if response.watch_id == 5 {
            revisions.extend(told(&client, &response).iter().map(|(_, _, revision)| *revision));
        }
    }
    assert!(revisions.iter().copied().eq(start..start + i64::try_from(many).unwrap()));
}

pub(crate) async fn a_watch_of_the_future_is_given_nothing_before(client: Client) {
    let now = client.put("a", "0").await;
    let mut watch = client.watch();
    let future =
        pb::WatchCreateRequest { start_revision: now + 3, progress_notify: true, ..of(&client, "a") };
    watch.create(future).await;
    for value in ["1", "2", "3"] {
        client.put("a", value).await;
    }
    // Not even progress.
    let response = watch.next().await;
    assert_eq!(told(&client, &response), [event("a", "=3", now + 3)]);
}

pub(crate) async fn a_watch_of_what_is_compacted_is_told_what_is_left(client: Client) {
    let first = client.put("a", "1").await;
    client.put("a", "2").await;
    let third = client.delete("a").await;
    client.compact(third).await.unwrap();
    let mut watch = client.watch();
    let created = watch.create(pb::WatchCreateRequest { start_revision: first, ..of(&client, "a") }).await;
    assert_eq!((created.watch_id, created.canceled), (0, false));
    let ended = watch.next().await;
    assert_eq!((ended.watch_id, ended.canceled, ended.compact_revision), (0, true, third));
    assert!(ended.events.is_empty() && ended.header.unwrap().revision == 0);

    // The compacted revision itself can still be watched from, and has its deletion.
    watch.create(pb::WatchCreateRequest { start_revision: third, ..of(&client, "a") }).await;
    assert_eq!(collect(&client, &mut watch, 1).await, [event("a", "gone", third)]);
}

pub(crate) async fn a_revision_arrives_in_one_piece(client: Client) {
    client.put("gone", "").await;
    let mut watch = client.watch();
    watch.create(all(&client)).await;
    let op = |request| pb::RequestOp { request: Some(request) };
    let put = |name: String| {
        op(Request::RequestPut(pb::PutRequest { key: client.key(&name), ..Default::default() }))
    };
    let mut success: Vec<_> = (0..100).map(|number| put(format!("n{number:03}"))).collect();
    let request = pb::DeleteRangeRequest { key: client.key("gone"), ..Default::default() };
    success.push(op(Request::RequestDeleteRange(request)));
    let revision =
        client.txn(pb::TxnRequest { success, ..Default::default() }).await.unwrap().header.unwrap().revision;
    let response = watch.next_event().await;
    let events = told(&client, &response);
    assert_eq!((events.len(), response.header.unwrap().revision), (101, revision));
    assert!(events.iter().all(|(_, _, of)| *of == revision));
    assert_eq!((&events[0].0[..], &events[100].0[..]), ("n000", "gone"), "in the order of the operations");
}

pub(crate) async fn events_say_what_was_and_what_is(client: Client) {
    let mut watch = client.watch();
    watch.create(pb::WatchCreateRequest { prev_kv: true, ..of(&client, "a") }).await;
    let lease = client.grant(60, 0).await.unwrap().id;
    client.put_leased("a", "1", lease).await.unwrap();
    // Empty is a value.
    client.put("a", "").await;
    let revision = client.delete("a").await;
    let mut events = Vec::new();
    while events.len() < 3 {
        events.extend(watch.next_event().await.events);
    }
    let (created, emptied, deleted) = (&events[0], &events[1], &events[2]);
    let kv = created.kv.as_ref().unwrap();
    assert_eq!((kv.create_revision(), kv.lease(), kv.version()), (kv.mod_revision(), lease, 1));
    assert!(created.prev_kv.is_none());
    assert_eq!((emptied.r#type(), emptied.kv.as_ref().unwrap().version()), (EventType::Put, 2));
    assert_eq!(emptied.prev_kv.as_ref().unwrap().value(), b"1");
    let kv = deleted.kv.as_ref().unwrap();
    assert_eq!((deleted.r#type(), kv.mod_revision()), (EventType::Delete, revision));
    assert_eq!((kv.create_revision(), kv.version(), kv.lease(), kv.value().len()), (0, 0, 0, 0));
    assert_eq!(deleted.prev_kv.as_ref().unwrap().version(), 2);
}

pub(crate) async fn filters_leave_out_what_is_not_wanted(client: Client) {
    use pb::watch_create_request::FilterType::{Nodelete, Noput};
    let mut watch = client.watch();
    watch.create(pb::WatchCreateRequest { filters: vec![Noput.into()], ..all(&client) }).await;
    watch.create(pb::WatchCreateRequest { filters: vec![Nodelete.into()], ..all(&client) }).await;
    let put = client.put("a", "1").await;
    let response = watch.next_event().await;
    assert_eq!((response.watch_id, told(&client, &response)), (1, vec![event("a", "=1", put)]));
    client.delete("a").await;
    let response = watch.next_event().await;
    assert_eq!((response.watch_id, told(&client, &response)), (0, vec![event("a", "gone", put + 1)]));
}

pub(crate) async fn a_quiet_watch_is_told_how_far_it_is(client: Client) {
    let mut watch = client.watch();
    watch.create(pb::WatchCreateRequest { progress_notify: true, ..of(&client, "a") }).await;
    watch.create(of(&client, "b")).await;
    let elsewhere = client.put("elsewhere", "").await;
    loop {
        let response = watch.next().await;
        assert_eq!(
            (response.watch_id, response.events.len(), response.canceled),
            (0, 0, false),
            "{response:?}"
        );
        if response.header.unwrap().revision == elsewhere {
            return;
        }
    }
}

pub(crate) async fn progress_on_request_comes_after_everything_before_it(client: Client) {
    let mut watch = client.watch();
    let first = client.put("a", "1").await;
    client.put("b", "1").await;
    watch.create(of(&client, "a")).await;
    watch.create_behind(pb::WatchCreateRequest { start_revision: first, ..all(&client) }).await;
    let last = client.put("elsewhere", "1").await;
    // etcd answers only once its watches have caught up, and forgets a question that came too early.
    let mut seen = 0;
    loop {
        watch.request_progress().await;
        let response = watch.next().await;
        if response.watch_id == -1 {
            let revision = response.header.unwrap().revision;
            assert!(response.events.is_empty() && !response.created && !response.canceled);
            if revision >= last {
                assert_eq!(revision, last);
                break;
            }
        } else {
            seen += response.events.len();
        }
    }
    assert_eq!(seen, 3, "what is before the answer was told before it");
}

pub(crate) async fn large_revisions_are_split_for_those_who_agree_to_it(client: Client) {
    let value = bytes::Bytes::from(vec![b'x'; 700_000]);
    let put = |name: &str| {
        let request = pb::PutRequest { key: client.key(name), value: value.clone(), ..Default::default() };
        pb::RequestOp { request: Some(Request::RequestPut(request)) }
    };
    let both = || pb::TxnRequest { success: vec![put("a"), put("b")], ..Default::default() };
    client.txn(both()).await.unwrap();
    let mut whole = client.watch();
    whole.create(pb::WatchCreateRequest { prev_kv: true, ..all(&client) }).await;
    let mut split = client.watch();
    split.create(pb::WatchCreateRequest { prev_kv: true, fragment: true, ..all(&client) }).await;
    client.txn(both()).await.unwrap();

    let response = whole.next_event().await;
    assert_eq!((response.events.len(), response.fragment), (2, false));
    let first = split.next_event().await;
    assert_eq!((told(&client, &first)[0].0.as_str(), first.events.len(), first.fragment), ("a", 1, true));
    let second = split.next_event().await;
    assert_eq!((told(&client, &second)[0].0.as_str(), second.events.len(), second.fragment), ("b", 1, false));
}

pub(crate) async fn a_client_that_says_no_more_still_hears(client: Client) {
    let Watch { requests, mut responses } = {
        let mut watch = client.watch();
        watch.create(of(&client, "a")).await;
        watch
    };
    drop(requests);
    client.put("a", "1").await;
    let response = responses.message().await.unwrap().unwrap();
    assert_eq!(response.events.len(), 1);
}

/// What the Go client sends for all keys: a first key of one zero byte, and no end. An empty key is the same.
pub(crate) async fn a_watch_of_everything_hears_every_key(client: Client) {
    for key in ["\0", ""] {
        let mut watch = client.watch();
        let everything =
            pb::WatchCreateRequest { key: key.into(), range_end: "\0".into(), ..Default::default() };
        assert_eq!(watch.create(everything).await.watch_id, 0);
        let first = client.put("a", "1").await;
        client.put("~", "2").await;
        client.delete("a").await;
        let expected = [event("a", "=1", first), event("~", "=2", first + 1), event("a", "gone", first + 2)];
        assert_eq!(collect(&client, &mut watch, 3).await, expected);
    }
}

pub(crate) async fn nothing_is_heard_of_a_watch_after_its_end(client: Client) {
    let mut watch = client.watch();
    watch.create(of(&client, "a")).await;
    for round in 0..20 {
        // Some of these come before the end, and none behind it.
        client.put("a", &round.to_string()).await;
        client.put("a", &round.to_string()).await;
        let id = round;
        watch.cancel(id).await;
        while !watch.next_event().await.canceled {}
        let created = watch.create(of(&client, "a")).await;
        assert_eq!((created.watch_id, created.canceled), (id + 1, false));
        let revision = client.put("a", "new").await;
        let response = watch.next_event().await;
        assert_eq!(
            (response.watch_id, told(&client, &response)),
            (id + 1, vec![event("a", "=new", revision)])
        );
    }
}

pub(crate) async fn many_watches_on_one_stream_each_hear_their_key(client: Client) {
    let many = 300;
    let mut watch = client.watch();
    for number in 0..many {
        let created = watch.create(of(&client, &format!("n{number:03}"))).await;
        assert_eq!(created.watch_id, number);
    }
    // The same revision for all of them, then one for each.
    let put = |number: i64, value: &str| {
        let request = pb::PutRequest {
            key: client.key(&format!("n{number:03}")),
            value: value.to_owned().into(),
            ..Default::default()
        };
        pb::RequestOp { request: Some(Request::RequestPut(request)) }
    };
    let all =
        pb::TxnRequest { success: (0..100).map(|number| put(number, "x")).collect(), ..Default::default() };
    let revision = client.txn(all).await.unwrap().header.unwrap().revision;
    let mut heard = std::collections::BTreeSet::new();
    while heard.len() < 100 {
        let response = watch.next_event().await;
        let name = format!("n{:03}", response.watch_id);
        assert_eq!(told(&client, &response), [event(&name, "=x", revision)]);
        assert!(heard.insert(response.watch_id));
    }
    for number in (0..many).rev() {
        let revision = client.put(&format!("n{number:03}"), "y").await;
        let response = watch.next_event().await;
        let name = format!("n{number:03}");
        assert_eq!(
            (response.watch_id, told(&client, &response)),
            (number, vec![event(&name, "=y", revision)])
        );
    }
}

/// What was written before is delivered, whatever becomes of the history meanwhile.
pub(crate) async fn a_compaction_takes_nothing_from_a_watch_that_is_up_to_date(client: Client) {
    let mut watch = client.watch();
    watch.create(all(&client)).await;
    for round in 0..20 {
        let first = client.put("a", "1").await;
        client.put("b", &round.to_string()).await;
        let last = client.put("b", "2").await;
        client.compact(last).await.unwrap();
        let expected =
            [event("a", "=1", first), event("b", &format!("={round}"), first + 1), event("b", "=2", last)];
        assert_eq!(collect(&client, &mut watch, 3).await, expected);
    }
}

pub(crate) async fn a_watch_that_has_nothing_to_hear_yet_is_up_to_date(client: Client) {
    let now = client.put("a", "0").await;
    let mut watch = client.watch();
    watch.create(of(&client, "a")).await;
    watch.request_progress().await;
    let response = watch.next().await;
    assert_eq!((response.watch_id, response.header.unwrap().revision), (-1, now));
}
