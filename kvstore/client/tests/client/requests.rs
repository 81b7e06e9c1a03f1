//! Single requests.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use landbridge_kvstore_client::{
    ClientError, ClientOptions, Creation, KeyValue, KvClient, Listing, OptionsError, TlsFiles, Write,
};
use tokio::task::JoinSet;

use crate::proxy::Proxy;
use crate::store::{Kind, Store, client_of};

scenarios! {
    what_is_put_is_read_until_it_is_deleted,
    a_listing_of_many_pages_shows_one_revision_while_writes_go_on,
    of_many_who_create_a_key_one_succeeds,
    of_many_who_replace_a_value_none_is_lost,
    many_writes_are_applied_in_order,
    values_beyond_four_mebibytes_a_page_are_read,
    keys_that_are_not_utf8_are_left_out_and_counted,
    a_silent_endpoint_costs_one_timeout_and_the_next_is_asked,
    a_restart_of_the_store_is_not_noticed_by_reads,
    errors_name_what_was_asked_of_whom,
}

fn put(key: impl Into<String>, value: impl Into<String>) -> Write {
    Write::Put { key: key.into(), value: value.into().into_bytes() }
}

async fn what_is_put_is_read_until_it_is_deleted(kind: Kind) {
    let store = Store::start(kind).await;
    let client = store.client();
    assert_eq!(client.get("a/b").await.unwrap(), None);
    let first = client.put("a/b", "one", None).await.unwrap();
    let second = client.put("a/b", "two", None).await.unwrap();
    assert_eq!(second, first + 1);
    let expected = KeyValue {
        key: "a/b".to_owned(),
        value: "two".into(),
        create_revision: first,
        mod_revision: second,
        version: 2,
        lease: 0,
    };
    assert_eq!(client.get("a/b").await.unwrap(), Some(expected.clone()));
    client.put("a/c", "three", None).await.unwrap();
    client.put("b", "four", None).await.unwrap();
    let Listing { key_values, revision } = client.list("a/").await.unwrap();
    assert_eq!((key_values.len(), &key_values[0], revision), (2, &expected, second + 2));

    let probe = client.probe().await.unwrap();
    assert_eq!(probe.revision, second + 2);
    assert_ne!(probe.cluster_id, 0);

    assert!(client.delete("b").await.unwrap());
    assert!(!client.delete("b").await.unwrap());
    assert_eq!(client.delete_prefix("a/").await.unwrap(), 2);
    assert_eq!(client.list("").await.unwrap().key_values, []);
}

async fn a_listing_of_many_pages_shows_one_revision_while_writes_go_on(kind: Kind) {
    let store = Store::start(kind).await;
    let client = store.client();
    client.apply((0..1300).map(|n| put(format!("k/{n:04}"), "filler")).collect()).await.unwrap();
    let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::<AtomicU32>::default());
    // Both ends of the listing change in one transaction.
    let writer = tokio::spawn({
        let (client, stop, written) = (client.clone(), stop.clone(), written.clone());
        async move {
            while !stop.load(Ordering::Relaxed) {
                let value = (written.load(Ordering::Relaxed) + 1).to_string();
                client.apply(vec![put("k/", &value), put("k/zzz", &value)]).await.unwrap();
                written.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let (mut seen, mut disturbed) = (BTreeSet::new(), 0);
    let deadline = Instant::now() + Duration::from_mins(3);
    while seen.len() < 5 || disturbed < 5 {
        assert!(Instant::now() < deadline, "{disturbed} listings were disturbed, and saw {seen:?}");
        let before = written.load(Ordering::Relaxed);
        let Listing { key_values, revision } = client.list("k/").await.unwrap();
        assert!(key_values.iter().all(|kv| kv.mod_revision <= revision));
        let (first, last) = (&key_values[0], &key_values[key_values.len() - 1]);
        if key_values.len() > 1300 {
            assert_eq!((key_values.len(), first.key.as_str(), &first.value), (1302, "k/", &last.value));
            seen.insert(first.value.clone());
        }
        disturbed += usize::from(written.load(Ordering::Relaxed) > before);
    }
    stop.store(true, Ordering::Relaxed);
    writer.await.unwrap();
}

async fn of_many_who_create_a_key_one_succeeds(kind: Kind) {
    let store = Store::start(kind).await;
    let mut contenders = JoinSet::new();
    for n in 0..12_u32 {
        let client = store.client();
        contenders.spawn(async move { (n, client.create("lock", n.to_string(), None).await.unwrap()) });
    }
    let outcomes = contenders.join_all().await;
    let winners: Vec<_> =
        outcomes.iter().filter(|(_, creation)| matches!(creation, Creation::Created { .. })).collect();
    let [(winner, Creation::Created { revision })] = winners.as_slice() else { panic!("{outcomes:?}") };
    for (_, creation) in &outcomes {
        if let Creation::Exists(kv) = creation {
            assert_eq!((kv.value.as_ref(), kv.mod_revision), (winner.to_string().as_bytes(), *revision));
        }
    }
}

async fn of_many_who_replace_a_value_none_is_lost(kind: Kind) {
    let store = Store::start(kind).await;
    let client = store.client();
    assert!(client.replace("count", "0", 0).await.unwrap());
    assert!(!client.replace("count", "0", 0).await.unwrap());
    let mut writers = JoinSet::new();
    for _ in 0..6 {
        let client = client.clone();
        writers.spawn(async move {
            for _ in 0..10 {
                loop {
                    let now = client.get("count").await.unwrap().unwrap();
                    let count: u32 = str::from_utf8(&now.value).unwrap().parse().unwrap();
                    if client.replace("count", (count + 1).to_string(), now.mod_revision).await.unwrap() {
                        break;
                    }
                }
            }
        });
    }
    writers.join_all().await;
    let count = client.get("count").await.unwrap().unwrap();
    assert_eq!((count.value.as_ref(), count.version), (&b"60"[..], 61));
}

async fn many_writes_are_applied_in_order(kind: Kind) {
    let store = Store::start(kind).await;
    let client = store.client();
    let before = client.probe().await.unwrap().revision;
    assert_eq!(client.apply(Vec::new()).await.unwrap(), before);
    let mut writes: Vec<_> = (0..300).map(|n| put(format!("k/{n}"), "v")).collect();
    writes.extend([put("k/7", "again"), Write::Delete { key: "k/8".to_owned() }, put("k/8", "back")]);
    let revision = client.apply(writes).await.unwrap();
    // 128, 128, 46 and, because of the key that comes twice, the last one.
    assert_eq!(revision, before + 4);
    assert_eq!(client.list("k/").await.unwrap().key_values.len(), 300);
    assert_eq!(client.get("k/7").await.unwrap().unwrap().value, "again");
    let back = client.get("k/8").await.unwrap().unwrap();
    assert_eq!((back.value.as_ref(), back.version), (&b"back"[..], 1));
}

async fn values_beyond_four_mebibytes_a_page_are_read(kind: Kind) {
    let store = Store::start(kind).await;
    let client = store.client();
    for n in 0..6 {
        client.put(&format!("large/{n}"), vec![n; 1 << 20], None).await.unwrap();
    }
    let listing = client.list("large/").await.unwrap();
    assert_eq!(listing.key_values.iter().map(|kv| kv.value.len()).sum::<usize>(), 6 << 20);
}

async fn keys_that_are_not_utf8_are_left_out_and_counted(kind: Kind) {
    let store = Store::start(kind).await;
    let mut raw = etcd_client::Client::connect([store.endpoint()], None).await.unwrap();
    raw.put(b"k/\xff".as_slice(), "?", None).await.unwrap();
    let client = store.client();
    client.put("k/a", "!", None).await.unwrap();
    assert_eq!(client.list("k/").await.unwrap().key_values.len(), 1);
    assert_eq!(client.skipped_keys(), 1);
}

async fn a_silent_endpoint_costs_one_timeout_and_the_next_is_asked(kind: Kind) {
    let store = Store::start(kind).await;
    let silent = Proxy::start(store.address()).await;
    silent.silence();
    let request_timeout = Duration::from_secs(10);
    // Until each of the two was the first one that was asked.
    let mut firsts = BTreeSet::new();
    for seed in 0.. {
        let endpoints = vec![silent.endpoint(), store.endpoint().to_owned()];
        let client =
            KvClient::with_seed(ClientOptions { endpoints, tls: None, request_timeout }, seed).unwrap();
        let outcome = client.put("key", "value", None).await;
        firsts.insert(outcome.is_ok());
        if let Err(error) = outcome {
            assert!(matches!(error, ClientError::TimedOut { .. }) && error.may_be_applied(), "{error}");
            client.put("key", "value", None).await.unwrap();
        }
        if firsts.len() == 2 {
            break;
        }
    }
}

async fn a_restart_of_the_store_is_not_noticed_by_reads(kind: Kind) {
    let mut store = Store::start(kind).await;
    let client = client_of(&[store.endpoint()]);
    client.put("key", "value", None).await.unwrap();
    store.kill();
    // The first one may find the connection breaking.
    client.put("key", "value", None).await.unwrap_err();
    let gone = client.put("key", "value", None).await.unwrap_err();
    assert!(matches!(gone, ClientError::Unreachable { .. }) && !gone.may_be_applied(), "{gone:?}");
    store.run().await;
    crate::store::until_serving(&store.client()).await;
    assert_eq!(client.get("key").await.unwrap().unwrap().value, "value");
}

async fn errors_name_what_was_asked_of_whom(kind: Kind) {
    let store = Store::start(kind).await;
    let error = store.client().put("some/key", "value", Some(4711)).await.unwrap_err();
    assert!(matches!(error, ClientError::LeaseNotFound { .. }), "{error:?}");
    let told = error.to_string();
    for part in ["put", "some/key", store.endpoint()] {
        assert!(told.contains(part), "{told}");
    }
    let error = store.client().get("").await.unwrap_err();
    assert!(matches!(error, ClientError::Refused { .. }), "{error:?}");
}

#[test]
fn options_that_cannot_work_are_refused() {
    let made = |endpoint: &str, with_files: bool| {
        let path = || "file".into();
        let tls = with_files.then(|| TlsFiles { ca: path(), certificate: path(), key: path() });
        let endpoints = vec![endpoint.to_owned()];
        KvClient::new(ClientOptions { endpoints, tls, request_timeout: Duration::from_secs(1) })
    };
    made("http://store:2379", false).unwrap();
    made("https://[::1]:2379", true).unwrap();
    assert!(matches!(made("https://store:2379", false), Err(OptionsError::TlsWithoutFiles { .. })));
    assert!(matches!(made("http://store:2379", true), Err(OptionsError::FilesWithoutTls { .. })));
    assert!(matches!(made("store:2379", false), Err(OptionsError::InvalidEndpoint { .. })));
    assert!(matches!(made("http://", false), Err(OptionsError::InvalidEndpoint { .. })));
    let none = ClientOptions { endpoints: vec![], tls: None, request_timeout: Duration::from_secs(1) };
    assert!(matches!(KvClient::new(none), Err(OptionsError::NoEndpoint)));
}
