//! The rules of the node's firewall, as nf_tables has them, in the words of nft(8): also those that iptables wrote.
//!
//! The kernel looks at what may be asked when it is asked. So all questions are put before the process gives up
//! its capabilities, and what is left to do reads.

mod expressions;
mod sets;
mod values;
mod xtables;

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Write},
};

use self::sets::Set;
use super::{
    netlink::{self, Attributes},
    opened::odd,
};

/// Families by their numbers in the kernel (`linux/netfilter.h`).
const FAMILIES: [(u8, &str); 6] =
    [(1, "inet"), (2, "ip"), (3, "arp"), (5, "netdev"), (7, "bridge"), (10, "ip6")];
/// Of nf_tables in netfilter.
const NF_TABLES: u16 = 10 << 8;
const GET_TABLES: u16 = NF_TABLES | 1;
const GET_CHAINS: u16 = NF_TABLES | 4;
const GET_RULES: u16 = NF_TABLES | 7;
const GET_SETS: u16 = NF_TABLES | 10;
const GET_ELEMENTS: u16 = NF_TABLES | 13;
/// Family, version, resource.
const HEAD: usize = 4;
/// Of tables, chains and sets, with the elements of these, as the kernel tells them; here they are some eight times as large.
const MOST_BYTES: usize = 4 * 1024 * 1024;
/// A name of the longest table, with the zero behind it.
const NAME: usize = 256;

/// Which tables are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Its number in the kernel; `None`: all.
    pub(super) family: Option<u8>,
    pub(super) table: Option<String>,
}

impl Wanted {
    /// # Errors
    /// There is no such family or no such name.
    pub(super) fn of(family: u32, table: &str) -> Result<Self, String> {
        let family = u8::try_from(family).map_err(|_| "this is not a family of tables")?;
        if family != 0 && name_of(family).is_none() {
            return Err("this is not a family of tables".to_owned());
        }
        if table.len() >= NAME || table.contains('\0') {
            return Err("this is not the name of a table".to_owned());
        }
        let table = Some(table).filter(|table| !table.is_empty()).map(str::to_owned);
        Ok(Self { family: Some(family).filter(|family| *family > 0), table })
    }

    fn fits(&self, place: &Place) -> bool {
        self.family.is_none_or(|family| family == place.family)
            && self.table.as_ref().is_none_or(|table| *table == place.table)
    }
}

fn name_of(family: u8) -> Option<&'static str> {
    FAMILIES.iter().find(|(number, _)| *number == family).map(|(_, name)| *name)
}

/// A table by its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    family: u8,
    table: String,
}

impl Place {
    /// Where the table's name is attribute 1, as of all that is in one.
    fn of(message: &[u8]) -> Option<(Self, Attributes<'_>)> {
        let attributes = Attributes(message.get(HEAD..)?);
        Some((Self { family: message[0], table: attributes.text(1)? }, attributes))
    }
}

/// A table whose rules are still to be read.
#[derive(Debug)]
struct Table {
    place: Place,
    is_dormant: bool,
    sets: Vec<Set>,
    chains: Vec<Chain>,
}

#[derive(Debug)]
struct Chain {
    name: String,
    /// Where it begins, if packets come to it by themselves.
    base: Option<String>,
}

/// What is known before the rules are, and from where those come.
pub(super) struct Asked<R> {
    wanted: Wanted,
    tables: Vec<Table>,
    /// There was more than fits.
    is_cut: bool,
    rules: R,
    /// Tables that iptables keeps beside nf_tables.
    legacy: String,
}

/// Asks for all that is wanted.
///
/// # Errors
/// The kernel does not answer, or not to this process.
pub(super) fn ask(wanted: Wanted, legacy: String) -> io::Result<Asked<File>> {
    let mut room = MOST_BYTES;
    let mut all = |kind: u16, body: &[u8]| {
        let mut socket = netlink::open(netlink::NETFILTER)?;
        netlink::ask(&mut socket, kind, body)?;
        let mut messages = Vec::new();
        netlink::answer(&mut socket, |message| {
            if let Some(left) = room.checked_sub(message.len()) {
                room = left;
                messages.push(message.to_vec());
            } else {
                room = 0;
            }
            Ok(())
        })?;
        Ok::<_, io::Error>(messages)
    };
    let family = [wanted.family.unwrap_or_default(), 0, 0, 0];
    let told = [all(GET_TABLES, &family)?, all(GET_CHAINS, &family)?, all(GET_SETS, &family)?];
    let mut tables = tables(&told, &wanted);
    for table in &mut tables {
        for set in &mut table.sets {
            let mut body = vec![table.place.family, 0, 0, 0];
            for (kind, name) in [(1, &table.place.table), (2, &set.name)] {
                body.extend(netlink::attribute(kind, format!("{name}\0").as_bytes()));
            }
            // One that is gone meanwhile has none.
            for message in all(GET_ELEMENTS, &body).unwrap_or_default() {
                set.add(Attributes(message.get(HEAD..).unwrap_or_default()));
            }
        }
    }
    let mut rules = netlink::open(netlink::NETFILTER)?;
    netlink::ask(&mut rules, GET_RULES, &family)?;
    Ok(Asked { wanted, tables, is_cut: room == 0, rules, legacy })
}

/// From what is told of tables, chains and sets.
fn tables([tables, chains, sets]: &[Vec<Vec<u8>>; 3], wanted: &Wanted) -> Vec<Table> {
    const DORMANT: u64 = 1;
    let found = tables.iter().filter_map(|message| Place::of(message));
    let mut tables: Vec<Table> = found
        .filter(|(place, _)| wanted.fits(place))
        .map(|(place, attributes)| {
            let is_dormant = attributes.number(2).unwrap_or_default() & DORMANT != 0;
            Table { place, is_dormant, sets: Vec::new(), chains: Vec::new() }
        })
        .collect();
    let places: BTreeMap<Place, usize> =
        tables.iter().enumerate().map(|(number, table)| (table.place.clone(), number)).collect();
    for (place, attributes) in chains.iter().filter_map(|message| Place::of(message)) {
        if let (Some(number), Some(name)) = (places.get(&place), attributes.text(3)) {
            tables[*number].chains.push(Chain { name, base: base(place.family, attributes) });
        }
    }
    for (place, attributes) in sets.iter().filter_map(|message| Place::of(message)) {
        if let (Some(number), Some(set)) = (places.get(&place), Set::of(attributes)) {
            tables[*number].sets.push(set);
        }
    }
    tables
}

/// `type filter hook input priority 0; policy accept;`
fn base(family: u8, chain: Attributes<'_>) -> Option<String> {
    const NETDEV: u8 = 5;
    let hook = chain.inside(4);
    let number = hook.number(1)?;
    let names: &[&str] = match family {
        NETDEV => &["ingress", "egress"],
        3 => &["input", "output"],
        _ => &["prerouting", "input", "forward", "output", "postrouting", "ingress"],
    };
    let hook_name = usize::try_from(number).ok().and_then(|number| names.get(number));
    let device = hook.text(3).map(|device| format!(" device {device}")).unwrap_or_default();
    let priority = hook.get(2).and_then(|bytes| Some(i32::from_be_bytes(bytes.try_into().ok()?)));
    let policy = match chain.number(5) {
        Some(0) => " policy drop;",
        Some(1) => " policy accept;",
        _ => "",
    };
    Some(format!(
        "type {} hook {}{device} priority {};{policy}",
        chain.text(7).unwrap_or_default(),
        hook_name.copied().unwrap_or("?"),
        priority.unwrap_or_default()
    ))
}

/// Prints tables, their sets, and their chains with rules, in the order of the kernel.
pub(super) fn print<R: Read>(asked: Asked<R>, out: &mut dyn Write) -> io::Result<()> {
    let Asked { wanted, tables, is_cut, mut rules, legacy } = asked;
    let mut page = Page { tables: &tables, table: 0, chain: 0, is_open: false, rules: 0, out };
    let has_changed = netlink::answer(&mut rules, |message| {
        let (place, attributes) = Place::of(message).ok_or_else(|| odd("a rule without a table"))?;
        if wanted.fits(&place) { page.rule(&place, attributes) } else { Ok(()) }
    })?;
    page.go_to(None)?;
    let rules = page.rules;
    let chains: usize = tables.iter().map(|table| table.chains.len()).sum();
    writeln!(out, "# {} tables, {chains} chains, {rules} rules", tables.len())?;
    if is_cut {
        writeln!(out, "# some chains, sets or elements are left out: they have more than 4 MiB")?;
    }
    if has_changed {
        writeln!(out, "# the rules changed while they were read: ask again")?;
    }
    if !legacy.is_empty() {
        writeln!(out, "# iptables-legacy has tables of its own, which are not shown: {legacy}")?;
    }
    Ok(())
}

/// Where the printing stands: rules come by tables and chains, in the order of these.
struct Page<'a, W: ?Sized> {
    tables: &'a [Table],
    table: usize,
    /// Of that table, the chain that comes next, or is open.
    chain: usize,
    /// The chain's head is printed, and its end is not.
    is_open: bool,
    rules: usize,
    out: &'a mut W,
}

impl<W: Write + ?Sized> Page<'_, W> {
    fn rule(&mut self, place: &Place, rule: Attributes<'_>) -> io::Result<()> {
        let name = rule.text(2).unwrap_or_default();
        let tables = self.tables;
        let mut chains = (self.table..tables.len()).flat_map(|table| {
            let begin = if table == self.table { self.chain } else { 0 };
            (begin..tables[table].chains.len()).map(move |chain| (table, chain))
        });
        let is_its = |at: &(usize, usize)| {
            let table = &tables[at.0];
            table.place == *place && table.chains[at.1].name == name
        };
        // A chain that was made meanwhile is not known.
        let Some((table, chain)) = chains.find(is_its) else { return Ok(()) };
        self.go_to(Some((table, chain)))?;
        self.rules += 1;
        let rule = expressions::line(place.family, rule, &tables[table].sets);
        writeln!(self.out, "\t\t{rule}")
    }

    /// Prints what is before this chain, and its head.
    fn go_to(&mut self, place: Option<(usize, usize)>) -> io::Result<()> {
        let tables = self.tables;
        while let Some(table) = tables.get(self.table) {
            if self.chain == 0 && !self.is_open {
                self.begin_table(table)?;
            }
            while let Some(chain) = table.chains.get(self.chain) {
                if !self.is_open {
                    writeln!(self.out, "\tchain {} {{", chain.name)?;
                    if let Some(base) = &chain.base {
                        writeln!(self.out, "\t\t{base}")?;
                    }
                    self.is_open = true;
                }
                if place == Some((self.table, self.chain)) {
                    return Ok(());
                }
                writeln!(self.out, "\t}}")?;
                self.is_open = false;
                self.chain += 1;
            }
            writeln!(self.out, "}}")?;
            (self.table, self.chain) = (self.table + 1, 0);
        }
        Ok(())
    }

    fn begin_table(&mut self, table: &Table) -> io::Result<()> {
        let Place { family, table: name } = &table.place;
        writeln!(self.out, "table {} {name} {{", name_of(*family).unwrap_or("?"))?;
        if table.is_dormant {
            writeln!(self.out, "\tflags dormant;")?;
        }
        table.sets.iter().try_for_each(|set| set.print(self.out))
    }
}

#[cfg(test)]
mod tests;
