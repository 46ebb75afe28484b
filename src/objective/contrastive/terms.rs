//! From the reductions of an anchor's candidates to its loss.

use burn::tensor::Tensor;

use crate::pairwise::{Along, Expr, Pairs, Reduction, log_add_exp, log_mean};

/// What is asked of a group of candidates, along one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// `log Σ e^z` over negatives that count one.
    Negatives,
    /// `log Σ w·e^z` over weighted negatives, `w` not normalised.
    Weighted,
    /// `log Σ w` over weighted negatives.
    Weights,
    /// How many negatives are weighted.
    WeightCount,
    /// `log Σ e^z` over positives, where there may be several.
    PositiveLogSum,
    /// `Σ z` over positives.
    PositiveSum,
    /// How many positives there are, where there may be several.
    PositiveCount,
    /// `Σ z` over positives and negatives.
    LogitSum,
    /// How many positives and negatives there are.
    LogitCount,
}

/// Candidates as anchors see them: which of them are positives, which are neither, and what the rest weigh.
pub(super) struct Candidates {
    pub logit: Expr,
    /// Not 0 for a positive.
    pub positive: Expr,
    /// Whether there may be several positives, or none.
    pub several: bool,
    /// Not 0 for what is no negative; says nothing about positives.
    pub left_out: Expr,
    /// Not 0 for what was found to be no negative by its similarity; NaN where that is NaN.
    pub filtered: Expr,
    pub log_weight: Option<Expr>,
}

impl Candidates {
    /// `x` of negatives, −∞ of others.
    pub fn negative(&self, x: &Expr) -> Expr {
        self.of_negatives(x, f64::NEG_INFINITY)
    }

    /// 1 for negatives, 0 for others.
    pub fn is_negative(&self) -> Expr {
        self.of_negatives(&Expr::constant(1.0), 0.0)
    }

    /// `x` of negatives, else a number. Of what was filtered by a comparison with NaN, NaN.
    fn of_negatives(&self, x: &Expr, otherwise: f64) -> Expr {
        let filtered = match self.filtered.as_constant() {
            Some(_) => Expr::constant(otherwise),
            None => -&self.filtered + &self.filtered + otherwise,
        };
        let otherwise = Expr::constant(otherwise);
        let x = Expr::select(&self.filtered, &filtered, x);
        let x = Expr::select(&self.left_out, &otherwise, &x);
        Expr::select(&self.positive, &otherwise, &x)
    }

    /// What the loss needs of them, along one side.
    fn parts(&self, along: Along, smooth: bool) -> Vec<(Part, Reduction)> {
        let zero = Expr::constant(0.0);
        let is_negative = self.is_negative();
        let mut parts = match &self.log_weight {
            None => vec![(
                Part::Negatives,
                along.log_sum_exp(&self.negative(&self.logit)),
            )],
            Some(log_weight) => vec![
                (
                    Part::Weighted,
                    along.log_sum_exp(&self.negative(&(&self.logit + log_weight))),
                ),
                (Part::Weights, along.log_sum_exp(&self.negative(log_weight))),
                (Part::WeightCount, along.sum(&is_negative)),
            ],
        };
        if self.several {
            let nothing = Expr::constant(f64::NEG_INFINITY);
            let positive = |x: &Expr, otherwise| Expr::select(&self.positive, x, otherwise);
            parts.extend([
                (
                    Part::PositiveLogSum,
                    along.log_sum_exp(&positive(&self.logit, &nothing)),
                ),
                (Part::PositiveSum, along.sum(&positive(&self.logit, &zero))),
                (
                    Part::PositiveCount,
                    along.sum(&positive(&Expr::constant(1.0), &zero)),
                ),
            ]);
        }
        if smooth {
            let taken = Expr::select(&self.positive, &Expr::constant(1.0), &is_negative);
            parts.extend([
                (
                    Part::LogitSum,
                    along.sum(&Expr::select(&taken, &self.logit, &zero)),
                ),
                (Part::LogitCount, along.sum(&taken)),
            ]);
        }
        parts
    }
}

/// Image→text, and text→image.
pub(super) type Direction = usize;

/// Pairs, and what is asked of them for which directions.
pub(super) struct Group {
    pub pairs: Pairs,
    /// Who looks along which side, for which direction.
    pub views: Vec<(Direction, Along, Candidates)>,
}

impl Group {
    /// The reductions, and which part of which direction each of their results is.
    pub fn reductions(&self, smooth: bool) -> (Vec<Reduction>, Vec<(Vec<Direction>, Part)>) {
        let mut asked: Vec<(Vec<Direction>, Part, Reduction)> = Vec::new();
        for (direction, along, candidates) in &self.views {
            for (part, reduction) in candidates.parts(*along, smooth) {
                asked.push((vec![*direction], part, reduction));
            }
        }
        // A diagonal is the same along both sides.
        if let [(_, along, candidates), ..] = &self.views[..]
            && !candidates.several
            && candidates.positive == Expr::diagonal()
        {
            let positive = Expr::select(
                &candidates.positive,
                &candidates.logit,
                &Expr::constant(0.0),
            );
            let directions = self.views.iter().map(|(direction, ..)| *direction);
            asked.push((
                directions.collect(),
                Part::PositiveSum,
                along.sum(&positive),
            ));
        }
        asked
            .into_iter()
            .map(|(directions, part, reduction)| (reduction, (directions, part)))
            .unzip()
    }
}

/// The results of all groups for one direction.
#[derive(Default)]
pub(super) struct Terms(Vec<(Part, Tensor<1>)>);

impl Terms {
    pub fn push(&mut self, part: Part, result: Tensor<1>) {
        self.0.push((part, result));
    }

    /// Negatives that count one, given by their logits, `[N, m]`.
    pub fn push_dense(&mut self, logits: Tensor<2>, smooth: bool) {
        let max = logits.clone().detach().max_dim(1);
        let log_sum = (logits.clone() - max.clone()).exp().sum_dim(1).log() + max;
        self.push(Part::Negatives, log_sum.squeeze_dim(1));
        if smooth {
            let sum = logits.clone().sum_dim(1).squeeze_dim::<1>(1);
            let count = sum.zeros_like() + logits.dims()[1] as f64;
            self.push(Part::LogitSum, sum);
            self.push(Part::LogitCount, count);
        }
    }

    fn all(&self, part: Part) -> Vec<Tensor<1>> {
        let of_part = self.0.iter().filter(|(p, _)| *p == part);
        of_part.map(|(_, result)| result.clone()).collect()
    }

    fn sum(&self, part: Part) -> Option<Tensor<1>> {
        self.all(part).into_iter().reduce(|x, y| x + y)
    }

    fn log_sum(&self, part: Part) -> Option<Tensor<1>> {
        join(self.all(part))
    }

    /// `log (Σ w / n)` over an anchor's weighted negatives.
    pub fn log_mean_weight(&self) -> Option<Tensor<1>> {
        let count = self.sum(Part::WeightCount)?;
        Some(log_mean(&self.log_sum(Part::Weights)?, &count))
    }

    /// The loss of each anchor.
    pub fn loss(&self, decoupled: bool, smoothing: f64) -> Tensor<1> {
        let sum = self.sum(Part::PositiveSum).expect("positives");
        let (mean, log_sum) = match self.sum(Part::PositiveCount) {
            Some(count) => (
                sum / count,
                self.log_sum(Part::PositiveLogSum).expect("positives"),
            ),
            None => (sum.clone(), sum),
        };
        let mut negatives = self.all(Part::Negatives);
        if let Some(weighted) = self.log_sum(Part::Weighted) {
            negatives.push(weighted - self.log_mean_weight().expect("weights"));
        }
        let loss = if decoupled {
            let negatives = join(negatives).expect("negatives");
            let nothing = negatives.clone().equal_elem(f64::NEG_INFINITY);
            (negatives - mean.clone()).mask_fill(nothing, 0.0)
        } else {
            let loss = cross_entropy(&log_sum, negatives);
            match self.all(Part::PositiveCount).is_empty() {
                true => loss,
                false => loss + (log_sum - mean.clone()),
            }
        };
        match smoothing {
            0.0 => loss,
            _ => {
                let sum = self.sum(Part::LogitSum).expect("logits");
                let count = self.sum(Part::LogitCount).expect("logits");
                loss + (mean - sum / count) * smoothing
            }
        }
    }
}

/// `log Σ e^x` of groups that share their anchors.
fn join(mut groups: Vec<Tensor<1>>) -> Option<Tensor<1>> {
    match groups.len() {
        0 | 1 => groups.pop(),
        _ => Some(log_add_exp(&groups)),
    }
}

/// `log(1 + Σ e^{n − p})` over groups of negatives, each given by its log-sum-exp `n`: −∞ for none.
pub(in crate::objective) fn cross_entropy(
    positive: &Tensor<1>,
    negatives: impl IntoIterator<Item = Tensor<1>>,
) -> Tensor<1> {
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
    sum.log1p() + max
}
