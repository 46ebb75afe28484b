//! Contrastive objectives for paired embeddings on Burn.

pub mod objective;
pub mod pairwise;
pub mod retrieval;
pub mod similarity;
