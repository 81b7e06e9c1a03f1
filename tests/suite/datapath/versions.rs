//! Another version's pins are found.

use std::fs;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use landbridge_bpf_loader::maps::{Address, Reason, SCHEMA};
use landbridge_bpf_loader::{Build, Datapath, DatapathError};
use landbridge_lab::requirement::{Requirement, met};

use super::fixture::{Mesh, connect, echo_server, one_node, opened, options, version_folder, wait_until};

#[test]
fn an_older_versions_programs_go_on_until_the_new_maps_are_filled() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    let Mesh { lab: _lab, mut a, b } = Mesh::start("older", 1);
    let to = echo_server(&b.pods[0].host, b.pods[0].address);
    let mut stream = connect(&a.pods[0].host, to).unwrap();
    let (host, options, pod) = (a.host.clone(), a.options.clone(), a.pods[0].clone());
    let (ipcache, cidrs) = (a.datapath.ipcache().entries().unwrap(), a.datapath.cidrs().entries().unwrap());
    let (endpoints, nodes) =
        (a.datapath.endpoints().entries().unwrap(), a.datapath.nodes().entries().unwrap());
    drop(a);
    let (done, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    let older = options.pins.join(format!("v{}", SCHEMA - 1));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut byte = [0];
            while !done.load(Ordering::Relaxed) {
                stream.write_all(&[7]).unwrap();
                stream.read_exact(&mut byte).unwrap();
                rounds.fetch_add(1, Ordering::Relaxed);
            }
        });
        let goes_on = || {
            let start = rounds.load(Ordering::Relaxed);
            wait_until("traffic goes on", || rounds.load(Ordering::Relaxed) > start + 100);
        };
        fs::rename(version_folder(&options.pins), &older).unwrap();
        // Two processes, since the first one may end before it has filled anything.
        for _ in 0..2 {
            let mut datapath = host.inside(|| Datapath::open(&options)).unwrap().unwrap();
            assert!(datapath.is_preparing());
            host.inside(|| datapath.attach_endpoint(&pod.interface)).unwrap().unwrap();
            assert_eq!(datapath.endpoints().entries().unwrap().len(), 0, "new maps");
            assert!(!datapath.connections().entries().unwrap().is_empty(), "what means the same is kept");
            goes_on();
        }
        let mut datapath = host.inside(|| Datapath::open(&options)).unwrap().unwrap();
        for (address, entry) in &ipcache {
            datapath.ipcache().upsert(address, entry).unwrap();
        }
        for (prefix, entry) in &cidrs {
            datapath.cidrs().upsert(prefix, entry).unwrap();
        }
        for (number, node) in &nodes {
            datapath.nodes().set(*number, *node).unwrap();
        }
        for (address, endpoint) in &endpoints {
            datapath.endpoints().upsert(address, endpoint).unwrap();
        }
        host.inside(|| datapath.take_over()).unwrap().unwrap();
        assert!(!datapath.is_preparing() && !older.exists());
        goes_on();
        // It is the new maps that count now.
        datapath.endpoints().remove(&pod.address.into()).unwrap();
        wait_until("the pod is nobody", || {
            datapath.counts().unwrap().iter().any(|(reason, ..)| *reason == Reason::INVALID_SOURCE)
        });
        datapath.endpoints().upsert(&pod.address.into(), &endpoints[&Address::from(pod.address)]).unwrap();
        goes_on();
        done.store(true, Ordering::Relaxed);
    });
    // The next process finds nothing older.
    assert!(!host.inside(|| Datapath::open(&options)).unwrap().unwrap().is_preparing());
}

#[test]
fn a_newer_versions_pins_are_refused() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    let (_lab, host) = one_node("newer");
    let options = options(&host, 1);
    let newer = options.pins.join(format!("v{}", SCHEMA + 1));
    fs::create_dir_all(&newer).unwrap();
    let error = host.inside(|| Datapath::open(&options)).unwrap().unwrap_err();
    let is_newer =
        |error: &DatapathError| matches!(error, DatapathError::Newer { found, .. } if *found == SCHEMA + 1);
    assert!(is_newer(&error), "{error}");
    assert!(!version_folder(&options.pins).exists(), "nothing is touched");
    fs::remove_dir(&newer).unwrap();
    drop(opened(&host, Build::Released));
}
