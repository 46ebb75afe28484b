//! The residual network of CLIP (Radford et al., 2021, section 2.4), as its authors' code has it.

use anyhow::{Context, Result, ensure};
use burn::module::{Module, ModuleVisitor, Param};
use burn::nn::conv::Conv2d;
use burn::nn::pool::{AvgPool2d, AvgPool2dConfig};
use burn::nn::{Initializer, Linear, LinearConfig};
use burn::tensor::activation::{relu, softmax};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::block::{self, Block, Halving, convolution, stages};
use super::{BatchNorm, Norms, ResidualBlock, follow};
use crate::models::{check, check_heads};

/// Shape of a [`ClipResNet`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClipResNetConfig {
    /// Height and width of the images in pixels: a multiple of 4 times 2 for each stage after the
    /// first.
    pub image_size: usize,
    /// Number of blocks of each stage. A stage has twice the channels of the one before, at half
    /// the resolution.
    pub blocks: Vec<usize>,
    /// Channels of the first layer of the first stage; even.
    pub width: usize,
    /// Attention heads of the pooling; divides the channels of the last stage.
    pub heads: usize,
}

impl ClipResNetConfig {
    /// The shape of RN50.
    pub fn rn50() -> Self {
        Self {
            image_size: 224,
            blocks: vec![3, 4, 6, 3],
            width: 64,
            heads: 32,
        }
    }

    /// Checks every size, under names that start with `image.`.
    ///
    /// # Errors
    ///
    /// Names the setting that is out of range, its value and the range.
    pub fn check(&self) -> Result<()> {
        check::size("image.image_size", self.image_size, 4096)?;
        check::size("image.width", self.width, 4096)?;
        check::multiple("image.width", self.width, "the stem's division", 2)?;
        block::check_stages(&self.blocks)?;
        let place = self.place();
        check::multiple(
            "image.image_size",
            self.image_size,
            "a place of the last stage",
            place,
        )?;
        ensure!(
            self.side() > 1,
            "image.image_size = {} leaves one place at the end of the image encoder, whose norms \
             need more to be trained: give {} or more",
            self.image_size,
            2 * place
        );
        check::size("image.heads", self.heads, 65_536)?;
        check::multiple(
            "the channels of the last stage",
            self.features(),
            "image.heads",
            self.heads,
        )?;
        check::parameters(self.about_parameters()).context("image")
    }

    /// Width of the features: the channels of the last stage, 2,048 in RN50.
    pub fn features(&self) -> usize {
        (self.width << (self.blocks.len().max(1) - 1)) * ResidualBlock::Bottleneck.expansion()
    }

    /// Height and width of a place of the last stage, in pixels.
    fn place(&self) -> usize {
        4 << (self.blocks.len().max(1) - 1)
    }

    /// Rows, and columns, of the last stage.
    fn side(&self) -> usize {
        self.image_size / self.place()
    }

    /// About how many parameters the network has.
    pub fn about_parameters(&self) -> f64 {
        let stages = block::about_parameters(ResidualBlock::Bottleneck, &self.blocks, self.width);
        stages + 3.0 * (self.features() as f64).powi(2)
    }

    /// A new network.
    ///
    /// # Panics
    ///
    /// If there is no stage, a size is 0 or odd, or `heads` does not divide the channels of the
    /// last stage.
    pub fn init(&self, device: &Device) -> ClipResNet {
        assert!(
            !self.blocks.is_empty()
                && !self.blocks.contains(&0)
                && self.width > 0
                && self.width.is_multiple_of(2),
            "CLIP's ResNet: blocks {:?} must be at least 1, and width {} even",
            self.blocks,
            self.width
        );
        let (half, width) = (self.width / 2, self.width);
        ClipResNet {
            conv1: convolution([3, half], 3, 2, device),
            bn1: BatchNorm::new(half, device),
            conv2: convolution([half, half], 3, 1, device),
            bn2: BatchNorm::new(half, device),
            conv3: convolution([half, width], 3, 1, device),
            bn3: BatchNorm::new(width, device),
            pool: AvgPool2dConfig::new([2, 2]).init(),
            stages: stages(
                ResidualBlock::Bottleneck,
                &self.blocks,
                width,
                Halving::Means,
                device,
            ),
            attention: AttentionPool::new(self.features(), self.side(), self.heads, device),
        }
    }
}

/// A residual network with three layers before its stages, means in place of strides, and one
/// attention in place of the last mean.
///
/// What follows the attention, CLIP's `c_proj`, is the projection into the space of both encoders.
/// Its paths are the published names but for `stages.0`, which is `layer1` there, and so on, and
/// `attention`, which is `attnpool`.
#[derive(Module, Debug)]
pub struct ClipResNet {
    conv1: Conv2d,
    bn1: BatchNorm,
    conv2: Conv2d,
    bn2: BatchNorm,
    conv3: Conv2d,
    bn3: BatchNorm,
    pool: AvgPool2d,
    stages: Vec<Vec<Block>>,
    attention: AttentionPool,
}

impl ClipResNet {
    /// The feature of each image, normalised by running statistics: for inference, and where the
    /// network does not train.
    ///
    /// # Shapes
    ///
    /// - `images`: `[batch, 3, image_size, image_size]`
    /// - output: `[batch, features]`
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        self.run(images, &mut Norms::Running)
    }

    /// The feature of each image in training, and the statistics of these images that it was
    /// normalised by, `[1, values]`, for [`follow`](Self::follow). Where no parameter of the
    /// network trains, the running statistics stay in use, and there are none.
    ///
    /// # Panics
    ///
    /// If there is one image, and a stage leaves one place of it.
    pub fn forward_train(&self, images: Tensor<4>) -> (Tensor<2>, Option<Tensor<2>>) {
        let mut trains = Trains(false);
        self.visit(&mut trains);
        let mut norms = if trains.0 {
            Norms::batch()
        } else {
            Norms::Running
        };
        let features = self.run(images, &mut norms);
        (features, norms.into_row())
    }

    /// The network after a step whose batches had these statistics, as
    /// [`ResNet::follow`](super::ResNet::follow).
    ///
    /// # Panics
    ///
    /// If the statistics are those of another network.
    pub fn follow(mut self, batches: Vec<Tensor<2>>) -> Self {
        if batches.is_empty() {
            return self;
        }
        let mut norms = vec![&mut self.bn1, &mut self.bn2, &mut self.bn3];
        let blocks = self.stages.iter_mut().flatten();
        norms.extend(blocks.flat_map(Block::norms));
        follow(norms, Tensor::cat(batches, 0));
        self
    }

    /// The number of parameters that train: without running statistics.
    pub fn trained_parameters(&self) -> usize {
        let stem = [&self.bn1, &self.bn2, &self.bn3].map(BatchNorm::channels);
        let blocks = self.stages.iter().flatten();
        let channels = stem.into_iter().chain(blocks.map(Block::channels));
        self.num_params() - 2 * channels.sum::<usize>()
    }

    fn run(&self, images: Tensor<4>, norms: &mut Norms) -> Tensor<2> {
        let mut x = images;
        for (conv, bn) in [
            (&self.conv1, &self.bn1),
            (&self.conv2, &self.bn2),
            (&self.conv3, &self.bn3),
        ] {
            x = relu(bn.forward(conv.forward(x), norms));
        }
        x = self.pool.forward(x);
        for block in self.stages.iter().flatten() {
            x = block.forward(x, norms);
        }
        self.attention.forward(x)
    }
}

/// Whether a parameter of a module trains.
struct Trains(bool);

impl ModuleVisitor for Trains {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0 |= param.is_require_grad();
    }
}

/// One vector from the places of an image: the attention of their mean to all of them and itself.
#[derive(Module, Debug)]
struct AttentionPool {
    /// Of the mean, then of the places, row by row.
    positions: Param<Tensor<3>>,
    query: Linear,
    key: Linear,
    value: Linear,
    #[module(skip)]
    heads: usize,
}

impl AttentionPool {
    /// Starts with a deviation of one over the root of the width, and biases of zero, as CLIP does.
    fn new(width: usize, side: usize, heads: usize, device: &Device) -> Self {
        check_heads("CLIP's ResNet", width, heads);
        let normal = Initializer::Normal {
            mean: 0.0,
            std: (width as f64).powf(-0.5),
        };
        let linear = || {
            let config = LinearConfig::new(width, width).with_initializer(normal.clone());
            let mut linear = config.init(device);
            crate::models::zero_bias(&mut linear);
            linear
        };
        Self {
            positions: normal.init([1, side * side + 1, width], device),
            query: linear(),
            key: linear(),
            value: linear(),
            heads,
        }
    }

    /// From `[batch, width, rows, columns]` to `[batch, width]`.
    fn forward(&self, places: Tensor<4>) -> Tensor<2> {
        let shape = places.dims();
        let [batch, width, ..] = shape;
        let places = places.flatten::<3>(2, 3).swap_dims(1, 2);
        let mean = places.clone().mean_dim(1);
        let x = Tensor::cat(vec![mean, places], 1);
        let [_, tokens, _] = self.positions.dims();
        assert_eq!(
            x.dims()[1],
            tokens,
            "CLIP's ResNet: images whose last stage has the shape {shape:?} are not of the \
             configured image_size",
        );
        let x = x + self.positions.val();
        let heads = |x: Tensor<3>| {
            let [batch, tokens, width] = x.dims();
            x.reshape([batch, tokens, self.heads, width / self.heads])
                .swap_dims(1, 2)
        };
        let query = heads(self.query.forward(x.clone().narrow(1, 0, 1)));
        let key = heads(self.key.forward(x.clone()));
        let value = heads(self.value.forward(x));
        let scale = ((width / self.heads) as f64).sqrt();
        let weights = softmax((query / scale).matmul(key.transpose()), 3);
        weights
            .matmul(value)
            .swap_dims(1, 2)
            .reshape([batch, width])
    }
}
