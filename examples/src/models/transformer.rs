//! Burn's transformer encoder, run over all tokens of a batch as the rows of one matrix.
//!
//! Burn multiplies `[batch, length, width]` by a weight as `batch` products, and gives the weight
//! the sum of `batch` gradients of its own size. Of one matrix of tokens, both are one product.

use burn::nn::attention::MultiHeadAttention;
use burn::nn::transformer::{TransformerEncoder, TransformerEncoderConfig};
use burn::tensor::activation::softmax;
use burn::tensor::{Bool, Tensor};

/// The pre-norm transformer of both encoders: feed-forward four times the width, GELU.
pub fn config(width: usize, layers: usize, heads: usize, dropout: f64) -> TransformerEncoderConfig {
    TransformerEncoderConfig::new(width, 4 * width, heads, layers)
        .with_norm_first(true)
        .with_dropout(dropout)
}

/// What [`TransformerEncoder::forward`] gives for a [`config`].
///
/// # Shapes
///
/// - `x`: `[batch, length, width]`
/// - `padding`: `[batch, length]`, true where no token looks
/// - output: `[batch, length, width]`
pub fn forward(
    transformer: &TransformerEncoder,
    x: Tensor<3>,
    padding: Option<Tensor<2, Bool>>,
) -> Tensor<3> {
    let [batch, length, width] = x.dims();
    let mask = padding.map(|padding| padding.reshape([batch, 1, 1, length]));
    let mut x = x.reshape([batch * length, width]);
    for layer in &transformer.layers {
        let normal = layer.norm_2.forward(x.clone());
        let context = attention(&layer.mha, normal, [batch, length], mask.clone());
        x = x + layer.dropout.forward(context);
        let normal = layer.norm_1.forward(x.clone());
        x = x + layer.dropout.forward(layer.pwff.forward(normal));
    }
    x.reshape([batch, length, width])
}

/// Every token's view of the tokens of its sequence.
fn attention(
    mha: &MultiHeadAttention,
    x: Tensor<2>,
    [batch, length]: [usize; 2],
    mask: Option<Tensor<4, Bool>>,
) -> Tensor<2> {
    let heads = |x: Tensor<2>| {
        x.reshape([batch, length, mha.n_heads, mha.d_k])
            .swap_dims(1, 2)
    };
    let query = heads(mha.query.forward(x.clone()) / (mha.d_k as f64).sqrt());
    let key = heads(mha.key.forward(x.clone()));
    let value = heads(mha.value.forward(x));
    let mut scores = query.matmul(key.transpose());
    if let Some(mask) = mask {
        scores = scores.mask_fill(mask, mha.min_float);
    }
    let weights = mha.dropout.forward(softmax(scores, 3));
    let context = weights.matmul(value).swap_dims(1, 2);
    mha.output
        .forward(context.reshape([batch * length, mha.d_model]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::nn::transformer::TransformerEncoderInput;
    use burn::tensor::{Device, Distribution, Tolerance};

    #[test]
    fn it_is_the_transformer_of_burn() {
        let device = Device::flex();
        let transformer = config(8, 2, 2, 0.0).init(&device);
        let x = Tensor::random([3, 5, 8], Distribution::Normal(0.0, 1.0), &device);
        let [whole, shorter] = [5, 3].map(|present| [0, 1, 2, 3, 4].map(|at| at >= present));
        let padding = Tensor::from_data([whole, shorter, whole], &device);
        for padding in [None, Some(padding)] {
            let mut input = TransformerEncoderInput::new(x.clone());
            if let Some(padding) = padding.clone() {
                input = input.mask_pad(padding);
            }
            let expected = transformer.forward(input).into_data();
            let actual = forward(&transformer, x.clone(), padding).into_data();
            actual.assert_approx_eq::<f32>(&expected, Tolerance::absolute(1e-5));
        }
    }
}
