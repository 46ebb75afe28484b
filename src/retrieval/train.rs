//! Metrics for burn-train's Learner: retrieval within a batch, and the logit scale.

use std::sync::Arc;

use burn::tensor::{Tensor, TensorReadError};
use burn::train::metric::state::{FormatOptions, NumericMetricState};
use burn::train::metric::{
    Metric, MetricAttributes, MetricMetadata, MetricName, Numeric, NumericAttributes, NumericEntry,
    SerializedEntry,
};

use super::cross_modal;

/// Implements a metric that is the average of what `measure` returns with the number of items.
macro_rules! average {
    ($metric:ident of $input:ident, unit $unit:expr) => {
        impl Metric for $metric {
            type Input = $input;

            fn name(&self) -> MetricName {
                self.name.clone()
            }

            fn attributes(&self) -> MetricAttributes {
                NumericAttributes {
                    unit: $unit,
                    higher_is_better: true,
                }
                .into()
            }

            fn update(
                &mut self,
                input: &Self::Input,
                _metadata: &MetricMetadata,
            ) -> Result<SerializedEntry, TensorReadError> {
                let (value, count) = self.measure(input)?;
                self.state.update(value, count);
                Ok(self.state.compute_update(self.format()))
            }

            fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
                Ok(self.state.compute_final(self.format()))
            }

            fn clear(&mut self) {
                self.state.reset();
            }
        }

        impl Numeric for $metric {
            fn value(&self) -> Option<NumericEntry> {
                Some(self.state.current_value())
            }

            fn running_value(&self) -> Option<NumericEntry> {
                Some(self.state.running_value())
            }

            fn final_value(&self) -> NumericEntry {
                self.state.final_value()
            }
        }
    };
}

/// Which modality the queries have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetrievalDirection {
    /// Images as queries, texts as candidates.
    ImageToText,
    /// Texts as queries, images as candidates.
    TextToImage,
}

/// Input of [`RetrievalRecallMetric`]: the embeddings of a batch of pairs.
#[derive(Debug, Clone)]
pub struct RetrievalInput {
    images: Tensor<2>,
    texts: Tensor<2>,
}

impl RetrievalInput {
    /// `images`, `texts`: `[N, D]`, any norm; row `i` of one belongs to row `i` of the other.
    pub fn new(images: Tensor<2>, texts: Tensor<2>) -> Self {
        Self { images, texts }
    }
}

/// Recall at k within each batch, in percent, averaged over the pairs of an epoch.
///
/// It shows whether training makes progress, not how good a model is: the candidates are those of
/// the batch, so the value falls with the batch size. For a test set use [`cross_modal()`].
/// Another pair with the same embedding is a negative, and ties never help.
#[derive(Clone)]
pub struct RetrievalRecallMetric {
    name: MetricName,
    direction: RetrievalDirection,
    k: usize,
    state: NumericMetricState,
}

impl RetrievalRecallMetric {
    /// Recall at `k` in one direction.
    ///
    /// # Panics
    ///
    /// If `k` is 0.
    #[track_caller]
    pub fn new(direction: RetrievalDirection, k: usize) -> Self {
        assert!(
            k > 0,
            "recall: `k` is 0: it needs at least the nearest candidate"
        );
        let arrow = match direction {
            RetrievalDirection::ImageToText => "Image → Text",
            RetrievalDirection::TextToImage => "Text → Image",
        };
        Self {
            name: Arc::new(format!("{arrow} R@{k} in batch")),
            direction,
            k,
            state: NumericMetricState::new(),
        }
    }

    fn measure(&self, input: &RetrievalInput) -> Result<(f64, usize), TensorReadError> {
        let [pairs, _] = input.images.dims();
        let image_of_text: Vec<usize> = (0..pairs).collect();
        let found = cross_modal(input.images.clone(), input.texts.clone(), &image_of_text);
        let ranks = match self.direction {
            RetrievalDirection::ImageToText => found.image_to_text,
            RetrievalDirection::TextToImage => found.text_to_image,
        };
        Ok((ranks.recall_at(self.k), pairs))
    }

    fn format(&self) -> FormatOptions {
        FormatOptions::new(self.name()).unit("%").precision(2)
    }
}

average!(RetrievalRecallMetric of RetrievalInput, unit Some("%".to_string()));

/// Input of [`LogitScaleMetric`]: the factor of the cosines (not its logarithm).
#[derive(Debug, Clone)]
pub struct LogitScaleInput {
    logit_scale: Tensor<1>,
}

impl LogitScaleInput {
    /// `logit_scale`: `[1]`.
    pub fn new(logit_scale: Tensor<1>) -> Self {
        Self { logit_scale }
    }
}

/// The logit scale, 1/τ. A scale that stays at its bound, or falls, is an early sign of trouble.
#[derive(Clone)]
pub struct LogitScaleMetric {
    name: MetricName,
    state: NumericMetricState,
}

impl Default for LogitScaleMetric {
    fn default() -> Self {
        Self::new()
    }
}

impl LogitScaleMetric {
    /// A new metric.
    pub fn new() -> Self {
        Self {
            name: Arc::new("Logit scale".to_string()),
            state: NumericMetricState::new(),
        }
    }

    fn measure(&self, input: &LogitScaleInput) -> Result<(f64, usize), TensorReadError> {
        let logit_scale = input.logit_scale.clone().inner();
        Ok((logit_scale.try_into_scalar::<f64>()?, 1))
    }

    fn format(&self) -> FormatOptions {
        FormatOptions::new(self.name()).precision(3)
    }
}

average!(LogitScaleMetric of LogitScaleInput, unit None);

#[cfg(test)]
mod tests {
    use burn::data::dataloader::Progress;
    use burn::tensor::Device;

    use super::*;

    fn metadata() -> MetricMetadata {
        MetricMetadata {
            progress: Progress {
                items_processed: 1,
                items_total: 1,
                unit: None,
            },
            iteration: None,
            lr: None,
        }
    }

    fn batch(images: [[f32; 2]; 2], texts: [[f32; 2]; 2]) -> RetrievalInput {
        let device = Device::default();
        RetrievalInput::new(
            Tensor::from_data(images, &device),
            Tensor::from_data(texts, &device),
        )
    }

    #[test]
    fn recall_averages_over_the_batches_in_each_direction() {
        let axes = [[1.0, 0.0], [0.0, 1.0]];
        // Both texts are nearest to the first image: both images find their texts, one text its
        // image.
        let leaning = [[1.0, 0.0], [0.8, 0.6]];
        let mut to_text = RetrievalRecallMetric::new(RetrievalDirection::ImageToText, 1);
        let mut to_image = RetrievalRecallMetric::new(RetrievalDirection::TextToImage, 1);
        for (metric, expected) in [(&mut to_text, 100.0), (&mut to_image, 50.0)] {
            metric.update(&batch(axes, leaning), &metadata()).unwrap();
            assert_eq!(metric.value().unwrap().current(), expected);
            metric.update(&batch(axes, axes), &metadata()).unwrap();
            assert_eq!(metric.value().unwrap().current(), 100.0);
            assert_eq!(metric.final_value().current(), (expected + 100.0) / 2.0);
            metric.clear();
            assert!(metric.value().unwrap().current().is_nan());
        }
        assert_ne!(to_text.name(), to_image.name());
    }

    #[test]
    fn equal_embeddings_score_zero_and_nan_gives_nan() {
        let mut metric = RetrievalRecallMetric::new(RetrievalDirection::ImageToText, 1);
        let same = [[0.6, 0.8]; 2];
        metric.update(&batch(same, same), &metadata()).unwrap();
        assert_eq!(metric.value().unwrap().current(), 0.0);
        let broken = [[f32::NAN, 0.0], [0.0, 1.0]];
        metric.update(&batch(broken, same), &metadata()).unwrap();
        assert!(metric.final_value().current().is_nan());
    }

    #[test]
    fn a_tracked_logit_scale_is_shown_unchanged() {
        let mut metric = LogitScaleMetric::new();
        let scale = Tensor::from_data([14.25f32], &Device::default().autodiff()).require_grad();
        metric
            .update(&LogitScaleInput::new(scale), &metadata())
            .unwrap();
        assert_eq!(metric.value().unwrap().current(), 14.25);
    }
}
