//! The command line: what a person or a script asks of the cloud.

pub mod client;
pub mod credentials;
pub mod fact;
pub mod fault;
pub mod manifest;
pub mod send;
pub mod serve;
pub mod show;
pub mod table;
pub mod watch;

use std::{io::Write as _, process::ExitCode};

use clap::{Parser, Subcommand};

use client::ApiAddress;

/// A development Kestrel Cloud: what operators connect to when there is no account, and what tests ask.
#[derive(Parser)]
#[command(name = "kestrel-dev-cloud", version, max_term_width = 110)]
pub struct Cli {
    /// Address of the query API: serve binds it, the other commands ask it.
    #[arg(
        long,
        global = true,
        env = "KESTREL_CLOUD_API",
        hide_env_values = true,
        default_value = "127.0.0.1:50052"
    )]
    api: ApiAddress,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(serve::Args),
    Credentials(credentials::Args),
    Manifest(manifest::Args),
    Watch(watch::Args),
    Show(show::Args),
    Send(send::Args),
    Fault(Box<fault::Args>),
}

impl Cli {
    /// Runs the command; says on standard error why it failed.
    pub async fn run(self) -> ExitCode {
        let Self { api, command } = self;
        let done = match command {
            Command::Serve(args) => return serve::run(args, &api).await,
            Command::Credentials(args) => credentials::run(&args),
            Command::Manifest(args) => manifest::run(&args),
            Command::Watch(args) => watch::run(&args, &api).await,
            Command::Show(args) => show::run(&args, &api).await,
            Command::Send(args) => send::run(args, &api).await,
            Command::Fault(args) => fault::run(&args, &api).await,
        };
        match done {
            Ok(()) => ExitCode::SUCCESS,
            // The reader of our output, such as `head`, has seen enough.
            Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
            Err(error) => fail(&error),
        }
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    // Nobody is left to be told when standard error is closed.
    let _ = writeln!(anstream::stderr(), "kestrel-dev-cloud: {error:#}");
    ExitCode::FAILURE
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
