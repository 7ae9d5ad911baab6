//! `credentials`: what an operator needs to connect, and what it must be refused with.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};

use crate::{
    Authority, Claims,
    credentials::{Identity, read, write_private},
};

/// Makes the authority once, then an operator's ca.crt, client.crt, client.key and a fresh token beside it.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    only: Option<Only>,
    /// Folder with ca.crt, ca.key and token.key; they are made if it has none of them.
    #[arg(long, global = true, env = "KESTREL_CLOUD_STATE", hide_env_values = true)]
    state: Option<PathBuf>,
    /// The token's tenant claim; '' makes a token that is refused.
    #[arg(long, global = true, default_value = "development")]
    tenant: String,
    /// The cluster that the token and the certificate name.
    #[arg(long, global = true, default_value = "local")]
    cluster: String,
    /// How long the token is good; -1h makes one that ended an hour ago.
    #[arg(long, global = true, default_value = "24h", allow_hyphen_values = true)]
    lifetime: SignedDuration,
    /// Writes a values file for the chart kestrel-operator, too.
    #[arg(long, value_name = "FILE", requires = "host")]
    helm_values: Option<PathBuf>,
    /// Where the operator finds the cloud (server.host).
    #[arg(long)]
    host: Option<String>,
    /// Its port (server.port).
    #[arg(long, default_value_t = 50051)]
    port: u16,
}

#[derive(clap::Subcommand)]
enum Only {
    /// Prints a token, good or bad.
    Token,
    /// Writes ca.crt, client.crt and client.key into a folder.
    Client {
        /// The folder to write to.
        #[arg(long)]
        out: PathBuf,
        /// Signed by an authority that the cloud does not know; ca.crt is that authority's.
        #[arg(long)]
        other_ca: bool,
    },
}

/// Runs the command.
///
/// # Errors
/// A file can't be read or written.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let folder = args.state.as_ref().context("--state is needed: the folder that keeps the authority")?;
    let authority = Authority::open(folder)?;
    match &args.only {
        None => all(args, folder, &authority),
        Some(Only::Token) => Ok(writeln!(anstream::stdout(), "{}", token(&authority, args)?)?),
        Some(Only::Client { out, other_ca }) => {
            let authority = if *other_ca { Authority::generate()? } else { authority };
            Ok(authority.write_client(out, &authority.client(&args.cluster)?)?)
        }
    }
}

fn all(args: &Args, folder: &Path, authority: &Authority) -> anyhow::Result<()> {
    let (certificate, key) = (folder.join("client.crt"), folder.join("client.key"));
    let client = if certificate.exists() && key.exists() {
        Identity { certificate: read(&certificate)?, key: read(&key)? }
    } else {
        authority.client(&args.cluster)?
    };
    authority.write_client(folder, &client)?;
    let token = token(authority, args)?;
    write_private(&folder.join("token"), &token)?;
    let mut out = anstream::stdout();
    writeln!(out, "{}: ca.crt, client.crt, client.key, token", folder.display())?;
    if let (Some(file), Some(host)) = (&args.helm_values, &args.host) {
        write_private(file, &helm_values(authority, &client, &token, host, args.port))?;
        writeln!(out, "{}: values for the chart kestrel-operator", file.display())?;
    }
    Ok(())
}

fn token(authority: &Authority, args: &Args) -> anyhow::Result<String> {
    let claims = Claims::new(&args.tenant, &args.cluster, Timestamp::now(), args.lifetime.as_secs());
    authority.tokens().mint(&claims).context("no token can be minted")
}

fn helm_values(authority: &Authority, client: &Identity, token: &str, host: &str, port: u16) -> String {
    let block = |pem: &str| pem.lines().map(|line| format!("\n      {line}")).collect::<String>();
    format!(
        "server:\n  host: {host}\n  port: {port}\nauth:\n  token: {token}\ncertificates:\n  client:\n    \
         cert: |{}\n    key: |{}\n  ca:\n    cert: |{}\n",
        block(&client.certificate),
        block(&client.key),
        block(authority.certificate()),
    )
}
