//! What published weights start in runs of ALBEF, and the settings that come with them.

use anyhow::{Result, ensure};

use super::config::{AlbefConfig, AlbefModelConfig};
use crate::published::{Layout, Published};
use crate::training::config::TrainingConfig;
use crate::training::system::{SystemConfig, Towers, not_whole};

impl AlbefModelConfig {
    /// What published weights can start of a system that has an
    /// [`AlbefModel`](super::AlbefModel).
    pub(super) const TOWERS: Towers = Towers {
        image: Some("model.image"),
        text: Some("model.bert"),
        language_head: Some("model.language_head"),
    };

    /// Layers of the text half.
    pub(super) fn text_layers(&self) -> usize {
        self.bert.layers.saturating_sub(self.bert.fusion_layers)
    }
}

/// The encoders of the weights, for a system that can start from them.
///
/// # Errors
///
/// If they are not ALBEF's, or a tensor is missing or of the wrong rank.
pub(super) fn model<C: SystemConfig>(published: &Published) -> Result<AlbefModelConfig> {
    ensure!(published.layout == Layout::Albef, not_whole::<C>(published));
    let [embedding, _] = published.matrix("model.image_projection.output.weight")?;
    Ok(AlbefModelConfig {
        image: published.vit("model.image.")?,
        bert: published.bert("model.bert.")?,
        embedding,
    })
}

/// The defaults with the encoders of the weights. Momentum and optimiser are those of ALBEF's
/// fine-tuning on retrieval.
pub(super) fn settings(published: &Published) -> Result<TrainingConfig<AlbefConfig>> {
    let mut config = AlbefConfig::defaults();
    let system = &mut config.system;
    system.model = model::<AlbefConfig>(published)?;
    system.momentum.momentum = 0.995;
    system.tokens = system.tokens.min(system.model.bert.context);
    let optimizer = &mut config.shared.optimizer;
    optimizer.learning_rate = 1e-5;
    optimizer.weight_decay = 0.02;
    Ok(config)
}
