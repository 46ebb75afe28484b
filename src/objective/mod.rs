//! What a training loop calls: one file an objective.

mod info_nce;
mod reduction;

pub use info_nce::{InfoNce, InfoNceConfig, Negatives};
pub use reduction::Reduction;
