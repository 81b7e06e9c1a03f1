//! The log: to standard error, as text or JSON.

use std::io::{self, IsTerminal};

use anyhow::Context;
use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

#[derive(Args)]
pub(crate) struct TelemetryArgs {
    /// What is logged, such as `info` or `warn,landbridge_apiserver=debug`.
    // openraft tells of every step that it takes.
    #[arg(long, global = true, env = "RUST_LOG", default_value = "info,openraft=warn")]
    log: String,
    /// How it is logged.
    #[arg(long, global = true, env = "LANDBRIDGE_APISERVER_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    /// Lines for people.
    Text,
    /// An object per line.
    Json,
}

pub(crate) fn init(args: &TelemetryArgs) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&args.log).with_context(|| format!("--log: {:?}", args.log))?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match args.log_format {
        LogFormat::Text => subscriber.with_ansi(io::stderr().is_terminal()).init(),
        LogFormat::Json => subscriber.json().init(),
    }
    Ok(())
}
