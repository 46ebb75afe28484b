//! A recurrent caption encoder: word vectors, a GRU (Cho et al., 2014), its last state.

use std::path::PathBuf;

use anyhow::Result;
use burn::module::{Module, Param};
use burn::nn::gru::{Gru, GruConfig};
use burn::nn::{Embedding, EmbeddingConfig, Initializer};
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::check;

/// Spread of new word vectors, as in VSE++ (Faghri et al., 2018).
const WORDS: f64 = 0.1;

/// Shape of a [`GruEncoder`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GruEncoderConfig {
    /// Number of word vectors: at least the size of the tokenizer's vocabulary.
    pub vocabulary: usize,
    /// Longest caption in tokens, the tokenizer's special ones included.
    pub context: usize,
    /// Width of the word vectors; 300 in VSE++.
    pub words: usize,
    /// A text file with vectors of words, which take the place of random ones before the training;
    /// null for none.
    pub vectors: Option<PathBuf>,
    /// Width of the state, which is the feature; 1,024 in VSE++.
    pub width: usize,
}

impl GruEncoderConfig {
    /// Checks every size by itself, under names that start with `text.`.
    ///
    /// # Errors
    ///
    /// Names the setting that is out of range, its value and the range.
    pub fn check(&self) -> Result<()> {
        check::size("text.vocabulary", self.vocabulary, 10_000_000)?;
        check::size("text.context", self.context, 65_536)?;
        check::size("text.words", self.words, 65_536)?;
        check::size("text.width", self.width, 65_536)
    }

    /// About how many parameters the encoder has.
    pub fn about_parameters(&self) -> f64 {
        let [vocabulary, words, width] =
            [self.vocabulary, self.words, self.width].map(|size| size as f64);
        vocabulary * words + 3.0 * width * (words + width + 2.0)
    }

    /// A new encoder: word vectors uniform in ±0.1, as in VSE++, and matrices and biases in
    /// ±1/√width, as PyTorch starts a GRU.
    pub fn init(&self, device: &Device) -> GruEncoder {
        let uniform = |bound: f64| Initializer::Uniform {
            min: -bound,
            max: bound,
        };
        GruEncoder {
            words: EmbeddingConfig::new(self.vocabulary, self.words)
                .with_initializer(uniform(WORDS))
                .init(device),
            gru: GruConfig::new(self.words, self.width, true)
                .with_initializer(uniform(1.0 / (self.width as f64).sqrt()))
                .init(device),
        }
    }
}

/// Word vectors and a GRU that reads them from left to right.
///
/// The GRU is PyTorch's: the reset gate is applied after the multiplication with the state's
/// weights (`reset_after`), and both products have a bias.
#[derive(Module, Debug)]
pub struct GruEncoder {
    /// One vector a token of the vocabulary.
    pub words: Embedding,
    /// Reads them.
    pub gru: Gru,
}

impl GruEncoder {
    /// The same encoder with these vectors of the words of those ids.
    ///
    /// # Panics
    ///
    /// If an id is out of the vocabulary, or a vector not as wide as the others.
    pub fn with_words<'a>(mut self, rows: impl IntoIterator<Item = (usize, &'a [f32])>) -> Self {
        let weight = &self.words.weight;
        let [vocabulary, width] = weight.dims();
        let mut all: Vec<f32> = weight.val().into_data().iter().collect();
        for (id, row) in rows {
            all[id * width..][..width].copy_from_slice(row);
        }
        let options = (&weight.device(), weight.dtype());
        let all = TensorData::new(all, [vocabulary, width]);
        let all = Tensor::from_data(all, options);
        self.words.weight = Param::initialized(weight.id, all.require_grad());
        self
    }

    /// The state after the last token of each caption, which the padding behind it does not change;
    /// zero for a caption without a token.
    ///
    /// # Shapes
    ///
    /// - `tokens`: `[batch, length]`
    /// - `padding`: `[batch, length]`, true where `tokens` is padding, which is behind the caption
    /// - output: `[batch, width]`
    pub fn forward(&self, tokens: Tensor<2, Int>, padding: Tensor<2, Bool>) -> Tensor<2> {
        let vectors = self.words.forward(tokens);
        let ([batch, length, _], width) = (vectors.dims(), self.gru.d_hidden);
        let start = Tensor::<2>::zeros([batch, width], &vectors.device()).cast(vectors.dtype());
        // One step at a time: Burn's GRU would copy the states of all places at each.
        (0..length).fold(start, |state, place| {
            let vector = vectors.clone().narrow(1, place, 1);
            let next = self.gru.forward(vector, Some(state.clone()));
            let is_over = padding.clone().narrow(1, place, 1).expand([batch, width]);
            next.squeeze_dim(1).mask_where(is_over, state)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Tolerance;

    const CONFIG: GruEncoderConfig = GruEncoderConfig {
        vocabulary: 20,
        context: 16,
        words: 5,
        vectors: None,
        width: 7,
    };

    /// The feature of each caption, all padded to `length` with that token.
    fn features(
        encoder: &GruEncoder,
        captions: &[&[i32]],
        length: usize,
        pad: i32,
        device: &Device,
    ) -> Tensor<2> {
        let (mut ids, mut padding) = (Vec::new(), Vec::new());
        for caption in captions {
            let place = |index| caption.get(index).copied();
            ids.extend((0..length).map(|index| place(index).unwrap_or(pad)));
            padding.extend((0..length).map(|index| place(index).is_none()));
        }
        let shape = [captions.len(), length];
        let tokens = Tensor::<1, Int>::from_data(&ids[..], device).reshape(shape);
        let padding = Tensor::<1, Bool>::from_data(&padding[..], device).reshape(shape);
        encoder.forward(tokens, padding)
    }

    fn assert_close(left: &Tensor<2>, right: &Tensor<2>) {
        let [left, right] = [left, right].map(|tensor| tensor.clone().into_data());
        left.assert_approx_eq::<f32>(&right, Tolerance::absolute(1e-6));
    }

    #[test]
    fn padding_changes_nothing() {
        let device = Device::flex();
        let encoder = CONFIG.init(&device);
        let captions: [&[i32]; 3] = [&[2, 9, 3], &[2, 4, 5, 6, 3], &[2]];
        let all = features(&encoder, &captions, 8, 0, &device);
        assert_eq!(all.dims(), [3, 7]);
        assert_close(&all, &features(&encoder, &captions, 16, 11, &device));
        for (row, caption) in captions.into_iter().enumerate() {
            let alone = features(&encoder, &[caption], caption.len(), 0, &device);
            assert_close(&all.clone().narrow(0, row, 1), &alone);
        }
    }

    #[test]
    fn the_order_of_words_matters_and_so_does_each_of_them() {
        let device = Device::flex();
        let encoder = CONFIG.init(&device);
        let captions: [&[i32]; 4] = [&[2, 4, 5, 3], &[2, 5, 4, 3], &[7, 4, 5, 3], &[2, 4, 5, 8]];
        let rows = features(&encoder, &captions, 4, 0, &device);
        for other in 1..4 {
            let [first, other] = [0, other].map(|row| rows.clone().narrow(0, row, 1));
            let difference = (first - other).abs().max().into_scalar::<f32>();
            assert!(difference > 1e-5, "{difference}");
        }
    }

    #[test]
    fn only_words_that_were_read_get_gradients() {
        let device = Device::flex().autodiff();
        let encoder = CONFIG.init(&device);
        let gradients = features(&encoder, &[&[2, 4, 3], &[6]], 8, 0, &device)
            .sum()
            .backward();
        let words = encoder.words.weight.val().grad(&gradients).unwrap();
        let sums: Vec<f32> = words.abs().sum_dim(1).into_data().iter().collect();
        let read: Vec<_> = (0..sums.len()).filter(|&word| sums[word] > 0.0).collect();
        assert_eq!(read, [2, 3, 4, 6]);
    }

    #[test]
    fn the_published_size_has_the_parameters_of_vse_plus_plus() {
        let config = GruEncoderConfig {
            vocabulary: 11_755,
            context: 64,
            words: 300,
            vectors: None,
            width: 1024,
        };
        config.check().unwrap();
        // nn.Embedding(11755, 300) and nn.GRU(300, 1024).
        let expected = 11_755 * 300 + 3 * 1024 * (300 + 1024 + 2);
        assert_eq!(config.init(&Device::flex()).num_params(), expected);
        assert_eq!(config.about_parameters(), expected as f64);
    }

    #[test]
    fn a_size_out_of_range_is_named() {
        let config = GruEncoderConfig { words: 0, ..CONFIG };
        let error = config.check().unwrap_err().to_string();
        assert_eq!(error, "text.words = 0 must be in 1..=65536");
    }
}
