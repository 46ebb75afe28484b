//! What a training run shows: Burn's dashboard on a terminal, a line every so many steps elsewhere.

use std::collections::HashMap;
use std::io::Write;
use std::time::{Duration, Instant};

use burn::train::Interrupter;
use burn::train::logger::{EvaluationProgressLogger, TrainingProgressLogger};
use burn::train::metric::{MetricDefinition, MetricId, NumericEntry};
use burn::train::renderer::tui::TuiMetricsRendererWrapper;
use burn::train::renderer::{
    EvaluationName, MetricState, MetricsRenderer, MetricsRendererEvaluation,
    MetricsRendererTraining,
};

use super::interrupt;

/// How far a run is and how far it goes, for its progress display.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Steps done before this run, if it was resumed.
    pub first_step: usize,
    /// Steps at its end.
    pub total_steps: usize,
    /// Pairs that one step sees.
    pub pairs_a_step: usize,
}

/// Burn's dashboard, which needs a terminal.
pub fn dashboard(interrupter: Interrupter) -> Box<dyn MetricsRenderer> {
    let dashboard = TuiMetricsRendererWrapper::new(interrupter, None);
    interrupt::keep_key_on_dashboard();
    Box::new(dashboard)
}

/// Plain lines: one every few steps with every training metric, the rate and the time left, and one
/// a validation.
pub struct Lines<W> {
    out: W,
    extent: Extent,
    every: usize,
    step: usize,
    started: Instant,
    /// Time that went into validation, which is not part of the training rate.
    elsewhere: Duration,
    validating: Option<Instant>,
    names: HashMap<MetricId, String>,
    /// Latest values of the split that is running, in the order of their arrival.
    values: Vec<(String, f64)>,
}

impl<W: Write + Send + Sync> Lines<W> {
    /// Lines to `out`, one every `every` steps (at least one) and one at the last.
    pub fn new(out: W, extent: Extent, every: usize) -> Self {
        Self {
            out,
            extent,
            every: every.max(1),
            step: extent.first_step,
            started: Instant::now(),
            elsewhere: Duration::ZERO,
            validating: None,
            names: HashMap::new(),
            values: Vec::new(),
        }
    }

    fn note(&mut self, state: MetricState) {
        let MetricState::Numeric(entry, Some(value)) = state else {
            return;
        };
        // An epoch's average arrives after its last step; the lines show the steps themselves.
        if matches!(value, NumericEntry::Final(_)) {
            return;
        }
        let name = self
            .names
            .get(&entry.metric_id)
            .cloned()
            .unwrap_or_default();
        match self.values.iter_mut().find(|(known, _)| *known == name) {
            Some((_, slot)) => *slot = value.current(),
            None => self.values.push((name, value.current())),
        }
    }

    fn metrics(&self) -> String {
        self.values
            .iter()
            .map(|(name, value)| format!("  {} {}", name.to_lowercase(), number(*value)))
            .collect()
    }

    fn step_line(&mut self) {
        self.step += 1;
        let Extent {
            first_step,
            total_steps,
            pairs_a_step,
        } = self.extent;
        if !self.step.is_multiple_of(self.every) && self.step != total_steps {
            return;
        }
        let seconds = self
            .started
            .elapsed()
            .saturating_sub(self.elsewhere)
            .as_secs_f64();
        let a_step = seconds / (self.step - first_step) as f64;
        let left = Duration::from_secs_f64(a_step * total_steps.saturating_sub(self.step) as f64);
        let width = total_steps.to_string().len();
        let line = format!(
            "step {:>width$}/{total_steps}{}  {:.0} pairs/s  ETA {}",
            self.step,
            self.metrics(),
            pairs_a_step as f64 / a_step,
            clock(left),
        );
        self.line(&line);
    }

    fn line(&mut self, line: &str) {
        // A reader that has gone away must not stop the training.
        let _ = writeln!(self.out, "{line}").and_then(|()| self.out.flush());
    }
}

impl<W: Write + Send + Sync> MetricsRendererTraining for Lines<W> {
    fn update_train(&mut self, state: MetricState) {
        self.note(state);
    }

    fn update_valid(&mut self, state: MetricState) {
        self.note(state);
    }
}

impl<W: Write + Send + Sync> TrainingProgressLogger for Lines<W> {
    fn start(
        &mut self,
        _epochs: usize,
        _first: usize,
        _items: Option<usize>,
        _label: Option<&str>,
    ) {
        self.started = Instant::now();
    }

    fn start_split(&mut self, split: &str, _items: usize) {
        self.validating = (split != "train").then(Instant::now);
        self.values.clear();
    }

    fn update_split(&mut self, _items_processed: usize) {}

    fn end_split(&mut self) {
        if let Some(since) = self.validating.take() {
            self.elsewhere += since.elapsed();
            let line = format!("validation after step {}{}", self.step, self.metrics());
            self.line(&line);
        }
    }

    fn update_epoch(&mut self, _epoch: usize) {}

    fn end(&mut self) {}

    fn log_event_training(&mut self, _event: String) {
        if self.validating.is_none() {
            self.step_line();
        }
    }
}

impl<W: Write + Send + Sync> MetricsRendererEvaluation for Lines<W> {
    fn update_test(&mut self, _name: EvaluationName, _state: MetricState) {}
}

impl<W: Write + Send + Sync> EvaluationProgressLogger for Lines<W> {
    fn start_global_progress(&mut self, _tests: usize) {}
    fn start_test(&mut self, _name: &str, _items: usize) {}
    fn update_test_progress(&mut self, _items: usize) {}
    fn end_test(&mut self) {}
    fn end_global_progress(&mut self) {}
    fn log_event_evaluation(&mut self, _event: String) {}
}

impl<W: Write + Send + Sync> MetricsRenderer for Lines<W> {
    fn manual_close(&mut self) {}

    fn register_metric(&mut self, definition: MetricDefinition) {
        self.names
            .insert(definition.metric_id, definition.name.to_string());
    }
}

/// Four significant digits, in scientific notation where small.
fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_string(),
        // As in reports.
        size if !size.is_finite() => "–".to_string(),
        size if size < 0.01 => format!("{value:.2e}"),
        size if size < 10.0 => format!("{value:.3}"),
        _ => format!("{value:.1}"),
    }
}

/// `m:ss`, or `h:mm:ss`.
fn clock(time: Duration) -> String {
    let seconds = time.as_secs_f64().round() as u64;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{seconds:02}")
    } else {
        format!("{minutes}:{seconds:02}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_values_are_formatted() {
        assert_eq!(clock(Duration::from_secs(5)), "0:05");
        assert_eq!(clock(Duration::from_secs(125)), "2:05");
        assert_eq!(clock(Duration::from_secs(7384)), "2:03:04");
        assert_eq!(number(4.87654), "4.877");
        assert_eq!(number(14.2857), "14.3");
        assert_eq!(number(0.0005), "5.00e-4");
        assert_eq!(number(0.0), "0");
    }
}
