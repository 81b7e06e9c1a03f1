//! Ten thousand connections of clients that say little or nothing.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use landbridge_kvstore_server::grpc::proto::etcdserverpb as pb;
use pb::kv_client::KvClient;
use rustix::process::{Resource, getrlimit, setrlimit};
use tonic::transport::Channel;

use crate::program::{Running, free_url};
use crate::wire::{open_files, resident_bytes};

const CONNECTIONS: usize = 10_000;
/// Memory that a connection may cost: its buffers, and what HTTP/2 keeps of it.
const CONNECTION_BYTES: usize = 64 << 10;
const PATIENCE: Duration = Duration::from_mins(1);

/// What they say before they fall silent: nothing, half of a beginning, a beginning, and half of a frame behind it.
const WORDS: [&[u8]; 4] = [
    b"",
    b"GET /health HT",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\xff\xff\x01\x04\0\0\0\x01only a little",
];

#[test]
fn ten_thousand_idle_connections_cost_little_and_hold_up_no_one() {
    // The store inherits it.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum })
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let url = free_url();
    let store = Running::start(dir.path(), &url, &[]);
    let process = store.0.id();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = runtime.block_on(Channel::from_shared(url.clone()).unwrap().connect()).unwrap();
    let put = |value: &str| {
        let request =
            pb::PutRequest { key: "k".into(), value: value.to_owned().into(), ..Default::default() };
        runtime.block_on(KvClient::new(client.clone()).put(request)).map(|_| ())
    };
    put("before").unwrap();
    let (before, files) = (resident_bytes(process), open_files(process));

    let address = url.trim_start_matches("http://");
    let mut idle = Vec::new();
    for words in WORDS.iter().cycle().take(CONNECTIONS) {
        let mut connection = TcpStream::connect(address).unwrap();
        // One that was closed because there are too many does not listen.
        let _ = connection.write_all(words);
        idle.push(connection);
    }
    put("meanwhile").unwrap();
    let held = open_files(process).saturating_sub(files);
    let taken = resident_bytes(process).saturating_sub(before);
    println!("{held} of {CONNECTIONS} connections are held, and cost {taken} bytes");
    assert!(taken <= held.max(1_000) * CONNECTION_BYTES, "{taken} bytes for {held} connections");

    // Whoever goes away makes room for others.
    drop(idle);
    let deadline = Instant::now() + PATIENCE;
    let get_in = async || -> Result<(), Box<dyn std::error::Error>> {
        let channel = Channel::from_shared(url.clone())?.connect().await?;
        KvClient::new(channel).range(pb::RangeRequest { key: "k".into(), ..Default::default() }).await?;
        Ok(())
    };
    while let Err(error) = runtime.block_on(get_in()) {
        assert!(Instant::now() < deadline, "nobody gets in any more: {error}");
    }
    put("after").unwrap();
}
