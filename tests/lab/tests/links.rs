//! Cutting and degrading links, as two pods of different clusters see it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use landbridge_lab::requirement::{Requirement, met};
use landbridge_lab::{Direction, Host, Impairment, Share};

use support::{addresses, reaches, two_clusters};

#[test]
fn pods_of_different_clusters_reach_each_other_through_the_router() {
    if !met(&[Requirement::Namespaces]) {
        return;
    }
    let lab = two_clusters("reach", 2);
    let (near, far) = (lab.host("a1p1").unwrap(), lab.host("b2p1").unwrap());
    for address in addresses(&far) {
        assert!(reaches(&near, address), "{address}");
    }
    // Three hops: the node, the router, the other node.
    let route = near.run("ping", ["-n", "-c", "1", "-t", "2", &addresses(&far)[0].to_string()]).unwrap();
    let route = String::from_utf8(route.stdout).unwrap();
    let router = lab.cluster("a").unwrap().router()[0];
    assert!(route.contains(&format!("From {router} icmp_seq=1 Time to live exceeded")), "{route}");
}

#[test]
fn a_one_way_cut_stops_exactly_one_direction() {
    if !met(&[Requirement::Namespaces]) {
        return;
    }
    let lab = two_clusters("oneway", 1);
    let (a, b) = (lab.host("a1p1").unwrap(), lab.host("b1p1").unwrap());
    for (link, direction) in [
        ("a", Direction::Outbound),
        ("a", Direction::Inbound),
        ("a1", Direction::Outbound),
        ("b1", Direction::Inbound),
    ] {
        let link = lab.link(link).unwrap();
        let cut_a_to_b = direction == Direction::Outbound || link.name() == "b1";
        // Neighbour discovery needs both directions, so everybody has to know everybody before one is cut.
        let pairs: Vec<_> = addresses(&a).into_iter().zip(addresses(&b)).collect();
        for (_, address_b) in &pairs {
            assert!(reaches(&a, *address_b), "before cutting {link:?}");
        }
        link.cut(direction).unwrap();
        for (address_a, address_b) in &pairs {
            // Datagrams need no answer, so they show which direction it is.
            assert_eq!(datagram_arrives(&a, &b, *address_b), !cut_a_to_b, "a to b, {link:?} {direction}");
            assert_eq!(datagram_arrives(&b, &a, *address_a), cut_a_to_b, "b to a, {link:?} {direction}");
        }
        // Neither request nor answer gets through, as one of the two takes the cut direction.
        assert!(!reaches(&a, pairs[0].1) && !reaches(&b, pairs[1].0), "{link:?} {direction}");
        let counters = link.clear().unwrap();
        let other = Direction::BOTH.into_iter().find(|other| *other != direction).unwrap();
        assert!(counters.of(direction).cut > 0 && counters.of(direction).delivered == 0, "{counters:?}");
        assert!(counters.of(other).cut == 0 && counters.of(other).delivered > 0, "{counters:?}");
        assert!(reaches(&b, pairs[0].0) && reaches(&a, pairs[1].1), "after clearing {link:?}");
    }
}

/// Whether one of several datagrams gets from a host to another. The receiver's neighbours are known by then.
fn datagram_arrives(from: &Host, to: &Host, address: IpAddr) -> bool {
    let receiver = to.inside(|| UdpSocket::bind((address, 0))).unwrap().unwrap();
    receiver.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let target = receiver.local_addr().unwrap();
    let own = addresses(from)[usize::from(address.is_ipv6())];
    let sender = from.inside(|| UdpSocket::bind((own, 0))).unwrap().unwrap();
    for _ in 0..3 {
        sender.send_to(b"landbridge", target).unwrap();
    }
    receiver.recv_from(&mut [0; 64]).is_ok()
}

#[test]
fn fifty_milliseconds_of_delay_and_ten_percent_of_loss_are_measured_as_such() {
    if !met(&[Requirement::Namespaces]) {
        return;
    }
    let lab = two_clusters("degrade", 1);
    let (near, far) = (lab.host("a1p1").unwrap(), addresses(&lab.host("b1p1").unwrap()));
    let link = lab.link("a").unwrap();

    let delay = Duration::from_millis(50);
    link.set(Direction::Outbound, Impairment { delay, ..Impairment::NONE }).unwrap();
    for address in far {
        let summary = near.ping(address, 10, Duration::from_millis(100)).unwrap();
        let shortest = summary.shortest.unwrap_or_else(|| panic!("no answer: {summary:?}"));
        // The kernel rounds what ping reads to microseconds. Twice the delay would be both directions.
        assert!(shortest >= Duration::from_micros(49_990) && shortest < delay * 2, "{summary:?}");
    }

    link.set(Direction::Outbound, Impairment { loss: Share::percent(10), ..Impairment::NONE }).unwrap();
    let before = link.counters().unwrap().outbound_frames;
    let summary = near.ping(far[0], 1_000, Duration::from_millis(2)).unwrap();
    let lost = link.counters().unwrap().outbound_frames.lost - before.lost;
    // Five standard deviations of a binomial distribution of 1,000 throws. The relay also loses frames of neighbour
    // discovery, of which there are few.
    let unanswered = summary.sent - summary.received;
    assert!(
        (53..=147).contains(&unanswered) && lost.abs_diff(unanswered) <= 10,
        "{summary:?}, {lost} frames lost"
    );

    link.set(Direction::Outbound, Impairment { duplicate: Share::percent(100), ..Impairment::NONE }).unwrap();
    let summary = near.ping(far[0], 20, Duration::from_millis(10)).unwrap();
    // The last answer ends ping, which may not see its double.
    assert!(summary.received == 20 && (19..=20).contains(&summary.duplicates), "{summary:?}");
}

#[test]
fn a_limited_rate_is_the_rate_of_a_stream() {
    /// In bits a second.
    const RATE: u64 = 20_000_000;
    /// In bytes.
    const SIZE: usize = 2_000_000;
    if !met(&[Requirement::Namespaces]) {
        return;
    }

    let lab = two_clusters("rate", 1);
    let (near, far) = (lab.host("a1p1").unwrap(), lab.host("b1p1").unwrap());
    let impairment = Impairment { rate_bits_per_second: NonZeroU64::new(RATE), ..Impairment::NONE };
    lab.link("a").unwrap().set(Direction::Outbound, impairment).unwrap();

    let listener = far.inside(|| TcpListener::bind((addresses(&far)[0], 0))).unwrap().unwrap();
    let target = listener.local_addr().unwrap();
    let sender = near.inside(move || TcpStream::connect(target)).unwrap().unwrap();
    let (mut receiver, _) = listener.accept().unwrap();
    let start = Instant::now();
    let writer = std::thread::spawn(move || { sender }.write_all(&vec![1; SIZE]).unwrap());
    let mut received = Vec::new();
    receiver.read_to_end(&mut received).unwrap();
    writer.join().unwrap();
    assert_eq!(
        received,
        vec![1; SIZE],
        "no byte is lost or changed, whatever the kernel left to its network cards"
    );
    // Faster than the rate is impossible; frames that exceed the wire's length would make it so. How much slower
    // depends on the machine.
    let fastest = Duration::from_micros(SIZE as u64 * 8 * 1_000_000 / RATE);
    assert!(start.elapsed() >= fastest.mul_f64(0.95), "{:?} against {fastest:?}", start.elapsed());
}
