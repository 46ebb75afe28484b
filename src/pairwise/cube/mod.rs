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

use std::sync::{Arc, Once};

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
            chunked::pass_by(inputs, &pass, product::in_full)
        } else if let Some(reason) = refusal(&inputs) {
            slow_path(&reason);
            chunked::pass_by(inputs, &pass, product::in_full)
        } else {
            Cubes::new(inputs, &pass).run()
        }
    }

    without_autodiff!();
}

fn tiling(x: &CubeTensor) -> Tiling {
    Tiling::of(x.client.properties().hardware.plane_size_max)
}

/// Why the kernels cannot run: the device has too few units or too little shared memory, or 32 bits
/// do not count all that they index (bound vectors, rows of gradients).
fn refusal(inputs: &Inputs<CubeBackend>) -> Option<String> {
    let hardware = &inputs.a.client.properties().hardware;
    let (units, memory) = (
        hardware.max_units_per_cube as usize,
        hardware.max_shared_memory_size,
    );
    let tiling = tiling(&inputs.a);
    let needed = tiling.units();
    if units < needed {
        return Some(format!(
            "a cube of the device has {units} units of {needed}"
        ));
    }
    let shared = tiling.shared() * inputs.a.dtype().size();
    if memory < shared {
        return Some(format!(
            "a cube of the device shares {memory} bytes of {shared}"
        ));
    }
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
    let largest = counts.into_iter().max().unwrap_or(0);
    (largest > u32::MAX as usize).then(|| format!("32 bits do not count {largest} elements"))
}

/// Says, once in the life of a process, that a pass does without its kernels.
fn slow_path(reason: &str) {
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        log::warn!(
            "pairwise passes run as plain tensor operations, several times slower: {reason}"
        );
    });
}
