//! Burn's transformer encoder, run over all tokens of a batch as the rows of one matrix.
//!
//! Burn multiplies `[batch, length, width]` by a weight as `batch` products, and gives the weight
//! the sum of `batch` gradients of its own size. Of one matrix of tokens, both are one product.

use burn::nn::transformer::{
    PositionWiseFeedForward, TransformerEncoder, TransformerEncoderConfig,
};
use burn::tensor::activation::sigmoid;
use burn::tensor::{Bool, Tensor};
use serde::{Deserialize, Serialize};

use super::attention::Attention;
use super::zero_bias;

/// The activation between the two layers of a transformer's feed-forward parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// Exact GELU.
    #[default]
    Gelu,
    /// `x · sigmoid(1.702 x)`, which OpenAI trained its CLIP weights with.
    QuickGelu,
}

/// The pre-norm transformer of both encoders: feed-forward four times the width, GELU.
pub fn config(width: usize, layers: usize, heads: usize, dropout: f64) -> TransformerEncoderConfig {
    TransformerEncoderConfig::new(width, 4 * width, heads, layers)
        .with_norm_first(true)
        .with_dropout(dropout)
}

/// About how many parameters a [`config`] has: a layer has 12 matrices of its width.
pub fn about_parameters(layers: usize, width: usize) -> f64 {
    12.0 * layers as f64 * (width as f64).powi(2)
}

/// Starts every bias at zero.
pub fn zero_biases(transformer: &mut TransformerEncoder) {
    for layer in &mut transformer.layers {
        for linear in [
            &mut layer.mha.query,
            &mut layer.mha.key,
            &mut layer.mha.value,
            &mut layer.mha.output,
            &mut layer.pwff.linear_inner,
            &mut layer.pwff.linear_outer,
        ] {
            zero_bias(linear);
        }
    }
}

/// What [`TransformerEncoder::forward`] gives for a [`config`] and GELU.
///
/// # Shapes
///
/// - `x`: `[batch, length, width]`
/// - `mask`: `[batch, 1, length or 1, length]`, true where a token does not look
/// - output: `[batch, length, width]`
pub fn forward(
    transformer: &TransformerEncoder,
    activation: Activation,
    x: Tensor<3>,
    mask: Option<Tensor<4, Bool>>,
) -> Tensor<3> {
    let [batch, length, width] = x.dims();
    let mut x = x.reshape([batch * length, width]);
    for layer in &transformer.layers {
        let normal = layer.norm_2.forward(x.clone());
        let attention = Attention::from(&layer.mha);
        let context = attention.forward(normal.clone(), normal, batch, mask.clone());
        x = x + layer.dropout.forward(context);
        let normal = layer.norm_1.forward(x.clone());
        x = x + layer
            .dropout
            .forward(feed_forward(&layer.pwff, activation, normal));
    }
    x.reshape([batch, length, width])
}

fn feed_forward(
    layer: &PositionWiseFeedForward,
    activation: Activation,
    x: Tensor<2>,
) -> Tensor<2> {
    if activation == Activation::Gelu {
        return layer.forward(x);
    }
    let x = layer.linear_inner.forward(x);
    let x = x.clone() * sigmoid(x * 1.702);
    layer.linear_outer.forward(layer.dropout.forward(x))
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
            let mask = padding.map(|padding| padding.reshape([3, 1, 1, 5]));
            let actual = forward(&transformer, Activation::Gelu, x.clone(), mask).into_data();
            actual.assert_approx_eq::<f32>(&expected, Tolerance::absolute(1e-5));
        }
    }
}
