//! What a training loop calls: one file an objective.

mod info_nce;

pub use info_nce::{InfoNce, InfoNceConfig, Negatives};
