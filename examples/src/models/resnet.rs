//! Residual networks (He et al., 2016), as torchvision has them, and those of CLIP.

mod block;
mod clip;

use anyhow::{Context, Result, ensure};
use burn::module::Module;
use burn::nn::PaddingConfig2d;
use burn::nn::conv::Conv2d;
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::batch_norm::{BatchNorm, Norms, follow};
use super::check;

pub use clip::{ClipResNet, ClipResNetConfig};

use block::{Block, Halving, convolution, stages};

/// What comes before the first stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stem {
    /// 7 × 7 kernels at every second pixel, then the largest of 3 × 3 at every second place.
    Large,
    /// 3 × 3 kernels at every second pixel, for small images.
    Small,
}

/// What a stage is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResidualBlock {
    /// Two layers of 3 × 3 kernels (ResNet-18 and 34).
    Basic,
    /// 1 × 1, 3 × 3 and 1 × 1 kernels with four times the channels at the end; a stride is in the
    /// second, as in torchvision (ResNet-50 and larger).
    Bottleneck,
}

impl ResidualBlock {
    /// Channels at the end of a block by those of its first layer.
    fn expansion(self) -> usize {
        match self {
            Self::Basic => 1,
            Self::Bottleneck => 4,
        }
    }
}

/// Names that [`ResNetConfig::preset`] knows.
pub const RESNETS: [&str; 6] = [
    "resnet-tiny",
    "resnet-18",
    "resnet-34",
    "resnet-50",
    "resnet-101",
    "resnet-152",
];

/// Shape of a [`ResNet`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResNetConfig {
    /// Height and width of the images in pixels.
    pub image_size: usize,
    /// What comes before the first stage.
    pub stem: Stem,
    /// What the stages are made of.
    pub block: ResidualBlock,
    /// Number of blocks of each stage. A stage has twice the channels of the one before, at half
    /// the resolution.
    pub blocks: Vec<usize>,
    /// Channels of the stem, and of the first layer of the first stage: 64 in the published ones.
    pub width: usize,
}

impl ResNetConfig {
    /// The configuration of that name, if there is one (see [`RESNETS`]): those of He et al., table
    /// 1, for images of 224 pixels, and one for images of 64 pixels that trains on a CPU.
    pub fn preset(name: &str) -> Option<Self> {
        let published = |block, blocks: [usize; 4]| Self {
            image_size: 224,
            stem: Stem::Large,
            block,
            blocks: blocks.to_vec(),
            width: 64,
        };
        let (basic, bottleneck) = (ResidualBlock::Basic, ResidualBlock::Bottleneck);
        Some(match name {
            "resnet-tiny" => Self {
                image_size: 64,
                stem: Stem::Small,
                block: basic,
                blocks: vec![1; 4],
                width: 16,
            },
            "resnet-18" => published(basic, [2, 2, 2, 2]),
            "resnet-34" => published(basic, [3, 4, 6, 3]),
            "resnet-50" => published(bottleneck, [3, 4, 6, 3]),
            "resnet-101" => published(bottleneck, [3, 4, 23, 3]),
            "resnet-152" => published(bottleneck, [3, 8, 36, 3]),
            _ => return None,
        })
    }

    /// Checks every size, under names that start with `image.`.
    ///
    /// # Errors
    ///
    /// Names the setting that is out of range, its value and the range.
    pub fn check(&self) -> Result<()> {
        check::size("image.image_size", self.image_size, 4096)?;
        check::size("image.width", self.width, 4096)?;
        block::check_stages(&self.blocks)?;
        check::parameters(self.about_parameters()).context("image")
    }

    /// Checks that the network can be trained, whatever the size of a shard.
    ///
    /// # Errors
    ///
    /// If its last stage has one place, of which the norms have no variance in a shard of one
    /// image.
    pub fn check_trained(&self) -> Result<()> {
        ensure!(
            self.places() > 1,
            "image.image_size = {} leaves one place at the end of the image encoder, whose norms \
             need more to be trained",
            self.image_size
        );
        Ok(())
    }

    /// Width of the features: 512 or 2,048 in the published ones.
    pub fn features(&self) -> usize {
        (self.width << (self.blocks.len().max(1) - 1)) * self.block.expansion()
    }

    /// Rows, and columns, of the last stage.
    pub fn places(&self) -> usize {
        let stem = match self.stem {
            Stem::Large => 2,
            Stem::Small => 1,
        };
        let halvings = stem + self.blocks.len().max(1) - 1;
        (0..halvings).fold(self.image_size, |size, _| size.div_ceil(2))
    }

    /// About how many parameters the network has.
    pub fn about_parameters(&self) -> f64 {
        block::about_parameters(self.block, &self.blocks, self.width)
    }

    /// A new network.
    ///
    /// # Panics
    ///
    /// If there is no stage, or a size is 0.
    pub fn init(&self, device: &Device) -> ResNet {
        assert!(
            !self.blocks.is_empty() && !self.blocks.contains(&0) && self.width > 0,
            "ResNet: blocks {:?} and width {} must be at least 1",
            self.blocks,
            self.width
        );
        let (kernel, pool) = match self.stem {
            Stem::Large => (7, Some(MaxPool2dConfig::new([3, 3]).with_strides([2, 2]))),
            Stem::Small => (3, None),
        };
        ResNet {
            stages: stages(
                self.block,
                &self.blocks,
                self.width,
                Halving::Strides,
                device,
            ),
            conv1: convolution([3, self.width], kernel, 2, device),
            bn1: BatchNorm::new(self.width, device),
            pool: pool.map(|pool| {
                pool.with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
                    .init()
            }),
        }
    }
}

/// A residual network: one vector an image, the mean over the last stage's places.
///
/// Its paths are torchvision's names but for `stages.0`, which is `layer1` there, and so on.
#[derive(Module, Debug)]
pub struct ResNet {
    conv1: Conv2d,
    bn1: BatchNorm,
    pool: Option<MaxPool2d>,
    stages: Vec<Vec<Block>>,
}

impl ResNet {
    /// The feature of each image, normalised by running statistics: for inference, and where the
    /// network does not train.
    ///
    /// # Shapes
    ///
    /// - `images`: `[batch, 3, height, width]`
    /// - output: `[batch, features]`
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        self.run(images, &mut Norms::Running)
    }

    /// The feature of each image, normalised by the statistics of these images, and those
    /// statistics, for [`follow`](Self::follow).
    ///
    /// A shard is normalised by itself, as PyTorch's data parallel training does without
    /// synchronised batch norm.
    ///
    /// # Shapes
    ///
    /// - `images`: `[batch, 3, height, width]`
    /// - output: `[batch, features]`, and `[1, values]` without autodiff
    ///
    /// # Panics
    ///
    /// If there is one image, and a stage leaves one place of it.
    pub fn forward_train(&self, images: Tensor<4>) -> (Tensor<2>, Tensor<2>) {
        let mut norms = Norms::batch();
        let features = self.run(images, &mut norms);
        let row = norms.into_row().expect("a network has norms");
        (features, row)
    }

    /// The network after a step whose batches had these statistics, `[shards, values]` each: its
    /// running ones move once, by a tenth as in PyTorch, towards the mean of those of all shards.
    /// Without statistics it stays as it is.
    ///
    /// # Panics
    ///
    /// If the statistics are those of another network.
    pub fn follow(mut self, batches: impl IntoIterator<Item = Tensor<2>>) -> Self {
        let batches: Vec<_> = batches.into_iter().collect();
        if batches.is_empty() {
            return self;
        }
        let mut norms = vec![&mut self.bn1];
        let blocks = self.stages.iter_mut().flatten();
        norms.extend(blocks.flat_map(Block::norms));
        follow(norms, Tensor::cat(batches, 0));
        self
    }

    /// The number of parameters that train: without running statistics.
    pub fn trained_parameters(&self) -> usize {
        let blocks = self.stages.iter().flatten();
        let channels: usize = blocks.map(Block::channels).sum();
        self.num_params() - 2 * (self.bn1.channels() + channels)
    }

    fn run(&self, images: Tensor<4>, norms: &mut Norms) -> Tensor<2> {
        let mut x = relu(self.bn1.forward(self.conv1.forward(images), norms));
        if let Some(pool) = &self.pool {
            x = pool.forward(x);
        }
        for block in self.stages.iter().flatten() {
            x = block.forward(x, norms);
        }
        x.flatten::<3>(2, 3).mean_dim(2).squeeze_dim(2)
    }
}

#[cfg(test)]
mod tests;
