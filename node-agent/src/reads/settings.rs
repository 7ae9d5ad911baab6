//! Settings of the kernel, as sysctl(8) prints them.

use std::io::{self, Read, Write};

/// Of the value of one.
const VALUE_BYTES: u64 = 4096;

/// Prints all that there are, and then says which there are not.
pub(super) fn print(found: Vec<(String, Result<impl Read, String>)>, out: &mut dyn Write) -> io::Result<()> {
    let mut problems = Vec::new();
    for (name, file) in found {
        let mut value = Vec::new();
        let read = file.and_then(|file| {
            file.take(VALUE_BYTES).read_to_end(&mut value).map_err(|error| error.to_string())
        });
        match read {
            Ok(_) => {
                for line in String::from_utf8_lossy(&value).trim_end().lines() {
                    writeln!(out, "{name} = {line}")?;
                }
            }
            Err(why) => problems.push(format!("{name}: {why}")),
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(io::Error::other(problems.join("; "))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_printed_and_what_is_not_is_said() {
        let mut out = Vec::new();
        let found = vec![
            ("vm.a".to_owned(), Ok(&b"10\n"[..])),
            ("vm.b".to_owned(), Err("there is no such setting".to_owned())),
            ("vm.c".to_owned(), Ok(&b"1\t2\n3\n"[..])),
        ];
        let failed = print(found, &mut out).unwrap_err();
        assert_eq!(String::from_utf8(out).unwrap(), "vm.a = 10\nvm.c = 1\t2\nvm.c = 3\n");
        assert_eq!(failed.to_string(), "vm.b: there is no such setting");
    }
}
