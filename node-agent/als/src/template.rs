//! What the paths of one route have in common.
//!
//! A segment that looks like the name of one thing among many is replaced by what kind of name it is: `:id`, `:uuid`, `:hash`
//! or `:long`. Query strings, fragments and path parameters (`;jsessionid=…`) are left out: they may hold secrets.

use memchr::{memchr2, memmem};

/// In place of paths that there was no room to tell apart. No template has this form.
pub const OTHER: &str = ":other";

/// A longer segment is no name that somebody gave.
const LONG: usize = 64;
/// Bytes of a template, about; what comes later in the path is left out.
const MOST_BYTES: usize = 200;
/// In place of what was left out.
const REST: &[u8] = b"/:rest";

/// Appends the template of `path` to `out`.
pub fn write(path: &[u8], out: &mut Vec<u8>) {
    let path = memchr2(b'?', b'#', path).and_then(|end| path.get(..end)).unwrap_or(path);
    let path = without_origin(path);
    let path = path.strip_suffix(b"/").unwrap_or(path);
    let path = path.strip_prefix(b"/").unwrap_or(path);
    let begin = out.len();
    for segment in path.split(|byte| *byte == b'/') {
        if out.len() - begin > MOST_BYTES {
            out.extend_from_slice(REST);
            return;
        }
        out.push(b'/');
        out.extend_from_slice(kept(segment));
    }
}

/// Without `http://host` of a request to a proxy.
fn without_origin(path: &[u8]) -> &[u8] {
    if path.first() == Some(&b'/') {
        return path;
    }
    let Some(origin) = memmem::find(path, b"://").and_then(|at| path.get(at + 3..)) else { return path };
    let begin = origin.iter().position(|byte| *byte == b'/').unwrap_or(origin.len());
    origin.get(begin..).unwrap_or_default()
}

/// What a segment's bytes are, as bits.
const DIGIT: u8 = 1;
const HEX_LETTER: u8 = 2;
const UPPER: u8 = 4;
const LOWER: u8 = 8;
const SPECIAL: u8 = 16;

const KINDS: [u8; 256] = {
    let mut kinds = [0; 256];
    let mut at = 0;
    while at < 256 {
        let byte = at as u8;
        kinds[at] = match byte {
            b'0'..=b'9' => DIGIT,
            b'a'..=b'f' => HEX_LETTER | LOWER,
            b'A'..=b'F' => HEX_LETTER | UPPER,
            b'g'..=b'z' => LOWER,
            b'G'..=b'Z' => UPPER,
            b';' | b'@' => SPECIAL,
            _ => 0,
        };
        at += 1;
    }
    kinds
};

/// The segment itself, or what stands for it.
fn kept(segment: &[u8]) -> &[u8] {
    let kinds = segment.iter().fold(0, |kinds, byte| kinds | KINDS[usize::from(*byte)]);
    if kinds & (DIGIT | SPECIAL) == 0 && segment.len() <= LONG {
        return segment;
    }
    if kinds == DIGIT && segment.len() <= LONG {
        return b":id";
    }
    let (mut digits, mut run, mut longest, mut hex) = (0, 0, 0, 0);
    for byte in segment {
        let kind = KINDS[usize::from(*byte)];
        hex += usize::from(kind & (DIGIT | HEX_LETTER) != 0);
        if kind & DIGIT != 0 {
            digits += 1;
            run += 1;
            longest = longest.max(run);
        } else {
            run = 0;
        }
    }
    let length = segment.len();
    if kinds & SPECIAL != 0 {
        return match segment.iter().position(|byte| *byte == b';') {
            Some(end) => kept(segment.get(..end).unwrap_or_default()),
            // An address of somebody.
            None => b":id",
        };
    }
    if length > LONG {
        return b":long";
    }
    let is_mixed = kinds & UPPER != 0 && kinds & LOWER != 0 && digits >= 2;
    if is_uuid(segment) {
        b":uuid"
    } else if hex == length && length >= 8 {
        b":hash"
    } else if longest >= 4 || length >= 16 && digits * 5 >= length || length >= 20 && is_mixed {
        b":id"
    } else {
        segment
    }
}

fn is_uuid(segment: &[u8]) -> bool {
    segment.len() == 36
        && segment.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn template(path: &str) -> String {
        let mut out = Vec::new();
        write(path.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn names_of_single_things_are_folded_and_routes_are_kept() {
        for (path, expected) in [
            ("", "/"),
            ("/", "/"),
            ("/orders", "/orders"),
            ("/orders/", "/orders"),
            ("/orders/42?token=secret", "/orders/:id"),
            ("/orders#x", "/orders"),
            ("/orders/order-12345/items", "/orders/:id/items"),
            ("/api/v1/users", "/api/v1/users"),
            ("/api/v2beta1/k8s", "/api/v2beta1/k8s"),
            ("/u/3F2504E0-4F89-11D3-9A0C-0305E82C3301", "/u/:uuid"),
            ("/u/3F2504E0-4F89-11D3-9A0C-0305E82C330x", "/u/:id"),
            ("/blob/d41d8cd98f00b204e9800998ecf8427e", "/blob/:hash"),
            ("/commit/a1b2c3d4", "/commit/:hash"),
            ("/facade/deadbeef", "/facade/deadbeef"),
            ("/ulid/01ARZ3NDEKTSV4RRFFQ69G5FAV", "/ulid/:id"),
            ("/pods/web-7d9f8c6b5d-x2x4z", "/pods/:id"),
            ("/2024/11/22", "/:id/:id/:id"),
            ("/report-2024-11-22", "/:id"),
            ("/users/jane@example.com/mail", "/users/:id/mail"),
            ("/cart;jsessionid=ABCDEF0123/items", "/cart/items"),
            ("/cart;jsessionid=a@b", "/cart"),
            ("/shop.v1.Orders/GetOrderByNumber2", "/shop.v1.Orders/GetOrderByNumber2"),
            ("http://host:80/a/1", "/a/:id"),
            ("http://host", "/"),
            ("*", "/*"),
            ("//a", "//a"),
            (&format!("/x/{}", "y".repeat(65)), "/x/:long"),
            ("/kubernetes-v1-33-api", "/kubernetes-v1-33-api"),
        ] {
            assert_eq!(template(path), expected, "{path}");
        }
        let deep = template(&"/segment".repeat(100));
        assert!(deep.ends_with("/segment/:rest") && deep.len() < 300, "{deep}");
    }

    proptest! {
        #[test]
        fn of_any_bytes_little_goes_out_and_no_query(path in prop::collection::vec(any::<u8>(), 0..2000)) {
            let mut out = Vec::new();
            write(&path, &mut out);
            prop_assert!(out.starts_with(b"/") && out.len() <= MOST_BYTES + LONG + 2 + REST.len());
            prop_assert!(!out.iter().any(|byte| b"?#;@".contains(byte)));
        }
    }
}
