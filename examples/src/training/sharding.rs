//! How a batch is divided into shards, and how these are encoded.

use std::fmt;
use std::thread;

use anyhow::{Result, ensure};
use burn::tensor::Device;
use burn_contrastive::sharded::Sharding;
use serde::{Deserialize, Serialize};

use super::device::is_cpu;
use crate::number::counted;

/// How a batch is divided and encoded. The loss is that of the whole batch, and so are its
/// gradients, up to rounding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardingConfig {
    /// How shards are encoded.
    pub mode: ShardingMode,
    /// Pairs a shard; null for 32, or where `mode` says otherwise. It decides rounding, so it does
    /// not depend on the number of cores.
    pub pairs: Option<usize>,
    /// Shards encoded at the same time, where they are kept: each has a thread, and the activations
    /// of all are in memory either way. Null for the number of cores on a CPU, else for 1. No
    /// influence on the results.
    ///
    /// With dropout, at most 1, which null then is: Burn has one generator for all threads, and
    /// what several draw from it at a time is not the same twice.
    pub at_once: Option<usize>,
}

/// How shards are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ShardingMode {
    /// As `keep`; but without `pairs`, a batch is one shard where no CPU computes.
    Auto,
    /// Once, several at the same time, with the activations of all of them in memory.
    Keep,
    /// Twice, one after another, with the activations of one of them in memory.
    Recompute,
    /// A batch is one shard, whatever `pairs`.
    Off,
}

/// What the settings come to for a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Division {
    /// Pairs of a batch.
    pub batch_size: usize,
    /// Pairs of a shard; the last has what is left.
    pub pairs: usize,
    /// Shards encoded at the same time.
    pub at_once: usize,
    /// Whether shards are encoded a second time instead of kept.
    pub recompute: bool,
}

/// Pairs of a shard if nothing else is said: the fastest of 16, 32 and 64 for the small model on
/// two cores (`docs/benchmarks.md`).
const PAIRS: usize = 32;

impl Default for ShardingConfig {
    fn default() -> Self {
        Self {
            mode: ShardingMode::Auto,
            pairs: None,
            at_once: None,
        }
    }
}

impl ShardingConfig {
    /// Checks the values, for a model with or without dropout.
    ///
    /// # Errors
    ///
    /// Names the setting that is out of range, and says what to set.
    pub fn check(&self, dropout: bool) -> Result<()> {
        for (key, value) in [("pairs", self.pairs), ("at_once", self.at_once)] {
            ensure!(
                value != Some(0),
                "sharding.{key} must be at least 1, or null"
            );
        }
        if let Some(at_once @ 2..) = self.at_once {
            ensure!(
                !dropout,
                "sharding.at_once = {at_once} and dropout: threads would draw from Burn's one \
                 generator in no order, and no run could be repeated; set sharding.at_once to 1 \
                 or null, or the model's dropout to 0"
            );
            ensure!(
                self.mode != ShardingMode::Recompute,
                "sharding.at_once = {at_once}, but sharding.mode = recompute encodes shards one \
                 after another; set sharding.at_once to 1 or null, or sharding.mode to keep"
            );
        }
        Ok(())
    }

    /// What the settings come to for batches of `batch_size` pairs on `device`.
    pub fn division(&self, batch_size: usize, dropout: bool, device: &Device) -> Division {
        let is_cpu = is_cpu(device);
        let pairs = match (self.mode, self.pairs) {
            (ShardingMode::Off, _) => batch_size,
            (_, Some(pairs)) => pairs,
            (ShardingMode::Auto, None) if !is_cpu => batch_size,
            (_, None) => PAIRS,
        };
        let pairs = pairs.min(batch_size);
        let recompute = self.mode == ShardingMode::Recompute;
        let by_device = || {
            if is_cpu && !dropout && !recompute {
                thread::available_parallelism().map_or(1, usize::from)
            } else {
                1
            }
        };
        let at_once = self.at_once.unwrap_or_else(by_device);
        Division {
            batch_size,
            pairs,
            at_once: at_once.min(batch_size.div_ceil(pairs)),
            recompute,
        }
    }
}

impl Division {
    /// The library's step of such shards.
    pub fn sharding(&self) -> Sharding {
        if self.recompute {
            Sharding::recompute()
        } else {
            Sharding::keep(self.at_once)
        }
    }
}

/// Such as "4 shards of 32 pairs, 2 at once".
impl fmt::Display for Division {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let shards = self.batch_size.div_ceil(self.pairs);
        let (shards, pairs) = (counted(shards, "shard"), counted(self.pairs, "pair"));
        write!(f, "{shards} of {pairs}, ")?;
        if self.recompute {
            write!(f, "encoded twice")
        } else {
            write!(f, "{} at once", self.at_once)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(mode: ShardingMode, pairs: Option<usize>, at_once: Option<usize>) -> ShardingConfig {
        ShardingConfig {
            mode,
            pairs,
            at_once,
        }
    }

    #[cfg(feature = "flex")]
    #[test]
    fn the_settings_say_how_a_batch_is_divided() {
        use ShardingMode::{Auto, Keep, Off, Recompute};
        let cores = thread::available_parallelism().map_or(1, usize::from);
        for (mode, pairs, at_once, expected) in [
            (Auto, None, None, (32, cores.min(4), false)),
            (Auto, Some(50), Some(2), (50, 2, false)),
            (Keep, Some(1_000), Some(9), (128, 1, false)),
            (Keep, Some(1), Some(usize::MAX), (1, 128, false)),
            (Recompute, None, None, (32, 1, true)),
            (Recompute, Some(usize::MAX), Some(1), (128, 1, true)),
            (Off, Some(3), Some(9), (128, 1, false)),
        ] {
            let config = config(mode, pairs, at_once);
            config.check(false).unwrap();
            let division = config.division(128, false, &Device::flex());
            let found = (division.pairs, division.at_once, division.recompute);
            assert_eq!(found, expected, "{config:?}");
        }
    }

    #[cfg(feature = "flex")]
    #[test]
    fn dropout_draws_one_shard_at_a_time() {
        let auto = ShardingConfig::default();
        auto.check(true).unwrap();
        assert_eq!(auto.division(128, true, &Device::flex()).at_once, 1);
        let by_hand = config(ShardingMode::Auto, None, Some(2));
        let error = by_hand.check(true).unwrap_err().to_string();
        assert!(
            error.contains("set sharding.at_once to 1 or null"),
            "{error}"
        );
    }

    #[test]
    fn values_out_of_range_are_refused_by_name() {
        for (config, expected) in [
            (
                config(ShardingMode::Auto, Some(0), None),
                "sharding.pairs must be at least 1, or null",
            ),
            (
                config(ShardingMode::Keep, None, Some(0)),
                "sharding.at_once must be at least 1, or null",
            ),
            (
                config(ShardingMode::Recompute, None, Some(2)),
                "sharding.mode to keep",
            ),
        ] {
            let error = config.check(false).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_division_is_said_in_words() {
        let mut division = Division {
            batch_size: 100,
            pairs: 32,
            at_once: 2,
            recompute: false,
        };
        assert_eq!(division.to_string(), "4 shards of 32 pairs, 2 at once");
        division.recompute = true;
        assert_eq!(division.to_string(), "4 shards of 32 pairs, encoded twice");
    }
}
