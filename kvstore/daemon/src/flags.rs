//! etcd's flags: what they are called, what they take, and what becomes of them here.
//!
//! ```text
//! arguments ─┐
//! ETCD_*    ─┼─► Values ─► settings
//! YAML file ─┘
//! ```
//!
//! Invariants:
//! - No flag is without effect in silence: one that etcd needs and this store does not says why in the log.
//! - A flag that protects something is never merely accepted: it works, or it is refused.

mod clustering;
mod config_file;
mod duration;
mod help;
mod member;
mod operations;
mod parse;
mod security;
mod values;

pub(crate) use duration::parse_duration;
pub(crate) use help::{VERSION, help};
pub(crate) use parse::{Invocation, parse};
pub(crate) use values::Values;

/// One flag.
#[derive(Debug)]
pub(crate) struct Flag {
    /// Its name, without dashes.
    pub(crate) name: &'static str,
    /// What it takes.
    pub(crate) kind: Kind,
    /// What counts where it is not given; empty: nothing.
    pub(crate) default: &'static str,
    /// What becomes of it.
    pub(crate) effect: Effect,
    /// One line of help.
    pub(crate) doc: &'static str,
}

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Any text.
    Text,
    /// `true` or `false`; alone it means `true`.
    Switch,
    /// A number, 0 or more.
    Number,
    /// A number, which may be less than 0.
    Integer,
    /// A time such as `5m` or `1h30m`, in Go's form.
    Duration,
    /// One of these.
    Choice(&'static [&'static str]),
}

/// What becomes of a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It does what it does in etcd.
    Works,
    /// Nothing is needed of it, for this reason.
    None(&'static str),
    /// Another value than the default cannot be had, for this reason, and going on without would be wrong.
    Refused(&'static str),
}

/// Flags that belong together.
#[derive(Debug)]
pub(crate) struct Group {
    /// What is said above them.
    pub(crate) title: &'static str,
    /// Those that do something come first.
    pub(crate) flags: &'static [Flag],
}

/// All flags.
pub(crate) const GROUPS: &[Group] = &[
    Group { title: "Member", flags: member::FLAGS },
    Group { title: "Clustering", flags: clustering::FLAGS },
    Group { title: "Security", flags: security::FLAGS },
    Group { title: "Operations", flags: operations::FLAGS },
    Group { title: "Taken from etcd, without effect here", flags: operations::WITHOUT_EFFECT },
];

const fn works(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Flag {
    Flag { name, kind, default, effect: Effect::Works, doc }
}

const fn none(name: &'static str, kind: Kind, default: &'static str, why: &'static str) -> Flag {
    Flag { name, kind, default, effect: Effect::None(why), doc: why }
}

const fn refused(name: &'static str, kind: Kind, default: &'static str, why: &'static str) -> Flag {
    Flag { name, kind, default, effect: Effect::Refused(why), doc: why }
}

/// All flags, in the order of the help.
pub(crate) fn all() -> impl Iterator<Item = &'static Flag> {
    GROUPS.iter().flat_map(|group| group.flags)
}

/// The flag of this name; without the `experimental-` that etcd has dropped since, it is the same one.
pub(crate) fn find(name: &str) -> Option<&'static Flag> {
    let named = |name: &str| all().find(|flag| flag.name == name);
    named(name).or_else(|| named(&format!("experimental-{name}")))
}

/// The flag that was most likely meant.
pub(crate) fn nearest(name: &str) -> Option<&'static Flag> {
    let closest =
        all().map(|flag| (distance(flag.name, name), flag)).min_by_key(|(distance, _)| *distance)?;
    (closest.0 <= 1 + name.len() / 4).then_some(closest.1)
}

/// How many letters have to be put, taken or exchanged to make one of the other.
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (above, a) in one.bytes().enumerate() {
        let mut corner = above;
        row[0] = above + 1;
        for (left, b) in other.bytes().enumerate() {
            let exchanged = corner + usize::from(a != b);
            corner = row[left + 1];
            row[left + 1] = exchanged.min(row[left] + 1).min(corner + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_flag_is_there_once_and_its_default_is_a_value() {
        let mut names = BTreeSet::new();
        for flag in all() {
            assert!(names.insert(flag.name), "{} is there twice", flag.name);
            assert!(!flag.doc.is_empty() && !flag.doc.ends_with('.'), "{}", flag.name);
            assert!(flag.default.is_empty() || values::check(flag, flag.default).is_ok(), "{}", flag.name);
        }
    }

    #[test]
    fn a_slip_finds_the_flag_that_was_meant() {
        assert_eq!(nearest("listen-client-url").map(|flag| flag.name), Some("listen-client-urls"));
        assert_eq!(nearest("datadir").map(|flag| flag.name), Some("data-dir"));
        assert!(nearest("bogus").is_none());
        assert_eq!(
            find("watch-progress-notify-interval").unwrap().name,
            "experimental-watch-progress-notify-interval"
        );
    }
}
