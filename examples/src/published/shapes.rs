//! Settings of models that follow from the shapes of published weights.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json as value};

use super::{Layout, Published};
use crate::models::{
    Activation, BertConfig, ClipResNetConfig, DualEncoderConfig, ImageEncoderConfig, ImageLayout,
    ImageTowerConfig, Pooling, ResidualBlock, Stem, TextEncoderConfig,
};

/// The width of an attention head in all that has been published; the shapes do not tell it.
const HEAD: usize = 64;

/// What Hugging Face and open_clip call the files that say what the shapes do not.
const CONFIG: &str = "config.json";
const OPEN_CLIP_CONFIG: &str = "open_clip_config.json";

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
            self.layout.is_clip(),
            "{} has the layout of {}, which is no dual encoder of images and texts",
            self.path.display(),
            self.layout.name()
        );
        let [vocabulary, text_width] = self.dims("text.tokens.weight")?;
        let [context, _] = self.dims("text.positions")?;
        let projection: [usize; 2] = self.dims("image_projection.weight")?;
        let key = self.layout.key("image_projection.weight", 0);
        let embedding = projection[usize::from(!key.is_transposed)];
        let beside = Beside::read(self)?;
        Ok(DualEncoderConfig {
            image: if self.layout == Layout::OpenClipResNet {
                ImageTowerConfig::ResNet(self.clip_resnet(&beside)?)
            } else {
                ImageTowerConfig::Vit(self.clip_vit(&beside)?)
            },
            text: TextEncoderConfig {
                vocabulary,
                context,
                width: text_width,
                layers: self.layers("text.transformer.layers", "norm_1.gamma"),
                heads: beside.text_heads.unwrap_or(text_width / HEAD).max(1),
                pooling: Pooling::Last,
                dropout: 0.0,
                activation: beside.activation,
            },
            embedding,
        })
    }

    fn clip_vit(&self, beside: &Beside) -> Result<ImageEncoderConfig> {
        let [width, _, patch_size, _] = self.dims("image.patches.weight")?;
        let [positions, _] = self.dims("image.positions")?;
        Ok(ImageEncoderConfig {
            image_size: side(positions, 1).saturating_mul(patch_size),
            patch_size,
            width,
            layers: self.layers("image.transformer.layers", "norm_1.gamma"),
            heads: beside.image_heads.unwrap_or(width / HEAD).max(1),
            pooling: Pooling::Token,
            dropout: 0.0,
            layout: ImageLayout::Clip,
            activation: beside.activation,
        })
    }

    fn clip_resnet(&self, beside: &Beside) -> Result<ClipResNetConfig> {
        let [width, ..]: [usize; 4] = self.dims("image.conv3.weight")?;
        let [positions, features] = self.dims("image.attention.positions")?;
        let blocks = self.stages("image.stages");
        let place = 4_usize << blocks.len().saturating_sub(1).min(8);
        Ok(ClipResNetConfig {
            image_size: side(positions, 1).saturating_mul(place),
            blocks,
            width,
            heads: beside.image_heads.unwrap_or(features / HEAD).max(1),
        })
    }

    /// The settings of the module that `part` is in [`Layout::key`], empty for the whole, as far as
    /// the weights tell: by name, as the module's configuration has them.
    ///
    /// # Errors
    ///
    /// If a tensor is missing or of the wrong rank.
    pub fn settings(&self, part: &str) -> Result<Map<String, Value>> {
        let settings = match (self.layout, part) {
            (layout, "image" | "text") if layout.is_clip() => self.of_clip(part)?,
            (Layout::Timm, _) => self.of_vit("")?,
            (Layout::Albef, "model.image") => self.of_vit("model.image.")?,
            (Layout::Bert, _) => self.of_bert("")?,
            (Layout::Albef, "model.bert") => self.of_bert("model.bert.")?,
            (Layout::Torchvision, _) => self.of_resnet()?,
            _ => value!({}),
        };
        Ok(settings.as_object().cloned().unwrap_or_default())
    }

    /// The image encoder whose parameters begin with `prefix`, in timm's layout or ALBEF's.
    ///
    /// # Errors
    ///
    /// If a tensor is missing or of the wrong rank.
    pub fn vit(&self, prefix: &str) -> Result<ImageEncoderConfig> {
        let at = |name: &str| format!("{prefix}{name}");
        let [width, _, patch_size, _] = self.dims(&at("patches.weight"))?;
        let [_, positions, _] = self.dims(&at("positions"))?;
        let has_token = self.has(&at("class_token"));
        Ok(ImageEncoderConfig {
            image_size: side(positions, usize::from(has_token)).saturating_mul(patch_size),
            patch_size,
            width,
            layers: self.layers(&at("transformer.layers"), "norm_1.gamma"),
            heads: self.heads(width)?.unwrap_or(1),
            pooling: if has_token {
                Pooling::Token
            } else {
                Pooling::Mean
            },
            dropout: 0.0,
            layout: ImageLayout::Deit,
            activation: Activation::Gelu,
        })
    }

    /// The BERT whose parameters begin with `prefix`, in its own layout or ALBEF's.
    ///
    /// # Errors
    ///
    /// If a tensor is missing or of the wrong rank.
    pub fn bert(&self, prefix: &str) -> Result<BertConfig> {
        let at = |name: &str| format!("{prefix}{name}");
        let [vocabulary, width] = self.dims(&at("embeddings.words.weight"))?;
        let [context, _] = self.dims(&at("embeddings.positions"))?;
        let [intermediate, _] = self.dims(&at("text.layers.0.feed_forward.inner.weight"))?;
        let layers = self.layers(&at("text.layers"), "attention.norm.gamma");
        let fuses = |layer: &usize| {
            let norm = format!("text.layers.{layer}.cross_attention.norm.gamma");
            self.has(&at(&norm))
        };
        Ok(BertConfig {
            vocabulary,
            context,
            width,
            layers,
            fusion_layers: (0..layers).filter(fuses).count(),
            heads: self.heads(width)?.unwrap_or(1),
            intermediate,
            ..BertConfig::base()
        })
    }

    /// The settings of CLIP's tower `part`.
    fn of_clip(&self, part: &str) -> Result<Value> {
        let (config, beside) = (self.clip()?, Beside::read(self)?);
        let (width, heads) = if part == "image" {
            (config.image.width(), beside.image_heads)
        } else {
            (config.text.width, beside.text_heads)
        };
        let mut settings = serde_json::to_value(config)?[part].take();
        let settings_of = settings.as_object_mut().context("a tower has settings")?;
        let mut untold = vec!["image_size", "dropout"];
        if heads.is_none() && !width.is_multiple_of(HEAD) {
            untold.push("heads");
        }
        if !self.tells_activation()? {
            untold.push("activation");
        }
        for key in untold {
            settings_of.remove(key);
        }
        Ok(settings)
    }

    fn of_vit(&self, prefix: &str) -> Result<Value> {
        let config = self.vit(prefix)?;
        let mut settings = serde_json::to_value(&config)?;
        let without = ["image_size", "dropout"];
        self.keep_told(&mut settings, &without, config.width)?;
        Ok(settings)
    }

    fn of_bert(&self, prefix: &str) -> Result<Value> {
        let config = self.bert(prefix)?;
        let mut settings = serde_json::to_value(&config)?;
        let without = ["fusion_layers", "dropout", "initializer_range"];
        self.keep_told(&mut settings, &without, config.width)?;
        Ok(settings)
    }

    /// Removes settings that weights do not tell, and that of heads where they do not.
    fn keep_told(&self, settings: &mut Value, without: &[&str], width: usize) -> Result<()> {
        let heads = self.heads(width)?.is_none().then_some("heads");
        if let Some(settings) = settings.as_object_mut() {
            for key in without.iter().copied().chain(heads) {
                settings.remove(key);
            }
        }
        Ok(())
    }

    fn of_resnet(&self) -> Result<Value> {
        let [width, _, kernel, _] = self.dims("conv1.weight")?;
        let blocks = self.stages("stages");
        let block = if self.has("stages.0.0.conv3.weight") {
            ResidualBlock::Bottleneck
        } else {
            ResidualBlock::Basic
        };
        let stem = if kernel == 7 {
            Stem::Large
        } else {
            Stem::Small
        };
        Ok(value!({"stem": stem, "block": block, "blocks": blocks, "width": width}))
    }

    /// The numbers of blocks of a residual network's stages at `path`.
    fn stages(&self, path: &str) -> Vec<usize> {
        let blocks = |stage| self.layers(&format!("{path}.{stage}"), "conv1.weight");
        let blocks = (0..).map(blocks);
        blocks.take_while(|&blocks| blocks > 0).collect()
    }

    /// The number of heads that a `config.json` beside the weights says, or that gives heads of 64,
    /// where it does.
    fn heads(&self, width: usize) -> Result<Option<usize>> {
        let beside = self.beside(CONFIG)?;
        // It may be that of other weights in the folder.
        let of_these = beside["hidden_size"]
            .as_u64()
            .is_none_or(|size| size == width as u64);
        let heads = beside["num_attention_heads"].as_u64().filter(|_| of_these);
        let published = width.is_multiple_of(HEAD).then_some(width / HEAD);
        Ok(heads.map(|heads| heads as usize).or(published))
    }

    /// Whether the layout, or a file beside the weights, says which activation CLIP has.
    fn tells_activation(&self) -> Result<bool> {
        Ok(self.layout == Layout::HuggingFaceClip
            || !self.beside(OPEN_CLIP_CONFIG)?.is_null()
            || self.is_openai())
    }

    /// Whether they are a state dict of OpenAI's own.
    fn is_openai(&self) -> bool {
        self.tensors.contains_key("input_resolution")
    }

    /// The JSON in the file of that name beside the weights; null if there is no such file.
    fn beside(&self, name: &str) -> Result<Value> {
        let path = self.path.with_file_name(name);
        if !path.is_file() {
            return Ok(Value::Null);
        }
        let read = || -> Result<Value> { Ok(serde_json::from_slice(&std::fs::read(&path)?)?) };
        read().with_context(|| format!("cannot read {}", path.display()))
    }

    /// The shape of the tensor that has the parameter `path`, which is a matrix there.
    ///
    /// # Errors
    ///
    /// If it is missing, or no matrix.
    pub fn matrix(&self, path: &str) -> Result<[usize; 2]> {
        self.dims(path)
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

    /// How many layers a list at `path` has, each with the parameter `of_each`.
    fn layers(&self, path: &str, of_each: &str) -> usize {
        let of = |layer| format!("{path}.{layer}.{of_each}");
        (0..).take_while(|&layer| self.has(&of(layer))).count()
    }
}

/// Patches a side of a square image that has so many positions, the `first` of which are of none.
fn side(positions: usize, first: usize) -> usize {
    positions.saturating_sub(first).isqrt()
}

/// What stands in a file of settings beside the weights.
struct Beside {
    activation: Activation,
    image_heads: Option<usize>,
    text_heads: Option<usize>,
}

impl Beside {
    fn read(published: &Published) -> Result<Self> {
        if published.layout == Layout::HuggingFaceClip {
            let settings = published.beside(CONFIG)?;
            let of = |tower: &str, key: &str| settings[tower][key].clone();
            let heads = |tower| Some(of(tower, "num_attention_heads").as_u64()? as usize);
            let name = of("vision_config", "hidden_act");
            return Ok(Self {
                activation: match name.as_str() {
                    None | Some("quick_gelu") => Activation::QuickGelu,
                    Some("gelu") => Activation::Gelu,
                    Some(other) => bail!(
                        "{}: an activation `{other}` is not known here, only gelu and quick_gelu",
                        published.path.with_file_name(CONFIG).display()
                    ),
                },
                image_heads: heads("vision_config"),
                text_heads: heads("text_config"),
            });
        }
        let settings = published.beside(OPEN_CLIP_CONFIG)?;
        let settings = &settings["model_cfg"];
        let is_quick = settings["quick_gelu"].as_bool();
        let is_quick = is_quick.unwrap_or(published.is_openai());
        let number = |tower: &str, key: &str| Some(settings[tower][key].as_u64()? as usize);
        // The last stage of a residual network has 32 times its first channels.
        let times = if published.layout == Layout::OpenClipResNet {
            32
        } else {
            1
        };
        let image_heads = || {
            let width = number("vision_cfg", "width")?.saturating_mul(times);
            Some(width / number("vision_cfg", "head_width").unwrap_or(HEAD).max(1))
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
