//! A run's dual encoder as others read it: a folder that Hugging Face's `CLIPModel` loads.

use std::collections::HashMap;
use std::path::Path;

use ::safetensors::Dtype;
use ::safetensors::tensor::TensorView;
use anyhow::{Context, Result, bail, ensure};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData};
use serde_json::{Value, json};

use crate::console::say;
use crate::data::{CaptionTokenizer, TransformConfig};
use crate::models::{
    Activation, DualEncoder, DualEncoderConfig, ImageEncoderConfig, ImageLayout, ImageTowerConfig,
    Pooling,
};
use crate::published::Layout;
use crate::systems::clip::Clip;
use crate::training::folder::TOKENIZER_FILE;
use crate::training::system::{SystemConfig, TextLimits};
use crate::training::weights::trained;

/// The logit scale that CLIP starts with, as a logarithm.
const LOG_SCALE: f32 = 2.659_26;

/// Writes the model of a run of `clip` into a new folder, in the layout of Hugging Face, with its
/// tokenizer and how it reads images.
///
/// # Errors
///
/// If the model is none of CLIP's kind; on files that cannot be read or written.
pub fn export(run: &Path, folder: &Path, device: &Device) -> Result<()> {
    let (config, model) = trained::<Clip>(run, device)?;
    let TextLimits { context, style, .. } = config.system.text();
    let tokenizer = CaptionTokenizer::load(run.join(TOKENIZER_FILE), context)?;
    let tokenizer = tokenizer.with_style(style)?;
    let model_config = &config.system.model;
    write(
        &model,
        model_config,
        &tokenizer,
        &config.transform(),
        folder,
    )?;
    say(format_args!(
        "Hugging Face's CLIPModel loads {0}, and so do --init and --weights {0}/model.safetensors",
        folder.display()
    ));
    Ok(())
}

/// The image encoder, if it is a model of CLIP's kind.
fn check(config: &DualEncoderConfig) -> Result<&ImageEncoderConfig> {
    let text = config.text.pooling == Pooling::Last;
    let ImageTowerConfig::Vit(image) = &config.image else {
        bail!(
            "the image encoder is a residual network, and CLIPModel has only vision transformers: \
             this run cannot be written as one"
        );
    };
    let is_token = image.pooling == Pooling::Token;
    ensure!(
        text && is_token && image.layout == ImageLayout::Clip,
        "CLIPModel reads a caption from left to right up to its last token, and an image by its \
         class token: only runs trained with --set model.text.pooling=last --set \
         model.image.pooling=token --set model.image.layout=clip can be written as one"
    );
    Ok(image)
}

fn write(
    model: &DualEncoder,
    config: &DualEncoderConfig,
    tokenizer: &CaptionTokenizer,
    transform: &TransformConfig,
    folder: &Path,
) -> Result<()> {
    let image = check(config)?;
    let failed = || format!("{} cannot be written", folder.display());
    let absolute = std::path::absolute(folder)?;
    let parent = absolute.parent().with_context(failed)?;
    std::fs::create_dir_all(parent).with_context(failed)?;
    // It has its name once all is in it.
    let new = tempfile::Builder::new().prefix(".clip-").tempdir_in(parent);
    let new = new.with_context(failed)?;
    let ends = ends(tokenizer)?;
    let json = |name: &str, value: &Value| -> Result<()> {
        let text = serde_json::to_string_pretty(value)?;
        std::fs::write(new.path().join(name), text + "\n").with_context(failed)
    };
    json(
        "config.json",
        &model_settings(config, image, tokenizer, ends),
    )?;
    json(
        "tokenizer_config.json",
        &tokenizer_settings(tokenizer, ends)?,
    )?;
    json("preprocessor_config.json", &image_settings(transform))?;
    tokenizer.save(new.path().join(TOKENIZER_FILE))?;
    let file = new.path().join("model.safetensors");
    tensors(model, tokenizer.vocab_size(), &file).with_context(failed)?;
    std::fs::rename(new.keep(), &absolute).with_context(failed)
}

/// The ids of the first and the last token of every caption.
fn ends(tokenizer: &CaptionTokenizer) -> Result<[u32; 2]> {
    let [one, other] = [tokenizer.encode("a")?, tokenizer.encode("b")?];
    let ends = [one.first(), one.last()].map(|id| id.copied().unwrap_or_default());
    ensure!(
        [other.first().copied(), other.last().copied()] == ends.map(Some) && ends[0] != ends[1],
        "the tokenizer puts no tokens of its own around a caption"
    );
    Ok(ends)
}

fn act(activation: Activation) -> &'static str {
    match activation {
        Activation::Gelu => "gelu",
        Activation::QuickGelu => "quick_gelu",
    }
}

fn model_settings(
    config: &DualEncoderConfig,
    image: &ImageEncoderConfig,
    tokenizer: &CaptionTokenizer,
    [first, last]: [u32; 2],
) -> Value {
    let text = &config.text;
    json!({
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": config.embedding,
        "logit_scale_init_value": LOG_SCALE,
        "text_config": {
            "model_type": "clip_text_model",
            "vocab_size": tokenizer.vocab_size(),
            "hidden_size": text.width,
            "intermediate_size": 4 * text.width,
            "num_hidden_layers": text.layers,
            "num_attention_heads": text.heads,
            "max_position_embeddings": text.context,
            "hidden_act": act(text.activation),
            "layer_norm_eps": 1e-5,
            "projection_dim": config.embedding,
            "bos_token_id": first,
            "eos_token_id": last,
            "pad_token_id": tokenizer.pad_id()
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": image.width,
            "intermediate_size": 4 * image.width,
            "num_hidden_layers": image.layers,
            "num_attention_heads": image.heads,
            "num_channels": 3,
            "image_size": image.image_size,
            "patch_size": image.patch_size,
            "hidden_act": act(image.activation),
            "layer_norm_eps": 1e-5,
            "projection_dim": config.embedding
        }
    })
}

fn tokenizer_settings(tokenizer: &CaptionTokenizer, [first, last]: [u32; 2]) -> Result<Value> {
    let vocabulary = tokenizer.vocabulary();
    let names: HashMap<u32, String> = vocabulary
        .into_iter()
        .map(|(name, id)| (id, name))
        .collect();
    let name = |id: u32| names.get(&id).context("a token without a name");
    Ok(json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": tokenizer.context_length(),
        "bos_token": name(first)?,
        "eos_token": name(last)?,
        "pad_token": name(tokenizer.pad_id())?
    }))
}

fn image_settings(transform: &TransformConfig) -> Value {
    let size = transform.size;
    json!({
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": true,
        "do_resize": true,
        "size": {"shortest_edge": size},
        "resample": 3,
        "do_center_crop": true,
        "crop_size": {"height": size, "width": size},
        "do_rescale": true,
        "rescale_factor": 1.0 / 255.0,
        "do_normalize": true,
        "image_mean": transform.mean,
        "image_std": transform.std
    })
}

/// Writes the parameters under the names that Hugging Face has for them. Of the embeddings of
/// tokens, those of the tokenizer's `tokens` are written: a model may have room for more.
fn tensors(model: &DualEncoder, tokens: usize, file: &Path) -> Result<()> {
    let mut collect = Collect {
        tokens,
        ..Collect::default()
    };
    model.visit(&mut collect);
    if !collect.found.iter().any(|(name, ..)| name == "logit_scale") {
        let scale = LOG_SCALE.to_le_bytes().to_vec();
        collect.found.push(("logit_scale".into(), vec![], scale));
    }
    let views = collect.found.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes)?;
        Ok((name.as_str(), view))
    });
    let views = views.collect::<Result<Vec<_>>>()?;
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    ::safetensors::serialize_to_file(views, Some(metadata), file)?;
    Ok(())
}

/// The parameters of a dual encoder by Hugging Face's names, with their shapes and values there.
#[derive(Default)]
struct Collect {
    tokens: usize,
    path: Vec<String>,
    containers: Vec<String>,
    found: Vec<(String, Vec<usize>, Vec<u8>)>,
}

impl ModuleVisitor for Collect {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.push(name.to_string());
        self.containers.push(container.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
        self.containers.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join(".");
        let key = Layout::HuggingFaceClip.key(&path, 0);
        if path.starts_with("objective.") && key.name == path {
            // CLIP has no place for what other objectives have.
            return;
        }
        let of_linear = self
            .containers
            .last()
            .is_some_and(|kind| kind == "Struct:Linear");
        let mut value = param.val();
        if path == "text.tokens.weight" {
            value = value.narrow(0, 0, self.tokens);
        }
        if of_linear && D == 2 && key.is_transposed {
            value = value.transpose();
        }
        let data: TensorData = value.into_data();
        let shape = data.shape().to_vec();
        // A class token, positions and the logit scale have dimensions of 1 in front here alone.
        let is_bare = ["class_token", "positions", "log_scale"]
            .iter()
            .any(|name| path.ends_with(name));
        let shape = if is_bare {
            let ones = shape.iter().take_while(|&&size| size == 1).count();
            shape[ones..].to_vec()
        } else {
            shape
        };
        let bytes = data.iter::<f32>().flat_map(f32::to_le_bytes).collect();
        self.found.push((key.name, shape, bytes));
    }
}
