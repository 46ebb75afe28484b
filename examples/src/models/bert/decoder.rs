//! A decoder that answers from an encoder's states, as ALBEF does for VQA.

use burn::module::Module;
use burn::tensor::{Bool, Int, Tensor};

use super::{BertEmbeddings, BertEncoder, CrossStates, LanguageHead};
use crate::models::independent_copy;

/// A causal decoder of answers: BERT's embeddings, layers with cross-attention, language head.
#[derive(Module, Debug)]
pub struct BertDecoder {
    embeddings: BertEmbeddings,
    encoder: BertEncoder,
    pub(super) head: LanguageHead,
}

impl BertDecoder {
    /// A decoder that starts from the values of a pretrained model's parts and trains apart from
    /// them.
    ///
    /// # Panics
    ///
    /// If `fusion` has layers without cross-attention.
    pub fn from_fusion(
        embeddings: &BertEmbeddings,
        fusion: &BertEncoder,
        head: &LanguageHead,
    ) -> Self {
        assert!(
            fusion
                .layers
                .iter()
                .all(|layer| layer.cross_attention.is_some()),
            "bert: a decoder needs layers with cross-attention",
        );
        Self {
            embeddings: independent_copy(embeddings),
            encoder: independent_copy(fusion).causal(),
            head: independent_copy(head),
        }
    }

    /// Logits of the token after each token.
    ///
    /// # Shapes
    ///
    /// - `tokens`: `[batch, length]`
    /// - `padding`: `[batch, length]`, true where `tokens` is padding
    /// - `states`: `[batch, seen, width]`, the encoder's
    /// - `states_padding`: `[batch, seen]`, true where `states` is padding
    /// - output: `[batch, length, vocabulary]`
    ///
    /// # Panics
    ///
    /// If the answers are longer than the context, or the states are of another batch.
    pub fn forward(
        &self,
        tokens: Tensor<2, Int>,
        padding: Tensor<2, Bool>,
        states: Tensor<3>,
        states_padding: Tensor<2, Bool>,
    ) -> Tensor<3> {
        let [batch, length] = tokens.dims();
        let states = CrossStates {
            states,
            padding: Some(states_padding),
        };
        let x = self.embeddings.forward(tokens);
        let x = self.encoder.forward(x, Some(padding), Some(states));
        let logits = self.head.forward(x.flatten(0, 1), &self.embeddings);
        let [_, vocabulary] = logits.dims();
        logits.reshape([batch, length, vocabulary])
    }
}
