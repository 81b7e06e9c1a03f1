//! The CNI plugin.

use std::process::ExitCode;

fn main() -> ExitCode {
    landbridge_agent::cni::main()
}
