//! Whether the member is well: `/health` for people and load balancers, `/livez` and `/readyz` for those who restart it or
//! send it work, as in etcd from 3.5.11 on. Nobody needs a right for these, as they tell nothing about keys.

use std::fmt::Write;
use std::sync::atomic::Ordering::Relaxed;

use http::{Response, StatusCode};
use tonic::body::Body;

use super::calls::Calls;
use super::router::{plain, typed};
use crate::grpc::Service;

/// What is looked at, in the order in which it is told.
const LIVE: &[&str] = &["serializable_read"];
const READY: &[&str] = &["data_corruption", "serializable_read", "linearizable_read"];

/// Whether this is the path of a check, or of all of them.
pub(super) fn is_check(path: &str) -> bool {
    checks(path).is_some()
}

fn checks(path: &str) -> Option<&'static [&'static str]> {
    let one_of = |all: &'static [&'static str], rest: &str| match rest.strip_prefix('/') {
        None => rest.is_empty().then_some(all),
        Some(name) => all.iter().position(|check| *check == name).map(|at| &all[at..=at]),
    };
    match (path.strip_prefix("/livez"), path.strip_prefix("/readyz")) {
        (Some(rest), _) => one_of(LIVE, rest),
        (_, Some(rest)) => one_of(READY, rest),
        _ => None,
    }
}

/// `/health`.
pub(super) async fn health(service: &Service, calls: &Calls, query: Option<&str>) -> Response<Body> {
    let excluded = values(query, "exclude");
    let is_local = values(query, "serializable").first().is_some_and(|value| value == "true");
    let reason = unwell(service, &excluded, is_local).await;
    let health = serde_json::json!({
        "health": if reason.is_none() { "true" } else { "false" },
        "reason": reason.as_deref().unwrap_or_default(),
    });
    if reason.is_none() {
        calls.healthy.fetch_add(1, Relaxed);
        typed(StatusCode::OK, "text/plain; charset=utf-8", health.to_string())
    } else {
        calls.unhealthy.fetch_add(1, Relaxed);
        plain(StatusCode::SERVICE_UNAVAILABLE, format!("{health}\n"))
    }
}

/// Why the member is not well.
async fn unwell(service: &Service, excluded: &[String], is_local: bool) -> Option<String> {
    if let Some(alarm) =
        service.active_alarms().iter().find(|alarm| !excluded.iter().any(|name| name == *alarm))
    {
        return Some(format!("ALARM {alarm}"));
    }
    if !is_local && !service.has_leader() {
        return Some("RAFT NO LEADER".to_owned());
    }
    service.can_read(is_local).await.err().map(|status| format!("RANGE ERROR:{}", status.message()))
}

/// `/livez`, `/readyz`, and single checks of these.
pub(super) async fn check(service: &Service, path: &str, query: Option<&str>) -> Response<Body> {
    let is_all = matches!(path, "/livez" | "/readyz");
    let excluded = if is_all { values(query, "exclude") } else { Vec::new() };
    let mut report = String::new();
    let mut is_well = true;
    for name in checks(path).unwrap_or_default() {
        if excluded.iter().any(|excluded| excluded == name) {
            continue;
        }
        let outcome = match *name {
            "data_corruption" if service.active_alarms().contains(&"CORRUPT") => {
                Err("alarm activated: CORRUPT".to_owned())
            }
            "serializable_read" => service.can_read(true).await.map_err(|s| s.message().to_owned()),
            "linearizable_read" => service.can_read(false).await.map_err(|s| s.message().to_owned()),
            _ => Ok(()),
        };
        // Writing to a text does not fail.
        let _ = match outcome {
            Ok(()) => writeln!(report, "[+]{name} ok"),
            Err(reason) => {
                is_well = false;
                writeln!(report, "[-]{name} failed: {reason}")
            }
        };
    }
    if !is_well {
        return plain(StatusCode::SERVICE_UNAVAILABLE, format!("{report}\n"));
    }
    if !has(query, "verbose") {
        report.clear();
    }
    plain(StatusCode::OK, report + "ok\n")
}

fn pairs(query: Option<&str>) -> impl Iterator<Item = (&str, &str)> {
    let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

fn has(query: Option<&str>, name: &str) -> bool {
    pairs(query).any(|(key, _)| key == name)
}

/// What a query says of `name`. The names and values that are looked for have nothing to escape.
fn values(query: Option<&str>, name: &str) -> Vec<String> {
    let values = pairs(query).filter(|(key, value)| *key == name && !value.is_empty());
    values.map(|(_, value)| value.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_all_checks_or_one_of_them() {
        assert_eq!(checks("/livez"), Some(LIVE));
        assert_eq!(checks("/readyz/linearizable_read"), Some(&["linearizable_read"][..]));
        for wrong in ["/livez/", "/livez/linearizable_read", "/readyzz", "/readyz/ping", "/", "/health"] {
            assert_eq!(checks(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_query_is_names_with_values_and_without() {
        let query = Some("exclude=NOSPACE&verbose&exclude=&exclude=CORRUPT");
        assert_eq!(values(query, "exclude"), ["NOSPACE", "CORRUPT"]);
        assert!(has(query, "verbose") && !has(query, "verbos") && !has(None, ""));
    }
}
