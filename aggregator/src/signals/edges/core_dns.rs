//! Lines of CoreDNS about names that it could not resolve.

/// What a line says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure<'a> {
    /// How often.
    pub(super) times: u64,
    /// What was asked for.
    pub(super) name: Option<&'a str>,
    /// Why: mostly whom it asked in vain.
    pub(super) why: &'a str,
}

/// What comes before what the plugin `errors` says (`plugin/errors/errors.go`).
const ERRORS: &str = "plugin/errors: ";

/// Reads a line in one of its two forms:
///
/// ```text
/// [ERROR] plugin/errors: 2 example.com. A: read udp 10.0.0.1:40000->192.0.2.1:53: i/o timeout
/// [ERROR] plugin/errors: 7 errors like '^read udp .* i/o timeout$' occurred in last 30s
/// ```
///
/// The number of the first is a code of DNS, and always that of a failure.
pub(super) fn read(line: &str) -> Option<Failure<'_>> {
    let (level, said) = line.split_once(ERRORS)?;
    if !level.contains("[ERROR]") {
        return None;
    }
    let (number, rest) = said.split_once(' ')?;
    let number = number.parse::<u64>().ok()?;
    if let Some((_, like)) = rest.split_once("errors like '") {
        let (why, _) = like.rsplit_once("' occurred in last ")?;
        return Some(Failure { times: number, name: None, why });
    }
    let (question, why) = rest.split_once(": ")?;
    let (name, _kind_of_record) = question.split_once(' ')?;
    // The address that it asked from is another one each time.
    let why = why.split_once("->").map_or(why, |(_, asked)| asked);
    Some(Failure { times: 1, name: Some(name.trim_end_matches('.')), why })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_forms_are_read_and_others_are_passed_over() {
        let one = read(
            "[ERROR] plugin/errors: 2 api.example.com. AAAA: read udp 10.244.0.3:41394->192.0.2.1:53: i/o timeout",
        );
        let expected = Failure { times: 1, name: Some("api.example.com"), why: "192.0.2.1:53: i/o timeout" };
        assert_eq!(one, Some(expected));
        let many =
            read("[ERROR] plugin/errors: 7 errors like '^read udp .* i/o timeout$' occurred in last 30s");
        assert_eq!(many, Some(Failure { times: 7, name: None, why: "^read udp .* i/o timeout$" }));
        let unreachable =
            read("[ERROR] plugin/errors: 2 a.b. A: dial udp 192.0.2.1:53: connect: network is unreachable");
        assert_eq!(unreachable.unwrap().why, "dial udp 192.0.2.1:53: connect: network is unreachable");
        for other in [
            "[INFO] 10.244.0.5:46321 - 3 \"A IN example.com. udp 29 false 512\" NXDOMAIN qr,rd,ra 104 0.02s",
            "[WARNING] plugin/errors: 2 example.com. A: no",
            "[ERROR] plugin/kubernetes: unable to list",
            "[ERROR] plugin/errors: example.com. A: no",
            "[ERROR] plugin/errors: 2",
        ] {
            assert_eq!(read(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn any_line_is_read_without_harm(line in "(\\[ERROR\\] plugin/errors: )?([0-9 .:>'-]|errors like '|' occurred in last |.){0,40}") {
            let _failure = read(&line);
        }
    }
}
