//! How a sequence of features becomes one vector.

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
}
