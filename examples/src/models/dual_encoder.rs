//! Two encoders, two linear projections into one space, and the objective that aligns them.

use anyhow::Result;
use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Bool, Device, Int, Tensor};
use burn_contrastive::objective::Objective;
use serde::{Deserialize, Serialize};

use super::{
    Activation, ClipResNetConfig, ImageEncoderConfig, ImageLayout, ImageTower, ImageTowerConfig,
    Pooling, TextEncoder, TextEncoderConfig, check,
};

/// Names that [`DualEncoderConfig::preset`] knows.
pub const PRESETS: [&str; 4] = ["tiny", "vit-b-32", "vit-b-16", "rn50"];

/// Shape of a [`DualEncoder`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DualEncoderConfig {
    /// The image encoder.
    pub image: ImageTowerConfig,
    /// The text encoder.
    pub text: TextEncoderConfig,
    /// Width of the space that both encoders are projected into.
    pub embedding: usize,
}

impl DualEncoderConfig {
    /// Checks every size, and that the model is not absurdly large.
    ///
    /// # Errors
    ///
    /// Names the setting that is out of range, its value and the range.
    pub fn check(&self) -> Result<()> {
        let (image, text) = (&self.image, &self.text);
        image.check()?;
        text.check()?;
        check::size("embedding", self.embedding, 65_536)?;
        let projections = (image.width() + text.width) as f64 * self.embedding as f64;
        check::parameters(image.about_parameters() + text.about_parameters() + projections)
    }

    /// The configuration of that name, if there is one (see [`PRESETS`]).
    pub fn preset(name: &str) -> Option<Self> {
        match name {
            "tiny" => Some(Self::tiny()),
            "vit-b-32" => Some(Self::vit_b_32()),
            "vit-b-16" => Some(Self::vit_b_16()),
            "rn50" => Some(Self::rn50()),
            _ => None,
        }
    }

    /// Small enough to train on two CPU cores within minutes.
    pub fn tiny() -> Self {
        Self {
            image: ImageTowerConfig::Vit(ImageEncoderConfig {
                image_size: 64,
                patch_size: 16,
                width: 96,
                layers: 3,
                heads: 4,
                pooling: Pooling::Mean,
                dropout: 0.0,
                layout: ImageLayout::Clip,
                activation: Activation::Gelu,
            }),
            text: TextEncoderConfig {
                vocabulary: 512,
                context: 48,
                width: 96,
                layers: 2,
                heads: 4,
                pooling: Pooling::Mean,
                dropout: 0.0,
                activation: Activation::Gelu,
            },
            embedding: 64,
        }
    }

    /// The shapes of CLIP ViT-B/32 (Radford et al., 2021, table 20): 151,277,313 parameters.
    ///
    /// The activation is GELU, as in `ViT-B-32` of open_clip; OpenAI's released weights were
    /// trained with QuickGELU (`x · sigmoid(1.702 x)`).
    pub fn vit_b_32() -> Self {
        Self {
            image: ImageTowerConfig::Vit(vit_b_32_image()),
            text: TextEncoderConfig {
                vocabulary: 49_408,
                context: 77,
                width: 512,
                layers: 12,
                heads: 8,
                pooling: Pooling::Token,
                dropout: 0.0,
                activation: Activation::Gelu,
            },
            embedding: 512,
        }
    }

    /// The shapes of CLIP ViT-B/16: [`vit_b_32`](Self::vit_b_32) with patches of half the size,
    /// 149,620,737 parameters.
    pub fn vit_b_16() -> Self {
        let config = Self::vit_b_32();
        Self {
            image: ImageTowerConfig::Vit(ImageEncoderConfig {
                patch_size: 16,
                ..vit_b_32_image()
            }),
            ..config
        }
    }

    /// The shapes of CLIP RN50 (table 19 of its paper): 102,007,137 parameters.
    pub fn rn50() -> Self {
        Self {
            image: ImageTowerConfig::ResNet(ClipResNetConfig::rn50()),
            embedding: 1024,
            ..Self::vit_b_32()
        }
    }

    /// Whether training draws dropout masks.
    pub fn has_dropout(&self) -> bool {
        self.image.has_dropout() || self.text.dropout > 0.0
    }

    /// A new dual encoder with the objective it is trained by.
    ///
    /// # Panics
    ///
    /// On sizes that do not fit together, see [`ImageEncoderConfig::init`] and
    /// [`TextEncoderConfig::init`].
    pub fn init(&self, objective: Objective, device: &Device) -> DualEncoder {
        let projection = |width, bias| {
            let config = LinearConfig::new(width, self.embedding);
            config.with_bias(bias).init(device)
        };
        let bias = self.image.has_projection_bias();
        DualEncoder {
            image: self.image.init(device),
            text: self.text.init(device),
            image_projection: projection(self.image.width(), bias),
            text_projection: projection(self.text.width, false),
            objective,
        }
    }
}

/// The image encoder of ViT-B/32.
fn vit_b_32_image() -> ImageEncoderConfig {
    ImageEncoderConfig {
        image_size: 224,
        patch_size: 32,
        width: 768,
        layers: 12,
        heads: 12,
        pooling: Pooling::Token,
        dropout: 0.0,
        layout: ImageLayout::Clip,
        activation: Activation::Gelu,
    }
}

/// An image encoder and a text encoder that meet in one space.
#[derive(Module, Debug)]
pub struct DualEncoder {
    image: ImageTower,
    text: TextEncoder,
    image_projection: Linear,
    text_projection: Linear,
    /// What the two encoders are trained by; it owns the logit scale, if it has one.
    pub objective: Objective,
}

impl DualEncoder {
    /// Embeddings of images, not normalised.
    ///
    /// # Shapes
    ///
    /// - `images`: `[batch, 3, image_size, image_size]`
    /// - output: `[batch, embedding]`
    pub fn embed_image(&self, images: Tensor<4>) -> Tensor<2> {
        self.image_projection.forward(self.image.forward(images))
    }

    /// Embeddings of images in training, and the statistics of the image encoder's norms, if it
    /// has such, for [`follow`](Self::follow): `[1, values]` without autodiff.
    pub fn embed_image_train(&self, images: Tensor<4>) -> (Tensor<2>, Option<Tensor<2>>) {
        let (features, statistics) = self.image.forward_train(images);
        (self.image_projection.forward(features), statistics)
    }

    /// The model after a step whose batches had these statistics, which its norms follow.
    pub fn follow(self, batches: Vec<Tensor<2>>) -> Self {
        Self {
            image: self.image.follow(batches),
            ..self
        }
    }

    /// Embeddings of captions, not normalised.
    ///
    /// # Shapes
    ///
    /// - `tokens`: `[batch, length]`
    /// - `padding`: `[batch, length]`, true where `tokens` is padding
    /// - output: `[batch, embedding]`
    pub fn embed_text(&self, tokens: Tensor<2, Int>, padding: Tensor<2, Bool>) -> Tensor<2> {
        self.text_projection
            .forward(self.text.forward(tokens, padding))
    }

    /// The parts before the objective, with their numbers of parameters.
    pub fn towers(&self) -> [(&'static str, usize); 3] {
        let projections = self.image_projection.num_params() + self.text_projection.num_params();
        [
            ("image encoder", self.image.trained_parameters()),
            ("text encoder", self.text.num_params()),
            ("projections", projections),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Distribution, Tolerance};
    use burn_contrastive::objective::ObjectiveConfig;

    fn small(pooling: Pooling) -> DualEncoderConfig {
        let mut config = DualEncoderConfig::tiny();
        config.image = ImageTowerConfig::Vit(ImageEncoderConfig {
            image_size: 16,
            patch_size: 8,
            width: 16,
            layers: 2,
            heads: 4,
            pooling,
            ..vit_b_32_image()
        });
        config.text = TextEncoderConfig {
            vocabulary: 20,
            context: 8,
            width: 12,
            layers: 2,
            pooling,
            ..config.text
        };
        config.embedding = 10;
        config
    }

    fn init(config: &DualEncoderConfig) -> DualEncoder {
        let objective = ObjectiveConfig::named("info-nce").unwrap();
        config.init(objective.init(&Device::flex()), &Device::flex())
    }

    #[test]
    fn presets_have_the_published_parameter_counts() {
        // Burn allocates a parameter on first use, so counting the large ones costs no memory.
        assert_eq!(
            init(&DualEncoderConfig::vit_b_32()).num_params(),
            151_277_313
        );
        assert_eq!(
            init(&DualEncoderConfig::vit_b_16()).num_params(),
            149_620_737
        );
        let towers = init(&DualEncoderConfig::rn50()).towers();
        let parameters: usize = towers.iter().map(|(_, parameters)| parameters).sum();
        // Without the logit scale.
        assert_eq!(parameters, 102_007_137 - 1);
    }

    #[test]
    fn every_preset_is_known_by_its_name() {
        for name in PRESETS {
            assert!(DualEncoderConfig::preset(name).is_some(), "{name}");
        }
        assert!(DualEncoderConfig::preset("vit-b-64").is_none());
    }

    #[test]
    fn images_and_captions_are_embedded_in_one_space() {
        let device = Device::flex();
        for pooling in [Pooling::Token, Pooling::Mean] {
            let model = init(&small(pooling));
            let images = Tensor::random([3, 3, 16, 16], Distribution::Default, &device);
            assert_eq!(model.embed_image(images).dims(), [3, 10]);
            let tokens = Tensor::from_data([[1, 2, 3], [4, 5, 6]], &device);
            let padding = Tensor::from_data([[false; 3]; 2], &device);
            assert_eq!(model.embed_text(tokens, padding).dims(), [2, 10]);
        }
    }

    #[test]
    fn padding_does_not_change_a_caption() {
        let device = Device::flex();
        for pooling in [Pooling::Token, Pooling::Mean] {
            let model = init(&small(pooling));
            let short = model.embed_text(
                Tensor::from_data([[7, 8, 9]], &device),
                Tensor::from_data([[false; 3]], &device),
            );
            // Whatever ids stand under the padding.
            for filler in [0, 13] {
                let long = model.embed_text(
                    Tensor::from_data([[7, 8, 9, filler, filler]], &device),
                    Tensor::from_data([[false, false, false, true, true]], &device),
                );
                long.into_data()
                    .assert_approx_eq::<f32>(&short.to_data(), Tolerance::absolute(1e-5));
            }
        }
    }

    #[test]
    fn the_order_and_position_of_tokens_matter() {
        let device = Device::flex();
        let model = init(&small(Pooling::Mean));
        let padding = || Tensor::<2, Bool>::from_data([[false; 3]], &device);
        let forwards = model.embed_text(Tensor::from_data([[7, 8, 9]], &device), padding());
        let backwards = model.embed_text(Tensor::from_data([[9, 8, 7]], &device), padding());
        let gap = (forwards - backwards).abs().max().into_scalar::<f32>();
        assert!(gap > 1e-4, "captions in another order embed alike: {gap}");

        let image = Tensor::<4>::random([1, 3, 16, 16], Distribution::Default, &device);
        let there = model.embed_image(image.clone());
        let mirrored = model.embed_image(image.flip([3]));
        let gap = (there - mirrored).abs().max().into_scalar::<f32>();
        assert!(gap > 1e-4, "a mirrored image embeds alike: {gap}");
    }

    #[test]
    #[should_panic(expected = "captions of 9 tokens exceed the context of 8")]
    fn too_long_a_caption_panics() {
        let device = Device::flex();
        init(&small(Pooling::Mean)).embed_text(
            Tensor::zeros([1, 9], &device),
            Tensor::from_data([[false; 9]], &device),
        );
    }

    #[test]
    #[should_panic(expected = "not of the configured image_size")]
    fn another_image_size_panics() {
        init(&small(Pooling::Mean)).embed_image(Tensor::zeros([1, 3, 24, 24], &Device::flex()));
    }
}
