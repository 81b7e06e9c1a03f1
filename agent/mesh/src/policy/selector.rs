//! What a selector says of a set of labels.

use landbridge_kvstore_schema::{CLUSTER_LABEL, LabelExpression, LabelKey, LabelOperator, Labels, Selector};

/// Whether every expression holds.
pub(super) fn selects(selector: &Selector, labels: &Labels) -> bool {
    selector.expressions.iter().all(|expression| holds(expression, labels))
}

fn holds(expression: &LabelExpression, labels: &Labels) -> bool {
    let LabelKey { source, key } = &expression.key;
    let label = labels.get(key).filter(|label| source.as_ref().is_none_or(|source| source == label.source()));
    let is_listed =
        || label.is_some_and(|label| expression.values.iter().any(|value| value == label.value()));
    match expression.operator {
        LabelOperator::In => is_listed(),
        LabelOperator::NotIn => !is_listed(),
        LabelOperator::Exists => label.is_some(),
        LabelOperator::DoesNotExist => label.is_none(),
    }
}

/// Whole clusters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clusters<'a> {
    /// All of them.
    All,
    /// Those with these names.
    Named(&'a [String]),
}

/// The clusters that a selector means, if it says nothing but that: every identity has the label of its cluster.
pub(super) fn clusters(selector: &Selector) -> Option<Clusters<'_>> {
    let expression = match &selector.expressions[..] {
        [] => return Some(Clusters::All),
        [expression] => expression,
        _ => return None,
    };
    let LabelKey { source, key } = &expression.key;
    if key != CLUSTER_LABEL || source.as_ref().is_some_and(|source| source != "k8s") {
        return None;
    }
    match expression.operator {
        LabelOperator::Exists => Some(Clusters::All),
        LabelOperator::In => Some(Clusters::Named(&expression.values)),
        LabelOperator::NotIn | LabelOperator::DoesNotExist => None,
    }
}
