//! The program that each cluster runs: serves its store, publishes it, reads its peers.

mod telemetry;

use std::fs::create_dir_all;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use landbridge_apiserver::config::{Config, ServeArgs};
use landbridge_apiserver::data_dir::cluster_of;
use landbridge_apiserver::pki::Pki;
use landbridge_apiserver::serve::Apiserver;
use landbridge_apiserver::source;
use landbridge_apiserver::users::User;
use tokio::signal::unix::{SignalKind, signal};

/// One per cluster: serves the cluster's store, publishes its objects and reads its peers.
#[derive(Parser)]
#[command(name = "landbridge-apiserver", version, propagate_version = true)]
struct Arguments {
    #[command(flatten)]
    telemetry: telemetry::TelemetryArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(Box<ServeArgs>),
    Certificate(CertificateArgs),
    Check(CheckArgs),
}

/// Makes a key and a certificate of the cluster's own CA; works while `serve` runs.
#[derive(Args)]
struct CertificateArgs {
    /// Data folder of the cluster.
    #[arg(long, env = "LANDBRIDGE_APISERVER_DATA_DIR", default_value = "/var/lib/landbridge/apiserver")]
    data_dir: PathBuf,
    /// Whose: agent-<node>, local-<cluster> or admin-<cluster>.
    #[arg(long)]
    user: String,
    /// Folder for ca.crt, client.crt and client.key.
    #[arg(long)]
    out: PathBuf,
}

/// Looks at manifests and says what is wrong with them.
#[derive(Args)]
struct CheckArgs {
    /// Folder with the manifests.
    #[arg(long, env = "LANDBRIDGE_APISERVER_MANIFESTS")]
    manifests: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = telemetry::init(&arguments.telemetry).and_then(|()| match arguments.command {
        Command::Serve(args) => serve(*args),
        Command::Certificate(args) => certificate(&args),
        Command::Check(args) => check(&args),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn serve(args: ServeArgs) -> anyhow::Result<()> {
    let config = Config::try_from(args)?;
    // From here on a signal ends what was started, in order.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    tokio::pin!(stop);
    let apiserver = tokio::select! {
        started = Apiserver::start(config) => started?,
        () = &mut stop => return Ok(()),
    };
    apiserver.run_until(stop).await
}

fn certificate(args: &CertificateArgs) -> anyhow::Result<()> {
    let (cluster, _) = cluster_of(&args.data_dir)?;
    let user = User::parse(&cluster, &args.user)?;
    if let User::Remote(peer) = &user {
        bail!(
            "--user: {} is for a peer, which makes its own key; use clusterctl connect with {peer}",
            args.user
        );
    }
    let now = SystemTime::now();
    let credentials = Pki::load(&args.data_dir.join("pki"), &cluster, now)?.issue_client(&user, now)?;
    create_dir_all(&args.out).with_context(|| format!("--out: cannot make {}", args.out.display()))?;
    credentials.write_to(&args.out)?;
    Ok(())
}

fn check(args: &CheckArgs) -> anyhow::Result<()> {
    let checked = source::validate(&args.manifests)?;
    for problem in checked.problems.iter() {
        println!("{problem}");
    }
    match checked.problems.len() {
        0 => Ok(()),
        problems => bail!("{problems} problems in {}; mend the places named above", args.manifests.display()),
    }
}
