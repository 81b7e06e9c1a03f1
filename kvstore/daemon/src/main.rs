//! The store alone: starts where etcd does, with etcd's flags.
//!
//! ```text
//! flags, ETCD_*, YAML ─► settings ─► server ─► until SIGTERM
//! snapshot …          ─► a file that etcdctl saved is checked, told of or restored
//! ```
//!
//! Exit codes are etcd's: 0 after an orderly end, 1 if the store failed, 2 if the flags could not be understood.

mod flags;
mod log;
mod notify;
mod settings;
mod snapshot;

use std::env;
use std::pin::pin;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use landbridge_kvstore_server::Server;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};

use crate::flags::{Invocation, Values};
use crate::settings::Settings;
use crate::snapshot::Failure;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// etcd's code for flags that it does not understand.
const MISUSED: u8 = 2;

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1).peekable();
    if arguments.next_if(|word| word == snapshot::COMMAND).is_some() {
        return match snapshot::run(arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(Failure::Misused(text)) => {
                eprintln!("{text}");
                ExitCode::from(MISUSED)
            }
            Err(Failure::Failed(error)) => {
                eprintln!("error: {error:#}");
                ExitCode::FAILURE
            }
        };
    }
    match flags::parse(arguments, env::vars()) {
        Ok(Invocation::Help) => print!("{}", flags::help()),
        Ok(Invocation::Version) => print!("{}", flags::VERSION),
        Ok(Invocation::Serve(values)) => return serve(&values),
        Err(error) => {
            eprintln!("{error}\nrun with --help for all flags");
            return ExitCode::from(MISUSED);
        }
    }
    ExitCode::SUCCESS
}

fn serve(values: &Values) -> ExitCode {
    if let Err(error) = log::init(values) {
        eprintln!("error: {error:#}");
        return ExitCode::FAILURE;
    }
    for note in &values.notes {
        warn!("{note}");
    }
    match Settings::new(values).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let error = format!("{error:#}");
            error!(error, "the store has failed");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(settings: Settings) -> Result<()> {
    // Who stops the store while it starts is heard as well.
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let mut stop = async || {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    };
    for note in &settings.notes {
        warn!("{note}");
    }
    let Settings { options, service, .. } = settings;
    let server = tokio::select! {
        server = Server::start_with(options, service) => server?,
        signal = stop() => {
            info!(signal, "stopped before it was ready");
            return Ok(());
        }
    };
    let outcome = run_until(&server, stop()).await;
    let closed = server.shutdown().await.context("the store cannot be closed in order");
    outcome.and(closed)
}

/// Announces the store when it is ready, and returns when a signal stops it or it has ended by itself.
async fn run_until(server: &Server, stop: impl Future<Output = &'static str>) -> Result<()> {
    let mut ended = pin!(async {
        tokio::select! {
            signal = stop => {
                info!(signal, "the store stops");
                Ok(())
            }
            reason = server.engine().ended() => {
                Err(anyhow!("{}", reason.unwrap_or_else(|| "the store was stopped from inside".to_owned())))
            }
        }
    });
    tokio::select! {
        outcome = &mut ended => return outcome,
        () = server.engine().published() => announce(server),
    }
    ended.await
}

/// Tells people and the service manager that clients can use the store, and are told by the list of its members that they
/// can.
fn announce(server: &Server) {
    info!(
        version = env!("CARGO_PKG_VERSION"),
        urls = server.listens_on().iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        "ready to serve client requests"
    );
    if let Err(error) = notify::ready() {
        warn!(%error, "the service manager cannot be told that the store is ready");
    }
}
