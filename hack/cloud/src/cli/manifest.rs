//! `manifest`: the cloud as a pod.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::Write as _,
    path::PathBuf,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};

use crate::{Authority, credentials::STATE_FILES};

const TEMPLATE: &str = include_str!("../../manifest.yaml");

/// Prints the manifest of a pod that serves, for `kubectl apply -f -`.
#[derive(clap::Args)]
pub struct Args {
    /// Folder with the authority, which goes into a Secret.
    #[arg(long, env = "KESTREL_CLOUD_STATE", hide_env_values = true)]
    state: PathBuf,
    /// Image with the program as its entry point.
    #[arg(long)]
    image: String,
    /// Namespace; it is made.
    #[arg(long, default_value = "kestrel-cloud")]
    namespace: String,
}

/// Runs the command.
///
/// # Errors
/// The state can't be read, or nothing can be printed.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let authority = Authority::open(&args.state)?;
    anstream::stdout().write_all(manifest(&authority, &args.image, &args.namespace).as_bytes())?;
    Ok(())
}

fn manifest(authority: &Authority, image: &str, namespace: &str) -> String {
    let files = STATE_FILES.iter().zip(authority.state());
    let data: String =
        files.map(|(name, text)| format!("\n  {name}: {}", BASE64_STANDARD.encode(text))).collect();
    let mut fingerprint = DefaultHasher::new();
    data.hash(&mut fingerprint);
    TEMPLATE
        .replace("{{state}}", &data)
        .replace("{{fingerprint}}", &format!("{:016x}", fingerprint.finish()))
        .replace("{{image}}", image)
        .replace("{{namespace}}", namespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_filled_in() {
        let authority = Authority::generate().unwrap();
        let text = manifest(&authority, "registry/kestrel-dev-cloud:1", "testing");
        let text = text.split_once('\n').unwrap().1;
        assert!(!text.contains("{{"), "{text}");
        assert!(text.contains("image: registry/kestrel-dev-cloud:1\n"));
        assert!(text.contains("--name=kestrel-cloud.testing.svc\n"));
        for name in STATE_FILES {
            assert!(text.contains(&format!("\n  {name}: LS0t")), "{name} in {text}");
        }
    }
}
