//! Clients that vanish without a word, as behind a cable that was taken out: the store lets go of what it holds for them.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use landbridge_lab::requirement::{Requirement, met};
use landbridge_lab::{Direction, Host, Lab, LabName, LabSpec};

use crate::program::{Running, free_url};
use crate::wire::{DATA, END_HEADERS, HEADERS, PING, Wire, call, frame, head, open_sockets, page};

const PATIENCE: Duration = Duration::from_mins(2);
const CLIENTS: usize = 5;
/// Asks a store whether it lives, and how often a client has to have said so to be one.
const ACK: u8 = 1;
const PINGS: usize = 3;

/// Says that it lives as often as it is asked, and counts that.
fn live_on(mut tcp: TcpStream, answered: &AtomicUsize) -> io::Result<()> {
    loop {
        let mut begin = [0; 9];
        tcp.read_exact(&mut begin)?;
        let [a, b, c, kind, flags, ..] = begin;
        let mut payload = vec![0; usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap()];
        tcp.read_exact(&mut payload)?;
        if kind == PING && flags & ACK == 0 {
            tcp.write_all(&frame(PING, ACK, 0, &payload))?;
            answered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn watches(server: &Host, url: &str) -> usize {
    let page = server.inside(|| page(url, "/metrics")).unwrap();
    let line = page.lines().find(|line| line.starts_with("etcd_debugging_mvcc_watcher_total "));
    line.unwrap().rsplit_once(' ').unwrap().1.parse().unwrap()
}

fn until(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_client_that_vanishes_is_let_go_of_and_one_that_lives_is_not() {
    if !met(&[Requirement::Namespaces]) {
        return;
    }
    let lab = Lab::start(LabSpec::new(LabName::unique("gone").unwrap()).with_clusters(2, 1, 0)).unwrap();
    let (server, client) = (lab.host("a1").unwrap(), lab.host("b1").unwrap());
    let url = format!("http://{}:2379", server.addresses().unwrap()[0]);
    let mut command = server.command(env!("CARGO_BIN_EXE_landbridge-kvstore")).unwrap();
    command.env_clear().stdin(Stdio::null());
    let data = tempfile::tempdir().unwrap();
    let pings = ["--grpc-keepalive-interval", "1s", "--grpc-keepalive-timeout", "5s"];
    let store = Running::start_program(command, data.path(), &url, &free_url(), &pings);
    let process = store.0.id();

    let answered: Vec<Arc<AtomicUsize>> = (0..3 * CLIENTS).map(|_| Arc::default()).collect();
    let wires: Vec<Wire> = answered
        .iter()
        .enumerate()
        .map(|(n, answered)| {
            let mut wire = client.inside(|| Wire::open(&url, true)).unwrap();
            // One watches, one is in the middle of a request, and one has nothing to say.
            match n % 3 {
                0 => wire.send(&call(1, "/etcdserverpb.Watch/Watch", b"\x0a\x03\x0a\x01k", false)).unwrap(),
                1 => {
                    let put = head("/etcdserverpb.KV/Put");
                    wire.send(&frame(HEADERS, END_HEADERS, 1, &put)).unwrap();
                    wire.send(&frame(DATA, 0, 1, b"\0\0\x10\0\0\x0a")).unwrap();
                }
                _ => {}
            }
            let (reader, answered) = (wire.reader(), Arc::clone(answered));
            thread::spawn(move || live_on(reader, &answered));
            wire
        })
        .collect();
    until("watches", || watches(&server, &url) == CLIENTS);
    let lives = |answered: &Arc<AtomicUsize>| answered.load(Ordering::Relaxed) >= PINGS;
    until("those who are asked answer", || answered.iter().all(lives));
    // With some of questions about metrics, maybe.
    let open = open_sockets(process);

    for direction in Direction::BOTH {
        lab.link("b1").unwrap().cut(direction).unwrap();
    }
    until("connections of those who are gone end", || open_sockets(process) + wires.len() <= open);
    assert_eq!(watches(&server, &url), 0);
    lab.link("b1").unwrap().clear().unwrap();
    until("whoever comes back is let in", || {
        client.inside(|| TcpStream::connect(url.trim_start_matches("http://")).is_ok()).unwrap()
    });
    drop(wires);
    drop(store);
    lab.remove().unwrap();
}
