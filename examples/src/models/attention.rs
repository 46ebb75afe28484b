//! Attention of the rows of one matrix, which are all tokens of a batch, to those of another.

use burn::nn::attention::MultiHeadAttention;
use burn::nn::{Dropout, Linear};
use burn::tensor::activation::softmax;
use burn::tensor::{Bool, Tensor};

/// Score of what is masked, as in Burn; the softmax makes a weight of zero of it.
const MASKED: f64 = -1e4;

/// The parts of an attention, which may belong to more than one module.
#[derive(Clone, Copy)]
pub struct Attention<'a> {
    pub query: &'a Linear,
    pub key: &'a Linear,
    pub value: &'a Linear,
    pub output: &'a Linear,
    /// Of the weights.
    pub dropout: &'a Dropout,
    pub heads: usize,
}

impl<'a> From<&'a MultiHeadAttention> for Attention<'a> {
    fn from(mha: &'a MultiHeadAttention) -> Self {
        Self {
            query: &mha.query,
            key: &mha.key,
            value: &mha.value,
            output: &mha.output,
            dropout: &mha.dropout,
            heads: mha.n_heads,
        }
    }
}

impl Attention<'_> {
    /// Every token's view of the states of its sample.
    ///
    /// # Shapes
    ///
    /// - `x`: `[batch * length, width]`
    /// - `states`: `[batch * seen, width]`, `x` itself in self-attention
    /// - `mask`: `[batch, 1, length or 1, seen]`, true where a token does not look
    /// - output: `[batch * length, width]`
    pub fn forward(
        &self,
        x: Tensor<2>,
        states: Tensor<2>,
        batch: usize,
        mask: Option<Tensor<4, Bool>>,
    ) -> Tensor<2> {
        let [rows, _] = x.dims();
        let heads = |x: Tensor<2>| {
            let [rows, width] = x.dims();
            x.reshape([batch, rows / batch, self.heads, width / self.heads])
                .swap_dims(1, 2)
        };
        let query = self.query.forward(x);
        let [_, width] = query.dims();
        let query = heads(query / ((width / self.heads) as f64).sqrt());
        let key = heads(self.key.forward(states.clone()));
        let value = heads(self.value.forward(states));
        let mut scores = query.matmul(key.transpose());
        if let Some(mask) = mask {
            scores = scores.mask_fill(mask, MASKED);
        }
        let weights = self.dropout.forward(softmax(scores, 3));
        let context = weights.matmul(value).swap_dims(1, 2);
        self.output.forward(context.reshape([rows, width]))
    }
}
