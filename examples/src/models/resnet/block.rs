//! What the stages of a residual network are made of.

use anyhow::{Result, ensure};
use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::{AvgPool2d, AvgPool2dConfig};
use burn::nn::{Initializer, PaddingConfig2d};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};

use super::ResidualBlock;
use crate::models::batch_norm::{BatchNorm, Norms};
use crate::models::check;

/// How a stage leaves out every second row and column of the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Halving {
    /// By the stride of its first block's kernels.
    Strides,
    /// By the mean of every 2 × 2 places, before the kernels, which have no stride.
    Means,
}

/// Checks the numbers of blocks of the stages of `image`.
pub(super) fn check_stages(blocks: &[usize]) -> Result<()> {
    ensure!(
        (1..=8).contains(&blocks.len()),
        "image.blocks has {} stages, it must have 1 to 8",
        blocks.len()
    );
    let each = |&blocks| check::size("image.blocks", blocks, 1000);
    blocks.iter().try_for_each(each)
}

/// New stages; each has twice the channels of the one before at half the resolution.
pub(super) fn stages(
    kind: ResidualBlock,
    blocks: &[usize],
    width: usize,
    by: Halving,
    device: &Device,
) -> Vec<Vec<Block>> {
    let mut input = width;
    let stages = blocks.iter().enumerate().map(|(stage, &blocks)| {
        let width = width << stage;
        let block = |index| {
            let stride = if index == 0 && stage > 0 { 2 } else { 1 };
            let block = Block::new(kind, [input, width], stride, by, device);
            input = width * kind.expansion();
            block
        };
        (0..blocks).map(block).collect()
    });
    stages.collect()
}

/// About how many weights such stages have.
pub(super) fn about_parameters(kind: ResidualBlock, blocks: &[usize], width: usize) -> f64 {
    let stages = blocks.iter().enumerate();
    let weights = stages.map(|(stage, &blocks)| {
        let width = width as f64 * f64::from(1 << stage);
        let kernels = match kind {
            ResidualBlock::Basic => 18.0,
            ResidualBlock::Bottleneck => 17.0,
        };
        blocks as f64 * kernels * width * width
    });
    weights.sum()
}

/// Kernels without a bias that keep the resolution but for their stride.
pub(super) fn convolution(
    channels: [usize; 2],
    kernel: usize,
    stride: usize,
    device: &Device,
) -> Conv2d {
    let padding = kernel / 2;
    Conv2dConfig::new(channels, [kernel, kernel])
        .with_stride([stride, stride])
        .with_padding(PaddingConfig2d::Explicit(
            padding, padding, padding, padding,
        ))
        .with_bias(false)
        .with_initializer(Initializer::KaimingNormal {
            gain: 2_f64.sqrt(),
            fan_out_only: true,
        })
        .init(device)
}

fn pooled(pool: &Option<AvgPool2d>, x: Tensor<4>) -> Tensor<4> {
    match pool {
        Some(pool) => pool.forward(x),
        None => x,
    }
}

/// A block of a stage: what it computes is added to its input.
#[derive(Module, Debug)]
pub(super) struct Block {
    conv1: Conv2d,
    bn1: BatchNorm,
    conv2: Conv2d,
    bn2: BatchNorm,
    /// In place of a stride of the kernels.
    pool: Option<AvgPool2d>,
    conv3: Option<Conv2d>,
    bn3: Option<BatchNorm>,
    /// Of the input, where the output has another shape.
    downsample: Option<Downsample>,
}

impl Block {
    /// Channels of the input and of the first layer; `stride` is of the block's places.
    fn new(
        kind: ResidualBlock,
        [input, width]: [usize; 2],
        stride: usize,
        by: Halving,
        device: &Device,
    ) -> Self {
        let output = width * kind.expansion();
        let is_new_shape = stride > 1 || input != output;
        let pool = || {
            let pool = AvgPool2dConfig::new([stride; 2]).init();
            (stride > 1 && by == Halving::Means).then_some(pool)
        };
        let [pool, before] = [pool(), pool()];
        let stride = if pool.is_some() { 1 } else { stride };
        let is_wide = kind == ResidualBlock::Bottleneck;
        let (first, strides) = if is_wide {
            (1, [1, stride])
        } else {
            (3, [stride, 1])
        };
        Self {
            conv1: convolution([input, width], first, strides[0], device),
            bn1: BatchNorm::new(width, device),
            conv2: convolution([width, width], 3, strides[1], device),
            bn2: BatchNorm::new(width, device),
            pool,
            conv3: is_wide.then(|| convolution([width, output], 1, 1, device)),
            bn3: is_wide.then(|| BatchNorm::new(output, device)),
            downsample: is_new_shape.then(|| Downsample {
                pool: before,
                conv: convolution([input, output], 1, stride, device),
                bn: BatchNorm::new(output, device),
            }),
        }
    }

    pub(super) fn forward(&self, input: Tensor<4>, norms: &mut Norms) -> Tensor<4> {
        let x = self.conv1.forward(input.clone());
        let x = relu(self.bn1.forward(x, norms));
        let mut x = self.bn2.forward(self.conv2.forward(x), norms);
        if let (Some(conv), Some(bn)) = (&self.conv3, &self.bn3) {
            x = bn.forward(conv.forward(pooled(&self.pool, relu(x))), norms);
        }
        let input = match &self.downsample {
            Some(Downsample { pool, conv, bn }) => {
                bn.forward(conv.forward(pooled(pool, input)), norms)
            }
            None => input,
        };
        relu(x + input)
    }

    /// In the order in which they run.
    pub(super) fn norms(&mut self) -> impl Iterator<Item = &mut BatchNorm> {
        let downsample = self.downsample.as_mut();
        let norms = [&mut self.bn1, &mut self.bn2].into_iter();
        norms
            .chain(&mut self.bn3)
            .chain(downsample.map(|downsample| &mut downsample.bn))
    }

    /// Of all norms.
    pub(super) fn channels(&self) -> usize {
        let downsample = self.downsample.as_ref().map(|downsample| &downsample.bn);
        let norms = [&self.bn1, &self.bn2].into_iter();
        let norms = norms.chain(&self.bn3).chain(downsample);
        norms.map(BatchNorm::channels).sum()
    }
}

/// Brings the input of a block into the shape of its output.
#[derive(Module, Debug)]
struct Downsample {
    pool: Option<AvgPool2d>,
    conv: Conv2d,
    bn: BatchNorm,
}
