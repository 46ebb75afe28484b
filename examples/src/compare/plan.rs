//! What is to be run, in which order, and how long it will take.
//!
//! First settings are searched, those of the baseline before all others, since its model becomes
//! the teacher. Then all objectives are trained with the first seed at all rates, then with the
//! next: a comparison that is stopped early has few seeds of all rather than many of some.

use std::time::Duration;

use super::contenders::{ALL, BASELINE, Contender};
use super::results::{Results, Run};
use super::search;
use super::setup::Protocol;
use super::trial::{Stage, Trial};

/// What is left.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Left {
    /// Trials that can begin, in their order.
    pub ready: Vec<Trial>,
    /// Those that wait for others, each by its stage and objective.
    pub waiting: Vec<(Stage, &'static str)>,
}

impl Contender {
    /// Whether it reads the teacher, whatever its settings.
    fn needs_teacher(&self, protocol: &Protocol) -> bool {
        let trials = self.with_each(&self.values(), protocol);
        trials.iter().any(Trial::needs_teacher)
    }
}

impl Left {
    /// What is left of `results`, of the objectives that `takes_part` says.
    pub fn of(results: &Results, takes_part: impl Fn(&Contender) -> bool) -> Self {
        let protocol = &results.setup.protocol;
        let contenders: Vec<_> = ALL.iter().filter(|one| takes_part(one)).collect();
        let with_teacher = contenders.iter().any(|one| one.needs_teacher(protocol));
        let teacher = teacher(results);
        let has_teacher = teacher
            .as_ref()
            .is_some_and(|trial| results.run(trial).is_some());
        let mut left = Self::default();
        for contender in &ALL {
            let is_baseline = contender.name == BASELINE;
            let is_needed = is_baseline && with_teacher;
            if !(takes_part(contender) || is_needed) {
                continue;
            }
            for trial in contender.searched(results) {
                let can_begin = has_teacher || !trial.needs_teacher();
                left.push(
                    results,
                    Some(trial).filter(|_| can_begin),
                    contender,
                    Stage::Search,
                );
            }
            if is_needed {
                left.push(results, teacher.clone(), contender, Stage::Teacher);
            }
        }
        for index in 0..protocol.seeds.max(protocol.fewer_seeds) {
            for rate in in_order(&protocol.rates) {
                for contender in contenders.iter().filter(|one| index < one.seeds(protocol)) {
                    let trial = compared(results, contender, rate, index);
                    left.push(results, trial, contender, Stage::Compare);
                }
            }
        }
        left
    }

    /// Adds a trial that is not done; `None` for one that cannot begin yet.
    fn push(
        &mut self,
        results: &Results,
        trial: Option<Trial>,
        contender: &'static Contender,
        stage: Stage,
    ) {
        match trial {
            Some(trial) if results.run(&trial).is_some() => {}
            Some(trial) => self.ready.push(trial),
            None => self.waiting.push((stage, contender.name)),
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.ready.len() + self.waiting.len()
    }

    /// Those of a stage and an objective.
    pub fn count_of(&self, stage: Stage, contender: &str) -> usize {
        let ready = self.ready.iter();
        let ready = ready.map(|trial| (trial.stage, trial.contender.as_str()));
        let all = ready.chain(self.waiting.iter().copied());
        all.filter(|one| *one == (stage, contender)).count()
    }

    /// How long they will take one after the other, by those that are done: of the same objective,
    /// or of any; `None` before any is.
    pub fn time(&self, results: &Results) -> Option<Duration> {
        let mean = |name: Option<&str>| {
            let of = |run: &&Run| name.is_none_or(|name| run.trial.contender == name);
            let runs = results.runs.iter().filter(of);
            let (count, sum) =
                runs.fold((0, 0.0), |(count, sum), run| (count + 1, sum + run.seconds));
            (count > 0).then(|| sum / f64::from(count))
        };
        let any = mean(None)?;
        let ready = self.ready.iter().map(|trial| trial.contender.as_str());
        let names = ready.chain(self.waiting.iter().map(|(_, name)| *name));
        let seconds = names.map(|name| mean(Some(name)).unwrap_or(any)).sum();
        Duration::try_from_secs_f64(seconds).ok()
    }
}

/// The teacher's trial, once the settings of the baseline are chosen: the baseline on batches
/// without false negatives.
pub fn teacher(results: &Results) -> Option<Trial> {
    let chosen = results.chosen.get(BASELINE)?;
    Some(Trial {
        stage: Stage::Teacher,
        contender: BASELINE.to_string(),
        objective: chosen.objective.clone(),
        learning_rate: chosen.learning_rate,
        rate: 0.0,
        seed: search::SEED,
    })
}

/// All trials of the whole plan, as far as they are known.
pub fn planned(results: &Results) -> Vec<Trial> {
    let protocol = &results.setup.protocol;
    let searched = ALL.iter().flat_map(|contender| contender.searched(results));
    let compared = ALL.iter().flat_map(|contender| {
        let rates = protocol.rates.iter();
        let seeds = contender.seeds(protocol);
        let of_rate = move |&rate| {
            (0..seeds).filter_map(move |index| compared(results, contender, rate, index))
        };
        rates.flat_map(of_rate)
    });
    searched.chain(teacher(results)).chain(compared).collect()
}

/// A trial to be compared, once its settings are chosen.
pub fn compared(
    results: &Results,
    contender: &Contender,
    rate: f64,
    index: usize,
) -> Option<Trial> {
    let chosen = results.chosen.get(contender.name)?;
    Some(Trial {
        stage: Stage::Compare,
        contender: contender.name.to_string(),
        objective: chosen.objective.clone(),
        learning_rate: chosen.learning_rate,
        rate,
        seed: search::SEED + 1 + index as u64,
    })
}

/// Rates with the first and the last before those between.
fn in_order(rates: &[f64]) -> Vec<f64> {
    let (first, others) = rates.split_first().expect("at least one rate");
    let others = others.iter().rev().copied();
    std::iter::once(*first).chain(others).collect()
}
