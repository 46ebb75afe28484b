//! Small networks on top of the encoders' features.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};

/// From the features of an encoder into the space that two encoders share.
#[derive(Module, Debug)]
pub struct ProjectionHead {
    hidden: Option<Linear>,
    output: Linear,
}

impl ProjectionHead {
    /// One matrix, with a bias (ALBEF) or without (CLIP).
    pub fn linear(input: usize, output: usize, bias: bool, device: &Device) -> Self {
        Self {
            hidden: None,
            output: LinearConfig::new(input, output)
                .with_bias(bias)
                .init(device),
        }
    }

    /// Two layers with a ReLU between them.
    pub fn mlp(input: usize, hidden: usize, output: usize, device: &Device) -> Self {
        Self {
            hidden: Some(LinearConfig::new(input, hidden).init(device)),
            output: LinearConfig::new(hidden, output).init(device),
        }
    }

    /// Embeddings, not normalised.
    ///
    /// # Shapes
    ///
    /// - `features`: `[batch, input]`
    /// - output: `[batch, output]`
    pub fn forward(&self, features: Tensor<2>) -> Tensor<2> {
        let features = match &self.hidden {
            Some(hidden) => relu(hidden.forward(features)),
            None => features,
        };
        self.output.forward(features)
    }
}

/// Whether a sentence and an image belong together, from the fused state of the first token.
#[derive(Module, Debug)]
pub struct MatchingHead {
    linear: Linear,
}

impl MatchingHead {
    /// A new head on features of that width.
    pub fn new(width: usize, device: &Device) -> Self {
        Self {
            linear: LinearConfig::new(width, 2).init(device),
        }
    }

    /// Logits of "no match" (column 0) and "match" (column 1).
    ///
    /// # Shapes
    ///
    /// - `features`: `[batch, width]`
    /// - output: `[batch, 2]`
    pub fn forward(&self, features: Tensor<2>) -> Tensor<2> {
        self.linear.forward(features)
    }
}

/// Logits of classes: two layers with a ReLU between them, the first as wide as the features.
#[derive(Module, Debug)]
pub struct ClassifierHead {
    hidden: Linear,
    output: Linear,
}

impl ClassifierHead {
    /// A new head for that number of classes on features of that width.
    pub fn new(width: usize, classes: usize, device: &Device) -> Self {
        Self {
            hidden: LinearConfig::new(width, width).init(device),
            output: LinearConfig::new(width, classes).init(device),
        }
    }

    /// Logits of the classes.
    ///
    /// # Shapes
    ///
    /// - `features`: `[batch, width]`
    /// - output: `[batch, classes]`
    pub fn forward(&self, features: Tensor<2>) -> Tensor<2> {
        self.output.forward(relu(self.hidden.forward(features)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Distribution, Tolerance};

    #[test]
    fn a_head_has_the_parameters_of_its_layers() {
        let device = Device::flex();
        for (head, expected) in [
            (ProjectionHead::linear(5, 3, false, &device), 5 * 3),
            (ProjectionHead::linear(5, 3, true, &device), 5 * 3 + 3),
            (ProjectionHead::mlp(5, 4, 3, &device), 5 * 4 + 4 + 4 * 3 + 3),
        ] {
            assert_eq!(head.num_params(), expected);
        }
        assert_eq!(MatchingHead::new(5, &device).num_params(), 5 * 2 + 2);
        let classifier = ClassifierHead::new(5, 3, &device);
        assert_eq!(classifier.num_params(), 5 * 5 + 5 + 5 * 3 + 3);
    }

    #[test]
    fn every_head_gives_a_row_a_sample() {
        let device = Device::flex();
        let features = Tensor::random([4, 5], Distribution::Default, &device);
        let projection = ProjectionHead::linear(5, 3, true, &device);
        assert_eq!(projection.forward(features.clone()).dims(), [4, 3]);
        let matching = MatchingHead::new(5, &device);
        assert_eq!(matching.forward(features.clone()).dims(), [4, 2]);
        let classifier = ClassifierHead::new(5, 6, &device);
        assert_eq!(classifier.forward(features).dims(), [4, 6]);
    }

    #[test]
    fn only_the_linear_projection_is_linear() {
        let device = Device::flex();
        let features = Tensor::<2>::random([4, 5], Distribution::Default, &device);
        // f(x) + f(-x) = 2 f(0) for every affine map, and for none with a ReLU that bends.
        let bend = |head: &ProjectionHead| {
            let sum = head.forward(features.clone()) + head.forward(-features.clone());
            sum - head.forward(features.zeros_like()) * 2.0
        };
        let linear = bend(&ProjectionHead::linear(5, 3, true, &device));
        linear
            .to_data()
            .assert_approx_eq::<f32>(&linear.zeros_like().into_data(), Tolerance::absolute(1e-5));
        let mlp = bend(&ProjectionHead::mlp(5, 32, 3, &device));
        assert!(mlp.abs().max().into_scalar::<f32>() > 1e-3);
    }
}
