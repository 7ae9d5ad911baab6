//! A network of its own between the uplink and the cloud: its packets may go nowhere, or
//! no faster than a rate.

use std::{
    fs::File,
    net::SocketAddr,
    os::fd::AsFd as _,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use kestrel_dev_cloud::Cloud;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio_util::sync::CancellationToken;

use crate::world::cloud_apart;

/// No network card has it.
const NOBODY: &str = "02:00:00:00:00:99";

/// A network namespace behind a bridge in another one, so that what is lost on the
/// way is lost far from the sender, as in life.
pub(crate) struct Network {
    name: String,
    way: String,
    near: String,
    /// Third byte of the addresses: the pair is 10.199.x.1 and 10.199.x.2.
    subnet: u8,
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    output.status.success().then_some(()).ok_or_else(|| format!("{program} {}: {said}", arguments.join(" ")))
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    run("ip", arguments)
}

impl Network {
    pub(crate) fn new() -> Self {
        static NETWORKS: AtomicU8 = AtomicU8::new(0);
        let number = NETWORKS.fetch_add(1, Ordering::Relaxed);
        let subnet = ((std::process::id() % 250) as u8).wrapping_add(number) % 250;
        let network = Self {
            name: format!("kestrel-uplink-{subnet}"),
            way: format!("kestrel-way-{subnet}"),
            near: format!("k-uplink{subnet}"),
            subnet,
        };
        let Self { name, way, near, .. } = &network;
        let (here, there) = (format!("10.199.{subnet}.1/30"), format!("10.199.{subnet}.2/30"));
        let pair = |here: &[&str], name: &str, space: &str| {
            ip(&[&["link", "add"], here, &["type", "veth", "peer", "name", name, "netns", space]].concat())
        };
        let made = ip(&["netns", "add", name])
            .and_then(|()| ip(&["netns", "add", way]))
            .and_then(|()| pair(&[near], "near", way))
            .and_then(|()| pair(&["far", "netns", way], "cloud", name))
            .and_then(|()| ip(&["-n", way, "link", "add", "bridge", "type", "bridge"]))
            .and_then(|()| ip(&["-n", way, "link", "set", "near", "up", "master", "bridge"]))
            .and_then(|()| ip(&["-n", way, "link", "set", "far", "up", "master", "bridge"]))
            .and_then(|()| ip(&["-n", way, "link", "set", "bridge", "up"]))
            .and_then(|()| ip(&["addr", "add", &here, "dev", near]))
            .and_then(|()| ip(&["link", "set", near, "up"]))
            .and_then(|()| ip(&["-n", name, "addr", "add", &there, "dev", "cloud"]))
            .and_then(|()| ip(&["-n", name, "link", "set", "cloud", "up"]))
            .and_then(|()| ip(&["-n", name, "link", "set", "lo", "up"]));
        if let Err(problem) = made {
            panic!("no network namespace can be made, which needs root and iproute2: {problem}");
        }
        network
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from(([10, 199, self.subnet, 2], 0))
    }

    /// Every packet goes to nobody, both ways.
    pub(crate) fn lose(&self) {
        let (here, there) = (format!("10.199.{}.1", self.subnet), format!("10.199.{}.2", self.subnet));
        let to_nobody = ["lladdr", NOBODY, "nud", "permanent", "dev"];
        ip(&[&["neigh", "replace", &there], &to_nobody[..], &[&self.near]].concat()).unwrap();
        ip(&[&["-n", &self.name, "neigh", "replace", &here], &to_nobody[..], &["cloud"]].concat()).unwrap();
    }

    /// Packets find their way again.
    pub(crate) fn find(&self) {
        let (here, there) = (format!("10.199.{}.1", self.subnet), format!("10.199.{}.2", self.subnet));
        ip(&["neigh", "del", &there, "dev", &self.near]).unwrap();
        ip(&["-n", &self.name, "neigh", "del", &here, "dev", "cloud"]).unwrap();
    }

    /// What goes to the cloud goes no faster than so many bits a second, such as `100mbit`,
    /// and what is too much for the few packets that may wait for that is lost.
    pub(crate) fn limit(&self, rate: &str) {
        let bucket = ["root", "tbf", "rate", rate, "burst", "16kb", "limit", "48kb"];
        run("tc", &[&["-n", &self.way, "qdisc", "add", "dev", "far"], &bucket[..]].concat()).unwrap();
    }

    /// A cloud in the namespace, until `end`.
    pub(crate) fn cloud(&self, end: CancellationToken) -> Arc<Cloud> {
        let (name, address) = (self.name.clone(), self.address());
        let enter = move || {
            let namespace = File::open(format!("/run/netns/{name}")).unwrap();
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        };
        cloud_apart(enter, move |config| config.listen = address, end)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // The card goes with its peer.
        let _it_may_not_be_there = ip(&["link", "del", &self.near]);
        for space in [&self.name, &self.way] {
            let _it_may_not_be_there = ip(&["netns", "del", space]);
        }
    }
}
