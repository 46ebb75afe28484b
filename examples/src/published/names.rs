//! The names of tensors that the layouts have for the paths of our parameters.

use super::Key;

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

pub(super) fn open_clip(path: &str) -> Key {
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

/// CLIP with a residual network, whose projection of images is that of its attention.
pub(super) fn open_clip_resnet(path: &str) -> Key {
    if let Some(rest) = path.strip_prefix("image_projection.") {
        return Key::whole(format!("visual.attnpool.c_proj.{rest}"));
    }
    let Some(rest) = path.strip_prefix("image.") else {
        return open_clip(path);
    };
    let pairs = [
        ("attention.positions", "attnpool.positional_embedding"),
        ("attention.query", "attnpool.q_proj"),
        ("attention.key", "attnpool.k_proj"),
        ("attention.value", "attnpool.v_proj"),
    ];
    let key = torchvision(&replaced(rest, &pairs));
    Key {
        name: format!("visual.{}", key.name),
        ..key
    }
}

pub(super) fn hugging_face_clip(path: &str) -> Key {
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

pub(super) fn timm(path: &str) -> Key {
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

pub(super) fn torchvision(path: &str) -> Key {
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

pub(super) fn bert(path: &str, text_layers: usize) -> Key {
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

pub(super) fn albef(path: &str, text_layers: usize) -> Key {
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
