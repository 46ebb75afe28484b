//! A batch and its context, checked, and prepared to be compared.

use burn::tensor::{Int, Tensor};

use super::context::Context;
use super::criterion::{Criterion, SameId};
use crate::check;
use crate::similarity::{Embeddings, SimilarityConfig};
use crate::tensor::constant_like;

/// Both directions: image anchors with text candidates, and text anchors with image candidates.
pub(super) struct Batch {
    pub sides: [Side; 2],
    pub noise: Option<Embeddings>,
    pub ids: Option<Tensor<1, Int>>,
}

/// The anchors of one modality, and candidates of the other from outside the batch.
pub(super) struct Side {
    pub anchors: Embeddings,
    /// A momentum encoder's features of the anchors.
    pub momentum: Option<Embeddings>,
    /// A teacher's features of the anchors.
    pub teacher: Option<Tensor<2>>,
    pub extra: Option<Extra>,
    /// Candidates of each anchor alone, `[N, m, D]`.
    pub hard: Option<Tensor<3>>,
}

/// Negatives from outside the batch, with what is known of them.
pub(super) struct Extra<E = Embeddings> {
    pub embeddings: E,
    pub teacher: Option<Tensor<2>>,
    pub ids: Option<Tensor<1, Int>>,
}

/// What messages call the arguments of one direction.
struct Names {
    anchors: &'static str,
    momentum: &'static str,
    teacher: &'static str,
    extra: &'static str,
    extra_teacher: &'static str,
    extra_ids: &'static str,
    hard: &'static str,
}

const IMAGE: Names = Names {
    anchors: "image",
    momentum: "momentum.image",
    teacher: "teacher.image",
    extra: "negatives.text",
    extra_teacher: "teacher.negative_text",
    extra_ids: "ids.negative_text",
    hard: "negatives.hard_text",
};

const TEXT: Names = Names {
    anchors: "text",
    momentum: "momentum.text",
    teacher: "teacher.text",
    extra: "negatives.image",
    extra_teacher: "teacher.negative_image",
    extra_ids: "ids.negative_image",
    hard: "negatives.hard_image",
};

/// The arguments of one direction, as they were given.
struct Given {
    anchors: Tensor<2>,
    momentum: Option<Tensor<2>>,
    teacher: Option<Tensor<2>>,
    extra: Option<Tensor<2>>,
    extra_teacher: Option<Tensor<2>>,
    extra_ids: Option<Tensor<1, Int>>,
    hard: Option<Tensor<3>>,
}

impl Batch {
    /// Checks all arguments. A teacher and ids that the criterion does not use are left out.
    #[track_caller]
    pub fn new(
        caller: &str,
        criterion: &Criterion,
        needs_teacher: bool,
        [image, text]: [Tensor<2>; 2],
        mut context: Context,
    ) -> Self {
        check::paired(caller, (IMAGE.anchors, &image), (TEXT.anchors, &text));
        context.ids = context
            .ids
            .filter(|_| criterion.same_id != SameId::Negative);
        if let Some(ids) = &context.ids {
            check::labelled(caller, ("ids.batch", &ids.batch), (IMAGE.anchors, &image));
        }
        let needs_targets = criterion.soft_targets > 0.0 && context.momentum.is_none();
        context.teacher = context.teacher.filter(|_| needs_teacher || needs_targets);
        assert!(
            context.teacher.is_some() || !needs_teacher,
            "{caller}: `teacher` is missing: the weights or the filter of negatives read a \
             teacher's features"
        );
        assert!(
            context.teacher.is_some() || !needs_targets,
            "{caller}: `momentum` is missing: soft targets are those of a momentum encoder, or of \
             a teacher"
        );
        let prepare = Prepare {
            caller,
            similarity: criterion.similarity,
        };
        let noise = context.negatives.noise.take();
        let noise = prepare.candidates((IMAGE.anchors, &image), ("negatives.noise", noise));
        let ids = context.ids.as_ref().map(|ids| ids.batch.clone());
        let [images, texts] = directions(image, text, context);
        Self {
            sides: [prepare.side(&IMAGE, images), prepare.side(&TEXT, texts)],
            noise: noise.map(|noise| criterion.similarity.prepare(noise)),
            ids,
        }
    }
}

/// The arguments by direction: the candidates of image anchors are texts, and the other way round.
fn directions(image: Tensor<2>, text: Tensor<2>, context: Context) -> [Given; 2] {
    let Context {
        momentum,
        negatives,
        teacher,
        ids,
    } = context;
    let (image_momentum, text_momentum) = momentum.map(|m| (m.image, m.text)).unzip();
    let (queue_image_ids, queue_text_ids) = ids
        .map(|ids| (ids.negative_image, ids.negative_text))
        .unwrap_or_default();
    let [
        image_teacher,
        text_teacher,
        queue_image_teacher,
        queue_text_teacher,
    ] = match teacher {
        Some(t) => [
            Some(t.image),
            Some(t.text),
            t.negative_image,
            t.negative_text,
        ],
        None => [None, None, None, None],
    };
    [
        Given {
            anchors: image,
            momentum: image_momentum,
            teacher: image_teacher,
            extra: negatives.text,
            extra_teacher: queue_text_teacher,
            extra_ids: queue_text_ids,
            hard: negatives.hard_text,
        },
        Given {
            anchors: text,
            momentum: text_momentum,
            teacher: text_teacher,
            extra: negatives.image,
            extra_teacher: queue_image_teacher,
            extra_ids: queue_image_ids,
            hard: negatives.hard_image,
        },
    ]
}

/// Checks and prepares the arguments of one direction after the other.
struct Prepare<'a> {
    caller: &'a str,
    similarity: SimilarityConfig,
}

impl Prepare<'_> {
    #[track_caller]
    fn side(&self, names: &Names, given: Given) -> Side {
        let caller = self.caller;
        let anchors = (names.anchors, &given.anchors);
        let constant = |x: Tensor<2>| constant_like(x, &given.anchors);
        let momentum = given.momentum.map(constant);
        if let Some(momentum) = &momentum {
            check::paired(caller, anchors, (names.momentum, momentum));
        }
        let teacher = given.teacher.map(constant);
        if let Some(teacher) = &teacher {
            check::same_rows(caller, (names.teacher, teacher), anchors);
            check::together(caller, anchors, (names.teacher, teacher));
        }
        let extra = self.candidates(anchors, (names.extra, given.extra));
        let extra_teacher = given.extra_teacher.map(constant);
        let extra = extra.map(|embeddings| Extra {
            teacher: extra_teacher.filter(|_| teacher.is_some()),
            ids: given.extra_ids,
            embeddings,
        });
        if let Some(extra) = &extra {
            self.check_extra(names, extra, teacher.as_ref());
        }
        let hard = given.hard.filter(|hard| hard.dims()[1] > 0);
        if let Some(hard) = &hard {
            self.check_hard(anchors, (names.hard, hard));
        }

        let prepare = |x| self.similarity.prepare(x);
        let dtype = check::compute_dtype(given.anchors.dtype());
        let prepare_teacher = |x| self.similarity.prepare(x).values().cast(dtype);
        Side {
            momentum: momentum.map(prepare),
            teacher: teacher.map(prepare_teacher),
            extra: extra.map(|extra| Extra {
                embeddings: prepare(extra.embeddings),
                teacher: extra.teacher.map(prepare_teacher),
                ids: extra.ids,
            }),
            hard: hard.map(|hard| {
                let [n, m, d] = hard.dims();
                prepare(hard.reshape([n * m, d]))
                    .values()
                    .reshape([n, m, d])
            }),
            anchors: prepare(given.anchors),
        }
    }

    #[track_caller]
    fn check_extra(&self, names: &Names, extra: &Extra<Tensor<2>>, teacher: Option<&Tensor<2>>) {
        let caller = self.caller;
        let embeddings = (names.extra, &extra.embeddings);
        if let Some(ids) = &extra.ids {
            check::labelled(caller, (names.extra_ids, ids), embeddings);
        }
        let Some(teacher) = teacher else { return };
        let Some(theirs) = &extra.teacher else {
            panic!(
                "{caller}: `{}` is missing: the teacher's features of `{}` are needed beside \
                 those of the batch",
                names.extra_teacher, names.extra
            )
        };
        let theirs = (names.extra_teacher, theirs);
        check::comparable(caller, (names.teacher, teacher), theirs);
        check::same_rows(caller, theirs, embeddings);
    }

    /// Candidates that can be compared with the anchors; `None` for no rows. Candidates without
    /// autodiff are constants.
    #[track_caller]
    fn candidates(
        &self,
        anchors: check::Named,
        (name, candidates): (&'static str, Option<Tensor<2>>),
    ) -> Option<Tensor<2>> {
        let mut candidates = candidates.filter(|x| x.dims()[0] > 0)?;
        if anchors.1.device().is_autodiff() && !candidates.device().is_autodiff() {
            candidates = constant_like(candidates, anchors.1);
        }
        check::comparable(self.caller, anchors, (name, &candidates));
        Some(candidates)
    }

    #[track_caller]
    fn check_hard(&self, anchors: check::Named, (name, hard): (&'static str, &Tensor<3>)) {
        let ([n, d], [rows, m, width]) = (anchors.1.dims(), hard.dims());
        let caller = self.caller;
        assert!(
            [rows, width] == [n, d],
            "{caller}: `{name}` has shape [{rows}, {m}, {width}], it must be [{n}, m, {d}]: row i \
             belongs to anchor i"
        );
        let hard = hard.clone().reshape([n * m, d]);
        check::comparable(caller, anchors, (name, &hard));
    }
}
