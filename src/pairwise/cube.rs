//! Passes on CubeCL's runtimes (CUDA, ROCm, Metal, Vulkan, WebGPU): chunked.

use std::sync::Arc;

use burn::backend::ops::FloatTensorOps;
use burn_cubecl::CubeBackend;

use super::chunked;
use super::form::Pass;
use super::ops::{Inputs, Outputs, PairwiseOps, without_autodiff};

impl PairwiseOps for CubeBackend {
    fn pairwise_pass(inputs: Inputs<Self>, pass: Arc<Pass>) -> Outputs<Self> {
        chunked::pass(inputs, &pass)
    }

    without_autodiff!();
}
