//! What is computed of rows of embeddings beside the passes over pairs: norms, and gradients in
//! their type.

use burn::backend::TensorMetadata;
use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl::prelude::{CubeCount, CubeDim};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

use super::buffers::empty;
use super::bytes::{self, Bytes, Moved};
use super::kernels::{self, Tiling};
use super::plan::Hardware;
use crate::pairwise::ops::Unfinished;

/// The most cubes of a launch, which take several rows each where there are more.
const CUBES: usize = 1 << 15;

fn launched(x: &CubeTensor, rows: usize) -> (Tiling, CubeCount, CubeDim) {
    let tiling = Tiling::of(Hardware::of(x).plane);
    let cubes = rows.div_ceil(tiling.lines).min(CUBES);
    let dim = CubeDim::new_2d(tiling.lanes as u32, tiling.lines as u32);
    (tiling, CubeCount::Static(cubes as u32, 1, 1), dim)
}

/// Says so.
fn moves(rows: Moved) {
    let nothing = Bytes::default();
    log::debug!(target: bytes::TARGET, "{}", Bytes { rows, ..nothing });
}

/// See [`kernels::norms`].
pub(super) fn norms(x: CubeTensor) -> CubeTensor {
    let [rows, width] = x.shape().dims();
    let norms = empty(&x, [2, rows], DType::F32);
    let (tiling, cubes, dim) = launched(&x, rows);
    let dtypes = [DType::F32, x.dtype].map(dtype_to_storage_type);
    let may_be_scaled = x.dtype == DType::BF16;
    moves(Moved {
        read: rows * width * x.dtype.size(),
        written: 2 * rows * DType::F32.size(),
    });
    kernels::norms::launch(
        &norms.client,
        cubes,
        dim,
        into_contiguous(x).into_buffer_arg(),
        norms.clone().into_buffer_arg(),
        rows,
        width,
        tiling,
        may_be_scaled,
        dtypes,
    );
    norms
}

/// See [`kernels::gradients`].
pub(super) fn finished(of: Unfinished<CubeBackend>) -> CubeTensor {
    let [rows, width] = of.gradient.shape().dims();
    let finished = empty(&of.gradient, [rows, width], of.dtype);
    let (tiling, cubes, dim) = launched(&of.gradient, rows);
    let dtypes = [of.gradient.dtype, of.dtype].map(dtype_to_storage_type);
    let embeddings = rows * width * of.dtype.size();
    moves(Moved {
        read: rows * width * of.gradient.dtype.size() + usize::from(of.has_norms) * embeddings,
        written: embeddings,
    });
    let buffer = |x: CubeTensor| into_contiguous(x).into_buffer_arg();
    kernels::gradients::launch(
        &finished.client,
        cubes,
        dim,
        buffer(of.gradient),
        buffer(of.x),
        buffer(of.vectors),
        buffer(of.factor),
        finished.clone().into_buffer_arg(),
        rows,
        width,
        tiling,
        of.has_norms,
        of.has_scale,
        of.has_factor,
        dtypes,
    );
    finished
}
