//! The next agent takes over while traffic flows.

use std::env;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use landbridge_bpf_loader::Datapath;
use landbridge_bpf_loader::maps::{Direction, Reason};
use landbridge_lab::requirement::{Requirement, met};

use super::fixture::{
    Mesh, arrives, connect, echo_server, is_lost, options, options_at, udp, version_folder, wait_until,
};

/// What a second run of this binary is to take over: pins, cgroup, two addresses, the interface of a pod.
const ORDER: &str = "LANDBRIDGE_TEST_TAKEOVER_ORDER";
const TEST: &str = "datapath::takeover::another_process_takes_over_under_traffic";

#[test]
fn another_process_takes_over_under_traffic() {
    if let Ok(order) = env::var(ORDER) {
        return take_over(&order);
    }
    if !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    let mesh = Mesh::start("takeover", 1);
    let Mesh { lab: _lab, a, b } = mesh;
    let to = echo_server(&b.pods[0].host, b.pods[0].address);
    let mut stream = connect(&a.pods[0].host, to).unwrap();
    let (done, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    let before = a.packets(Reason::FORWARDED, Direction::Egress);
    let (host, pod, own) = (a.host.clone(), a.pods[0].clone(), a.options.clone());
    let order = format!(
        "{} {} {:?} {:?} {:?} {:?} {}",
        own.pins.display(),
        own.cgroup.display(),
        own.config.router,
        own.config.router6,
        own.config.health,
        own.config.health6,
        pod.interface
    );
    drop(a);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut byte = [0];
            while !done.load(Ordering::Relaxed) {
                stream.write_all(&[7]).unwrap();
                stream.read_exact(&mut byte).unwrap();
                rounds.fetch_add(1, Ordering::Relaxed);
            }
        });
        for _ in 0..3 {
            let start = rounds.load(Ordering::Relaxed);
            let mut command = host.command(env::current_exe().unwrap()).unwrap();
            let output = command.args(["--exact", TEST, "--nocapture"]).env(ORDER, &order).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            wait_until("traffic goes on", || rounds.load(Ordering::Relaxed) > start + 100);
        }
        done.store(true, Ordering::Relaxed);
    });
    // One more owner, with the counts of all before.
    let datapath = host.inside(|| Datapath::open(&own)).unwrap().unwrap();
    let after: u64 = datapath
        .counts()
        .unwrap()
        .iter()
        .filter(|(reason, direction, _)| (*reason, *direction) == (Reason::FORWARDED, Direction::Egress))
        .map(|(_, _, count)| count.packets)
        .sum();
    let sent = rounds.load(Ordering::Relaxed);
    assert!(after - before >= sent, "{sent} rounds and {} packets", after - before);
    assert!(
        after - before < 4 * sent + 1000,
        "one program at each hook counts, not several: {sent} {}",
        after - before
    );
    let drops: Vec<_> =
        datapath.counts().unwrap().into_iter().filter(|(reason, ..)| *reason != Reason::FORWARDED).collect();
    assert_eq!(drops, []);
}

/// What the second process does: it opens what is pinned, in the namespace it was started in.
fn take_over(order: &str) {
    let [pins, cgroup, router, router6, health, health6, interface] =
        order.split(' ').collect::<Vec<_>>()[..]
    else {
        panic!("{order}")
    };
    let [router, health] =
        [[router, router6], [health, health6]].map(|both| both.map(|one| one.parse().unwrap()));
    let options = options_at(pins.into(), cgroup.into(), router, health, 1);
    let mut datapath = Datapath::open(&options).unwrap();
    assert_eq!(datapath.attached_endpoints().unwrap(), [interface]);
    datapath.attach_endpoint(interface).unwrap();
    assert_eq!(datapath.endpoints().entries().unwrap().len(), 2);
}

#[test]
fn without_its_pins_nothing_is_attached_any_more() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    let Mesh { lab: _lab, a, b: _b } = Mesh::start("removed", 1);
    let (host, pod) = (a.host.clone(), a.pods[0].clone());
    // A pod may speak under any name as soon as nobody looks.
    super::fixture::ip(&pod.host, "addr add 10.1.1.99/32 dev eth0\n");
    super::fixture::ip(
        &host,
        &format!(
            "route add 10.1.1.99/32 dev {}\nneigh add 10.1.1.99 lladdr 02:00:00:01:01:01 dev {} nud permanent\n",
            pod.interface, pod.interface
        ),
    );
    let router = udp(&host, super::fixture::v4(host.node_addresses().unwrap().router()));
    let liar = udp(&pod.host, std::net::Ipv4Addr::new(10, 1, 1, 99));
    let pins = options(&host, 1).pins;
    drop(a);
    assert!(is_lost(&liar, &router));
    for _ in 0..2 {
        host.inside(|| Datapath::remove(&pins)).unwrap().unwrap();
    }
    // The kernel detaches in its own time.
    wait_until("nobody looks", || !is_lost(&liar, &router));
}

/// The pins of links below a folder of pins, without the folder.
fn links(pins: &std::path::Path) -> std::collections::BTreeSet<std::path::PathBuf> {
    let mut found = std::collections::BTreeSet::new();
    for place in ["overlay", "cgroup", "endpoints"] {
        for folder in std::fs::read_dir(version_folder(pins).join(place)).unwrap() {
            let files = std::fs::read_dir(folder.unwrap().path()).unwrap();
            found.extend(files.map(|file| file.unwrap().path().strip_prefix(pins).unwrap().to_owned()));
        }
    }
    found
}

#[test]
fn wherever_a_process_ended_the_next_one_goes_on() {
    if !met(&[Requirement::Namespaces, Requirement::Ebpf]) {
        return;
    }
    let Mesh { lab: _lab, a, b } = Mesh::start("halfway", 1);
    let (host, pod, own) = (a.host.clone(), a.pods[0].clone(), a.options.clone());
    drop(a);
    let all = links(&own.pins);
    assert_eq!(all.len(), 13);
    let near = udp(&pod.host, pod.address);
    let far = udp(&b.pods[0].host, b.pods[0].address);
    let go_on = || {
        let mut datapath = host.inside(|| Datapath::open(&own)).unwrap().unwrap();
        host.inside(|| datapath.attach_endpoint(&pod.interface)).unwrap().unwrap();
        assert_eq!(host.inside(|| datapath.attached_endpoints()).unwrap().unwrap(), [pod.interface.as_str()]);
    };
    // Each link alone was not made yet, then all of them, with their folders and without.
    for missing in &all {
        std::fs::remove_file(own.pins.join(missing)).unwrap();
        go_on();
        assert_eq!(links(&own.pins), all, "{missing:?}");
        assert!(arrives(&near, &far) && arrives(&far, &near), "{missing:?}");
    }
    for missing in &all {
        std::fs::remove_file(own.pins.join(missing)).unwrap();
    }
    go_on();
    assert_eq!(links(&own.pins), all);
    for place in ["overlay", "cgroup", "endpoints"] {
        std::fs::remove_dir_all(version_folder(&own.pins).join(place)).unwrap();
    }
    go_on();
    assert_eq!(links(&own.pins), all);
    assert!(arrives(&near, &far) && arrives(&far, &near));

    // The tunnel interface was made anew meanwhile, and the cgroup is another.
    super::fixture::ip(&host, "link del lb_vxlan\n");
    super::fixture::make_overlay(&host);
    let index = super::fixture::interface_index(&host, "lb_vxlan");
    let cgroup = own.cgroup.join("other");
    std::fs::create_dir(&cgroup).unwrap();
    let moved = landbridge_bpf_loader::DatapathOptions { cgroup: cgroup.clone(), ..own.clone() };
    drop(host.inside(|| Datapath::open(&moved)).unwrap().unwrap());
    let after = links(&own.pins);
    assert_eq!(after.len(), 13, "what was attached elsewhere is gone: {after:?}");
    let of_overlay = version_folder("".as_ref()).join(format!("overlay/lb_vxlan@{index}/from_overlay"));
    assert!(after.contains(&of_overlay), "{after:?}");
    std::fs::remove_dir(&cgroup).unwrap();
    go_on();
    assert_eq!(links(&own.pins).iter().filter(|link| all.contains(*link)).count(), 11);
}
