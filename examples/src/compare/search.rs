//! How settings are chosen: by one rule for all objectives, and by validation alone.
//!
//! Three values of one parameter, decided beforehand, are tried with each learning rate. Where the
//! best of them is the first or the last of the three, one value beyond that end is tried as well,
//! once. The best of all that was tried is chosen, of equal ones the first.

use burn_contrastive::objective::ObjectiveConfig;

use super::contenders::Contender;
use super::results::{Choice, Results, Run};
use super::setup::Protocol;
use super::trial::{Stage, Trial};

/// The seed of the search, and of the teacher; runs that are compared count up from the next.
pub const SEED: u64 = 0;

impl Contender {
    /// The trials by which its settings are chosen, as far as they are known: whether there is a
    /// value beyond an end is known once the three are tried.
    pub fn searched(&self, results: &Results) -> Vec<Trial> {
        let protocol = &results.setup.protocol;
        let mut trials = self.with_each(&self.values(), protocol);
        let best = best(&trials, results).filter(|run| run.validation.is_finite());
        let beyond = best.and_then(|run| self.beyond(value(self, &run.trial)));
        trials.extend(self.with_each(beyond.as_slice(), protocol));
        trials
    }

    /// The best of its settings; `None` before all were tried.
    pub fn choice(&self, results: &Results) -> Option<Choice> {
        let trials = self.searched(results);
        let best = best(&trials, results)?;
        let mut tried: Vec<f64> = trials.iter().map(|trial| value(self, trial)).collect();
        tried.sort_by(f64::total_cmp);
        tried.dedup();
        Some(Choice {
            objective: best.trial.objective.clone(),
            learning_rate: best.trial.learning_rate,
            validation: best.validation,
            parameter: self.parameter().to_string(),
            tried,
        })
    }

    /// The trials of these values of its parameter, each with each learning rate.
    pub fn with_each(&self, values: &[f64], protocol: &Protocol) -> Vec<Trial> {
        let trial = move |value, learning_rate| Trial {
            stage: Stage::Search,
            contender: self.name.to_string(),
            objective: self.with(value),
            learning_rate,
            rate: protocol.search_rate,
            seed: SEED,
        };
        let rates = &protocol.learning_rates;
        let each = values.iter();
        each.flat_map(|&value| rates.iter().map(move |&rate| trial(value, rate)))
            .collect()
    }
}

/// The best of some trials by validation, of equal ones the first; `None` before all were tried.
fn best<'a>(trials: &[Trial], results: &'a Results) -> Option<&'a Run> {
    let tried = trials.iter().map(|trial| results.run(trial));
    let tried: Vec<&Run> = tried.collect::<Option<_>>()?;
    tried.into_iter().reduce(
        |best, run| {
            if score(run) > score(best) { run } else { best }
        },
    )
}

/// What a run is chosen by: one that failed is the worst.
fn score(run: &Run) -> f64 {
    if run.validation.is_finite() {
        run.validation
    } else {
        f64::NEG_INFINITY
    }
}

/// The value of an objective's parameter that a trial tries.
fn value(contender: &Contender, trial: &Trial) -> f64 {
    setting(&trial.objective, contender.parameter()).unwrap_or(f64::NAN)
}

/// The value that an objective has of a parameter that is a number.
pub fn setting(objective: &ObjectiveConfig, parameter: &str) -> Option<f64> {
    serde_json::to_value(objective).ok()?[parameter].as_f64()
}
