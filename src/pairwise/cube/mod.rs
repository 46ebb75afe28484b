//! Passes on CubeCL's runtimes (CUDA, ROCm, Metal, Vulkan, WebGPU).
//!
//! A block of similarities comes from a matrix product, one kernel computes all expressions of its
//! pairs (see [`kernels`]), and two more products take its coefficients into the gradients.

mod buffers;
mod gradient;
mod kernels;
mod product;
mod states;
mod sweep;
#[cfg(all(test, feature = "wgpu"))]
mod tests;

use std::sync::Arc;

use burn::backend::TensorMetadata;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;

use self::kernels::Tiling;
use self::sweep::Cubes;
use super::chunked;
use super::ops::{Inputs, Outputs, PairwiseOps, without_autodiff};
use super::pass::Pass;

impl PairwiseOps for CubeBackend {
    fn pairwise_pass(inputs: Inputs<Self>, pass: Arc<Pass>) -> Outputs<Self> {
        if pass.has_tokens() {
            // Larger blocks than elsewhere: each is a few dozen launches.
            let mut pass = Pass::clone(&pass);
            pass.limits.block = pass.limits.budget.min(sweep::BLOCK);
            chunked::pass(inputs, &pass)
        } else if can_run(&inputs) {
            Cubes::new(inputs, &pass).run()
        } else {
            chunked::pass(inputs, &pass)
        }
    }

    without_autodiff!();
}

fn tiling(x: &CubeTensor) -> Tiling {
    Tiling::of(x.client.properties().hardware.plane_size_max)
}

/// Whether a device has the units and the shared memory that the kernels need, and 32 bits count
/// all that they index: bound vectors, and rows of gradients.
fn can_run(inputs: &Inputs<CubeBackend>) -> bool {
    let hardware = &inputs.a.client.properties().hardware;
    let [n, m] = inputs.sizes();
    let vectors = |x: &CubeTensor, len: usize| match x.rank() {
        2 if x.shape()[1] == len => x.shape().num_elements(),
        _ => 0,
    };
    let counts = [
        vectors(&inputs.rows, n) + vectors(&inputs.columns, m),
        inputs.a.shape().num_elements(),
        inputs.b.shape().num_elements(),
    ];
    let shared = tiling(&inputs.a).shared() * inputs.a.dtype().size();
    hardware.max_units_per_cube as usize >= kernels::UNITS
        && hardware.max_shared_memory_size >= shared
        && counts.into_iter().all(|count| count <= u32::MAX as usize)
}
