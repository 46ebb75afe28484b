//! Fusion of a sentence with two images, as ALBEF does for NLVR2.

use burn::module::Module;
use burn::nn::{Dropout, LayerNorm, Linear};
use burn::tensor::{Bool, Tensor};

use super::layer::{AttentionBlock, BertLayer, FeedForwardBlock, Rows, close};
use super::{BertEncoder, CrossStates};
use crate::models::attention::Attention;
use crate::models::independent_copy;

/// A fusion encoder of twin layers, of which the first looks at one image and the second at
/// another (Li et al., 2021, section 5).
///
/// The two share key and value projections of cross-attention, and nothing else.
#[derive(Module, Debug)]
pub struct TwinFusion {
    pub(super) twins: Vec<Twin>,
}

impl TwinFusion {
    /// Twins that both start from the values of a fusion layer, and train apart from it.
    ///
    /// # Panics
    ///
    /// If `fusion` has layers without cross-attention.
    pub fn from_fusion(fusion: &BertEncoder) -> Self {
        Self {
            twins: fusion.layers.iter().map(Twin::from_layer).collect(),
        }
    }

    /// The paths in twins of a parameter of the fusion layers that they start from, whose own path
    /// is `path`: by them, weights of fusion layers become those that
    /// [`from_fusion`](Self::from_fusion) gives.
    pub fn paths_of(path: &str) -> Vec<String> {
        let layer = path.strip_prefix("layers.");
        let Some((layer, rest)) = layer.and_then(|path| path.split_once('.')) else {
            return Vec::new();
        };
        let path = |twin: &str, rest: &str| format!("twins.{layer}.{twin}.{rest}");
        let mut paths = vec![path("first", rest)];
        let own = [
            ("attention.", "attention."),
            ("cross_attention.attention.query.", "cross_query."),
            ("cross_attention.attention.output.", "cross_output."),
            ("cross_attention.norm.", "cross_norm."),
            ("feed_forward.", "feed_forward."),
        ];
        let second = own.iter().find_map(|(from, to)| {
            let rest = rest.strip_prefix(from)?;
            Some(path("second", &format!("{to}{rest}")))
        });
        paths.extend(second);
        paths
    }

    /// The states of a sentence after its look at two images.
    ///
    /// # Shapes
    ///
    /// - `x`: `[batch, length, width]`
    /// - `padding`: `[batch, length]`, true where no token looks
    /// - `images`: each `[batch, seen, width]`
    /// - output: `[batch, length, width]`
    ///
    /// # Panics
    ///
    /// If the images are of another batch.
    pub fn forward(
        &self,
        x: Tensor<3>,
        padding: Option<Tensor<2, Bool>>,
        images: [Tensor<3>; 2],
    ) -> Tensor<3> {
        let shape = x.dims();
        let mut x = Rows::new(x, padding);
        let images = images.map(|image| CrossStates::from(image).into_rows(shape[0]));
        for twin in &self.twins {
            x = twin.forward(x, &images);
        }
        x.rows.reshape(shape)
    }
}

/// Two layers that share key and value projections of cross-attention.
#[derive(Module, Debug)]
pub(super) struct Twin {
    /// Owns what is shared.
    pub(super) first: BertLayer,
    second: SecondLayer,
}

/// A fusion layer without key and value projections of cross-attention.
#[derive(Module, Debug)]
struct SecondLayer {
    attention: AttentionBlock,
    cross_query: Linear,
    cross_output: Linear,
    cross_norm: LayerNorm,
    dropout: Dropout,
    feed_forward: FeedForwardBlock,
}

impl Twin {
    fn from_layer(layer: &BertLayer) -> Self {
        let cross = cross_attention(layer);
        Self {
            first: independent_copy(layer),
            second: SecondLayer {
                attention: independent_copy(&layer.attention),
                cross_query: independent_copy(&cross.attention.query),
                cross_output: independent_copy(&cross.attention.output),
                cross_norm: independent_copy(&cross.norm),
                dropout: cross.dropout.clone(),
                feed_forward: independent_copy(&layer.feed_forward),
            },
        }
    }

    fn forward(&self, x: Rows, [image0, image1]: &[Rows; 2]) -> Rows {
        let Rows { rows, mask, batch } = self.first.forward(x, Some(image0));
        let second = &self.second;
        let rows = second.attention.look_at_itself(rows, mask.clone(), batch);
        let attention = Attention {
            query: &second.cross_query,
            output: &second.cross_output,
            ..Attention::from(&cross_attention(&self.first).attention)
        };
        let rows = close(attention, &second.dropout, &second.cross_norm, rows, image1);
        let rows = second.feed_forward.forward(rows);
        Rows { rows, mask, batch }
    }
}

fn cross_attention(layer: &BertLayer) -> &AttentionBlock {
    layer
        .cross_attention
        .as_ref()
        .expect("bert: twins need layers with cross-attention")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use burn::module::{ModuleVisitor, Param};
    use burn::tensor::{Device, TensorData};

    use super::*;
    use crate::models::BertConfig;

    /// The parameters of a module by their paths.
    #[derive(Default)]
    struct ByPath {
        path: Vec<String>,
        found: BTreeMap<String, TensorData>,
    }

    impl ModuleVisitor for ByPath {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.to_string());
        }

        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.found.insert(self.path.join("."), param.to_data());
        }
    }

    fn by_path(module: &impl Module) -> BTreeMap<String, TensorData> {
        let mut paths = ByPath::default();
        module.visit(&mut paths);
        paths.found
    }

    #[test]
    fn weights_of_fusion_layers_moved_by_their_paths_are_those_of_new_twins() {
        let config = BertConfig {
            vocabulary: 20,
            context: 8,
            width: 12,
            layers: 4,
            fusion_layers: 2,
            heads: 3,
            intermediate: 20,
            dropout: 0.0,
            initializer_range: 0.02,
        };
        let fusion = config.init(&Device::flex()).fusion;
        let moved = by_path(&fusion).into_iter().flat_map(|(path, value)| {
            let paths = TwinFusion::paths_of(&path).into_iter();
            paths.map(move |path| (path, value.clone()))
        });
        let moved: BTreeMap<_, _> = moved.collect();
        assert_eq!(moved, by_path(&TwinFusion::from_fusion(&fusion)));
        assert!(TwinFusion::paths_of("norm.gamma").is_empty());
    }
}
