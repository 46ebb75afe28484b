//! Residual networks (He et al., 2016) with bottlenecks whose middle layer has the stride, as
//! torchvision has them; modules are named as its are.
//!
//! Batch norm has no hidden state. [`ResNet::forward_train`] normalises by the statistics of its images and
//! returns them; [`ResNet::updated`] takes them into the running ones, once a step; and
//! [`ResNet::forward`] normalises by the running ones. So shards that are encoded on several
//! threads, or twice, leave the same statistics.

use anyhow::Result;
use burn::module::{Module, Param, ParamId};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::MaxPool2dConfig;
use burn::nn::{Initializer, PaddingConfig2d};
use burn::tensor::activation::relu;
use burn::tensor::module::{batch_norm, batch_norm_train};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::check;

/// Added to the variance, as in torchvision.
const EPSILON: f64 = 1e-5;
/// The share of a step's statistics in the running ones, as in torchvision.
const MOMENTUM: f64 = 0.1;
/// Channels of a block's output for each of its middle.
const EXPANSION: usize = 4;

/// Shape of a [`ResNet`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResNetConfig {
    /// Height and width of the images, in pixels.
    pub image_size: usize,
    /// Channels of the first convolution, 64 in ResNet-50; the features are 32 times as wide.
    pub width: usize,
    /// Bottleneck blocks of each of the four stages, 3, 4, 6 and 3 in ResNet-50.
    pub blocks: [usize; 4],
}

impl ResNetConfig {
    /// The shape of ResNet-50, for images of 224 pixels.
    pub fn resnet_50() -> Self {
        Self {
            image_size: 224,
            width: 64,
            blocks: [3, 4, 6, 3],
        }
    }

    /// Checks every size, and that the model is not absurdly large.
    ///
    /// # Errors
    ///
    /// Names the setting that is out of range, its value and the range.
    pub fn check(&self) -> Result<()> {
        check::size("image.image_size", self.image_size, 4096)?;
        check::size("image.width", self.width, 4096)?;
        for (stage, &blocks) in self.blocks.iter().enumerate() {
            check::size(&format!("image.blocks[{stage}]"), blocks, 1000)?;
        }
        let stages = self.blocks.iter().enumerate().map(|(stage, &blocks)| {
            let middle = (self.width << stage) as f64;
            blocks as f64 * 17.0 * middle * middle
        });
        check::parameters(stages.sum())
    }

    /// Width of the features.
    pub fn features(&self) -> usize {
        self.width * 8 * EXPANSION
    }

    /// A new network: convolutions as He et al. (2015) start them by the number of their outputs,
    /// norms as the identity.
    pub fn init(&self, device: &Device) -> ResNet {
        let mut input = self.width;
        let mut stage = |stage: usize| {
            let middle = self.width << stage;
            let blocks = (0..self.blocks[stage]).map(|block| {
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                let block = Bottleneck::new(input, middle, stride, device);
                input = EXPANSION * middle;
                block
            });
            blocks.collect()
        };
        let [layer1, layer2, layer3, layer4] = [0, 1, 2, 3].map(&mut stage);
        ResNet {
            conv1: convolution([3, self.width], 7, 2, device),
            bn1: BatchNorm::new(self.width, device),
            layer1,
            layer2,
            layer3,
            layer4,
        }
    }
}

/// A residual network without its classifier.
#[derive(Module, Debug)]
pub struct ResNet {
    conv1: Conv2d,
    bn1: BatchNorm,
    layer1: Vec<Bottleneck>,
    layer2: Vec<Bottleneck>,
    layer3: Vec<Bottleneck>,
    layer4: Vec<Bottleneck>,
}

impl ResNet {
    /// Features by the running statistics.
    ///
    /// # Shapes
    ///
    /// - `images`: `[batch, 3, height, width]`
    /// - output: `[batch, features]`
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        self.pass(images, &mut Statistics::Running)
    }

    /// Features by the statistics of these images, and the statistics, `[1, values]`, without
    /// autodiff: of each norm the means, then the unbiased variances.
    ///
    /// # Shapes
    ///
    /// - `images`: `[batch, 3, height, width]`
    /// - output: `[batch, features]`
    pub fn forward_train(&self, images: Tensor<4>) -> (Tensor<2>, Tensor<2>) {
        let mut statistics = Statistics::Batch(Vec::new());
        let features = self.pass(images, &mut statistics);
        let Statistics::Batch(found) = statistics else {
            unreachable!("it stays what it is")
        };
        (features, Tensor::cat(found, 0).unsqueeze_dim(0))
    }

    /// The same network after a step: running statistics move to the mean of those of the step's
    /// shards, `[shards, values]`.
    pub fn updated(mut self, statistics: Tensor<2>) -> Self {
        let statistics = statistics.mean_dim(0).squeeze_dim::<1>(0);
        let mut start = 0;
        for norm in self.norms() {
            for running in [&mut norm.running_mean, &mut norm.running_var] {
                let [channels] = running.lazy_shape().dims();
                let own = statistics.clone().narrow(0, start, channels);
                start += channels;
                *running = running.clone().map(|value| {
                    let own = match value.device().is_autodiff() {
                        true => Tensor::from_inner(own),
                        false => own,
                    };
                    value * (1.0 - MOMENTUM) + own * MOMENTUM
                });
            }
        }
        self
    }

    /// The norms, in the order of a pass.
    fn norms(&mut self) -> impl Iterator<Item = &mut BatchNorm> {
        let Self {
            bn1,
            layer1,
            layer2,
            layer3,
            layer4,
            ..
        } = self;
        let blocks = [layer1, layer2, layer3, layer4].into_iter().flatten();
        std::iter::once(bn1).chain(blocks.flat_map(|block| {
            let Bottleneck {
                bn1,
                bn2,
                bn3,
                downsample,
                ..
            } = block;
            let shortcut = downsample.iter_mut().map(|shortcut| &mut shortcut.norm);
            [bn1, bn2, bn3].into_iter().chain(shortcut)
        }))
    }

    fn pass(&self, images: Tensor<4>, statistics: &mut Statistics) -> Tensor<2> {
        let x = self.conv1.forward(images);
        let x = relu(self.bn1.forward(x, statistics));
        let pool = MaxPool2dConfig::new([3, 3])
            .with_strides([2, 2])
            .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
            .init();
        let mut x = pool.forward(x);
        let stages = [&self.layer1, &self.layer2, &self.layer3, &self.layer4];
        for block in stages.into_iter().flatten() {
            x = block.forward(x, statistics);
        }
        let pixels = x.flatten::<3>(2, 3);
        pixels.mean_dim(2).squeeze_dim(2)
    }
}

/// By what batch norm normalises.
enum Statistics {
    /// The running statistics.
    Running,
    /// Those of the batch, which are gathered here.
    Batch(Vec<Tensor<1>>),
}

/// Batch norm whose running statistics are parameters that no optimiser moves.
#[derive(Module, Debug)]
struct BatchNorm {
    gamma: Param<Tensor<1>>,
    beta: Param<Tensor<1>>,
    running_mean: Param<Tensor<1>>,
    running_var: Param<Tensor<1>>,
}

impl BatchNorm {
    fn new(channels: usize, device: &Device) -> Self {
        let constant =
            |value: Tensor<1>| Param::initialized(ParamId::new(), value).set_require_grad(false);
        Self {
            gamma: Initializer::Ones.init([channels], device),
            beta: Initializer::Zeros.init([channels], device),
            running_mean: constant(Tensor::zeros([channels], device)),
            running_var: constant(Tensor::ones([channels], device)),
        }
    }

    fn forward(&self, x: Tensor<4>, statistics: &mut Statistics) -> Tensor<4> {
        let (gamma, beta) = (self.gamma.val(), self.beta.val());
        match statistics {
            Statistics::Running => {
                let (mean, variance) = (self.running_mean.val(), self.running_var.val());
                batch_norm(x, gamma, beta, mean, variance, EPSILON)
            }
            Statistics::Batch(found) => {
                let [batch, _, height, width] = x.dims();
                let count = (batch * height * width) as f64;
                let normed = batch_norm_train(x, gamma, beta, EPSILON);
                // One value alone has a variance of 0.
                let unbiased = count / (count - 1.0).max(1.0);
                found.push(normed.mean.without_autodiff());
                found.push(normed.variance.without_autodiff() * unbiased);
                normed.output
            }
        }
    }
}

/// 1×1, 3×3 and 1×1 convolutions around a shortcut.
#[derive(Module, Debug)]
struct Bottleneck {
    conv1: Conv2d,
    bn1: BatchNorm,
    conv2: Conv2d,
    bn2: BatchNorm,
    conv3: Conv2d,
    bn3: BatchNorm,
    downsample: Option<Downsample>,
}

/// The shortcut of a block whose output is of another shape.
#[derive(Module, Debug)]
struct Downsample {
    conv: Conv2d,
    norm: BatchNorm,
}

impl Bottleneck {
    fn new(input: usize, middle: usize, stride: usize, device: &Device) -> Self {
        let output = EXPANSION * middle;
        let changes = stride != 1 || input != output;
        Self {
            conv1: convolution([input, middle], 1, 1, device),
            bn1: BatchNorm::new(middle, device),
            conv2: convolution([middle, middle], 3, stride, device),
            bn2: BatchNorm::new(middle, device),
            conv3: convolution([middle, output], 1, 1, device),
            bn3: BatchNorm::new(output, device),
            downsample: changes.then(|| Downsample {
                conv: convolution([input, output], 1, stride, device),
                norm: BatchNorm::new(output, device),
            }),
        }
    }

    fn forward(&self, x: Tensor<4>, statistics: &mut Statistics) -> Tensor<4> {
        let y = self.conv1.forward(x.clone());
        let y = relu(self.bn1.forward(y, statistics));
        let y = self.conv2.forward(y);
        let y = relu(self.bn2.forward(y, statistics));
        let y = self.conv3.forward(y);
        let y = self.bn3.forward(y, statistics);
        let shortcut = match &self.downsample {
            Some(Downsample { conv, norm }) => norm.forward(conv.forward(x), statistics),
            None => x,
        };
        relu(y + shortcut)
    }
}

/// A square convolution without bias that keeps the size, but for its stride.
fn convolution(channels: [usize; 2], size: usize, stride: usize, device: &Device) -> Conv2d {
    let [_, output] = channels;
    // Normal with a deviation of √(2 / (size² · outputs)), as torchvision starts it.
    let deviation = (2.0 / (size * size * output) as f64).sqrt();
    let padding = size / 2;
    Conv2dConfig::new(channels, [size, size])
        .with_stride([stride, stride])
        .with_padding(PaddingConfig2d::Explicit(
            padding, padding, padding, padding,
        ))
        .with_bias(false)
        .with_initializer(Initializer::Normal {
            mean: 0.0,
            std: deviation,
        })
        .init(device)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Distribution, Tolerance};

    use super::*;

    fn small(device: &Device) -> ResNet {
        let config = ResNetConfig {
            image_size: 32,
            width: 4,
            blocks: [1, 2, 1, 1],
        };
        config.check().unwrap();
        config.init(device)
    }

    fn images(count: usize, device: &Device) -> Tensor<4> {
        Tensor::random([count, 3, 32, 32], Distribution::Normal(0.5, 2.0), device)
    }

    #[test]
    fn resnet_50_has_the_published_size() {
        // Burn draws a parameter when it is first read, so that counting costs no memory.
        let network = ResNetConfig::resnet_50().init(&Device::flex());
        // torchvision's resnet50 has 25,557,032 parameters, of which 2,049,000 are its classifier,
        // and 53,120 running statistics.
        assert_eq!(network.num_params(), 25_557_032 - 2_049_000 + 53_120);
        assert_eq!(ResNetConfig::resnet_50().features(), 2048);
    }

    #[test]
    fn training_normalises_by_the_batch_and_inference_by_what_was_gathered() {
        let device = Device::flex();
        let network = small(&device);
        let images = images(64, &device);
        let (features, statistics) = network.forward_train(images.clone());
        assert_eq!(features.dims(), [64, 128]);
        let close = |a: Tensor<2>, b: &Tensor<2>, error: f64| {
            a.into_data()
                .assert_approx_eq::<f32>(&b.to_data(), Tolerance::absolute(error));
        };
        // Without a step the running statistics are those of nothing.
        let gap = (network.forward(images.clone()) - features.clone())
            .abs()
            .max();
        assert!(gap.into_scalar::<f32>() > 1e-2);
        // After many steps on the same batch they are its own, but for the unbiased variance.
        let mut trained = network.clone();
        for _ in 0..200 {
            trained = trained.updated(statistics.clone());
        }
        let scale = features.clone().abs().max().into_scalar::<f32>();
        close(trained.forward(images) / scale, &(features / scale), 0.1);
    }

    #[test]
    fn one_step_takes_a_tenth_of_the_mean_of_its_shards() {
        let device = Device::flex().autodiff();
        let network = small(&device);
        let shards = [2, 3].map(|count| network.forward_train(images(count, &device)).1);
        let both = Tensor::cat(shards.to_vec(), 0);
        let mut updated = network.clone().updated(both.clone());
        let expected = both.mean_dim(0).squeeze_dim::<1>(0);
        let first = updated.norms().next().unwrap();
        let mean = first.running_mean.val().inner();
        let variance = first.running_var.val().inner();
        mean.into_data().assert_approx_eq::<f32>(
            &(expected.clone().narrow(0, 0, 4) * 0.1).into_data(),
            Tolerance::absolute(1e-6),
        );
        variance.into_data().assert_approx_eq::<f32>(
            &(expected.narrow(0, 4, 4) * 0.1 + 0.9).into_data(),
            Tolerance::absolute(1e-5),
        );
        assert!(!first.running_mean.is_require_grad());
        assert!(first.gamma.is_require_grad());
    }
}
