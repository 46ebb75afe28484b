//! The ablation of ITContrast's table 3: the contrast with and without synthesised negatives, with
//! and without noise.
//!
//! **The base** is equation 6 without either: the softmax contrast of both directions at the
//! paper's temperature. Table 3's own rows 1 and 5 are another thing, SCAN's and OSCAR's systems
//! with their own losses, so that what it calls "+Info" changes the loss and adds noise at once.
//! Here each setting adds one thing. For a loss of those systems in place of the base, there is
//! `--objective` with `--set synthesis=false --set noise=false`.

use anyhow::Result;

use super::ItContrastConfig;
use crate::training::comparison::{Comparison, Variant};
use crate::training::config::TrainingConfig;

/// Base, +Syn, +Info and both, on the same regions.
///
/// # Errors
///
/// If the settings do not fit together.
pub fn ablation(config: &TrainingConfig<ItContrastConfig>) -> Result<Comparison<ItContrastConfig>> {
    let variant = |folder: &str, value: &str, synthesis: bool, noise: bool| {
        let pairs = [format!("synthesis={synthesis}"), format!("noise={noise}")];
        Ok(Variant {
            folder: folder.to_string(),
            value: value.to_string(),
            number: None,
            config: config.with(None, &pairs)?,
        })
    };
    let variants = [
        variant("base", "base", false, false),
        variant("synthesis", "+ Syn.", true, false),
        variant("noise", "+ Info.", false, true),
        variant("both", "+ Syn. + Info.", true, true),
    ];
    Ok(Comparison {
        title: "Synthesised hard negatives and noise".to_string(),
        parameter: "negatives".to_string(),
        variants: variants.into_iter().collect::<Result<_>>()?,
        baseline: None,
        config: config.clone(),
        share: Some(|prepared, config| {
            let file = &prepared.system.regions.file;
            config.system.regions.file.clone_from(file);
        }),
    })
}
