//! Uniformity: the logarithm of the mean Gaussian potential of all pairs on the unit sphere.
//!
//! ```text
//! L = log mean_ij e^{−t·‖u_i − v_j‖²}          image–text pairs, the diagonal included
//! L = log mean_{i≠j} e^{−t·‖u_i − u_j‖²}       within one modality
//! ```
//!
//! `u_i`, `v_j` are the normalised image `i` and text `j`, t is [`UniformityConfig::t`].
//!
//! **How it is computed.** On the sphere, up to t = 16, the smallest potential is `e^{−64}`: the
//! potentials are added up as they are, with their gradient, in one pass. Otherwise it is a
//! log-sum-exp with a running maximum, which neither overflows nor underflows.
//!
//! **Gradient.** With `p_ij` the softmax of `−t·‖u_i − v_j‖²` over all pairs, `∂L/∂c_ij = 2t·p_ij`.
//!
//! **Cost.** `N²·D` time, `N·D` memory; half of that time within one modality.
//!
//! **Degenerate cases.** Equal embeddings give 0, the largest value on the sphere. Within one
//! modality one sample has no pair: 0, with gradient 0. Zero rows count with norm 0.
//!
//! **Sources.** Wang & Isola 2020, section 4.1.2; "Relaxing Contrastiveness in Multimodal
//! Representation Learning", equation 4 (over image–text pairs).

use burn::tensor::Tensor;

use super::paired::POSITIVE;
use crate::check;
use crate::pairwise::{Expr, Pairs, rows};
use crate::similarity::Embeddings;

/// The largest `t` with which every potential on the sphere, `e^{−4t}` at least, is a normal f32.
const ONE_PASS_T: f64 = 16.0;

config! {
    /// Configuration of [`Uniformity`].
    pub struct UniformityConfig {
        /// Factor t of the squared distance; positive. Default 2 (Wang & Isola).
        t: f64 = 2.0,
    }
}

objective! {
    /// The logarithm of the mean Gaussian potential; built by [`UniformityConfig::init`].
    ///
    /// `L = log mean_ij e^{−t·‖u_i − v_j‖²}` of normalised embeddings.
    ///
    /// ```
    /// use burn::tensor::{Device, Tensor};
    /// use burn_contrastive::objective::UniformityConfig;
    ///
    /// let x = Tensor::<2>::from_data([[1.0, 0.0], [-1.0, 0.0]], &Device::default());
    /// let loss = UniformityConfig::new().init().forward(x.clone(), x);
    /// // Two pairs at distance 0, two at squared distance 4.
    /// assert!((loss.into_scalar::<f32>() - ((1.0 + (-8f32).exp()) / 2.0).ln()).abs() < 1e-6);
    /// ```
    Uniformity = UniformityConfig, "uniformity";
    ranges: t in POSITIVE;
    parameters: "t" = t;
}

impl Uniformity {
    /// The loss over all image–text pairs, in [−4t, 0].
    ///
    /// # Shapes
    ///
    /// - `image`: `[N, D]`, `text`: `[M, D]`
    /// - returns `[1]`, f64 for f64 embeddings, f32 for all others
    ///
    /// # Panics
    ///
    /// Where widths, dtypes or devices of `image` and `text` differ, or one of them is empty.
    #[track_caller]
    pub fn forward(&self, image: Tensor<2>, text: Tensor<2>) -> Tensor<1> {
        check::comparable("Uniformity", ("image", &image), ("text", &text));
        let count = image.dims()[0] * text.dims()[0];
        let [image, text] = [image, text].map(|x| self.config.similarity.prepare(x));
        let norms = [&image, &text].map(|x| self.squared_norms(x));
        let pairs = self.config.similarity.pairs(image, text);
        self.log_mean(pairs, norms, count, &Expr::constant(0.0))
    }

    /// The loss over all pairs of different samples of one modality, in [−4t, 0].
    ///
    /// # Shapes
    ///
    /// - `embeddings`: `[N, D]`
    /// - returns `[1]`
    ///
    /// # Panics
    ///
    /// Where there are no embeddings.
    #[track_caller]
    pub fn forward_within(&self, embeddings: Tensor<2>) -> Tensor<1> {
        let named = ("embeddings", &embeddings);
        check::comparable("Uniformity", named, named);
        let rows = embeddings.dims()[0];
        let embeddings = self.config.similarity.prepare(embeddings);
        if rows == 1 {
            return embeddings.values().sum() * 0.0;
        }
        let norms = self.squared_norms(&embeddings);
        let pairs = self.config.similarity.pairs_within(embeddings);
        let norms = [norms.clone(), norms];
        self.log_mean(pairs, norms, rows * (rows - 1), &Expr::diagonal())
    }

    /// `log mean e^{−t·distance²}` over `count` pairs: all but those where `excluded` is not 0.
    #[track_caller]
    fn log_mean(
        &self,
        mut pairs: Pairs,
        [row, column]: [Tensor<1>; 2],
        count: usize,
        excluded: &Expr,
    ) -> Tensor<1> {
        let (row, column) = (pairs.row(row), pairs.column(column));
        let squared_distance = row + column - pairs.similarity() * 2.0;
        let exponent = squared_distance * -self.config.t;
        let log_count = (count as f64).ln();
        if self.config.similarity.normalize && self.config.t <= ONE_PASS_T {
            let zero = Expr::constant(0.0);
            let potential = Expr::select(excluded, &zero, &exponent.exp());
            return pairs.total(&potential).log() - log_count;
        }
        let log_sum = rows().log_sum_exp(&exponent.except(excluded));
        let log_sums = pairs.reduce(&[log_sum]).remove(0);
        let max = log_sums.clone().detach().max();
        (log_sums - max.clone()).exp().sum().log() + max - log_count
    }

    /// `‖x‖²` of each row: constants on the sphere, 1 but for zero rows.
    fn squared_norms(&self, x: &Embeddings) -> Tensor<1> {
        let values = x.clone().values();
        let norms = values.square().sum_dim(1).squeeze_dim(1);
        if self.config.similarity.normalize {
            norms.detach()
        } else {
            norms
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::tests::{assert_close, matrix};

    #[test]
    fn a_square_by_hand() {
        // Each corner: itself at 0, two at squared distance 2, one at 4.
        let x = matrix([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]);
        let objective = UniformityConfig::new().with_t(1.0).init();
        let others = 2.0 * (-2f32).exp() + (-4f32).exp();
        let across = objective.forward(x.clone(), x.clone());
        assert_close(across, [((1.0 + others) / 4.0).ln()], 1e-6);
        let within = objective.forward_within(x);
        assert_close(within, [(others / 3.0).ln()], 1e-6);
    }

    #[test]
    fn potentials_below_the_smallest_f32_do_not_underflow() {
        let x = matrix([[1.0, 0.0], [-1.0, 0.0]]);
        let objective = UniformityConfig::new().with_t(1e4).init();
        // Every potential is e^{−40000}.
        assert_close(objective.forward_within(x), [-4e4], 0.0);
    }
}
