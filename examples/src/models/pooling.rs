//! How a sequence of features becomes one vector.

use burn::tensor::{Bool, Tensor};
use serde::{Deserialize, Serialize};

/// How a sequence of features becomes one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// The first token's feature: a learnable class token before the patches of an image, the
    /// tokenizer's own first token (`[CLS]`) of a caption.
    Token,
    /// The mean over patches, or over the tokens that are not padding.
    Mean,
    /// The last token's feature, `[SEP]` or CLIP's end of text, of a caption in which every token
    /// sees only itself and those before it. Not for images.
    Last,
}

/// Mean over the second dimension where `padding` is false; zero where all of it is padding.
///
/// # Shapes
///
/// - `x`: `[batch, length, width]`
/// - `padding`: `[batch, length]`
/// - output: `[batch, width]`
pub fn masked_mean(x: Tensor<3>, padding: Tensor<2, Bool>) -> Tensor<2> {
    let present = padding.bool_not().float().unsqueeze_dim::<3>(2);
    let count = present.clone().sum_dim(1).clamp_min(1.0);
    ((x * present).sum_dim(1) / count).squeeze_dim(1)
}

/// The feature of the last token that is not padding, which is behind the caption; the first
/// token's where all of it is padding.
///
/// # Shapes
///
/// - `x`: `[batch, length, width]`
/// - `padding`: `[batch, length]`
/// - output: `[batch, width]`
pub fn last_token(x: Tensor<3>, padding: Tensor<2, Bool>) -> Tensor<2> {
    let [batch, _, width] = x.dims();
    let present = padding.bool_not().int().sum_dim(1);
    let last = (present - 1).clamp_min(0).unsqueeze_dim::<3>(2);
    x.gather(1, last.expand([batch, 1, width])).squeeze_dim(1)
}
