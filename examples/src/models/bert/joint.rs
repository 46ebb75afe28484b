//! One transformer for words and for regions of images, as in OSCAR (Li et al., 2020).
//!
//! A region enters as a linear map of its feature and its position, with a token type of its own: 0
//! is a word's, 1 a region's. The names of the objects, which are words too, may stand before the
//! regions of an image: they are of type 1, as OSCAR's second text.
//!
//! Which tokens see each other is the caller's to say. For retrieval no word sees a region, or
//! every pair of an image and a caption would need a pass of its own; then one pass of all tokens
//! under that mask computes the same as a pass of the words and one of the regions, and the two
//! passes are what is done.

use anyhow::{Context, Result, ensure};
use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, LayerNorm, Linear};
use burn::tensor::{Bool, Device, Int, Tensor};
use serde::{Deserialize, Serialize};

use super::{Bert, BertConfig, layer, linear};
use crate::data::regions::{POSITION, Tags};
use crate::models::check;

/// The token type of all that belongs to an image: regions, and the names of its objects.
const IMAGE: usize = 1;

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

    /// The states of regions that see each other, and the tags of their image if there are any,
    /// but no word of a caption.
    ///
    /// # Shapes
    ///
    /// - `regions`: `[batch, regions, feature + 6]`, feature and `x0 y0 x1 y1 w h` of each
    /// - `padding`: `[batch, regions]`, true where `regions` is padding
    /// - output: `[batch, regions, width]`
    ///
    /// # Panics
    ///
    /// If the tags are longer than the context.
    pub fn look(
        &self,
        regions: Tensor<3>,
        padding: Tensor<2, Bool>,
        tags: Option<Tags>,
    ) -> Tensor<3> {
        let x = self.embed(regions);
        let Some(tags) = tags else {
            return self.bert.text.forward(x, Some(padding), None);
        };
        let ([_, length], [_, count, _]) = (tags.tokens.dims(), x.dims());
        let x = Tensor::cat(vec![self.embed_tags(tags.tokens), x], 1);
        let padding = Tensor::cat(vec![tags.padding, padding], 1);
        let states = self.bert.text.forward(x, Some(padding), None);
        states.narrow(1, length, count)
    }

    fn embed(&self, regions: Tensor<3>) -> Tensor<3> {
        let token_type = self.bert.embeddings.token_type(IMAGE);
        self.regions.forward(regions, token_type)
    }

    fn embed_tags(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        self.bert.embeddings.of_type(tokens, IMAGE)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Distribution;

    use super::*;
    use crate::models::bert::layer::Rows;

    /// Two captions of four words, two images of two tags and three regions.
    struct Batch {
        words: Tensor<2, Int>,
        hidden_words: Tensor<2, Bool>,
        tags: Tags,
        regions: Tensor<3>,
        hidden_regions: Tensor<2, Bool>,
    }

    impl Batch {
        fn new(device: &Device) -> Self {
            let words = [[1, 2, 3, 4], [5, 6, 0, 0]];
            let hidden_words = [[false; 4], [false, false, true, true]];
            let tags = Tags {
                tokens: Tensor::from_data([[7, 8], [9, 0]], device),
                padding: Tensor::from_data([[false, false], [false, true]], device),
            };
            let hidden_regions = [[false, false, true], [false; 3]];
            Self {
                words: Tensor::from_data(words, device),
                hidden_words: Tensor::from_data(hidden_words, device),
                tags,
                regions: Tensor::random([2, 3, 11], Distribution::Normal(0.0, 1.0), device),
                hidden_regions: Tensor::from_data(hidden_regions, device),
            }
        }

        /// The states of words and regions after one pass of all tokens, in which words and what
        /// belongs to the image see each other or not.
        fn joint(&self, model: &JointBert, with_tags: bool, is_apart: bool) -> Tensor<3> {
            let device = self.regions.device();
            let mut embedded = vec![model.bert.embeddings.forward(self.words.clone())];
            let mut hidden = vec![self.hidden_words.clone()];
            if with_tags {
                embedded.push(model.embed_tags(self.tags.tokens.clone()));
                hidden.push(self.tags.padding.clone());
            }
            embedded.push(model.embed(self.regions.clone()));
            hidden.push(self.hidden_regions.clone());
            let (embedded, hidden) = (Tensor::cat(embedded, 1), Tensor::cat(hidden, 1));
            let [_, length, width] = embedded.dims();
            let mask = hidden.reshape([2, 1, 1, length]);
            let mut mask = mask.expand([2, 1, length, length]);
            if is_apart {
                let apart = |at: usize| (at / length < 4) != (at % length < 4);
                let apart: Vec<bool> = (0..length * length).map(apart).collect();
                let apart = Tensor::<1, Bool>::from_data(&apart[..], &device);
                let apart = apart.reshape([1, 1, length, length]);
                mask = mask.bool_or(apart.expand([2, 1, length, length]));
            }
            let mut x = Rows::new(embedded, None);
            x.mask = Some(mask);
            for layer in &model.bert.text.layers {
                x = layer.forward(x, None);
            }
            let states = x.rows.reshape([2, length, width]);
            let (words, regions) = (
                states.clone().narrow(1, 0, 4),
                states.narrow(1, length - 3, 3),
            );
            Tensor::cat(vec![words, regions], 1)
        }

        /// Those after a pass of the words and one of what belongs to the image.
        fn apart(&self, model: &JointBert, with_tags: bool) -> Tensor<3> {
            let words = model.read(self.words.clone(), self.hidden_words.clone());
            let tags = with_tags.then(|| self.tags.clone());
            let regions = model.look(self.regions.clone(), self.hidden_regions.clone(), tags);
            Tensor::cat(vec![words, regions], 1)
        }
    }

    /// What is no padding, which has states of its own that nothing reads.
    fn kept(states: &Tensor<3>) -> Vec<f32> {
        let first = states.clone().slice([0..1, 0..4]);
        let second = states.clone().slice([1..2, 0..2]);
        let third = states.clone().slice([0..1, 4..6]);
        let fourth = states.clone().slice([1..2, 4..7]);
        let kept = Tensor::cat(vec![first, second, third, fourth], 1);
        kept.into_data().iter::<f32>().collect()
    }

    fn most_apart(a: &[f32], b: &[f32]) -> f32 {
        let both = a.iter().zip(b);
        both.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    }

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
        let batch = Batch::new(&device);
        for with_tags in [false, true] {
            let [masked, mixed] =
                [true, false].map(|apart| kept(&batch.joint(&model, with_tags, apart)));
            let apart = kept(&batch.apart(&model, with_tags));
            let error = most_apart(&apart, &masked);
            assert!(error <= 1e-5, "tags {with_tags}: {error}");
            let seen = most_apart(&apart, &mixed);
            assert!(seen > 0.1, "without the mask words see regions: {seen}");
        }
        let [without, with] = [false, true].map(|tags| kept(&batch.apart(&model, tags)));
        // Six words of twelve numbers, then the regions, which alone see the tags.
        let words = 6 * 12;
        assert_eq!(without[..words], with[..words]);
        assert!(most_apart(&without[words..], &with[words..]) > 0.1);
    }
}
