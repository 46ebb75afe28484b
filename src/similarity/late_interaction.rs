//! Rows of tokens, and how they are compared: late interaction.

use burn::tensor::{Bool, Tensor};

use super::SimilarityConfig;
use crate::pairwise::Pairs;
use crate::tensor::values_like;

/// The embeddings of the tokens (patches, words) of each sample, and which of them count.
///
/// Samples of different length are padded, and a mask says which tokens are theirs. What a token
/// that does not count holds has no influence, NaN or not, and its gradient is zero.
#[derive(Clone, Debug)]
pub struct Tokens {
    pub(crate) embeddings: Tensor<3>,
    /// True for tokens that count.
    mask: Option<Tensor<2, Bool>>,
}

impl Tokens {
    /// Tokens that all count.
    ///
    /// # Shapes
    ///
    /// - `embeddings`: `[N, T, D]`, `T` tokens for each sample
    pub fn new(embeddings: Tensor<3>) -> Self {
        Self {
            embeddings,
            mask: None,
        }
    }

    /// With a mask in place of the one there was: true for tokens that count.
    ///
    /// # Shapes
    ///
    /// - `mask`: `[N, T]`, on the device of the embeddings
    ///
    /// # Panics
    ///
    /// Where the mask has another shape than the tokens.
    #[track_caller]
    pub fn with_mask(self, mask: Tensor<2, Bool>) -> Self {
        let [n, t, _] = self.embeddings.dims();
        assert!(
            mask.dims() == [n, t],
            "Tokens: the mask has shape {:?}, it must be [{n}, {t}], one value for each token",
            mask.dims()
        );
        Self {
            mask: Some(mask),
            ..self
        }
    }

    /// All tokens one below the other, `[N·T, D]`.
    pub(crate) fn rows(&self) -> Tensor<2> {
        let [n, t, d] = self.embeddings.dims();
        self.embeddings.clone().reshape([n * t, d])
    }

    /// Tokens whose sum is their mean over those that count; zeros in place of the others.
    fn averaged(self) -> Tensor<3> {
        let shape @ [n, t, _] = self.embeddings.dims();
        let Some(left_out) = self.left_out() else {
            // Not a division by `t`, whose gradient Burn rounds to f32.
            return self.embeddings * (1.0 / t as f64);
        };
        let ones = values_like(vec![1.0; n * t], [n, t, 1], &self.embeddings);
        let count = ones.mask_fill(left_out.clone(), 0.0).sum_dim(1);
        self.embeddings.mask_fill(left_out.expand(shape), 0.0) / count.clamp_min(1.0)
    }

    /// The first token that counts in place of those that do not, which changes no maximum; zeros
    /// where none counts.
    fn filled(self) -> Tensor<3> {
        let Some(left_out) = self.left_out() else {
            return self.embeddings;
        };
        let shape @ [n, t, _] = self.embeddings.dims();
        let index = (0..t).map(|k| k as f64).collect();
        let index = values_like(index, [1, t, 1], &self.embeddings).expand([n, t, 1]);
        let index = index.mask_fill(left_out.clone(), t as f64);
        let first = index.clone().min_dim(1).expand([n, t, 1]);
        let not_first = index.not_equal(first).expand(shape);
        let left_out = left_out.expand(shape);
        let tokens = self.embeddings.mask_fill(left_out.clone(), 0.0);
        let first = tokens.clone().mask_fill(not_first, 0.0).sum_dim(1);
        tokens.mask_where(left_out, first.expand(shape))
    }

    /// Where tokens do not count, `[N, T, 1]`.
    fn left_out(&self) -> Option<Tensor<3, Bool>> {
        Some(self.mask.clone()?.bool_not().unsqueeze_dim(2))
    }
}

impl SimilarityConfig {
    /// Tokens ready to be compared: each as [`prepare`](Self::prepare) prepares an embedding.
    ///
    /// # Shapes
    ///
    /// - `tokens` and what is returned: `[N, T, D]`, with the same mask
    pub fn prepare_tokens(&self, tokens: Tokens) -> Tokens {
        let shape @ [n, t, d] = tokens.embeddings.dims();
        let embeddings = match tokens.left_out() {
            // Zeros have a gradient of zero, whatever they replace.
            Some(left_out) => tokens.embeddings.mask_fill(left_out.expand(shape), 0.0),
            None => tokens.embeddings,
        };
        let rows = self.prepare(embeddings.reshape([n * t, d])).values();
        Tokens {
            embeddings: rows.reshape(shape),
            mask: tokens.mask,
        }
    }

    /// All pairs of samples whose tokens [`prepare_tokens`](Self::prepare_tokens) returned, by late
    /// interaction as in FILIP: each token of row `i` of `a` has its closest token of row `j` of
    /// `b`, and the similarity is the mean over the tokens of `a`,
    ///
    /// ```text
    /// s_ij = mean over the tokens p of a_i of  max over the tokens t of b_j of  a_ip·b_jt
    /// ```
    ///
    /// where only tokens that count take part. It is another matrix than that of `b` with `a`. A
    /// sample without any token that counts has the similarity 0 with everything, on either side,
    /// and a gradient of zero. The gradient of a maximum reaches one token, of equals the one with
    /// the lowest index.
    ///
    /// Memory and time are those of [`Pairs::late_interaction`].
    ///
    /// # Shapes
    ///
    /// - `a`: `[N, P, D]`, `b`: `[M, T, D]`
    ///
    /// # Panics
    ///
    /// As [`Pairs::late_interaction`].
    ///
    /// # Example
    ///
    /// ```
    /// use burn::tensor::{Bool, Device, Distribution, Tensor};
    /// use burn_contrastive::pairwise::rows;
    /// use burn_contrastive::similarity::{SimilarityConfig, Tokens};
    ///
    /// let device = Device::default();
    /// let image = Tensor::<3>::random([2, 9, 16], Distribution::Default, &device);
    /// let text = Tensor::<3>::random([2, 4, 16], Distribution::Default, &device);
    /// let words = [[true, true, true, true], [true, true, false, false]];
    /// let words = Tensor::<2, Bool>::from_data(words, &device);
    ///
    /// let similarity = SimilarityConfig::new();
    /// let image = similarity.prepare_tokens(Tokens::new(image));
    /// let text = similarity.prepare_tokens(Tokens::new(text).with_mask(words));
    /// let pairs = similarity.late_interaction(image, text);
    /// let logit = pairs.similarity() / 0.07;
    /// assert_eq!(pairs.reduce(&[rows().log_sum_exp(&logit)])[0].dims(), [2]);
    /// ```
    #[track_caller]
    pub fn late_interaction(&self, a: Tokens, b: Tokens) -> Pairs {
        self.evaluate(Pairs::late_interaction(a.averaged(), b.filled()))
    }
}
