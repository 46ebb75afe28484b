//! From sums over an anchor's candidates to its loss.

use burn::tensor::Tensor;

use super::criterion::Criterion;
use crate::pairwise::{log_add_exp, log_mean};
use crate::tensor::log1p;

/// What the loss of a direction's anchors needs of one group of candidates: `T` is a tensor with a
/// value for each anchor, `[N]`, or first the index of the reduction's result that it will be.
///
/// `z` are logits, `t` the logits of soft targets.
pub(super) struct Sums<T> {
    /// `log Σ e^z` over the negatives; `log Σ w·e^z`, `w` not normalised, where they are weighted.
    pub negatives: T,
    pub weights: Option<Weights<T>>,
    /// `None` for a group without positives.
    pub positives: Option<Positives<T>>,
    /// For label smoothing: `Σ z` over positives and negatives, and their count.
    pub all: Option<[T; 2]>,
    /// For soft targets: `log Σ e^t` over positives and negatives, and the mean of `z` under the
    /// softmax of `t`.
    pub targets: Option<[T; 2]>,
}

/// Of weighted negatives.
pub(super) struct Weights<T> {
    /// `log Σ w`.
    pub log_sum: T,
    /// How many negatives there are.
    pub count: T,
}

/// Of positives.
pub(super) struct Positives<T> {
    /// `Σ z`.
    pub sum: T,
    /// `log Σ e^z` and the count, where an anchor may have several positives, or none.
    pub several: Option<[T; 2]>,
}

impl<T> Sums<T> {
    pub fn map<U>(self, f: impl Fn(T) -> U) -> Sums<U> {
        Sums {
            negatives: f(self.negatives),
            weights: self.weights.map(|weights| Weights {
                log_sum: f(weights.log_sum),
                count: f(weights.count),
            }),
            positives: self.positives.map(|positives| Positives {
                sum: f(positives.sum),
                several: positives.several.map(|several| several.map(&f)),
            }),
            all: self.all.map(|all| all.map(&f)),
            targets: self.targets.map(|targets| targets.map(&f)),
        }
    }
}

impl Sums<Tensor<1>> {
    /// Of negatives that are not weighted, given by their logits, `[N, m]`.
    pub fn of_negatives(logits: Tensor<2>) -> Self {
        let max = logits.clone().detach().max_dim(1);
        let log_sum = (logits.clone() - max.clone()).exp().sum_dim(1).log() + max;
        let count = logits.dims()[1] as f64;
        let sum = logits.sum_dim(1).squeeze_dim::<1>(1);
        Self {
            negatives: log_sum.squeeze_dim(1),
            weights: None,
            positives: None,
            all: Some([sum.clone(), sum.zeros_like() + count]),
            targets: None,
        }
    }
}

/// The loss of each anchor, from the sums over all its groups of candidates.
pub(super) fn loss(groups: &[Sums<Tensor<1>>], criterion: &Criterion) -> Tensor<1> {
    let positives = || groups.iter().filter_map(|group| group.positives.as_ref());
    let sum = add(positives().map(|p| p.sum.clone())).expect("the batch holds the positives");
    let several = || positives().filter_map(|p| p.several.as_ref());
    // A single positive is its own mean, to the last digit.
    let (mean, log_sum) = match add(several().map(|[_, count]| count.clone())) {
        Some(count) => {
            let log_sum = several().map(|[log_sum, _]| log_sum.clone()).collect();
            (sum / count, Some(log_add_exp_of(log_sum)))
        }
        None => (sum, None),
    };
    let negatives = negatives(groups);
    let mut loss = if criterion.decoupled {
        let negatives = log_add_exp_of(negatives);
        let nothing = negatives.clone().equal_elem(f64::NEG_INFINITY);
        (negatives - mean.clone()).mask_fill(nothing, 0.0)
    } else {
        match log_sum {
            Some(log_sum) => cross_entropy(&log_sum, negatives) + (log_sum - mean.clone()),
            None => cross_entropy(&mean, negatives),
        }
    };
    // A share of the target moves from the positives to other candidates: the loss takes in that
    // share of the difference of their mean logits.
    if criterion.label_smoothing > 0.0 {
        let all = || groups.iter().filter_map(|group| group.all.as_ref());
        let sum = add(all().map(|[sum, _]| sum.clone())).expect("the batch has candidates");
        let count = add(all().map(|[_, count]| count.clone())).expect("likewise");
        loss = loss + (mean.clone() - sum / count) * criterion.label_smoothing;
    }
    if criterion.soft_targets > 0.0 {
        loss = loss + (mean - target_mean(groups)) * criterion.soft_targets;
    }
    loss
}

/// `log Σ w·e^z` over the negatives that are weighted, with weights of mean one over all groups;
/// then `log Σ e^z` of each group of others.
fn negatives(groups: &[Sums<Tensor<1>>]) -> Vec<Tensor<1>> {
    let (weighted, others): (Vec<_>, Vec<_>) =
        groups.iter().partition(|group| group.weights.is_some());
    let mut negatives: Vec<_> = others.iter().map(|group| group.negatives.clone()).collect();
    let weights = weighted.iter().filter_map(|group| group.weights.as_ref());
    if let Some(log_mean) = log_mean_weight(weights) {
        let weighted = weighted.iter().map(|group| group.negatives.clone());
        negatives.push(log_add_exp_of(weighted.collect()) - log_mean);
    }
    negatives
}

/// `log (Σ w / n)` over an anchor's weighted negatives of all groups; `None` without any group.
pub(super) fn log_mean_weight<'a>(
    groups: impl Iterator<Item = &'a Weights<Tensor<1>>>,
) -> Option<Tensor<1>> {
    let (log_sums, counts): (Vec<_>, Vec<_>) = groups
        .map(|weights| (weights.log_sum.clone(), weights.count.clone()))
        .unzip();
    let count = add(counts.into_iter())?;
    Some(log_mean(&log_add_exp_of(log_sums), &count))
}

/// The mean logit under the soft targets of all groups.
fn target_mean(groups: &[Sums<Tensor<1>>]) -> Tensor<1> {
    let targets: Vec<_> = groups
        .iter()
        .filter_map(|group| group.targets.clone())
        .collect();
    let log_sum = log_add_exp_of(targets.iter().map(|[log_sum, _]| log_sum.clone()).collect());
    let share = |[group, mean]: [Tensor<1>; 2]| (group - log_sum.clone()).exp() * mean;
    add(targets.into_iter().map(share)).expect("the batch has soft targets")
}

fn add(values: impl Iterator<Item = Tensor<1>>) -> Option<Tensor<1>> {
    values.reduce(|x, y| x + y)
}

/// [`log_add_exp`], which leaves a single group as it is.
fn log_add_exp_of(mut groups: Vec<Tensor<1>>) -> Tensor<1> {
    if groups.len() == 1 {
        groups.remove(0)
    } else {
        log_add_exp(&groups)
    }
}

/// `log(1 + Σ e^{n − p})` over groups of negatives, each given by its log-sum-exp `n`: −∞ for none.
fn cross_entropy(positive: &Tensor<1>, negatives: Vec<Tensor<1>>) -> Tensor<1> {
    let gaps: Vec<_> = negatives
        .into_iter()
        .map(|negatives| negatives - positive.clone())
        .collect();
    // With m = max(0, gaps): m + log1p(Σ e^{gap − m} + (e^{−m} − 1)), exact for tiny losses, where
    // m = 0, and free of overflow for large ones.
    let max = gaps.iter().fold(positive.zeros_like(), |max, gap| {
        max.max_pair(gap.clone().detach())
    });
    let rest = max.clone().neg().exp() - 1.0;
    let sum = gaps
        .into_iter()
        .fold(rest, |sum, gap| sum + (gap - max.clone()).exp());
    log1p(sum) + max
}
