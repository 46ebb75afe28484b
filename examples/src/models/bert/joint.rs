//! One transformer for words and for regions of images, as in OSCAR (Li et al., 2020).
//!
//! A region enters as a linear map of its feature and its position, with a token type of its own: 0
//! is a word's, 1 a region's. Which tokens see each other is the caller's to say. For retrieval no
//! word sees a region, or every pair of an image and a caption would need a pass of its own; then
//! one pass of all tokens under that mask computes the same as a pass of the words and one of the
//! regions, and the two passes are what is done.

use anyhow::{Context, Result, ensure};
use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, LayerNorm, Linear};
use burn::tensor::{Bool, Device, Int, Tensor};
use serde::{Deserialize, Serialize};

use super::{Bert, BertConfig, layer, linear};
use crate::data::regions::POSITION;
use crate::models::check;

/// The token type of regions.
const REGION: usize = 1;

/// Shape of a [`JointBert`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JointBertConfig {
    /// Width of a region's feature, without its position; 2048 in OSCAR, whose detector is a Faster
    /// R-CNN.
    pub feature: usize,
    /// The transformer, which has no layers of fusion.
    pub bert: BertConfig,
}

impl JointBertConfig {
    /// Checks every size, and that the model is not absurdly large.
    ///
    /// # Errors
    ///
    /// Names the setting that is out of range, its value and the range.
    pub fn check(&self) -> Result<()> {
        check::size("feature", self.feature, 65_536)?;
        self.bert.check().context("bert")?;
        let fusion = self.bert.fusion_layers;
        ensure!(
            fusion == 0,
            "bert.fusion_layers = {fusion} must be 0: all layers read words and regions alike"
        );
        check::parameters((self.feature * self.bert.width) as f64)
    }

    /// A new model.
    ///
    /// # Panics
    ///
    /// If `heads` does not divide `width`.
    pub fn init(&self, device: &Device) -> JointBert {
        JointBert {
            bert: self.bert.init(device),
            regions: RegionEmbeddings::new(self, device),
        }
    }
}

/// What the first layer sees of regions: their features and positions by a linear layer, with the
/// token type of regions, normalised.
#[derive(Module, Debug)]
pub struct RegionEmbeddings {
    projection: Linear,
    norm: LayerNorm,
    dropout: Dropout,
}

impl RegionEmbeddings {
    fn new(config: &JointBertConfig, device: &Device) -> Self {
        let bert = &config.bert;
        Self {
            projection: linear(bert, config.feature + POSITION, bert.width, device),
            norm: layer::norm(bert.width, device),
            dropout: DropoutConfig::new(bert.dropout).init(),
        }
    }

    fn forward(&self, regions: Tensor<3>, token_type: Tensor<2>) -> Tensor<3> {
        let x = self.projection.forward(regions) + token_type.unsqueeze();
        self.dropout.forward(self.norm.forward(x))
    }
}

/// BERT that reads words and regions, each modality for itself.
#[derive(Module, Debug)]
pub struct JointBert {
    /// The transformer, and what its first layer sees of words.
    pub bert: Bert,
    /// What its first layer sees of regions.
    pub regions: RegionEmbeddings,
}

impl JointBert {
    /// The states of words that see no region.
    ///
    /// # Shapes
    ///
    /// - `tokens`: `[batch, length]`
    /// - `padding`: `[batch, length]`, true where `tokens` is padding
    /// - output: `[batch, length, width]`
    ///
    /// # Panics
    ///
    /// If the sentences are longer than the context.
    pub fn read(&self, tokens: Tensor<2, Int>, padding: Tensor<2, Bool>) -> Tensor<3> {
        self.bert.read(tokens, padding)
    }

    /// The states of regions that see no word.
    ///
    /// # Shapes
    ///
    /// - `regions`: `[batch, regions, feature + 6]`, feature and `x0 y0 x1 y1 w h` of each
    /// - `padding`: `[batch, regions]`, true where `regions` is padding
    /// - output: `[batch, regions, width]`
    pub fn look(&self, regions: Tensor<3>, padding: Tensor<2, Bool>) -> Tensor<3> {
        let x = self.embed(regions);
        self.bert.text.forward(x, Some(padding), None)
    }

    fn embed(&self, regions: Tensor<3>) -> Tensor<3> {
        let token_type = self.bert.embeddings.token_type(REGION);
        self.regions.forward(regions, token_type)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Distribution, Tolerance};

    use super::*;
    use crate::models::bert::layer::Rows;

    #[test]
    fn two_passes_are_one_pass_in_which_no_word_sees_a_region() {
        let device = Device::flex();
        let config = JointBertConfig {
            feature: 5,
            bert: BertConfig {
                vocabulary: 20,
                context: 6,
                width: 12,
                layers: 3,
                fusion_layers: 0,
                heads: 3,
                intermediate: 20,
                dropout: 0.0,
                initializer_range: 0.5,
            },
        };
        let model = config.init(&device);
        let tokens = [[1, 2, 3, 4], [5, 6, 0, 0]];
        let tokens = Tensor::<2, Int>::from_data(tokens, &device);
        let words = [[false; 4], [false, false, true, true]];
        let words = Tensor::<2, Bool>::from_data(words, &device);
        let objects = [[false, false, true], [false; 3]];
        let objects = Tensor::<2, Bool>::from_data(objects, &device);
        let regions = Tensor::random([2, 3, 11], Distribution::Normal(0.0, 1.0), &device);

        let padding = Tensor::cat(vec![words.clone(), objects.clone()], 1);
        let embedded = [
            model.bert.embeddings.forward(tokens.clone()),
            model.embed(regions.clone()),
        ];
        let joint = |mask: Tensor<4, Bool>| {
            let mut x = Rows::new(Tensor::cat(embedded.to_vec(), 1), None);
            x.mask = Some(mask);
            for layer in &model.bert.text.layers {
                x = layer.forward(x, None);
            }
            x.rows.reshape([2, 7, 12])
        };
        let padding = padding.reshape([2, 1, 1, 7]).expand([2, 1, 7, 7]);
        let apart: Vec<bool> = (0..49).map(|at| (at / 7 < 4) != (at % 7 < 4)).collect();
        let apart = Tensor::<1, Bool>::from_data(&apart[..], &device);
        let apart = apart.reshape([1, 1, 7, 7]).expand([2, 1, 7, 7]);
        let masked = joint(padding.clone().bool_or(apart));
        let mixed = joint(padding);

        let words = model.read(tokens, words);
        let objects = model.look(regions, objects);
        // Padding has states of its own, which nothing reads.
        let kept = |states: &Tensor<3>| {
            let first = states.clone().slice([0..1, 0..4]);
            let second = states.clone().slice([1..2, 0..2]);
            let third = states.clone().slice([0..1, 4..6]);
            let fourth = states.clone().slice([1..2, 4..7]);
            Tensor::cat(vec![first, second, third, fourth], 1).into_data()
        };
        let apart = kept(&Tensor::cat(vec![words, objects], 1));
        apart.assert_approx_eq::<f32>(&kept(&masked), Tolerance::absolute(1e-5));
        let mixed = kept(&mixed);
        let seen = apart.iter::<f32>().zip(mixed.iter::<f32>());
        let most = seen.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(most > 0.1, "without the mask words see regions: {most}");
    }
}
