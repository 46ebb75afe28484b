//! Seeds as functions of what they are for, so that a resumed run draws what an uninterrupted one draws.

use super::checkpoint::Cursor;

/// The seed of dropout in one batch.
pub fn batch_seed(seed: u64, cursor: Cursor) -> u64 {
    let place = ((cursor.epoch as u64) << 32) ^ cursor.batch as u64;
    mix(seed ^ mix(place))
}

/// The finaliser of SplitMix64 (Steele et al., 2014): neighbouring inputs give unrelated outputs.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_place_and_seed_draws_anew() {
        let mut seen = HashSet::new();
        for seed in 0..8 {
            for epoch in 0..8 {
                for batch in 0..8 {
                    assert!(seen.insert(batch_seed(seed, Cursor { epoch, batch })));
                }
            }
        }
    }
}
