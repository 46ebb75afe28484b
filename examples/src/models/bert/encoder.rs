//! A stack of BERT's layers.

use burn::module::Module;
use burn::nn::attention::generate_autoregressive_mask;
use burn::tensor::{Bool, Device, Tensor};

use super::BertConfig;
use super::layer::{BertLayer, Rows};

/// What cross-attention looks at: the tokens of images, or another encoder's states.
#[derive(Clone, Debug)]
pub struct CrossStates {
    /// `[batch, seen, width]`
    pub states: Tensor<3>,
    /// `[batch, seen]`, true where `states` is padding.
    pub padding: Option<Tensor<2, Bool>>,
}

impl From<Tensor<3>> for CrossStates {
    /// States without padding, as those of images.
    fn from(states: Tensor<3>) -> Self {
        Self {
            states,
            padding: None,
        }
    }
}

impl CrossStates {
    /// As rows for the layers of `batch` sequences.
    pub(super) fn into_rows(self, batch: usize) -> Rows {
        let states = Rows::new(self.states, self.padding);
        assert_eq!(
            states.batch, batch,
            "bert: {batch} sentences cannot look at the states of {}",
            states.batch,
        );
        states
    }
}

/// Layers of BERT, all with cross-attention or all without.
#[derive(Module, Debug)]
pub struct BertEncoder {
    pub(super) layers: Vec<BertLayer>,
    pub(super) causal: bool,
}

impl BertEncoder {
    pub(super) fn new(config: &BertConfig, layers: usize, crosses: bool, device: &Device) -> Self {
        let layers = (0..layers).map(|_| BertLayer::new(config, crosses, device));
        Self {
            layers: layers.collect(),
            causal: false,
        }
    }

    /// The same layers, in whose self-attention no token sees a later one.
    pub fn causal(self) -> Self {
        Self {
            causal: true,
            ..self
        }
    }

    /// The states after the last layer.
    ///
    /// # Shapes
    ///
    /// - `x`: `[batch, length, width]`
    /// - `padding`: `[batch, length]`, true where no token looks
    /// - `states`: what layers with cross-attention look at; `None` for layers without
    /// - output: `[batch, length, width]`
    ///
    /// # Panics
    ///
    /// If `states` is given to layers without cross-attention, missing for layers with it, or of
    /// another batch.
    pub fn forward(
        &self,
        x: Tensor<3>,
        padding: Option<Tensor<2, Bool>>,
        states: Option<CrossStates>,
    ) -> Tensor<3> {
        let shape = x.dims();
        let [batch, length, _] = shape;
        let device = x.device();
        let mut x = Rows::new(x, padding);
        if self.causal {
            let later = generate_autoregressive_mask(batch, length, &device)
                .reshape([batch, 1, length, length]);
            x.mask = Some(match x.mask {
                Some(padding) => later.bool_or(padding.expand([batch, 1, length, length])),
                None => later,
            });
        }
        let states = states.map(|states| states.into_rows(batch));
        for layer in &self.layers {
            x = layer.forward(x, states.as_ref());
        }
        x.rows.reshape(shape)
    }
}
