//! Commands of who asks on this machine.

use kestrel_proto::cloud::v1::{ShellCommandRequest, ShellCommandResult};
use kube::Client;
use tokio::time::Instant;

use super::{
    cluster::Cluster, command, hidden::Hashes, places::Place, refusal::NOT_EXECUTED, rules::Rules,
    switch::Switch,
};
use crate::{excluded::Excluded, link::Nodes};

/// Answers commands as the daemon would, for who asks on this machine: an owner who wants to see what Kestrel
/// Cloud sees. No node is read, as agents attach to the daemon alone; and nothing is tried, as nothing holds who asks to dry runs.
pub struct Asker {
    cluster: Cluster,
    kinds: command::Kinds,
    switch: Switch,
}

impl Asker {
    /// One that reads with `reader`, by the rules of `switch`.
    ///
    /// # Errors
    /// There is no key for hashes of secrets.
    pub fn new(reader: Client, switch: Switch, excluded: Excluded) -> anyhow::Result<Self> {
        let cluster = Cluster { client: reader.clone(), trier: reader, excluded, hashes: Hashes::new()? };
        Ok(Self { cluster, kinds: command::Kinds::default(), switch })
    }

    /// What one command prints.
    pub async fn command(&self, line: &str) -> ShellCommandResult {
        let rules = match self.switch.rules().await {
            Ok(rules) => Rules { dry_run: false, ..rules },
            Err(off) => {
                let (stderr, exit_code) = (off.to_string(), NOT_EXECUTED);
                return ShellCommandResult { stderr, exit_code, ..Default::default() };
            }
        };
        let request = ShellCommandRequest { commands: vec![line.to_owned()], ..Default::default() };
        let mut place = Place::alone(Instant::now() + command::limit_of(&request));
        let reach = (&self.cluster, &self.kinds, &Nodes::default());
        let (answer, _) = command::answer(reach, rules, request, &mut place).await;
        answer.results.into_iter().next().unwrap_or_default()
    }
}
