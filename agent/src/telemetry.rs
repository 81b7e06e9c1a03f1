//! What the programs say of themselves.

use std::io;

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// What to log, and how.
#[derive(Clone, Debug, Args)]
pub struct LogArgs {
    /// What to log: a level, or levels by module as `info,landbridge_agent=debug`.
    #[arg(long, env = "RUST_LOG", default_value = "info")]
    log: String,
    /// How a line is written.
    #[arg(long, env = "LANDBRIDGE_AGENT_LOG_FORMAT", value_enum, default_value = "text")]
    log_format: LogFormat,
}

/// How a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// For programs, one object a line.
    Json,
}

/// Starts to write logs to stderr.
///
/// # Errors
/// [`ParseError`] if `--log` cannot be read.
pub fn init(args: &LogArgs) -> Result<(), ParseError> {
    let filter = EnvFilter::builder().parse(&args.log)?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match args.log_format {
        LogFormat::Text => logs.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).init(),
        LogFormat::Json => logs.json().init(),
    }
    Ok(())
}
