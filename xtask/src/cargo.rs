//! The cargo that xtask starts.
//!
//! `cargo xtask` is itself a `cargo run`: it hands down variables that describe the xtask package, and rustup adds the
//! toolchain it chose. Neither may leak into another build.

use std::{env, path::Path, process::Command};

use crate::workspace;

/// Cargo at the root of this workspace, with the caller's toolchain and settings.
pub(crate) fn cargo() -> Command {
    cargo_environment_of(Path::new("cargo"))
}

/// As [`cargo`], for a program that starts cargo itself.
pub(crate) fn cargo_environment_of(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(workspace::root());
    remove_variables(&mut command, describes_a_package);
    command
}

/// Cargo for `cargo install`: somebody else's crate, built with nothing of this workspace's settings.
pub(crate) fn cargo_for_install() -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(workspace::root());
    remove_variables(&mut command, changes_a_build);
    command
}

fn remove_variables(command: &mut Command, unwanted: fn(&str) -> bool) {
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(unwanted) {
            command.env_remove(name);
        }
    }
}

/// Whether cargo sets this variable for the package that it runs or builds.
fn describes_a_package(name: &str) -> bool {
    const EXACT: [&str; 4] = ["CARGO", "CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE", "OUT_DIR"];
    const PREFIXES: [&str; 4] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "DEP_"];
    EXACT.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Whether this variable changes what a build produces, rather than where cargo finds and caches things.
fn changes_a_build(name: &str) -> bool {
    const KEPT: [&str; 6] =
        ["CARGO_HOME", "CARGO_NET_", "CARGO_HTTP_", "CARGO_REGISTR", "CARGO_SOURCE_", "CARGO_TERM_"];
    let of_cargo = name.starts_with("CARGO") && !KEPT.iter().any(|prefix| name.starts_with(prefix));
    let of_rustc = name.starts_with("RUSTC") || name.starts_with("RUSTFLAGS") || name.starts_with("RUSTDOC");
    of_cargo || of_rustc || name == "RUSTUP_TOOLCHAIN" || describes_a_package(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workspace_build_keeps_what_the_caller_chose() {
        for kept in ["CARGO_HOME", "CARGO_TARGET_DIR", "RUSTFLAGS", "RUSTUP_TOOLCHAIN", "CARGO_INCREMENTAL"] {
            assert!(!describes_a_package(kept), "{kept}");
        }
        for removed in ["CARGO", "CARGO_MANIFEST_DIR", "CARGO_PKG_NAME", "CARGO_PRIMARY_PACKAGE", "OUT_DIR"] {
            assert!(describes_a_package(removed), "{removed}");
        }
    }

    #[test]
    fn an_install_inherits_the_network_settings_and_nothing_of_the_build() {
        for kept in ["CARGO_HOME", "CARGO_HTTP_PROXY", "CARGO_REGISTRIES_MINE_INDEX", "RUSTUP_HOME", "PATH"] {
            assert!(!changes_a_build(kept), "{kept}");
        }
        for removed in [
            "CARGO",
            "CARGO_BUILD_TARGET",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_PROFILE_DEV_LTO",
            "CARGO_TARGET_DIR",
            "RUSTC",
            "RUSTC_WRAPPER",
            "RUSTFLAGS",
            "RUSTUP_TOOLCHAIN",
        ] {
            assert!(changes_a_build(removed), "{removed}");
        }
    }
}
