//! TLS, towards clients and towards members.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use landbridge_kvstore_server::{
    ClientCertificates, ListenUrl, ServerTls, TlsFiles, TlsVersion, TlsVersions, parse_cipher_suites,
};

use crate::flags::Values;

/// TLS towards clients and those who ask for metrics; none where no URL has it.
pub(super) fn of_clients(
    values: &Values,
    urls: &[ListenUrl],
    metrics_urls: &[ListenUrl],
    notes: &mut Vec<String>,
) -> Result<Option<ServerTls>> {
    let Some((certificate, key)) = pair(values, "cert-file", "key-file")? else {
        if let Some(url) = urls.iter().chain(metrics_urls).find(|url| url.tls) {
            bail!(
                "TLS key/cert (--cert-file, --key-file) must be provided for client url {url} with HTTPS scheme"
            );
        }
        ensure!(!values.switch("client-cert-auth"), "--client-cert-auth needs --cert-file and --key-file");
        return Ok(None);
    };
    for url in urls.iter().filter(|url| !url.tls) {
        notes.push(format!(
            "the scheme of {url} is without TLS: it is served without --cert-file and --key-file"
        ));
        if values.switch("client-cert-auth") {
            notes
                .push(format!("the scheme of {url} is without TLS: --client-cert-auth does not count there"));
        }
    }
    let names_user = values.switch("client-cert-auth");
    let clients = match values.some("trusted-ca-file") {
        // As in etcd: a CA makes certificates a must.
        Some(ca) => ClientCertificates::Required {
            ca: ca.into(),
            revoked: values.some("client-crl-file").map(PathBuf::from),
            names_user,
        },
        None if names_user => {
            bail!("--client-cert-auth needs --trusted-ca-file: give the CA of the clients' certificates")
        }
        None => {
            let has_list = values.is_given("client-crl-file");
            ensure!(
                !has_list,
                "--client-crl-file needs --trusted-ca-file: without, no certificate is asked for"
            );
            ClientCertificates::NotAsked
        }
    };
    let versions = versions(values)?;
    let suites = values.list("cipher-suites");
    ensure!(
        suites.is_empty() || versions.with_1_2(),
        "--cipher-suites cannot be configured when only TLS1.3 is enabled: leave it out"
    );
    let cipher_suites = parse_cipher_suites(suites).context("--cipher-suites")?;
    Ok(Some(ServerTls { certificate, key, clients, versions, cipher_suites }))
}

/// TLS towards other members; none where no URL has it. Both sides always show a certificate.
pub(super) fn of_peers(
    values: &Values,
    urls: &[ListenUrl],
    notes: &mut Vec<String>,
) -> Result<Option<TlsFiles>> {
    let pair = pair(values, "peer-cert-file", "peer-key-file")?;
    let secure = urls.iter().find(|url| url.tls);
    let (certificate, key) = match (pair, secure) {
        (Some(pair), _) => pair,
        (None, Some(url)) => {
            bail!(
                "TLS key/cert (--peer-cert-file, --peer-key-file) must be provided for peer url {url} with HTTPS scheme"
            )
        }
        (None, None) => return Ok(None),
    };
    if secure.is_none() {
        notes.push(
            "no --listen-peer-urls has TLS: --peer-cert-file and --peer-key-file do not count".to_owned(),
        );
        return Ok(None);
    }
    let ca = values.some("peer-trusted-ca-file").context(
        "--peer-cert-file needs --peer-trusted-ca-file: members let each other in by certificates of one CA",
    )?;
    Ok(Some(TlsFiles { ca: ca.into(), certificate, key }))
}

fn pair(values: &Values, certificate: &str, key: &str) -> Result<Option<(PathBuf, PathBuf)>> {
    match (values.some(certificate), values.some(key)) {
        (Some(certificate), Some(key)) => Ok(Some((certificate.into(), key.into()))),
        (None, None) => Ok(None),
        (Some(_), None) => bail!("--{certificate} needs --{key}: give both"),
        (None, Some(_)) => bail!("--{key} needs --{certificate}: give both"),
    }
}

fn versions(values: &Values) -> Result<TlsVersions> {
    let version = |name: &str, default| match values.text(name) {
        "TLS1.2" => TlsVersion::V1_2,
        "TLS1.3" => TlsVersion::V1_3,
        _ => default,
    };
    let oldest = version("tls-min-version", TlsVersion::V1_2);
    TlsVersions::new(oldest, version("tls-max-version", TlsVersion::V1_3)).context("--tls-min-version")
}
