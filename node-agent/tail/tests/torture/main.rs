//! Nothing is lost that stayed on the disk, nothing arrives twice that is known
//! to have arrived, and what is counted as lost is what was lost: whatever
//! happens, in any order.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test may stop at the first surprise

mod chunks;
mod world;

use std::collections::BTreeSet;

use world::World;

/// A walk that failed is walked again with the seed that it named.
fn first_seed() -> u64 {
    let given = std::env::var("KESTREL_SEED").ok().and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| fastrand::u64(..1 << 32))
}

#[test]
fn every_line_has_the_fate_it_should() {
    // As in other suites: long when everything is asked for.
    let (walks, steps) = if std::env::var_os("KESTREL_FULL").is_some() { (100, 2_000) } else { (8, 400) };
    let seed = first_seed();
    let mut fates = BTreeSet::new();
    for seed in seed..seed + walks {
        let mut world = World::new(seed, 4);
        (0..steps).for_each(|_| world.step());
        world.finish();
        fates.append(&mut world.fates());
    }
    assert!(fates.is_superset(&["saved", "lost", "arrived"].into()), "seed {seed}: {fates:?}");
}
