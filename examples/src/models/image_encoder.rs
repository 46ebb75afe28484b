//! A vision transformer: patches, positions, a pre-norm transformer, one vector an image.

use anyhow::{Result, ensure};
use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::transformer::TransformerEncoder;
use burn::nn::{LayerNorm, LayerNormConfig};
use burn::tensor::module::interpolate;
use burn::tensor::ops::{InterpolateMode, InterpolateOptions};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::{Activation, EMBEDDING_INIT, Pooling, check, check_heads, transformer};

/// Added to variances in DeiT's norms.
const DEIT_EPSILON: f64 = 1e-6;

/// How an [`ImageEncoder`] is laid out around its pre-norm transformer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageLayout {
    /// As in CLIP: patches without bias, a norm before the transformer, pooling before the last
    /// norm. Adds 1e-5 to variances.
    #[default]
    Clip,
    /// As in DeiT, timm and ALBEF: patches with bias, no norm before the transformer, pooling
    /// after the last norm. Adds 1e-6 to variances; starts matrices with a deviation of 0.02 and
    /// biases at zero.
    Deit,
}

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
    /// How the encoder is laid out. Default: as in CLIP.
    #[serde(default)]
    pub layout: ImageLayout,
    /// Activation of the feed-forward parts. Default: GELU.
    #[serde(default)]
    pub activation: Activation,
}

impl ImageEncoderConfig {
    /// The shape of ViT-B/16 as in ALBEF's pretraining: DeiT's layout at 256 pixels.
    pub fn deit_b_16() -> Self {
        Self {
            image_size: 256,
            patch_size: 16,
            width: 768,
            layers: 12,
            heads: 12,
            pooling: Pooling::Token,
            dropout: 0.0,
            layout: ImageLayout::Deit,
            activation: Activation::Gelu,
        }
    }

    /// Checks every size by itself, under names that start with `image.`.
    ///
    /// # Errors
    ///
    /// Names the setting that is out of range, its value and the range.
    pub fn check(&self) -> Result<()> {
        for (name, value, most) in [
            ("image.image_size", self.image_size, 4096),
            ("image.patch_size", self.patch_size, 4096),
            ("image.width", self.width, 65_536),
            ("image.heads", self.heads, 65_536),
        ] {
            check::size(name, value, most)?;
        }
        check::multiple(
            "image.image_size",
            self.image_size,
            "image.patch_size",
            self.patch_size,
        )?;
        check::multiple("image.width", self.width, "image.heads", self.heads)?;
        ensure!(
            self.pooling != Pooling::Last,
            "image.pooling = \"last\" is for captions: give \"token\" or \"mean\""
        );
        check::layers("image.layers", self.layers)?;
        check::dropout("image.dropout", self.dropout)
    }

    /// About how many parameters the encoder has.
    pub(super) fn about_parameters(&self) -> f64 {
        let patches = 3.0 * (self.patch_size as f64).powi(2) * self.width as f64;
        transformer::about_parameters(self.layers, self.width) + patches
    }

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
        let deit = self.layout == ImageLayout::Deit;
        let mut transformer = transformer::config(width, self.layers, self.heads, self.dropout);
        let mut norm = LayerNormConfig::new(width);
        if deit {
            transformer = transformer
                .with_initializer(EMBEDDING_INIT)
                .with_layer_norm_eps(DEIT_EPSILON);
            norm = norm.with_epsilon(DEIT_EPSILON);
        }
        let mut encoder = ImageEncoder {
            patches: Conv2dConfig::new([3, width], [patch_size; 2])
                .with_stride([patch_size; 2])
                .with_bias(deit)
                .init(device),
            class_token: (self.pooling == Pooling::Token)
                .then(|| EMBEDDING_INIT.init([1, 1, width], device)),
            positions: EMBEDDING_INIT.init([1, self.tokens(), width], device),
            pre_norm: (!deit).then(|| norm.init(device)),
            transformer: transformer.init(device),
            post_norm: norm.init(device),
            activation: self.activation,
        };
        if deit {
            transformer::zero_biases(&mut encoder.transformer);
        }
        encoder
    }
}

/// A vision transformer (Dosovitskiy et al., 2021): patch embedding, learnable positions, a
/// pre-norm transformer, a last norm; laid out as in CLIP or as in DeiT, see [`ImageLayout`].
#[derive(Module, Debug)]
pub struct ImageEncoder {
    patches: Conv2d,
    class_token: Option<Param<Tensor<3>>>,
    positions: Param<Tensor<3>>,
    /// In CLIP's layout alone.
    pre_norm: Option<LayerNorm>,
    transformer: TransformerEncoder,
    post_norm: LayerNorm,
    #[module(skip)]
    activation: Activation,
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
        let x = self.encode(images);
        // The norm is of every token by itself, so the others need none if one is picked.
        let x = match (&self.class_token, &self.pre_norm) {
            (Some(_), _) => self.post_norm.forward(x.narrow(1, 0, 1)),
            (None, Some(_)) => self.post_norm.forward(x.mean_dim(1)),
            (None, None) => self.post_norm.forward(x).mean_dim(1),
        };
        x.squeeze_dim(1)
    }

    /// The features of all tokens after the last norm: of the class token if there is one, then of
    /// the patches, row by row.
    ///
    /// # Shapes
    ///
    /// - `images`: `[batch, 3, image_size, image_size]`
    /// - output: `[batch, tokens, width]`, see [`ImageEncoderConfig::tokens`]
    ///
    /// # Panics
    ///
    /// If the images are not of the configured size.
    pub fn tokens(&self, images: Tensor<4>) -> Tensor<3> {
        self.post_norm.forward(self.encode(images))
    }

    /// This encoder for images of another size: the position embeddings of the patches are
    /// interpolated bicubically, the rest stays.
    ///
    /// # Panics
    ///
    /// If the patch size does not divide `image_size`.
    pub fn resized(self, image_size: usize) -> Self {
        let [_, _, patch_size, _] = self.patches.weight.dims();
        assert!(
            image_size >= patch_size && image_size.is_multiple_of(patch_size),
            "image encoder: image_size {image_size} must be a multiple of patch_size {patch_size}",
        );
        let first = usize::from(self.class_token.is_some());
        let positions = self
            .positions
            .map(|positions| resize_positions(positions, first, image_size / patch_size));
        Self { positions, ..self }
    }

    /// The tokens after the transformer, before the last norm.
    fn encode(&self, images: Tensor<4>) -> Tensor<3> {
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
        let mut x = x + self.positions.val();
        if let Some(norm) = &self.pre_norm {
            x = norm.forward(x);
        }
        transformer::forward(&self.transformer, self.activation, x, None)
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
        let mut x = patches.matmul(kernels);
        if let Some(bias) = &self.patches.bias {
            x = x + bias.val().unsqueeze();
        }
        x.reshape([batch, rows * columns, width])
    }
}

/// Position embeddings of a square of patches, resized to `side` patches a side.
///
/// The first `first` positions are of no patch and stay. As `interpolate` of PyTorch with
/// `mode="bicubic", align_corners=False`. The result is a leaf of the graph, as parameters are.
pub(crate) fn resize_positions(positions: Tensor<3>, first: usize, side: usize) -> Tensor<3> {
    let [_, tokens, width] = positions.dims();
    let old_side = (tokens - first).isqrt();
    if side == old_side {
        return positions;
    }
    let trains = positions.is_require_grad();
    let positions = positions.detach();
    let patches = positions.clone().narrow(1, first, tokens - first);
    let squares = patches
        .reshape([1, old_side, old_side, width])
        .permute([0, 3, 1, 2]);
    let options = InterpolateOptions::new(InterpolateMode::Bicubic)
        .with_align_corners(false)
        .with_output_size([side; 2]);
    let mut resized = interpolate(squares, options)
        .permute([0, 2, 3, 1])
        .reshape([1, side * side, width]);
    if first > 0 {
        resized = Tensor::cat(vec![positions.narrow(1, 0, first), resized], 1);
    }
    resized.detach().set_require_grad(trains)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Distribution, Tolerance};

    fn config(layout: ImageLayout, pooling: Pooling) -> ImageEncoderConfig {
        ImageEncoderConfig {
            image_size: 12,
            patch_size: 4,
            width: 6,
            layers: 2,
            heads: 2,
            pooling,
            dropout: 0.0,
            layout,
            activation: Activation::Gelu,
        }
    }

    fn images(size: usize) -> Tensor<4> {
        Tensor::random([2, 3, size, size], Distribution::Default, &Device::flex())
    }

    fn assert_close<const D: usize>(actual: Tensor<D>, expected: Tensor<D>) {
        let (actual, expected) = (actual.into_data(), expected.into_data());
        actual.assert_approx_eq::<f32>(&expected, Tolerance::absolute(1e-5));
    }

    #[test]
    fn patches_are_embedded_by_the_convolution() {
        for layout in [ImageLayout::Clip, ImageLayout::Deit] {
            let encoder = config(layout, Pooling::Mean).init(&Device::flex());
            let images = images(12);
            let convolved = encoder.patches.forward(images.clone());
            let expected = convolved.flatten::<3>(2, 3).swap_dims(1, 2);
            assert_close(encoder.embed(images), expected);
        }
    }

    #[test]
    fn the_first_token_is_the_feature_of_an_image_with_a_class_token() {
        for layout in [ImageLayout::Clip, ImageLayout::Deit] {
            let encoder = config(layout, Pooling::Token).init(&Device::flex());
            let images = images(12);
            let tokens = encoder.tokens(images.clone());
            assert_eq!(tokens.dims(), [2, 1 + 9, 6]);
            assert_close(
                encoder.forward(images),
                tokens.narrow(1, 0, 1).squeeze_dim(1),
            );
        }
    }

    #[test]
    fn deit_pools_after_the_last_norm_and_clip_before_it() {
        let images = images(12);
        let mean_of_tokens = |encoder: &ImageEncoder| {
            let tokens = encoder.tokens(images.clone());
            tokens.mean_dim(1).squeeze_dim::<2>(1)
        };
        let deit = config(ImageLayout::Deit, Pooling::Mean).init(&Device::flex());
        assert_close(deit.forward(images.clone()), mean_of_tokens(&deit));
        let clip = config(ImageLayout::Clip, Pooling::Mean).init(&Device::flex());
        let gap = (clip.forward(images.clone()) - mean_of_tokens(&clip)).abs();
        assert!(gap.max().into_scalar::<f32>() > 1e-3);
    }

    #[test]
    fn a_resized_encoder_takes_images_of_the_new_size_and_keeps_what_is_of_no_patch() {
        let device = Device::flex().autodiff();
        for pooling in [Pooling::Token, Pooling::Mean] {
            let encoder = config(ImageLayout::Deit, pooling).init(&device);
            let (id, first) = (
                encoder.positions.id,
                encoder.positions.val().narrow(1, 0, 1),
            );
            let resized = encoder.resized(20);
            let first_now = resized.positions.val().narrow(1, 0, 1);
            if pooling == Pooling::Token {
                assert_close(first_now, first);
            }
            let tokens = 25 + usize::from(pooling == Pooling::Token);
            let tracked = Tensor::from_inner(images(20));
            let output = resized.tokens(tracked);
            assert_eq!(output.dims(), [2, tokens, 6]);
            // The positions are still the parameter, and train.
            assert_eq!(resized.positions.id, id);
            let gradients = output.powi_scalar(3).sum().backward();
            assert!(resized.positions.val().grad(&gradients).is_some());
        }
    }

    #[test]
    fn the_same_size_changes_nothing() {
        let encoder = config(ImageLayout::Deit, Pooling::Token).init(&Device::flex());
        let expected = encoder.positions.to_data();
        assert_eq!(encoder.resized(12).positions.to_data(), expected);
    }

    #[test]
    #[should_panic(expected = "image_size 18 must be a multiple of patch_size 4")]
    fn a_size_of_no_whole_patches_panics() {
        let encoder = config(ImageLayout::Deit, Pooling::Token).init(&Device::flex());
        encoder.resized(18);
    }

    #[test]
    fn a_configuration_without_a_layout_is_clips() {
        let text = r#"{"image_size":12,"patch_size":4,"width":6,"layers":2,"heads":2,
            "pooling":"token","dropout":0.0}"#;
        let read: ImageEncoderConfig = serde_json::from_str(text).unwrap();
        assert_eq!(read, config(ImageLayout::Clip, Pooling::Token));
        let deit = config(ImageLayout::Deit, Pooling::Token);
        let text = serde_json::to_string(&deit).unwrap();
        assert!(text.contains(r#""layout":"deit""#), "{text}");
        assert_eq!(
            serde_json::from_str::<ImageEncoderConfig>(&text).unwrap(),
            deit
        );
    }

    #[test]
    fn deit_starts_with_biases_of_zero() {
        let encoder = config(ImageLayout::Deit, Pooling::Token).init(&Device::flex());
        for layer in &encoder.transformer.layers {
            for linear in [&layer.mha.query, &layer.pwff.linear_outer] {
                let bias = linear.bias.as_ref().unwrap().val();
                assert_eq!(bias.abs().max().into_scalar::<f32>(), 0.0);
            }
        }
    }
}
