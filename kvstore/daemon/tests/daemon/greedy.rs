//! Clients that ask for more than they read: the store holds a bounded part of what they want, and others are served.

use std::fmt::Display;
use std::io::{self, Write};
use std::thread;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use landbridge_kvstore_server::grpc::proto::etcdserverpb as pb;
use pb::kv_client::KvClient;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tonic::transport::Channel;

use crate::program::{Running, free_url};
use crate::wire::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE, Wire,
    call, forget_peak, frame, head, page, peak_bytes, resident_bytes,
};

const RANGE: &str = "/etcdserverpb.KV/Range";
const PUT: &str = "/etcdserverpb.KV/Put";
const WATCH: &str = "/etcdserverpb.Watch/Watch";
/// Keys `a/…` and the bytes of their values: a range of all of them is 8 MiB.
const KEYS: usize = 512;
const VALUE_BYTES: usize = 16 << 10;
const MIB: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_mins(2);

/// A range of `a/`.
const ALL: &[u8] = b"\x0a\x02a/\x12\x02a0";

/// The same in a transaction.
const IN_TXN: &[u8] = b"\x12\x0a\x0a\x08\x0a\x02a/\x12\x02a0";

/// What is said, time after time.
type Flood<'a> = &'a dyn Fn(usize) -> Vec<u8>;

/// A store with some keys, and a client that does as it should.
struct Store {
    running: Running,
    url: String,
    runtime: Runtime,
    client: KvClient<Channel>,
    _dir: TempDir,
}

impl Store {
    fn start() -> Self {
        let (dir, url) = (tempfile::tempdir().unwrap(), free_url());
        let running = Running::start(dir.path(), &url, &[]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let channel = runtime.block_on(Channel::from_shared(url.clone()).unwrap().connect()).unwrap();
        let client = KvClient::new(channel).max_decoding_message_size(usize::MAX);
        Self { running, url, runtime, client, _dir: dir }
    }

    fn filled() -> Self {
        let store = Self::start();
        for n in 0..KEYS {
            store.put(&format!("a/{n:04}"), VALUE_BYTES);
        }
        store
    }

    fn put(&self, key: &str, bytes: usize) {
        let value = vec![b'v'; bytes].into();
        let request = pb::PutRequest { key: key.to_owned().into(), value, ..Default::default() };
        self.runtime.block_on(self.client.clone().put(request)).unwrap();
    }

    /// Reads all of `a/`, as one who waits for others.
    fn read(&self) -> usize {
        let request = pb::RangeRequest { key: "a/".into(), range_end: "a0".into(), ..Default::default() };
        let read = async { tokio::time::timeout(PATIENCE, self.client.clone().range(request)).await };
        self.runtime.block_on(read).expect("others are served").unwrap().into_inner().kvs.len()
    }

    /// How many calls of a method have begun.
    fn begun(&self, method: &str) -> usize {
        self.counted("grpc_server_started_total", &[&format!("grpc_method=\"{method}\"")])
    }

    /// What a counter of calls says, of those with such labels.
    fn counted(&self, counter: &str, labels: &[&str]) -> usize {
        let page = page(&self.url, "/metrics");
        let lines = page.lines().filter(|line| line.starts_with(counter));
        let lines = lines.filter(|line| labels.iter().all(|label| line.contains(label)));
        let counts = lines.filter_map(|line| line.rsplit_once(' '));
        counts.map(|(_, count)| count.parse::<usize>().unwrap()).sum()
    }

    fn until_begun(&self, method: &str, calls: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.begun(method) < calls {
            assert!(Instant::now() < deadline, "{} of {calls} calls have begun", self.begun(method));
        }
    }

    /// Runs `greedy` and returns how much more memory the store had in the meantime than before.
    fn cost<T>(&self, greedy: impl FnOnce() -> T) -> (usize, T) {
        let process = self.running.0.id();
        forget_peak(process);
        let before = resident_bytes(process);
        let done = greedy();
        (peak_bytes(process).saturating_sub(before), done)
    }
}

fn check(what: impl Display, cost: usize, limit: usize) {
    println!("{what}: {} MiB", cost / MIB);
    assert!(cost < limit, "{what}: {} MiB were taken, more than {}", cost / MIB, limit / MIB);
}

/// Reads what comes, and forgets it.
fn read_on(wire: &Wire) {
    let mut reader = wire.reader();
    thread::spawn(move || io::copy(&mut reader, &mut io::sink()));
}

fn stream(number: usize) -> u32 {
    u32::try_from(2 * number + 1).unwrap()
}

/// 1.6 GiB are asked for, on one connection: with windows that let it all in or nothing, by one who reads what is sent or not.
#[test]
fn answers_that_one_connection_does_not_read_cost_little() {
    const CALLS: usize = 200;
    let store = Store::filled();
    for (method, wide, reads) in [
        ("Range", false, false),
        ("Range", false, true),
        ("Range", true, false),
        ("RangeStream", true, false),
        ("Txn", true, false),
    ] {
        let (path, begun) = (format!("/etcdserverpb.KV/{method}"), store.begun(method) + CALLS);
        let message = if method == "Txn" { IN_TXN } else { ALL };
        let (cost, wire) = store.cost(|| {
            let mut wire = Wire::open(&store.url, wide);
            if reads {
                read_on(&wire);
            }
            (0..CALLS).for_each(|n| wire.send(&call(stream(n), &path, message, true)).unwrap());
            store.until_begun(method, begun);
            // What they were answered with was built before these are.
            for _ in 0..20 {
                store.put("b", 1);
            }
            assert_eq!(store.read(), KEYS);
            wire
        });
        check(format!("{method}, wide {wide}, reads {reads}"), cost, 200 * MIB);
        drop(wire);
    }
    // Who reads gets all of it.
    let mut wire = Wire::open(&store.url, true);
    read_on(&wire);
    (0..CALLS).for_each(|n| wire.send(&call(stream(n), RANGE, ALL, true)).unwrap());
    let deadline = Instant::now() + PATIENCE;
    let sent = || {
        let page = page(&store.url, "/metrics");
        let line = page.lines().find(|line| line.starts_with("etcd_network_client_grpc_sent_bytes_total"));
        line.unwrap().rsplit_once(' ').unwrap().1.parse::<usize>().unwrap()
    };
    while sent() < CALLS * KEYS * VALUE_BYTES {
        assert!(Instant::now() < deadline, "{} bytes were sent", sent());
    }
}

/// 3 GiB are asked for, on many connections. Others write meanwhile, and read once those that stand still are cut off.
#[test]
fn answers_that_many_connections_do_not_read_cost_a_bounded_amount() {
    const CONNECTIONS: usize = 48;
    const CALLS: usize = 8;
    let store = Store::filled();
    let (cost, wires) = store.cost(|| {
        let connect = |_| {
            let mut wire = Wire::open(&store.url, true);
            (0..CALLS).for_each(|n| wire.send(&call(stream(n), RANGE, ALL, true)).unwrap());
            wire
        };
        let wires: Vec<Wire> = (0..CONNECTIONS).map(connect).collect();
        store.until_begun("Range", CONNECTIONS * CALLS);
        for _ in 0..20 {
            store.put("b", 1);
        }
        assert_eq!(store.read(), KEYS);
        wires
    });
    check("many connections", cost, 700 * MIB);
    drop(wires);
}

/// 100 streams on one connection watch 60 MiB of changes, and none of them is read.
#[test]
fn watches_that_nobody_reads_cost_little_more_than_the_history() {
    const STREAMS: usize = 100;
    const CHANGES: usize = 60;
    let store = Store::start();
    // Everything from `a/` on, below the request to create a watch.
    let create = b"\x0a\x08\x0a\x02a/\x12\x02a0";
    let mut wire = Wire::open(&store.url, true);
    (0..STREAMS).for_each(|n| wire.send(&call(stream(n), WATCH, create, false)).unwrap());
    store.until_begun("Watch", STREAMS);
    let (cost, ()) = store.cost(|| (0..CHANGES).for_each(|_| store.put("a/large", MIB)));
    // Log and history have each change once or twice, whoever watches.
    check("watches", cost, 400 * MIB);
}

/// Each of 50 requests is some 60 MiB, of which each part says that it is 1 MiB.
#[test]
fn requests_that_are_large_once_they_are_unpacked_cost_little() {
    const CONNECTIONS: usize = 50;
    /// Who has not taken note of the server's settings may send so much of a message (RFC 9113, 6.9.2).
    const WINDOW: usize = 65_535;
    let store = Store::start();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&vec![0; MIB]).unwrap();
    let part = encoder.finish().unwrap();
    let packed = part.repeat((WINDOW - 5) / part.len());
    assert!(packed.len() > 50 * part.len(), "it is a bomb");
    let len = u32::try_from(packed.len()).unwrap().to_be_bytes();
    let body = [&[1][..], &len, &packed].concat();
    let head = [&head(PUT)[..], b"\0\x0dgrpc-encoding\x04gzip"].concat();
    let (cost, wires) = store.cost(|| {
        let connect = |_| {
            let wire = Wire::open(&store.url, true);
            read_on(&wire);
            wire
        };
        let mut wires: Vec<Wire> = (0..CONNECTIONS).map(connect).collect();
        let send = |wires: &mut Vec<Wire>, bytes: &[u8]| {
            for wire in wires {
                wire.send(bytes).unwrap();
            }
        };
        send(&mut wires, &frame(HEADERS, END_HEADERS, 1, &head));
        // Piece by piece, so that all of them are under way at once.
        body.chunks(16 << 10).for_each(|piece| send(&mut wires, &frame(DATA, 0, 1, piece)));
        let deadline = Instant::now() + PATIENCE;
        let labels = ["grpc_method=\"Put\"", "grpc_code=\"ResourceExhausted\""];
        let refused = || store.counted("grpc_server_handled_total", &labels);
        while refused() < CONNECTIONS {
            assert!(Instant::now() < deadline, "{} are refused", refused());
        }
        store.put("b", 1);
        wires
    });
    check("packed requests", cost, 40 * MIB);
    drop(wires);
}

/// As many as there may be, and then some.
#[test]
fn streams_without_end_on_one_connection_cost_little_and_hold_up_no_one() {
    const STREAMS: usize = 20_000;
    let store = Store::start();
    let (cost, wire) = store.cost(|| {
        let mut wire = Wire::open(&store.url, false);
        read_on(&wire);
        let open = |n| frame(HEADERS, END_HEADERS, stream(n), &head(WATCH));
        // Those beyond are refused one by one.
        let sent = (0..STREAMS).try_for_each(|n| wire.send(&open(n)));
        println!("{sent:?}, {} watches have begun", store.begun("Watch"));
        store.until_begun("Watch", 10_000);
        store.put("b", 1);
        wire
    });
    check("streams", cost, 500 * MIB);
    drop(wire);
}

/// Each may end the connection, and nothing else (CVE-2023-44487, CVE-2019-9512 to 9518, CVE-2024-27316).
#[test]
fn floods_cost_little_and_hold_up_no_one() {
    let store = Store::filled();
    let reset = |n: usize| {
        let code = 8_u32.to_be_bytes();
        [call(stream(n), RANGE, ALL, true), frame(RST_STREAM, 0, stream(n), &code)].concat()
    };
    let half = |n: usize| {
        let open = frame(HEADERS, END_HEADERS, stream(n), &head(RANGE));
        [open, frame(RST_STREAM, 0, stream(n), &8_u32.to_be_bytes())].concat()
    };
    // Once, a head that does not end; after that, more of it.
    let continued = |n: usize| match n {
        0 => frame(HEADERS, 0, 1, &head(RANGE)),
        _ => frame(CONTINUATION, 0, 1, &[&b"\0\x01x\x7f"[..], &[b'y'; 127]].concat()),
    };
    let nothing = |n: usize| match n {
        0 => frame(HEADERS, END_HEADERS, 1, &head(RANGE)),
        _ => frame(DATA, 0, 1, b""),
    };
    // Streams that end as they begin, of a number that is used again; windows that open beyond all bounds.
    let again = |_: usize| frame(HEADERS, END_HEADERS | END_STREAM, 1, &head(RANGE));
    let windows = |_: usize| frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes());
    let floods: [(&str, Flood<'_>); 9] = [
        ("resets of requests", &reset),
        ("resets of heads", &half),
        ("pings", &|_| frame(PING, 0, 0, b"12345678")),
        ("settings", &|_| frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0])),
        ("heads without end", &continued),
        ("empty frames", &nothing),
        ("one stream again and again", &again),
        ("windows", &windows),
        ("unknown frames", &|_| frame(0x7f, 0xff, 3, &[b'?'; 100])),
    ];
    for (what, flood) in floods {
        for reads in [true, false] {
            let (cost, sent) = store.cost(|| {
                let mut wire = Wire::open(&store.url, false);
                // Who does not read is not waited for for ever.
                wire.reader().set_write_timeout(Some(Duration::from_secs(2))).unwrap();
                if reads {
                    read_on(&wire);
                }
                let bytes: Vec<u8> = (0..50_000).flat_map(flood).collect();
                let sent = wire.send(&bytes);
                store.put("b", 1);
                assert_eq!(store.read(), KEYS);
                sent
            });
            check(format!("{what}, reads {reads}: {sent:?}"), cost, 200 * MIB);
        }
    }
}
