//! A vision transformer: patches, positions, a pre-norm transformer, one vector an image.

use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::transformer::TransformerEncoder;
use burn::nn::{LayerNorm, LayerNormConfig};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::{EMBEDDING_INIT, Pooling, check_heads, transformer};

/// Shape of an [`ImageEncoder`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageEncoderConfig {
    /// Height and width of the images in pixels.
    pub image_size: usize,
    /// Height and width of a patch in pixels; divides `image_size`.
    pub patch_size: usize,
    /// Width of the features.
    pub width: usize,
    /// Number of transformer layers.
    pub layers: usize,
    /// Attention heads a layer; divides `width`.
    pub heads: usize,
    /// How patches become one vector.
    pub pooling: Pooling,
    /// Dropout rate inside the transformer.
    pub dropout: f64,
}

impl ImageEncoderConfig {
    /// Length of the sequence that the transformer sees.
    pub fn tokens(&self) -> usize {
        let patches = (self.image_size / self.patch_size).pow(2);
        patches + usize::from(self.pooling == Pooling::Token)
    }

    /// A new encoder.
    ///
    /// # Panics
    ///
    /// If `patch_size` does not divide `image_size`, or `heads` does not divide `width`.
    pub fn init(&self, device: &Device) -> ImageEncoder {
        let Self {
            image_size,
            patch_size,
            width,
            ..
        } = *self;
        assert!(
            patch_size > 0 && image_size >= patch_size && image_size.is_multiple_of(patch_size),
            "image encoder: image_size {image_size} must be a multiple of patch_size {patch_size}",
        );
        check_heads("image encoder", width, self.heads);
        ImageEncoder {
            patches: Conv2dConfig::new([3, width], [patch_size; 2])
                .with_stride([patch_size; 2])
                .with_bias(false)
                .init(device),
            class_token: (self.pooling == Pooling::Token)
                .then(|| EMBEDDING_INIT.init([1, 1, width], device)),
            positions: EMBEDDING_INIT.init([1, self.tokens(), width], device),
            pre_norm: LayerNormConfig::new(width).init(device),
            transformer: transformer::config(width, self.layers, self.heads, self.dropout)
                .init(device),
            post_norm: LayerNormConfig::new(width).init(device),
        }
    }
}

/// A vision transformer (Dosovitskiy et al., 2021) laid out as in CLIP: patch embedding without
/// bias, learnable positions, a norm before and after the pre-norm transformer.
#[derive(Module, Debug)]
pub struct ImageEncoder {
    patches: Conv2d,
    class_token: Option<Param<Tensor<3>>>,
    positions: Param<Tensor<3>>,
    pre_norm: LayerNorm,
    transformer: TransformerEncoder,
    post_norm: LayerNorm,
}

impl ImageEncoder {
    /// One feature vector an image.
    ///
    /// # Shapes
    ///
    /// - `images`: `[batch, 3, image_size, image_size]`
    /// - output: `[batch, width]`
    ///
    /// # Panics
    ///
    /// If the images are not of the configured size.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let shape = images.dims();
        let mut x = self.embed(images);
        let [batch, _, width] = x.dims();
        if let Some(token) = &self.class_token {
            x = Tensor::cat(vec![token.val().expand([batch, 1, width]), x], 1);
        }
        let [_, tokens, _] = self.positions.dims();
        assert_eq!(
            x.dims()[1],
            tokens,
            "image encoder: images of shape {shape:?} are not of the configured image_size",
        );
        let x = self.pre_norm.forward(x + self.positions.val());
        let x = transformer::forward(&self.transformer, x, None);
        let pooled: Tensor<2> = match self.class_token {
            Some(_) => x.narrow(1, 0, 1).squeeze_dim(1),
            None => x.mean_dim(1).squeeze_dim(1),
        };
        self.post_norm.forward(pooled)
    }

    /// The patches of images, row by row, times the kernels: a convolution without overlaps.
    fn embed(&self, images: Tensor<4>) -> Tensor<3> {
        let [batch, channels, height, across] = images.dims();
        let kernels = self.patches.weight.val();
        let [width, _, patch, _] = kernels.dims();
        let (rows, columns) = (height / patch, across / patch);
        assert_eq!(
            [rows * patch, columns * patch],
            [height, across],
            "image encoder: images of {height} by {across} pixels are no whole patches of {patch}",
        );
        let pixels = channels * patch * patch;
        let patches: Tensor<2> = images
            .reshape([batch, channels, rows, patch, columns, patch])
            .permute([0, 2, 4, 1, 3, 5])
            .reshape([batch * rows * columns, pixels]);
        let kernels = kernels.reshape([width, pixels]).transpose();
        patches
            .matmul(kernels)
            .reshape([batch, rows * columns, width])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Distribution, Tolerance};

    #[test]
    fn patches_are_embedded_by_the_convolution() {
        let config = ImageEncoderConfig {
            image_size: 12,
            patch_size: 4,
            width: 6,
            layers: 0,
            heads: 1,
            pooling: Pooling::Mean,
            dropout: 0.0,
        };
        let device = Device::flex();
        let encoder = config.init(&device);
        let images = Tensor::random([2, 3, 12, 12], Distribution::Default, &device);
        let convolved = encoder.patches.forward(images.clone());
        let expected = convolved.flatten::<3>(2, 3).swap_dims(1, 2).into_data();
        let actual = encoder.embed(images).into_data();
        actual.assert_approx_eq::<f32>(&expected, Tolerance::absolute(1e-5));
    }
}
