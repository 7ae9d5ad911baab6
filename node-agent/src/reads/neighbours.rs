//! Neighbours of IPv4, from `/proc/net/arp`.

use std::io::{self, BufRead, Write};

use super::opened::odd;

/// Those at one interface, or all.
pub(super) fn print(file: impl BufRead, only: Option<&str>, out: &mut dyn Write) -> io::Result<()> {
    for line in file.lines().skip(1) {
        let line = line?;
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [address, _, flags, hardware, _, interface] = fields[..] else { return Err(odd(&line)) };
        if only.is_some_and(|only| only != interface) {
            continue;
        }
        let flags = flags.strip_prefix("0x").and_then(|flags| u32::from_str_radix(flags, 16).ok());
        match flags.ok_or_else(|| odd(&line))? {
            flags if flags & 4 != 0 => {
                writeln!(out, "{address} dev {interface} lladdr {hardware} PERMANENT")?
            }
            flags if flags & 2 != 0 => writeln!(out, "{address} dev {interface} lladdr {hardware} COMPLETE")?,
            _ => writeln!(out, "{address} dev {interface} INCOMPLETE")?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_that_do_not_answer_are_told_apart() {
        let table = "\
IP address       HW type     Flags       HW address            Mask     Device
10.0.0.1         0x1         0x2         02:00:00:00:00:01     *        eth0
10.0.0.9         0x1         0x0         00:00:00:00:00:00     *        eth0
10.244.1.4       0x1         0x6         02:00:00:00:00:04     *        cni0
";
        let shown = |only| {
            let mut out = Vec::new();
            print(table.as_bytes(), only, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            shown(Some("eth0")),
            "10.0.0.1 dev eth0 lladdr 02:00:00:00:00:01 COMPLETE\n10.0.0.9 dev eth0 INCOMPLETE\n"
        );
        assert!(shown(None).ends_with("10.244.1.4 dev cni0 lladdr 02:00:00:00:00:04 PERMANENT\n"));
        assert!(print("head\nx\n".as_bytes(), None, &mut Vec::new()).is_err());
    }
}
