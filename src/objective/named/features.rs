//! What an objective by name may be given.

use std::fmt;

use burn::tensor::{Int, Tensor};

/// A tensor beside `image` and `text` that an objective may need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Input {
    /// [`Features::teacher_image`].
    TeacherImage,
    /// [`Features::teacher_text`].
    TeacherText,
    /// [`Features::queue_image`].
    QueueImage,
    /// [`Features::queue_text`].
    QueueText,
    /// [`Features::noise`].
    Noise,
    /// [`Features::hard_image`].
    HardImage,
    /// [`Features::hard_text`].
    HardText,
    /// [`Features::label`].
    Label,
}

impl Input {
    /// Every input there is.
    pub const ALL: [Self; 8] = [
        Self::TeacherImage,
        Self::TeacherText,
        Self::QueueImage,
        Self::QueueText,
        Self::Noise,
        Self::HardImage,
        Self::HardText,
        Self::Label,
    ];

    /// Its name: that of the field of [`Features`].
    pub fn name(self) -> &'static str {
        match self {
            Self::TeacherImage => "teacher_image",
            Self::TeacherText => "teacher_text",
            Self::QueueImage => "queue_image",
            Self::QueueText => "queue_text",
            Self::Noise => "noise",
            Self::HardImage => "hard_image",
            Self::HardText => "hard_text",
            Self::Label => "label",
        }
    }
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A batch of embeddings, with whatever an objective may need beside them.
///
/// Row `i` of every tensor with `N` rows belongs to pair `i`.
#[derive(Clone, Debug)]
pub struct Features {
    /// Images, `[N, D]`.
    pub image: Tensor<2>,
    /// Texts, `[N, D]`.
    pub text: Tensor<2>,
    /// The same images as a teacher embeds them, or a momentum encoder, `[N, E]`.
    pub teacher_image: Option<Tensor<2>>,
    /// The same texts as a teacher embeds them, or a momentum encoder, `[N, E]`.
    pub teacher_text: Option<Tensor<2>>,
    /// Images of earlier batches, `[K, D]`.
    pub queue_image: Option<Tensor<2>>,
    /// Texts of earlier batches, `[M, D]`.
    pub queue_text: Option<Tensor<2>>,
    /// Noise that every anchor meets, `[Z, D]`.
    pub noise: Option<Tensor<2>>,
    /// Hard negatives of each text, `[N, m, D]`.
    pub hard_image: Option<Tensor<3>>,
    /// Hard negatives of each image, `[N, m, D]`.
    pub hard_text: Option<Tensor<3>>,
    /// What each pair shows: a class, or the number of its image, `[N]`.
    pub label: Option<Tensor<1, Int>>,
}

impl Features {
    /// A batch without anything beside it.
    pub fn new(image: Tensor<2>, text: Tensor<2>) -> Self {
        Self {
            image,
            text,
            teacher_image: None,
            teacher_text: None,
            queue_image: None,
            queue_text: None,
            noise: None,
            hard_image: None,
            hard_text: None,
            label: None,
        }
    }

    /// Whether the input is there.
    pub fn has(&self, input: Input) -> bool {
        match input {
            Input::TeacherImage => self.teacher_image.is_some(),
            Input::TeacherText => self.teacher_text.is_some(),
            Input::QueueImage => self.queue_image.is_some(),
            Input::QueueText => self.queue_text.is_some(),
            Input::Noise => self.noise.is_some(),
            Input::HardImage => self.hard_image.is_some(),
            Input::HardText => self.hard_text.is_some(),
            Input::Label => self.label.is_some(),
        }
    }
}
