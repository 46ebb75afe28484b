//! How alike two embeddings are: l2 normalisation, cosine similarity, late interaction of tokens,
//! and the logit scale.

mod config;
mod cosine;
mod embeddings;
mod late_interaction;
mod logit_scale;
mod normalize;

pub use config::SimilarityConfig;
pub use cosine::{pairwise_cosine_similarity, rowwise_dot};
pub use embeddings::Embeddings;
pub(crate) use embeddings::Norms;
pub use late_interaction::Tokens;
pub use logit_scale::{LogitScale, LogitScaleConfig};
pub use normalize::l2_normalize;
