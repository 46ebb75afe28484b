//! Embeddings of both modalities as points of a plane.

use anyhow::{Context, Result, ensure};
use bhtsne::tSNE;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::ThreadPoolBuilder;
use serde::{Deserialize, Serialize};

use crate::number::counted;

/// The most pairs of a map.
pub const MAP_PAIRS: usize = 300;
/// The fewest pairs that a map says something of.
const FEWEST: usize = 8;
/// Neighbours that a point's distances are measured by: van der Maaten and Hinton's (2008) default.
const PERPLEXITY: f64 = 30.0;
/// How far from the middle the points start.
const START: f64 = 1e-2;

/// Pairs of an image and a caption as points of a plane, by t-SNE: near where their embeddings are
/// near.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Map {
    /// The images.
    pub images: Vec<[f64; 2]>,
    /// The captions: each belongs to the image of the same place.
    pub captions: Vec<[f64; 2]>,
}

/// Maps before and after training.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Maps {
    /// Of the model as it began.
    pub before: Option<Map>,
    /// Of the trained model.
    pub after: Option<Map>,
}

impl Map {
    /// The map of pairs whose embeddings these are, in `f64` on one thread: a function of them and
    /// the seed.
    ///
    /// # Errors
    ///
    /// Of fewer than eight pairs, where a number is not finite, and if no thread can be started.
    ///
    /// # Panics
    ///
    /// If there are not as many captions as images.
    pub fn of(images: &[Vec<f64>], captions: &[Vec<f64>], seed: u64) -> Result<Self> {
        assert_eq!(images.len(), captions.len(), "a map is of pairs");
        let points: Vec<&[f64]> = images.iter().chain(captions).map(|x| &x[..]).collect();
        ensure!(
            images.len() >= FEWEST,
            "of {} there is none, it needs {FEWEST}",
            counted(images.len(), "pair")
        );
        let mut all = points.iter().copied().flatten();
        ensure!(
            all.all(|value| value.is_finite()),
            "an embedding is not finite"
        );
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let start = (0..2 * points.len()).map(|_| rng.random_range(-START..START));
        let start: Vec<f64> = start.collect();
        // With more threads the order of sums, and with it the map, would be chance's.
        let pool = ThreadPoolBuilder::new().num_threads(1).build();
        let pool = pool.context("no thread for the map of embeddings")?;
        let values = pool.install(|| {
            let mut fit = tSNE::<f64, &[f64], 2>::new(&points);
            fit.perplexity(PERPLEXITY.min((points.len() - 1) as f64 / 3.0 - 1e-6))
                .initial_embedding(start)
                .exact(|a, b| distance(a, b));
            fit.embedding()
        });
        let (images, captions) = values.as_chunks().0.split_at(images.len());
        let map = Self {
            images: images.to_vec(),
            captions: captions.to_vec(),
        };
        let mut all = map.images.iter().chain(&map.captions).flatten();
        ensure!(
            all.all(|value| value.is_finite()),
            "a place of it is not finite"
        );
        Ok(map)
    }
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    let squares = a.iter().zip(b).map(|(a, b)| (a - b).powi(2));
    squares.sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pairs in three clusters that are far apart, captions beside their images.
    fn clusters() -> [Vec<Vec<f64>>; 2] {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let mut side = |shift: f64| {
            let point = |pair: usize| {
                let mut point = [shift; 5];
                point[pair % 3] += 10.0;
                point
                    .iter()
                    .map(|x| x + rng.random_range(-0.1..0.1))
                    .collect()
            };
            (0..30).map(point).collect()
        };
        [side(0.0), side(0.1)]
    }

    #[test]
    fn neighbours_stay_neighbours() {
        let [images, captions] = clusters();
        let map = Map::of(&images, &captions, 1).unwrap();
        let points = [map.images.clone(), map.captions.clone()].concat();
        for (i, a) in points.iter().enumerate() {
            let others = points.iter().enumerate().filter(|(j, _)| *j != i);
            let far = |b: &[f64; 2]| distance(a, b);
            let nearest = others.min_by(|(_, a), (_, b)| far(a).total_cmp(&far(b)));
            let (nearest, _) = nearest.unwrap();
            assert_eq!(nearest % 30 % 3, i % 30 % 3, "{i} is beside {nearest}");
        }
    }

    #[test]
    fn a_seed_decides_the_map() {
        let [images, captions] = clusters();
        let map = |seed| Map::of(&images, &captions, seed).unwrap();
        assert_eq!(map(1), map(1));
        assert_ne!(map(1), map(2));
    }

    #[test]
    fn there_is_no_map_of_few_pairs_or_of_numbers_that_are_not_finite() {
        let [mut images, captions] = clusters();
        let few = Map::of(&images[..7], &captions[..7], 1).unwrap_err();
        assert_eq!(few.to_string(), "of 7 pairs there is none, it needs 8");
        images[3][2] = f64::NAN;
        let error = Map::of(&images, &captions, 1).unwrap_err();
        assert_eq!(error.to_string(), "an embedding is not finite");
    }
}
