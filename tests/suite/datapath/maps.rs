//! What the agent writes is what it reads back, now and in the next process.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Instant;

use landbridge_bpf_loader::maps::{
    Backend, CidrKey, Endpoint, IPV4_PREFIX_BITS, IpcacheEntry, NodeConfig, NodeEntry, NodeNumber,
    ServiceKey, ServiceSettings,
};
use landbridge_bpf_loader::{Datapath, DatapathError, MapError, MapSizes};
use landbridge_lab::requirement::{Requirement, met};

use super::fixture::{SIZES, address, ip, one_node, options, version_folder};

/// A large cluster's.
const SERVICES: u32 = 20_000;

fn service(last: u8) -> ServiceKey {
    ServiceKey { address: address(Ipv4Addr::new(10, 96, 0, last)), port: [0, 80], protocol: 6, scope: 0 }
}

fn numbered(service: u32) -> ServiceSettings {
    ServiceSettings { service, ..ServiceSettings::default() }
}

fn backends(first: u8, count: u8) -> Vec<Backend> {
    let backend = |number| Backend::new(address(Ipv4Addr::new(10, 1, 1, number)), [0, 80], 1);
    (first..first + count).map(backend).collect()
}

#[test]
fn what_is_written_is_read_back_by_the_next_process() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    let (_lab, node) = one_node("maps");
    let options = options(&node, 1);
    let open = || node.inside(|| Datapath::open(&options)).unwrap().unwrap();
    let mut datapath = open();
    let entry = |identity| IpcacheEntry { identity, node: NodeNumber(3) };
    let (one, two) = (address(Ipv4Addr::new(10, 1, 1, 1)), address(Ipv4Addr::new(10, 1, 1, 2)));

    let mut ipcache = datapath.ipcache();
    ipcache.upsert(&one, &entry(300)).unwrap();
    ipcache.upsert(&two, &entry(301)).unwrap();
    ipcache.upsert(&one, &entry(302)).unwrap();
    assert_eq!(ipcache.get(&one).unwrap(), Some(entry(302)));
    assert!(ipcache.remove(&two).unwrap());
    assert!(!ipcache.remove(&two).unwrap(), "it is gone");
    assert_eq!(ipcache.get(&two).unwrap(), None);

    // A trie finds prefixes; the table finds keys.
    let cidr = |len, last| CidrKey {
        prefix_len: IPV4_PREFIX_BITS + len,
        address: address(Ipv4Addr::new(10, last, 0, 0)),
    };
    let mut cidrs = datapath.cidrs();
    cidrs.upsert(&cidr(8, 0), &entry(400)).unwrap();
    cidrs.upsert(&cidr(16, 1), &entry(401)).unwrap();
    assert_eq!(cidrs.get(&cidr(16, 1)).unwrap(), Some(entry(401)));
    assert_eq!(cidrs.get(&cidr(16, 2)).unwrap(), None);
    assert_eq!(
        cidrs.entries().unwrap(),
        BTreeMap::from([(cidr(8, 0), entry(400)), (cidr(16, 1), entry(401))])
    );
    assert!(!cidrs.remove(&cidr(24, 0)).unwrap() && cidrs.remove(&cidr(8, 0)).unwrap());

    let there = NodeEntry { underlay: one, cluster: 2 };
    datapath.nodes().set(NodeNumber(5), there).unwrap();
    datapath.nodes().set(NodeNumber(6), there).unwrap();
    datapath.nodes().clear(NodeNumber(6)).unwrap();
    for number in [0, SIZES.nodes] {
        let error = datapath.nodes().set(NodeNumber(number), there).unwrap_err();
        assert!(matches!(error, MapError::NoSuchEntry { map: "NODES", last: 63, .. }), "{error:?}");
    }

    let mut services = datapath.services();
    services.set(service(1), numbered(11), &backends(1, 3)).unwrap();
    services.set(service(2), numbered(12), &[]).unwrap();
    services.set(service(3), numbered(13), &backends(9, 1)).unwrap();
    services.set(service(1), numbered(11), &backends(5, 2)).unwrap();
    assert!(services.remove(&service(3)).unwrap() && !services.remove(&service(3)).unwrap());
    let expected =
        BTreeMap::from([(service(1), (numbered(11), backends(5, 2))), (service(2), (numbered(12), vec![]))]);
    assert_eq!(services.entries().unwrap(), expected);

    drop(datapath);
    let mut datapath = open();
    assert_eq!(datapath.ipcache().entries().unwrap(), BTreeMap::from([(one, entry(302))]));
    assert_eq!(datapath.cidrs().entries().unwrap(), BTreeMap::from([(cidr(16, 1), entry(401))]));
    assert_eq!(datapath.nodes().entries().unwrap(), BTreeMap::from([(NodeNumber(5), there)]));
    // It knows which backends are in use, too.
    for last in 10..30 {
        datapath.services().set(service(last), numbered(1), &backends(last, 4)).unwrap();
    }
    let entries = datapath.services().entries().unwrap();
    assert_eq!(entries[&service(1)], (numbered(11), backends(5, 2)));
    assert!((10..30).all(|last| entries[&service(last)].1 == backends(last, 4)));
}

#[test]
fn many_services_are_written_at_once_and_read_back() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    let (_lab, node) = one_node("many");
    let mut options = options(&node, 1);
    options.sizes = MapSizes { services: 1 << 15, backends: 1 << 17, tables: 1 << 15, ..SIZES };
    let open = || node.inside(|| Datapath::open(&options)).unwrap().unwrap();
    let mut datapath = open();
    let key =
        |number: u32| ServiceKey { address: address(Ipv4Addr::from(0x0a60_0000 + number)), ..service(0) };
    let runs: Vec<Vec<Backend>> = (0..SERVICES)
        .map(|number| {
            // Every tenth has a table.
            let weight = if number % 10 == 0 { 3 } else { 1 };
            let mut run = backends(u8::try_from(number % 200).unwrap(), 3);
            run[0].weight = weight;
            run
        })
        .collect();
    let all: BTreeMap<_, _> = (0..SERVICES)
        .zip(&runs)
        .map(|(number, run)| (key(number), (numbered(number), run.as_slice())))
        .collect();
    let begin = Instant::now();
    datapath.services().load(&all).unwrap();
    println!("{SERVICES} services with 3 backends each, written in {:?}", begin.elapsed());
    let begin = Instant::now();
    for number in 0..1000 {
        datapath.services().set(key(number), numbered(number), &runs[number as usize]).unwrap();
    }
    println!("one change takes {:?}", begin.elapsed() / 1000);
    drop(datapath);

    let mut datapath = open();
    let read = datapath.services().entries().unwrap();
    let read: BTreeMap<_, _> =
        read.iter().map(|(key, (settings, run))| (*key, (*settings, run.as_slice()))).collect();
    assert!(read == all);
    for number in 0..SERVICES {
        assert!(datapath.services().remove(&key(number)).unwrap());
    }
    // All of the room is there again.
    let one: Vec<Backend> =
        (0..1 << 17).map(|number| Backend { address: key(number).address, ..backends(1, 1)[0] }).collect();
    datapath.services().set(service(1), numbered(1), &one).unwrap();
}

#[test]
fn a_map_that_is_full_is_named_with_its_size() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    let (_lab, node) = one_node("full");
    let mut options = options(&node, 1);
    options.sizes = MapSizes { endpoints: 4, cidrs: 4, services: 4, backends: 8, tables: 16, ..SIZES };
    let mut datapath = node.inside(|| Datapath::open(&options)).unwrap().unwrap();
    let at = |last| address(Ipv4Addr::new(10, 1, 1, last));
    let error =
        (0..=4).find_map(|last| datapath.endpoints().upsert(&at(last), &Endpoint::default()).err()).unwrap();
    assert!(error.to_string().starts_with("the map ENDPOINTS is full with 4 entries"), "{error}");
    let prefix = |last| CidrKey { prefix_len: 128, address: at(last) };
    let entry = IpcacheEntry::default();
    let error = (0..=4).find_map(|last| datapath.cidrs().upsert(&prefix(last), &entry).err()).unwrap();
    assert!(error.to_string().starts_with("the map CIDRS is full with 4 entries"), "{error}");

    // Two tables of 8 groups each, one of them beside the old one.
    let weighted = [Backend { weight: 2, ..backends(1, 1)[0] }, backends(2, 1)[0]];
    let mut services = datapath.services();
    for _ in 0..20 {
        services.set(service(1), numbered(1), &weighted).unwrap();
    }
    services.set(service(2), numbered(1), &weighted).unwrap();
    let error = services.set(service(3), numbered(1), &weighted).unwrap_err();
    assert!(matches!(error, MapError::Full { map: "MAGLEV", size: 16 }), "{error:?}");
    assert!(services.remove(&service(2)).unwrap());
    assert!(services.remove(&service(1)).unwrap());
    services.set(service(1), numbered(1), &backends(1, 5)).unwrap();
    let error = services.set(service(1), numbered(1), &backends(1, 6)).unwrap_err();
    assert!(matches!(error, MapError::Full { map: "BACKENDS", size: 8 }), "{error:?}");
    assert_eq!(services.entries().unwrap()[&service(1)].1, backends(1, 5), "the old ones stay");
    for last in 2..5 {
        services.set(service(last), numbered(1), &[]).unwrap();
    }
    let error = services.set(service(5), numbered(1), &backends(1, 1)).unwrap_err();
    assert!(matches!(error, MapError::Full { map: "SERVICES", size: 4 }), "{error:?}");
    assert!(services.remove(&service(2)).unwrap());
    services.set(service(5), numbered(1), &backends(1, 3)).unwrap();
}

#[test]
fn a_pinned_map_of_another_shape_is_refused() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    let (_lab, node) = one_node("shape");
    let mut options = options(&node, 1);
    let open = |options: &_| node.inside(|| Datapath::open(options)).unwrap();
    drop(open(&options).unwrap());
    options.sizes.policy *= 2;
    let error = open(&options).unwrap_err().to_string();
    assert!(
        error.contains("maps/POLICY is a Hash map of 1024 entries") && error.contains("of 2048 entries"),
        "{error}"
    );
    options.sizes.policy /= 2;

    let maps = version_folder(&options.pins).join("maps");
    std::fs::rename(maps.join("NODES"), maps.join("BACKENDS")).unwrap();
    let error = open(&options).unwrap_err();
    assert!(matches!(&error, DatapathError::Shape { path, .. } if path.ends_with("BACKENDS")), "{error:?}");

    Datapath::remove(&options.pins).unwrap();
    drop(open(&options).unwrap());
}

#[test]
fn what_is_missing_is_named() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    let (_lab, node) = one_node("missing");
    let good = options(&node, 1);
    let open = |options: &_| node.inside(|| Datapath::open(options)).unwrap();
    let mut wrong = good.clone();
    wrong.overlay_interface = "lb_none".to_owned();
    let error = open(&wrong).unwrap_err().to_string();
    assert_eq!(error, r#"cannot find interface "lb_none" in this network namespace"#);
    let mut wrong = good.clone();
    wrong.cgroup = "/proc/none".into();
    let error = open(&wrong).unwrap_err().to_string();
    assert!(error.starts_with("cannot open cgroup /proc/none"), "{error}");
    let mut wrong = good.clone();
    wrong.pins = node.data_folder().unwrap();
    let error = open(&wrong).unwrap_err().to_string();
    assert!(error.contains("cannot load the maps"), "{error}");
    let mut datapath = open(&good).unwrap();
    let error = node.inside(|| datapath.attach_endpoint("lxc-none")).unwrap().unwrap_err().to_string();
    assert_eq!(error, r#"cannot find interface "lxc-none" in this network namespace"#);
}

#[test]
fn an_interface_that_was_made_anew_gets_programs_of_its_own() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    let (_lab, node) = one_node("anew");
    let options = options(&node, 1);
    let mut datapath = node.inside(|| Datapath::open(&options)).unwrap().unwrap();
    let make = || ip(&node, "link add lxc.1 type veth peer name other\n");
    let programs = || {
        let output = node.run("ip", ["-d", "link", "show", "dev", "lxc.1"]).unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    make();
    let attach =
        |datapath: &mut Datapath| node.inside(|| datapath.attach_endpoint("lxc.1")).unwrap().unwrap();
    let attached = |datapath: &Datapath| node.inside(|| datapath.attached_endpoints()).unwrap().unwrap();
    attach(&mut datapath);
    attach(&mut datapath);
    assert_eq!(attached(&datapath), ["lxc.1"], "{}", programs());
    ip(&node, "link del lxc.1\n");
    assert_eq!(attached(&datapath), [""; 0]);
    make();
    assert_eq!(attached(&datapath), [""; 0]);
    attach(&mut datapath);
    assert_eq!(attached(&datapath), ["lxc.1"]);
    // The next process forgets what was on the interface that is gone.
    drop(datapath);
    let mut datapath = node.inside(|| Datapath::open(&options)).unwrap().unwrap();
    let links = std::fs::read_dir(version_folder(&options.pins).join("endpoints")).unwrap().count();
    assert_eq!((attached(&datapath), links), (vec!["lxc.1".to_owned()], 1));
    datapath.detach_endpoint("lxc.1").unwrap();
    datapath.detach_endpoint("lxc.1").unwrap();
    assert_eq!(attached(&datapath), [""; 0]);
}

#[test]
fn every_program_stays_far_from_what_the_verifier_gives_up_at() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    let (_lab, node) = one_node("budget");
    let mut options = options(&node, 1);
    options.uplink_interface = Some("eth0".to_owned());
    let [v4, v6] = node.node_addresses().unwrap().underlay();
    (options.config.masquerade, options.config.masquerade6) = (v4.into(), v6.into());
    // What is switched off is not followed.
    for flags in [0, NodeConfig::MASQUERADE, NodeConfig::DIRECT | NodeConfig::MASQUERADE] {
        options.config.flags = flags;
        let datapath = node.inside(|| Datapath::open(&options)).unwrap().unwrap();
        let counts = datapath.verified_instructions().unwrap();
        assert_eq!(counts.len(), 20);
        println!("instructions with {flags}: {counts:?}");
        assert!(counts.iter().all(|(_, count)| (1..10_000).contains(count)), "{flags}: {counts:?}");
    }
}
