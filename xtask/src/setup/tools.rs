//! The pinned tools that setup builds.

use std::{env, process::Command};

use crate::{cargo_tool::CargoTool, process};

/// Versions of one minor release read the same arguments and write the same BTF.
pub(crate) const BPF_LINKER_VERSION: &str = "0.13.0";

/// bpf-linker, built against the distribution's LLVM.
pub(crate) fn bpf_linker(llvm_major: u32) -> CargoTool {
    let prefix = format!("/usr/lib/llvm-{llvm_major}");
    // Its build asks the first `llvm-config` on the PATH where LLVM is.
    let path = format!("{prefix}/bin:{}", env::var("PATH").unwrap_or_default());
    CargoTool {
        name: "bpf-linker",
        version: BPF_LINKER_VERSION,
        arguments: vec!["--no-default-features".into(), "--features".into(), format!("llvm-{llvm_major}")],
        variables: vec![("LLVM_PREFIX", prefix), ("PATH", path)],
    }
}

/// Whether `program` is a bpf-linker of the pinned minor release that starts, its LLVM included.
pub(crate) fn is_bpf_linker(program: &std::path::Path) -> bool {
    process::query(Command::new(program).arg("--version")).is_some_and(|output| has_pinned_version(&output))
}

fn has_pinned_version(output: &str) -> bool {
    let version = output.trim().strip_prefix("bpf-linker ").unwrap_or_default();
    let minor = |version: &str| version.rsplit_once('.').map(|(minor, _)| minor.to_owned());
    minor(version).is_some_and(|found| Some(found) == minor(BPF_LINKER_VERSION))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_patch_release_of_the_pinned_minor_counts() {
        assert!(has_pinned_version("bpf-linker 0.13.0\n"));
        assert!(has_pinned_version("bpf-linker 0.13.7\n"));
        for other in ["bpf-linker 0.12.0", "bpf-linker 0.130.0", "bpf-linker", "", "ld 0.13.0"] {
            assert!(!has_pinned_version(other), "{other}");
        }
    }
}
