//! Whether a member is well: what etcd's alarms do to it.

use landbridge_kvstore_server::AccessRules;
use landbridge_lab::requirement::{Requirement, etcd, met};
use serde_json::Value;

use crate::http::{get, post};
use crate::store::{Client, Etcd, Ours};

#[tokio::test]
async fn an_alarm_is_seen_by_those_who_ask_whether_a_member_is_well() {
    let ours = Ours::start(AccessRules::Open, None).await;
    let endpoint = ours.endpoint("http");
    tells_of_alarms(&endpoint).await;
    ours.stop().await;
    if met(&[Requirement::Etcd]) {
        let etcd = Etcd::start(&etcd().unwrap());
        Client::connect(&etcd.endpoint, "a").await;
        tells_of_alarms(&etcd.endpoint).await;
    }
}

async fn tells_of_alarms(endpoint: &str) {
    let set = async |action: &str, alarm: &str| {
        let body = format!(r#"{{"action":"{action}","memberID":"1","alarm":"{alarm}"}}"#);
        assert_eq!(post(endpoint, "/v3/maintenance/alarm", &body).await.0, 200);
    };
    let is = async |path: &str, status: u16, says: &str| {
        let answer = get(endpoint, path).await;
        assert!(answer.0 == status && answer.1.contains(says), "{path}: {answer:?}");
    };
    set("ACTIVATE", "NOSPACE").await;
    let full = r#"{"health":"false","reason":"ALARM NOSPACE"}"#;
    assert_eq!(get(endpoint, "/health").await, (503, format!("{full}\n")));
    is("/health?exclude=NOSPACE", 200, r#"{"health":"true","reason":""}"#).await;
    is("/readyz?verbose", 200, "[+]data_corruption ok").await;
    set("ACTIVATE", "CORRUPT").await;
    is("/health?exclude=NOSPACE", 503, r#""reason":"ALARM CORRUPT""#).await;
    is("/health?exclude=NOSPACE&exclude=CORRUPT", 200, "true").await;
    is("/readyz", 503, "[-]data_corruption failed: alarm activated: CORRUPT\n").await;
    is("/readyz?exclude=data_corruption", 200, "ok").await;
    is("/livez", 200, "ok").await;
    let status = post(endpoint, "/v3/maintenance/status", "{}").await.1;
    let status: Value = serde_json::from_str(&status).unwrap();
    let mut errors: Vec<&str> =
        status["errors"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    errors.sort_unstable();
    assert_eq!(errors, ["memberID:1 alarm:CORRUPT ", "memberID:1 alarm:NOSPACE "]);
    for alarm in ["NOSPACE", "CORRUPT"] {
        set("DEACTIVATE", alarm).await;
    }
    is("/health", 200, "true").await;
}
