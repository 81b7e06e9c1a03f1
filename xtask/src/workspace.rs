//! Where this workspace and its build output lie.

use std::{
    env,
    path::{Path, PathBuf},
};

/// The folder of the root `Cargo.toml`.
pub(crate) fn root() -> PathBuf {
    // At run time the variable names the tree that was asked for, even if the binary was built in another.
    let xtask =
        env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    xtask.parent().map_or_else(|| xtask.clone(), Path::to_path_buf)
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// The manifest of the kernel side, which is a package outside of the workspace.
pub(crate) fn bpf_programs_manifest() -> PathBuf {
    root().join("bpf/programs/Cargo.toml")
}
