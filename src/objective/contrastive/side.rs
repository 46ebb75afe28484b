//! One direction of a contrast: the anchors and whom they meet, checked and ready to be compared.

use burn::tensor::{Int, Tensor};

use super::context::{Context, Ids, Teacher};
use super::criterion::Criterion;
use crate::check;
use crate::similarity::SimilarityConfig;

/// The anchors of one modality, and what they meet beside the batch.
pub(super) struct Side {
    pub anchors: Tensor<2>,
    pub teacher: Option<Tensor<2>>,
    pub extra: Option<Extra>,
    /// Of each anchor its own, `[N, m, D]`.
    pub hard: Option<Tensor<3>>,
}

/// Negatives of the other modality from outside the batch.
pub(super) struct Extra {
    pub embeddings: Tensor<2>,
    pub teacher: Option<Tensor<2>>,
    pub ids: Option<Tensor<1, Int>>,
}

/// What both directions share.
pub(super) struct Sides {
    /// Images and whom they meet, texts and whom they meet.
    pub sides: [Side; 2],
    pub noise: Option<Tensor<2>>,
    pub ids: Option<Tensor<1, Int>>,
}

/// What messages call the arguments of one direction.
struct Names {
    anchors: &'static str,
    teacher: &'static str,
    extra: &'static str,
    extra_teacher: &'static str,
    extra_ids: &'static str,
    hard: &'static str,
}

const IMAGE: Names = Names {
    anchors: "image",
    teacher: "teacher.image",
    extra: "negatives.text",
    extra_teacher: "teacher.negative_text",
    extra_ids: "ids.negative_text",
    hard: "negatives.hard_text",
};

const TEXT: Names = Names {
    anchors: "text",
    teacher: "teacher.text",
    extra: "negatives.image",
    extra_teacher: "teacher.negative_image",
    extra_ids: "ids.negative_image",
    hard: "negatives.hard_image",
};

impl Sides {
    /// Checks everything, and prepares what the criterion asks for.
    #[track_caller]
    pub fn new(
        caller: &str,
        criterion: &Criterion,
        asks_teacher: bool,
        image: Tensor<2>,
        text: Tensor<2>,
        context: Context,
    ) -> Self {
        check::paired(caller, (IMAGE.anchors, &image), (TEXT.anchors, &text));
        let Context {
            negatives,
            teacher,
            ids,
        } = context;
        let ids = ids.filter(|_| criterion.asks_ids());
        if let Some(ids) = &ids {
            check::labelled(caller, ("ids.batch", &ids.batch), (IMAGE.anchors, &image));
        }
        let (ids, ids_of_text, ids_of_image) = match ids {
            Some(Ids {
                batch,
                negative_image,
                negative_text,
            }) => (Some(batch), negative_text, negative_image),
            None => (None, None, None),
        };
        let teacher = teacher.filter(|_| asks_teacher);
        assert!(
            teacher.is_some() == asks_teacher,
            "{caller}: `teacher` is missing: its weights or its filter compare by a teacher's features"
        );
        let (of_image, of_text) = match teacher {
            Some(Teacher {
                image,
                text,
                negative_image,
                negative_text,
            }) => {
                check::paired(caller, (IMAGE.teacher, &image), (TEXT.teacher, &text));
                (Some((image, negative_text)), Some((text, negative_image)))
            }
            None => (None, None),
        };
        let noise = check::met(
            caller,
            ("image", &image),
            ("negatives.noise", negatives.noise),
        );

        let ready = Ready {
            caller,
            similarity: criterion.similarity,
        };
        let noise = noise.map(|noise| criterion.similarity.prepare(noise));
        Self {
            sides: [
                ready.side(
                    &IMAGE,
                    image,
                    of_image,
                    (negatives.text, ids_of_text),
                    negatives.hard_text,
                ),
                ready.side(
                    &TEXT,
                    text,
                    of_text,
                    (negatives.image, ids_of_image),
                    negatives.hard_image,
                ),
            ],
            noise,
            ids,
        }
    }
}

struct Ready<'a> {
    caller: &'a str,
    similarity: SimilarityConfig,
}

impl Ready<'_> {
    #[track_caller]
    fn side(
        &self,
        names: &Names,
        anchors: Tensor<2>,
        teacher: Option<(Tensor<2>, Option<Tensor<2>>)>,
        (extra, extra_ids): (Option<Tensor<2>>, Option<Tensor<1, Int>>),
        hard: Option<Tensor<3>>,
    ) -> Side {
        let caller = self.caller;
        let named = (names.anchors, &anchors);
        let extra = check::met(caller, named, (names.extra, extra));
        if let (Some(extra), Some(ids)) = (&extra, &extra_ids) {
            check::labelled(caller, (names.extra_ids, ids), (names.extra, extra));
        }
        let (teacher, extra_teacher) = teacher.unzip();
        if let Some(teacher) = &teacher {
            same_rows(caller, (names.teacher, teacher), named);
            check::together(caller, named, (names.teacher, teacher));
        }
        let extra_teacher = match (&teacher, extra_teacher.flatten(), &extra) {
            (Some(teacher), theirs, Some(extra)) => {
                let named = (names.teacher, teacher);
                let Some(theirs) = check::met(caller, named, (names.extra_teacher, theirs)) else {
                    panic!(
                        "{caller}: `{}` is missing: `{}` are compared by a teacher's features",
                        names.extra_teacher, names.extra
                    )
                };
                same_rows(caller, (names.extra_teacher, &theirs), (names.extra, extra));
                Some(theirs)
            }
            _ => None,
        };
        let hard = hard.filter(|hard| hard.dims()[1] > 0);
        if let Some(hard) = &hard {
            let ([n, d], [rows, m, width]) = (anchors.dims(), hard.dims());
            assert!(
                [rows, width] == [n, d],
                "{caller}: `{}` has shape [{rows}, {m}, {width}], it must be [{n}, m, {d}]: row i belongs to anchor i",
                names.hard
            );
            check::comparable(
                caller,
                named,
                (names.hard, &hard.clone().reshape([n * m, d])),
            );
        }

        let dtype = check::compute_dtype(anchors.dtype());
        let prepare = |x: Tensor<2>| self.similarity.prepare(x);
        // A constant; the teacher's similarities are those of its own features, normalised likewise.
        let constant = |x: Tensor<2>| prepare(x.detach()).cast(dtype);
        Side {
            extra: extra.map(|extra| Extra {
                embeddings: prepare(extra),
                teacher: extra_teacher.map(constant),
                ids: extra_ids,
            }),
            hard: hard.map(|hard| {
                let [n, m, d] = hard.dims();
                prepare(hard.reshape([n * m, d])).reshape([n, m, d])
            }),
            anchors: prepare(anchors),
            teacher: teacher.map(constant),
        }
    }
}

#[track_caller]
fn same_rows(caller: &str, (a, x): check::Named, (b, y): check::Named) {
    let (rows, others) = (x.dims()[0], y.dims()[0]);
    assert!(
        rows == others,
        "{caller}: `{a}` has {rows} rows, `{b}` has {others}: both need the same number"
    );
}
