//! The kernel's table of connections, without room in which it drops new ones.

use std::path::Path;

use super::{
    condition::{Edge, Finding, percent, permille},
    sample::{Seen, number, text},
};

const KIND: &str = "kestrel.ai/ConntrackPressure";

/// Pressure begins when so much of the table is used, in percent.
const HIGH: u64 = 90;

/// So many looks in a row at which connections were refused are trouble, and so many at which
/// none was are its end: single ones are lost to races that do no harm.
const LOOKS: u32 = 3;

/// The table of the host's network, from its start on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// Connections that it holds.
    pub entries: u64,
    /// Connections that it may hold.
    pub most: u64,
    /// Connections that could not be put into it.
    pub refused: u64,
}

/// Reads `nf_conntrack` in `stat`, which is `/proc/1/net/stat` of the host, and the size of the
/// table, which is the same for all networks.
pub(super) fn read(stat: &Path, proc: &Path) -> Seen<Table> {
    let path = stat.join("nf_conntrack");
    let (entries, refused) =
        parse(&text(&path)?).ok_or_else(|| format!("{}: not in the kernel's form", path.display()))?;
    Ok(Table { entries, most: number(&proc.join("sys/net/netfilter/nf_conntrack_max"))?, refused })
}

/// Entries, and the sum of `insert_failed` and `drop` over all processors. The first line names
/// the columns; numbers are hexadecimal, and each line has the same number of entries.
fn parse(stat: &str) -> Option<(u64, u64)> {
    let mut lines = stat.lines();
    let names: Vec<_> = lines.next()?.split_whitespace().collect();
    let column = |name: &str| names.iter().position(|it| *it == name);
    let (entries, failed, dropped) = (column("entries")?, column("insert_failed")?, column("drop")?);
    let (mut all, mut refused) = (None, 0_u64);
    for line in lines {
        let numbers: Vec<_> =
            line.split_whitespace().map(|it| u64::from_str_radix(it, 16)).collect::<Result<_, _>>().ok()?;
        all = Some(*numbers.get(entries)?);
        refused = refused.checked_add(*numbers.get(failed)?)?.checked_add(*numbers.get(dropped)?)?;
    }
    Some((all?, refused))
}

/// Whether the table is nearly full, or refuses connections.
#[derive(Debug, Default)]
pub(super) struct Conntrack {
    full: Edge,
    refused: Option<u64>,
    /// Looks in a row that say otherwise than `is_refusing`.
    other: u32,
    is_refusing: bool,
}

impl Conntrack {
    pub(super) fn judge(&mut self, table: &Seen<Table>) -> Finding {
        let Table { entries, most, refused } = match table {
            Ok(table) => *table,
            Err(why) => return Finding::unseen(KIND, why),
        };
        // The kernel's counters have 32 bits.
        let before = self.refused.replace(refused).filter(|before| *before <= refused);
        let more = before.map_or(0, |before| refused - before);
        self.other = if (more > 0) == self.is_refusing { 0 } else { self.other + 1 };
        if self.other >= LOOKS {
            (self.is_refusing, self.other) = (!self.is_refusing, 0);
        }
        let used = if most == 0 { 0 } else { permille(entries, most) };
        let reason = if self.full.is_over(used, HIGH * 10) {
            Some("ConntrackNearlyFull")
        } else {
            self.is_refusing.then_some("ConntrackInsertFails")
        };
        let message = format!(
            "{entries} of {most} entries ({}) of the table of connections are used, {more} connections could not \
             be put into it since the last look; pressure begins at {HIGH} % (net.netfilter.nf_conntrack_max)",
            percent(used)
        );
        Finding::trouble(KIND, reason, "ConntrackSufficient", message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `/proc/net/stat/nf_conntrack` of Linux 6.18 on two processors, with other numbers.
    const STAT: &str = "\
entries  clashres found new invalid ignore delete chainlength insert insert_failed drop early_drop icmp_error  expect_new expect_create expect_delete search_restart
0000001f  00000000 00000000 00000000 00000005 00000000 00000000 00000002 00000000 00000003 00000010 00000000 00000000  00000000 00000000 00000000 00000000
0000001f  00000000 00000000 00000000 00000001 00000000 00000000 00000002 00000000 00000001 00000000 00000000 00000000  00000000 00000000 00000000 00000000
";

    #[test]
    fn the_kernels_text_is_read() {
        assert_eq!(parse(STAT), Some((31, 20)));
        assert_eq!(parse(""), None);
        assert_eq!(parse("entries insert_failed\n1 2\n"), None);
        assert_eq!(parse("entries insert_failed drop\n"), None);
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("sys/net/netfilter")).unwrap();
        std::fs::write(root.path().join("nf_conntrack"), STAT).unwrap();
        let missing = read(root.path(), root.path()).unwrap_err();
        assert!(missing.contains("nf_conntrack_max"), "{missing}");
        std::fs::write(root.path().join("sys/net/netfilter/nf_conntrack_max"), "262144\n").unwrap();
        assert_eq!(read(root.path(), root.path()), Ok(Table { entries: 31, most: 262_144, refused: 20 }));
    }

    #[test]
    fn a_table_that_fills_up_or_refuses_is_trouble_until_it_clearly_is_not() {
        let mut conntrack = Conntrack::default();
        let mut judge = |entries, refused| {
            conntrack.judge(&Ok(Table { entries, most: 1000, refused })).reason.into_owned()
        };
        let (well, full, fails) = ("ConntrackSufficient", "ConntrackNearlyFull", "ConntrackInsertFails");
        assert_eq!([judge(899, 7), judge(900, 7), judge(720, 7), judge(719, 7)], [well, full, full, well]);
        assert_eq!(
            [judge(1, 9), judge(1, 9), judge(1, 10), judge(1, 11), judge(1, 12)],
            [well, well, well, well, fails]
        );
        assert_eq!(
            [judge(1, 12), judge(1, 13), judge(1, 13), judge(1, 0), judge(1, 0)],
            [fails, fails, fails, fails, well]
        );
    }
}
