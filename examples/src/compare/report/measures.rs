//! What is reported of each objective, from the runs that were compared.

use crate::compare::contenders::{ALL, BASELINE, Contender};
use crate::compare::figures::Figures;
use crate::compare::results::{Results, Run};
use crate::compare::statistics::{Effect, Sample, differences, holm};
use crate::compare::trial::Stage;
use crate::number;

/// A figure of a run.
#[derive(Clone, Copy)]
pub(super) struct Measure {
    /// Its heading.
    pub name: &'static str,
    /// How many of its decimals are shown.
    pub decimals: usize,
    /// Its value, where it is known.
    pub of: fn(&Figures) -> Option<f64>,
}

const fn measure(name: &'static str, decimals: usize, of: fn(&Figures) -> Option<f64>) -> Measure {
    Measure { name, decimals, of }
}

/// R@sum.
pub(super) const SUM: Measure = measure("R@sum", 1, |of| Some(of.retrieval.recall_sum));

/// nDCG@10 by equality.
pub(super) const NDCG: Measure = measure("nDCG@10, equal", 1, |of| Some(of.by_equality.ndcg));

/// What stands before and after the differences in a table.
pub(super) const OTHERS: [Measure; 8] = [
    measure("R@1 i→t", 1, |of| {
        Some(of.retrieval.image_to_text.recall_at_1)
    }),
    measure("R@1 t→i", 1, |of| {
        Some(of.retrieval.text_to_image.recall_at_1)
    }),
    measure("R-precision, equal", 1, |of| {
        Some(of.by_equality.r_precision)
    }),
    measure("nDCG@10, overlap", 1, |of| Some(of.by_overlap?.ndcg)),
    measure("R-precision, overlap", 1, |of| {
        Some(of.by_overlap?.r_precision)
    }),
    measure("alignment", 3, |of| Some(of.alignment)),
    measure("uniformity", 2, |of| Some(of.uniformity)),
    measure("gap", 3, |of| Some(of.modality_gap)),
];

/// The runs of an objective at a rate with the settings that were chosen, by seed.
pub(super) fn runs<'a>(
    results: &'a Results,
    contender: &'a str,
    rate: f64,
) -> impl Iterator<Item = &'a Run> {
    let chosen = results.chosen.get(contender);
    results.runs.iter().filter(move |run| {
        let trial = &run.trial;
        let is_chosen = chosen.is_some_and(|chosen| {
            trial.objective == chosen.objective && trial.learning_rate == chosen.learning_rate
        });
        trial.stage == Stage::Compare
            && trial.contender == contender
            && trial.rate == rate
            && is_chosen
    })
}

/// A figure of an objective at a rate; without the runs that have none.
pub(super) fn sample(results: &Results, contender: &str, rate: f64, measure: Measure) -> Sample {
    let values = runs(results, contender, rate).filter_map(|run| {
        let value = (measure.of)(run.test.as_ref()?)?;
        value.is_finite().then_some((run.trial.seed, value))
    });
    Sample {
        values: values.collect(),
    }
}

/// The figures that are no numbers, each with its run.
pub(super) fn not_finite(results: &Results, rate: f64) -> Vec<String> {
    let measures = [SUM, NDCG].into_iter().chain(OTHERS);
    let missing = measures.flat_map(|measure| {
        let runs = ALL.iter().flat_map(|one| runs(results, one.name, rate));
        runs.filter_map(move |run| {
            let value = (measure.of)(run.test.as_ref()?)?;
            let trial = &run.trial;
            (!value.is_finite()).then(|| {
                format!(
                    "{} of `{}`, seed {}",
                    measure.name, trial.contender, trial.seed
                )
            })
        })
    });
    missing.collect()
}

/// The change of a figure from the lowest to the highest rate, seed by seed; of no run, where there
/// is one rate.
pub(super) fn change(results: &Results, contender: &str, measure: Measure) -> Sample {
    match results.setup.protocol.rates.as_slice() {
        [first, .., last] => {
            let [first, last] =
                [first, last].map(|&rate| sample(results, contender, rate, measure));
            last.with(&first, |last, first| last - first)
        }
        _ => Sample::default(),
    }
}

/// The mean of a figure over all rates, seed by seed; without seeds that lack a rate.
pub(super) fn over_rates(results: &Results, contender: &str, measure: Measure) -> Sample {
    let rates = &results.setup.protocol.rates;
    let samples = rates
        .iter()
        .map(|&rate| sample(results, contender, rate, measure));
    let sum = samples.reduce(|sum, one| sum.with(&one, |a, b| a + b));
    let mut mean = sum.unwrap_or_default();
    mean.values
        .iter_mut()
        .for_each(|(_, value)| *value /= rates.len() as f64);
    mean
}

/// An objective's difference to the baseline.
#[derive(Clone, Copy)]
pub(super) struct Compared {
    pub effect: Effect,
    /// Its p, and the same adjusted for the number of central objectives; of central ones alone.
    pub p: Option<[f64; 2]>,
}

/// The level of all tests.
pub(super) const LEVEL: f64 = 0.05;

/// How many objectives are tested at once.
pub(super) fn tests() -> f64 {
    let others = ALL
        .iter()
        .filter(|one| one.is_central && one.name != BASELINE);
    others.count() as f64
}

impl Compared {
    /// Whether it is shown, whichever way.
    pub fn is_shown(&self) -> bool {
        self.p.is_some_and(|[_, adjusted]| adjusted < LEVEL)
    }
}

/// The differences of all objectives to another one in a figure: `None` of those without a run,
/// and of that one.
pub(super) fn compared_to(reference: &str, of: impl Fn(&str) -> Sample) -> Vec<Option<Compared>> {
    let samples: Vec<Sample> = ALL.iter().map(|one| of(one.name)).collect();
    let Some(reference) = ALL.iter().position(|one| one.name == reference) else {
        return vec![None; ALL.len()];
    };
    let effects = differences(&samples, reference);
    let tested = |contender: &Contender, effect: &Option<Effect>| {
        effect.filter(|_| contender.is_central)?.p()
    };
    let p: Vec<Option<f64>> = ALL
        .iter()
        .zip(&effects)
        .map(|(one, effect)| tested(one, effect))
        .collect();
    let mut adjusted = holm(&p.iter().flatten().copied().collect::<Vec<_>>()).into_iter();
    let compared = effects.into_iter().zip(p).map(|(effect, p)| {
        let p = p.and_then(|p| Some([p, adjusted.next()?]));
        effect.map(|effect| Compared { effect, p })
    });
    compared.collect()
}

/// As [`compared_to`] the baseline, at a rate.
pub(super) fn compared(results: &Results, rate: f64, measure: Measure) -> Vec<Option<Compared>> {
    compared_to(BASELINE, |name| sample(results, name, rate, measure))
}

/// That of an objective.
pub(super) fn of(name: &str, all: &[Option<Compared>]) -> Option<Compared> {
    let place = ALL.iter().position(|one| one.name == name)?;
    all.get(place).copied().flatten()
}

/// A number with a minus sign where it has one.
pub(super) fn fixed(value: f64, decimals: usize) -> String {
    number::fixed(value, decimals).replace('-', "−")
}

/// A number with its sign.
pub(super) fn signed(value: f64, decimals: usize) -> String {
    let sign = if value > 0.0 { "+" } else { "" };
    format!("{sign}{}", fixed(value, decimals))
}

/// A mean with its standard error.
pub(super) fn mean(sample: &Sample, decimals: usize) -> String {
    with_error(fixed(sample.mean(), decimals), sample.error(), decimals)
}

/// A difference with its standard error.
pub(super) fn plain(effect: &Effect, decimals: usize) -> String {
    with_error(signed(effect.mean, decimals), effect.error, decimals)
}

fn with_error(mean: String, error: Option<f64>, decimals: usize) -> String {
    match error {
        Some(error) => format!("{mean} ± {}", fixed(error, decimals)),
        None => mean,
    }
}

/// A difference with its standard error, bold where it is shown.
pub(super) fn difference(compared: Option<&Compared>, decimals: usize) -> String {
    match compared {
        None => "–".to_string(),
        Some(compared) if compared.is_shown() => {
            format!("**{}**", plain(&compared.effect, decimals))
        }
        Some(compared) => plain(&compared.effect, decimals),
    }
}

/// A p, and the adjusted one.
pub(super) fn probabilities(compared: Option<&Compared>) -> String {
    match compared.and_then(|compared| compared.p) {
        Some(p) => p.map(probability).join("; "),
        None => "–".to_string(),
    }
}

/// A p.
pub(super) fn probability(p: f64) -> String {
    if p < 0.001 {
        "< 0.001".to_string()
    } else {
        fixed(p, 3)
    }
}

/// A rate in percent.
pub(super) fn percent(rate: f64) -> String {
    format!("{} %", (1e4 * rate).round() / 100.0)
}

/// Words with commas between, and "and" before the last.
pub(super) fn listed(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}
