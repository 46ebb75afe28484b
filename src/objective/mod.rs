//! What a training loop calls: one file an objective.

#[macro_use]
mod display;

mod info_nce;
mod reduction;
mod vse;

pub use info_nce::{InfoNce, InfoNceConfig, Negatives};
pub use reduction::Reduction;
pub use vse::{Vse, VseConfig};
