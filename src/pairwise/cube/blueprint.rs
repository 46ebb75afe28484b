//! How a matrix product is divided among the units of a device.
//!
//! What cubek infers for these shapes keeps more in registers than there are, and gives the products
//! of gradients, which are tall, fewer cubes than a large GPU has multiprocessors.

use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubek::matmul::definition::MatmulProblem;
use cubek::matmul::multi_level::components::stage::PartitionBuffering;
use cubek::matmul::multi_level::components::tile::TileMatmulKind;
use cubek::matmul::multi_level::definition::{BatchMatmulBlueprint, TilingScheme};
use cubek::matmul::multi_level::stage::{SwizzleMode, SwizzleModes};
use cubek::std::MatrixLayout;
use cubek::std::cube_count::{CubeCountStrategy, GlobalOrder, HypercubeBlueprint, SmAllocation};

/// Units of a cube.
const UNITS: u32 = 256;

/// The bytes that a cube shares for a wide part of the result.
const WIDE: usize = 45_056;

/// For `out = left · right`: f32 by the units themselves, half precision by matrix units. `None`
/// where it is left to cubek.
pub(super) fn blueprint(
    left: &CubeTensor,
    problem: &MatmulProblem,
) -> Option<BatchMatmulBlueprint> {
    let (m, n, k) = (problem.m, problem.n, problem.k);
    let hardware = &left.client.properties().hardware;
    let plane = match hardware.plane_size_min {
        0 => 32,
        plane => plane,
    };
    let has_units = hardware.max_units_per_cube >= UNITS && UNITS.is_multiple_of(plane);
    // Vectors have kernels of their own, and so have CPUs.
    if m.min(n).min(k) < 2 || !has_units || hardware.num_cpu_cores.is_some() {
        return None;
    }
    let processors = hardware.num_streaming_multiprocessors;
    let (kind, scheme) = match left.dtype {
        DType::F32 => (
            TileMatmulKind::Register,
            of_units(
                [m, n, k],
                processors.unwrap_or(1) as usize,
                hardware.max_shared_memory_size >= WIDE,
            ),
        ),
        DType::F16 | DType::BF16 if plane == 32 => {
            (TileMatmulKind::Cmma, of_matrix_units([m, n, k]))
        }
        _ => return None,
    };
    let is_unit = kind == TileMatmulKind::Register;
    let cubes = match processors {
        Some(num_sms) => CubeCountStrategy::Sm {
            num_sms,
            sm_usage: SmAllocation::Exact,
            cubes_first: !is_unit,
        },
        None => CubeCountStrategy::Flattened,
    };
    let cubes = HypercubeBlueprint::builder()
        .global_order(GlobalOrder::SwizzleRow(4))
        .cube_count_strategy(cubes)
        .build();
    let builder = BatchMatmulBlueprint::builder(kind, scheme, plane, problem)
        .partition_buffering(PartitionBuffering::Single)
        .hypercube_blueprint(cubes);
    // Swizzled addresses must be aligned.
    let is_swizzled = is_unit && left.client.properties().features.alignment;
    Some(if is_swizzled {
        builder.shared_swizzle(swizzles(&scheme, problem)).build()
    } else {
        builder.build()
    })
}

/// Each of 16 × 16 units has 8 × 8 or, where that takes no more time and the cube `may_be_wide`,
/// 8 × 16 elements of the result. Where rows are no multiples of a vector, the addresses of the
/// latter need too many registers.
fn of_units([m, n, k]: [usize; 3], processors: usize, may_be_wide: bool) -> TilingScheme {
    let waves = |width: usize| (m.div_ceil(128) * n.div_ceil(width)).div_ceil(processors);
    let is_wide = may_be_wide && in_vectors([m, n, k]) && 2 * waves(256) <= waves(128);
    let tile = (4, if is_wide { 8 } else { 4 }, 4);
    scheme(tile, (2, 2, 2), if n <= 64 { (32, 8) } else { (16, 16) })
}

/// Each of 8 planes has 32 × 64 elements of the result. Where rows are no multiples of a vector,
/// the addresses of a factor of 256 rows need too many registers.
fn of_matrix_units([m, n, k]: [usize; 3]) -> TilingScheme {
    let is_tall = n <= 64 && in_vectors([m, k]);
    scheme(
        (16, 16, 16),
        (2, 4, 2),
        if is_tall { (8, 1) } else { (4, 2) },
    )
}

fn in_vectors<const N: usize>(sizes: [usize; N]) -> bool {
    sizes.iter().all(|len| len.is_multiple_of(4))
}

fn scheme(
    tile: (u32, u32, u32),
    partition: (u32, u32, u32),
    (rows, columns): (u32, u32),
) -> TilingScheme {
    TilingScheme::builder()
        .with_tile_size(tile.into())
        .with_partition_size(partition.into())
        .with_stage_size((rows, columns, 1).into())
        .build()
        .expect("all sizes are there")
}

/// How the factors lie in shared memory, so that units read from different banks.
fn swizzles(scheme: &TilingScheme, problem: &MatmulProblem) -> SwizzleModes {
    let rows = scheme.elements_per_stage_along_m();
    let columns = scheme.elements_per_stage_along_n();
    let depth = scheme.elements_per_stage_along_k();
    let mode = |layout: MatrixLayout, [row_major, col_major]: [u32; 2]| {
        let width = match layout {
            MatrixLayout::RowMajor => row_major,
            MatrixLayout::ColMajor => col_major,
        };
        match width as usize * size_of::<f32>() {
            32 => SwizzleMode::B32,
            64 => SwizzleMode::B64,
            _ => SwizzleMode::B128,
        }
    };
    SwizzleModes {
        lhs: mode(problem.lhs_layout, [depth, rows]),
        rhs: mode(problem.rhs_layout, [columns, depth]),
        ..Default::default()
    }
}
