//! What BERT's first layer sees of a sentence.

use burn::module::{Module, Param};
use burn::nn::{Dropout, DropoutConfig, Embedding, EmbeddingConfig, LayerNorm};
use burn::tensor::{Device, Int, Tensor};

use super::{BertConfig, layer};

/// Number of token types: first and second sentence of a pair.
const TOKEN_TYPES: usize = 2;

/// The sum of a token's embedding, its position's, and its token type's, normalised.
#[derive(Module, Debug)]
pub struct BertEmbeddings {
    words: Embedding,
    positions: Param<Tensor<2>>,
    /// Both types of BERT, so that its weights fit; all words of a sentence are of the first.
    token_types: Param<Tensor<2>>,
    norm: LayerNorm,
    dropout: Dropout,
}

impl BertEmbeddings {
    pub(super) fn new(config: &BertConfig, device: &Device) -> Self {
        let (width, initializer) = (config.width, config.initializer());
        Self {
            words: EmbeddingConfig::new(config.vocabulary, width)
                .with_initializer(initializer.clone())
                .init(device),
            positions: initializer.init([config.context, width], device),
            token_types: initializer.init([TOKEN_TYPES, width], device),
            norm: layer::norm(width, device),
            dropout: DropoutConfig::new(config.dropout).init(),
        }
    }

    /// One vector a token.
    ///
    /// # Shapes
    ///
    /// - `tokens`: `[batch, length]`, `length` at most the configured context
    /// - output: `[batch, length, width]`
    ///
    /// # Panics
    ///
    /// If the sentences are longer than the context.
    pub fn forward(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        self.of_type(tokens, 0)
    }

    /// Likewise, of tokens of that type, 0 or 1.
    pub(super) fn of_type(&self, tokens: Tensor<2, Int>, token_type: usize) -> Tensor<3> {
        let [_, length] = tokens.dims();
        let [context, _] = self.positions.dims();
        assert!(
            length <= context,
            "bert: sentences of {length} tokens exceed the context of {context}",
        );
        let positions = self.positions.val().narrow(0, 0, length);
        let token_type = self.token_type(token_type);
        let x = self.words.forward(tokens) + (positions + token_type).unsqueeze();
        self.dropout.forward(self.norm.forward(x))
    }

    /// The embedding of a token type, 0 or 1, `[1, width]`.
    ///
    /// # Panics
    ///
    /// If there is no such type.
    pub fn token_type(&self, token_type: usize) -> Tensor<2> {
        self.token_types.val().narrow(0, token_type, 1)
    }

    /// The matrix of all tokens' embeddings, `[vocabulary, width]`.
    pub fn words(&self) -> Tensor<2> {
        self.words.weight.val()
    }
}
