//! The CNI plugin, as the CNI specification 1.1.0 wants it; 1.0.0 is the same without STATUS and GC.
//!
//! ```text
//! ADD: allocate (agent) ─► cable: node ═ container ─► address, route, neighbour ─► activate (agent) ─► result
//!         └──────────────────────────── a failure undoes all of it ──────────────────────────┘
//! ```
//!
//! What it prints is JSON for the runtime on stdout; words for people go to stderr.

mod answer;
mod attach;
mod client;
mod detach;
mod invocation;
mod namespace;

use std::env;
use std::io::{self, Read, Write};
use std::process::ExitCode;

use self::answer::{Answer, CniError, Code};
use self::invocation::{Command, NetworkConfig, SUPPORTED_VERSIONS};

/// Runs the plugin: environment and stdin are the question, stdout and exit code the answer.
pub fn main() -> ExitCode {
    let mut input = Vec::new();
    let read = io::stdin().lock().read_to_end(&mut input);
    let version = invocation::version_of(&input);
    let outcome = read
        .map_err(|error| CniError::new(Code::Io, "cannot read stdin").because(&error))
        .and_then(|_| run(&input));
    let (text, code) = match outcome {
        Ok(answer) => (answer.print(&version), ExitCode::SUCCESS),
        Err(error) => (error.print(&version), ExitCode::FAILURE),
    };
    // Nobody listens: then the exit code says what there is to say.
    let _ = io::stdout().lock().write_all(text.as_bytes());
    code
}

fn run(input: &[u8]) -> Result<Answer, CniError> {
    let command = Command::parse(env::var("CNI_COMMAND").ok().as_deref())?;
    if command == Command::Version {
        return Ok(Answer::Versions(&SUPPORTED_VERSIONS));
    }
    let config = NetworkConfig::parse(input)?;
    let variable = |name: &str| env::var(name).ok();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| CniError::new(Code::Io, "cannot start a runtime").because(&error))?;
    runtime.block_on(async {
        match command {
            Command::Add => {
                attach::add(&config, &invocation::target(variable)?, &invocation::pod(variable)?).await
            }
            Command::Check => attach::check(&config, &invocation::target(variable)?).await,
            Command::Del => detach::del(&config, &invocation::attachment(variable)?).await,
            Command::Gc => detach::gc(&config).await,
            Command::Status => client::status(&config).await,
            Command::Version => unreachable!("answered above"),
        }
    })
}
