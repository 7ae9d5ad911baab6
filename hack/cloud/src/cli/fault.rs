//! `fault`: breaks something on purpose.

use std::io::Write as _;

use serde_json::json;

use super::client::{Api, ApiAddress};
use crate::Faults;

/// Breaks what the options say and mends everything else; without options, mends all.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    faults: Faults,
}

/// Runs the command.
///
/// # Errors
/// Nobody answers, or nothing can be printed.
pub async fn run(args: &Args, api: &ApiAddress) -> anyhow::Result<()> {
    let set = Api::new(api).post("/v1/faults", &[], &json!(args.faults)).await?;
    Ok(writeln!(anstream::stdout(), "{set:#}")?)
}
