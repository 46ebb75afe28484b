//! Which tensor of a published file is which parameter of our modules.

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
    fn straight(name: &str) -> Self {
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
    pub(super) const MARKS: [(Self, &str, &str); 7] = [
        (Self::OpenClip, "visual.class_embedding", ""),
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
            Self::OpenClip => "CLIP (open_clip)",
            Self::HuggingFaceClip => "CLIP (Hugging Face)",
            Self::Timm => "ViT (timm)",
            Self::Bert => "BERT (Hugging Face)",
            Self::Torchvision => "ResNet (torchvision)",
            Self::Albef => "ALBEF",
        }
    }

    /// Whether it has an encoder of that kind, `image` or `text`.
    pub fn has_encoder(self, kind: &str) -> bool {
        match self {
            Self::OpenClip | Self::HuggingFaceClip | Self::Albef => true,
            Self::Timm | Self::Torchvision => kind == "image",
            Self::Bert => kind == "text",
        }
    }

    /// Where such a file has the parameter `path`: of a [`DualEncoder`](crate::models::DualEncoder)
    /// in the layouts of CLIP, of an [`ImageEncoder`](crate::models::ImageEncoder) in timm's, a
    /// [`Bert`](crate::models::Bert), its language head `head` or its decoder in BERT's, a
    /// [`ResNet`](crate::models::ResNet) in torchvision's, an
    /// [`Albef`](crate::systems::albef::Albef) in ALBEF's. The text half of a BERT has `text_layers`
    /// layers, which come before those of its fusion half.
    pub fn key(self, path: &str, text_layers: usize) -> Key {
        match self {
            Self::OpenClip => open_clip(path),
            Self::HuggingFaceClip => hugging_face_clip(path),
            Self::Timm => timm(path),
            Self::Bert => bert(path, text_layers),
            Self::Torchvision => torchvision(path),
            Self::Albef => albef(path, text_layers),
        }
    }

    /// Whether a tensor is of one of these parts of a model, as [`key`](Self::key) calls them, each
    /// of which may be empty, for the whole. Of a tower alone, a file of CLIP or ALBEF has more than it.
    pub fn is_of(self, name: &str, parts: &[&str]) -> bool {
        let part = match self {
            Self::OpenClip if name == "visual.proj" => "",
            Self::OpenClip if name.starts_with("visual.") => "image",
            Self::OpenClip if name != "text_projection" => "text",
            Self::HuggingFaceClip if name.starts_with("vision_model.") => "image",
            Self::HuggingFaceClip if name.starts_with("text_model.") => "text",
            Self::Albef if name.starts_with("visual_encoder.") => "model.image",
            Self::Albef if name.starts_with("text_encoder.bert.") => "model.bert",
            Self::Albef if name.starts_with("text_encoder.cls.") => "model.language_head",
            _ => "",
        };
        let mut parts = parts.iter();
        match self {
            Self::OpenClip | Self::HuggingFaceClip | Self::Albef => {
                parts.any(|other| other.is_empty() || *other == part)
            }
            _ => true,
        }
    }

    /// Whether a model may do without a tensor: a buffer that can be computed, the classifier that
    /// a tower was trained with, or the logit scale, which not every objective has.
    pub fn is_beside(self, name: &str) -> bool {
        let names: &[&str] = match self {
            Self::OpenClip => &[
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

/// `path` with one text after the other in place of another.
fn replaced(path: &str, pairs: &[(&str, &str)]) -> String {
    let start = path.to_owned();
    pairs
        .iter()
        .fold(start, |path, (ours, theirs)| path.replace(ours, theirs))
}

/// Names of norms.
const NORM: [(&str, &str); 2] = [("gamma", "weight"), ("beta", "bias")];

/// The key of a parameter of an attention whose queries, keys and values are one tensor.
fn fused(path: &str, theirs: &str) -> Key {
    for (index, ours) in ["mha.query", "mha.key", "mha.value"].iter().enumerate() {
        let ours = format!("{ours}.");
        if path.contains(&ours) {
            return Key {
                part: [index, 3],
                ..Key::whole(path.replace(&ours, theirs))
            };
        }
    }
    Key::whole(path)
}

fn open_clip(path: &str) -> Key {
    // Burn's pre-norm layers use their second norm before the attention.
    const LAYERS: [(&str, &str); 6] = [
        ("transformer.layers", "transformer.resblocks"),
        ("norm_2", "ln_1"),
        ("norm_1", "ln_2"),
        ("mha.output", "attn.out_proj"),
        ("pwff.linear_inner", "mlp.c_fc"),
        ("pwff.linear_outer", "mlp.c_proj"),
    ];
    let name = match path {
        "image_projection.weight" => return Key::straight("visual.proj"),
        "text_projection.weight" => return Key::straight("text_projection"),
        _ => match path.split_once('.') {
            Some(("image", rest)) => {
                let pairs = [
                    ("patches", "conv1"),
                    ("class_token", "class_embedding"),
                    ("positions", "positional_embedding"),
                    ("pre_norm", "ln_pre"),
                    ("post_norm", "ln_post"),
                ];
                format!("visual.{}", replaced(rest, &pairs))
            }
            Some(("text", rest)) => {
                let pairs = [
                    ("tokens", "token_embedding"),
                    ("positions", "positional_embedding"),
                    ("post_norm", "ln_final"),
                ];
                replaced(rest, &pairs)
            }
            _ => return scale(path),
        },
    };
    fused(&replaced(&replaced(&name, &LAYERS), &NORM), "attn.in_proj_")
}

fn hugging_face_clip(path: &str) -> Key {
    const LAYERS: [(&str, &str); 9] = [
        ("transformer.layers", "encoder.layers"),
        ("norm_2", "layer_norm1"),
        ("norm_1", "layer_norm2"),
        ("mha.query", "self_attn.q_proj"),
        ("mha.key", "self_attn.k_proj"),
        ("mha.value", "self_attn.v_proj"),
        ("mha.output", "self_attn.out_proj"),
        ("pwff.linear_inner", "mlp.fc1"),
        ("pwff.linear_outer", "mlp.fc2"),
    ];
    let name = match path.split_once('.') {
        Some(("image", rest)) => {
            let pairs = [
                ("patches", "embeddings.patch_embedding"),
                ("class_token", "embeddings.class_embedding"),
                ("positions", "embeddings.position_embedding.weight"),
                ("pre_norm", "pre_layrnorm"),
                ("post_norm", "post_layernorm"),
            ];
            format!("vision_model.{}", replaced(rest, &pairs))
        }
        Some(("text", rest)) => {
            let pairs = [
                ("tokens", "embeddings.token_embedding"),
                ("positions", "embeddings.position_embedding.weight"),
                ("post_norm", "final_layer_norm"),
            ];
            format!("text_model.{}", replaced(rest, &pairs))
        }
        Some(("image_projection", _)) => return Key::whole("visual_projection.weight"),
        Some(("text_projection", _)) => return Key::whole("text_projection.weight"),
        _ => return scale(path),
    };
    Key::whole(replaced(&replaced(&name, &LAYERS), &NORM))
}

/// The logit scale, whichever objective has it.
fn scale(path: &str) -> Key {
    if path.ends_with("logit_scale.log_scale") {
        Key::whole("logit_scale")
    } else {
        Key::whole(path)
    }
}

fn timm(path: &str) -> Key {
    let pairs = [
        ("patches", "patch_embed.proj"),
        ("class_token", "cls_token"),
        ("positions", "pos_embed"),
        ("transformer.layers", "blocks"),
        ("post_norm", "norm"),
        // Burn's pre-norm layers use their second norm before the attention.
        ("norm_2", "norm1"),
        ("norm_1", "norm2"),
        ("mha.output", "attn.proj"),
        ("pwff.linear_inner", "mlp.fc1"),
        ("pwff.linear_outer", "mlp.fc2"),
    ];
    fused(&replaced(&replaced(path, &pairs), &NORM), "attn.qkv.")
}

fn torchvision(path: &str) -> Key {
    let pairs = [
        ("stages.0.", "layer1."),
        ("stages.1.", "layer2."),
        ("stages.2.", "layer3."),
        ("stages.3.", "layer4."),
        ("downsample.conv", "downsample.0"),
        ("downsample.bn", "downsample.1"),
    ];
    Key::whole(replaced(&replaced(path, &pairs), &NORM))
}

fn bert(path: &str, text_layers: usize) -> Key {
    let (part, rest) = path.split_once('.').unwrap_or((path, ""));
    let name = match part {
        "embeddings" => format!("bert.embeddings.{}", embeddings(rest)),
        "text" | "encoder" => layer(rest, 0),
        "fusion" => layer(rest, text_layers),
        "head" => format!("cls.predictions.{}", head(rest)),
        _ => path.to_owned(),
    };
    Key::whole(replaced(&name, &NORM))
}

fn albef(path: &str, text_layers: usize) -> Key {
    let within = |module: &str| path.strip_prefix(module);
    let text = |path: &str| {
        let key = bert(path, text_layers);
        Key::whole(format!("text_encoder.{}", key.name))
    };
    if let Some(rest) = within("model.image.") {
        let key = timm(rest);
        return Key {
            name: format!("visual_encoder.{}", key.name),
            ..key
        };
    }
    if let Some(rest) = within("model.bert.") {
        return text(rest);
    }
    if let Some(rest) = within("model.language_") {
        return text(rest);
    }
    if path.ends_with("logit_scale.log_scale") {
        return Key {
            is_temperature: true,
            ..Key::whole("temp")
        };
    }
    let pairs = [
        ("model.image_projection.output", "vision_proj"),
        ("model.text_projection.output", "text_proj"),
        ("matching_head.linear", "itm_head"),
    ];
    Key::whole(replaced(path, &pairs))
}

fn embeddings(path: &str) -> String {
    match path {
        "words.weight" => "word_embeddings.weight".into(),
        "positions" => "position_embeddings.weight".into(),
        "token_types" => "token_type_embeddings.weight".into(),
        _ => path.replace("norm", "LayerNorm"),
    }
}

fn head(path: &str) -> String {
    replaced(
        path,
        &[
            ("dense", "transform.dense"),
            ("norm", "transform.LayerNorm"),
        ],
    )
}

/// `layers.{i}.…`, the layers numbered from `first`.
fn layer(path: &str, first: usize) -> String {
    let index_and_rest = path
        .strip_prefix("layers.")
        .and_then(|path| path.split_once('.'));
    let Some((index, rest)) = index_and_rest else {
        return path.to_owned();
    };
    let index = index.parse::<usize>().map_or(0, |index| index + first);
    let pairs = [
        ("cross_attention.", "crossattention."),
        ("attention.attention.output", "attention.output.dense"),
        ("attention.attention", "attention.self"),
        ("attention.norm", "attention.output.LayerNorm"),
        ("feed_forward.inner", "intermediate.dense"),
        ("feed_forward.outer", "output.dense"),
        ("feed_forward.norm", "output.LayerNorm"),
    ];
    format!("bert.encoder.layer.{index}.{}", replaced(rest, &pairs))
}
