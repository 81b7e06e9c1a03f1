use bytes::Bytes;
use landbridge_kvstore_store::*;
use std::time::Instant;
#[global_allocator]
static A: mimalloc::MiMalloc = mimalloc::MiMalloc;
fn rss() -> usize {
    std::fs::read_to_string("/proc/self/statm").unwrap().split(' ').nth(1).unwrap().parse::<usize>().unwrap()
        * 4096
}
fn key(i: usize) -> Bytes {
    format!("/registry/pods/namespace-x/{i:08}").into()
}
fn main() {
    let n: usize = std::env::args().nth(1).map_or(500_000, |a| a.parse().unwrap());
    let random = std::env::args().nth(2).is_some();
    let value = Bytes::from(vec![7u8; 512]);
    println!("key len {}", key(1).len());
    let mut store = Store::new();
    let before = rss();
    let t = Instant::now();
    let order = |i: usize| if random { i.wrapping_mul(2_654_435_761) % 100_000_000 } else { i };
    for i in 0..n {
        store.put(&PutRequest { key: key(order(i)), value: value.clone(), ..Default::default() }).unwrap();
    }
    let e = t.elapsed();
    let payload = n * (key(1).len() + 512);
    println!(
        "put new: {:.2} us each; rss {} MiB, {} bytes per key over key+value",
        e.as_secs_f64() * 1e6 / n as f64,
        (rss() - before) >> 20,
        (rss() - before - payload) as f64 / n as f64
    );
    // list
    for revision in [0, store.revision()] {
        if revision > 0 {
            for i in 0..100_000 {
                store
                    .put(&PutRequest {
                        key: Bytes::from(format!("/other/{i}")),
                        value: Bytes::new(),
                        ..Default::default()
                    })
                    .unwrap();
            }
        }
        let t = Instant::now();
        let mut start = Bytes::from_static(b"/registry/");
        let mut total = 0;
        loop {
            let r = store
                .range(&RangeRequest {
                    limit: 500,
                    revision,
                    ..RangeRequest::new(KeyRange::Between(start.clone(), "/registry0".into()))
                })
                .unwrap();
            total += r.kvs.len();
            if !r.more {
                break;
            }
            let mut k = r.kvs.last().unwrap().key().to_vec();
            k.push(0);
            start = k.into();
        }
        println!("paged list at {revision}: {total} keys {:?}", t.elapsed());
    }
    let t = Instant::now();
    let mut copy = store.clone();
    println!("clone {:?}", t.elapsed());
    let t = Instant::now();
    let w = 100_000;
    for i in 0..w {
        store
            .put(&PutRequest { key: key(order((i * 7919) % n)), value: value.clone(), ..Default::default() })
            .unwrap();
    }
    println!("update with a clone: {:.2} us each", t.elapsed().as_secs_f64() * 1e6 / w as f64);
    let t = Instant::now();
    for i in 0..w {
        store
            .put(&PutRequest { key: key(order((i * 7919) % n)), value: value.clone(), ..Default::default() })
            .unwrap();
    }
    println!("update: {:.2} us each", t.elapsed().as_secs_f64() * 1e6 / w as f64);
    let t = Instant::now();
    let h = copy.hash_kv(0).unwrap();
    println!("hash {h:?} {:?}", t.elapsed());
    let t = Instant::now();
    let mut b = StoreBuilder::new();
    for p in copy.parts() {
        b.add(p).unwrap();
    }
    let b = b.finish().unwrap();
    println!("rebuilt of shared records {:?}", t.elapsed());
    drop(b);
    let t = Instant::now();
    copy.compact(copy.revision()).unwrap();
    println!("compact {:?}", t.elapsed());
    let (mut worst, mut steps, t) = (std::time::Duration::ZERO, 0, Instant::now());
    loop {
        let s = Instant::now();
        let more = copy.compact_step(1000);
        worst = worst.max(s.elapsed());
        steps += 1;
        if !more {
            break;
        }
    }
    println!("compact steps {steps}, worst {worst:?}, all {:?}", t.elapsed());
    drop(copy);
    let lease = LeaseId::new(1).unwrap();
    store.grant_lease(lease, 60).unwrap();
    let r = rss();
    let t = Instant::now();
    for i in 0..50_000 {
        store
            .put(&PutRequest {
                key: format!("/leased/keys/of/one/cluster/{i:08}").into(),
                value: value.clone(),
                lease: Some(lease),
                ..Default::default()
            })
            .unwrap();
    }
    println!(
        "leased put {:.2} us each, {} bytes each",
        t.elapsed().as_secs_f64() * 1e6 / 50_000.0,
        (rss() - r) / 50_000
    );
    let t = Instant::now();
    for i in 0..50_000 {
        store
            .put(&PutRequest {
                key: format!("/leased/keys/of/one/cluster/{i:08}").into(),
                value: value.clone(),
                lease: Some(lease),
                ..Default::default()
            })
            .unwrap();
    }
    println!("leased update {:.2} us each", t.elapsed().as_secs_f64() * 1e6 / 50_000.0);
    let t = Instant::now();
    store.revoke_lease(lease).unwrap();
    let e = t.elapsed();
    println!("revoke of 50000: {e:?}, {:.3} us each", e.as_secs_f64() * 1e6 / 50_000.0);
    let t = Instant::now();
    let d = store
        .delete(&DeleteRequest {
            range: KeyRange::Between("/registry/".into(), "/registry0".into()),
            prev_kv: false,
        })
        .unwrap();
    println!("delete range of {}: {:?}", d.deleted, t.elapsed());
    store.compact(store.revision()).unwrap();
    while store.compact_step(usize::MAX) {}
    println!("rss after {} MiB size {}", rss() >> 20, store.size_bytes());
}
