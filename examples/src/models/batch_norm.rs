//! Batch normalisation whose statistics are values that are passed on, not hidden state.
//!
//! Burn's own `BatchNorm` updates its running statistics while it runs, from whatever thread runs
//! it. Here a forward pass returns the statistics of its batch instead, and whoever trains applies
//! them when the step is done: the same numbers whether shards are encoded once or twice, one after
//! the other or on several threads or workers, and in a run that was resumed.

use burn::module::{Module, Param};
use burn::tensor::module::{batch_norm, batch_norm_train};
use burn::tensor::{Device, Tensor};

/// Added to variances, as in PyTorch.
const EPSILON: f64 = 1e-5;
/// How far running statistics move towards those of a batch, as in PyTorch.
const MOMENTUM: f64 = 0.1;

/// What a pass through [`BatchNorm`]s normalises by.
#[derive(Debug)]
pub enum Norms {
    /// The running statistics: inference, and encoders that do not train.
    Running,
    /// The statistics of the batch, which are kept: mean and variance of each norm, in the order
    /// in which they ran, without their graph.
    Batch(Vec<Tensor<1>>),
}

impl Norms {
    /// Those of a batch, of which there are none yet.
    pub fn batch() -> Self {
        Self::Batch(Vec::new())
    }

    /// The statistics of a batch as one row, `[1, values]`, for [`follow`]; `None` where there are
    /// none.
    pub fn into_row(self) -> Option<Tensor<2>> {
        match self {
            Self::Batch(statistics) if !statistics.is_empty() => {
                Some(Tensor::cat(statistics, 0).unsqueeze())
            }
            _ => None,
        }
    }
}

/// Normalises each channel over a batch, and scales and shifts it.
#[derive(Module, Debug)]
pub struct BatchNorm {
    gamma: Param<Tensor<1>>,
    beta: Param<Tensor<1>>,
    running_mean: Param<Tensor<1>>,
    running_var: Param<Tensor<1>>,
}

impl BatchNorm {
    /// A new norm of that many channels.
    pub fn new(channels: usize, device: &Device) -> Self {
        let constant = |value| Tensor::full([channels], value, device);
        let kept = |value| Param::from_tensor(constant(value)).set_require_grad(false);
        Self {
            gamma: Param::from_tensor(constant(1.0)),
            beta: Param::from_tensor(constant(0.0)),
            running_mean: kept(0.0),
            running_var: kept(1.0),
        }
    }

    /// Number of channels.
    pub fn channels(&self) -> usize {
        self.gamma.dims()[0]
    }

    /// The input, normalised.
    ///
    /// # Shapes
    ///
    /// - `input`, output: `[batch, channels, height, width]`
    ///
    /// # Panics
    ///
    /// If it normalises by statistics of a batch that has one value a channel: there is no
    /// variance.
    pub fn forward(&self, input: Tensor<4>, norms: &mut Norms) -> Tensor<4> {
        let (gamma, beta) = (self.gamma.val(), self.beta.val());
        let Norms::Batch(statistics) = norms else {
            let (mean, var) = (self.running_mean.val(), self.running_var.val());
            return batch_norm(input, gamma, beta, mean, var, EPSILON);
        };
        let [batch, _, height, width] = input.dims();
        let count = (batch * height * width) as f64;
        assert!(
            count > 1.0,
            "batch norm: one value a channel has no variance; encode more than one image at a time"
        );
        let output = batch_norm_train(input, gamma, beta, EPSILON);
        let unbiased = output.variance * (count / (count - 1.0));
        statistics.extend([output.mean, unbiased].map(Tensor::without_autodiff));
        output.output
    }

    /// Moves the running statistics towards those of a batch, `[channels]` each.
    fn follow(&mut self, mean: Tensor<1>, variance: Tensor<1>) {
        for (running, new) in [
            (&mut self.running_mean, mean),
            (&mut self.running_var, variance),
        ] {
            *running = running.clone().map(|old| {
                let old = old.detach();
                let new = if old.device().is_autodiff() {
                    Tensor::from_inner(new.clone())
                } else {
                    new.clone()
                };
                (old * (1.0 - MOMENTUM) + new * MOMENTUM).set_require_grad(false)
            });
        }
    }
}

/// Moves the running statistics of norms towards the mean of several batches.
///
/// `norms` are in the order in which they ran, `rows` what [`Norms::into_row`] gave for each batch,
/// `[batches, values]`, without autodiff.
///
/// # Panics
///
/// If there are more or fewer values than the norms have.
pub fn follow(norms: Vec<&mut BatchNorm>, rows: Tensor<2>) {
    let values: usize = norms.iter().map(|norm| 2 * norm.channels()).sum();
    assert_eq!(
        rows.dims()[1],
        values,
        "batch norm: statistics of other norms than these"
    );
    let mut rest = rows.mean_dim(0).squeeze_dim::<1>(0);
    for norm in norms {
        let channels = norm.channels();
        let left = rest.dims()[0] - 2 * channels;
        let mean = rest.clone().narrow(0, 0, channels);
        let variance = rest.clone().narrow(0, channels, channels);
        norm.follow(mean, variance);
        if left > 0 {
            rest = rest.narrow(0, 2 * channels, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Distribution, Tolerance};

    fn images(device: &Device) -> Tensor<4> {
        Tensor::random([3, 2, 4, 5], Distribution::Normal(1.0, 2.0), device)
    }

    #[test]
    fn a_batch_is_normalised_by_its_own_statistics_and_gives_them() {
        let device = Device::flex();
        let norm = BatchNorm::new(2, &device);
        let mut norms = Norms::batch();
        let output = norm.forward(images(&device), &mut norms);
        let values = output.swap_dims(0, 1).reshape([2, 60]);
        let close = |actual: Tensor<2>, expected: f32| {
            let expected = Tensor::<2>::full(actual.dims(), expected, &device);
            actual
                .into_data()
                .assert_approx_eq::<f32>(&expected.into_data(), Tolerance::absolute(1e-4));
        };
        close(values.clone().mean_dim(1), 0.0);
        close(values.powi_scalar(2).mean_dim(1), 1.0);
        assert_eq!(norms.into_row().unwrap().dims(), [1, 4]);
    }

    #[test]
    fn running_statistics_move_by_a_tenth_and_are_what_inference_uses() {
        let device = Device::flex().autodiff();
        let mut norm = BatchNorm::new(1, &device);
        // Two batches of one norm: means 10 and 30, variances 4 and 8.
        let rows = Tensor::<2>::from_data([[10.0, 4.0], [30.0, 8.0]], &device.clone().inner());
        follow(vec![&mut norm], rows);
        let statistics = [&norm.running_mean, &norm.running_var];
        let values = statistics.map(|kept| kept.val().into_scalar::<f32>());
        assert_eq!(values, [2.0, 0.9 + 0.6]);
        assert!(statistics.iter().all(|kept| !kept.is_require_grad()));
        let input = Tensor::<4>::full([1, 1, 1, 1], 5.0, &device);
        let output = norm.forward(input, &mut Norms::Running);
        let expected = 3.0 / (1.5_f32 + 1e-5).sqrt();
        assert!((output.into_scalar::<f32>() - expected).abs() < 1e-5);
    }

    #[test]
    fn scale_and_shift_train_and_statistics_do_not() {
        let device = Device::flex().autodiff();
        let norm = BatchNorm::new(2, &device);
        for mut norms in [Norms::Running, Norms::batch()] {
            let output = norm.forward(images(&device), &mut norms);
            let gradients = output.powi_scalar(3).sum().backward();
            assert!(norm.gamma.val().grad(&gradients).is_some());
            assert!(norm.beta.val().grad(&gradients).is_some());
            assert!(norm.running_mean.val().grad(&gradients).is_none());
            assert!(norm.running_var.val().grad(&gradients).is_none());
        }
    }

    #[test]
    #[should_panic(expected = "one value a channel has no variance")]
    fn one_value_has_no_statistics() {
        let device = Device::flex();
        let input = Tensor::<4>::ones([1, 2, 1, 1], &device);
        BatchNorm::new(2, &device).forward(input, &mut Norms::batch());
    }

    #[test]
    #[should_panic(expected = "statistics of other norms")]
    fn statistics_of_other_norms_are_refused() {
        let device = Device::flex();
        let mut norm = BatchNorm::new(2, &device);
        follow(vec![&mut norm], Tensor::zeros([1, 6], &device));
    }
}
