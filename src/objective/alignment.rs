//! Alignment: the mean squared distance of positives on the unit sphere.
//!
//! ```text
//! L = mean_i ‖u_i − v_i‖²
//! ```
//!
//! `u_i`, `v_i` are the normalised image and text `i`; for unit vectors a squared distance is
//! `2 − 2·c_ii`. For many negatives InfoNCE tends to the sum of this and
//! [`Uniformity`](super::Uniformity). Alone it is a measure: as an objective, its optimum is one
//! point for all embeddings.
//!
//! **Gradient.** `2·(u_i − v_i)/N` by `u_i`, minus that by `v_i`.
//!
//! **Cost.** `N·D` time and memory: no pair but the positives.
//!
//! **Degenerate cases.** Equal embeddings give 0, opposite ones 4. A zero row is at distance 1 of a
//! unit vector.
//!
//! **Source.** Wang & Isola 2020, section 4.1.1, with their default exponent 2.

use burn::tensor::Tensor;

config! {
    /// Configuration of [`Alignment`], of which only `similarity.normalize` matters.
    pub struct AlignmentConfig {}
}

objective! {
    /// The mean squared distance of positives; built by [`AlignmentConfig::init`].
    ///
    /// `L = mean_i ‖u_i − v_i‖²` of normalised embeddings.
    ///
    /// ```
    /// use burn::tensor::{Device, Tensor};
    /// use burn_contrastive::objective::AlignmentConfig;
    ///
    /// let device = Device::default();
    /// let image = Tensor::<2>::from_data([[1.0, 0.0]], &device);
    /// let text = Tensor::<2>::from_data([[0.0, 3.0]], &device);
    /// let loss = AlignmentConfig::new().init().forward(image, text);
    /// assert!((loss.into_scalar::<f32>() - 2.0).abs() < 1e-6);
    /// ```
    Alignment = AlignmentConfig, "alignment";
    forward: "The squared distance of each pair, in [0, 4].";
}

impl Alignment {
    fn loss(&self, image: Tensor<2>, text: Tensor<2>) -> Tensor<1> {
        self.each(image, text).mean()
    }

    fn each(&self, image: Tensor<2>, text: Tensor<2>) -> Tensor<1> {
        let [image, text] = [image, text].map(|x| self.config.similarity.prepare(x).values());
        (image - text).square().sum_dim(1).squeeze_dim(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::tests::{assert_close, matrix};

    #[test]
    fn distances_on_the_sphere_by_hand() {
        let image = matrix([[3.0, 0.0], [1.0, 0.0], [0.0, 2.0]]);
        let text = matrix([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]);
        let objective = AlignmentConfig::new().init();
        let each = objective.forward_no_reduction(image.clone(), text.clone());
        assert_close(each, [0.0, 2.0, 4.0], 0.0);
        assert_close(objective.forward(image, text), [2.0], 0.0);
    }
}
