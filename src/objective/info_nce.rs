//! Symmetric InfoNCE, the objective of CLIP and ConVIRT.
//!
//! Each image must pick its own text among all texts of the batch, and each text its own image.
//! With `c_ij` the cosine of image `i` and text `j`, and `s` the logit scale (`1/τ`):
//!
//! ```text
//! L_i = −λ · log( e^{s·c_ii} / Σ_j e^{s·c_ij} ) − (1 − λ) · log( e^{s·c_ii} / Σ_j e^{s·c_ji} )
//! L   = mean over i of L_i
//! ```
//!
//! | symbol | here |
//! |---|---|
//! | λ | [`InfoNceConfig::image_to_text_weight`], ½ by default; ConVIRT uses 0.75 |
//! | s | [`InfoNce::logit_scale`]; starts at 1/0.07, learned, kept in [1, 100] (CLIP) |
//!
//! **Gradient.** With `p_ij`, `q_ij` the softmax of row `i` and of column `j`:
//! `∂L/∂c_ij = s/N · ( λ·(p_ij − δ_ij) + (1 − λ)·(q_ij − δ_ij) )`.
//!
//! **How it is computed.** As `log(1 + e^{n − p})`, with `p` the logit of the positive and `n` the
//! log-sum-exp of the negatives. This is the same number as cross-entropy, without the difference
//! of two nearly equal terms, so that a loss of 1e-12 is still exact to rounding.
//!
//! **Degenerate cases.** One pair without extra negatives has nothing to tell apart: loss 0,
//! gradient 0. N equal embeddings give ln N. A zero row has similarity 0 to everything and gets a
//! zero gradient. Duplicated pairs are counted as negatives of each other, as CLIP does.
//!
//! **Sources.** Radford et al. 2021, figure 3 (CLIP); Zhang et al. 2020, equations 2–4 (ConVIRT).
//! "Vision-Language Contrast" has no temperature: set 1.

use burn::config::Config;
use burn::module::{Content, DisplaySettings, Module, ModuleDisplay};
use burn::tensor::{Device, Tensor};

use crate::check;
use crate::pairwise::{Expr, Pairs, Reduction, columns, rows};
use crate::similarity::{LogitScale, LogitScaleConfig, SimilarityConfig};

/// Configuration of [`InfoNce`].
#[derive(Config, Debug, PartialEq)]
pub struct InfoNceConfig {
    /// The logit scale. Default: learned, from temperature 0.07, within [1, 100] (CLIP).
    #[config(default = "LogitScaleConfig::new()")]
    pub logit_scale: LogitScaleConfig,
    /// Weight λ of the image→text direction; text→image weighs 1 − λ. In [0, 1], default ½ (CLIP).
    #[config(default = 0.5)]
    pub image_to_text_weight: f64,
    /// How embeddings are compared. Default: by cosine, streaming.
    #[config(default = "SimilarityConfig::new()")]
    pub similarity: SimilarityConfig,
}

impl InfoNceConfig {
    /// Builds the objective on `device` (an autodiff device where the logit scale is to be learned).
    ///
    /// # Panics
    ///
    /// Where `image_to_text_weight` is not in [0, 1], or the logit scale's values are refused by
    /// [`LogitScaleConfig::init`].
    #[track_caller]
    pub fn init(&self, device: &Device) -> InfoNce {
        check::within(
            "InfoNceConfig",
            "image_to_text_weight",
            self.image_to_text_weight,
            0.0,
            1.0,
        );
        InfoNce {
            logit_scale: self.logit_scale.init(device),
            image_to_text_weight: self.image_to_text_weight,
            similarity: self.similarity,
        }
    }
}

/// Negatives from outside the batch, shared by every anchor: a queue or a memory bank, say.
///
/// They meet the anchors of the other modality: extra texts the images, extra images the texts.
#[derive(Clone, Debug, Default)]
pub struct Negatives {
    /// Extra images, `[K, D]`.
    pub image: Option<Tensor<2>>,
    /// Extra texts, `[M, D]`.
    pub text: Option<Tensor<2>>,
}

/// Symmetric InfoNCE over the cosines of paired embeddings; built by [`InfoNceConfig::init`].
///
/// `L = ½ · mean_i [ CE(s·c_i·, i) + CE(s·c_·i, i) ]`, `c_ij = cos(image_i, text_j)`: CLIP's loss,
/// computed as `log(1 + e^{n − p})` from the positive's logit and the negatives' log-sum-exp.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct InfoNce {
    /// The factor between cosines and logits; a parameter where it is learned.
    pub logit_scale: LogitScale,
    image_to_text_weight: f64,
    #[module(skip)]
    similarity: SimilarityConfig,
}

impl InfoNce {
    /// The loss, mean over the batch, in nats.
    ///
    /// # Shapes
    ///
    /// - `image`, `text`: `[N, D]`, row `i` of one belongs to row `i` of the other
    /// - returns `[1]`, f64 for f64 embeddings, f32 for all others
    ///
    /// # Panics
    ///
    /// Where shapes, dtypes or devices of `image` and `text` differ, the batch is empty, or the
    /// objective was built on another device.
    ///
    /// # Example
    ///
    /// ```
    /// use burn::tensor::{Device, Tensor};
    /// use burn_contrastive::objective::InfoNceConfig;
    ///
    /// let device = Device::default();
    /// let equal = Tensor::<2>::ones([4, 3], &device);
    /// let loss = InfoNceConfig::new().init(&device).forward(equal.clone(), equal);
    /// assert!((loss.into_scalar::<f32>() - 4f32.ln()).abs() < 1e-6);
    /// ```
    #[track_caller]
    pub fn forward(&self, image: Tensor<2>, text: Tensor<2>) -> Tensor<1> {
        self.forward_with_negatives(image, text, Negatives::default())
    }

    /// The loss of each pair, both directions weighted: see [`forward`](Self::forward).
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
        self.forward_with_negatives_no_reduction(image, text, Negatives::default())
    }

    /// The loss with negatives beside those of the batch, mean over the batch.
    ///
    /// # Shapes
    ///
    /// - `image`, `text`: `[N, D]`
    /// - `negatives`: image `[K, D]`, text `[M, D]`, either or both; no rows count as none
    /// - returns `[1]`
    ///
    /// # Panics
    ///
    /// As [`forward`](Self::forward), likewise for the negatives.
    #[track_caller]
    pub fn forward_with_negatives(
        &self,
        image: Tensor<2>,
        text: Tensor<2>,
        negatives: Negatives,
    ) -> Tensor<1> {
        let (batch, reductions, outside) = self.reductions(image, text, negatives);
        if outside.iter().all(Option::is_none) {
            // A function of the reductions alone, hence right on every device.
            return batch.reduce_to_scalar(&reductions, |results| {
                self.each(&results, [None, None]).mean()
            });
        }
        self.each(&batch.reduce(&reductions), outside).mean()
    }

    /// The loss of each pair with negatives beside those of the batch.
    ///
    /// # Shapes
    ///
    /// - as [`forward_with_negatives`](Self::forward_with_negatives)
    /// - returns `[N]`
    ///
    /// # Panics
    ///
    /// As [`forward_with_negatives`](Self::forward_with_negatives).
    #[track_caller]
    pub fn forward_with_negatives_no_reduction(
        &self,
        image: Tensor<2>,
        text: Tensor<2>,
        negatives: Negatives,
    ) -> Tensor<1> {
        let (batch, reductions, outside) = self.reductions(image, text, negatives);
        self.each(&batch.reduce(&reductions), outside)
    }

    /// The pairs of the batch and what to compute of them: of each row and of each column the
    /// log-sum-exp of the negatives, and the logits of the positives. Beside them the log-sum-exps of
    /// the extra negatives, of each image and of each text.
    #[track_caller]
    fn reductions(
        &self,
        image: Tensor<2>,
        text: Tensor<2>,
        negatives: Negatives,
    ) -> (Pairs, [Reduction; 3], [Option<Tensor<1>>; 2]) {
        check::paired("InfoNce", ("image", &image), ("text", &text));
        let extra = |name, tensor: Option<Tensor<2>>, anchor: check::Named| {
            let tensor = tensor.filter(|t| t.dims()[0] > 0)?;
            check::comparable("InfoNce", anchor, (name, &tensor));
            Some(self.similarity.prepare(tensor))
        };
        let extra_text = extra("negatives.text", negatives.text, ("image", &image));
        let extra_image = extra("negatives.image", negatives.image, ("text", &text));

        let (image, text) = (
            self.similarity.prepare(image),
            self.similarity.prepare(text),
        );
        let scale = self.scale_for(&image);
        let logits = |anchor: Tensor<2>, other: Tensor<2>| {
            let mut pairs = self.similarity.pairs(anchor, other);
            let logit = pairs.similarity() * pairs.scalar(scale.clone());
            (pairs, logit)
        };
        let outside = |anchor: &Tensor<2>, extra: Option<Tensor<2>>| {
            let (pairs, logit) = logits(anchor.clone(), extra?);
            pairs.reduce(&[rows().log_sum_exp(&logit)]).pop()
        };
        let outside = [outside(&image, extra_text), outside(&text, extra_image)];
        let (batch, logit) = logits(image, text);
        let negative = logit.except(&Expr::diagonal());
        let positive = Expr::select(&Expr::diagonal(), &logit, &Expr::constant(0.0));
        let reductions = [
            rows().log_sum_exp(&negative),
            columns().log_sum_exp(&negative),
            rows().sum(&positive),
        ];
        (batch, reductions, outside)
    }

    /// The loss of each pair, from the reductions of the batch and those of extra negatives.
    fn each(&self, results: &[Tensor<1>], outside: [Option<Tensor<1>>; 2]) -> Tensor<1> {
        let [by_row, by_column, positive] = results else {
            unreachable!("three reductions")
        };
        let [extra_text, extra_image] = outside;
        let image_to_text = cross_entropy(positive, [Some(by_row.clone()), extra_text]);
        let text_to_image = cross_entropy(positive, [Some(by_column.clone()), extra_image]);
        let weight = self.image_to_text_weight;
        image_to_text * weight + text_to_image * (1.0 - weight)
    }

    #[track_caller]
    fn scale_for(&self, embeddings: &Tensor<2>) -> Tensor<1> {
        let own = self.logit_scale.log_scale.device();
        check::built_on("InfoNce", &own, embeddings);
        self.logit_scale.value_as(embeddings.dtype())
    }
}

/// `log(1 + Σ e^{n − p})` over groups of negatives, each given by its log-sum-exp `n`: −∞ for none.
fn cross_entropy(positive: &Tensor<1>, groups: [Option<Tensor<1>>; 2]) -> Tensor<1> {
    let gaps: Vec<_> = groups
        .into_iter()
        .flatten()
        .map(|negatives| negatives - positive.clone())
        .collect();
    // With m = max(0, gaps): m + log1p(Σ e^{gap − m} + (e^{−m} − 1)), exact for tiny losses, where
    // m = 0, and free of overflow for large ones.
    let max = gaps.iter().fold(positive.zeros_like(), |max, gap| {
        max.max_pair(gap.clone().detach())
    });
    let rest = max.clone().neg().exp() - 1.0;
    let sum = gaps
        .into_iter()
        .fold(rest, |sum, gap| sum + (gap - max.clone()).exp());
    sum.log1p() + max
}

impl ModuleDisplay for InfoNce {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new()
            .with_new_line_after_attribute(false)
            .optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        content
            .add("logit_scale", &self.logit_scale)
            .add("image_to_text_weight", &self.image_to_text_weight)
            .add("normalize", &self.similarity.normalize)
            .add("evaluation", &format!("{:?}", self.similarity.evaluation))
            .optional()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_orthogonal_pairs_by_hand() {
        // cosines: 1 on the diagonal, 0 off it; at temperature 0.5 each row is log(1 + e^{0 − 2}).
        let device = Device::default();
        let x = Tensor::<2>::from_data([[2.0, 0.0], [0.0, 0.5]], &device);
        let objective = InfoNceConfig::new()
            .with_logit_scale(LogitScaleConfig::new().with_temperature(0.5))
            .init(&device);
        let each = objective
            .forward_no_reduction(x.clone(), x)
            .into_data()
            .try_to_vec::<f32>()
            .unwrap();
        let expected = (-2f32).exp().ln_1p();
        assert!(
            each.iter().all(|l| (l - expected).abs() < 1e-6),
            "{each:?} against {expected}"
        );
    }

    #[test]
    fn embeddings_of_width_one_have_cosines_of_plus_and_minus_one() {
        let device = Device::default().autodiff();
        let x = Tensor::<2>::from_data([[2.0], [-3.0]], &device).require_grad();
        let objective = InfoNceConfig::new()
            .with_logit_scale(LogitScaleConfig::new().with_temperature(1.0))
            .init(&device);
        let loss = objective.forward(x.clone(), x.clone());
        let gradient = x.grad(&loss.backward()).unwrap();
        assert!((loss.into_scalar::<f32>() - (-2f32).exp().ln_1p()).abs() < 1e-6);
        // The sign alone counts, and a small step does not change it.
        assert_eq!(
            gradient.into_data().try_to_vec::<f32>().unwrap(),
            [0.0, 0.0]
        );
    }

    #[test]
    fn a_tiny_loss_is_not_rounded_to_zero() {
        // Cosines 1 and −1 at scale 100: log(1 + e^{−200}) underflows to e^{−200} in f64.
        let device = Device::default();
        let x = Tensor::<2>::from_data([[1.0, 0.0], [-1.0, 0.0]], &device)
            .cast(burn::tensor::DType::F64);
        let objective = InfoNceConfig::new()
            .with_logit_scale(LogitScaleConfig::fixed(0.01))
            .init(&device);
        let loss = objective.forward(x.clone(), x).into_scalar::<f64>();
        assert!((loss / (-200f64).exp() - 1.0).abs() < 1e-4, "{loss:e}");
    }

    #[test]
    #[should_panic(expected = "`image_to_text_weight` is 1.5, it must lie in [0, 1]")]
    fn a_weight_past_one_is_refused() {
        InfoNceConfig::new()
            .with_image_to_text_weight(1.5)
            .init(&Device::default());
    }

    #[test]
    fn displays_what_it_is_made_of() {
        let shown = InfoNceConfig::new().init(&Device::default()).to_string();
        assert!(
            shown.contains("InfoNce") && shown.contains("image_to_text_weight: 0.5"),
            "{shown}"
        );
    }
}
