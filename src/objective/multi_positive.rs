//! InfoNCE with several positives an anchor, by ids: captions of one image, samples of one class.
//!
//! With `z_ij` the logits and `P(i)` the texts that carry the id of image `i` (its own among them):
//!
//! ```text
//! D_i(image→text) = −1/|P(i)|·Σ_{p∈P(i)} log( e^{z_ip} / Σ_j e^{z_ij} )
//! L = mean over i of  ½·D_i(image→text) + ½·D_i(text→image)
//! ```
//!
//! This is SupCon's "out" form across modalities; with [`MultiPositiveConfig::within_modality`] positives and negatives are those of both
//! modalities, the anchor itself left out, which is SupCon over the 2·N samples. Under [`SameId::LeftOut`] only the pair's own text
//! is a positive, and the others of its id are no negatives either: InfoNCE that is not punished for the captions of
//! one image.
//!
//! | symbol | here |
//! |---|---|
//! | ids | `ids` of [`MultiPositive::forward`] |
//! | what an id means | [`MultiPositiveConfig::same_id`] |
//! | z | cosines times [`MultiPositiveConfig::logit_scale`]; learned, from temperature 0.07 |
//!
//! **How it is computed.** As `log(1 + e^{n − p}) + (p − p̄)`, with `n` and `p` the log-sum-exps of negatives and positives, `p̄` the mean
//! logit of the positives: with one positive each, InfoNCE to the last digit.
//!
//! **Cost.** That of InfoNCE, and a comparison of ids for each pair; within the modality twice that.
//!
//! **Degenerate cases.** All ids different: InfoNCE. All ids equal: no negatives; `log Σ_p e^{z_ip} − p̄`, at least `ln N`. One pair: 0.
//!
//! **Source.** Khosla et al. 2020, equation 2 (SupCon; its temperature is 0.07 too).

use burn::config::Config;

use super::contrastive::{ContrastiveConfig, Criterion, Directions, SameId, preset};
use super::named::{Input, Parameter};
use crate::similarity::{LogitScaleConfig, SimilarityConfig};

/// Configuration of [`MultiPositive`].
#[derive(Config, Debug, PartialEq)]
pub struct MultiPositiveConfig {
    /// The logit scale. Default: learned, from temperature 0.07, within [1, 100] (CLIP).
    #[config(default = "LogitScaleConfig::new()")]
    pub logit_scale: LogitScaleConfig,
    /// What samples of the anchor's id are. Default: positives (SupCon).
    #[config(default = "SameId::Positive")]
    pub same_id: SameId,
    /// Whether the anchor also meets the other samples of its own modality (SupCon). Default false.
    #[config(default = false)]
    pub within_modality: bool,
    /// Whether the two directions are added or averaged. Default: averaged (CLIP, SupCon).
    #[config(default = "Directions::Mean")]
    pub directions: Directions,
    /// How embeddings are compared. Default: by cosine, streaming.
    #[config(default = "SimilarityConfig::new()")]
    pub similarity: SimilarityConfig,
}

impl MultiPositiveConfig {
    /// The parts of the objective, to be recombined.
    pub fn contrastive(&self) -> ContrastiveConfig {
        let criterion = Criterion::new()
            .with_same_id(self.same_id)
            .with_within_modality(self.within_modality)
            .with_directions(self.directions)
            .with_similarity(self.similarity);
        ContrastiveConfig::new()
            .with_logit_scale(self.logit_scale.clone())
            .with_criterion(criterion)
    }
}

preset! {
    /// InfoNCE with several positives an anchor; built by [`MultiPositiveConfig::init`].
    ///
    /// `L = −½·mean_i [ mean_{p∈P(i)} log softmax(z_i·)_p + mean_{p∈P(i)} log softmax(z_·i)_p ]`. Ids come
    /// with the call; without them every anchor has its own positive alone.
    ///
    /// ```
    /// use burn::tensor::{Device, Int, Tensor};
    /// use burn_contrastive::objective::MultiPositiveConfig;
    ///
    /// let device = Device::default();
    /// let equal = Tensor::<2>::ones([4, 3], &device);
    /// // Two captions each of two images.
    /// let ids = Tensor::<1, Int>::from_data([7, 7, 9, 9], &device);
    /// let objective = MultiPositiveConfig::new().init(&device);
    /// let loss = objective.forward_with(equal.clone(), equal, ids);
    /// assert!((loss.into_scalar::<f32>() - 4f32.ln()).abs() < 1e-5);
    /// ```
    MultiPositive = MultiPositiveConfig, "multi-positive";
    parameters(config) = [Parameter::new("same_id", &mut config.same_id)];
    needs = [Input::Label];
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Int, Tensor};

    use super::*;

    #[test]
    fn three_pairs_of_two_ids_by_hand() {
        // Cosines 1 on the diagonal and 0 off it, pairs 0 and 1 of one id, at temperature 1.
        let device = Device::default();
        let x = Tensor::<2>::eye(3, &device);
        let ids = || Tensor::<1, Int>::from_data([4, 4, -2], &device);
        let each = |config: MultiPositiveConfig| {
            config
                .with_logit_scale(LogitScaleConfig::fixed(1.0))
                .init(&device)
                .forward_no_reduction(x.clone(), x.clone(), ids())
                .into_data()
                .try_to_vec::<f32>()
                .unwrap()
        };
        let e = 1f32.exp();
        // The first: log(e + 1 + 1) − ½·(1 + 0). Left out, it meets one negative.
        let positives = [
            (e + 2.0).ln() - 0.5,
            (e + 2.0).ln() - 0.5,
            (e + 2.0).ln() - 1.0,
        ];
        let left_out = [(1.0 / e).ln_1p(), (1.0 / e).ln_1p(), (2.0 / e).ln_1p()];
        for (config, expected) in [
            (MultiPositiveConfig::new(), positives),
            (
                MultiPositiveConfig::new().with_same_id(SameId::LeftOut),
                left_out,
            ),
        ] {
            for (loss, expected) in each(config).into_iter().zip(expected) {
                assert!((loss - expected).abs() < 1e-6, "{loss} against {expected}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "`ids.batch` has 3 elements, `image` has 2 rows")]
    fn ids_of_another_number_are_refused() {
        let device = Device::default();
        let x = Tensor::<2>::ones([2, 3], &device);
        let ids = Tensor::<1, Int>::from_data([1, 2, 3], &device);
        MultiPositiveConfig::new()
            .init(&device)
            .forward_with(x.clone(), x, ids);
    }
}
