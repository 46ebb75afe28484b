//! Groups of candidates that share their pairs: what each pair is to an anchor, and its sums.

use burn::tensor::{Int, Tensor};

use super::criterion::{Criterion, SameId};
use super::loss::{Positives, Sums, Weights, log_mean_weight};
use crate::pairwise::{Along, Expr, Pairs, Reduction};
use crate::weighting::LogWeight;

/// Image→text is 0, text→image is 1.
pub(super) type Direction = usize;

/// Where the candidates of a group come from.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Source {
    /// The other modality of the batch: candidate `i` belongs to anchor `i`.
    Batch,
    /// Outside the batch, compared with a teacher and weighted as the batch is.
    Extra,
    /// Outside the batch, of which nothing is known.
    Noise,
    /// The anchor's own modality: candidate `i` is anchor `i` itself.
    OwnModality,
}

/// What is known of the anchors and the candidates of a group, besides their embeddings.
#[derive(Default)]
pub(super) struct Known {
    /// A teacher's features of both.
    pub teacher: Option<[Tensor<2>; 2]>,
    /// A momentum encoder's features of both.
    pub momentum: Option<[Tensor<2>; 2]>,
    pub ids: Option<[Tensor<1, Int>; 2]>,
}

/// What all groups of an evaluation share.
pub(super) struct Shared<'a> {
    pub criterion: &'a Criterion,
    pub log_weight: Option<&'a LogWeight>,
    /// The logit scale, `[1]`.
    pub scale: Tensor<1>,
    /// The teacher's similarities of the batch's own pairs, `[N]`, where negatives are filtered.
    pub positive_teacher: Option<Tensor<1>>,
}

/// Candidates that share their pairs with the anchors of one direction, or of both.
pub(super) struct Group {
    pub pairs: Pairs,
    source: Source,
    /// The directions that read it: along rows the first set of embeddings are the anchors.
    views: Vec<View>,
    logit: Expr,
    /// Not 0 for a positive.
    positive: Expr,
    /// Whether an anchor may have several positives, or none.
    several: bool,
    /// Not 0 for what is no negative; says nothing of positives.
    excluded: Expr,
    log_weight: Option<Expr>,
    /// The logits of soft targets.
    targets: Option<Expr>,
}

/// A group as one direction reads it.
struct View {
    direction: Direction,
    along: Along,
    /// Not 0 for what a similarity rules out as a negative; NaN where that similarity is NaN.
    filtered: Expr,
}

impl Shared<'_> {
    /// The group of these pairs; `views` says which directions read it, and along what.
    pub fn group(
        &self,
        source: Source,
        mut pairs: Pairs,
        views: &[(Direction, Along)],
        known: Known,
    ) -> Group {
        let similarity = pairs.similarity();
        let scale = pairs.scalar(self.scale.clone());
        let other_modality = matches!(source, Source::Batch | Source::Extra);
        let log_weight = self.log_weight.filter(|_| other_modality);
        let soft = other_modality && self.criterion.soft_targets > 0.0;
        let guided_margin = self.criterion.guided_margin;
        let reads_teacher =
            self.criterion.needs_teacher(log_weight) || (soft && known.momentum.is_none());
        let mut bind = |features: Option<[Tensor<2>; 2]>| {
            features.map(|[rows, columns]| pairs.teacher(rows, columns))
        };
        let teacher = bind(known.teacher.filter(|_| reads_teacher));
        let momentum = bind(known.momentum.filter(|_| soft));
        let targets = momentum.or(teacher.clone()).filter(|_| soft);
        let targets = targets.map(|similarity| (similarity * &scale).detach());
        let same = known
            .ids
            .map(|[rows, columns]| pairs.same_label(rows, columns));
        let several = same.is_some() && self.criterion.same_id == SameId::Positive;
        let (positive, excluded) = roles(source, same, several);
        let views = views.iter().map(|&(direction, along)| View {
            direction,
            along,
            filtered: match (guided_margin, &teacher, &self.positive_teacher) {
                (Some(margin), Some(teacher), Some(positive)) => {
                    let limit = pairs.bind(along, positive.clone() + margin);
                    (teacher - limit).step()
                }
                _ => Expr::constant(0.0),
            },
        });
        Group {
            views: views.collect(),
            source,
            logit: &similarity * &scale,
            positive,
            several,
            excluded,
            log_weight: log_weight.map(|weight| weight.of(&similarity, teacher.as_ref())),
            targets,
            pairs,
        }
    }
}

/// Which pairs are positives, and which are no negatives, from whether they have the same id.
fn roles(source: Source, same: Option<Expr>, several: bool) -> (Expr, Expr) {
    let (none, diagonal) = (Expr::constant(0.0), Expr::diagonal());
    match (same, source) {
        // No sample is its own positive.
        (Some(same), Source::OwnModality) if several => {
            (Expr::select(&diagonal, &none, &same), diagonal)
        }
        (Some(same), _) if several => (same, none),
        (Some(same), Source::Batch) => (diagonal, same),
        (Some(same), _) => (none, same),
        (None, Source::Batch) => (diagonal, none),
        (None, Source::OwnModality) => (none, diagonal),
        (None, _) => (none.clone(), none),
    }
}

/// Reductions, with the indices of their results.
#[derive(Default)]
struct Plan {
    reductions: Vec<Reduction>,
    results: usize,
}

impl Plan {
    fn add(&mut self, reduction: Reduction) -> usize {
        self.reductions.push(reduction);
        self.results += 1;
        self.results - 1
    }

    /// A reduction with two results.
    fn add_two(&mut self, reduction: Reduction) -> [usize; 2] {
        let first = self.add(reduction);
        self.results += 1;
        [first, first + 1]
    }
}

impl Group {
    /// The sums that the loss needs, for each direction that reads the group.
    pub fn reduce(self, criterion: &Criterion) -> Vec<(Direction, Sums<Tensor<1>>)> {
        let mut plan = Plan::default();
        let mut sums: Vec<_> = self
            .views
            .iter()
            .map(|view| self.plan(view, criterion, &mut plan))
            .collect();
        // A diagonal has the same sums along both sides.
        if self.source == Source::Batch && !self.several {
            let positive = Expr::select(&self.positive, &self.logit, &Expr::constant(0.0));
            let sum = plan.add(self.views[0].along.sum(&positive));
            for sums in &mut sums {
                sums.positives = Some(Positives { sum, several: None });
            }
        }
        let directions: Vec<_> = self.views.iter().map(|view| view.direction).collect();
        let results = self.pairs.reduce(&plan.reductions);
        let read = |sums: Sums<usize>| sums.map(|result| results[result].clone());
        let mut sums: Vec<_> = directions
            .into_iter()
            .zip(sums.into_iter().map(read))
            .collect();
        if self.source == Source::Extra && criterion.queue_weight < 1.0 {
            for (_, sums) in &mut sums {
                sums.negatives = sums.negatives.clone() + criterion.queue_weight.ln();
            }
        }
        sums
    }

    /// What one direction reads of the group.
    fn plan(&self, view: &View, criterion: &Criterion, plan: &mut Plan) -> Sums<usize> {
        let along = view.along;
        let (zero, one) = (Expr::constant(0.0), Expr::constant(1.0));
        let nothing = Expr::constant(f64::NEG_INFINITY);
        let is_negative = self.is_negative(view);
        let is_candidate = Expr::select(&self.positive, &one, &is_negative);
        let (negatives, weights) = match &self.log_weight {
            None => {
                let negatives = self.of_negatives(view, &self.logit);
                (plan.add(along.log_sum_exp(&negatives)), None)
            }
            Some(log_weight) => {
                let weighted = self.of_negatives(view, &(&self.logit + log_weight));
                let weights = self.of_negatives(view, log_weight);
                (
                    plan.add(along.log_sum_exp(&weighted)),
                    Some(Weights {
                        log_sum: plan.add(along.log_sum_exp(&weights)),
                        count: plan.add(along.sum(&is_negative)),
                    }),
                )
            }
        };
        let positives = self.several.then(|| {
            let positive = |x: &Expr, otherwise| Expr::select(&self.positive, x, otherwise);
            let log_sum = plan.add(along.log_sum_exp(&positive(&self.logit, &nothing)));
            Positives {
                sum: plan.add(along.sum(&positive(&self.logit, &zero))),
                several: Some([log_sum, plan.add(along.sum(&positive(&one, &zero)))]),
            }
        });
        let all = (criterion.label_smoothing > 0.0).then(|| {
            let logit = Expr::select(&is_candidate, &self.logit, &zero);
            [
                plan.add(along.sum(&logit)),
                plan.add(along.sum(&is_candidate)),
            ]
        });
        let targets = self.targets.as_ref().map(|targets| {
            let targets = Expr::select(&is_candidate, targets, &nothing);
            plan.add_two(along.softmax_mean(&targets, &self.logit))
        });
        Sums {
            negatives,
            weights,
            positives,
            all,
            targets,
        }
    }

    /// `x` of negatives, −∞ of others.
    fn of_negatives(&self, view: &View, x: &Expr) -> Expr {
        self.select_negatives(view, x, f64::NEG_INFINITY)
    }

    /// 1 for negatives, 0 for others.
    fn is_negative(&self, view: &View) -> Expr {
        self.select_negatives(view, &Expr::constant(1.0), 0.0)
    }

    /// `x` of negatives, `otherwise` of others; NaN where a filter compared with NaN.
    fn select_negatives(&self, view: &View, x: &Expr, otherwise: f64) -> Expr {
        let filtered = match view.filtered.as_constant() {
            Some(_) => Expr::constant(otherwise),
            // Not `f − f`, which shader compilers take for 0.
            None => view.filtered.step() - 1.0 + otherwise,
        };
        let otherwise = Expr::constant(otherwise);
        let x = Expr::select(&view.filtered, &filtered, x);
        let x = Expr::select(&self.excluded, &otherwise, &x);
        Expr::select(&self.positive, &otherwise, &x)
    }

    /// The sums of the weights, as constants, for each direction that reads the group.
    fn weights(&self) -> Vec<(Direction, Weights<Tensor<1>>)> {
        let Some(log_weight) = &self.log_weight else {
            return Vec::new();
        };
        let reductions: Vec<_> = self
            .views
            .iter()
            .flat_map(|view| {
                let weights = self.of_negatives(view, &log_weight.detach());
                let count = self.is_negative(view);
                [view.along.log_sum_exp(&weights), view.along.sum(&count)]
            })
            .collect();
        // Without gradients nothing is kept for a backward pass.
        let results = self.pairs.clone().constant().reduce(&reductions);
        let weights = results.chunks_exact(2).map(|result| Weights {
            log_sum: result[0].clone(),
            count: result[1].clone(),
        });
        self.views
            .iter()
            .map(|view| view.direction)
            .zip(weights)
            .collect()
    }
}

/// Filters the negatives whose weight is below the threshold; the others are no longer weighted.
pub(super) fn remove_below(groups: &mut [Group], threshold: f64) {
    let weights: Vec<_> = groups.iter().flat_map(Group::weights).collect();
    // A weight over the mean is at least the threshold.
    let least = [0, 1].map(|direction| {
        let weights = weights.iter().filter(|(of, _)| *of == direction);
        let log_mean = log_mean_weight(weights.map(|(_, weights)| weights));
        log_mean.expect("the batch is weighted") + threshold.ln()
    });
    for group in groups {
        let Some(log_weight) = group.log_weight.take() else {
            continue;
        };
        for view in &mut group.views {
            let least = group.pairs.bind(view.along, least[view.direction].clone());
            let removed = (least - log_weight.detach()).step();
            view.filtered = &view.filtered + removed;
        }
    }
}
