//! What the paths of one route have in common.
//!
//! A segment that looks like the name of one thing among many is replaced by what kind of name it is: `:id`, `:uuid`, `:hash`
//! or `:long`. Query strings, fragments and path parameters (`;jsessionid=…`) are left out, also where their sign is percent-encoded,
//! once or more often: they may hold secrets.

use memchr::{memchr2_iter, memchr3_iter, memmem};

/// In place of paths that there was no room to tell apart. No template has this form.
pub const OTHER: &str = ":other";

/// A longer segment is no name that somebody gave.
const LONG: usize = 64;
/// A segment with as many bytes may be a token, also if it has no digits.
const TOKEN: usize = 20;
/// Bytes of a template, about; what comes later in the path is left out.
const MOST_BYTES: usize = 200;
/// A shorter segment with capitals, small letters and digits may be a name.
const CODE: usize = 6;
/// In a longer one chance leaves longer words.
const LONG_CODE: usize = 12;
/// In place of what was left out.
const REST: &[u8] = b"/:rest";

/// Appends the template of `path` to `out`.
pub fn write(path: &[u8], out: &mut Vec<u8>) {
    let path = without_origin(before_query(path));
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

/// What is before a query or a fragment.
pub(crate) fn before_query(path: &[u8]) -> &[u8] {
    let is_end = |at: &usize| matches!(sign(path.get(*at..).unwrap_or_default()), b'?' | b'#');
    let end = memchr3_iter(b'?', b'#', b'%', path).find(is_end);
    end.and_then(|end| path.get(..end)).unwrap_or(path)
}

/// What is before the first parameter of a path, percent-encoded or not, if `is_path` of what is before it.
pub(crate) fn before_parameter(text: &[u8], is_path: impl Fn(&[u8]) -> bool) -> &[u8] {
    let before = |at: usize| text.get(..at).filter(|before| sign(&text[at..]) == b';' && is_path(before));
    memchr2_iter(b';', b'%', text).find_map(before).unwrap_or(text)
}

/// The sign at the beginning, also a percent-encoded one; of those, the ones that end something.
fn sign(text: &[u8]) -> u8 {
    let Some(mut digits) = text.strip_prefix(b"%") else { return text.first().copied().unwrap_or(0) };
    // What was encoded more than once.
    while let Some(rest) = digits.strip_prefix(b"25") {
        digits = rest;
    }
    match digits {
        [b'3', b'f' | b'F', ..] => b'?',
        [b'2', b'3', ..] => b'#',
        [b'3', b'b' | b'B', ..] => b';',
        [b'4', b'0', ..] => b'@',
        _ => 0,
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
            b';' | b'@' | b'%' => SPECIAL,
            _ => 0,
        };
        at += 1;
    }
    kinds
};

/// The segment itself, or what stands for it.
fn kept(segment: &[u8]) -> &[u8] {
    let kinds = segment.iter().fold(0, |kinds, byte| kinds | KINDS[usize::from(*byte)]);
    let length = segment.len();
    let is_mixed = kinds & UPPER != 0 && kinds & LOWER != 0 && length >= TOKEN;
    if kinds & (DIGIT | SPECIAL) == 0 && length <= LONG && !is_mixed {
        return segment;
    }
    if kinds == DIGIT && length <= LONG {
        return b":id";
    }
    if kinds & SPECIAL != 0 {
        let is_special = |at: &usize| matches!(sign(segment.get(*at..).unwrap_or_default()), b';' | b'@');
        let mut specials = memchr3_iter(b';', b'@', b'%', segment).filter(is_special).peekable();
        if specials.peek().is_some() {
            let end = specials.find(|at| segment.get(*at..).is_some_and(|rest| sign(rest) == b';'));
            return match end {
                Some(end) => kept(segment.get(..end).unwrap_or_default()),
                // An address of somebody.
                None => b":id",
            };
        }
    }
    let (mut digits, mut numbers, mut run, mut longest, mut hex, mut letters, mut upper) =
        (0, 0, 0, 0, 0, 0, 0);
    for byte in segment {
        let kind = KINDS[usize::from(*byte)];
        hex += usize::from(kind & (DIGIT | HEX_LETTER) != 0);
        letters += usize::from(kind & (UPPER | LOWER) != 0);
        upper += usize::from(kind & UPPER != 0);
        if kind & DIGIT != 0 {
            digits += 1;
            numbers += usize::from(run == 0);
            run += 1;
            longest = longest.max(run);
        } else {
            run = 0;
        }
    }
    if length > LONG {
        return b":long";
    }
    let is_random = if is_mixed {
        // In names that somebody gave (`GetOrderByNumber`) a capital begins a word; where every letter is one by chance, it is every other.
        parts(segment) * 10 > length * 3 || upper * 2 > letters
    } else {
        length >= TOKEN && numbers >= 2 && digits + letters == length
    };
    if is_uuid(segment) {
        b":uuid"
    } else if hex == length && length >= 8 {
        b":hash"
    } else if longest >= 4 || length >= 16 && digits * 5 >= length || is_random || is_code(segment, kinds) {
        b":id"
    } else {
        segment
    }
}

/// Whether capitals, small letters and digits are in no order: the parts that a reader sees have two bytes or fewer each, of longer segments
/// two and a half. Names that somebody gave (`oauth2Callback`, `getUser2`) have few and longer ones.
fn is_code(segment: &[u8], kinds: u8) -> bool {
    const EACH: u8 = DIGIT | UPPER | LOWER;
    let length = segment.len();
    if kinds & EACH != EACH || kinds & SPECIAL != 0 || length < CODE {
        return false;
    }
    let parts = parts(segment);
    parts >= 4 && (parts * 2 >= length || length >= LONG_CODE && parts * 5 >= length * 2)
}

/// How many words and numbers a reader sees. A number of a version (`v2`) is no part of its own.
fn parts(segment: &[u8]) -> usize {
    let (mut parts, mut last, mut capitals, mut is_version) = (0, 0, 0, false);
    for byte in segment {
        let kind = KINDS[usize::from(*byte)] & (DIGIT | UPPER | LOWER);
        let begins = match (last, kind) {
            (_, 0) => false,
            // Of capitals the last one begins a word.
            (UPPER, LOWER) => capitals > 1,
            (_, DIGIT) => last != DIGIT && !is_version,
            _ => kind != last,
        };
        parts += usize::from(begins);
        capitals = if kind == UPPER { capitals + 1 } else { 0 };
        (last, is_version) = (kind, byte.eq_ignore_ascii_case(&b'v'));
    }
    parts
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
            ("/login%3Ftoken=abc/def", "/login"),
            ("/login%253ftoken=abc", "/login"),
            ("/page%23secret?x", "/page"),
            ("/cart%3Bjsessionid=abc/items", "/cart/items"),
            ("/cart%3bto=a%40b", "/cart"),
            ("/users/jane%40example.com/mail", "/users/:id/mail"),
            ("/users/jane%2540example.com", "/users/:id"),
            ("/a%20b/c", "/a%20b/c"),
            ("/reset/QwHxZGRpbjpvcGVuIHNlc2FtZQ", "/reset/:id"),
            ("/reset/aXqRtLmPzKwJvYbNcEdG", "/reset/:id"),
            ("/reset/jbswy3dpehpk3pxpjbswy3dpehpk3pxp", "/reset/:id"),
            ("/users/tz4a98xxat96iws9zmbrgj3a", "/users/:id"),
            ("/customers/NffrFeUfkk3Hib2W", "/customers/:id"),
            ("/shop.Orders/ListAllOrdersByCustomerNumber", "/shop.Orders/ListAllOrdersByCustomerNumber"),
            ("/shop.v1.Orders/GetOrderByNumber2", "/shop.v1.Orders/GetOrderByNumber2"),
            ("http://host:80/a/1", "/a/:id"),
            ("http://host", "/"),
            ("*", "/*"),
            ("//a", "//a"),
            (&format!("/x/{}", "y".repeat(65)), "/x/:long"),
            ("/kubernetes-v1-33-api", "/kubernetes-v1-33-api"),
            ("/v/dQw4w9WgXcQ", "/v/:id"),
            ("/s/aZ3kQ9x", "/s/:id"),
            ("/invite/Xk29-bQ4z", "/invite/:id"),
            ("/%C3%A9t%C3%A9", "/%C3%A9t%C3%A9"),
        ] {
            assert_eq!(template(path), expected, "{path}");
        }
        let deep = template(&"/segment".repeat(100));
        assert!(deep.ends_with("/segment/:rest") && deep.len() < 300, "{deep}");
    }

    #[test]
    fn words_with_a_number_in_them_are_names() {
        for name in [
            "iPhone15",
            "utf8Decode",
            "V2Beta",
            "v2Beta1",
            "getUser2",
            "oauth2Callback",
            "OAuth2Token",
            "getOrdersV2",
            "S3Bucket",
            "X509Cert",
            "B2BOrders",
            "K8sCluster",
            "is3DSecure",
            "Log4jConfig",
            "Ipv4Address",
            "EC2Instances",
            "GetOrderV2",
            "MP3Files",
            "Top10Lists",
            "getByIdV2",
            "rbacV1Beta1",
            "ListX509CertificatesV2",
            "ConvertMp3ToMp4Streaming",
            "ListAPIKeysForUSWest",
            "VerifyOAuth2TokenForAPIV3",
            "describeServiceCIDRV1beta1",
        ] {
            assert_eq!(template(&format!("/{name}")), format!("/{name}"));
        }
    }

    proptest! {
        #[test]
        fn names_of_whole_words_are_kept(
            first in "[a-z]{3,7}|[A-Z][a-z]{2,6}", number in "[1-9][0-9]?", second in "([A-Z][g-z]{2,8})?",
        ) {
            let name = format!("/{first}g{number}{second}");
            prop_assert_eq!(template(&name), name);
        }

        #[test]
        fn codes_without_an_order_are_folded(code in "([A-Z][0-9][a-z]|[a-z][0-9][A-Z]|[0-9][a-z][0-9][A-Z]){2,5}") {
            prop_assert!([":id", ":hash"].contains(&&template(&format!("/{code}"))[1..]), "{}", code);
        }

        #[test]
        fn of_any_bytes_little_goes_out_and_no_query(path in prop::collection::vec(any::<u8>(), 0..2000)) {
            let mut out = Vec::new();
            write(&path, &mut out);
            prop_assert!(out.starts_with(b"/") && out.len() <= MOST_BYTES + LONG + 2 + REST.len());
            prop_assert!(!out.iter().any(|byte| b"?#;@".contains(byte)));
        }

        #[test]
        fn what_follows_a_sign_stays_however_it_is_encoded(
            path in "/[a-z%/]{0,20}", sign in prop::sample::select(vec!["?", "#", ";", "%3F", "%23", "%3b", "%253f", "%252523", "%253B"]),
        ) {
            let template = template(&format!("{path}{sign}SECRET"));
            prop_assert!(!template.contains("SECRET"), "{}", template);
        }
    }
}
