//! Compiles `bpf/programs` for the kernel's virtual machine and puts the object where the crate embeds it.
//!
//! It needs a compiler whose sysroot has the library sources, since `core` is built for the target as well, and
//! bpf-linker. Both are found where `cargo xtask setup` puts them, or named:
//!
//! - `LANDBRIDGE_BPF_OBJECT`: a ready object; nothing is compiled, and nothing can be planted in it.
//! - `LANDBRIDGE_BPF_RUSTC`, `LANDBRIDGE_BPF_CARGO`, `LANDBRIDGE_BPF_LINKER`: the tools.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const OBJECT: &str = "landbridge-bpf-programs";
const TARGET: &str = "bpfel-unknown-none";
const SOURCES: [&str; 7] = [
    "../programs/src",
    "../programs/Cargo.toml",
    "../programs/Cargo.lock",
    "../maps/src",
    "../maps/Cargo.toml",
    "../verdict/src",
    "../verdict/Cargo.toml",
];
/// The feature of this crate and of the programs that the object for tests is built with.
const TRIAL: &str = "trial";
const VARIABLES: [&str; 5] = [
    "LANDBRIDGE_BPF_OBJECT",
    "LANDBRIDGE_BPF_RUSTC",
    "LANDBRIDGE_BPF_CARGO",
    "LANDBRIDGE_BPF_LINKER",
    "LANDBRIDGE_CACHE",
];

fn main() {
    for variable in VARIABLES {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
    }
    if let Err(message) = provide_object() {
        println!("cargo::error={message}");
    }
}

fn provide_object() -> Result<(), String> {
    let out = PathBuf::from(variable("OUT_DIR")?);
    let mut wanted = vec![("landbridge.o", None)];
    if env::var_os("CARGO_FEATURE_TRIAL").is_some() {
        wanted.push(("landbridge-trial.o", Some(TRIAL)));
    }
    for (name, feature) in wanted {
        let object = match named("LANDBRIDGE_BPF_OBJECT") {
            Some(object) => {
                println!("cargo::rerun-if-changed={}", object.display());
                object
            }
            None => Toolchain::find()?.compile(&out, feature)?,
        };
        fs::copy(&object, out.join(name))
            .map_err(|error| format!("cannot copy {}: {error}", object.display()))?;
    }
    Ok(())
}

struct Toolchain {
    rustc: PathBuf,
    cargo: PathBuf,
    linker: PathBuf,
}

impl Toolchain {
    fn find() -> Result<Self, String> {
        let mend = "run `cargo xtask setup`";
        let rustc = named("LANDBRIDGE_BPF_RUSTC").or_else(rustc_with_sources);
        let rustc = rustc
            .ok_or_else(|| format!("the eBPF toolchain is missing (a rustc with library sources): {mend}"))?;
        let linker = named("LANDBRIDGE_BPF_LINKER").or_else(bpf_linker);
        let linker = linker.ok_or_else(|| format!("the eBPF toolchain is missing (bpf-linker): {mend}"))?;
        // A distribution's cargo lies beside its rustc, as a toolchain of rustup's does.
        let cargo = named("LANDBRIDGE_BPF_CARGO").unwrap_or_else(|| rustc.with_file_name("cargo"));
        Ok(Self { rustc, cargo, linker })
    }

    fn compile(&self, out: &Path, feature: Option<&str>) -> Result<PathBuf, String> {
        let target = out.join("bpf");
        let architecture = variable("CARGO_CFG_TARGET_ARCH")?;
        let flags = [
            format!("--cfg=bpf_target_arch=\"{}\"", architecture.display()),
            "-Cdebuginfo=2".to_owned(),
            "-Clink-arg=--btf".to_owned(),
            format!("-Clinker={}", self.linker.display()),
        ];
        let mut command = with_clean_environment(&self.cargo);
        command
            .current_dir("../programs")
            .env("RUSTC", &self.rustc)
            // A stable compiler builds `core` only when told so.
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
            .args([
                "build",
                "--release",
                "--locked",
                "-Z",
                "build-std=core",
                "--target",
                TARGET,
                "--target-dir",
            ])
            .arg(&target)
            .args(feature.map(|feature| format!("--features={feature}")));
        let status =
            command.status().map_err(|error| format!("cannot start {}: {error}", self.cargo.display()))?;
        if !status.success() {
            return Err("bpf/programs did not compile: its errors are above".to_owned());
        }
        Ok(target.join(TARGET).join("release").join(OBJECT))
    }
}

/// A command without the settings of the cargo that runs this script, which are for another compiler and target.
/// How to reach a registry stays.
fn with_clean_environment(program: &Path) -> Command {
    const KEPT: [&str; 6] =
        ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "CARGO_SOURCE_", "CARGO_TERM_"];
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let of_cargo = text.starts_with("CARGO") && !KEPT.iter().any(|kept| text.starts_with(kept));
        let of_rust =
            ["RUSTC", "RUSTDOC", "RUSTFLAGS", "RUSTUP_TOOLCHAIN"].iter().any(|name| text.starts_with(name));
        if of_cargo || of_rust {
            command.env_remove(&name);
        }
    }
    command
}

fn variable(name: &str) -> Result<OsString, String> {
    env::var_os(name).ok_or_else(|| format!("{name} is not set: this script is run by cargo"))
}

fn named(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).map(PathBuf::from)
}

fn on_path(program: &str) -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).map(|folder| folder.join(program)).filter(|file| file.is_file()).collect()
}

/// The first compiler with library sources: on the PATH, the distribution's, any toolchain of rustup's.
fn rustc_with_sources() -> Option<PathBuf> {
    let mut candidates = on_path("rustc");
    candidates.push("/usr/bin/rustc".into());
    let rustup = named("RUSTUP_HOME").or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".rustup")));
    if let Some(toolchains) = rustup.and_then(|home| fs::read_dir(home.join("toolchains")).ok()) {
        candidates.extend(toolchains.flatten().map(|toolchain| toolchain.path().join("bin/rustc")));
    }
    candidates.iter().find_map(|rustc| behind(rustc))
}

/// The compiler itself that `rustc` leads to, which may be a proxy of rustup's, if it has library sources.
fn behind(rustc: &Path) -> Option<PathBuf> {
    let output = with_clean_environment(rustc).args(["--print", "sysroot"]).output().ok()?;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    let compiler = sysroot.join("bin/rustc");
    let has_sources = sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file();
    (output.status.success() && has_sources && compiler.is_file()).then_some(compiler)
}

/// bpf-linker as `cargo xtask setup` installs it, else on the PATH.
fn bpf_linker() -> Option<PathBuf> {
    let cache = named("LANDBRIDGE_CACHE").or_else(|| {
        let caches =
            named("XDG_CACHE_HOME").or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")));
        Some(caches?.join("landbridge"))
    });
    let installed = cache.map(|cache| cache.join("tools/bin/bpf-linker")).filter(|file| file.is_file());
    installed.or_else(|| on_path("bpf-linker").into_iter().next())
}
