//! One objective on the embeddings: its value, its gradient, its time and memory.

use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use burn::tensor::Tensor;
use burn_contrastive::objective::{AnyConfig, Features, ObjectiveConfig};
use burn_contrastive::schedule::Settings;

use super::heap::peak_of;
use super::tensors::Embeddings;
use crate::words::shown;

/// An objective with the name that results go by.
#[derive(Clone, Debug, PartialEq)]
pub struct Named {
    /// Unique in its list.
    pub name: String,
    /// The objective.
    pub config: ObjectiveConfig,
}

/// What was measured of an objective.
pub struct Measured {
    /// The loss, as the objective reduces it.
    pub loss: f64,
    /// Median time of an evaluation, forward and backward.
    pub seconds: f64,
    /// The most memory an evaluation took beside the embeddings; `None` where it cannot be told.
    pub peak_bytes: Option<u64>,
    /// The derivatives of the loss by `image` and by `text` as they are in the file.
    pub gradients: [Tensor<2>; 2],
}

/// Evaluations that are timed: as many as fit the time, between these.
const EVALUATIONS: std::ops::RangeInclusive<usize> = 3..=9;
const ENOUGH_SECONDS: f64 = 0.5;

/// Checks that the objective can be evaluated on these embeddings.
///
/// # Errors
///
/// If an input is missing or does not fit, naming it, or a parameter is out of range.
pub fn check(Named { name, config }: &Named, features: &Features) -> Result<()> {
    let name = shown(name);
    if let Err(fault) = unscheduled(config).check_features(features) {
        bail!("objective `{name}`: {fault} (in the file of embeddings)");
    }
    config
        .check()
        .with_context(|| format!("objective `{name}`"))
}

/// The objective at the values of its parameters, which schedules would change in a training.
fn unscheduled(config: &ObjectiveConfig) -> ObjectiveConfig {
    let mut config = config.clone();
    config.schedules = Some(Settings::default());
    if let AnyConfig::WeightedSum(sum) = &mut config.kind {
        sum.terms = sum.terms.iter().map(unscheduled).collect();
    }
    config
}

/// Evaluates the objective several times, after once to warm up.
///
/// # Errors
///
/// As [`check`].
pub fn measure(objective: &Named, embeddings: &Embeddings) -> Result<Measured> {
    let features = &embeddings.features;
    let plain = features.image.device();
    check(objective, features)?;
    let module = unscheduled(&objective.config).init(&plain.clone().autodiff());
    let evaluate = || {
        let mut features = features.clone().autodiff();
        let [image, text] = [&embeddings.image, &embeddings.features.text]
            .map(|x| Tensor::<2>::from_inner(x.clone()).require_grad());
        let start = Instant::now();
        features.text = text.clone();
        features.image = match &embeddings.image_of_text {
            Some(rows) => image.clone().select(0, Tensor::from_inner(rows.clone())),
            None => image.clone(),
        };
        let loss = module.forward(&features);
        let mut gradients = loss.backward();
        let gradients = [&image, &text].map(|x| {
            x.grad_remove(&mut gradients)
                .unwrap_or_else(|| x.clone().inner().zeros_like())
        });
        let loss = loss.into_data().iter::<f64>().next().expect("one number");
        plain.sync().map_err(|error| anyhow!("{error:?}"))?;
        anyhow::Ok((start.elapsed().as_secs_f64(), loss, gradients))
    };

    evaluate()?;
    let pools = || plain.memory_pool_usage();
    plain.memory_cleanup();
    let before = pools();
    let mut seconds = Vec::new();
    let (last, heap) = peak_of(|| {
        loop {
            let (time, loss, gradients) = evaluate()?;
            seconds.push(time);
            let enough = seconds.len() >= *EVALUATIONS.start()
                && seconds.iter().sum::<f64>() >= ENOUGH_SECONDS;
            if enough || seconds.len() == *EVALUATIONS.end() {
                return anyhow::Ok((loss, gradients));
            }
        }
    });
    let (loss, gradients) = last?;
    seconds.sort_by(f64::total_cmp);
    Ok(Measured {
        loss,
        seconds: seconds[seconds.len() / 2],
        // A device with memory of its own tells what its pools have grown to; the heap is not where
        // the work was done.
        peak_bytes: match (before, pools()) {
            (Some(before), Some(after)) => {
                Some(after.bytes_reserved.saturating_sub(before.bytes_in_use))
            }
            _ => heap,
        },
        gradients,
    })
}
