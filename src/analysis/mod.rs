//! What an objective makes of a batch: the weights of its negatives, and mutual information.

mod histogram;
mod information;
mod weights;

pub use histogram::WeightHistogram;
pub use information::mutual_information_bound;
pub use weights::{BatchWeights, WeighedPair};
