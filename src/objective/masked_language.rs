//! Masked language modelling: predict hidden tokens from the other tokens and the image.
//!
//! 15 % of the tokens are chosen, special ones never. Of the chosen, 80 % are replaced by the mask
//! token, 10 % by a random token, and 10 % stay. The caller's model and head give logits `z` over
//! the vocabulary, and
//!
//! ```text
//! L = mean over chosen tokens of CE(z, token)
//! L = (1 − α)·CE(z, token) + α·CE(z, softmax(z'))       with the logits z' of a momentum teacher
//! ```
//!
//! **Cost.** Only the logits of chosen tokens are needed: [`Masked::gather`] selects their hidden
//! states, so that the head, usually the largest product of the model, runs on 15 % of the tokens.
//!
//! **Degenerate cases.** If no token is chosen the loss is 0, with gradient 0.
//!
//! **Sources.** Devlin et al. 2019 (BERT), section 3.1, task 1; Li et al. 2021 (ALBEF), equations 3
//! and 7.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::activation::{log_softmax, softmax};
use burn::tensor::{Int, Tensor, TensorData};

use crate::check::{self, ConfigError};
use crate::random::{Purpose, Random};
use crate::tensor::{constant_like, indices_like, select_rows};

/// Configuration of [`MaskedLanguage`].
#[derive(Config, Debug, PartialEq)]
pub struct MaskedLanguageConfig {
    /// Number of tokens in the vocabulary, V.
    pub vocabulary: usize,
    /// The token that replaces a hidden one.
    pub mask_token: usize,
    /// Tokens that are never hidden, such as padding, beginning and end of a text, and the mask.
    pub special_tokens: Vec<usize>,
    /// Probability that a token is chosen. Default 0.15 (BERT).
    #[config(default = 0.15)]
    pub probability: f64,
    /// Share of the chosen tokens that become the mask. Default 0.8 (BERT).
    #[config(default = 0.8)]
    pub masked_share: f64,
    /// Share of the chosen tokens that become a random token; the rest stays. Default 0.1 (BERT).
    #[config(default = 0.1)]
    pub random_share: f64,
    /// Seed of the choices. Default 0.
    #[config(default = 0)]
    pub seed: u64,
}

impl MaskedLanguageConfig {
    /// Checks the values.
    ///
    /// # Errors
    ///
    /// If a probability or share is outside [0, 1], the shares exceed 1 together, or `mask_token`
    /// is not below `vocabulary`.
    pub fn check(&self) -> Result<(), ConfigError> {
        let name = "MaskedLanguageConfig";
        check::range(name, "probability", self.probability, 0.0, 1.0)?;
        check::range(name, "masked_share", self.masked_share, 0.0, 1.0)?;
        // Shares given in decimal may be rounded.
        let rest = 1.0 - self.masked_share + 1e-9;
        check::range(name, "random_share", self.random_share, 0.0, rest)?;
        if self.mask_token < self.vocabulary {
            return Ok(());
        }
        let (mask_token, vocabulary) = (self.mask_token, self.vocabulary);
        let problem = format!("is {mask_token}, it must be below `vocabulary`, {vocabulary}");
        Err(ConfigError::new(name, "mask_token", problem))
    }

    /// Builds the objective; it has no parameters.
    ///
    /// # Panics
    ///
    /// If [`check`](Self::check) returns an error.
    #[track_caller]
    pub fn init(&self) -> MaskedLanguage {
        check::or_panic(self.check());
        MaskedLanguage {
            config: self.clone(),
        }
    }
}

/// Texts with hidden tokens, and the tokens that were hidden.
#[derive(Clone, Debug)]
pub struct Masked {
    /// The model's input, `[B, L]`.
    pub tokens: Tensor<2, Int>,
    /// Where tokens are to be predicted: ascending indices into the `B·L` tokens, row by row.
    pub positions: Vec<usize>,
    /// The original tokens at these positions.
    pub targets: Vec<usize>,
}

impl Masked {
    /// The states at the positions of hidden tokens; `None` if there are none.
    ///
    /// # Shapes
    ///
    /// - `states`: `[B, L, W]`, hidden states or logits
    /// - returns `[P, W]`, a row for each of [`positions`](Self::positions)
    ///
    /// # Panics
    ///
    /// If `states` does not belong to `B` texts of length `L`.
    #[track_caller]
    pub fn gather(&self, states: Tensor<3>) -> Option<Tensor<2>> {
        let ([batch, length], shape) = (self.tokens.dims(), states.dims());
        assert!(
            shape[..2] == [batch, length],
            "MaskedLanguage: `states` has shape {shape:?}, it needs [{batch}, {length}, …]"
        );
        if self.positions.is_empty() {
            return None;
        }
        let states = states.reshape([batch * length, shape[2]]);
        Some(select_rows(&states, self.positions.iter().copied()))
    }
}

/// Prediction of hidden tokens; built by [`MaskedLanguageConfig::init`].
///
/// # Example
///
/// ```
/// use burn::tensor::{Device, Int, Tensor};
/// use burn_contrastive::objective::MaskedLanguageConfig;
///
/// let device = Device::default();
/// // 0 is padding, 1 begins a text, 2 ends it, 3 is the mask.
/// let config = MaskedLanguageConfig::new(100, 3, vec![0, 1, 2, 3]).with_probability(0.5);
/// let objective = config.init();
/// let tokens = Tensor::<2, Int>::from_data([[1, 17, 30, 52, 8, 2, 0, 0]], &device);
/// let masked = objective.mask(tokens, 0);
/// assert!(!masked.positions.is_empty());
/// // In place of a model: all tokens are equally likely.
/// let logits = Tensor::<3>::zeros([1, 8, 100], &device);
/// let loss = objective.forward(logits, &masked).into_scalar::<f32>();
/// assert!((loss - 100f32.ln()).abs() < 1e-5);
/// ```
#[derive(Module, Debug)]
pub struct MaskedLanguage {
    #[module(skip)]
    config: MaskedLanguageConfig,
}

impl MaskedLanguage {
    /// Hides tokens: a function of the tokens, the seed and the step. Reads the tokens back from
    /// the device.
    ///
    /// # Shapes
    ///
    /// - `tokens`: `[B, L]`
    pub fn mask(&self, tokens: Tensor<2, Int>, step: u64) -> Masked {
        let config = &self.config;
        let (shape, device, dtype) = (tokens.dims(), tokens.device(), tokens.dtype());
        let data = tokens.into_data().convert::<i64>();
        let mut read = data.try_to_vec::<i64>().expect("integers");
        let mut random = Random::new(config.seed, step, Purpose::Masking);
        let (mut positions, mut targets) = (Vec::new(), Vec::new());
        for (position, token) in read.iter_mut().enumerate() {
            // Drawn for every token, so that the others do not influence what happens to one.
            let (chosen, how, which) = (
                random.uniform(),
                random.uniform(),
                random.below(config.vocabulary),
            );
            let special = config.special_tokens.contains(&(*token as usize));
            if special || chosen >= config.probability {
                continue;
            }
            positions.push(position);
            targets.push(*token as usize);
            if how < config.masked_share {
                *token = config.mask_token as i64;
            } else if how < config.masked_share + config.random_share {
                *token = which as i64;
            }
        }
        let data = TensorData::new(read, shape).convert_dtype(dtype);
        Masked {
            tokens: Tensor::from_data(data, (&device, dtype)),
            positions,
            targets,
        }
    }

    /// The loss, mean over the hidden tokens, in nats.
    ///
    /// # Shapes
    ///
    /// - `logits`: `[B, L, V]`
    /// - returns `[1]`, f64 for f64 logits, f32 for all others
    ///
    /// # Panics
    ///
    /// If `logits` has another shape.
    #[track_caller]
    pub fn forward(&self, logits: Tensor<3>, masked: &Masked) -> Tensor<1> {
        if let Some(gathered) = masked.gather(logits.clone()) {
            return self.forward_gathered(gathered, masked);
        }
        let one = logits.slice([0..1, 0..1, 0..1]).reshape([1]);
        one.clone().cast(check::compute_dtype(one.dtype())) * 0.0
    }

    /// The loss from the logits of the hidden tokens alone: those of a head that was given the
    /// result of [`Masked::gather`].
    ///
    /// # Shapes
    ///
    /// - `logits`: `[P, V]`
    /// - returns `[1]`
    ///
    /// # Panics
    ///
    /// If `logits` has another shape.
    #[track_caller]
    pub fn forward_gathered(&self, logits: Tensor<2>, masked: &Masked) -> Tensor<1> {
        self.against_tokens(self.log_probabilities("logits", logits, masked), masked)
    }

    /// `1 − alpha` times the loss against the hidden tokens plus `alpha` times that against the
    /// distribution of a momentum teacher. In ALBEF `alpha` grows from 0 to 0.4 over the first
    /// epoch.
    ///
    /// # Shapes
    ///
    /// - `logits`, `teacher`: `[P, V]`; the teacher is a constant, on either kind of device
    /// - returns `[1]`
    ///
    /// # Panics
    ///
    /// If a shape is another, or `alpha` is outside [0, 1].
    #[track_caller]
    pub fn forward_distilled(
        &self,
        logits: Tensor<2>,
        teacher: Tensor<2>,
        alpha: f64,
        masked: &Masked,
    ) -> Tensor<1> {
        check::or_panic(check::range("MaskedLanguage", "alpha", alpha, 0.0, 1.0));
        self.check_shape("teacher", &teacher, masked);
        let log_probabilities = self.log_probabilities("logits", logits, masked);
        let teacher = teacher.without_autodiff().cast(log_probabilities.dtype());
        let teacher = constant_like(softmax(teacher, 1), &log_probabilities);
        let soft = (log_probabilities.clone() * teacher).sum_dim(1).mean();
        self.against_tokens(log_probabilities, masked) * (1.0 - alpha) - soft * alpha
    }

    #[track_caller]
    fn check_shape(&self, name: &str, logits: &Tensor<2>, masked: &Masked) {
        let (shape, count) = (logits.dims(), masked.positions.len());
        let vocabulary = self.config.vocabulary;
        assert!(
            shape == [count, vocabulary],
            "MaskedLanguage: `{name}` has shape {shape:?}, it needs [{count}, {vocabulary}]: \
             hidden tokens, vocabulary"
        );
    }

    #[track_caller]
    fn log_probabilities(&self, name: &str, logits: Tensor<2>, masked: &Masked) -> Tensor<2> {
        self.check_shape(name, &logits, masked);
        log_softmax(logits.clone().cast(check::compute_dtype(logits.dtype())), 1)
    }

    fn against_tokens(&self, log_probabilities: Tensor<2>, masked: &Masked) -> Tensor<1> {
        let targets = indices_like(masked.targets.iter().copied(), &log_probabilities);
        log_probabilities
            .gather(1, targets.unsqueeze_dim::<2>(1))
            .mean()
            .neg()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    fn config() -> MaskedLanguageConfig {
        MaskedLanguageConfig::new(50, 3, vec![0, 1, 2, 3])
    }

    fn read(tokens: Tensor<2, Int>) -> Vec<usize> {
        let data = tokens.into_data().convert::<i64>();
        let data = data.try_to_vec::<i64>().unwrap();
        data.into_iter().map(|x| x as usize).collect()
    }

    #[test]
    fn hidden_tokens_have_their_shares_and_special_tokens_are_never_hidden() {
        let device = Device::default();
        // 64 texts: begin, 60 words, end, two of padding.
        let text: Vec<i32> = [
            vec![1],
            (0..60).map(|k| 4 + k % 46).collect(),
            vec![2, 0, 0],
        ]
        .concat();
        let tokens =
            Tensor::<1, Int>::from_data(text.repeat(64).as_slice(), &device).reshape([64, 64]);
        let before = read(tokens.clone());
        let objective = config().init();
        let masked = objective.mask(tokens.clone(), 9);
        let after = read(masked.tokens.clone());

        let chosen = masked.positions.len() as f64;
        assert!((chosen / (64.0 * 60.0) - 0.15).abs() < 0.02, "{chosen}");
        let [mut hidden, mut kept] = [0.0; 2];
        for (&position, &target) in masked.positions.iter().zip(&masked.targets) {
            assert!(before[position] == target && target > 3);
            hidden += f64::from(after[position] == 3) / chosen;
            kept += f64::from(after[position] == target) / chosen;
        }
        // A random token is the mask, or the original token, once in 50 draws.
        assert!(
            (hidden - 0.8).abs() < 0.06 && (kept - 0.1).abs() < 0.05,
            "{hidden}, {kept}"
        );
        let untouched = (0..before.len()).filter(|k| !masked.positions.contains(k));
        assert!(untouched.into_iter().all(|k| before[k] == after[k]));

        assert_eq!(read(objective.mask(tokens.clone(), 9).tokens), after);
        assert_ne!(read(objective.mask(tokens, 10).tokens), after);
    }

    #[test]
    fn two_hidden_tokens_by_hand() {
        let device = Device::default();
        let objective = MaskedLanguageConfig::new(2, 0, vec![]).init();
        let masked = Masked {
            tokens: Tensor::zeros([1, 3], &device),
            positions: vec![0, 2],
            targets: vec![1, 0],
        };
        let logits = Tensor::<3>::from_data([[[0.0, 2.0], [9.0, 9.0], [0.0, 1.0]]], &device);
        let expected = ((-2f32).exp().ln_1p() + 1f32.exp().ln_1p()) / 2.0;
        let loss = objective
            .forward(logits.clone(), &masked)
            .into_scalar::<f32>();
        assert!((loss - expected).abs() < 1e-6, "{loss} against {expected}");

        // A uniform teacher: the mean of both tokens' cross-entropies.
        let gathered = masked.gather(logits).unwrap();
        let even = Tensor::<2>::zeros([2, 2], &device);
        let soft = (((-2f32).exp().ln_1p() + 2f32.exp().ln_1p()) / 2.0
            + ((-1f32).exp().ln_1p() + 1f32.exp().ln_1p()) / 2.0)
            / 2.0;
        let loss = objective.forward_distilled(gathered, even, 0.25, &masked);
        let expected = 0.75 * expected + 0.25 * soft;
        assert!((loss.into_scalar::<f32>() - expected).abs() < 1e-6);
    }

    #[test]
    fn without_hidden_tokens_the_loss_is_zero() {
        let device = Device::default().autodiff();
        let objective = config().with_probability(0.0).init();
        let masked = objective.mask(Tensor::full([2, 3], 7, &device), 0);
        let logits = Tensor::<3>::ones([2, 3, 50], &device).require_grad();
        assert!(masked.gather(logits.clone()).is_none());
        let loss = objective.forward(logits.clone(), &masked);
        let gradient = logits.grad(&loss.backward()).unwrap();
        assert_eq!(loss.into_scalar::<f32>(), 0.0);
        assert_eq!(gradient.abs().sum().into_scalar::<f32>(), 0.0);
    }

    #[test]
    #[should_panic(expected = "`random_share` is 0.3, it must lie in [0, 0.2")]
    fn shares_above_one_are_refused() {
        config().with_random_share(0.3).init();
    }
}
