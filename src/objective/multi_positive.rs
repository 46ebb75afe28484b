//! InfoNCE with several positives an anchor, by ids: captions of one image, samples of one class.
//!
//! With `z_ij` the logits and `P(i)` the texts that have the id of image `i` (its own among them):
//!
//! ```text
//! D_i(image→text) = −1/|P(i)|·Σ_{p∈P(i)} log( e^{z_ip} / Σ_j e^{z_ij} )
//! L = mean over i of  ½·D_i(image→text) + ½·D_i(text→image)
//! ```
//!
//! This is SupCon's "out" form across modalities. With [`MultiPositiveConfig::within_modality`]
//! positives and negatives are those of both modalities, the anchor itself left out, which is
//! SupCon over the 2·N samples. Under [`SameId::LeftOut`] only the pair's own text is a positive,
//! and the others of its id are no negatives either: InfoNCE in which captions of one image do not
//! repel each other.
//!
//! | symbol | here |
//! |---|---|
//! | ids | [`Context::ids`](super::Context::ids) |
//! | what an id means | [`MultiPositiveConfig::same_id`] |
//! | z | cosines times [`MultiPositiveConfig::logit_scale`]; learned, from temperature 0.07 |
//!
//! **How it is computed.** As `log(1 + e^{n − p}) + (p − p̄)`, with `n` and `p` the log-sum-exps of
//! negatives and positives, `p̄` the mean logit of the positives: with one positive each, InfoNCE
//! to the last digit.
//!
//! **Cost.** That of InfoNCE, and a comparison of ids for each pair; within the modality twice
//! that.
//!
//! **Degenerate cases.** All ids different: InfoNCE. All ids equal: no negatives;
//! `log Σ_p e^{z_ip} − p̄`, at least `ln N`. One pair: 0.
//!
//! **Source.** Khosla et al. 2020, equation 2 (SupCon; its temperature is 0.07 too).

use super::contrastive::{Criterion, Directions, SameId};
use super::entry::{Input, Parameter, preset};
use crate::similarity::LogitScaleConfig;

config! {
    /// Configuration of [`MultiPositive`].
    pub struct MultiPositiveConfig {
        /// The logit scale. Default: learned, from temperature 0.07, within [1, 100] (CLIP).
        logit_scale: LogitScaleConfig = "LogitScaleConfig::new()",
        /// What samples of the anchor's id are. Default: positives (SupCon).
        same_id: SameId = "SameId::Positive",
        /// Whether the other samples of the anchor's own modality are candidates too (SupCon).
        /// Default false.
        within_modality: bool = false,
        /// Whether the two directions are added or averaged. Default: averaged (CLIP, SupCon).
        directions: Directions = "Directions::Mean",
    }
}

preset! {
    /// InfoNCE with several positives an anchor; built by [`MultiPositiveConfig::init`].
    ///
    /// `L = −½·mean_i [ mean_{p∈P(i)} log softmax(z_i·)_p + mean_{p∈P(i)} log softmax(z_·i)_p ]`.
    /// Ids come with the call; without them the only positive of an anchor is its own.
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
    criterion(config) = Criterion::new()
        .with_same_id(config.same_id)
        .with_within_modality(config.within_modality);
    parameters(config) = [Parameter::new("same_id", &mut config.same_id)];
    needs = [Input::Label];
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Int, Tensor};

    use super::*;
    use crate::objective::tests::assert_close;

    #[test]
    fn three_pairs_of_two_ids_by_hand() {
        // Cosines 1 on the diagonal and 0 off it, pairs 0 and 1 of one id, at temperature 1.
        let device = Device::default();
        let x = Tensor::<2>::eye(3, &device);
        let ids = Tensor::<1, Int>::from_data([4, 4, -2], &device);
        let e = 1f32.exp();
        // The first: log(e + 1 + 1) − ½·(1 + 0). Left out, it has one negative.
        let positives = [0.5, 0.5, 1.0].map(|mean| (e + 2.0).ln() - mean);
        let left_out = [1.0, 1.0, 2.0].map(|negatives| (negatives / e).ln_1p());
        for (same_id, expected) in [(SameId::Positive, positives), (SameId::LeftOut, left_out)] {
            let objective = MultiPositiveConfig::new()
                .with_same_id(same_id)
                .with_logit_scale(LogitScaleConfig::fixed(1.0))
                .init(&device);
            let each = objective.forward_no_reduction(x.clone(), x.clone(), ids.clone());
            assert_close(each, expected, 1e-6);
        }
    }

    #[test]
    #[should_panic(expected = "`ids.batch` has 3 elements, `image` has 2 rows")]
    fn ids_of_another_count_are_refused() {
        let device = Device::default();
        let x = Tensor::<2>::ones([2, 3], &device);
        let ids = Tensor::<1, Int>::from_data([1, 2, 3], &device);
        MultiPositiveConfig::new()
            .init(&device)
            .forward_with(x.clone(), x, ids);
    }
}
