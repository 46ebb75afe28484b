//! The comparisons of SRCL's paper that take several runs: a sweep over the threshold below which
//! negatives are removed (figure 3a), and the pilot that removes known false negatives (table 1).

use anyhow::{Context, Result, anyhow};
use burn_contrastive::objective::{ObjectiveConfig, Value};

use super::config::{AlbefConfig, MatchIds};
use crate::training::comparison::{Comparison, Variant};
use crate::training::config::TrainingConfig;
use crate::training::plan::Axis;

/// Removal of negatives below each threshold, beside SRCL's weights. All share one teacher.
///
/// # Errors
///
/// If a threshold is no number, or out of range.
pub fn sweep(
    config: &TrainingConfig<AlbefConfig>,
    thresholds: &[Axis],
) -> Result<Comparison<AlbefConfig>> {
    let with = |objective: &str| -> Result<TrainingConfig<AlbefConfig>> {
        config.with(None, &[format!("objective={objective}")])
    };
    let variants = thresholds.iter().flat_map(|axis| &axis.values);
    let variants = variants.map(|value| {
        let threshold: f64 = value.parse().context("--thresholds")?;
        let mut config = with("false-negative-removal")?;
        let objective = &mut config.system.objective;
        let set = objective.set("threshold", Value::Number(threshold));
        set.map_err(|error| anyhow!("--thresholds: {error}"))?;
        objective.check()?;
        Ok(Variant {
            folder: format!("threshold-{threshold}"),
            value: value.clone(),
            number: Some(threshold),
            config,
        })
    });
    Ok(Comparison {
        title: "Removal of negatives by their weight".to_string(),
        parameter: "threshold".to_string(),
        variants: variants.collect::<Result<_>>()?,
        baseline: Some(Variant {
            folder: "srcl".to_string(),
            value: "SRCL".to_string(),
            number: None,
            config: with("srcl")?,
        }),
        config: with("srcl")?,
        share: Some(|prepared, config| {
            let teacher = &prepared.system.teacher.run;
            config.system.teacher.run.clone_from(teacher);
        }),
    })
}

/// The share of a batch whose meaning another pair of it has, where the settings say none.
const FALSE_NEGATIVES: f64 = 0.3;

/// ALBEF's contrast with all negatives, and without those that are known to match: images whose
/// captions say the same. Where the settings leave none in a batch, 30 % of its pairs get one.
///
/// # Errors
///
/// If the settings do not fit together.
pub fn pilot(config: &TrainingConfig<AlbefConfig>) -> Result<Comparison<AlbefConfig>> {
    let mut config = config.with(None, &["objective=image-text-contrastive".to_string()])?;
    let data = &mut config.shared.data;
    if data.equal_meaning == 0.0 {
        data.equal_meaning = FALSE_NEGATIVES;
    }
    let mut removed = config.clone();
    removed.system.losses.ids = MatchIds::Meaning;
    let objective: &mut ObjectiveConfig = &mut removed.system.objective;
    let left_out = Value::Word("left_out".to_string());
    let set = objective.set("same_id", left_out);
    set.map_err(|error| anyhow!("{error}"))?;
    let variant = |folder: &str, value: &str, config: &TrainingConfig<AlbefConfig>| Variant {
        folder: folder.to_string(),
        value: value.to_string(),
        number: None,
        config: config.clone(),
    };
    Ok(Comparison {
        title: "Known false negatives removed".to_string(),
        parameter: "negatives".to_string(),
        variants: vec![
            variant("all", "all", &config),
            variant("removed", "without known false ones", &removed),
        ],
        baseline: None,
        config,
        share: None,
    })
}
