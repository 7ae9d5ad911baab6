//! What a rule asks of a packet and does with it. The kernel's rules are steps of a small machine: some load a
//! field into a register, others compare it or use it; together they are what nft writes as one word.

use std::collections::BTreeMap;

use super::{
    super::netlink::{Attributes, text},
    sets::Set,
    values::{Form, bits, prefix, range, show, verdict},
    xtables,
};

/// Steps in a rule: the kernel has at most 128.
const STEPS: usize = 128;

/// A rule in one line.
pub(super) fn line(family: u8, rule: Attributes<'_>, sets: &[Set]) -> String {
    let mut machine = Machine { family, sets, registers: BTreeMap::new() };
    let mut words = Vec::new();
    for (_, step) in rule.inside(4).take(STEPS) {
        let step = Attributes(step);
        let name = step.text(1).unwrap_or_default();
        let said = machine.step(&name, step.inside(2)).unwrap_or_else(|| format!("[{name}]"));
        words.extend(Some(said).filter(|said| !said.is_empty()));
    }
    words.extend(rule.get(7).and_then(comment).map(|comment| format!("comment {comment:?}")));
    words.extend(rule.number(3).map(|handle| format!("# handle {handle}")));
    words.join(" ")
}

/// Of what nft keeps with a rule (type, length, value), the comment.
fn comment(mut kept: &[u8]) -> Option<String> {
    const COMMENT: u8 = 0;
    loop {
        let (kind, length) = (*kept.first()?, usize::from(*kept.get(1)?));
        let value = kept.get(2..2 + length)?;
        if kind == COMMENT {
            return Some(text(value));
        }
        kept = &kept[2 + length..];
    }
}

/// What is in a register.
#[derive(Clone, Debug)]
struct Loaded {
    /// The field, in the words of nft.
    field: String,
    form: Form,
    /// Of four bytes each.
    registers: u32,
    /// What of the field is left, and what is turned over.
    masked: Option<(Vec<u8>, Vec<u8>)>,
    /// A value of the rule's own.
    value: Option<Vec<u8>>,
}

struct Machine<'a> {
    family: u8,
    sets: &'a [Set],
    /// By their numbers, of four bytes each.
    registers: BTreeMap<u32, Loaded>,
}

/// The first four are of sixteen bytes, and each is also four of the others (`linux/netfilter/nf_tables.h`).
fn register(number: u64) -> u32 {
    match u32::try_from(number).unwrap_or_default() {
        wide @ 1..=4 => 8 + (wide - 1) * 4,
        other => other,
    }
}

fn data(of: Attributes<'_>, kind: u16) -> Option<Vec<u8>> {
    of.inside(kind).get(1).map(<[u8]>::to_vec)
}

impl Machine<'_> {
    /// What is said of a step; empty where a later one says it. `None`: it is not understood.
    fn step(&mut self, name: &str, of: Attributes<'_>) -> Option<String> {
        match name {
            "payload" => self.load(of, 1, 4, payload(self.family, of)?),
            "meta" if of.get(3).is_some() => {
                let (word, form) = meta(of.number(2)?)?;
                return Some(format!("{word} set {}", self.value(of.number(3)?, form)?));
            }
            "meta" => {
                let (word, form) = meta(of.number(2)?)?;
                self.put(of.number(1)?, word.to_owned(), form, None);
            }
            "ct" if of.get(4).is_some() => {
                let (word, form) = connection(of.number(2)?)?;
                return Some(format!("ct {word} set {}", self.value(of.number(4)?, form)?));
            }
            "ct" => {
                let (word, form) = connection(of.number(2)?)?;
                let direction = match of.number(3) {
                    Some(0) => "original ",
                    Some(1) => "reply ",
                    _ => "",
                };
                self.put(of.number(1)?, format!("ct {direction}{word}"), form, None);
            }
            "fib" => {
                let from = bits(u32::try_from(of.number(3)?).ok()?, &FIB_FLAGS);
                let (result, form) = match of.number(2)? {
                    1 => ("oif", Form::Bits),
                    2 => ("oifname", Form::Name),
                    _ => ("type", Form::AddressType),
                };
                self.put(of.number(1)?, format!("fib {} {result}", from.replace(',', " . ")), form, None);
            }
            "numgen" => {
                let how = if of.number(3) == Some(1) { "random" } else { "inc" };
                let field = format!("numgen {how} mod {}", of.number(2)?);
                self.put(of.number(1)?, field, Form::Bytes, None);
            }
            "bitwise" => {
                let loaded = self.registers.get(&register(of.number(1)?))?;
                let masked = Some((data(of, 4)?, data(of, 5)?));
                let loaded = Loaded { masked, ..loaded.clone() };
                self.registers.insert(register(of.number(2)?), loaded);
            }
            "immediate" => match of.inside(2).get(2) {
                Some(code) => return Some(verdict(Attributes(code))),
                None => self.put(of.number(1)?, String::new(), Form::Bytes, Some(data(of, 2)?)),
            },
            "cmp" => return self.compare(of),
            "range" => {
                let loaded = self.registers.get(&register(of.number(1)?))?;
                let not = if of.number(2) == Some(1) { "!= " } else { "" };
                let values = range(loaded.form, &data(of, 3)?, &data(of, 4)?);
                return Some(format!("{} {not}{values}", loaded.field));
            }
            "lookup" => return self.look_up(of),
            "nat" => return self.translate(of),
            "redir" => {
                let port = of.number(1).and_then(|number| self.value(number, Form::Number));
                return Some(
                    port.map_or_else(|| "redirect".to_owned(), |port| format!("redirect to :{port}")),
                );
            }
            other => return alone(other, of),
        }
        Some(String::new())
    }

    fn put(&mut self, number: u64, field: String, form: Form, value: Option<Vec<u8>>) {
        self.registers.insert(register(number), Loaded { field, form, registers: 1, masked: None, value });
    }

    fn load(&mut self, of: Attributes<'_>, into: u16, length: u16, (field, form): (String, Form)) {
        let (Some(number), Some(length)) = (of.number(into), of.number(length)) else { return };
        let registers = u32::try_from(length.div_ceil(4)).unwrap_or(1);
        let loaded = Loaded { field, form, registers, masked: None, value: None };
        self.registers.insert(register(number), loaded);
    }

    fn compare(&self, of: Attributes<'_>) -> Option<String> {
        let loaded = self.registers.get(&register(of.number(1)?))?;
        let operator = *["", "!= ", "< ", "<= ", "> ", ">= "].get(usize::try_from(of.number(2)?).ok()?)?;
        let (value, Loaded { field, form, masked, .. }) = (data(of, 3)?, loaded);
        let Some((mask, turned)) = masked else {
            return Some(format!("{field} {operator}{}", show(*form, &value)));
        };
        let is_plain = turned.iter().all(|byte| *byte == 0);
        // A state is one of some where not all of their bits are missing.
        if *form == Form::States && is_plain && operator == "!= " && value.iter().all(|byte| *byte == 0) {
            return Some(format!("{field} {}", show(*form, mask)));
        }
        if matches!(form, Form::Address | Form::Address6)
            && is_plain
            && let Some(length) = prefix(mask)
        {
            return Some(format!("{field} {operator}{}/{length}", show(*form, &value)));
        }
        let operator = if operator.is_empty() { "== " } else { operator };
        Some(format!("{} {operator}{}", masked_field(loaded), show(*form, &value)))
    }

    /// In a set, or by a map.
    fn look_up(&mut self, of: Attributes<'_>) -> Option<String> {
        const NOT_IN: u64 = 1;
        let name = of.text(1)?;
        let set = self.sets.iter().find(|set| set.name == name);
        let mut at = register(of.number(2)?);
        let mut left = set.map_or(1, |set| u32::try_from(set.length.div_ceil(4)).unwrap_or(1)).max(1);
        let mut fields = Vec::new();
        while let Some(loaded) = self.registers.get(&at).filter(|_| left > 0) {
            fields.push(masked_field(loaded));
            at += loaded.registers;
            left = left.saturating_sub(loaded.registers);
        }
        let fields = fields.join(" . ");
        match of.number(3).map(register) {
            None if of.number(5).unwrap_or_default() & NOT_IN != 0 => Some(format!("{fields} != @{name}")),
            None => Some(format!("{fields} @{name}")),
            Some(0) => Some(format!("{fields} vmap @{name}")),
            Some(into) => {
                let form = set.map_or(Form::Bytes, Set::data);
                let field = format!("{fields} map @{name}");
                let loaded = Loaded { field, form, registers: 1, masked: None, value: None };
                self.registers.insert(into, loaded);
                Some(String::new())
            }
        }
    }

    /// What is in a register, as a value of this form.
    fn value(&self, number: u64, form: Form) -> Option<String> {
        let loaded = self.registers.get(&register(number))?;
        Some(match &loaded.value {
            Some(value) => show(form, value),
            None => masked_field(loaded),
        })
    }

    fn translate(&self, of: Attributes<'_>) -> Option<String> {
        let word = if of.number(1)? == 0 { "snat" } else { "dnat" };
        let end = |kind: u16, form: Form| of.number(kind).and_then(|number| self.value(number, form));
        let from = end(3, Form::Address).unwrap_or_default();
        let to =
            end(4, Form::Address).filter(|to| *to != from).map(|to| format!("-{to}")).unwrap_or_default();
        let port = end(5, Form::Number).map(|port| format!(":{port}")).unwrap_or_default();
        let flags = flags(of.number(7));
        Some(format!("{word} to {from}{to}{port}{flags}"))
    }
}

fn masked_field(Loaded { field, masked, form, .. }: &Loaded) -> String {
    match masked {
        None => field.clone(),
        Some((mask, turned)) => {
            let form = if *form == Form::States { Form::Bits } else { *form };
            let turned = match turned.iter().all(|byte| *byte == 0) {
                true => String::new(),
                false => format!(" ^ {}", show(form, turned)),
            };
            format!("{field} & {}{turned}", show(form, mask))
        }
    }
}

const FIB_FLAGS: [(u32, &str); 5] = [(1, "saddr"), (2, "daddr"), (4, "mark"), (8, "iif"), (16, "oif")];

/// Steps that need no register.
fn alone(name: &str, of: Attributes<'_>) -> Option<String> {
    Some(match name {
        "counter" => format!("counter packets {} bytes {}", of.number(2)?, of.number(1)?),
        "masq" => format!("masquerade{}", flags(of.number(1))),
        "notrack" => "notrack".to_owned(),
        "reject" => match of.number(1)? {
            1 => "reject with tcp reset".to_owned(),
            _ => format!("reject with icmp {}", of.number(2).unwrap_or_default()),
        },
        "log" => of.text(2).map_or_else(|| "log".to_owned(), |prefix| format!("log prefix {prefix:?}")),
        "limit" => {
            let over = if of.number(5) == Some(1) { "over " } else { "" };
            format!(
                "limit rate {over}{} each {} s burst {}",
                of.number(1)?,
                of.number(2)?,
                of.number(3).unwrap_or_default()
            )
        }
        "objref" => format!("object {:?}", of.text(2).or_else(|| of.text(5))?),
        "match" | "target" => xtables::words(name, of)?,
        _ => return None,
    })
}

/// Of a translation of addresses.
fn flags(number: Option<u64>) -> String {
    let known = [(4, "random"), (8, "persistent"), (16, "fully-random")];
    let number = u32::try_from(number.unwrap_or_default()).unwrap_or_default() & 28;
    if number == 0 { String::new() } else { format!(" {}", bits(number, &known)) }
}

/// A part of the packet.
fn payload(family: u8, of: Attributes<'_>) -> Option<(String, Form)> {
    const LINK: u64 = 0;
    const NETWORK: u64 = 1;
    const TRANSPORT: u64 = 2;
    const IPV6: u8 = 10;
    // One that writes into the packet.
    if of.get(5).is_some() {
        return None;
    }
    let (base, offset, length) = (of.number(2)?, of.number(3)?, of.number(4)?);
    let known = match (base, offset, length) {
        (NETWORK, 8, 16) => ("ip6 saddr", Form::Address6),
        (NETWORK, 24, 16) => ("ip6 daddr", Form::Address6),
        (NETWORK, 6, 1) if family == IPV6 => ("ip6 nexthdr", Form::Protocol),
        (NETWORK, 8, 1..16) if family == IPV6 => ("ip6 saddr", Form::Address6),
        (NETWORK, 24, 1..16) if family == IPV6 => ("ip6 daddr", Form::Address6),
        (NETWORK, 12, 1..=4) => ("ip saddr", Form::Address),
        (NETWORK, 16, 1..=4) => ("ip daddr", Form::Address),
        (NETWORK, 9, 1) => ("ip protocol", Form::Protocol),
        (TRANSPORT, 0, 2) => ("th sport", Form::Number),
        (TRANSPORT, 2, 2) => ("th dport", Form::Number),
        _ => {
            let base = match base {
                LINK => "ll",
                NETWORK => "nh",
                TRANSPORT => "th",
                _ => "ih",
            };
            return Some((format!("@{base},{},{}", offset * 8, length * 8), Form::Bytes));
        }
    };
    Some((known.0.to_owned(), known.1))
}

/// What is known of a packet beside its bytes, by `enum nft_meta_keys`.
fn meta(key: u64) -> Option<(&'static str, Form)> {
    const KEYS: [(&str, Form); 19] = [
        ("meta length", Form::Bits),
        ("meta protocol", Form::Bytes),
        ("meta priority", Form::Bits),
        ("meta mark", Form::Bits),
        ("iif", Form::Bits),
        ("oif", Form::Bits),
        ("iifname", Form::Name),
        ("oifname", Form::Name),
        ("iiftype", Form::Bytes),
        ("oiftype", Form::Bytes),
        ("meta skuid", Form::Bits),
        ("meta skgid", Form::Bits),
        ("meta nftrace", Form::Bytes),
        ("meta rtclassid", Form::Bits),
        ("meta secmark", Form::Bits),
        ("meta nfproto", Form::Number),
        ("meta l4proto", Form::Protocol),
        ("meta ibrname", Form::Name),
        ("meta obrname", Form::Name),
    ];
    KEYS.get(usize::try_from(key).ok()?).copied()
}

/// What is known of its connection, by `enum nft_ct_keys`.
fn connection(key: u64) -> Option<(&'static str, Form)> {
    const KEYS: [(&str, Form); 13] = [
        ("state", Form::States),
        ("direction", Form::Number),
        ("status", Form::Bits),
        ("mark", Form::Bits),
        ("secmark", Form::Bits),
        ("expiration", Form::Bits),
        ("helper", Form::Bytes),
        ("l3proto", Form::Number),
        ("saddr", Form::Address),
        ("daddr", Form::Address),
        ("protocol", Form::Protocol),
        ("proto-src", Form::Number),
        ("proto-dst", Form::Number),
    ];
    KEYS.get(usize::try_from(key).ok()?).copied()
}
