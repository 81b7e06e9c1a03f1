//! What was given for the flags, checked as far as each can be on its own.

use std::collections::BTreeMap;
use std::time::Duration;

use super::parse::UsageError;
use super::{Effect, Flag, Kind, all, find, parse_duration};

/// What was given for flags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Values {
    given: BTreeMap<&'static str, String>,
    /// What the log should say before anything else.
    pub(crate) notes: Vec<String>,
}

impl Values {
    /// The values of these flags, and the defaults of all others.
    ///
    /// # Errors
    /// As [`Self::set`], and if there is no such flag.
    pub(crate) fn of(given: impl IntoIterator<Item = (&'static str, String)>) -> Result<Self, UsageError> {
        let mut values = Self::default();
        for (name, value) in given {
            let flag = find(name).ok_or_else(|| UsageError::NoFlag(name.to_owned()))?;
            values.set(flag, value)?;
        }
        Ok(values)
    }

    /// Takes a value. A later one counts more.
    ///
    /// # Errors
    /// If the flag takes no such value.
    pub(super) fn set(&mut self, flag: &'static Flag, value: String) -> Result<(), UsageError> {
        check(flag, &value).map_err(|reason| UsageError::Value {
            value: value.clone(),
            flag: flag.name,
            reason,
        })?;
        self.given.insert(flag.name, value);
        Ok(())
    }

    /// Whether the flag was given.
    pub(crate) fn is_given(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// The value, or the default.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.given.get(name).map_or_else(|| find(name).map_or("", |flag| flag.default), String::as_str)
    }

    /// The value, unless it is empty.
    pub(crate) fn some(&self, name: &str) -> Option<&str> {
        Some(self.text(name)).filter(|text| !text.is_empty())
    }

    /// The parts between commas.
    pub(crate) fn list(&self, name: &str) -> Vec<&str> {
        self.text(name).split(',').map(str::trim).filter(|part| !part.is_empty()).collect()
    }

    pub(crate) fn switch(&self, name: &str) -> bool {
        parse_switch(self.text(name)).unwrap_or(false)
    }

    pub(crate) fn number(&self, name: &str) -> u64 {
        self.text(name).parse().unwrap_or(0)
    }

    pub(crate) fn integer(&self, name: &str) -> i64 {
        self.text(name).parse().unwrap_or(0)
    }

    pub(crate) fn duration(&self, name: &str) -> Duration {
        parse_duration(self.text(name)).unwrap_or_default()
    }

    /// The flags that were given another value than the default.
    pub(crate) fn changed(&self) -> impl Iterator<Item = (&'static Flag, &str)> {
        let changed = |flag: &Flag, value: &str| match flag.kind {
            Kind::Switch => parse_switch(value) != parse_switch(flag.default),
            _ => value != flag.default,
        };
        all().filter_map(move |flag| {
            let value = self.given.get(flag.name)?;
            changed(flag, value).then_some((flag, value.as_str()))
        })
    }

    /// Refuses what cannot be had; says what has no effect.
    ///
    /// # Errors
    /// [`UsageError::Refused`].
    pub(super) fn review(&mut self) -> Result<(), UsageError> {
        let mut notes = Vec::new();
        for (flag, _) in self.changed() {
            match flag.effect {
                Effect::Works => {}
                Effect::None(why) => notes.push(format!("--{} has no effect: {why}", flag.name)),
                Effect::Refused(why) => return Err(UsageError::Refused { flag: flag.name, why }),
            }
        }
        self.notes.extend(notes);
        Ok(())
    }
}

/// Whether a flag takes a value; if not, what it takes.
pub(super) fn check(flag: &Flag, value: &str) -> Result<(), String> {
    let wanted = match flag.kind {
        Kind::Switch if parse_switch(value).is_none() => "true or false".to_owned(),
        Kind::Number if value.parse::<u64>().is_err() => "a number, 0 or more".to_owned(),
        Kind::Integer if value.parse::<i64>().is_err() => "a number".to_owned(),
        Kind::Duration if parse_duration(value).is_none() => "a time such as 5m or 300ms".to_owned(),
        Kind::Choice(choices)
            if !(choices.contains(&value) || value.is_empty() && flag.default.is_empty()) =>
        {
            format!("one of {}", choices.join(", "))
        }
        _ => return Ok(()),
    };
    Err(format!("it takes {wanted}"))
}

/// Reads what Go takes for true and false.
pub(super) fn parse_switch(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}
