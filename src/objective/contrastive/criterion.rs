//! The parts of a softmax contrast, and its evaluation.

use burn::config::Config;
use burn::module::Content;
use burn::tensor::{Int, Tensor};

use super::context::{Context, Ids, Negatives, Teacher};
use super::terms::{Candidates, Direction, Group, Part, Terms};
use crate::check;
use crate::objective::Reduction;
use crate::pairwise::{Expr, Pairs, columns, reduce_to_scalar, rows, share_memory_budget};
use crate::similarity::{LogitScale, SimilarityConfig, paired_similarity};
use crate::weighting::{LogWeight, Weighting};

/// What a sample with the anchor's id is to the anchor, where [`Ids`] are given.
#[derive(Config, Copy, Debug, PartialEq, Eq)]
pub enum SameId {
    /// A negative like any other.
    Negative,
    /// Neither positive nor negative.
    LeftOut,
    /// A positive: the loss is the mean over an anchor's positives, as in SupCon's "out" form.
    Positive,
}

/// The parts that make up a softmax contrast; see [the module](super::Contrastive) for the equation.
#[derive(Config, Copy, Debug, PartialEq)]
pub struct Criterion {
    /// Weight λ of the image→text direction; text→image weighs 1 − λ. In [0, 1], default ½ (CLIP).
    #[config(default = 0.5)]
    pub image_to_text_weight: f64,
    /// How the two directions become one loss: their mean, weighted by λ, or twice that, which at λ = ½ is their
    /// sum. Default: mean (CLIP).
    #[config(default = "Reduction::Mean")]
    pub directions: Reduction,
    /// Whether the positive is left out of the denominator (DCL). Default false.
    #[config(default = false)]
    pub decoupled: bool,
    /// Whether the other samples of the anchor's own modality are negatives too (MVN, SimCLR). Default false.
    #[config(default = false)]
    pub within_modality: bool,
    /// What a sample with the anchor's id is, where ids are given. Default: left out.
    #[config(default = "SameId::LeftOut")]
    pub same_id: SameId,
    /// How much negatives count. Default: all the same.
    #[config(default = "Weighting::Uniform")]
    pub weighting: Weighting,
    /// Leaves out negatives that a teacher finds more similar to the anchor than the anchor's positive, by
    /// more than this (GISTEmbed, where it is 0). Default: none are left out.
    pub guided_margin: Option<f64>,
    /// Share ε of the target that is spread evenly over all candidates, in [0, 1]. Default 0.
    #[config(default = 0.0)]
    pub label_smoothing: f64,
    /// How embeddings are compared. Default: by cosine, streaming.
    #[config(default = "SimilarityConfig::new()")]
    pub similarity: SimilarityConfig,
}

impl Default for Criterion {
    fn default() -> Self {
        Self::new()
    }
}

impl Criterion {
    /// Refuses values out of range, in the name of the config that they were set in.
    #[track_caller]
    pub(in crate::objective) fn checked(self, config: &str) -> Self {
        let weight = self.image_to_text_weight;
        check::within(config, "image_to_text_weight", weight, 0.0, 1.0);
        check::within(config, "label_smoothing", self.label_smoothing, 0.0, 1.0);
        if let Some(margin) = self.guided_margin {
            check::within(config, "guided_margin", margin, -f64::MAX, f64::MAX);
        }
        self.weighting.check();
        self
    }

    /// The contrast of an objective of this name at this scale.
    pub(in crate::objective) fn with<'a>(
        &'a self,
        caller: &'static str,
        logit_scale: &'a LogitScale,
    ) -> Contrast<'a> {
        Contrast {
            caller,
            criterion: self,
            logit_scale,
            log_weight: self.weighting.log_weight(),
        }
    }

    /// The parts that are not those of CLIP, for a display.
    pub(in crate::objective) fn show(&self, content: Content) -> Content {
        let plain = Self::new();
        let mut content = content.add("image_to_text_weight", &self.image_to_text_weight);
        let mut debug = |name, set, value: &dyn std::fmt::Debug| {
            if set {
                content = content.clone().add(name, &format!("{value:?}"));
            }
        };
        debug(
            "directions",
            self.directions != plain.directions,
            &self.directions,
        );
        debug("decoupled", self.decoupled, &true);
        debug("within_modality", self.within_modality, &true);
        debug("same_id", self.same_id != plain.same_id, &self.same_id);
        debug(
            "weighting",
            self.weighting != plain.weighting,
            &self.weighting,
        );
        if let Some(margin) = self.guided_margin {
            debug("guided_margin", true, &margin);
        }
        debug(
            "label_smoothing",
            self.label_smoothing > 0.0,
            &self.label_smoothing,
        );
        debug("normalize", true, &self.similarity.normalize);
        debug("evaluation", true, &self.similarity.evaluation);
        content
    }
}

/// A criterion at work.
pub(in crate::objective) struct Contrast<'a> {
    caller: &'static str,
    criterion: &'a Criterion,
    logit_scale: &'a LogitScale,
    log_weight: Option<LogWeight>,
}

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
        let Plan { groups, hard } = self.plan(image, text, context);
        if hard.iter().any(Option::is_some) {
            return self.joined(self.evaluate(groups, hard)).mean();
        }
        // A function of the reductions alone, hence right on every device.
        let (asked, parts) = self.asked(groups);
        reduce_to_scalar(asked, |results| {
            self.joined(self.losses(results, &parts, [None, None]))
                .mean()
        })
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
        let Plan { groups, hard } = self.plan(image, text, context);
        self.evaluate(groups, hard)
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
    fn evaluate(&self, groups: Vec<Group>, hard: [Option<Tensor<2>>; 2]) -> [Tensor<1>; 2] {
        let (asked, parts) = self.asked(groups);
        let results = asked
            .into_iter()
            .map(|(pairs, reductions)| pairs.reduce(&reductions))
            .collect();
        self.losses(results, &parts, hard)
    }

    #[allow(clippy::type_complexity)] // A list of reductions, and which part each of them is.
    fn asked(
        &self,
        groups: Vec<Group>,
    ) -> (
        Vec<(Pairs, Vec<crate::pairwise::Reduction>)>,
        Vec<Vec<(Vec<Direction>, Part)>>,
    ) {
        let smooth = self.criterion.label_smoothing > 0.0;
        groups
            .into_iter()
            .map(|group| {
                let (reductions, parts) = group.reductions(smooth);
                ((group.pairs, reductions), parts)
            })
            .unzip()
    }

    /// The losses of both directions from the results of all groups and the logits of hard negatives.
    fn losses(
        &self,
        results: Vec<Vec<Tensor<1>>>,
        parts: &[Vec<(Vec<Direction>, Part)>],
        hard: [Option<Tensor<2>>; 2],
    ) -> [Tensor<1>; 2] {
        let mut terms = [Terms::default(), Terms::default()];
        for (result, (directions, part)) in
            results.into_iter().flatten().zip(parts.iter().flatten())
        {
            for &direction in directions {
                terms[direction].push(*part, result.clone());
            }
        }
        for (terms, logits) in terms.iter_mut().zip(hard) {
            if let Some(logits) = logits {
                terms.push_dense(logits, self.criterion.label_smoothing > 0.0);
            }
        }
        terms.map(|terms| terms.loss(self.criterion.decoupled, self.criterion.label_smoothing))
    }

    /// The pairs to look at, and the logits of hard negatives, of images and of texts.
    #[track_caller]
    fn plan(&self, image: Tensor<2>, text: Tensor<2>, context: Context) -> Plan {
        let Context {
            negatives,
            teacher,
            ids,
        } = context;
        let caller = self.caller;
        check::paired(caller, ("image", &image), ("text", &text));
        let teacher = self.teacher(teacher, &image, &negatives);
        let ids = self.ids(ids, &image, &negatives);
        let negatives = Negatives {
            image: self.extra(("text", &text), "negatives.image", negatives.image),
            text: self.extra(("image", &image), "negatives.text", negatives.text),
            noise: self.extra(("image", &image), "negatives.noise", negatives.noise),
            ..negatives
        };
        let similarity = self.criterion.similarity;
        let anchors = [image, text].map(|x| similarity.prepare(x));
        let scale = self.logit_scale.for_embeddings(caller, &anchors[0]);
        let hard = self.hard(
            &anchors,
            [negatives.hard_text, negatives.hard_image],
            &scale,
        );

        let mut groups = Groups {
            contrast: self,
            scale,
            own: teacher
                .as_ref()
                .map(|t| paired_similarity(t.image.clone(), t.text.clone())),
            groups: Vec::new(),
        };
        let [image, text] = anchors;
        let features = |f: fn(Teacher) -> [Option<Tensor<2>>; 2]| {
            let [anchors, others] = f(teacher.clone()?);
            Some([anchors?, others?])
        };
        let labels = |others: fn(Ids) -> Option<Tensor<1, Int>>| {
            let ids = ids.clone()?;
            Some([ids.batch.clone(), others(ids)?])
        };
        groups.push(
            Kind::Batch,
            similarity.pairs(image.clone(), text.clone()),
            Sides {
                teacher: features(|t| [Some(t.image), Some(t.text)]),
                ids: labels(|ids| Some(ids.batch)),
            },
        );
        for (direction, anchors) in [image.clone(), text.clone()].into_iter().enumerate() {
            let (others, sides) = match direction {
                0 => (
                    &negatives.text,
                    Sides {
                        teacher: features(|t| [Some(t.image), t.negative_text]),
                        ids: labels(|ids| ids.negative_text),
                    },
                ),
                _ => (
                    &negatives.image,
                    Sides {
                        teacher: features(|t| [Some(t.text), t.negative_image]),
                        ids: labels(|ids| ids.negative_image),
                    },
                ),
            };
            if let Some(others) = others {
                let pairs = similarity.pairs(anchors.clone(), others.clone());
                groups.push(Kind::Extra(direction), pairs, sides);
            }
            if let Some(noise) = &negatives.noise {
                let pairs = similarity.pairs(anchors.clone(), noise.clone());
                groups.push(Kind::Noise(direction), pairs, Sides::default());
            }
            if self.criterion.within_modality {
                let sides = Sides {
                    teacher: match direction {
                        0 => features(|t| [Some(t.image.clone()), Some(t.image)]),
                        _ => features(|t| [Some(t.text.clone()), Some(t.text)]),
                    },
                    ids: labels(|ids| Some(ids.batch)),
                };
                groups.push(
                    Kind::Within(direction),
                    similarity.pairs_within(anchors),
                    sides,
                );
            }
        }
        let mut groups = groups.groups;
        if let Some(threshold) = self.criterion.weighting.threshold() {
            remove(&mut groups, threshold);
        }
        let pairs = groups.iter_mut().map(|group| &mut group.pairs);
        share_memory_budget(pairs, similarity.memory_budget);
        Plan { groups, hard }
    }

    fn asks_teacher(&self) -> bool {
        let weights = self.log_weight.as_ref();
        self.criterion.guided_margin.is_some() || weights.is_some_and(LogWeight::needs_teacher)
    }

    /// The teacher's features ready to be compared, where they are asked for.
    #[track_caller]
    fn teacher(
        &self,
        teacher: Option<Teacher>,
        image: &Tensor<2>,
        negatives: &Negatives,
    ) -> Option<Teacher> {
        if !self.asks_teacher() {
            return None;
        }
        let caller = self.caller;
        let Some(teacher) = teacher else {
            panic!(
                "{caller}: `teacher` is missing: its weights or its filter compare by a teacher's features"
            )
        };
        let Teacher {
            image: teacher_image,
            text,
            negative_image,
            negative_text,
        } = teacher;
        let (names, rows) = (["teacher.image", "teacher.text"], image.dims()[0]);
        check::paired(caller, (names[0], &teacher_image), (names[1], &text));
        assert!(
            teacher_image.dims()[0] == rows,
            "{caller}: `teacher.image` has {} rows, `image` has {rows}: both need the same number",
            teacher_image.dims()[0]
        );
        check::together(caller, ("image", image), (names[0], &teacher_image));
        let anchor = (names[0], &teacher_image);
        let negative_image = self.extra(anchor, "teacher.negative_image", negative_image);
        let negative_text = self.extra(anchor, "teacher.negative_text", negative_text);
        for (names, theirs, ours) in [
            (
                ["teacher.negative_image", "negatives.image"],
                &negative_image,
                &negatives.image,
            ),
            (
                ["teacher.negative_text", "negatives.text"],
                &negative_text,
                &negatives.text,
            ),
        ] {
            if let (Some(theirs), Some(ours)) = (theirs, ours) {
                let (rows, others) = (theirs.dims()[0], ours.dims()[0]);
                assert!(
                    rows == others,
                    "{caller}: `{}` has {rows} rows, `{}` has {others}: both need the same number",
                    names[0],
                    names[1]
                );
            }
        }
        // A constant; the teacher's similarities are those of its own features, normalised likewise.
        let ready = |x: Tensor<2>| {
            let x = self.criterion.similarity.prepare(x.detach());
            x.cast(check::compute_dtype(image.dtype()))
        };
        Some(Teacher {
            image: ready(teacher_image),
            text: ready(text),
            negative_image: negative_image.map(ready),
            negative_text: negative_text.map(ready),
        })
    }

    /// The ids, where they matter.
    #[track_caller]
    fn ids(&self, ids: Option<Ids>, image: &Tensor<2>, negatives: &Negatives) -> Option<Ids> {
        let ids = ids.filter(|_| self.criterion.same_id != SameId::Negative)?;
        for (names, ids, rows) in [
            (["ids.batch", "image"], Some(&ids.batch), Some(image)),
            (
                ["ids.negative_image", "negatives.image"],
                ids.negative_image.as_ref(),
                negatives.image.as_ref(),
            ),
            (
                ["ids.negative_text", "negatives.text"],
                ids.negative_text.as_ref(),
                negatives.text.as_ref(),
            ),
        ] {
            if let (Some(ids), Some(rows)) = (ids, rows) {
                let (count, rows) = (ids.dims()[0], rows.dims()[0]);
                assert!(
                    count == rows,
                    "{}: `{}` has {count} numbers, `{}` has {rows} rows: one id a row",
                    self.caller,
                    names[0],
                    names[1]
                );
            }
        }
        Some(ids)
    }

    /// Embeddings that anchors meet, ready to be compared; `None` for no rows.
    #[track_caller]
    fn extra(
        &self,
        anchor: check::Named,
        name: &'static str,
        extra: Option<Tensor<2>>,
    ) -> Option<Tensor<2>> {
        let extra = extra.filter(|t| t.dims()[0] > 0)?;
        check::comparable(self.caller, anchor, (name, &extra));
        Some(self.criterion.similarity.prepare(extra))
    }

    /// The logits `[N, m]` of each anchor's own hard negatives.
    #[track_caller]
    fn hard(
        &self,
        anchors: &[Tensor<2>; 2],
        hard: [Option<Tensor<3>>; 2],
        scale: &Tensor<1>,
    ) -> [Option<Tensor<2>>; 2] {
        let names = ["negatives.hard_text", "negatives.hard_image"];
        let mut sides = anchors.iter().zip(names);
        hard.map(|hard| {
            let (anchors, name) = sides.next().expect("two directions");
            let hard = hard.filter(|t| t.dims()[1] > 0)?;
            let ([n, d], [rows, m, width]) = (anchors.dims(), hard.dims());
            assert!(
                [rows, width] == [n, d],
                "{}: `{name}` has shape {:?}, it must be [{n}, m, {d}]: row i belongs to anchor i",
                self.caller,
                hard.dims()
            );
            let hard = hard.reshape([n * m, d]);
            check::together(self.caller, ("image", anchors), (name, &hard));
            let hard = self.criterion.similarity.prepare(hard);
            let hard = hard.cast(anchors.dtype()).reshape([n, m, d]);
            let cosines = hard.matmul(anchors.clone().unsqueeze_dim::<3>(2));
            Some(cosines.squeeze_dim::<2>(2) * scale.clone().unsqueeze::<2>())
        })
    }
}

struct Plan {
    groups: Vec<Group>,
    hard: [Option<Tensor<2>>; 2],
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
struct Sides {
    teacher: Option<[Tensor<2>; 2]>,
    ids: Option<[Tensor<1, Int>; 2]>,
}

struct Groups<'a> {
    contrast: &'a Contrast<'a>,
    scale: Tensor<1>,
    /// The teacher's similarities of the batch's pairs.
    own: Option<Tensor<1>>,
    groups: Vec<Group>,
}

impl Groups<'_> {
    #[track_caller]
    fn push(&mut self, kind: Kind, mut pairs: Pairs, sides: Sides) {
        let contrast = self.contrast;
        let criterion = contrast.criterion;
        let similarity = pairs.similarity();
        let logit = &similarity * &pairs.scalar(self.scale.clone());
        let weighted = matches!(kind, Kind::Batch | Kind::Extra(_));
        let log_weight = contrast.log_weight.as_ref().filter(|_| weighted);
        let guided = criterion
            .guided_margin
            .filter(|_| !matches!(kind, Kind::Noise(_)));
        let asks_teacher = guided.is_some() || log_weight.is_some_and(LogWeight::needs_teacher);
        let teacher = match (sides.teacher, kind) {
            _ if !asks_teacher => None,
            (Some([anchors, others]), _) => Some(pairs.teacher(anchors, others)),
            (None, kind) => {
                let name = match kind {
                    Kind::Extra(0) => "text",
                    _ => "image",
                };
                panic!(
                    "{}: `teacher.negative_{name}` is missing: `negatives.{name}` are compared by a teacher's features",
                    contrast.caller
                )
            }
        };
        let none = Expr::constant(0.0);
        let diagonal = Expr::diagonal();
        let same = sides
            .ids
            .map(|[rows, columns]| pairs.same_label(rows, columns));
        let several = same.is_some() && criterion.same_id == SameId::Positive;
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
        let log_weight = log_weight.map(|weight| weight.of(&similarity, teacher.as_ref()));
        let views = match kind {
            Kind::Batch => vec![(0, rows()), (1, columns())],
            Kind::Extra(direction) | Kind::Noise(direction) | Kind::Within(direction) => {
                vec![(direction, rows())]
            }
        };
        let views = views
            .into_iter()
            .map(|(direction, along)| {
                let filtered = guided.map(|margin| {
                    let limit = self.own.clone().expect("a teacher") + margin;
                    let limit = pairs.bind(along, limit);
                    (teacher.as_ref().expect("a teacher") - &limit).step()
                });
                let candidates = Candidates {
                    logit: logit.clone(),
                    positive: positive.clone(),
                    several,
                    left_out: left_out.clone(),
                    filtered: filtered.unwrap_or_else(|| Expr::constant(0.0)),
                    log_weight: log_weight.clone(),
                };
                (direction, along, candidates)
            })
            .collect();
        self.groups.push(Group { pairs, views });
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
