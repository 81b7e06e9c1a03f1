//! The rules that kube-proxy writes for services, chain by chain and map by map, so that the kernel does what it does on
//! the nodes of others. Names are hashes there; here they are counted, with as many characters.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};

/// Port of every service.
pub(super) const SERVICE_PORT: u16 = 80;
/// The pods of the cluster, whose packets need no masquerading.
const CLUSTER_CIDR: &str = "10.0.0.0/8";

/// The address of service `number`, counted from 0, up to 2^22 of them.
pub(super) fn service_address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(100, 64, 0, 1)) + number)
}

/// Which service's backends are written.
#[derive(Clone, Copy)]
pub(super) struct Service<'a> {
    pub(super) number: u32,
    pub(super) backends: &'a [SocketAddrV4],
}

/// All tables for `count` services with the same backends, for `iptables-restore --noflush`.
pub(super) fn iptables(count: u32, backends: &[SocketAddrV4]) -> String {
    let mut text = String::from(IPTABLES_FILTER);
    let services = (0..count).map(|number| Service { number, backends });
    let (mut chains, mut rules) = (String::new(), String::new());
    for service in services {
        iptables_service(service, &mut chains, &mut rules);
    }
    text.push_str(IPTABLES_NAT_CHAINS);
    text.push_str(&chains);
    text.push_str(IPTABLES_NAT_HOOKS);
    text.push_str(IPTABLES_NAT_BASE);
    iptables_dispatch(count, &mut text);
    text.push_str(&rules);
    text.push_str("COMMIT\n");
    text
}

/// What a change of one service's backends writes: its own chains, and the chain that all services begin in.
pub(super) fn iptables_change(count: u32, changed: Service<'_>) -> String {
    let (mut chains, mut rules) = (String::new(), String::new());
    iptables_service(changed, &mut chains, &mut rules);
    let mut text = format!("{IPTABLES_NAT_CHAINS}{chains}{IPTABLES_NAT_BASE}");
    iptables_dispatch(count, &mut text);
    text.push_str(&rules);
    text.push_str("COMMIT\n");
    text
}

const IPTABLES_FILTER: &str = r#"*filter
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-FIREWALL - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
:KUBE-SERVICES - [0:0]
-A INPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL
-A INPUT -m comment --comment "kubernetes health check service ports" -j KUBE-NODEPORTS
-A INPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES
-A INPUT -j KUBE-FIREWALL
-A FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -j KUBE-FIREWALL
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding rules" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding conntrack rule" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
"#;
/// Declaring a chain empties it.
const IPTABLES_NAT_CHAINS: &str = "*nat
:KUBE-SERVICES - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-MARK-MASQ - [0:0]
";
const IPTABLES_NAT_HOOKS: &str = r#"-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
"#;
const IPTABLES_NAT_BASE: &str = r#"-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
"#;

/// The chain that each packet of a new connection goes through from its beginning.
fn iptables_dispatch(count: u32, text: &mut String) {
    for number in 0..count {
        let address = service_address(number);
        let _ = writeln!(
            text,
            r#"-A KUBE-SERVICES -m comment --comment "{}:http cluster IP" -m tcp -p tcp -d {address} --dport {SERVICE_PORT} -j KUBE-SVC-{number:016X}"#,
            name(number),
        );
    }
    text.push_str(
        r#"-A KUBE-SERVICES -m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
"#,
    );
}

fn iptables_service(service: Service<'_>, chains: &mut String, rules: &mut String) {
    let Service { number, backends } = service;
    let (name, address) = (name(number), service_address(number));
    let _ = writeln!(chains, ":KUBE-SVC-{number:016X} - [0:0]");
    let _ = writeln!(
        rules,
        r#"-A KUBE-SVC-{number:016X} -m comment --comment "{name}:http cluster IP" -m tcp -p tcp -d {address} --dport {SERVICE_PORT} ! -s {CLUSTER_CIDR} -j KUBE-MARK-MASQ"#
    );
    for (place, backend) in (0u32..).zip(backends) {
        let left = backends.len() - place as usize;
        let endpoint = format!("KUBE-SEP-{number:014X}{place:02X}");
        let _ = writeln!(chains, ":{endpoint} - [0:0]");
        let share = if left > 1 { probability(left) } else { String::new() };
        let _ = writeln!(
            rules,
            r#"-A KUBE-SVC-{number:016X} -m comment --comment "{name}:http -> {backend}" {share}-j {endpoint}
-A {endpoint} -m comment --comment "{name}:http" -s {ip} -j KUBE-MARK-MASQ
-A {endpoint} -m comment --comment "{name}:http" -m tcp -p tcp -j DNAT --to-destination {backend}"#,
            ip = backend.ip(),
        );
    }
}

/// The share of one of `left` backends.
fn probability(left: usize) -> String {
    let left = u32::try_from(left).unwrap_or(u32::MAX);
    format!("-m statistic --mode random --probability {:.10} ", 1.0 / f64::from(left))
}

/// The table for `count` services with the same backends, for `nft -f`.
pub(super) fn nftables(count: u32, backends: &[SocketAddrV4]) -> String {
    let mut text = String::from(NFTABLES_BASE);
    let mut elements = String::new();
    let mut addresses = String::new();
    for number in 0..count {
        let address = service_address(number);
        nftables_service(Service { number, backends }, &mut text);
        let _ = writeln!(elements, "{address} . tcp . {SERVICE_PORT} : goto {},", nftables_chain(number));
        let _ = writeln!(addresses, "{address},");
    }
    let _ = writeln!(
        text,
        "map service-ips {{\ntype ipv4_addr . inet_proto . inet_service : verdict\nelements = {{ {elements} }}\n}}
set cluster-ips {{\ntype ipv4_addr\nelements = {{ {addresses} }}\n}}
chain services {{\nip daddr . meta l4proto . th dport vmap @service-ips\nip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports\n}}
chain cluster-ips-check {{\nip daddr @cluster-ips reject comment \"Reject traffic to invalid ports of ClusterIPs\"\n}}
{NFTABLES_HOOKS}}}"
    );
    text
}

/// What a change of one service's backends writes. The chains of the backends are there from before.
pub(super) fn nftables_change(changed: Service<'_>) -> String {
    let chain = nftables_chain(changed.number);
    let mut text = format!("add chain ip kube-proxy {chain}\nflush chain ip kube-proxy {chain}\n");
    for rule in nftables_rules(changed) {
        let _ = writeln!(text, "add rule ip kube-proxy {chain} {rule}");
    }
    text
}

const NFTABLES_BASE: &str = "table ip kube-proxy {
chain mark-for-masquerade {
meta mark set meta mark | 0x4000
}
chain masquerading {
meta mark & 0x4000 == 0 return
meta mark set meta mark ^ 0x4000
masquerade fully-random
}
map firewall-ips {
type ipv4_addr . inet_proto . inet_service : verdict
}
map no-endpoint-services {
type ipv4_addr . inet_proto . inet_service : verdict
}
map no-endpoint-nodeports {
type inet_proto . inet_service : verdict
}
map service-nodeports {
type inet_proto . inet_service : verdict
}
set nodeport-ips {
type ipv4_addr
}
chain firewall-check {
ip daddr . meta l4proto . th dport vmap @firewall-ips
}
chain service-endpoints-check {
ip daddr . meta l4proto . th dport vmap @no-endpoint-services
}
chain nodeport-endpoints-check {
ip daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports
}
";
const NFTABLES_HOOKS: &str = "chain filter-prerouting {
type filter hook prerouting priority -110; policy accept;
ct state new jump firewall-check
}
chain filter-input {
type filter hook input priority -110; policy accept;
ct state new jump nodeport-endpoints-check
ct state new jump service-endpoints-check
}
chain filter-forward {
type filter hook forward priority -110; policy accept;
ct state new jump service-endpoints-check
ct state new jump cluster-ips-check
}
chain filter-output {
type filter hook output priority -110; policy accept;
ct state new jump service-endpoints-check
ct state new jump firewall-check
}
chain filter-output-post-dnat {
type filter hook output priority -90; policy accept;
ct state new jump cluster-ips-check
}
chain nat-prerouting {
type nat hook prerouting priority -100; policy accept;
jump services
}
chain nat-output {
type nat hook output priority -100; policy accept;
jump services
}
chain nat-postrouting {
type nat hook postrouting priority 100; policy accept;
jump masquerading
}
";

fn nftables_service(service: Service<'_>, text: &mut String) {
    for (place, backend) in (0..).zip(service.backends) {
        let _ = writeln!(
            text,
            "chain {} {{\nip saddr {} jump mark-for-masquerade\nmeta l4proto tcp dnat to {backend}\n}}",
            nftables_endpoint(service.number, place),
            backend.ip(),
        );
    }
    let rules = nftables_rules(service).join("\n");
    let _ = writeln!(text, "chain {} {{\n{rules}\n}}", nftables_chain(service.number));
}

fn nftables_rules(service: Service<'_>) -> [String; 2] {
    let Service { number, backends } = service;
    let address = service_address(number);
    let verdicts =
        (0..backends.len()).map(|place| format!("{place} : goto {}", nftables_endpoint(number, place)));
    let verdicts = verdicts.collect::<Vec<_>>().join(", ");
    [
        format!(
            "ip daddr {address} tcp dport {SERVICE_PORT} ip saddr != {CLUSTER_CIDR} jump mark-for-masquerade"
        ),
        format!("numgen random mod {} vmap {{ {verdicts} }}", backends.len()),
    ]
}

fn nftables_chain(number: u32) -> String {
    format!("service-{number:08X}-{}/tcp/http", name(number))
}

fn nftables_endpoint(number: u32, place: usize) -> String {
    format!("endpoint-{number:07X}{place:X}-{}/tcp/http", name(number))
}

fn name(number: u32) -> String {
    format!("ns{}/svc-{number}", number % 50)
}
