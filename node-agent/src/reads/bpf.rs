//! BPF programs and maps of the node's kernel, and what of them is attached to its network, in the words of
//! bpftool(8): what they are, never what is in them.

use std::{
    error::Error,
    io::{self, Read, Write},
    time::SystemTime,
};

use aya::{
    maps::{MapInfo, loaded_maps},
    programs::{ProgramInfo, SchedClassifier, TcAttachType, links::LinkType, loaded_links, loaded_programs},
};
use kestrel_proto::node::v1::BpfObjects;

use super::{
    containers::age,
    netlink::{self, Attributes},
};

/// Objects of a kind that are told.
const OBJECTS: usize = 10_000;
const GET_INTERFACES: u16 = libc::RTM_GETLINK;
const GET_FILTERS: u16 = libc::RTM_GETTFILTER;
/// Of what is told of an interface, and of a filter of packets.
const INTERFACE_HEAD: usize = 16;
const FILTER_HEAD: usize = 20;
/// Where filters of packets are that come in, and that go out (`linux/pkt_sched.h`).
const HOOKS: [(&str, u32); 2] = [("ingress", 0xffff_fff2), ("egress", 0xffff_fff3)];

/// Lines about all objects of a kind. The kernel answers nobody without the capability SYS_ADMIN, so it is asked
/// before this process gives it up.
///
/// # Errors
/// The kernel does not answer.
pub(super) fn lines(objects: BpfObjects) -> io::Result<Vec<String>> {
    match objects {
        BpfObjects::Unspecified => Ok(Vec::new()),
        BpfObjects::Programs => {
            let now = SystemTime::now();
            all(loaded_programs(), |it| program(it, now))
        }
        BpfObjects::Maps => all(loaded_maps(), map),
        BpfObjects::Attached => attached(),
    }
}

/// Those that are still there when they are looked at.
fn all<T, E: Error + 'static>(
    objects: impl Iterator<Item = Result<T, E>>,
    line: impl Fn(&T) -> String,
) -> io::Result<Vec<String>> {
    let mut lines = Vec::new();
    for object in objects {
        match object {
            Ok(_) if lines.len() == OBJECTS => {
                lines.push(format!("there are more than {OBJECTS}"));
                break;
            }
            Ok(object) => lines.push(line(&object)),
            Err(error) => match cause(&error) {
                Some(cause) if cause.kind() == io::ErrorKind::NotFound => {}
                Some(cause) => return Err(io::Error::new(cause.kind(), cause.to_string())),
                None => return Err(io::Error::other(error.to_string())),
            },
        }
    }
    Ok(lines)
}

fn cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a io::Error> {
    error.downcast_ref().or_else(|| cause(error.source()?))
}

fn program(program: &ProgramInfo, now: SystemTime) -> String {
    let kind = format!("{:?}", program.program_type());
    let kind = kind.trim_start_matches("BPF_PROG_TYPE_").to_lowercase();
    let loaded = program.loaded_at().and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
    let loaded = loaded
        .map(|at| format!("  loaded {} ago", age(i64::try_from(at.as_nanos()).unwrap_or_default(), now)));
    let runs = match (program.run_count(), program.run_time()) {
        (0, _) => String::new(),
        (count, time) => format!("  run_cnt {count}  run_time_ns {}", time.as_nanos()),
    };
    format!(
        "{}: {kind}  name {}  tag {:016x}{}  uid {}  xlated {}B  jited {}B{runs}",
        program.id(),
        name(program.name()),
        program.tag(),
        loaded.unwrap_or_default(),
        program.created_by_uid().unwrap_or_default(),
        program.size_translated().unwrap_or_default(),
        program.size_jitted(),
    )
}

fn map(map: &MapInfo) -> String {
    let kind = map.map_type().map_or_else(|_| "unknown".to_owned(), |kind| words(&format!("{kind:?}")));
    format!(
        "{}: {kind}  name {}  flags {:#x}  key {}B  value {}B  max_entries {}",
        map.id(),
        name(map.name()),
        map.map_flags(),
        map.key_size(),
        map.value_size(),
        map.max_entries(),
    )
}

fn name(name: &[u8]) -> String {
    if name.is_empty() { "-".to_owned() } else { String::from_utf8_lossy(name).into_owned() }
}

/// `PerCpuHash` is `per_cpu_hash`.
fn words(name: &str) -> String {
    let mut words = String::new();
    for char in name.chars() {
        if char.is_ascii_uppercase() && !words.is_empty() {
            words.push('_');
        }
        words.push(char.to_ascii_lowercase());
    }
    words
}

/// Where packets meet programs: at interfaces, and by links of the network's kinds.
fn attached() -> io::Result<Vec<String>> {
    let mut lines = Vec::new();
    let mut socket = netlink::open(netlink::ROUTE)?;
    netlink::ask(&mut socket, GET_INTERFACES, &[0; INTERFACE_HEAD])?;
    let interfaces = interfaces(&mut socket)?;
    for interface in &interfaces {
        lines.extend(interface.program.map(|id| format!("xdp: {} id {id}", interface.name)));
    }
    for Interface { name, number, .. } in &interfaces {
        for (place, (hook, parent)) in HOOKS.into_iter().enumerate() {
            let mut body = vec![0; 4];
            body.extend(number.to_ne_bytes());
            body.extend([0; 4]);
            body.extend(parent.to_ne_bytes());
            body.extend([0; 4]);
            netlink::ask(&mut socket, GET_FILTERS, &body)?;
            let found = filters(&mut socket)?;
            lines.extend(found.into_iter().map(|filter| format!("tc: {name} {hook} {filter}")));
            let kind = if place == 0 { TcAttachType::Ingress } else { TcAttachType::Egress };
            // A kernel before 6.6 does not know of these.
            let (_, programs) = SchedClassifier::query_tcx(name, kind).unwrap_or_default();
            lines.extend(
                programs
                    .iter()
                    .map(|it| format!("tcx: {name} {hook} {} id {}", self::name(it.name()), it.id())),
            );
        }
    }
    let links = all(loaded_links(), |link| match link.link_type() {
        Ok(
            kind @ (LinkType::Xdp | LinkType::Tcx | LinkType::Netkit | LinkType::Netfilter | LinkType::Netns),
        ) => {
            format!("link: {}: {} prog {}", link.id(), words(&format!("{kind:?}")), link.program_id())
        }
        _ => String::new(),
    })?;
    lines.extend(links.into_iter().filter(|line| !line.is_empty()));
    Ok(lines)
}

struct Interface {
    number: u32,
    name: String,
    /// The program that sees packets first.
    program: Option<u32>,
}

fn interfaces(socket: &mut impl Read) -> io::Result<Vec<Interface>> {
    const NAME: u16 = 3;
    const XDP: u16 = 43;
    let mut found = Vec::new();
    netlink::answer(socket, |message| {
        let number = message.get(4..8).and_then(netlink::number);
        let attributes = Attributes(message.get(INTERFACE_HEAD..).unwrap_or_default());
        let xdp = attributes.inside(XDP);
        // Of whichever way it is attached by.
        let program = (4..=7).find_map(|kind| xdp.get(kind).and_then(netlink::number)).filter(|id| *id > 0);
        if let (Some(number), Some(name)) = (number, attributes.text(NAME)) {
            found.push(Interface { number, name, program });
        }
        Ok(())
    })?;
    Ok(found)
}

/// Filters that are BPF programs: their names and numbers.
fn filters(socket: &mut impl Read) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    let end = netlink::answer(socket, |message| {
        let attributes = Attributes(message.get(FILTER_HEAD..).unwrap_or_default());
        let options = attributes.inside(2);
        // What comes without options says that there is a filter, and each of its parts comes on its own.
        if attributes.text(1).as_deref() == Some("bpf") && attributes.get(2).is_some() {
            // A classic one has neither name nor number.
            let name = options.text(7).unwrap_or_else(|| "classic".to_owned());
            let id = options.get(11).and_then(netlink::number);
            found.push(format!("{name}{}", id.map(|id| format!(" id {id}")).unwrap_or_default()));
        }
        Ok(())
    });
    match end {
        Err(error) if error.raw_os_error().is_none() => Err(error),
        // The interface has gone, or has no place for filters.
        _ => Ok(found),
    }
}

/// Prints what was found.
pub(super) fn print(lines: Vec<String>, out: &mut dyn Write) -> io::Result<()> {
    lines.iter().try_for_each(|line| writeln!(out, "{line}"))
}

#[cfg(test)]
mod tests {
    use super::{
        super::netlink::{
            attribute,
            tests::{Datagrams, told},
        },
        *,
    };

    #[test]
    fn what_is_at_interfaces_is_found() {
        let mut eth0 = vec![0; INTERFACE_HEAD];
        eth0[4..8].copy_from_slice(&7_u32.to_ne_bytes());
        eth0.extend(attribute(3, b"eth0\0"));
        let xdp = [attribute(2, &[2]), attribute(4, &33_u32.to_ne_bytes())].concat();
        eth0.extend(attribute(43, &xdp));
        let end = told(3, 2, &[0; 4]);
        let mut socket = Datagrams([told(16, 2, &eth0), end.clone()].into());
        let found = interfaces(&mut socket).unwrap();
        assert_eq!(
            (found.len(), found[0].number, &*found[0].name, found[0].program),
            (1, 7, "eth0", Some(33))
        );
        let filter = |kind: &[u8]| {
            let mut filter = vec![0; FILTER_HEAD];
            filter.extend(attribute(1, kind));
            filter.extend(attribute(
                2,
                &[attribute(7, b"cil_from_netdev\0"), attribute(11, &9_u32.to_ne_bytes())].concat(),
            ));
            told(44, 2, &filter)
        };
        let mut socket = Datagrams([filter(b"bpf\0"), filter(b"u32\0"), end].into());
        assert_eq!(filters(&mut socket).unwrap(), ["cil_from_netdev id 9"]);
        let mut gone = Datagrams([told(2, 0, &(-libc::ENODEV).to_ne_bytes())].into());
        assert!(filters(&mut gone).unwrap().is_empty());
    }

    #[test]
    fn kinds_are_written_as_bpftool_writes_them() {
        assert_eq!(
            (words("PerfEventArray"), words("Hash")),
            ("perf_event_array".to_owned(), "hash".to_owned())
        );
    }
}
