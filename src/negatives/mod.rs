//! Where negatives come from besides the batch.
//!
//! | | what | source |
//! |---|---|---|
//! | [`FeatureQueue`] | the features of the last batches | MoCo, ALBEF |
//! | [`HardNegativeSampler`] | one hard negative of the batch for each sample | ALBEF |
//! | [`HardNegativeSynthesis`] | points between the samples, near each anchor | ITContrast |
//! | [`GaussianNegatives`] | noise, to smooth the space | ITContrast |
//!
//! What they give is a constant to the gradient. What is drawn is a function of a seed and a step: a
//! resumed run draws what the run would have drawn, without a generator's state in the checkpoint.

mod gaussian;
mod queue;
mod sampler;
mod synthesis;

pub use gaussian::{GaussianNegatives, GaussianNegativesConfig};
pub use queue::{FeatureQueue, FeatureQueueConfig, Features};
pub use sampler::{Drawn, HardNegativeSampler, HardNegativeSamplerConfig};
pub use synthesis::{HardNegativeSynthesis, HardNegativeSynthesisConfig, HardNegatives};
