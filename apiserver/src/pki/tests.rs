//! What the authority issues, read by another library and judged as servers and clients do.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::prelude::FromDer;

use super::*;

const DAY: Duration = Duration::from_hours(24);

fn cluster(name: &str) -> ClusterName {
    ClusterName::new(name).unwrap()
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000)
}

fn open(folder: &Path) -> Pki {
    Pki::open(folder, &cluster("paris"), now()).unwrap()
}

fn ders(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().unwrap()
}

fn roots(ca: &str) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(ders(ca)[0].clone()).unwrap();
    Arc::new(roots)
}

fn unix(time: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(time.duration_since(SystemTime::UNIX_EPOCH).unwrap())
}

/// As a store with the CA `ca` sees a client's certificate.
fn is_let_in(certificate: &str, ca: &str, time: SystemTime) -> bool {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(roots(ca), provider).build().unwrap();
    verifier.verify_client_cert(&ders(certificate)[0], &[], unix(time)).is_ok()
}

/// As a client that trusts the CA `ca` sees the certificate of a store.
fn is_trusted(certificate: &str, ca: &str, host: &str, time: SystemTime) -> bool {
    use rustls::client::danger::ServerCertVerifier;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        rustls::client::WebPkiServerVerifier::builder_with_provider(roots(ca), provider).build().unwrap();
    let host = ServerName::try_from(host.to_owned()).unwrap();
    verifier.verify_server_cert(&ders(certificate)[0], &[], &host, &[], unix(time)).is_ok()
}

#[test]
fn an_authority_is_made_once_and_is_private() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("pki");
    let first = open(&folder).ca().fingerprint();
    assert_eq!(first, open(&folder).ca().fingerprint());
    let files = open(&folder).server(&[], now()).unwrap();
    assert_eq!(files.ca, folder.join("ca.crt"));
    assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    for entry in std::fs::read_dir(&folder).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{entry:?}");
    }
}

#[test]
fn many_processes_at_once_agree_on_one_authority() {
    let folder = tempfile::tempdir().unwrap();
    let open_all = |_| {
        let folder = folder.path().to_owned();
        std::thread::spawn(move || {
            let pki = open(&folder);
            let files = pki.server(&["192.0.2.1".to_owned()], now()).unwrap();
            let certificate = Certificate::from_pem(&read_text(&files.certificate).unwrap()).unwrap();
            let key = KeyPair::from_pem(&read_text(&files.key).unwrap()).unwrap();
            assert!(certificate.has_key(&key));
            pki.ca().fingerprint()
        })
    };
    let threads: Vec<_> = (0..8).map(open_all).collect();
    let fingerprints: std::collections::BTreeSet<_> =
        threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert_eq!(fingerprints.len(), 1);
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path());
    assert!(matches!(Pki::open(folder.path(), &cluster("lyon"), now()), Err(PkiError::OtherCluster { .. })));
    assert!(matches!(
        Pki::open(folder.path(), &cluster("paris"), now() + DAY * 3700),
        Err(PkiError::Unusable { .. })
    ));

    write_private(&folder.path().join("ca.key"), KeyPair::generate().unwrap().serialize_pem().as_bytes())
        .unwrap();
    assert!(matches!(Pki::open(folder.path(), &cluster("paris"), now()), Err(PkiError::Mismatch { .. })));
    write_private(&folder.path().join("ca.key"), b"no key").unwrap();
    assert!(matches!(Pki::open(folder.path(), &cluster("paris"), now()), Err(PkiError::Unreadable { .. })));
    assert!(matches!(
        Pki::load(&folder.path().join("nowhere"), &cluster("paris"), now()),
        Err(PkiError::File(_))
    ));
}

#[test]
fn the_store_is_trusted_under_each_of_its_names_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let pki = open(folder.path());
    let files = pki
        .server(&["192.0.2.1".to_owned(), "0.0.0.0".to_owned(), "mesh.example".to_owned()], now())
        .unwrap();
    let certificate = read_text(&files.certificate).unwrap();
    for host in ["192.0.2.1", "mesh.example", "localhost", "127.0.0.1", "::1", "paris.mesh.cilium.io"] {
        assert!(is_trusted(&certificate, pki.ca().pem(), host, now()), "{host}");
    }
    for host in ["192.0.2.2", "0.0.0.0", "example.com"] {
        assert!(!is_trusted(&certificate, pki.ca().pem(), host, now()), "{host}");
    }
    assert!(!is_let_in(&certificate, pki.ca().pem(), now()), "a server's certificate is no user's");
    assert!(!is_trusted(&certificate, pki.ca().pem(), "localhost", now() + DAY * 366));
}

#[test]
fn certificates_are_renewed_for_the_same_key_when_it_is_time() {
    let folder = tempfile::tempdir().unwrap();
    let pki = open(folder.path());
    let files = pki.admin(now()).unwrap();
    let (key, first) = (read_text(&files.key).unwrap(), read_text(&files.certificate).unwrap());
    pki.admin(now() + DAY * 240).unwrap();
    assert_eq!(read_text(&files.certificate).unwrap(), first);
    pki.admin(now() + DAY * 245).unwrap();
    let second = read_text(&files.certificate).unwrap();
    assert_ne!(second, first);
    assert_eq!(read_text(&files.key).unwrap(), key);
    assert!(is_let_in(&second, pki.ca().pem(), now() + DAY * 500));

    let files = pki.server(&["192.0.2.1".to_owned()], now()).unwrap();
    let first = read_text(&files.certificate).unwrap();
    pki.server(&["192.0.2.1".to_owned()], now()).unwrap();
    assert_eq!(read_text(&files.certificate).unwrap(), first, "nothing has changed");
    pki.server(&["192.0.2.2".to_owned()], now()).unwrap();
    assert_ne!(read_text(&files.certificate).unwrap(), first, "another address needs another certificate");
}

#[test]
fn users_of_the_cluster_are_let_in_by_their_own_store_alone() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (pki, other) = (open(folder.path()), open(other.path()));
    let user = User::parse(&cluster("paris"), "agent-n1").unwrap();
    let issued = pki.issue_client(&user, now()).unwrap();
    assert!(is_let_in(&issued.certificate, pki.ca().pem(), now()));
    assert!(
        !is_let_in(&issued.certificate, other.ca().pem(), now()),
        "an authority of the same name is another one"
    );
    let certificate = Certificate::from_pem(&issued.certificate).unwrap();
    assert_eq!(certificate.common_name(), Some("agent-n1"));
    assert!(certificate.has_key(&KeyPair::from_pem(&issued.key).unwrap()));
    assert!(!format!("{pki:?} {issued:?}").contains("PRIVATE KEY"));

    let out = tempfile::tempdir().unwrap();
    issued.write_to(out.path()).unwrap();
    assert_eq!(out.path().join("client.key").metadata().unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_peer_gets_the_subject_that_we_choose_whatever_it_asks_for() {
    let folder = tempfile::tempdir().unwrap();
    let pki = open(folder.path());
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let mut params = CertificateParams::new(["admin-paris".to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "admin-paris");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        let request = params.serialize_request(&key).unwrap().pem().unwrap();

        let signed = pki.sign_request(&cluster("lyon"), &request, now()).unwrap();
        let certificate = Certificate::from_pem(&signed).unwrap();
        assert_eq!(certificate.check_client("remote-lyon", pki.ca(), now()), Ok(()));
        assert!(certificate.has_key(&key));
        assert!(is_let_in(&signed, pki.ca().pem(), now() + DAY * 89));
        assert!(!is_let_in(&signed, pki.ca().pem(), now() + DAY * 91));
        assert!(!is_trusted(&signed, pki.ca().pem(), "admin-paris", now()));
        let der = ders(&signed);
        let parsed = x509_parser::certificate::X509Certificate::from_der(&der[0]).unwrap().1;
        assert!(!parsed.is_ca());
        assert!(parsed.subject_alternative_name().unwrap().is_none());
        assert_eq!(parsed.subject().iter().count(), 1);
    }
}

#[test]
fn requests_that_prove_nothing_are_not_signed() {
    let folder = tempfile::tempdir().unwrap();
    let pki = open(folder.path());
    let sign = |request: &str| pki.sign_request(&cluster("lyon"), request, now());
    let made = KeyRequest::new().unwrap();
    assert!(sign(&made.request).is_ok());
    assert!(!format!("{made:?}").contains("PRIVATE KEY"));

    for text in ["", "hello", made.key.as_str(), pki.ca().pem(), &format!("{0}{0}", made.request)] {
        assert!(matches!(sign(text), Err(RequestError::Malformed)), "{text}");
    }
    // The last bytes are the signature's.
    let mut der = rustls::pki_types::CertificateSigningRequestDer::from_pem_slice(made.request.as_bytes())
        .unwrap()
        .to_vec();
    let last = der.len() - 1;
    der[last] ^= 1;
    let forged = pem_of("CERTIFICATE REQUEST", &der);
    assert!(matches!(sign(&forged), Err(RequestError::Signature)));
    assert!(matches!(sign(RSA_REQUEST), Err(RequestError::KeyType | RequestError::Malformed)));
}

#[test]
fn certificates_say_why_they_cannot_be_relied_on() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (pki, other) = (open(folder.path()), open(other.path()));
    let made = KeyRequest::new().unwrap();
    let signed = pki.sign_request(&cluster("lyon"), &made.request, now()).unwrap();
    let certificate = Certificate::from_pem(&signed).unwrap();
    let check = |user, ca, time| certificate.check_client(user, ca, time).unwrap_err();
    assert!(matches!(check("remote-nice", pki.ca(), now()), CertificateError::OtherUser { .. }));
    assert!(matches!(check("remote-lyon", other.ca(), now()), CertificateError::OtherAuthority { .. }));
    assert!(matches!(check("remote-lyon", pki.ca(), now() + DAY * 91), CertificateError::Expired { .. }));
    assert!(matches!(check("remote-lyon", pki.ca(), now() - DAY), CertificateError::NotYetValid { .. }));
    assert!(matches!(certificate.check_authority(now()), Err(CertificateError::NoAuthority)));

    let server = read_text(&pki.server(&[], now()).unwrap().certificate).unwrap();
    let server = Certificate::from_pem(&server).unwrap();
    assert!(matches!(server.check_client("server-paris", pki.ca(), now()), Err(CertificateError::NoClient)));
    assert!(matches!(Certificate::from_pem(&format!("{signed}{signed}")), Err(CertificateError::Malformed)));
    assert_eq!(pki.ca().fingerprint().len(), 64);
}

#[test]
fn an_authority_that_signed_is_not_replaced_by_a_new_one() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path()).server(&[], now()).unwrap();
    let key = read_text(&folder.path().join("ca.key")).unwrap();
    std::fs::remove_file(folder.path().join("ca.crt")).unwrap();
    let error = Pki::open(folder.path(), &cluster("paris"), now()).unwrap_err();
    assert!(matches!(error, PkiError::Lost { .. }), "{error}");
    assert_eq!(read_text(&folder.path().join("ca.key")).unwrap(), key);
}

fn pem_of(label: &str, der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in der.chunks(3) {
        let bits = (0..3).fold(0u32, |bits, index| bits << 8 | u32::from(*chunk.get(index).unwrap_or(&0)));
        for index in 0..4 {
            let symbol = ALPHABET[(bits >> (18 - 6 * index) & 63) as usize];
            text.push(if index <= chunk.len() { char::from(symbol) } else { '=' });
        }
    }
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

/// For a key of RSA, made with `openssl req -new -newkey rsa:2048 -nodes -keyout /dev/null -subj /CN=x`.
const RSA_REQUEST: &str = "\
-----BEGIN CERTIFICATE REQUEST-----\n\
MIICUTCCATkCAQAwDDEKMAgGA1UEAwwBeDCCASIwDQYJKoZIhvcNAQEBBQADggEP\n\
ADCCAQoCggEBALyLQnSF9GMDrYgeo4TNiblopQqGsR6EmjWd0TShu1pHp0G+Dg3C\n\
gBR6cTMlQyVVAdzffIr+/OpgAFT7++ERRYkAuz9iMac0P6aCbAIVVPrv5gS+DC9u\n\
ffOZ3NB4popKGBXZXpPJyrfVsVV6WV7gB4TqYAK+HnV/tNSVk1VlEQrsuoYzkWmn\n\
afe/T+8m1KBrF0z9pm5pERBHPrKpt/KBR0XZFvIUwqjx6/dRYdAK/KaqWWnrLdHp\n\
IIQEoSezDLy4Hnq8nvtnB48F6YSeNZlxx+iF6jVMIFBuKK282h8VEcY/XgITZuB6\n\
COGjJAV7mar2llY9zz25dfJrof5LZ/xUyPECAwEAAaAAMA0GCSqGSIb3DQEBCwUA\n\
A4IBAQAt60or4nKrV9Pblp1mGu3051qwjYbfA7Gfbr0/7czJx2j0DHDXTiH2SQhf\n\
/WhZrAoRlzHYuYUxBrlmJZ7DcCYgZE1eZ8RC5f5Rw+k9E91JYSgTRrZYg72+9z1u\n\
5np14eIJJaXrp7Y3Oi1wqwiXAoCVGsYXUFw4jBvIrWGje76L7VLs9qWGsnd3a5zE\n\
8ZCIeorIsMISY70iNMmlm9M3eL8xZa8ElikNU+ThjXQMgIbj0qTaKlqATo5x8u/J\n\
H9YCNy9mSoqwmewqQ9HKoo3qJwHJMlj8NlxG0uFRLiooNCqUvPWBvy0pK30a8+rk\n\
43MZMTBjj+LqRiXkb87uOT9gk21i\n\
-----END CERTIFICATE REQUEST-----";
