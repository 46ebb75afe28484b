//! Passes on CubeCL's runtimes (CUDA, ROCm, Metal, Vulkan, WebGPU, the CPU).
//!
//! A block of similarities comes from a matrix product, one kernel computes all expressions of its
//! pairs (see [`kernels`]), and two more products take its coefficients into the gradients.

mod blueprint;
mod buffers;
mod bytes;
mod factors;
mod gradient;
mod kernels;
mod onto;
mod plan;
mod product;
mod rows;
mod sizes;
mod states;
mod sweep;
#[cfg(all(test, feature = "wgpu"))]
mod tests;

use std::sync::{Arc, Once};

use burn::backend::ops::FloatTensorOps;
use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{CubeBackend, CubeDevice};

use self::bytes::Bytes;
use self::plan::{Factors, Hardware, Plan};
use self::sweep::Cubes;
use super::ops::{Inputs, Outputs, PairwiseOps, Unfinished, cast, without_autodiff};
use super::pass::Pass;
use super::{Precision, chunked};

impl PairwiseOps for CubeBackend {
    fn pairwise_pass(inputs: Inputs<Self>, pass: Arc<Pass>) -> Outputs<Self> {
        if pass.has_tokens() {
            // Larger blocks than elsewhere: each is a few dozen launches.
            let mut pass = Pass::clone(&pass);
            pass.limits.block = pass.limits.budget.min(sizes::ALONE);
            return chunked::pass_by(inputs, &pass, product::in_full);
        }
        match Plan::new(&Hardware::of(&inputs.a), &inputs, &pass) {
            Ok(plan) => {
                log::debug!(target: bytes::TARGET, "{}", Bytes::of(&plan, &pass, &inputs));
                Cubes::new(inputs, &pass, plan).run()
            }
            Err(reason) => {
                slow_path(&reason);
                let inputs = scaled(inputs, &pass);
                let nothing = buffers::empty(&inputs.a, [1], inputs.dtype());
                Outputs {
                    kept: nothing,
                    ..chunked::pass_by(inputs, &pass, product::in_full)
                }
            }
        }
    }

    fn exact_product(left: CubeTensor, right: CubeTensor) -> CubeTensor {
        // Other types are not rounded.
        match left.dtype {
            DType::F32 => product::in_full(left, right),
            _ => CubeBackend::float_matmul(left, right),
        }
    }

    fn row_norms(rows: CubeTensor) -> CubeTensor {
        rows::norms(rows)
    }

    fn finished(of: Unfinished<Self>) -> CubeTensor {
        rows::finished(of)
    }

    without_autodiff!();
}

/// Whether a device multiplies f32 embeddings as bf16 at a level of precision.
pub(super) fn multiplies_as_bf16(device: &CubeDevice, precision: Precision) -> bool {
    let hardware = Hardware::new(device.client().properties());
    let factors = Factors::new(DType::F32, precision, &hardware.matrix_units);
    factors.coefficient.is_some()
}

/// With rows multiplied by their scales: a copy, where there are some.
fn scaled(inputs: Inputs<CubeBackend>, pass: &Pass) -> Inputs<CubeBackend> {
    if !pass.has_scale {
        return inputs;
    }
    let scale = cast::<CubeBackend>(sweep::scale_of(&inputs.rows), inputs.a.dtype);
    Inputs {
        a: CubeBackend::float_mul(inputs.a, scale),
        ..inputs
    }
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
