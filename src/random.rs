//! Random numbers on the host: a function of what they are for, the same on every device and machine.

/// What a stream decides. The numbers are part of what is drawn: never reuse one.
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

/// The SplitMix64 generator of Steele, Lea and Flood (2014).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// The stream of a step. Different arguments give unrelated streams.
    pub fn new(seed: u64, step: u64, purpose: Purpose) -> Self {
        let mut random = Self(seed);
        for part in [step, purpose as u64] {
            random.0 = random.next() ^ part;
        }
        Self(random.next())
    }

    /// 64 random bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1), a multiple of 2⁻²³: exact in f32, and a product with it is below its other factor.
    pub fn uniform(&mut self) -> f64 {
        (self.next() >> 41) as f64 / (1u64 << 23) as f64
    }

    /// Uniform in 0..`count`, which is not 0.
    pub fn below(&mut self, count: usize) -> usize {
        // The bias is count / 2⁶⁴.
        ((self.next() as u128 * count as u128) >> 64) as usize
    }

    /// Standard normal, by Box and Muller.
    pub fn normal(&mut self) -> f64 {
        let unit = |bits: u64| ((bits >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        let (radius, angle) = (unit(self.next()), unit(self.next()));
        (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_argument_changes_the_stream_and_nothing_else_does() {
        let first = |seed, step, purpose| Random::new(seed, step, purpose).next();
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

    #[test]
    fn numbers_have_their_moments() {
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
        // Within four deviations of a mean over 20,000: of a uniform number, and of powers of a normal one.
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
