//! Synthetic hard negatives: SynHNC of ITContrast.
//!
//! For each anchor `q` (an image, say) the samples of the *other* modality that do not match it are
//! clustered. A kernel associative memory of each cluster, with prototypes `x_1 … x_n`, gives the
//! point that it recalls at the anchor:
//!
//! ```text
//! k(q, x) = e^{−‖q − x‖²/(2σ²)}
//! W       = X·(K + r·I)⁻¹,   K_ab = k(x_a, x_b)         least squares of X ≈ W·K, with a ridge
//! h       = Σ_n w_n·k(q, x_n) / Σ_n k(q, x_n)
//! ```
//!
//! | symbol | here |
//! |---|---|
//! | `X`, `x_n`, `w_n` | columns: normalised prototypes, and their weights |
//! | clusters | [`HardNegativeSynthesisConfig::clusters`], m: the negatives of each anchor |
//! | σ | [`HardNegativeSynthesisConfig::sigma`], 0.1 by default |
//! | r | [`HardNegativeSynthesisConfig::ridge`], relative to the mean of K's diagonal, which is 1 |
//!
//! **Shares.** `k / Σ k` is computed as a softmax of `−‖q − x_n‖²/(2σ²)`: with σ = 0.1 every `k` of
//! a distant anchor underflows, the shares do not.
//!
//! **Matches.** An anchor's matches are its own sample and those with its id (other captions of
//! its image). By default all samples of a modality are clustered once, for all anchors, and an
//! anchor's matches are then removed from a cluster's memory, exactly: with `P = (K + r·I)⁻¹` and
//! `G` the anchor's matches among the prototypes, the weights without them are
//! `w_n − W_G·P_GG⁻¹·P_Gn`. With [`per_anchor`](HardNegativeSynthesisConfig::per_anchor) each
//! anchor clusters its own negatives, as in the paper: `N` times the work, and nearly the same
//! result.
//!
//! **Cost.** Embeddings are read back from the device for the clustering, which takes `O(N·m·D)` an
//! iteration. A cluster has at most [`max_prototypes`](HardNegativeSynthesisConfig::max_prototypes)
//! prototypes (the samples nearest to its centre), so that no `N×N` matrix exists: `O(N·D)` memory.
//!
//! **Degenerate cases.** There are at most as many clusters as any anchor has negatives; if an
//! anchor has none, as in a batch of one pair or of captions of one image, there is no result.
//! With two pairs the only negative is the other sample over `1 + r`. If a cluster holds nothing
//! but matches of an anchor, the anchor's negative from the first other cluster is repeated. A NaN
//! spreads to the clusters that contain it.
//!
//! **Source.** "ITContrast: Contrastive Learning with Hard Negative Synthesis for Image-Text
//! Matching", section 3.2, equations 2–5, which gives no number of clusters and no ridge.

mod k_means;
mod memory;

use std::collections::HashMap;

use burn::config::Config;
use burn::tensor::{Int, Tensor};

use crate::check::{self, ConfigError};
use crate::random::{Purpose, Random};
use crate::similarity::SimilarityConfig;
use crate::tensor::{constant_like, read, select_rows};
use k_means::{Cluster, k_means};
use memory::Memory;

/// Configuration of [`HardNegativeSynthesis`].
#[derive(Config, Debug, PartialEq)]
pub struct HardNegativeSynthesisConfig {
    /// Number m of clusters, and of negatives of each anchor. Default 4, a choice of this crate.
    #[config(default = 4)]
    pub clusters: usize,
    /// Width σ of the kernel, in distances on the unit sphere. Default 0.1 (ITContrast).
    #[config(default = 0.1)]
    pub sigma: f64,
    /// Ridge r of the least squares. Default 1e-3, a choice of this crate.
    #[config(default = 1e-3)]
    pub ridge: f64,
    /// Largest number of iterations of k-means. Default 10, a choice of this crate.
    #[config(default = 10)]
    pub iterations: usize,
    /// Largest number of prototypes of a cluster. Default 256, a choice of this crate.
    #[config(default = 256)]
    pub max_prototypes: usize,
    /// Whether each anchor clusters its own negatives. Default false: one clustering for all.
    #[config(default = false)]
    pub per_anchor: bool,
    /// Whether gradients flow through the negatives; the clustering is a constant. Default false.
    #[config(default = false)]
    pub gradients: bool,
    /// Seed of the clustering. Default 0.
    #[config(default = 0)]
    pub seed: u64,
    /// How embeddings are compared. Default: normalised. The memory budget bounds a block of
    /// anchors.
    #[config(default = "SimilarityConfig::new()")]
    pub similarity: SimilarityConfig,
}

impl HardNegativeSynthesisConfig {
    /// Checks the values.
    ///
    /// # Errors
    ///
    /// If `clusters` is 0, `max_prototypes` is below 2, `sigma` is not positive and finite, or
    /// `ridge` is not in [1e-9, 1].
    pub fn check(&self) -> Result<(), ConfigError> {
        let name = "HardNegativeSynthesisConfig";
        let (tiny, huge) = (f32::MIN_POSITIVE as f64, f32::MAX as f64);
        check::range(name, "sigma", self.sigma, tiny, huge)?;
        check::range(name, "ridge", self.ridge, 1e-9, 1.0)?;
        check::range(name, "clusters", self.clusters as f64, 1.0, f64::MAX)?;
        let prototypes = self.max_prototypes as f64;
        check::range(name, "max_prototypes", prototypes, 2.0, f64::MAX)
    }

    /// Builds the source of negatives.
    ///
    /// # Panics
    ///
    /// If [`check`](Self::check) returns an error.
    #[track_caller]
    pub fn init(&self) -> HardNegativeSynthesis {
        check::or_panic(self.check());
        HardNegativeSynthesis {
            config: self.clone(),
        }
    }
}

/// The hard negatives of a batch, from [`HardNegativeSynthesis::synthesize`].
#[derive(Clone, Debug)]
pub struct HardNegatives {
    /// Images for each text, `[N, m, D]`.
    pub image: Tensor<3>,
    /// Texts for each image, `[N, m, D]`.
    pub text: Tensor<3>,
}

/// Synthesises hard negatives from clusters of a batch; built by
/// [`HardNegativeSynthesisConfig::init`].
///
/// A negative `h = Σ_n w_n·k(q, x_n) / Σ_n k(q, x_n)` for each cluster of the other modality,
/// without the samples that match the anchor, with Gaussian kernels `k` and the weights
/// `W = X·(K + r·I)⁻¹` that reconstruct the cluster: SynHNC of ITContrast.
///
/// # Example
///
/// ```
/// use burn::tensor::{Device, Distribution, Tensor};
/// use burn_contrastive::negatives::HardNegativeSynthesisConfig;
///
/// let device = Device::default();
/// let image = Tensor::<2>::random([16, 8], Distribution::Default, &device);
/// let text = Tensor::<2>::random([16, 8], Distribution::Default, &device);
/// let synthesis = HardNegativeSynthesisConfig::new().init();
/// let hard = synthesis.synthesize(image, text, None, 0).unwrap();
/// assert_eq!(hard.text.dims(), [16, 4, 8]);
/// ```
#[derive(Clone, Debug)]
pub struct HardNegativeSynthesis {
    config: HardNegativeSynthesisConfig,
}

impl HardNegativeSynthesis {
    /// Hard texts for each image and hard images for each text: a function of the batch, the seed
    /// and the step. `None` if an anchor has no negatives.
    ///
    /// # Shapes
    ///
    /// - `image`, `text`: `[N, D]`, row `i` of one belongs to row `i` of the other
    /// - `ids`: `[N]`, which pairs match each other, such as captions of one image; samples with
    ///   the anchor's id do not influence its negatives. Without ids every pair has its own
    /// - returns `[N, min(m, n), D]` twice, in the dtype of the embeddings, with `n` the smallest
    ///   number of samples that do not match an anchor
    ///
    /// # Panics
    ///
    /// If shapes, dtypes or devices of `image` and `text` differ, the batch is empty, or there is
    /// not one id for each pair.
    #[track_caller]
    pub fn synthesize(
        &self,
        image: Tensor<2>,
        text: Tensor<2>,
        ids: Option<Tensor<1, Int>>,
        step: u64,
    ) -> Option<HardNegatives> {
        let name = "HardNegativeSynthesis";
        check::paired(name, ("image", &image), ("text", &text));
        if let Some(ids) = &ids {
            check::labelled(name, ("ids", ids), ("image", &image));
        }
        let ids = Ids::read(ids, image.dims()[0]);
        if ids.negatives() == 0 {
            return None;
        }
        let context = image.clone();
        let (config, gradients) = (&self.config, self.config.gradients);
        let [image, text] = [image, text].map(|x| {
            let x = if gradients { x } else { x.without_autodiff() };
            config.similarity.prepare(x).values()
        });
        let random = |purpose| Random::new(config.seed, step, purpose);
        let result = |negatives: Tensor<3>| {
            let negatives = negatives.cast(context.dtype());
            if gradients {
                negatives
            } else {
                constant_like(negatives, &context)
            }
        };
        let (texts, images) = (Purpose::ClustersOfTexts, Purpose::ClustersOfImages);
        Some(HardNegatives {
            text: result(self.direction(&image, &text, &ids, random(texts))),
            image: result(self.direction(&text, &image, &ids, random(images))),
        })
    }

    /// The negatives of each anchor, from the candidates with another id.
    fn direction(
        &self,
        anchors: &Tensor<2>,
        candidates: &Tensor<2>,
        ids: &Ids,
        mut random: Random,
    ) -> Tensor<3> {
        let count = anchors.dims()[0];
        let points = Points::read(candidates);
        let m = self.config.clusters.min(ids.negatives());
        let mut cluster =
            |samples: &[usize]| k_means(&points, samples, m, self.config.iterations, &mut random);
        let all: Vec<usize> = (0..count).collect();
        if !self.config.per_anchor {
            let clusters = cluster(&all);
            return self.shared(anchors, candidates, ids, &points, &clusters);
        }
        let of_anchor = |i: usize| {
            let negatives: Vec<_> = all
                .iter()
                .copied()
                .filter(|&j| ids.0[j] != ids.0[i])
                .collect();
            let anchor = anchors.clone().narrow(0, i, 1);
            let recalled = cluster(&negatives)
                .iter()
                .map(|cluster| {
                    self.memory(candidates, ids, &points, cluster)
                        .recall(&anchor)
                })
                .collect();
            Tensor::stack::<3>(recalled, 1)
        };
        Tensor::cat((0..count).map(of_anchor).collect(), 0)
    }

    /// The negatives of all anchors from the same clusters.
    fn shared(
        &self,
        anchors: &Tensor<2>,
        candidates: &Tensor<2>,
        ids: &Ids,
        points: &Points,
        clusters: &[Cluster],
    ) -> Tensor<3> {
        let ([count, width], m) = (anchors.dims(), clusters.len());
        let memories: Vec<_> = clusters
            .iter()
            .map(|cluster| self.memory(candidates, ids, points, cluster))
            .collect();
        let budget = self.config.similarity.memory_budget;
        let recalled = memories
            .iter()
            .map(|memory| memory.recall_without_matches(anchors, ids, budget))
            .collect();
        let recalled = Tensor::stack::<3>(recalled, 1);
        // Where a cluster holds nothing but matches, the negative of another one is repeated.
        let source = |i: usize, k: usize| {
            let others = |k: &usize| memories[*k].has_other_id(ids.0[i]);
            let first = (0..m).find(others).expect("every anchor has a negative");
            if others(&k) { k } else { first }
        };
        let rows = (0..count).flat_map(|i| (0..m).map(move |k| (i, k)));
        let sources: Vec<usize> = rows.map(|(i, k)| i * m + source(i, k)).collect();
        if sources.iter().copied().eq(0..count * m) {
            return recalled;
        }
        let recalled = select_rows(&recalled.reshape([count * m, width]), sources);
        recalled.reshape([count, m, width])
    }

    /// The memory of a cluster's prototypes.
    fn memory(
        &self,
        candidates: &Tensor<2>,
        ids: &Ids,
        points: &Points,
        cluster: &Cluster,
    ) -> Memory {
        let limit = self.config.max_prototypes;
        let prototypes = ids.nearest(points, cluster, limit);
        Memory::new(candidates, ids, points, prototypes, &self.config)
    }
}

/// A label for each row, equal where the ids are: the index of the first row with the id.
struct Ids(Vec<i32>);

impl Ids {
    fn read(ids: Option<Tensor<1, Int>>, rows: usize) -> Self {
        let Some(ids) = ids else {
            return Self((0..rows as i32).collect());
        };
        let mut first = HashMap::new();
        let ids = ids.into_data();
        let labels = ids.iter::<i64>().zip(0..);
        Self(
            labels
                .map(|(id, row)| *first.entry(id).or_insert(row))
                .collect(),
        )
    }

    /// The smallest number of rows that do not match a row.
    fn negatives(&self) -> usize {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let largest = sorted.chunk_by(|a, b| a == b).map(<[_]>::len).max();
        self.0.len() - largest.unwrap_or(0)
    }

    /// The members of a cluster that are nearest to its centre, ascending: `limit` at most, with
    /// two ids at least if the members have two.
    fn nearest(&self, points: &Points, cluster: &Cluster, limit: usize) -> Vec<usize> {
        let mut members = cluster.members.clone();
        if members.len() > limit {
            let distance = |&i: &usize| points.squared_distance(i, &cluster.center);
            members.sort_by(|a, b| distance(a).total_cmp(&distance(b)));
            let other = |&&i: &&usize| self.0[i] != self.0[members[0]];
            if !members[..limit].iter().any(|i| other(&i))
                && let Some(&other) = members.iter().find(other)
            {
                members[limit - 1] = other;
            }
            members.truncate(limit);
            members.sort_unstable();
        }
        members
    }
}

/// Embeddings on the host.
struct Points {
    width: usize,
    values: Vec<f64>,
}

impl Points {
    fn read(embeddings: &Tensor<2>) -> Self {
        Self {
            width: embeddings.dims()[1],
            values: read(embeddings.clone().without_autodiff()),
        }
    }

    fn row(&self, i: usize) -> &[f64] {
        &self.values[i * self.width..][..self.width]
    }

    fn squared_distance(&self, i: usize, other: &[f64]) -> f64 {
        let pairs = self.row(i).iter().zip(other);
        pairs.map(|(x, y)| (x - y) * (x - y)).sum()
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn with_two_pairs_the_only_negative_is_the_other_sample() {
        let device = Device::default();
        let image = Tensor::<2>::from_data([[2.0, 0.0], [0.0, 3.0]], &device);
        let text = Tensor::<2>::from_data([[0.6, 0.8], [0.0, -1.0]], &device);
        let synthesis = HardNegativeSynthesisConfig::new().with_ridge(0.25).init();
        let hard = synthesis.synthesize(image, text, None, 0).unwrap();
        assert_eq!(hard.text.dims(), [2, 1, 2]);
        for (found, expected) in [
            (hard.text, [0.0, -0.8, 0.48, 0.64]),
            (hard.image, [0.0, 0.8, 0.8, 0.0]),
        ] {
            let found = found.into_data().try_to_vec::<f32>().unwrap();
            let mut pairs = found.iter().zip(expected);
            assert!(pairs.all(|(f, e)| (f - e).abs() < 1e-6), "{found:?}");
        }
    }

    #[test]
    fn anchors_without_negatives_give_none() {
        let device = Device::default();
        let synthesis = HardNegativeSynthesisConfig::new().init();
        for (rows, ids) in [(1, None), (3, Some([5, 5, 5]))] {
            let x = Tensor::<2>::ones([rows, 4], &device);
            let ids = ids.map(|ids| Tensor::from_data(ids, &device));
            assert!(synthesis.synthesize(x.clone(), x, ids, 0).is_none());
        }
    }

    #[test]
    fn prototypes_of_a_mixed_cluster_have_two_ids() {
        let points = Points {
            width: 1,
            values: vec![0.0, 0.1, 0.2, 3.0, 4.0],
        };
        let cluster = Cluster {
            members: (0..5).collect(),
            center: vec![0.1],
        };
        let nearest = |ids: [i32; 5]| Ids(ids.to_vec()).nearest(&points, &cluster, 3);
        assert_eq!(nearest([0, 1, 2, 3, 4]), [0, 1, 2]);
        assert_eq!(nearest([7, 7, 7, 8, 8]), [0, 1, 3]);
        assert_eq!(nearest([7, 7, 7, 7, 7]), [0, 1, 2]);
    }

    #[test]
    #[should_panic(expected = "`ridge` is 0, it must lie in")]
    fn a_ridge_of_zero_is_refused() {
        HardNegativeSynthesisConfig::new().with_ridge(0.0).init();
    }
}
