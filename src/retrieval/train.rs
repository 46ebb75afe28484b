//! Metrics for burn-train's Learner: what of retrieval can be told from one batch, and the logit scale.

use std::sync::Arc;

use burn::tensor::{Tensor, TensorReadError};
use burn::train::metric::state::{FormatOptions, NumericMetricState};
use burn::train::metric::{
    Metric, MetricAttributes, MetricMetadata, MetricName, Numeric, NumericAttributes, NumericEntry,
    SerializedEntry,
};

use super::cross_modal;

/// Which modality asks.
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
    /// Row i of `images` and of `texts`, both `[N, D]` of any norm, is a pair.
    pub fn new(images: Tensor<2>, texts: Tensor<2>) -> Self {
        Self { images, texts }
    }
}

/// Recall at k within each batch, in percent, averaged over the epoch by pairs.
///
/// It tells whether training moves, not how good a model is: the candidates are the batch alone, so the figure falls with
/// the batch size. For a test set use [`cross_modal()`]. Another pair's equal embedding is a negative, and ties never
/// help.
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
    /// If `k` is 0.
    #[track_caller]
    pub fn new(direction: RetrievalDirection, k: usize) -> Self {
        assert!(
            k > 0,
            "k: recall needs at least the nearest candidate, got k = 0"
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

    fn format(&self) -> FormatOptions {
        FormatOptions::new(self.name()).unit("%").precision(2)
    }
}

impl Metric for RetrievalRecallMetric {
    type Input = RetrievalInput;

    fn name(&self) -> MetricName {
        self.name.clone()
    }

    fn attributes(&self) -> MetricAttributes {
        NumericAttributes {
            unit: Some("%".to_string()),
            higher_is_better: true,
        }
        .into()
    }

    fn update(
        &mut self,
        input: &Self::Input,
        _metadata: &MetricMetadata,
    ) -> Result<SerializedEntry, TensorReadError> {
        let [pairs, _] = input.images.dims();
        let image_of_text: Vec<usize> = (0..pairs).collect();
        let found = cross_modal(input.images.clone(), input.texts.clone(), &image_of_text);
        let ranks = match self.direction {
            RetrievalDirection::ImageToText => found.image_to_text,
            RetrievalDirection::TextToImage => found.text_to_image,
        };
        self.state.update(ranks.recall_at(self.k), pairs);
        Ok(self.state.compute_update(self.format()))
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        Ok(self.state.compute_final(self.format()))
    }

    fn clear(&mut self) {
        self.state.reset();
    }
}

impl Numeric for RetrievalRecallMetric {
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

/// Input of [`LogitScaleMetric`]: the factor that multiplies the cosines, one value (the scale, not its logarithm).
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

/// The logit scale, 1/τ. One that sits at its clamp, or falls, is the first sign of a run gone wrong.
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

    fn format(&self) -> FormatOptions {
        FormatOptions::new(self.name()).precision(3)
    }
}

impl Metric for LogitScaleMetric {
    type Input = LogitScaleInput;

    fn name(&self) -> MetricName {
        self.name.clone()
    }

    fn attributes(&self) -> MetricAttributes {
        NumericAttributes {
            unit: None,
            higher_is_better: true,
        }
        .into()
    }

    fn update(
        &mut self,
        input: &Self::Input,
        _metadata: &MetricMetadata,
    ) -> Result<SerializedEntry, TensorReadError> {
        let logit_scale = input.logit_scale.clone().inner().try_into_scalar::<f64>()?;
        self.state.update(logit_scale, 1);
        Ok(self.state.compute_update(self.format()))
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        Ok(self.state.compute_final(self.format()))
    }

    fn clear(&mut self) {
        self.state.reset();
    }
}

impl Numeric for LogitScaleMetric {
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
        // Both texts are nearest to the first image: every image but one finds its text, one text its image.
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
    fn a_collapsed_batch_finds_nothing_and_a_broken_one_is_nan() {
        let mut metric = RetrievalRecallMetric::new(RetrievalDirection::ImageToText, 1);
        let same = [[0.6, 0.8]; 2];
        metric.update(&batch(same, same), &metadata()).unwrap();
        assert_eq!(metric.value().unwrap().current(), 0.0);
        let broken = [[f32::NAN, 0.0], [0.0, 1.0]];
        metric.update(&batch(broken, same), &metadata()).unwrap();
        assert!(metric.final_value().current().is_nan());
    }

    #[test]
    fn the_logit_scale_is_shown_as_it_is_also_when_tracked() {
        let mut metric = LogitScaleMetric::new();
        let scale = Tensor::from_data([14.25f32], &Device::default().autodiff()).require_grad();
        metric
            .update(&LogitScaleInput::new(scale), &metadata())
            .unwrap();
        assert_eq!(metric.value().unwrap().current(), 14.25);
    }
}
