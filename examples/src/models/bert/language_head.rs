//! BERT's guess of the words.

use burn::module::{Module, Param};
use burn::nn::{Initializer, LayerNorm, Linear};
use burn::tensor::activation::gelu;
use burn::tensor::{Device, Tensor};

use super::{BertConfig, BertEmbeddings, layer, linear};

/// Logits of every token of the vocabulary, from a state of the last layer.
///
/// The last matrix is that of the embeddings ("tied"), so this module does not own it.
#[derive(Module, Debug)]
pub struct LanguageHead {
    dense: Linear,
    norm: LayerNorm,
    pub(super) bias: Param<Tensor<1>>,
}

impl LanguageHead {
    pub(super) fn new(config: &BertConfig, device: &Device) -> Self {
        Self {
            dense: linear(config, config.width, config.width, device),
            norm: layer::norm(config.width, device),
            bias: Initializer::Zeros.init([config.vocabulary], device),
        }
    }

    /// Logits of the tokens that stand where the states are.
    ///
    /// # Shapes
    ///
    /// - `states`: `[tokens, width]`, for instance those of the masked tokens alone
    /// - output: `[tokens, vocabulary]`
    ///
    /// # Panics
    ///
    /// If `embeddings` has another vocabulary or width.
    pub fn forward(&self, states: Tensor<2>, embeddings: &BertEmbeddings) -> Tensor<2> {
        let x = self.norm.forward(gelu(self.dense.forward(states)));
        x.matmul(embeddings.words().transpose()) + self.bias.val().unsqueeze()
    }
}
