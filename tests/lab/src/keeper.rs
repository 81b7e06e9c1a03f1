//! The process that a kept lab is for.

use std::fs;

use serde::{Deserialize, Serialize};

/// A process, told from later ones of the same number by when it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Keeper {
    id: u32,
    /// In clock ticks since boot, see proc(5).
    start_time: u64,
}

impl Keeper {
    /// The process numbered `id`, if it runs.
    pub(crate) fn find(id: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        Some(Self { id, start_time: parse_start_time(&stat)? })
    }

    pub(crate) fn is_alive(self) -> bool {
        Self::find(self.id) == Some(self)
    }
}

/// Field 22 of proc(5)'s `stat`. The name in field 2 may hold blanks and parentheses; the last one ends it. A process
/// that nobody has waited for yet has ended all the same.
fn parse_start_time(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(") ")?;
    let mut fields = after_name.split(' ');
    let state = fields.next()?;
    if state == "Z" { None } else { fields.nth(18)?.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_a_later_one_of_its_number() {
        let own = Keeper::find(std::process::id()).unwrap();
        assert!(own.is_alive());
        assert!(!Keeper { start_time: own.start_time + 1, ..own }.is_alive());
        assert_eq!(Keeper::find(u32::MAX), None);
    }

    #[test]
    fn a_name_with_parentheses_hides_nothing() {
        let fields = "S 1 5 5 0 -1 4194560 100 0 0 0 1 2 0 0 20 0 1 0 4711 1000";
        assert_eq!(parse_start_time(&format!("5 (a) b) {fields}")), Some(4711));
        assert_eq!(parse_start_time(&format!("5 (a) {}", fields.replace('S', "Z"))), None);
    }
}
