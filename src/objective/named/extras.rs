//! What any softmax contrast by name may do beyond its definition.

use crate::objective::entry::{Input, Parameter};
use crate::objective::{Criterion, SameId};

/// What any softmax contrast by name may do beyond its definition: further parts of its
/// [`Criterion`], and further inputs to use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Extras {
    /// Whether image anchors also have their row of `hard_text` as candidates, and text anchors
    /// theirs of `hard_image`.
    pub hard_negatives: bool,
    /// Whether `queue_image` and `queue_text` are candidates too; with `queue_teacher_image` and
    /// `queue_teacher_text` where weights or soft targets read a teacher.
    pub queue: bool,
    /// Whether `noise` is a candidate of every anchor.
    pub noise: bool,
    /// Whether a momentum encoder's features are the candidates of the batch, and the source of
    /// soft targets.
    pub momentum: bool,
    /// What samples with the anchor's `label` are; as negatives like any other no label is needed.
    pub same_id: SameId,
    /// Share of the target that is spread evenly over all candidates:
    /// [`Criterion::label_smoothing`].
    pub label_smoothing: f64,
    /// Share of the target that is soft: [`Criterion::soft_targets`].
    pub soft_targets: f64,
    /// Leaves out negatives that the teacher finds more similar than the positive by more than
    /// this: [`Criterion::guided_margin`].
    pub guided_margin: Option<f64>,
}

impl Default for Extras {
    fn default() -> Self {
        Self {
            hard_negatives: false,
            queue: false,
            noise: false,
            momentum: false,
            same_id: SameId::Negative,
            label_smoothing: 0.0,
            soft_targets: 0.0,
            guided_margin: None,
        }
    }
}

/// The extras that an objective has by definition, if it needs these inputs.
pub(super) fn implied_by(needs: &[Input]) -> Vec<&'static str> {
    let mut implied = Vec::new();
    if needs.contains(&Input::Noise) {
        implied.push("noise");
    }
    if needs.contains(&Input::MomentumImage) {
        implied.extend(["momentum", "soft_targets"]);
    }
    implied
}

impl Extras {
    pub(super) fn parameters(&mut self) -> Vec<Parameter<'_>> {
        vec![
            Parameter::new("hard_negatives", &mut self.hard_negatives),
            Parameter::new("queue", &mut self.queue),
            Parameter::new("noise", &mut self.noise),
            Parameter::new("momentum", &mut self.momentum),
            Parameter::new("same_id", &mut self.same_id),
            Parameter::new("label_smoothing", &mut self.label_smoothing),
            Parameter::new("soft_targets", &mut self.soft_targets),
            Parameter::new("guided_margin", &mut self.guided_margin),
        ]
    }

    /// Changes the parts that are named here; others stay those of the objective.
    pub(super) fn apply(&self, criterion: &mut Criterion) {
        criterion.label_smoothing = self.label_smoothing;
        criterion.guided_margin = self.guided_margin;
        if self.soft_targets != 0.0 {
            criterion.soft_targets = self.soft_targets;
        }
        if self.same_id != SameId::Negative {
            criterion.same_id = self.same_id;
        }
    }

    /// The inputs that follow from the parts of a contrast and from what is to be used.
    pub(super) fn needs(&self, criterion: &Criterion) -> Vec<Input> {
        let mut reads_teacher =
            criterion.guided_margin.is_some() || criterion.weighting.needs_teacher();
        // The soft targets of an objective that reads a momentum encoder unasked are that
        // encoder's.
        reads_teacher |= self.soft_targets != 0.0 && !self.momentum;
        let inputs = [
            (reads_teacher, [Input::TeacherImage, Input::TeacherText]),
            (self.hard_negatives, [Input::HardImage, Input::HardText]),
            (self.queue, [Input::QueueImage, Input::QueueText]),
            (
                self.queue && reads_teacher,
                [Input::QueueTeacherImage, Input::QueueTeacherText],
            ),
            (self.noise, [Input::Noise; 2]),
            (self.momentum, [Input::MomentumImage, Input::MomentumText]),
            (self.same_id != SameId::Negative, [Input::Label; 2]),
        ];
        let needed = inputs.into_iter().filter(|(needed, _)| *needed);
        needed.flat_map(|(_, inputs)| inputs).collect()
    }
}
