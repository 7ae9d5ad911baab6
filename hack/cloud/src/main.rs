//! The command `kestrel-dev-cloud`.

use std::process::ExitCode;

use clap::Parser as _;
use kestrel_dev_cloud::cli::Cli;

#[tokio::main]
async fn main() -> ExitCode {
    Cli::parse().run().await
}
