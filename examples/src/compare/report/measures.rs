//! What is reported of each objective at each rate, from the runs that were compared.

use crate::compare::contenders::{ALL, BASELINE, Contender};
use crate::compare::figures::Figures;
use crate::compare::results::{Results, Run};
use crate::compare::statistics::{Difference, Sample, holm};
use crate::compare::trial::Stage;
use crate::number::fixed;

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

/// An objective's difference to the baseline.
#[derive(Clone, Copy)]
pub(super) struct Compared {
    pub difference: Difference,
    /// Its p, adjusted for all objectives that were tested at the same rate.
    pub adjusted: Option<f64>,
}

impl Compared {
    /// Whether it is shown, and which way.
    pub fn is_shown(&self) -> bool {
        self.adjusted.is_some_and(|p| p < 0.05)
    }
}

/// The differences of all objectives to the baseline in one figure at one rate; `None` of those
/// without a run, and of the baseline.
pub(super) fn compared(results: &Results, rate: f64, measure: Measure) -> Vec<Option<Compared>> {
    let baseline = sample(results, BASELINE, rate, measure);
    let difference = |contender: &Contender| {
        let own = sample(results, contender.name, rate, measure);
        own.difference(&baseline)
            .filter(|_| contender.name != BASELINE)
    };
    adjusted(ALL.iter().map(difference).collect())
}

/// How much more the objectives gain on the baseline at the last rate than at the first.
pub(super) fn growth(
    results: &Results,
    contenders: &[&str],
    [first, last]: [f64; 2],
    measure: Measure,
) -> Vec<Option<Compared>> {
    let gains = |contender: &str| {
        let of = |name: &str, rate| sample(results, name, rate, measure);
        let change = |name: &str| over_seeds(&of(name, last), &of(name, first));
        change(contender).difference(&change(BASELINE))
    };
    adjusted(
        contenders
            .iter()
            .map(|contender| gains(contender))
            .collect(),
    )
}

/// The differences of two samples, seed by seed.
pub(super) fn over_seeds(one: &Sample, other: &Sample) -> Sample {
    let values = one.values.iter().filter_map(|&(seed, value)| {
        let (_, others) = other.values.iter().find(|(other, _)| *other == seed)?;
        Some((seed, value - others))
    });
    Sample {
        values: values.collect(),
    }
}

fn adjusted(differences: Vec<Option<Difference>>) -> Vec<Option<Compared>> {
    let tested = differences.iter().flatten();
    let tested: Vec<f64> = tested.filter_map(|difference| difference.p).collect();
    let mut adjusted = holm(&tested).into_iter();
    let compared = |difference: Difference| Compared {
        adjusted: difference.p.and_then(|_| adjusted.next()),
        difference,
    };
    let mut compared = compared;
    let each = differences.into_iter().map(|one| one.map(&mut compared));
    each.collect()
}

/// A mean with its standard error.
pub(super) fn mean(sample: &Sample, decimals: usize) -> String {
    let mean = fixed(sample.mean(), decimals);
    match sample.error() {
        Some(error) => format!("{mean} ± {}", fixed(error, decimals)),
        None => mean,
    }
}

/// A difference with its standard error, bold where it is shown.
pub(super) fn difference(compared: Option<&Compared>, decimals: usize) -> String {
    let Some(compared) = compared else {
        return "–".to_string();
    };
    let Difference { mean, error, .. } = compared.difference;
    let sign = if mean > 0.0 { "+" } else { "" };
    let mut text = format!("{sign}{}", fixed(mean, decimals)).replace('-', "−");
    if let Some(error) = error {
        text += &format!(" ± {}", fixed(error, decimals));
    }
    if compared.is_shown() {
        format!("**{text}**")
    } else {
        text
    }
}

/// An adjusted p.
pub(super) fn probability(compared: Option<&Compared>) -> String {
    match compared.and_then(|compared| compared.adjusted) {
        Some(p) if p < 0.001 => "< 0.001".to_string(),
        Some(p) => fixed(p, 3),
        None => "–".to_string(),
    }
}

/// A rate in percent.
pub(super) fn percent(rate: f64) -> String {
    format!("{} %", (1e4 * rate).round() / 100.0)
}
