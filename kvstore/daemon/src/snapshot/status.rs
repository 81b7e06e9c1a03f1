//! What is in a snapshot, in the forms in which `etcdctl snapshot status` tells it.
//!
//! The hash has 32 bits there, so it is the beginning of the file's SHA-256 here.

use landbridge_kvstore_server::backup::Backup;

/// How to tell it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Format {
    /// One line with commas.
    #[default]
    Simple,
    /// For people.
    Table,
    /// For programs.
    Json,
}

impl Format {
    pub(super) fn parse(name: &str) -> Option<Self> {
        match name {
            "simple" => Some(Self::Simple),
            "table" => Some(Self::Table),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

pub(super) fn of(backup: &Backup, format: Format) -> String {
    let [a, b, c, d, ..] = backup.hash;
    text(u32::from_be_bytes([a, b, c, d]), backup.revision, backup.keys, backup.size_bytes, format)
}

fn text(hash: u32, revision: i64, keys: u64, bytes: u64, format: Format) -> String {
    let row = [format!("{hash:x}"), revision.to_string(), keys.to_string(), size(bytes)];
    match format {
        Format::Simple => row.join(", ") + "\n",
        Format::Table => table(["HASH", "REVISION", "TOTAL KEYS", "TOTAL SIZE"], &row),
        Format::Json => {
            format!("{{\"hash\":{hash},\"revision\":{revision},\"totalKey\":{keys},\"totalSize\":{bytes}}}\n")
        }
    }
}

/// Heads in the middle, values to the right.
fn table(heads: [&str; 4], row: &[String; 4]) -> String {
    let columns: Vec<(&str, &str, usize)> = heads
        .into_iter()
        .zip(row)
        .map(|(head, value)| (head, value.as_str(), head.len().max(value.len())))
        .collect();
    let line = |cell: &dyn Fn(&(&str, &str, usize)) -> String| columns.iter().map(cell).collect::<String>();
    let border = line(&|(_, _, width)| format!("+{}", "-".repeat(width + 2))) + "+\n";
    let heads = line(&|(head, _, width)| {
        let left = (width - head.len()).div_ceil(2);
        format!("| {:left$}{head:<rest$} ", "", rest = width - left)
    }) + "|\n";
    let values = line(&|(_, value, width)| format!("| {value:>width$} ")) + "|\n";
    format!("{border}{heads}{border}{values}{border}")
}

/// A size for people: two digits or more, in units of 1000.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    // How many of the unit make 1, and the unit.
    let (mut one, mut unit) = (1, 0);
    while bytes / one >= 1000 {
        one *= 1000;
        unit += 1;
    }
    let tenths = (u128::from(bytes) * 10 + u128::from(one) / 2) / u128::from(one);
    match (unit, tenths) {
        (0, _) => format!("{bytes} B"),
        (_, ..100) => format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit]),
        _ => format!("{} {}", (tenths + 5) / 10, UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As etcdctl 3.4 and 3.5 print theirs.
    #[test]
    fn every_form_is_that_of_etcdctl() {
        let text = |format| text(0x007e_f846, 485_261, 11_642, 94_208_032, format);
        assert_eq!(text(Format::Simple), "7ef846, 485261, 11642, 94 MB\n");
        assert_eq!(
            text(Format::Json),
            "{\"hash\":8321094,\"revision\":485261,\"totalKey\":11642,\"totalSize\":94208032}\n"
        );
        let table = "\
+--------+----------+------------+------------+
|  HASH  | REVISION | TOTAL KEYS | TOTAL SIZE |
+--------+----------+------------+------------+
| 7ef846 |   485261 |      11642 |      94 MB |
+--------+----------+------------+------------+
";
        assert_eq!(text(Format::Table), table);
    }

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in
            [(0, "0 B"), (999, "999 B"), (1_056, "1.1 kB"), (9_999, "10 kB"), (94_550, "95 kB")]
        {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(size(u64::MAX), "18 EB");
    }
}
