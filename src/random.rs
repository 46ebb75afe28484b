//! Random values on the host: a function of a seed, a step and a purpose, on every machine.

use chacha20::ChaCha8Rng;
use chacha20::rand_core::{Rng, SeedableRng};

/// What a stream is drawn for. The values are part of the key of a stream: never reuse one.
#[derive(Clone, Copy, Debug)]
#[repr(u64)]
pub(crate) enum Purpose {
    HardTexts = 1,
    HardImages = 2,
    Noise = 3,
    Masking = 4,
    ClustersOfTexts = 5,
    ClustersOfImages = 6,
}

/// A stream of ChaCha with 8 rounds, a fixed algorithm. Its bits become values here: the
/// distributions of `rand` may change between versions.
pub(crate) struct Random(ChaCha8Rng);

impl Random {
    /// The stream of a step. Different arguments give independent streams.
    pub fn new(seed: u64, step: u64, purpose: Purpose) -> Self {
        let mut key = [0; 32];
        for (bytes, part) in key.chunks_exact_mut(8).zip([seed, step, purpose as u64]) {
            bytes.copy_from_slice(&part.to_le_bytes());
        }
        Self(ChaCha8Rng::from_seed(key))
    }

    /// Uniform in [0, 1), a multiple of 2⁻²³: exact in f32, and `x·uniform() < x` in f32 too.
    pub fn uniform(&mut self) -> f64 {
        (self.0.next_u64() >> 41) as f64 / (1u64 << 23) as f64
    }

    /// Uniform in `0..count`; `count` must not be 0. The bias is `count / 2⁶⁴`.
    pub fn below(&mut self, count: usize) -> usize {
        ((self.0.next_u64() as u128 * count as u128) >> 64) as usize
    }

    /// Standard normal, by the transform of Box and Muller.
    pub fn normal(&mut self) -> f64 {
        let mut unit = || ((self.0.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        let (radius, angle) = (unit(), unit());
        (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_depends_on_seed_step_and_purpose_alone() {
        let first = |seed, step, purpose| Random::new(seed, step, purpose).below(usize::MAX);
        let base = first(1, 2, Purpose::Noise);
        assert_eq!(base, first(1, 2, Purpose::Noise));
        for other in [
            first(2, 2, Purpose::Noise),
            first(1, 3, Purpose::Noise),
            first(2, 1, Purpose::Noise),
            first(1, 2, Purpose::Masking),
        ] {
            assert_ne!(base, other);
        }
    }

    /// A resumed run draws what the run would have drawn, also after an update of the crates.
    #[test]
    fn the_first_values_of_a_stream_never_change() {
        let mut random = Random::new(7, 3, Purpose::Masking);
        let values: Vec<_> = (0..4).map(|_| random.below(1000)).collect();
        assert_eq!(values, [399, 450, 522, 292]);
    }

    #[test]
    fn moments_are_those_of_the_distributions() {
        let mut random = Random::new(7, 0, Purpose::Noise);
        let count = 20_000;
        let mut moments = [0.0; 4];
        for _ in 0..count {
            let (u, z) = (random.uniform(), random.normal());
            assert!((0.0..1.0).contains(&u));
            for (sum, x) in moments.iter_mut().zip([u, z, z * z, z.powi(4)]) {
                *sum += x / count as f64;
            }
        }
        // Means over 20,000 draws lie within four of their standard deviations.
        let expected = [(0.5, 1.0 / 12.0), (0.0, 1.0), (1.0, 2.0), (3.0, 96.0)];
        for (moment, (mean, variance)) in moments.iter().zip(expected) {
            let deviation = f64::sqrt(variance / count as f64);
            assert!((moment - mean).abs() < 4.0 * deviation, "{moments:?}");
        }
        let mut seen = [0; 3];
        (0..3000).for_each(|_| seen[random.below(3)] += 1);
        assert!(seen.iter().all(|&n| n > 900), "{seen:?}");
    }
}
