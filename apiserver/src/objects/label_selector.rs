//! Selectors of policies, as manifests write them.

use std::collections::BTreeMap;

use landbridge_kvstore_schema::{LabelExpression, LabelKey, LabelOperator, Selector};
use serde::Deserialize;

use super::{FieldError, FieldPath};

/// `LabelSelector` of Kubernetes. A misspelt field is refused: a selector without it would select everything.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LabelSelector {
    pub(super) match_labels: Option<BTreeMap<String, String>>,
    match_expressions: Option<Vec<Requirement>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Requirement {
    key: String,
    operator: String,
    values: Option<Vec<String>>,
}

impl LabelSelector {
    /// The selector, with `key` reading the keys of labels. Labels come first, in their order, then expressions.
    pub(super) fn read(
        &self,
        path: &FieldPath,
        key: impl Fn(&str) -> LabelKey,
    ) -> Result<Selector, FieldError> {
        let labels_path = path.field("matchLabels");
        let labels = self.match_labels.iter().flatten().map(|(text, value)| {
            let expression =
                LabelExpression { key: key(text), operator: LabelOperator::In, values: vec![value.clone()] };
            not_reserved(&labels_path.field(text), expression)
        });
        let expressions_path = path.field("matchExpressions");
        let expressions = self.match_expressions.iter().flatten().enumerate().map(|(at, requirement)| {
            let path = expressions_path.index(at);
            not_reserved(&path.field("key"), requirement.read(&path, &key)?)
        });
        Ok(Selector { expressions: labels.chain(expressions).collect::<Result<_, _>>()? })
    }
}

impl Requirement {
    fn read(&self, path: &FieldPath, key: impl Fn(&str) -> LabelKey) -> Result<LabelExpression, FieldError> {
        let operator = match self.operator.as_str() {
            "In" => LabelOperator::In,
            "NotIn" => LabelOperator::NotIn,
            "Exists" => LabelOperator::Exists,
            "DoesNotExist" => LabelOperator::DoesNotExist,
            other => {
                let message = format!("{other:?} is no operator: use In, NotIn, Exists or DoesNotExist");
                return Err(path.field("operator").error(message));
            }
        };
        let values = self.values.clone().unwrap_or_default();
        let takes_values = matches!(operator, LabelOperator::In | LabelOperator::NotIn);
        if takes_values == values.is_empty() {
            let rule = if takes_values { "needs values" } else { "takes no values" };
            return Err(path.error(format!("operator {} {rule}", self.operator)));
        }
        Ok(LabelExpression { key: key(&self.key), operator, values })
    }
}

/// Reserved labels are those of hosts and the world, which rules name by entity here.
fn not_reserved(path: &FieldPath, expression: LabelExpression) -> Result<LabelExpression, FieldError> {
    if expression.key.source.as_deref() == Some("reserved") {
        let message =
            format!("{} selects by a reserved label: use fromEntities or toEntities", expression.key);
        return Err(path.error(message));
    }
    Ok(expression)
}
