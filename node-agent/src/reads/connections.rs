//! The kernel's table of connections, in the words of conntrack(8).

use std::io::{self, BufRead, Write};

use super::opened::odd;

/// Its entries, from `/proc/net/nf_conntrack`, which puts the family before each and a zone into it.
pub(super) fn print(file: impl BufRead, out: &mut dyn Write) -> io::Result<()> {
    for line in file.lines() {
        let line = line?;
        let mut fields = line.split_ascii_whitespace();
        let (Some(_), Some(_), Some(protocol)) = (fields.next(), fields.next(), fields.next()) else {
            return Err(odd(&line));
        };
        write!(out, "{protocol:<8}")?;
        for field in fields.filter(|field| *field != "zone=0") {
            write!(out, " {field}")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// Its counters, a line for each processor, from `/proc/net/stat/nf_conntrack`.
pub(super) fn print_counters(file: impl BufRead, out: &mut dyn Write) -> io::Result<()> {
    let mut lines = file.lines();
    let names = lines.next().transpose()?.unwrap_or_default();
    let names: Vec<&str> = names.split_ascii_whitespace().collect();
    for (processor, line) in lines.enumerate() {
        write!(out, "cpu={processor}")?;
        for (name, number) in names.iter().zip(numbers(&line?)?) {
            write!(out, " {name}={number}")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// How many entries it has, which every line says.
pub(super) fn print_count(file: impl BufRead, out: &mut dyn Write) -> io::Result<()> {
    let mut lines = file.lines();
    let names = lines.next().transpose()?.unwrap_or_default();
    let place = names.split_ascii_whitespace().position(|name| name == "entries");
    let line = lines.next().transpose()?.unwrap_or_default();
    let entries = place.and_then(|place| numbers(&line).ok()?.get(place).copied());
    writeln!(out, "{}", entries.ok_or_else(|| odd(&names))?)
}

fn numbers(line: &str) -> io::Result<Vec<u64>> {
    let numbers = line.split_ascii_whitespace().map(|number| u64::from_str_radix(number, 16));
    numbers.collect::<Result<_, _>>().map_err(|_| odd(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(print: impl Fn(&mut Vec<u8>) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        print(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_table_is_shown_as_conntrack_shows_it() {
        let entry = "ipv4     2 tcp      6 431999 ESTABLISHED src=10.0.0.5 dst=10.0.0.1 sport=5 dport=443 src=10.0.0.1 dst=10.0.0.5 sport=443 dport=5 [ASSURED] mark=0 zone=0 use=2\n";
        let expected = "tcp      6 431999 ESTABLISHED src=10.0.0.5 dst=10.0.0.1 sport=5 dport=443 src=10.0.0.1 dst=10.0.0.5 sport=443 dport=5 [ASSURED] mark=0 use=2\n";
        assert_eq!(shown(|out| print(entry.as_bytes(), out)), expected);
        let stat = "entries  found insert_failed drop\n0000001f  00000000 00000003 00000010\n0000001f  00000001 00000000 00000000\n";
        assert_eq!(
            shown(|out| print_counters(stat.as_bytes(), out)),
            "cpu=0 entries=31 found=0 insert_failed=3 drop=16\ncpu=1 entries=31 found=1 insert_failed=0 drop=0\n"
        );
        assert_eq!(shown(|out| print_count(stat.as_bytes(), out)), "31\n");
        assert!(print_count(&b"x\n"[..], &mut Vec::new()).is_err());
        assert!(print_counters(&b"x\ny\n"[..], &mut Vec::new()).is_err());
    }
}
