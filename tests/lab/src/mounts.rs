//! What is mounted where, as the calling process sees it.

use std::fs;
use std::path::PathBuf;

/// One mount.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) point: PathBuf,
    pub(crate) filesystem: String,
}

/// All mounts, in the order in which they were made.
pub(crate) fn all() -> Vec<Mount> {
    parse(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
}

/// Reads the lines of proc(5)'s `mountinfo`.
fn parse(mountinfo: &str) -> Vec<Mount> {
    let mounts = mountinfo.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let point = unescape(before.split(' ').nth(4)?).into();
        Some(Mount { point, filesystem: after.split(' ').next()?.to_owned() })
    });
    mounts.collect()
}

/// Undoes the octal escapes of blanks in `mountinfo`.
fn unescape(field: &str) -> String {
    let mut text = String::new();
    let mut rest = field;
    while let Some((plain, escaped)) = rest.split_once('\\') {
        text.push_str(plain);
        let code = escaped.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        let (character, consumed) = code.map_or(('\\', 0), |code| (char::from(code), 3));
        text.push(character);
        rest = &escaped[consumed..];
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_with_their_escapes() {
        let mountinfo = "\
            25 20 0:23 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
            27 25 0:25 / /mnt/my\\040cgroups\\134 rw,relatime shared:3 - cgroup2 none rw\n";
        let mount =
            |point: &str, filesystem: &str| Mount { point: point.into(), filesystem: filesystem.into() };
        assert_eq!(
            parse(mountinfo),
            [mount("/sys/fs/cgroup", "tmpfs"), mount("/mnt/my cgroups\\", "cgroup2")]
        );
        assert_eq!(parse("no mount\n"), []);
    }
}
