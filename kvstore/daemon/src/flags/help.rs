//! What `--help` and `--version` tell.

use std::fmt::Write;

use super::{Effect, GROUPS, Kind};

/// What `--version` tells: our version, and the one of etcd whose behaviour is served.
pub(crate) const VERSION: &str = concat!("landbridge-kvstore Version: ", env!("CARGO_PKG_VERSION"), "\n");

const ABOUT: &str = "\
A store that starts where etcd does: its API, its flags, its variables, its tools.

Usage:
  landbridge-kvstore [flags]            Be a store, until SIGTERM
  landbridge-kvstore --data-dir D       All that is needed: clients at http://localhost:2379
  landbridge-kvstore --version          Tell the version
  landbridge-kvstore snapshot --help    Check, look at or restore what `etcdctl snapshot save` saved

Each flag is also a variable: --data-dir is ETCD_DATA_DIR. A flag counts more than its variable.
A switch alone means true; --switch=false turns it off.
";

/// The help: all flags in groups, each with a line and its default.
pub(crate) fn help() -> String {
    let mut text = ABOUT.to_owned();
    for group in GROUPS {
        // Writing to a text cannot fail.
        let _ = writeln!(text, "\n{}:", group.title);
        for flag in group.flags {
            let takes = match flag.kind {
                Kind::Switch => "",
                Kind::Number | Kind::Integer => " N",
                Kind::Duration => " TIME",
                Kind::Text | Kind::Choice(_) => " TEXT",
            };
            let default = match (flag.effect, flag.default) {
                (Effect::None(_), _) | (_, "" | "false") => String::new(),
                (_, default) => format!(" [{default}]"),
            };
            let doc = match flag.effect {
                Effect::Works => flag.doc.to_owned(),
                Effect::None(why) => format!("no effect: {why}"),
                Effect::Refused(why) => format!("other values are refused: {why}"),
            };
            let _ = writeln!(text, "  --{}{takes}\n        {doc}{default}", flag.name);
        }
    }
    text
}
