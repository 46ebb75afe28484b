//! What an objective by name may be given.

use std::fmt;

use burn::tensor::{Int, Tensor};

/// The list of inputs: a new one is one entry here, and whatever reads it.
macro_rules! inputs {
    ($($(#[$documentation:meta])+ $input:ident = $field:ident: $tensor:ty;)+) => {
        /// A tensor beside `image` and `text` that an objective may need.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Input {
            $(#[doc = concat!("[`Features::", stringify!($field), "`].")] $input,)+
        }

        impl Input {
            /// Every input there is.
            pub const ALL: &[Self] = &[$(Self::$input,)+];

            /// Its name: that of the field of [`Features`].
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$input => stringify!($field),)+
                }
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
            $($(#[$documentation])+ pub $field: Option<$tensor>,)+
        }

        impl Features {
            /// A batch without anything beside it.
            pub fn new(image: Tensor<2>, text: Tensor<2>) -> Self {
                Self { image, text, $($field: None,)+ }
            }

            /// Whether the input is there.
            pub fn has(&self, input: Input) -> bool {
                match input {
                    $(Input::$input => self.$field.is_some(),)+
                }
            }

            /// The same features, which are on a plain device, on its autodiff device, as
            /// constants.
            pub fn autodiff(self) -> Self {
                Self {
                    image: self.image.autodiff(),
                    text: self.text.autodiff(),
                    $($field: self.$field.map(|x| x.autodiff()),)+
                }
            }

            /// The width of the input, `None` where it is not there or has one dimension.
            pub(in crate::objective) fn width(&self, input: Input) -> Option<usize> {
                let dims = match input {
                    $(Input::$input => self.$field.as_ref().map(|x| x.dims().to_vec()),)+
                };
                dims.filter(|dims| dims.len() > 1)?.last().copied()
            }

            /// The batch with only these inputs beside it; where one is missing, with its
            /// substitute in its place.
            pub(in crate::objective) fn only(&self, inputs: &[Input]) -> Self {
                let mut features = Self::new(self.image.clone(), self.text.clone());
                $(if inputs.contains(&Input::$input) {
                    features.$field = self.$field.clone();
                })+
                features.substitute(self, inputs)
            }
        }
    };
}

inputs! {
    /// The same images as a teacher embeds them, `[N, E]`.
    TeacherImage = teacher_image: Tensor<2>;
    /// The same texts as a teacher embeds them, `[N, E]`.
    TeacherText = teacher_text: Tensor<2>;
    /// The same images as a momentum encoder embeds them, `[N, D]`.
    MomentumImage = momentum_image: Tensor<2>;
    /// The same texts as a momentum encoder embeds them, `[N, D]`.
    MomentumText = momentum_text: Tensor<2>;
    /// Images of earlier batches, `[K, D]`.
    QueueImage = queue_image: Tensor<2>;
    /// Texts of earlier batches, `[M, D]`.
    QueueText = queue_text: Tensor<2>;
    /// The images of the queue as the teacher embeds them, `[K, E]`.
    QueueTeacherImage = queue_teacher_image: Tensor<2>;
    /// The texts of the queue as the teacher embeds them, `[M, E]`.
    QueueTeacherText = queue_teacher_text: Tensor<2>;
    /// The labels of the queue's images, `[K]`.
    QueueImageLabel = queue_image_label: Tensor<1, Int>;
    /// The labels of the queue's texts, `[M]`.
    QueueTextLabel = queue_text_label: Tensor<1, Int>;
    /// Noise that is a negative of every anchor, `[Z, D]`.
    Noise = noise: Tensor<2>;
    /// Hard negatives of each text, `[N, m, D]`.
    HardImage = hard_image: Tensor<3>;
    /// Hard negatives of each image, `[N, m, D]`.
    HardText = hard_text: Tensor<3>;
    /// What each pair shows: a class, or the index of its image, `[N]`.
    Label = label: Tensor<1, Int>;
}

impl Input {
    /// The input that is read where this one is missing.
    pub(in crate::objective) fn substitute(self) -> Option<Self> {
        match self {
            Self::MomentumImage => Some(Self::TeacherImage),
            Self::MomentumText => Some(Self::TeacherText),
            _ => None,
        }
    }

    /// Whether it is compared with the embeddings of the batch, and so needs their width.
    pub(in crate::objective) fn is_candidate(self) -> bool {
        use Input::*;
        let candidates = [
            MomentumImage,
            MomentumText,
            QueueImage,
            QueueText,
            Noise,
            HardImage,
            HardText,
        ];
        candidates.contains(&self)
    }
}

impl Features {
    /// The input that is there: itself, or its substitute.
    pub(in crate::objective) fn find(&self, input: Input) -> Option<Input> {
        let mut found = Some(input).into_iter().chain(input.substitute());
        found.find(|&input| self.has(input))
    }

    fn substitute(mut self, all: &Self, inputs: &[Input]) -> Self {
        let missing = |input| inputs.contains(&input) && !all.has(input);
        if missing(Input::MomentumImage) {
            self.momentum_image = all.teacher_image.clone();
        }
        if missing(Input::MomentumText) {
            self.momentum_text = all.teacher_text.clone();
        }
        self
    }
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
