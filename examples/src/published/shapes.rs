//! Settings of models that follow from the shapes of published weights.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{Layout, Published};
use crate::models::{
    Activation, DualEncoderConfig, ImageEncoderConfig, ImageLayout, Pooling, TextEncoderConfig,
};

/// The width of an attention head in all that has been published; the shapes do not tell it.
const HEAD: usize = 64;

impl Published {
    /// The dual encoder that weights of CLIP are of. What their shapes do not tell comes from a
    /// `config.json` of Hugging Face or an `open_clip_config.json` beside them, if there is one:
    /// numbers of heads and the activation. Otherwise a head is 64 wide, and the activation is
    /// QuickGELU in Hugging Face's layout and in OpenAI's own files, GELU in open_clip's.
    ///
    /// # Errors
    ///
    /// If they are not CLIP's, or a tensor is missing or of the wrong rank.
    pub fn clip(&self) -> Result<DualEncoderConfig> {
        ensure!(
            matches!(self.layout, Layout::OpenClip | Layout::HuggingFaceClip),
            "{} has the layout of {}, which is no dual encoder of images and texts",
            self.path.display(),
            self.layout.name()
        );
        let [width, _, patch_size, _] = self.dims("image.patches.weight")?;
        let [positions, _] = self.dims("image.positions")?;
        let side = positions.saturating_sub(1).isqrt();
        let [vocabulary, text_width] = self.dims("text.tokens.weight")?;
        let [context, _] = self.dims("text.positions")?;
        let projection: [usize; 2] = self.dims("image_projection.weight")?;
        let key = self.layout.key("image_projection.weight", 0);
        let embedding = projection[usize::from(!key.is_transposed)];
        let beside = Beside::read(self)?;
        Ok(DualEncoderConfig {
            image: ImageEncoderConfig {
                image_size: side * patch_size,
                patch_size,
                width,
                layers: self.layers("image"),
                heads: beside.image_heads.unwrap_or(width / HEAD).max(1),
                pooling: Pooling::Token,
                dropout: 0.0,
                layout: ImageLayout::Clip,
                activation: beside.activation,
            },
            text: TextEncoderConfig {
                vocabulary,
                context,
                width: text_width,
                layers: self.layers("text"),
                heads: beside.text_heads.unwrap_or(text_width / HEAD).max(1),
                pooling: Pooling::Last,
                dropout: 0.0,
                activation: beside.activation,
            },
            embedding,
        })
    }

    fn dims<const D: usize>(&self, path: &str) -> Result<[usize; D]> {
        let shape = self.shape(path)?;
        let rank = shape.len();
        shape.try_into().ok().with_context(|| {
            let name = self.layout.key(path, 0).name;
            format!(
                "{}: {name} has {rank} dimensions in place of {D}",
                self.path.display()
            )
        })
    }

    /// How many layers the encoder at `path` has.
    fn layers(&self, path: &str) -> usize {
        let norm = |layer| format!("{path}.transformer.layers.{layer}.norm_1.gamma");
        (0..).take_while(|&layer| self.has(&norm(layer))).count()
    }
}

/// What stands in a file of settings beside the weights.
struct Beside {
    activation: Activation,
    image_heads: Option<usize>,
    text_heads: Option<usize>,
}

impl Beside {
    fn read(published: &Published) -> Result<Self> {
        let folder = published.path.parent().unwrap_or(Path::new("."));
        if published.layout == Layout::HuggingFaceClip {
            let settings = json(&folder.join("config.json"))?;
            let of = |tower: &str, key: &str| settings[tower][key].clone();
            let heads = |tower| Some(of(tower, "num_attention_heads").as_u64()? as usize);
            let name = of("vision_config", "hidden_act");
            return Ok(Self {
                activation: match name.as_str() {
                    None | Some("quick_gelu") => Activation::QuickGelu,
                    Some("gelu") => Activation::Gelu,
                    Some(other) => bail!(
                        "{}: an activation `{other}` is not known here, only gelu and quick_gelu",
                        folder.join("config.json").display()
                    ),
                },
                image_heads: heads("vision_config"),
                text_heads: heads("text_config"),
            });
        }
        let settings = json(&folder.join("open_clip_config.json"))?;
        let settings = &settings["model_cfg"];
        let is_openai = published.tensors.contains_key("input_resolution");
        let is_quick = settings["quick_gelu"].as_bool().unwrap_or(is_openai);
        let number = |tower: &str, key: &str| Some(settings[tower][key].as_u64()? as usize);
        let image_heads = || {
            let width = number("vision_cfg", "width")?;
            Some(width / number("vision_cfg", "head_width").unwrap_or(HEAD))
        };
        Ok(Self {
            activation: if is_quick {
                Activation::QuickGelu
            } else {
                Activation::Gelu
            },
            image_heads: image_heads(),
            text_heads: number("text_cfg", "heads"),
        })
    }
}

/// The JSON in a file; null if there is no such file.
fn json(path: &Path) -> Result<Value> {
    if !path.is_file() {
        return Ok(Value::Null);
    }
    let read = || -> Result<Value> { Ok(serde_json::from_slice(&std::fs::read(path)?)?) };
    read().with_context(|| format!("cannot read {}", path.display()))
}
