//! From the reductions of an anchor's candidates to its loss.

use burn::tensor::Tensor;

use crate::pairwise::{Along, Expr, Pairs, Reduction, log_add_exp, log_mean, share_memory_budget};

/// What is asked of a group of candidates, along one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::objective) enum Part {
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
    /// `log Σ e^t` over all candidates, `t` the logits of soft targets.
    TargetLogSum,
    /// The mean of `z` under the soft targets.
    TargetMean,
}

/// Candidates as anchors see them: which of them are positives, which are neither, and what the rest weigh.
pub(in crate::objective) struct Candidates {
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
    /// The logits of soft targets.
    pub target: Option<Expr>,
}

/// What is asked along one side: the parts that a reduction results in, and the reduction.
type Ask = (Vec<Part>, Reduction);

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
            // Not `f − f`, which shader compilers take for 0.
            None => self.filtered.step() - 1.0 + otherwise,
        };
        let otherwise = Expr::constant(otherwise);
        let x = Expr::select(&self.filtered, &filtered, x);
        let x = Expr::select(&self.left_out, &otherwise, &x);
        Expr::select(&self.positive, &otherwise, &x)
    }

    /// What the loss needs of them, along one side.
    fn asks(&self, along: Along, smooth: bool) -> Vec<Ask> {
        let (zero, one) = (Expr::constant(0.0), Expr::constant(1.0));
        let is_negative = self.is_negative();
        let taken = Expr::select(&self.positive, &one, &is_negative);
        let nothing = Expr::constant(f64::NEG_INFINITY);
        let ask = |part, reduction| (vec![part], reduction);
        let mut asks = match &self.log_weight {
            None => {
                let negatives = self.negative(&self.logit);
                vec![ask(Part::Negatives, along.log_sum_exp(&negatives))]
            }
            Some(log_weight) => {
                let weighted = self.negative(&(&self.logit + log_weight));
                let weights = self.negative(log_weight);
                vec![
                    ask(Part::Weighted, along.log_sum_exp(&weighted)),
                    ask(Part::Weights, along.log_sum_exp(&weights)),
                    ask(Part::WeightCount, along.sum(&is_negative)),
                ]
            }
        };
        if self.several {
            let positive = |x: &Expr, otherwise| Expr::select(&self.positive, x, otherwise);
            let log_sum = positive(&self.logit, &nothing);
            asks.extend([
                ask(Part::PositiveLogSum, along.log_sum_exp(&log_sum)),
                ask(Part::PositiveSum, along.sum(&positive(&self.logit, &zero))),
                ask(Part::PositiveCount, along.sum(&positive(&one, &zero))),
            ]);
        }
        if smooth {
            let logit = Expr::select(&taken, &self.logit, &zero);
            asks.extend([
                ask(Part::LogitSum, along.sum(&logit)),
                ask(Part::LogitCount, along.sum(&taken)),
            ]);
        }
        if let Some(target) = &self.target {
            asks.push((
                vec![Part::TargetLogSum, Part::TargetMean],
                along.softmax_mean(&Expr::select(&taken, target, &nothing), &self.logit),
            ));
        }
        asks
    }
}

/// Image→text, and text→image.
pub(in crate::objective) type Direction = usize;

/// Pairs, and who looks at them.
pub(in crate::objective) struct Group {
    pub pairs: Pairs,
    /// Who looks along which side, for which direction.
    pub views: Vec<(Direction, Along, Candidates)>,
}

/// The parts that a reduction results in, and the directions that they belong to.
type Results = (Vec<Direction>, Vec<Part>);

/// Pairs with what is asked of them.
pub(in crate::objective) type Asked = Vec<(Pairs, Vec<Reduction>)>;

/// Which parts of which directions the results of all groups are, one after the other.
pub(in crate::objective) struct Parts(Vec<(Vec<Direction>, Part)>);

impl Group {
    /// What to ask of groups whose similarities share a memory budget; `smooth` for label smoothing.
    pub fn ask(mut groups: Vec<Self>, smooth: bool, memory_budget: usize) -> (Asked, Parts) {
        let pairs = groups.iter_mut().map(|group| &mut group.pairs);
        share_memory_budget(pairs, memory_budget);
        let mut parts = Vec::new();
        let asked = groups.into_iter().map(|group| {
            let (asks, reductions): (Vec<_>, _) = group.asks(smooth).into_iter().unzip();
            for (directions, of_reduction) in asks {
                let named = of_reduction
                    .into_iter()
                    .map(|part| (directions.clone(), part));
                parts.extend(named);
            }
            (group.pairs, reductions)
        });
        (asked.collect(), Parts(parts))
    }

    /// The reductions, and which parts of which directions they result in.
    fn asks(&self, smooth: bool) -> Vec<(Results, Reduction)> {
        let mut asks = Vec::new();
        for (direction, along, candidates) in &self.views {
            for (parts, reduction) in candidates.asks(*along, smooth) {
                asks.push(((vec![*direction], parts), reduction));
            }
        }
        // A diagonal is the same along both sides.
        if let [(_, along, candidates), ..] = &self.views[..]
            && !candidates.several
            && candidates.positive == Expr::diagonal()
        {
            let zero = Expr::constant(0.0);
            let positive = Expr::select(&candidates.positive, &candidates.logit, &zero);
            let directions = self.views.iter().map(|(direction, ..)| *direction);
            let part = (directions.collect(), vec![Part::PositiveSum]);
            asks.push((part, along.sum(&positive)));
        }
        asks
    }
}

impl Parts {
    /// The terms of both directions, from the results of all groups.
    pub fn terms(&self, results: Vec<Vec<Tensor<1>>>) -> [Terms; 2] {
        let mut terms = [Terms::default(), Terms::default()];
        for (result, (directions, part)) in results.into_iter().flatten().zip(&self.0) {
            for &direction in directions {
                terms[direction].push(*part, result.clone());
            }
        }
        terms
    }
}

/// How terms become a loss.
#[derive(Clone, Copy, Default)]
pub(in crate::objective) struct Blend {
    /// Whether positives are left out of the denominator.
    pub decoupled: bool,
    /// Share of the target that is spread evenly.
    pub label_smoothing: f64,
    /// Share of the target that is soft.
    pub soft_targets: f64,
}

/// The results of all groups for one direction.
#[derive(Default)]
pub(in crate::objective) struct Terms(Vec<(Part, Tensor<1>)>);

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
    pub fn loss(&self, blend: Blend) -> Tensor<1> {
        let sum = self.sum(Part::PositiveSum).expect("positives");
        // One positive is its own mean, to the last digit.
        let (mean, log_sum) = match self.sum(Part::PositiveCount) {
            Some(count) => (sum / count, self.log_sum(Part::PositiveLogSum)),
            None => (sum, None),
        };
        let mut negatives = self.all(Part::Negatives);
        if let Some(weighted) = self.log_sum(Part::Weighted) {
            negatives.push(weighted - self.log_mean_weight().expect("weights"));
        }
        let mut loss = if blend.decoupled {
            let negatives = join(negatives).expect("negatives");
            let nothing = negatives.clone().equal_elem(f64::NEG_INFINITY);
            (negatives - mean.clone()).mask_fill(nothing, 0.0)
        } else {
            match log_sum {
                Some(log_sum) => cross_entropy(&log_sum, negatives) + (log_sum - mean.clone()),
                None => cross_entropy(&mean, negatives),
            }
        };
        // A share of the target moves from the positives to others: by that much less of their mean logit.
        if blend.label_smoothing > 0.0 {
            let sum = self.sum(Part::LogitSum).expect("logits");
            let count = self.sum(Part::LogitCount).expect("logits");
            loss = loss + (mean.clone() - sum / count) * blend.label_smoothing;
        }
        if blend.soft_targets > 0.0 {
            loss = loss + (mean - self.target_mean()) * blend.soft_targets;
        }
        loss
    }

    /// The mean logit under the soft targets of all groups.
    fn target_mean(&self) -> Tensor<1> {
        let log_sum = self.log_sum(Part::TargetLogSum).expect("targets");
        let groups = self.all(Part::TargetLogSum).into_iter();
        groups
            .zip(self.all(Part::TargetMean))
            .map(|(group, mean)| (group - log_sum.clone()).exp() * mean)
            .reduce(|x, y| x + y)
            .expect("targets")
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
fn cross_entropy(
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
