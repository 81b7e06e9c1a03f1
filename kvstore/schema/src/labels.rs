//! The labels of an identity, and the one text that stands for a set of them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::cluster::ClusterName;
use crate::excerpt::Excerpt;
use crate::rejection::Rejection;

/// The key of the label that says which cluster a pod is in; its source is `k8s` (Cilium
/// `pkg/k8s/apis/cilium.io`).
pub const CLUSTER_LABEL: &str = "io.cilium.k8s.policy.cluster";

/// The source of a label that was written without one (Cilium `pkg/labels`, `LabelSourceUnspec`).
const UNSPECIFIED: &str = "unspec";

/// Sources of labels that a node gives to addresses by itself (Cilium `pkg/labels`).
const SOURCES_OF_ONE_NODE: [&str; 5] = ["reserved", "cidr", "cidrgroup", "fqdn", "node"];

/// A label and where it comes from: `k8s:app=cart`.
///
/// The source is made of lower case letters, digits and `-`. The key is not empty and has no `=`. Key and
/// value have no `;`, which ends a label in the text of a set, and no control character. The value can be
/// empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label {
    key: String,
    source: String,
    value: String,
}

impl Label {
    /// # Errors
    /// [`InvalidLabel`] if a part breaks a rule of the type.
    pub fn new(source: &str, key: &str, value: &str) -> Result<Self, InvalidLabel> {
        let is_source = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let is_plain = |text: &str| !text.contains(|c: char| c == ';' || c.is_control());
        let fits = !source.is_empty()
            && source.bytes().all(is_source)
            && !key.is_empty()
            && !key.contains('=')
            && is_plain(key)
            && is_plain(value);
        if !fits {
            return Err(InvalidLabel(Excerpt::new(&format!("{source}:{key}={value}"))));
        }
        Ok(Self { key: key.to_owned(), source: source.to_owned(), value: value.to_owned() })
    }

    /// The label that says that a pod is in `cluster`.
    pub fn cluster(cluster: &ClusterName) -> Self {
        Self { key: CLUSTER_LABEL.to_owned(), source: "k8s".to_owned(), value: cluster.to_string() }
    }

    /// Where the label comes from: `k8s` for one of Kubernetes.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The key, without the source.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The value.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Whether labels of this source are given by each node for itself, and so never cross clusters.
    pub(crate) fn is_of_one_node(&self) -> bool {
        SOURCES_OF_ONE_NODE.contains(&self.source.as_str())
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}={}", self.source, self.key, self.value)
    }
}

/// Reads `source:key=value` as Cilium's `ParseLabel` does: the source ends at the first `:` and is `unspec`
/// without one, the key ends at the first `=`, and the value is empty without one. Cilium's short form `$key`
/// is refused.
impl FromStr for Label {
    type Err = InvalidLabel;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with('$') {
            return Err(InvalidLabel(Excerpt::new(text)));
        }
        let (source, rest) = text.split_once(':').unwrap_or((UNSPECIFIED, text));
        let (key, value) = rest.split_once('=').unwrap_or((rest, ""));
        Self::new(source, key, value).map_err(|_| InvalidLabel(Excerpt::new(text)))
    }
}

/// A text or a combination of parts that is not a [`Label`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a label of the form source:key=value")]
pub struct InvalidLabel(pub Excerpt);

/// A set of labels with one label per key.
///
/// Printed as Cilium's `SortedList`: `source:key=value;` for each, ordered by the bytes of the key alone, so
/// that `app` comes before `app.kubernetes.io/name` although `app=` does not. The `;` after the last one is
/// part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels(BTreeMap<String, Label>);

impl Labels {
    /// Adds a label. Returns the one that had the same key, whatever its source.
    pub fn insert(&mut self, label: Label) -> Option<Label> {
        self.0.insert(label.key.clone(), label)
    }

    /// The label with this key, whatever its source.
    pub fn get(&self, key: &str) -> Option<&Label> {
        self.0.get(key)
    }

    /// The labels, ordered by key.
    pub fn iter(&self) -> impl Iterator<Item = &Label> {
        self.0.values()
    }

    /// How many labels there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads a set from the value of a record.
    pub(crate) fn decode(value: &[u8], max_bytes: usize) -> Result<Self, Rejection> {
        Rejection::check_size(value, max_bytes)?;
        let text =
            str::from_utf8(value).map_err(|_| Rejection::NotUtf8 { value: Excerpt::of_bytes(value) })?;
        text.parse().map_err(|error| match error {
            LabelsError::Unterminated(value) => Rejection::UnterminatedLabels { value },
            LabelsError::Invalid(InvalidLabel(value)) => Rejection::InvalidLabel { value },
            LabelsError::Duplicate(value) => Rejection::DuplicateLabel { value },
        })
    }
}

impl FromIterator<Label> for Labels {
    fn from_iter<I: IntoIterator<Item = Label>>(labels: I) -> Self {
        Self(labels.into_iter().map(|label| (label.key.clone(), label)).collect())
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter().try_for_each(|label| write!(f, "{label};"))
    }
}

/// Reads what [`Labels`] prints, in any order. The last `;` has to be there.
impl FromStr for Labels {
    type Err = LabelsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut labels = Self::default();
        for text in text.split_inclusive(';') {
            let text = text.strip_suffix(';').ok_or_else(|| LabelsError::Unterminated(Excerpt::new(text)))?;
            let label: Label = text.parse()?;
            if labels.insert(label).is_some() {
                return Err(LabelsError::Duplicate(Excerpt::new(text)));
            }
        }
        Ok(labels)
    }
}

/// Why a text is not a set of [`Labels`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelsError {
    /// The last label has no `;`, so its end may be missing.
    #[error("label {0} is not ended by ';'")]
    Unterminated(Excerpt),
    /// A part between two `;` is no label.
    #[error(transparent)]
    Invalid(#[from] InvalidLabel),
    /// A second label of the same key.
    #[error("label {0} has the key of an earlier one")]
    Duplicate(Excerpt),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(source: &str, key: &str, value: &str) -> Label {
        Label::new(source, key, value).unwrap()
    }

    #[test]
    fn labels_are_sorted_by_key_alone() {
        // By source, `any` would come first; by whole text, `app.kubernetes.io/name=` would come before `app=`.
        let labels = [
            label("k8s", "app.kubernetes.io/name", "cart"),
            label("any", "zone", "a"),
            label("k8s", "app", "cart"),
            label("k8s", "App", "cart"),
        ];
        let text = labels.into_iter().collect::<Labels>().to_string();
        assert_eq!(text, "k8s:App=cart;k8s:app=cart;k8s:app.kubernetes.io/name=cart;any:zone=a;");
    }

    #[test]
    fn empty_values_keep_their_equals_sign() {
        assert_eq!(Labels::from_iter([label("k8s", "canary", "")]).to_string(), "k8s:canary=;");
    }

    #[test]
    fn labels_are_read_as_cilium_reads_them() {
        // Cilium pkg/labels, `ParseLabel`.
        assert_eq!("k8s:a=b".parse(), Ok(label("k8s", "a", "b")));
        assert_eq!("a=b".parse(), Ok(label("unspec", "a", "b")));
        assert_eq!("k8s:a".parse(), Ok(label("k8s", "a", "")));
        assert_eq!("container:a:b=c=d:e".parse(), Ok(label("container", "a:b", "c=d:e")));
    }

    #[test]
    fn text_that_is_no_label_is_refused() {
        for text in ["", "$host", ":a=b", "k8s:", "k8s:=b", "K8s:a=b", "a=b:c", "k8s:a=b\n", "k8s:a\0=b"] {
            assert!(text.parse::<Label>().is_err(), "{text:?}");
        }
        assert!(Label::new("k8s", "a", "b;k8s:c=d").is_err());
        assert!(Label::new("k8s", "a=b", "c").is_err());
    }

    #[test]
    fn sets_that_are_cut_or_ambiguous_are_refused() {
        assert!(matches!("k8s:a=b;k8s:c=d".parse::<Labels>(), Err(LabelsError::Unterminated(_))));
        assert!(matches!("k8s:a=b;any:a=c;".parse::<Labels>(), Err(LabelsError::Duplicate(_))));
        assert!(matches!("k8s:a=b;;".parse::<Labels>(), Err(LabelsError::Invalid(_))));
        assert_eq!("k8s:b=1;k8s:a=2;".parse::<Labels>().unwrap().to_string(), "k8s:a=2;k8s:b=1;");
    }
}
