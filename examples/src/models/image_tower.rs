//! The image encoder of a dual encoder: a vision transformer, or CLIP's residual network.

use std::fmt;

use anyhow::{Result, anyhow};
use burn::module::{
    Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor,
};
use burn::tensor::{Device, Tensor};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::{ClipResNet, ClipResNetConfig, ImageEncoder, ImageEncoderConfig};

/// Shape of an [`ImageTower`]. In JSON both kinds stand for themselves; `blocks` tells that of a
/// residual network.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum ImageTowerConfig {
    /// A vision transformer.
    Vit(ImageEncoderConfig),
    /// CLIP's residual network.
    ResNet(ClipResNetConfig),
}

impl<'de> Deserialize<'de> for ImageTowerConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        // An error has the name of what is wrong.
        let config = if value.get("blocks").is_some() {
            serde_path_to_error::deserialize(value).map(Self::ResNet)
        } else {
            serde_path_to_error::deserialize(value).map(Self::Vit)
        };
        config.map_err(D::Error::custom)
    }
}

impl ImageTowerConfig {
    /// The settings that `value` is short for, in place of those of an image encoder of any kind:
    /// the name of one, or the whole settings of a residual network. `None` if it is neither.
    pub fn preset(value: &Value) -> Option<Result<Value>> {
        if let Value::String(name) = value {
            let config = (name == "rn50").then(ClipResNetConfig::rn50);
            let config =
                config.ok_or_else(|| anyhow!("there is no image encoder `{name}`; there is rn50"));
            return Some(config.and_then(|config| Ok(serde_json::to_value(config)?)));
        }
        let whole: Result<ClipResNetConfig, _> = serde_json::from_value(value.clone());
        whole.is_ok().then(|| Ok(value.clone()))
    }

    /// Checks every size by itself, under names that start with `image.`.
    ///
    /// # Errors
    ///
    /// Names the setting that is out of range, its value and the range.
    pub fn check(&self) -> Result<()> {
        match self {
            Self::Vit(config) => config.check(),
            Self::ResNet(config) => config.check(),
        }
    }

    /// Height and width of the images in pixels.
    pub fn image_size(&self) -> usize {
        match self {
            Self::Vit(config) => config.image_size,
            Self::ResNet(config) => config.image_size,
        }
    }

    /// Width of the features.
    pub fn width(&self) -> usize {
        match self {
            Self::Vit(config) => config.width,
            Self::ResNet(config) => config.features(),
        }
    }

    /// Whether training draws dropout masks.
    pub fn has_dropout(&self) -> bool {
        match self {
            Self::Vit(config) => config.dropout > 0.0,
            Self::ResNet(_) => false,
        }
    }

    /// Whether CLIP has a bias in the projection behind it.
    pub(super) fn has_projection_bias(&self) -> bool {
        matches!(self, Self::ResNet(_))
    }

    /// About how many parameters it has.
    pub(super) fn about_parameters(&self) -> f64 {
        match self {
            Self::Vit(config) => config.about_parameters(),
            Self::ResNet(config) => config.about_parameters(),
        }
    }

    /// A new image encoder.
    ///
    /// # Panics
    ///
    /// On sizes that do not fit together.
    pub fn init(&self, device: &Device) -> ImageTower {
        match self {
            Self::Vit(config) => ImageTower::Vit(config.init(device)),
            Self::ResNet(config) => ImageTower::ResNet(config.init(device)),
        }
    }
}

/// The image encoder of a dual encoder. As a module it is the encoder itself: no name of a kind
/// stands in the paths of its parameters.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // A model has one.
pub enum ImageTower {
    /// A vision transformer.
    Vit(ImageEncoder),
    /// CLIP's residual network.
    ResNet(ClipResNet),
}

impl ImageTower {
    /// One feature vector an image, for inference.
    ///
    /// # Shapes
    ///
    /// - `images`: `[batch, 3, image_size, image_size]`
    /// - output: `[batch, width]`
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        match self {
            Self::Vit(encoder) => encoder.forward(images),
            Self::ResNet(network) => network.forward(images),
        }
    }

    /// One feature vector an image in training, and the statistics of its norms, if it has such, as
    /// [`ClipResNet::forward_train`] gives them.
    pub fn forward_train(&self, images: Tensor<4>) -> (Tensor<2>, Option<Tensor<2>>) {
        match self {
            Self::Vit(encoder) => (encoder.forward(images), None),
            Self::ResNet(network) => network.forward_train(images),
        }
    }

    /// The same after a step whose batches had these statistics.
    ///
    /// # Panics
    ///
    /// If they are those of another network.
    pub fn follow(self, batches: Vec<Tensor<2>>) -> Self {
        match self {
            Self::Vit(encoder) => Self::Vit(encoder),
            Self::ResNet(network) => Self::ResNet(network.follow(batches)),
        }
    }

    /// The number of parameters that train.
    pub fn trained_parameters(&self) -> usize {
        match self {
            Self::Vit(encoder) => Module::num_params(encoder),
            Self::ResNet(network) => network.trained_parameters(),
        }
    }

    /// What `vit` or `resnet` makes of it.
    fn map_kind(
        self,
        vit: impl FnOnce(ImageEncoder) -> ImageEncoder,
        resnet: impl FnOnce(ClipResNet) -> ClipResNet,
    ) -> Self {
        match self {
            Self::Vit(encoder) => Self::Vit(vit(encoder)),
            Self::ResNet(network) => Self::ResNet(resnet(network)),
        }
    }
}

impl Module for ImageTower {
    fn collect_devices(&self, devices: Devices) -> Devices {
        match self {
            Self::Vit(encoder) => encoder.collect_devices(devices),
            Self::ResNet(network) => network.collect_devices(devices),
        }
    }

    fn fork(self, device: &Device) -> Self {
        self.map_kind(|vit| vit.fork(device), |resnet| resnet.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        self.map_kind(
            |vit| vit.to_device(device),
            |resnet| resnet.to_device(device),
        )
    }

    fn train(self) -> Self {
        self.map_kind(Module::train, Module::train)
    }

    fn valid(&self) -> Self {
        match self {
            Self::Vit(encoder) => Self::Vit(encoder.valid()),
            Self::ResNet(network) => Self::ResNet(network.valid()),
        }
    }

    fn materialize(self) -> Self {
        self.map_kind(Module::materialize, Module::materialize)
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        match self {
            Self::Vit(encoder) => encoder.visit(visitor),
            Self::ResNet(network) => network.visit(visitor),
        }
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        match self {
            Self::Vit(encoder) => Self::Vit(encoder.map(mapper)),
            Self::ResNet(network) => Self::ResNet(network.map(mapper)),
        }
    }
}

impl ModuleDisplayDefault for ImageTower {
    fn content(&self, content: Content) -> Option<Content> {
        match self {
            Self::Vit(encoder) => encoder.content(content),
            Self::ResNet(network) => network.content(content),
        }
    }

    fn num_params(&self) -> usize {
        Module::num_params(self)
    }
}

impl ModuleDisplay for ImageTower {}

impl fmt::Display for ImageTower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vit(encoder) => encoder.fmt(f),
            Self::ResNet(network) => network.fmt(f),
        }
    }
}
