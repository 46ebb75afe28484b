//! A criterion at work: which pairs are looked at, and how their reductions become the loss.

use burn::tensor::{Int, Tensor};

use super::context::Context;
use super::criterion::{Criterion, SameId};
use super::side::{Side, Sides};
use super::terms::{Asked, Blend, Candidates, Direction, Group, Part, Parts, Terms};
use crate::objective::Reduction;
use crate::pairwise::{Expr, Pairs, columns, rows};
use crate::similarity::{LogitScale, paired_similarity};
use crate::weighting::LogWeight;

/// A criterion with a logit scale and weights, in the name of an objective.
pub(in crate::objective) struct Contrast<'a> {
    pub(super) caller: &'static str,
    pub(super) criterion: &'a Criterion,
    pub(super) logit_scale: &'a LogitScale,
    pub(super) log_weight: Option<LogWeight>,
}

/// The logits `[N, m]` of anchors' own hard negatives, of images and of texts.
type Hard = [Option<Tensor<2>>; 2];

impl Contrast<'_> {
    /// With weights of the user's own, where there are some.
    pub fn with_log_weight(self, log_weight: Option<LogWeight>) -> Self {
        Self {
            log_weight: log_weight.or(self.log_weight),
            ..self
        }
    }

    /// The mean of [`each`](Self::each), `[1]`.
    #[track_caller]
    pub fn mean(&self, image: Tensor<2>, text: Tensor<2>, context: Context) -> Tensor<1> {
        self.each(image, text, context).mean()
    }

    /// The loss of each pair, `[N]`.
    #[track_caller]
    pub fn each(&self, image: Tensor<2>, text: Tensor<2>, context: Context) -> Tensor<1> {
        self.joined(self.directions(image, text, context))
    }

    /// The losses of image anchors and of text anchors, `[N]` each, not weighted.
    #[track_caller]
    pub fn directions(
        &self,
        image: Tensor<2>,
        text: Tensor<2>,
        context: Context,
    ) -> [Tensor<1>; 2] {
        let (asked, parts, hard) = self.asked(image, text, context);
        self.reduced(asked, &parts, hard)
    }

    fn joined(&self, [image_to_text, text_to_image]: [Tensor<1>; 2]) -> Tensor<1> {
        let weight = self.criterion.image_to_text_weight;
        let factor = match self.criterion.directions {
            Reduction::Mean => 1.0,
            Reduction::Sum => 2.0,
        };
        image_to_text * (factor * weight) + text_to_image * (factor * (1.0 - weight))
    }

    #[track_caller]
    fn reduced(&self, asked: Asked, parts: &Parts, hard: Hard) -> [Tensor<1>; 2] {
        let reduced = |(pairs, reductions): (Pairs, Vec<_>)| pairs.reduce(&reductions);
        self.losses(asked.into_iter().map(reduced).collect(), parts, hard)
    }

    /// The losses of both directions from the results of all groups and the logits of hard negatives.
    fn losses(&self, results: Vec<Vec<Tensor<1>>>, parts: &Parts, hard: Hard) -> [Tensor<1>; 2] {
        let mut terms = parts.terms(results);
        for (terms, logits) in terms.iter_mut().zip(hard) {
            if let Some(logits) = logits {
                terms.push_dense(logits, self.criterion.label_smoothing > 0.0);
            }
        }
        let blend = Blend {
            decoupled: self.criterion.decoupled,
            label_smoothing: self.criterion.label_smoothing,
            soft_targets: self.criterion.soft_targets,
        };
        terms.map(|terms| terms.loss(blend))
    }

    #[track_caller]
    fn asked(&self, image: Tensor<2>, text: Tensor<2>, context: Context) -> (Asked, Parts, Hard) {
        let criterion = self.criterion;
        let asks_teacher = criterion.guided_margin.is_some()
            || criterion.soft_targets > 0.0
            || self
                .log_weight
                .as_ref()
                .is_some_and(LogWeight::needs_teacher);
        let sides = Sides::new(self.caller, criterion, asks_teacher, image, text, context);
        let scale = self
            .logit_scale
            .for_embeddings(self.caller, &sides.sides[0].anchors);
        let hard = sides.sides.each_ref().map(|side| hard_logits(side, &scale));

        let mut groups = self.groups(sides, scale);
        if let Some(threshold) = criterion.weighting.threshold() {
            remove(&mut groups, threshold);
        }
        let smooth = criterion.label_smoothing > 0.0;
        let (asked, parts) = Group::ask(groups, smooth, criterion.similarity.memory_budget);
        (asked, parts, hard)
    }

    /// The batch, and for each direction the extra negatives, the noise and the own modality, as far as there
    /// are any.
    fn groups(&self, sides: Sides, scale: Tensor<1>) -> Vec<Group> {
        let similarity = self.criterion.similarity;
        let Sides { sides, noise, ids } = sides;
        let of_batch = |teachers: [&Option<Tensor<2>>; 2]| Known {
            teacher: both(teachers.map(Option::clone)),
            ids: both([ids.clone(), ids.clone()]),
        };
        let [image, text] = &sides;
        let batch = of_batch([&image.teacher, &text.teacher]);
        let looks = Looks {
            contrast: self,
            scale,
            own: batch
                .teacher
                .clone()
                .map(|[image, text]| paired_similarity(image, text)),
        };
        let pairs = similarity.pairs(image.anchors.clone(), text.anchors.clone());
        let mut groups = vec![looks.at(Kind::Batch, pairs, batch)];
        for (direction, side) in sides.into_iter().enumerate() {
            let Side {
                anchors,
                teacher,
                extra,
                ..
            } = side;
            if let Some(extra) = extra {
                let known = Known {
                    teacher: both([teacher.clone(), extra.teacher]),
                    ids: both([ids.clone(), extra.ids]),
                };
                let pairs = similarity.pairs(anchors.clone(), extra.embeddings);
                groups.push(looks.at(Kind::Extra(direction), pairs, known));
            }
            if let Some(noise) = &noise {
                let pairs = similarity.pairs(anchors.clone(), noise.clone());
                groups.push(looks.at(Kind::Noise(direction), pairs, Known::default()));
            }
            if self.criterion.within_modality {
                let known = of_batch([&teacher, &teacher]);
                let pairs = similarity.pairs_within(anchors);
                groups.push(looks.at(Kind::Within(direction), pairs, known));
            }
        }
        groups
    }
}

fn both<T>([a, b]: [Option<T>; 2]) -> Option<[T; 2]> {
    Some([a?, b?])
}

/// The logits of each anchor's own hard negatives.
fn hard_logits(side: &Side, scale: &Tensor<1>) -> Option<Tensor<2>> {
    let anchors = side.anchors.clone().unsqueeze_dim::<3>(2);
    let similarities = side.hard.clone()?.matmul(anchors).squeeze_dim::<2>(2);
    Some(similarities * scale.clone().unsqueeze::<2>())
}

/// What a group of pairs is.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Batch,
    Extra(Direction),
    Noise(Direction),
    Within(Direction),
}

/// What else is known of a group's rows and columns.
#[derive(Default)]
struct Known {
    teacher: Option<[Tensor<2>; 2]>,
    ids: Option<[Tensor<1, Int>; 2]>,
}

/// How a contrast looks at groups of pairs.
struct Looks<'a> {
    contrast: &'a Contrast<'a>,
    scale: Tensor<1>,
    /// The teacher's similarities of the batch's own pairs.
    own: Option<Tensor<1>>,
}

impl Looks<'_> {
    fn at(&self, kind: Kind, mut pairs: Pairs, known: Known) -> Group {
        let criterion = self.contrast.criterion;
        let similarity = pairs.similarity();
        let scale = pairs.scalar(self.scale.clone());
        let logit = &similarity * &scale;
        // Noise has no teacher, and the own modality no weights.
        let weight = match kind {
            Kind::Batch | Kind::Extra(_) => self.contrast.log_weight.as_ref(),
            Kind::Noise(_) | Kind::Within(_) => None,
        };
        let guided = criterion.guided_margin.filter(|_| known.teacher.is_some());
        let distils = criterion.soft_targets > 0.0 && !matches!(kind, Kind::Within(_));
        let asks_teacher =
            distils || guided.is_some() || weight.is_some_and(LogWeight::needs_teacher);
        let teacher = known.teacher.filter(|_| asks_teacher);
        let teacher = teacher.map(|[rows, columns]| pairs.teacher(rows, columns));
        let log_weight = weight.map(|weight| weight.of(&similarity, teacher.as_ref()));
        let target = teacher.as_ref().filter(|_| distils);
        let target = target.map(|teacher| (teacher * &scale).detach());

        let same = known
            .ids
            .map(|[rows, columns]| pairs.same_label(rows, columns));
        let several = same.is_some() && criterion.same_id == SameId::Positive;
        let (none, diagonal) = (Expr::constant(0.0), Expr::diagonal());
        let (positive, left_out) = match (same, kind) {
            // No sample is its own positive.
            (Some(same), Kind::Within(_)) if several => {
                (Expr::select(&diagonal, &none, &same), diagonal)
            }
            (Some(same), _) if several => (same, none),
            (Some(same), Kind::Batch) => (diagonal, same),
            (Some(same), _) => (none, same),
            (None, Kind::Batch) => (diagonal, none),
            (None, Kind::Within(_)) => (none, diagonal),
            (None, _) => (none.clone(), none),
        };
        let views = match kind {
            Kind::Batch => vec![(0, rows()), (1, columns())],
            Kind::Extra(direction) | Kind::Noise(direction) | Kind::Within(direction) => {
                vec![(direction, rows())]
            }
        };
        let views = views.into_iter().map(|(direction, along)| {
            let filtered = match (guided, &teacher, &self.own) {
                (Some(margin), Some(teacher), Some(own)) => {
                    (teacher - pairs.bind(along, own.clone() + margin)).step()
                }
                _ => Expr::constant(0.0),
            };
            let candidates = Candidates {
                logit: logit.clone(),
                positive: positive.clone(),
                several,
                left_out: left_out.clone(),
                filtered,
                log_weight: log_weight.clone(),
                target: target.clone(),
            };
            (direction, along, candidates)
        });
        let views = views.collect();
        Group { pairs, views }
    }
}

/// Leaves out negatives whose weight is below the threshold; the others count one.
fn remove(groups: &mut [Group], threshold: f64) {
    let mut terms = [Terms::default(), Terms::default()];
    for group in groups.iter() {
        let (mut reductions, mut parts) = (Vec::new(), Vec::new());
        for (direction, along, candidates) in &group.views {
            let Some(log_weight) = &candidates.log_weight else {
                continue;
            };
            let weights = candidates.negative(&log_weight.detach());
            reductions.push(along.log_sum_exp(&weights));
            reductions.push(along.sum(&candidates.is_negative()));
            parts.extend([(*direction, Part::Weights), (*direction, Part::WeightCount)]);
        }
        if reductions.is_empty() {
            continue;
        }
        // Without gradients nothing is kept for a backward pass.
        let sums = group.pairs.clone().constant().reduce(&reductions);
        for (sum, (direction, part)) in sums.into_iter().zip(parts) {
            terms[direction].push(part, sum);
        }
    }
    // A weight over the mean is at least the threshold.
    let least = terms.map(|terms| terms.log_mean_weight().expect("weights") + threshold.ln());
    for group in groups {
        let pairs = &mut group.pairs;
        for (direction, along, candidates) in &mut group.views {
            let Some(log_weight) = candidates.log_weight.take() else {
                continue;
            };
            let least = pairs.bind(*along, least[*direction].clone());
            let removed = (least - log_weight.detach()).step();
            candidates.filtered = &candidates.filtered + removed;
        }
    }
}
