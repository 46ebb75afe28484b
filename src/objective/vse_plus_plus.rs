//! VSE++, the hardest hinges: of each anchor only the most similar negative counts.
//!
//! ```text
//! L_i = [α + max_{j≠i} c_ij − c_ii]₊ + [α + max_{j≠i} c_ji − c_ii]₊
//! L   = mean over i of L_i
//! ```
//!
//! | symbol | here |
//! |---|---|
//! | `c_ij` | cosine of image `i` and text `j` |
//! | α | [`VsePlusPlusConfig::margin`], 0.2 by default |
//!
//! **Warm-up.** From a random start the hardest negatives alone can drive all embeddings to one point;
//! training then begins with the sum of hinges ([`Vse`]). [`VsePlusPlus::forward_at`] takes
//! the share `w` of the hardest, `(1 − w)·L_sum + w·L`: 0 and 1 are the two losses, and one that is
//! not needed is not computed. Faghri et al. change from 0 to 1 after an epoch.
//!
//! **Gradient.** One negative an anchor: −1/N by the positive and +1/N by the hardest, where the hinge
//! is open. Of equally similar negatives it is the lowest index.
//!
//! **Cost.** `N²·D` time forward for the maxima, `N·D` backward and in memory.
//!
//! **Degenerate cases.** One pair has no negatives: loss 0, gradient 0. N equal embeddings give 2α.
//! A zero row has similarity 0 to everything and gets a zero gradient.
//!
//! **Sources.** Faghri et al. 2018, equation 6; "Contrastive Learning of Visual-Semantic Embeddings",
//! equations 3–5. Faghri's code sums over the batch: [`Reduction::Sum`].

use burn::config::Config;
use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::{Reduction, Vse};
use crate::check;
use crate::pairwise::{Expr, hardest};
use crate::similarity::{SimilarityConfig, rowwise_dot};

/// Configuration of [`VsePlusPlus`].
#[derive(Config, Debug, PartialEq)]
pub struct VsePlusPlusConfig {
    /// Margin α by which a positive must be more similar than a negative. Default 0.2 (VSE++).
    #[config(default = 0.2)]
    pub margin: f64,
    /// How the losses of the pairs become one. Default: their mean.
    #[config(default = "Reduction::Mean")]
    pub reduction: Reduction,
    /// How embeddings are compared. Default: by cosine, streaming.
    #[config(default = "SimilarityConfig::new()")]
    pub similarity: SimilarityConfig,
}

impl VsePlusPlusConfig {
    /// Builds the objective; it has no parameters.
    ///
    /// # Panics
    ///
    /// Where `margin` is negative or not finite.
    #[track_caller]
    pub fn init(&self, _device: &Device) -> VsePlusPlus {
        check::within("VsePlusPlusConfig", "margin", self.margin, 0.0, f64::MAX);
        VsePlusPlus {
            margin: self.margin,
            reduction: self.reduction,
            similarity: self.similarity,
        }
    }
}

/// The hardest hinges over the cosines of paired embeddings; built by [`VsePlusPlusConfig::init`].
///
/// `L = mean_i ( [α + max_{j≠i} c_ij − c_ii]₊ + [α + max_{j≠i} c_ji − c_ii]₊ )`.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct VsePlusPlus {
    pub(super) margin: f64,
    #[module(skip)]
    pub(super) reduction: Reduction,
    #[module(skip)]
    pub(super) similarity: SimilarityConfig,
}

impl VsePlusPlus {
    /// The loss, reduced over the batch: hardest negatives alone.
    ///
    /// # Shapes
    ///
    /// - `image`, `text`: `[N, D]`, row `i` of one belongs to row `i` of the other
    /// - returns `[1]`, f64 for f64 embeddings, f32 for all others
    ///
    /// # Panics
    ///
    /// Where shapes, dtypes or devices of `image` and `text` differ, or the batch is empty.
    ///
    /// # Example
    ///
    /// ```
    /// use burn::tensor::{Device, Tensor};
    /// use burn_contrastive::objective::VsePlusPlusConfig;
    ///
    /// let device = Device::default();
    /// let equal = Tensor::<2>::ones([4, 3], &device);
    /// let objective = VsePlusPlusConfig::new().init(&device);
    /// let loss = objective.forward(equal.clone(), equal.clone());
    /// assert!((loss.into_scalar::<f32>() - 2.0 * 0.2).abs() < 1e-6);
    ///
    /// // Halfway through the warm-up: half of it from three negatives each way.
    /// let loss = objective.forward_at(equal.clone(), equal, 0.5);
    /// assert!((loss.into_scalar::<f32>() - (0.5 * 0.4 + 0.5 * 1.2)).abs() < 1e-6);
    /// ```
    #[track_caller]
    pub fn forward(&self, image: Tensor<2>, text: Tensor<2>) -> Tensor<1> {
        self.forward_at(image, text, 1.0)
    }

    /// The loss during a warm-up: `hardest_weight`, in [0, 1], of the hardest negatives and the rest
    /// of the sum over all. Shapes as [`forward`](Self::forward).
    ///
    /// # Panics
    ///
    /// As [`forward`](Self::forward), and where `hardest_weight` is outside [0, 1].
    #[track_caller]
    pub fn forward_at(&self, image: Tensor<2>, text: Tensor<2>, hardest_weight: f64) -> Tensor<1> {
        check::within("VsePlusPlus", "hardest_weight", hardest_weight, 0.0, 1.0);
        let (sum, hardest) = (1.0 - hardest_weight, hardest_weight);
        let of_sum = |image, text| {
            let vse = Vse {
                margin: self.margin,
                reduction: self.reduction,
                similarity: self.similarity,
            };
            vse.forward(image, text) * sum
        };
        let of_hardest = |image: Tensor<2>, text| {
            let count = image.dims()[0];
            let each = self.forward_no_reduction(image, text);
            self.reduction.of_sum(each.sum(), count) * hardest
        };
        match (sum, hardest) {
            (_, 0.0) => of_sum(image, text),
            (0.0, _) => of_hardest(image, text),
            _ => of_sum(image.clone(), text.clone()) + of_hardest(image, text),
        }
    }

    /// The loss of each pair: the hardest violation of its image and that of its text.
    ///
    /// # Shapes
    ///
    /// - `image`, `text`: `[N, D]`
    /// - returns `[N]`
    ///
    /// # Panics
    ///
    /// As [`forward`](Self::forward).
    #[track_caller]
    pub fn forward_no_reduction(&self, image: Tensor<2>, text: Tensor<2>) -> Tensor<1> {
        check::paired("VsePlusPlus", ("image", &image), ("text", &text));
        let [image, text] = [image, text].map(|x| self.similarity.prepare(x));
        let positive = rowwise_dot(image.clone(), text.clone());
        let [by_image, by_text] = hardest(self.similarity.pairs(image, text), &Expr::diagonal())
            .map(|hardest| {
                let violation = hardest.similarity - positive.clone() + self.margin;
                // Not `relu`, which loses NaN on some backends.
                let closed = violation.clone().lower_equal_elem(0.0);
                violation.mask_fill(closed, 0.0)
            });
        by_image + by_text
    }
}

display!(VsePlusPlus: margin, reduction);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::VseConfig;

    /// Images at 0°, 90° and 180° against texts at 0°, 0° and 180°: cosines
    ///
    /// ```text
    ///  1  1 −1
    ///  0  0  0
    /// −1 −1  1
    /// ```
    fn three_pairs(device: &Device) -> [Tensor<2>; 2] {
        [
            Tensor::from_data([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], device),
            Tensor::from_data([[2.0, 0.0], [0.5, 0.0], [-3.0, 0.0]], device),
        ]
    }

    #[test]
    fn three_pairs_by_hand() {
        let device = Device::default();
        let [image, text] = three_pairs(&device);
        let objective = VsePlusPlusConfig::new().with_margin(0.5).init(&device);
        let each = objective.forward_no_reduction(image, text);
        // Rows: 0.5; 0.5; 0. Columns: 0; 1.5; 0.
        let each = each.into_data().try_to_vec::<f32>().unwrap();
        let expected = [0.5, 2.0, 0.0];
        assert!(
            each.iter()
                .zip(expected)
                .all(|(l, e): (&f32, f32)| (l - e).abs() < 1e-6),
            "{each:?} against {expected:?}"
        );
    }

    #[test]
    fn a_warm_up_begins_with_the_sum() {
        let device = Device::default();
        let [image, text] = three_pairs(&device);
        let objective = VsePlusPlusConfig::new().init(&device);
        let at = |weight| {
            let loss = objective.forward_at(image.clone(), text.clone(), weight);
            loss.into_scalar::<f32>()
        };
        let sum = VseConfig::new().init(&device);
        let sum = sum
            .forward(image.clone(), text.clone())
            .into_scalar::<f32>();
        assert_eq!(at(0.0), sum);
        assert!((at(0.25) - (0.75 * sum + 0.25 * at(1.0))).abs() < 1e-6);
    }

    #[test]
    #[should_panic(expected = "`hardest_weight` is 1.5, it must lie in [0, 1]")]
    fn a_weight_past_one_is_refused() {
        let device = Device::default();
        let [image, text] = three_pairs(&device);
        let _ = VsePlusPlusConfig::new()
            .init(&device)
            .forward_at(image, text, 1.5);
    }

    #[test]
    #[should_panic(expected = "`margin` is -0.1, it must lie in [0")]
    fn a_negative_margin_is_refused() {
        VsePlusPlusConfig::new()
            .with_margin(-0.1)
            .init(&Device::default());
    }
}
