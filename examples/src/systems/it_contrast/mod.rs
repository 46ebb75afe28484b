//! `it-contrast`: a contrast with synthesised hard negatives and noise on regions and words (Wu et
//! al., "ITContrast").
//!
//! Regions of an image and words of a caption go through one transformer, OSCAR's, that keeps them
//! apart ([`JointBert`]), and each is averaged. InfoCMR contrasts the two with the batch, with hard
//! negatives that SynHNC makes of clusters of the batch, and with Gaussian noise.
//!
//! Features of regions come from a [file](crate::data::RegionFile). Without one the run makes its
//! own: it trains a small `clip`, whose image tower then looks at parts of the images.

pub mod comparisons;
mod config;
mod late;
mod program;
pub mod regions;
mod step;
#[cfg(test)]
mod tests;

use burn::module::Module;
use burn::tensor::{Bool, Device, Int, Tensor};
use burn_contrastive::negatives::GaussianNegativesConfig;
use burn_contrastive::objective::{Features, InfoCmrConfig, Input, Objective};

use crate::data::regions::RegionBatch;
use crate::models::JointBert;
use crate::training::system::Moment;

pub use config::{
    ItContrastConfig, NegativesConfig, RegionIds, RegionsConfig, Similarity, TowerConfig,
};
pub use late::States;
pub use program::RegionTest;

/// The system: see [the module](self).
#[derive(Module, Debug)]
pub struct ItContrast {
    /// What reads regions and words.
    pub model: JointBert,
    /// The contrast; it owns the logit scale.
    pub objective: Objective,
    #[module(skip)]
    config: Skipped,
    #[module(skip)]
    moment: Moment,
}

/// What of the settings a step reads.
#[derive(Clone, Debug)]
struct Skipped {
    feature: usize,
    tokens: usize,
    similarity: Similarity,
    negatives: NegativesConfig,
    synthesis: bool,
    noise: bool,
    late_noise: Option<InfoCmrConfig>,
    ids: RegionIds,
}

impl ItContrast {
    fn new(config: &ItContrastConfig, device: &Device) -> Self {
        let mut objective = config.objective().init(device);
        if config.synthesis {
            // A batch without any negatives has no hard ones either.
            objective = objective.with_uses([Input::HardImage, Input::HardText]);
        }
        Self {
            model: config.model.init(device),
            objective,
            config: Skipped {
                feature: config.model.feature,
                tokens: config.tokens,
                similarity: config.similarity,
                negatives: config.negatives.clone(),
                synthesis: config.synthesis,
                noise: config.noise,
                late_noise: config.late_noise(),
                ids: config.ids,
            },
            moment: Moment::default(),
        }
    }

    /// Width of a region's feature.
    pub fn feature(&self) -> usize {
        self.config.feature
    }

    /// The states of regions, which see no word of a caption.
    pub fn look(&self, batch: RegionBatch) -> States {
        let RegionBatch {
            regions,
            padding,
            tags,
        } = batch;
        States {
            states: self.model.look(regions, padding.clone(), tags),
            padding,
        }
    }

    /// The states of words, which see no region.
    ///
    /// # Shapes
    ///
    /// - `tokens`: `[captions, length]`
    /// - `padding`: `[captions, length]`, true where `tokens` is padding
    pub fn read(&self, tokens: Tensor<2, Int>, padding: Tensor<2, Bool>) -> States {
        States {
            states: self.model.read(tokens, padding.clone()),
            padding,
        }
    }

    /// A batch with what is contrasted beside it at a step: hard negatives, where the batch has any
    /// negatives at all, and noise.
    ///
    /// # Shapes
    ///
    /// - `image`, `text`: `[pairs, width]`
    /// - `ids`: `[pairs]`, equal for pairs that match each other, on a plain device
    pub fn features(
        &self,
        image: Tensor<2>,
        text: Tensor<2>,
        ids: Tensor<1, Int>,
        step: usize,
    ) -> Features {
        let (step, seed, config) = (step as u64, self.moment.seed, &self.config);
        let mut features = Features::new(image, text);
        if config.noise {
            features.noise = self.noise(&features.image, step);
        }
        if config.synthesis {
            let synthesis = config.negatives.synthesis(seed).init();
            let [image, text] = [&features.image, &features.text].map(Clone::clone);
            let hard = synthesis.synthesize(image, text, Some(ids.clone()), step);
            if let Some(hard) = hard {
                features.hard_image = Some(hard.image);
                features.hard_text = Some(hard.text);
            }
        }
        features.label = Some(ids);
        features
    }

    /// The noise of a step, as wide as these embeddings and on their device:
    /// `[negatives.noise, width]`.
    fn noise(&self, embeddings: &Tensor<2>, step: u64) -> Option<Tensor<2>> {
        let noise = GaussianNegativesConfig::new()
            .with_count(self.config.negatives.noise)
            .with_seed(self.moment.seed);
        noise.init().draw(embeddings, step)
    }
}
