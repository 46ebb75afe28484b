//! Hard negatives that no sample is: SynHNC of ITContrast.
//!
//! For each anchor `q` (an image, say) the samples of the *other* modality, its own left out, are clustered. Of
//! each cluster with prototypes `x_1 … x_n` a kernel associative memory recalls what it holds near the anchor:
//!
//! ```text
//! k(q, x) = e^{−‖q − x‖²/(2σ²)}
//! W       = X·(K + r·I)⁻¹,   K_ab = k(x_a, x_b)           least squares of X ≈ W·K, with a ridge
//! h       = Σ_n w_n·k(q, x_n) / Σ_n k(q, x_n)
//! ```
//!
//! | symbol | here |
//! |---|---|
//! | `X`, `x_n`, `w_n` | columns: normalised prototypes, and their weights |
//! | clusters | [`HardNegativeSynthesisConfig::clusters`], m: as many negatives of each anchor |
//! | σ | [`HardNegativeSynthesisConfig::sigma`], 0.1 by default |
//! | r | [`HardNegativeSynthesisConfig::ridge`], relative to the mean of K's diagonal, which is 1 |
//!
//! **The kernels' share** `k / Σ k` is a softmax of `−‖q − x_n‖²/(2σ²)`: with σ = 0.1 every `k` of a distant anchor
//! underflows, their shares do not.
//!
//! **Clustering.** By default all samples of a modality are clustered once, for all anchors, and an anchor's own
//! is then taken out of its cluster's memory, exactly: with `P = (K + r·I)⁻¹` and `o` the own prototype,
//! the weights without it are `w_n − w_o·P_on/P_oo`. With
//! [`per_anchor`](HardNegativeSynthesisConfig::per_anchor) each anchor clusters its own negatives, as the paper says
//! it: `N` times the work, hardly another result.
//!
//! **Cost.** Embeddings are read back from the device for the clustering: `O(N·m·D)` an iteration. A cluster's
//! prototypes are at most [`max_prototypes`](HardNegativeSynthesisConfig::max_prototypes) (those nearest to its
//! centre), so that a memory is of bounded size and no `N×N` matrix exists: `O(N·D)` memory.
//!
//! **Degenerate cases.** One pair has no negatives: none are given. There are at most `N − 1` clusters.
//! Of two pairs the only negative is the other sample over `1 + r`. Where a cluster holds nothing but the
//! anchor's own sample, the negative of the first larger cluster stands in. A NaN spreads to the clusters that it
//! falls into.
//!
//! **Source.** "ITContrast: Contrastive Learning with Hard Negative Synthesis for Image-Text Matching", section 3.2,
//! equations 2–5, which gives no number of clusters and no ridge.

mod k_means;
mod memory;

use burn::config::Config;
use burn::tensor::activation::softmax;
use burn::tensor::{IndexingUpdateOp, Int, Tensor, TensorData};

use crate::check;
use crate::random::{Purpose, Random};
use crate::similarity::SimilarityConfig;
use crate::tensor::constant_like;
use k_means::{Cluster, k_means};

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
    /// Iterations of k-means, at most. Default 10, a choice of this crate.
    #[config(default = 10)]
    pub iterations: usize,
    /// Prototypes of a cluster, at most. Default 256, a choice of this crate.
    #[config(default = 256)]
    pub max_prototypes: usize,
    /// Whether each anchor clusters its own negatives. Default false: one clustering for all.
    #[config(default = false)]
    pub per_anchor: bool,
    /// Whether gradients flow through the negatives, clusters being constants. Default false.
    #[config(default = false)]
    pub gradients: bool,
    /// Seed of the clustering. Default 0.
    #[config(default = 0)]
    pub seed: u64,
    /// How embeddings are compared: normalised by default; the memory budget bounds a block of anchors.
    #[config(default = "SimilarityConfig::new()")]
    pub similarity: SimilarityConfig,
}

impl HardNegativeSynthesisConfig {
    /// Builds the source.
    ///
    /// # Panics
    ///
    /// Where `clusters` is 0, `max_prototypes` below 2, `sigma` not positive and finite, or `ridge` not in
    /// [1e-9, 1].
    #[track_caller]
    pub fn init(&self) -> HardNegativeSynthesis {
        let name = "HardNegativeSynthesisConfig";
        let (tiny, huge) = (f32::MIN_POSITIVE as f64, f32::MAX as f64);
        check::within(name, "sigma", self.sigma, tiny, huge);
        check::within(name, "ridge", self.ridge, 1e-9, 1.0);
        for (field, value, least) in [
            ("clusters", self.clusters, 1),
            ("max_prototypes", self.max_prototypes, 2),
        ] {
            assert!(
                value >= least,
                "{name}: `{field}` is {value}, it must be at least {least}"
            );
        }
        HardNegativeSynthesis {
            config: self.clone(),
        }
    }
}

/// Negatives of each anchor of a batch, as [`HardNegativeSynthesis`] makes them.
#[derive(Clone, Debug)]
pub struct HardNegatives {
    /// Images for each text, `[N, m, D]`.
    pub image: Tensor<3>,
    /// Texts for each image, `[N, m, D]`.
    pub text: Tensor<3>,
}

/// Synthesises hard negatives from clusters of a batch; built by [`HardNegativeSynthesisConfig::init`].
///
/// Of each cluster of the other modality, the anchor's own sample left out, `h = Σ_n w_n·k(q, x_n) / Σ_n k(q, x_n)`,
/// with Gaussian kernels `k` and weights `W = X·(K + r·I)⁻¹` that reconstruct the cluster: SynHNC of ITContrast.
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
/// let hard = synthesis.synthesize(image, text, 0).unwrap();
/// assert_eq!(hard.text.dims(), [16, 4, 8]);
/// ```
#[derive(Clone, Debug)]
pub struct HardNegativeSynthesis {
    config: HardNegativeSynthesisConfig,
}

impl HardNegativeSynthesis {
    /// Hard texts for each image and hard images for each text: a function of the batch, the seed and the
    /// step. `None` for a single pair, which has no negatives.
    ///
    /// # Shapes
    ///
    /// - `image`, `text`: `[N, D]`, row `i` of one belongs to row `i` of the other
    /// - returns `[N, min(m, N − 1), D]` twice, in the dtype of the embeddings
    ///
    /// # Panics
    ///
    /// Where shapes, dtypes or devices of `image` and `text` differ, or the batch is empty.
    #[track_caller]
    pub fn synthesize(
        &self,
        image: Tensor<2>,
        text: Tensor<2>,
        step: u64,
    ) -> Option<HardNegatives> {
        check::paired("HardNegativeSynthesis", ("image", &image), ("text", &text));
        if image.dims()[0] == 1 {
            return None;
        }
        let context = image.clone();
        let [image, text] = [image, text].map(|x| match self.config.gradients {
            true => self.config.similarity.prepare(x),
            false => self.config.similarity.prepare(x.without_autodiff()),
        });
        let random = |purpose| Random::new(self.config.seed, step, purpose);
        let given = |negatives: Tensor<3>| {
            let negatives = negatives.cast(context.dtype());
            match self.config.gradients {
                true => negatives,
                false => constant_like(negatives, &context),
            }
        };
        Some(HardNegatives {
            text: given(self.direction(&image, &text, random(Purpose::ClustersOfTexts))),
            image: given(self.direction(&text, &image, random(Purpose::ClustersOfImages))),
        })
    }

    /// Negatives of each anchor, of candidates the row of the same number left out.
    fn direction(
        &self,
        anchors: &Tensor<2>,
        candidates: &Tensor<2>,
        mut random: Random,
    ) -> Tensor<3> {
        let count = anchors.dims()[0];
        let points = Points::read(candidates);
        let everyone: Vec<usize> = (0..count).collect();
        let m = self.config.clusters.min(count - 1);
        let mut cluster =
            |of: &[usize]| k_means(&points, of, m, self.config.iterations, &mut random);
        if !self.config.per_anchor {
            let clusters = cluster(&everyone);
            return self.shared(anchors, candidates, &points, &clusters);
        }
        let of_anchor = |i: usize| {
            let others: Vec<_> = everyone.iter().copied().filter(|&j| j != i).collect();
            let anchor = anchors.clone().narrow(0, i, 1);
            let recalled = cluster(&others)
                .iter()
                .map(|cluster| {
                    let memory = self.memory(candidates, &points, cluster);
                    memory.shares(&anchor, None).matmul(memory.weights)
                })
                .collect();
            Tensor::stack::<3>(recalled, 1)
        };
        Tensor::cat((0..count).map(of_anchor).collect(), 0)
    }

    /// All anchors against the same clusters.
    fn shared(
        &self,
        anchors: &Tensor<2>,
        candidates: &Tensor<2>,
        points: &Points,
        clusters: &[Cluster],
    ) -> Tensor<3> {
        let [count, width] = anchors.dims();
        let recall = |cluster: &Cluster| {
            let memory = self.memory(candidates, points, cluster);
            let prototypes = memory.numbers.dims()[0];
            // Shares, the kernels they come from, and a mask.
            let row = 4 * prototypes * anchors.dtype().size();
            let height = (self.config.similarity.memory_budget / row).clamp(1, count);
            let blocks = (0..count).step_by(height).map(|start| {
                let height = height.min(count - start);
                let anchors = anchors.clone().narrow(0, start, height);
                let own = Tensor::arange(
                    start as i64..(start + height) as i64,
                    &memory.numbers.device(),
                );
                let shares = memory.shares(&anchors, (prototypes > 1).then_some(own));
                shares.matmul(memory.weights.clone())
            });
            let recalled = Tensor::cat(blocks.collect(), 0);
            if prototypes == 1 {
                return recalled;
            }
            // What an anchor's own prototype has in the weights of the others: −w_o·Σ_n a_n·P_on/P_oo.
            let numbers = &memory.numbers;
            let shares = memory.shares(
                &anchors.clone().select(0, numbers.clone()),
                Some(numbers.clone()),
            );
            let own = (shares * memory.leverage).sum_dim(1).neg() * memory.weights;
            recalled.select_assign(0, numbers.clone(), own, IndexingUpdateOp::Add)
        };
        let mut recalled: Vec<_> = clusters.iter().map(recall).collect();
        let larger = clusters
            .iter()
            .position(|cluster| cluster.members.len() > 1);
        let larger = recalled[larger.expect("fewer clusters than samples")].clone();
        for (recalled, cluster) in recalled.iter_mut().zip(clusters) {
            if let [only] = cluster.members[..] {
                let range = [only..only + 1, 0..width];
                let stands_in = larger.clone().slice(range.clone());
                *recalled = recalled.clone().slice_assign(range, stands_in);
            }
        }
        Tensor::stack::<3>(recalled, 1)
    }

    /// The memory of a cluster.
    fn memory(&self, candidates: &Tensor<2>, points: &Points, cluster: &Cluster) -> Memory {
        let mut members = cluster.members.clone();
        if members.len() > self.config.max_prototypes {
            let distance = |&i: &usize| points.squared_distance(i, &cluster.center);
            members.sort_by(|a, b| distance(a).total_cmp(&distance(b)));
            members.truncate(self.config.max_prototypes);
            members.sort_unstable();
        }
        let (n, width, sigma) = (members.len(), points.width, self.config.sigma);
        let inverse = memory::inverse_gram(points, &members, sigma, self.config.ridge);
        let mut weights = vec![0.0; n * width];
        for (weights, inverse) in weights.chunks_exact_mut(width).zip(inverse.chunks_exact(n)) {
            for (p, &i) in inverse.iter().zip(&members) {
                weights
                    .iter_mut()
                    .zip(points.row(i))
                    .for_each(|(w, x)| *w += p * x);
            }
        }
        let leverage = |(k, p): (usize, &f64)| match k / n == k % n {
            true => 0.0,
            false => p / inverse[k / n * (n + 1)],
        };
        let leverage: Vec<f64> = inverse.iter().enumerate().map(leverage).collect();

        let plain = candidates.device().inner();
        let tensor = |values: Vec<f64>, width: usize| {
            let data = TensorData::new(values, [n, width]).convert_dtype(candidates.dtype());
            let values = Tensor::<2>::from_data(data, (&plain, candidates.dtype()));
            constant_like(values, candidates)
        };
        let numbers: Vec<i32> = members.iter().map(|&i| i as i32).collect();
        let numbers = Tensor::<1, Int>::from_data(TensorData::new(numbers, [n]), &plain);
        let prototypes = candidates.clone().select(0, numbers.clone());
        let [mut weights, mut leverage] = [tensor(weights, width), tensor(leverage, n)];
        if self.config.gradients && candidates.is_autodiff() {
            let derivative = Derivative::new(&prototypes, tensor(inverse, n), sigma);
            weights = weights + derivative.weights;
            leverage = leverage + derivative.leverage;
        }
        Memory {
            half_norms: prototypes.clone().square().sum_dim(1).transpose() * 0.5,
            prototypes,
            numbers,
            weights,
            leverage,
            sigma,
        }
    }
}

/// What a cluster remembers.
struct Memory {
    /// The prototypes' numbers among the candidates, `[n]`.
    numbers: Tensor<1, Int>,
    /// `[n, D]`
    prototypes: Tensor<2>,
    /// `‖x‖²/2`, `[1, n]`.
    half_norms: Tensor<2>,
    /// `w`, a row for each prototype, `[n, D]`.
    weights: Tensor<2>,
    /// `P_on/P_oo` in row `o` and column `n`, 0 on the diagonal, `[n, n]`.
    leverage: Tensor<2>,
    sigma: f64,
}

impl Memory {
    /// `k(q, x_n) / Σ k(q, x_n)` of each anchor, the prototype with its own number left out, `[rows, n]`.
    fn shares(&self, anchors: &Tensor<2>, own: Option<Tensor<1, Int>>) -> Tensor<2> {
        // −‖q − x‖²/2, but for ‖q‖², which is in every exponent.
        let exponent =
            anchors.clone().matmul(self.prototypes.clone().transpose()) - self.half_norms.clone();
        let exponent = exponent * (1.0 / (self.sigma * self.sigma));
        let exponent = match own {
            None => exponent,
            Some(own) => {
                let shape = exponent.dims();
                let own = own.unsqueeze_dim::<2>(1).expand(shape);
                let is_own = own.equal(self.numbers.clone().unsqueeze_dim::<2>(0).expand(shape));
                exponent
                    .clone()
                    .mask_fill(constant_like(is_own, &exponent), f64::NEG_INFINITY)
            }
        };
        softmax(exponent, 1)
    }
}

/// Zeros with the derivatives that weights and leverage have by the prototypes.
struct Derivative {
    weights: Tensor<2>,
    leverage: Tensor<2>,
}

impl Derivative {
    /// `inverse` is P, a constant: a step of Newton's iteration, `2P − P·K·P`, has its value and, by K, the
    /// derivative of the inverse.
    fn new(prototypes: &Tensor<2>, inverse: Tensor<2>, sigma: f64) -> Self {
        let n = prototypes.dims()[0];
        let norms = prototypes.clone().square().sum_dim(1);
        let product = prototypes.clone().matmul(prototypes.clone().transpose());
        let distance = norms.clone() + norms.transpose() - product * 2.0;
        let gram = (distance * (-0.5 / (sigma * sigma))).exp();
        let change = inverse.clone().matmul(gram).matmul(inverse.clone()).neg();
        let change = change.clone() - change.detach();
        let inverse = inverse + change;
        let weights = inverse.clone().matmul(prototypes.clone());
        let eye = Tensor::<2>::eye(n, &prototypes.device().inner()).cast(prototypes.dtype());
        let eye = constant_like(eye, prototypes);
        let diagonal = (inverse.clone() * eye.clone()).sum_dim(1);
        let leverage = inverse / diagonal * (eye * -1.0 + 1.0);
        let zero = |x: Tensor<2>| x.clone() - x.detach();
        Self {
            weights: zero(weights),
            leverage: zero(leverage),
        }
    }
}

/// Embeddings on the host.
struct Points {
    width: usize,
    values: Vec<f64>,
}

impl Points {
    fn read(embeddings: &Tensor<2>) -> Self {
        let data = embeddings
            .clone()
            .without_autodiff()
            .into_data()
            .convert::<f64>();
        Self {
            width: embeddings.dims()[1],
            values: data.try_to_vec().expect("f64"),
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
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn of_two_pairs_the_only_negative_is_the_other_sample() {
        let device = Device::default();
        let image = Tensor::<2>::from_data([[2.0, 0.0], [0.0, 3.0]], &device);
        let text = Tensor::<2>::from_data([[0.6, 0.8], [0.0, -1.0]], &device);
        let synthesis = HardNegativeSynthesisConfig::new().with_ridge(0.25).init();
        let hard = synthesis.synthesize(image, text, 0).unwrap();
        let values = |x: Tensor<3>| x.into_data().try_to_vec::<f32>().unwrap();
        assert_eq!(hard.text.dims(), [2, 1, 2]);
        let close = |found: Vec<f32>, expected: [f32; 4]| {
            let close = found
                .iter()
                .zip(expected)
                .all(|(f, e)| (f - e).abs() < 1e-6);
            assert!(close, "{found:?} against {expected:?}");
        };
        close(values(hard.text), [0.0, -0.8, 0.48, 0.64]);
        close(values(hard.image), [0.0, 0.8, 0.8, 0.0]);
    }

    #[test]
    fn a_single_pair_has_none() {
        let x = Tensor::<2>::ones([1, 3], &Device::default());
        let synthesis = HardNegativeSynthesisConfig::new().init();
        assert!(synthesis.synthesize(x.clone(), x, 0).is_none());
    }

    #[test]
    #[should_panic(expected = "`ridge` is 0, it must lie in")]
    fn no_ridge_is_refused() {
        HardNegativeSynthesisConfig::new().with_ridge(0.0).init();
    }
}
