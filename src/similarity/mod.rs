//! How alike two embeddings are: l2 normalisation, cosine similarity and the logit scale.

mod config;
mod cosine;
mod logit_scale;
mod normalize;

pub use config::SimilarityConfig;
pub use cosine::{pairwise_cosine_similarity, rowwise_dot};
pub use logit_scale::{LogitScale, LogitScaleConfig};
pub use normalize::l2_normalize;
