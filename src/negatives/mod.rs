//! Sources of negatives besides the batch.
//!
//! | | negatives | source |
//! |---|---|---|
//! | [`FeatureQueue`] | the features of the last batches | MoCo, ALBEF |
//! | [`HardNegativeSampler`] | one hard negative of the batch for each sample | ALBEF |
//! | [`HardNegativeSynthesis`] | points between the samples, near each anchor | ITContrast |
//! | [`GaussianNegatives`] | noise, which smooths the space | ITContrast |
//!
//! All are constants to the gradient unless their config says otherwise. Random choices are a
//! function of a seed and a step: a resumed run draws what the original run would have drawn,
//! without a generator's state in the checkpoint.

mod gaussian;
mod queue;
mod sampler;
mod synthesis;

pub use gaussian::{GaussianNegatives, GaussianNegativesConfig};
pub use queue::{FeatureQueue, FeatureQueueConfig, PairFeatures};
pub use sampler::{Drawn, HardNegativeSampler, HardNegativeSamplerConfig, Samples};
pub use synthesis::{HardNegativeSynthesis, HardNegativeSynthesisConfig, HardNegatives};
