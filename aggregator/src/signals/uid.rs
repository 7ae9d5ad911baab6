//! UIDs of signals about what has none of its own.

/// The same for the same `text`, whoever tells of it: FNV-1a.
pub(crate) fn hash(text: &str) -> u128 {
    let basis = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    text.bytes().fold(basis, |hash: u128, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    })
}

/// A UUID of version 8 (RFC 9562, section 5.8), whose bits have the meaning that we give them.
pub(super) fn uuid(id: u128) -> String {
    let id = id & !(0xf << 76) & !(0x3 << 62) | 0x8 << 76 | 0x2 << 62;
    let hex = format!("{id:032x}");
    let (a, rest) = hex.split_at(8);
    let (b, rest) = rest.split_at(4);
    let (c, rest) = rest.split_at(4);
    let (d, e) = rest.split_at(4);
    format!("{a}-{b}-{c}-{d}-{e}")
}
