//! What is in the certificates that the authority issues.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use landbridge_kvstore_schema::ClusterName;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, Error, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, SerialNumber,
};

const DAY: Duration = Duration::from_hours(24);

const CA_VALIDITY: Duration = DAY.saturating_mul(3653);
const SERVER_VALIDITY: Duration = DAY.saturating_mul(365);
/// How long certificates of the cluster's own users are valid.
pub const ADMIN_VALIDITY: Duration = DAY.saturating_mul(365);
/// How long the certificate of a peer is valid.
pub const PEER_VALIDITY: Duration = DAY.saturating_mul(90);

/// Certificates are valid from a bit before they were made, for readers whose clock is behind.
const CLOCK_SKEW: Duration = Duration::from_hours(1);

/// The name of the authority of `cluster`.
pub(super) fn authority_name(cluster: &ClusterName) -> String {
    format!("landbridge-ca-{cluster}")
}

/// An authority that signs leaves and no other authority.
pub(super) fn authority(cluster: &ClusterName, now: SystemTime) -> Result<CertificateParams, Error> {
    let mut params = params(&authority_name(cluster), CA_VALIDITY, now, &[])?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = false;
    Ok(params)
}

/// The store's certificate: what `hosts` names, and nothing that could speak for a user.
pub(super) fn server(
    cluster: &ClusterName,
    hosts: &[String],
    now: SystemTime,
) -> Result<CertificateParams, Error> {
    let mut params = params(&format!("server-{cluster}"), SERVER_VALIDITY, now, hosts)?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params)
}

/// The certificate of a user, which says its name and nothing else.
pub(super) fn client(user: &str, validity: Duration, now: SystemTime) -> Result<CertificateParams, Error> {
    let mut params = params(user, validity, now, &[])?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

/// Every host that the store is reached by: those given, and those by which Cilium and this machine do. Ordered, once
/// each; addresses that stand for "all" are left out.
pub(super) fn server_hosts(cluster: &ClusterName, hosts: &[String]) -> Vec<String> {
    let by_name = ["localhost", "127.0.0.1", "::1", "*.mesh.cilium.io"].map(str::to_owned);
    let cilium = format!("{cluster}.mesh.cilium.io");
    let all = hosts.iter().cloned().chain(by_name).chain([cilium]);
    let is_host = |host: &String| !host.parse().is_ok_and(|address: IpAddr| address.is_unspecified());
    // An address has several spellings, and a certificate gives it back in one.
    let spelled = |host: String| host.parse().map_or(host, |address: IpAddr| address.to_string());
    let mut all: Vec<_> = all.filter(is_host).map(spelled).collect();
    all.sort();
    all.dedup();
    all
}

fn params(
    common_name: &str,
    validity: Duration,
    now: SystemTime,
    hosts: &[String],
) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::new(hosts)?;
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, common_name);
    params.distinguished_name = subject;
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = (now + validity).into();
    params.serial_number = Some(serial_number()?);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// 126 random bits: positive, not zero, and never given twice (RFC 5280 section 4.1.2.2).
fn serial_number() -> Result<SerialNumber, Error> {
    let mut bytes = [0; 16];
    let random = rustls::crypto::ring::default_provider().secure_random;
    random.fill(&mut bytes).map_err(|_| Error::RingUnspecified)?;
    bytes[0] = bytes[0] & 0x3f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}
