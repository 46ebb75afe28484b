//! Which tensor of a published file is which parameter of our modules.

use super::names::{
    albef, bert, hugging_face_clip, open_clip, open_clip_resnet, timm, torchvision,
};

/// Where a file has a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The name of the tensor.
    pub name: String,
    /// Which part of how many, one after the other along the first dimension: queries, keys and
    /// values are often one tensor.
    pub part: [usize; 2],
    /// Whether the weight of a linear layer is `[outputs, inputs]`, as PyTorch's `Linear` has it.
    pub is_transposed: bool,
    /// Whether it is a temperature, where the parameter is the logarithm of its inverse.
    pub is_temperature: bool,
}

impl Key {
    /// All of a tensor.
    pub fn whole(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            part: [0, 1],
            is_transposed: true,
            is_temperature: false,
        }
    }

    /// All of a matrix that is `[inputs, outputs]`.
    pub(super) fn straight(name: &str) -> Self {
        Self {
            is_transposed: false,
            ..Self::whole(name)
        }
    }
}

/// The layout of a published file of weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// CLIP with a vision transformer, as OpenAI and open_clip keep it.
    OpenClip,
    /// CLIP with a residual network, as OpenAI and open_clip keep it.
    OpenClipResNet,
    /// CLIP with a vision transformer, as Hugging Face's `CLIPModel` keeps it.
    HuggingFaceClip,
    /// A vision transformer of timm, and of DeiT.
    Timm,
    /// BERT, as Hugging Face's classes keep it.
    Bert,
    /// A ResNet of torchvision.
    Torchvision,
    /// ALBEF, as its authors' code keeps it.
    Albef,
}

impl Layout {
    /// The layouts, each with a tensor that only its files have, and with what a file that has that
    /// tensor leaves out before all names.
    pub(super) const MARKS: [(Self, &str, &str); 8] = [
        (Self::OpenClip, "visual.class_embedding", ""),
        (
            Self::OpenClipResNet,
            "visual.attnpool.positional_embedding",
            "",
        ),
        (
            Self::HuggingFaceClip,
            "vision_model.embeddings.class_embedding",
            "",
        ),
        // Before those of its towers.
        (
            Self::Albef,
            "text_encoder.bert.embeddings.word_embeddings.weight",
            "",
        ),
        (Self::Timm, "blocks.0.attn.qkv.weight", ""),
        (Self::Bert, "bert.embeddings.word_embeddings.weight", ""),
        // As the class for BERT without a head has it.
        (Self::Bert, "embeddings.word_embeddings.weight", "bert."),
        (Self::Torchvision, "layer1.0.conv1.weight", ""),
    ];

    /// What messages call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenClip | Self::OpenClipResNet => "CLIP (open_clip)",
            Self::HuggingFaceClip => "CLIP (Hugging Face)",
            Self::Timm => "ViT (timm)",
            Self::Bert => "BERT (Hugging Face)",
            Self::Torchvision => "ResNet (torchvision)",
            Self::Albef => "ALBEF",
        }
    }

    /// Whether it is one of CLIP's.
    pub fn is_clip(self) -> bool {
        matches!(
            self,
            Self::OpenClip | Self::OpenClipResNet | Self::HuggingFaceClip
        )
    }

    /// Whether it has an encoder of that kind, `image` or `text`.
    pub fn has_encoder(self, kind: &str) -> bool {
        match self {
            Self::OpenClip | Self::OpenClipResNet | Self::HuggingFaceClip | Self::Albef => true,
            Self::Timm | Self::Torchvision => kind == "image",
            Self::Bert => kind == "text",
        }
    }

    /// Where such a file has the parameter `path`: of a [`DualEncoder`](crate::models::DualEncoder)
    /// in the layouts of CLIP, of an [`ImageEncoder`](crate::models::ImageEncoder) in timm's, a
    /// [`Bert`](crate::models::Bert), its language head `head` or its decoder in BERT's, a
    /// [`ResNet`](crate::models::ResNet) in torchvision's, of
    /// [`Albef`](crate::systems::albef::Albef) in its own. The text half of a BERT has
    /// `text_layers` layers, which come before those of its fusion half.
    pub fn key(self, path: &str, text_layers: usize) -> Key {
        match self {
            Self::OpenClip => open_clip(path),
            Self::OpenClipResNet => open_clip_resnet(path),
            Self::HuggingFaceClip => hugging_face_clip(path),
            Self::Timm => timm(path),
            Self::Bert => bert(path, text_layers),
            Self::Torchvision => torchvision(path),
            Self::Albef => albef(path, text_layers),
        }
    }

    /// Whether a tensor is of one of these parts of a model, as [`key`](Self::key) calls them, each
    /// of which may be empty, for the whole. Of a tower alone, a file of CLIP or ALBEF has more.
    pub fn is_of(self, name: &str, parts: &[&str]) -> bool {
        let part = match self {
            Self::OpenClip if name == "visual.proj" => "",
            Self::OpenClipResNet if name.starts_with("visual.attnpool.c_proj.") => "",
            Self::OpenClip | Self::OpenClipResNet if name.starts_with("visual.") => "image",
            Self::OpenClip | Self::OpenClipResNet if name != "text_projection" => "text",
            Self::HuggingFaceClip if name.starts_with("vision_model.") => "image",
            Self::HuggingFaceClip if name.starts_with("text_model.") => "text",
            Self::Albef if name.starts_with("visual_encoder.") => "model.image",
            Self::Albef if name.starts_with("text_encoder.bert.") => "model.bert",
            Self::Albef if name.starts_with("text_encoder.cls.") => "model.language_head",
            _ => "",
        };
        let mut parts = parts.iter();
        let is_one = parts.any(|other| other.is_empty() || *other == part);
        is_one || !(self.is_clip() || self == Self::Albef)
    }

    /// Whether a model may do without a tensor: a buffer that can be computed, the classifier that
    /// a tower was trained with, or the logit scale, which not every objective has.
    pub fn is_beside(self, name: &str) -> bool {
        let names: &[&str] = match self {
            Self::OpenClip | Self::OpenClipResNet => &[
                "attn_mask",
                "input_resolution",
                "context_length",
                "vocab_size",
                "logit_scale",
            ],
            Self::HuggingFaceClip => &[
                "text_model.embeddings.position_ids",
                "vision_model.embeddings.position_ids",
                "logit_scale",
            ],
            Self::Timm => &["head.weight", "head.bias"],
            Self::Torchvision => &["fc.weight", "fc.bias"],
            Self::Bert => &["bert.embeddings.position_ids"],
            Self::Albef => &[
                "temp",
                "queue_ptr",
                "image_queue",
                "text_queue",
                "idx_queue",
                "text_encoder.bert.embeddings.position_ids",
            ],
        };
        let starts: &[&str] = match self {
            // The language head's matrix is that of the embeddings.
            Self::Bert => &[
                "bert.pooler.",
                "cls.seq_relationship.",
                "cls.predictions.decoder.",
            ],
            // Momentum copies are made anew.
            Self::Albef => &[
                "visual_encoder_m.",
                "text_encoder_m.",
                "vision_proj_m.",
                "text_proj_m.",
                "text_encoder.cls.predictions.decoder.",
            ],
            _ => &[],
        };
        names.contains(&name)
            || starts.iter().any(|start| name.starts_with(start))
            || name.ends_with(".num_batches_tracked")
    }
}
