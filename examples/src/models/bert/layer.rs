//! A layer of BERT, in the blocks that a residual and a norm close.

use burn::module::Module;
use burn::nn::attention::{MultiHeadAttention, MultiHeadAttentionConfig};
use burn::nn::{Dropout, DropoutConfig, LayerNorm, LayerNormConfig, Linear};
use burn::tensor::activation::gelu;
use burn::tensor::{Bool, Device, Tensor};

use super::{BertConfig, linear};
use crate::models::attention::Attention;
use crate::models::zero_bias;

/// Added to the variance in BERT's norms.
const EPSILON: f64 = 1e-12;

/// The norm that closes a block.
pub(super) fn norm(width: usize, device: &Device) -> LayerNorm {
    LayerNormConfig::new(width)
        .with_epsilon(EPSILON)
        .init(device)
}

/// Sequences of a batch, whose tokens are the rows of one matrix.
#[derive(Clone)]
pub(super) struct Rows {
    /// `[batch * length, width]`
    pub rows: Tensor<2>,
    /// `[batch, 1, length or 1, length]`, true where no token looks.
    pub mask: Option<Tensor<4, Bool>>,
    /// Number of sequences.
    pub batch: usize,
}

impl Rows {
    /// Sequences of which the padding is not looked at.
    ///
    /// # Shapes
    ///
    /// - `x`: `[batch, length, width]`
    /// - `padding`: `[batch, length]`, true where `x` is padding
    pub fn new(x: Tensor<3>, padding: Option<Tensor<2, Bool>>) -> Self {
        let [batch, length, width] = x.dims();
        Self {
            rows: x.reshape([batch * length, width]),
            mask: padding.map(|padding| padding.reshape([batch, 1, 1, length])),
            batch,
        }
    }
}

/// Attention, closed by residual and norm.
#[derive(Module, Debug)]
pub(super) struct AttentionBlock {
    pub attention: MultiHeadAttention,
    pub norm: LayerNorm,
    pub dropout: Dropout,
}

impl AttentionBlock {
    fn new(config: &BertConfig, device: &Device) -> Self {
        let mut attention = MultiHeadAttentionConfig::new(config.width, config.heads)
            .with_dropout(config.dropout)
            .with_initializer(config.initializer())
            .init(device);
        for linear in [
            &mut attention.query,
            &mut attention.key,
            &mut attention.value,
            &mut attention.output,
        ] {
            zero_bias(linear);
        }
        Self {
            attention,
            norm: norm(config.width, device),
            dropout: DropoutConfig::new(config.dropout).init(),
        }
    }

    /// The tokens after a look at themselves.
    pub fn look_at_itself(
        &self,
        x: Tensor<2>,
        mask: Option<Tensor<4, Bool>>,
        batch: usize,
    ) -> Tensor<2> {
        let states = Rows {
            rows: x.clone(),
            mask,
            batch,
        };
        self.look_at(x, &states)
    }

    /// The tokens after a look at other states.
    pub fn look_at(&self, x: Tensor<2>, states: &Rows) -> Tensor<2> {
        close(
            (&self.attention).into(),
            &self.dropout,
            &self.norm,
            x,
            states,
        )
    }
}

/// What attention gathers, dropped out, on top of `x`, normalised.
pub(super) fn close(
    attention: Attention<'_>,
    dropout: &Dropout,
    norm: &LayerNorm,
    x: Tensor<2>,
    states: &Rows,
) -> Tensor<2> {
    let context = attention.forward(
        x.clone(),
        states.rows.clone(),
        states.batch,
        states.mask.clone(),
    );
    norm.forward(x + dropout.forward(context))
}

/// The feed-forward part, closed by residual and norm.
#[derive(Module, Debug)]
pub(super) struct FeedForwardBlock {
    inner: Linear,
    outer: Linear,
    norm: LayerNorm,
    dropout: Dropout,
}

impl FeedForwardBlock {
    fn new(config: &BertConfig, device: &Device) -> Self {
        Self {
            inner: linear(config, config.width, config.intermediate, device),
            outer: linear(config, config.intermediate, config.width, device),
            norm: norm(config.width, device),
            dropout: DropoutConfig::new(config.dropout).init(),
        }
    }

    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let y = self.outer.forward(gelu(self.inner.forward(x.clone())));
        self.norm.forward(x + self.dropout.forward(y))
    }
}

/// A layer of BERT: self-attention, cross-attention if it is a layer of fusion, feed-forward.
///
/// A residual and a norm close each of them.
#[derive(Module, Debug)]
pub(super) struct BertLayer {
    pub attention: AttentionBlock,
    pub cross_attention: Option<AttentionBlock>,
    pub feed_forward: FeedForwardBlock,
}

impl BertLayer {
    /// A new layer, with cross-attention or without.
    pub fn new(config: &BertConfig, crosses: bool, device: &Device) -> Self {
        Self {
            attention: AttentionBlock::new(config, device),
            cross_attention: crosses.then(|| AttentionBlock::new(config, device)),
            feed_forward: FeedForwardBlock::new(config, device),
        }
    }

    /// The tokens after this layer.
    pub fn forward(&self, x: Rows, states: Option<&Rows>) -> Rows {
        let Rows { rows, mask, batch } = x;
        let mut rows = self.attention.look_at_itself(rows, mask.clone(), batch);
        match (&self.cross_attention, states) {
            (Some(block), Some(states)) => rows = block.look_at(rows, states),
            (None, None) => {}
            (Some(_), None) => panic!("bert: a layer with cross-attention has nothing to look at"),
            (None, Some(_)) => {
                panic!("bert: a layer without cross-attention cannot look at states")
            }
        }
        let rows = self.feed_forward.forward(rows);
        Rows { rows, mask, batch }
    }
}
