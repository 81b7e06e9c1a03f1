//! How a service says that its connections are to be spread.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core;
use landbridge_kvstore_schema::{Balance, BalanceAlgorithm, ClusterName};

use super::{FieldError, FieldPath, Notes};

/// As in Cilium, with one more value.
const ALGORITHM: &str = "service.cilium.io/lb-algorithm";
/// `a=90,b=10`.
const WEIGHTS: &str = "landbridge.io/weights";
/// What Kubernetes takes for the timeout where none is given, and the longest (`SessionAffinityConfig`).
const DEFAULT_TIMEOUT_SECONDS: i32 = 10_800;
const MAX_TIMEOUT_SECONDS: i32 = 86_400;

/// Reads annotations and `spec.sessionAffinity`. Values of annotations that mean nothing go to `notes`.
///
/// # Errors
/// [`FieldError`] with the field that breaks a rule.
pub(super) fn balance(
    spec: &core::ServiceSpec,
    annotations: &BTreeMap<String, String>,
    notes: &mut Notes,
) -> Result<Balance, FieldError> {
    let mut noted = |name: &str, message: String| {
        notes.push(FieldPath::of(&["metadata", "annotations"]).field(name).error(message));
    };
    let declared = annotations.get(ALGORITHM).map(|value| value.to_ascii_lowercase());
    let algorithm = match declared.as_deref() {
        None | Some("random" | "") => BalanceAlgorithm::Random,
        Some("maglev") => BalanceAlgorithm::Maglev,
        Some("round-robin") => BalanceAlgorithm::RoundRobin,
        Some(other) => {
            noted(ALGORITHM, format!("{other:?} is no algorithm: use random, round-robin or maglev"));
            BalanceAlgorithm::Random
        }
    };
    let weights = annotations.get(WEIGHTS).map_or(Ok(BTreeMap::new()), |text| weights(text));
    let weights = weights.unwrap_or_else(|message| {
        noted(WEIGHTS, message);
        BTreeMap::new()
    });
    Ok(Balance { algorithm, session_affinity_seconds: session_affinity_seconds(spec)?, weights })
}

/// Reads `a=90,b=10`.
fn weights(text: &str) -> Result<BTreeMap<ClusterName, u32>, String> {
    let mut weights = BTreeMap::new();
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let rule = || {
            let max = Balance::MAX_WEIGHT;
            format!("{pair:?} is no weight: use cluster=weight, with 0 to {max}, separated by commas")
        };
        let (cluster, weight) = pair.split_once('=').ok_or_else(rule)?;
        let cluster: ClusterName = cluster.trim().parse().map_err(|error| format!("{}: {error}", rule()))?;
        let weight = weight.trim().parse().ok().filter(|weight| *weight <= Balance::MAX_WEIGHT);
        let weight = weight.ok_or_else(rule)?;
        if weights.insert(cluster, weight).is_some() {
            return Err(format!("{pair:?} is there twice: name each cluster once"));
        }
    }
    Ok(weights)
}

fn session_affinity_seconds(spec: &core::ServiceSpec) -> Result<u32, FieldError> {
    let path = FieldPath::of(&["spec"]);
    match spec.session_affinity.as_deref() {
        None | Some("" | "None") => return Ok(0),
        Some("ClientIP") => {}
        Some(other) => {
            let message = format!("{other:?} is no session affinity: use ClientIP or None");
            return Err(path.field("sessionAffinity").error(message));
        }
    }
    let client_ip = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let seconds =
        client_ip.and_then(|client_ip| client_ip.timeout_seconds).unwrap_or(DEFAULT_TIMEOUT_SECONDS);
    let valid = u32::try_from(seconds).ok().filter(|_| (1..=MAX_TIMEOUT_SECONDS).contains(&seconds));
    valid.ok_or_else(|| {
        let path = path.field("sessionAffinityConfig").field("clientIP").field("timeoutSeconds");
        path.error(format!("{seconds} is not from 1 to {MAX_TIMEOUT_SECONDS}"))
    })
}
