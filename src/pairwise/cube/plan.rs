//! What a pass will do on a device, decided before anything is launched. Nothing here touches a
//! device, so that any can be tested anywhere.

use burn::backend::TensorMetadata;
use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl::ir::DeviceProperties;
use burn_cubecl::tensor::CubeTensor;

use super::kernels::Tiling;
use super::sizes::Sizes;
use crate::pairwise::ops::Inputs;
use crate::pairwise::pass::Pass;
use crate::pairwise::reduction::{Axis, Kind};
pub(super) use crate::pairwise::terms::{Factors, Terms};

/// What of a device a plan depends on.
#[derive(Clone, Debug)]
pub(super) struct Hardware {
    /// Units of the widest plane.
    pub plane: u32,
    /// The most units of a cube, the bytes that they share, and the most cubes along the second
    /// axis of a launch.
    pub units: usize,
    pub shared_memory: usize,
    pub strips: usize,
    /// Multiprocessors, where the device says how many.
    pub processors: Option<usize>,
    /// Half-precision types whose matrices the device multiplies by instructions of their own.
    pub matrix_units: Vec<DType>,
    /// Whether products are followed by what is computed of them in one kernel: not where each
    /// unit has an element alone, whose sums would be as many.
    pub fuses: bool,
}

impl Hardware {
    /// Of the device of a tensor.
    pub fn of(x: &CubeTensor) -> Self {
        Self::new(x.client.properties())
    }

    pub fn new(properties: &DeviceProperties) -> Self {
        let hardware = &properties.hardware;
        let has_unit = |dtype: &DType| {
            let factor = dtype_to_storage_type(*dtype);
            let units = &properties.features.matmul.cmma;
            units
                .iter()
                .any(|unit| unit.a_type == factor && unit.b_type == factor)
        };
        let half = [DType::F16, DType::BF16].into_iter();
        Self {
            plane: hardware.plane_size_max,
            units: hardware.max_units_per_cube as usize,
            shared_memory: hardware.max_shared_memory_size,
            strips: hardware.max_cube_count.1 as usize,
            processors: hardware
                .num_streaming_multiprocessors
                .map(|count| count as usize),
            matrix_units: half.filter(has_unit).collect(),
            fuses: hardware.num_cpu_cores.is_none(),
        }
    }
}

/// How a pass runs.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub tiling: Tiling,
    /// Of the pass's own embeddings, and of its teachers'.
    pub factors: Factors,
    pub teachers: Factors,
    /// Rows and columns of a block.
    pub block: [usize; 2],
    /// Columns of a block whose similarities are there at a time.
    pub columns: usize,
    /// Whether all similarities are kept for the next pass, or are there from the last.
    pub keeps: bool,
    /// Whether coefficients are computed where similarities are, which reach no memory.
    pub is_fused: bool,
}

impl Plan {
    /// The plan of a pass over these inputs, or why the kernels cannot run it.
    pub fn new(
        hardware: &Hardware,
        inputs: &Inputs<CubeBackend>,
        pass: &Pass,
    ) -> Result<Self, String> {
        let size = inputs.dtype().size();
        let tiling = tiling(hardware, inputs.a.dtype(), pass, size);
        check_device(hardware, tiling, shared(tiling, pass, size))?;
        check_counts(inputs)?;
        let factors = |dtype| Factors::new(dtype, pass.limits.precision, &hardware.matrix_units);
        Ok(Self::with_factors(
            hardware,
            tiling,
            inputs,
            pass,
            [factors(inputs.a.dtype()), factors(inputs.dtype())],
        ))
    }

    pub fn with_factors(
        hardware: &Hardware,
        tiling: Tiling,
        inputs: &Inputs<CubeBackend>,
        pass: &Pass,
        [factors, teachers]: [Factors; 2],
    ) -> Self {
        let (sizes, dtype) = (inputs.sizes(), inputs.dtype());
        let keeps = pass.keeps_all(sizes, dtype) && (pass.coefficient.is_none() || is_kept(inputs));
        let are_totals = pass.only_totals
            && pass
                .reductions
                .iter()
                .all(|r| r.kind == Kind::Sum && r.axis == Axis::Rows);
        let is_fused = !keeps
            && hardware.fuses
            && dtype == DType::F32
            && are_totals
            && pass.coefficient.is_some();
        let (block, columns) = Sizes {
            hardware,
            tiling,
            inputs,
            pass,
        }
        .of_block(keeps, is_fused, factors.coefficient);
        Self {
            tiling,
            factors,
            teachers,
            block,
            columns,
            keeps,
            is_fused,
        }
    }
}

/// Whether the pass before kept all similarities: a pass without kernels leaves one element.
fn is_kept(inputs: &Inputs<CubeBackend>) -> bool {
    let [n, m] = inputs.sizes();
    let kept = &inputs.kept;
    kept.handle.size_in_used() as usize >= n * m * kept.dtype.size()
}

/// With fewer pairs a unit where a cube has not the memory for the states of more.
pub(super) fn tiling(hardware: &Hardware, embeddings: DType, pass: &Pass, size: usize) -> Tiling {
    let mut tiling = Tiling::of(hardware.plane);
    // The norms beside them, and terms of coefficients, are more than registers hold of four rows.
    if [DType::F16, DType::BF16].contains(&embeddings) {
        tiling.each = tiling.each.min(2);
    }
    while tiling.each > 1 && shared(tiling, pass, size) > hardware.shared_memory {
        tiling.each /= 2;
    }
    tiling
}

/// The bytes that a cube shares.
fn shared(tiling: Tiling, pass: &Pass, size: usize) -> usize {
    let most = usize::max(
        components(pass, Axis::Rows),
        components(pass, Axis::Columns),
    );
    tiling.shared(most) * size
}

/// Fails where the device has too few units or too little shared memory.
fn check_device(hardware: &Hardware, tiling: Tiling, shared: usize) -> Result<(), String> {
    let (units, needed) = (hardware.units, tiling.units());
    if units < needed {
        return Err(format!(
            "a cube of the device has {units} units of {needed}"
        ));
    }
    let memory = hardware.shared_memory;
    if memory < shared {
        return Err(format!(
            "a cube of the device shares {memory} bytes of {shared}"
        ));
    }
    Ok(())
}

/// Fails where 32 bits do not count all that the kernels index: bound vectors, rows of gradients.
fn check_counts(inputs: &Inputs<CubeBackend>) -> Result<(), String> {
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
    if largest > u32::MAX as usize {
        return Err(format!("32 bits do not count {largest} elements"));
    }
    Ok(())
}

/// Components of the states along an axis.
pub(super) fn components(pass: &Pass, axis: Axis) -> usize {
    let along = pass.reductions.iter().filter(|r| r.axis == axis);
    along.map(|r| r.kind.components()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pairwise::Precision;

    #[test]
    fn nothing_is_rounded_that_was_not_permitted() {
        use DType::{BF16, F16, F32, F64};
        let all = [F16, BF16];
        let terms = |dtype, precision, units: &[DType]| {
            let factors = Factors::new(dtype, precision, units);
            let each = [
                Some(factors.similarity),
                Some(factors.gradient),
                factors.coefficient,
            ];
            each.map(|terms| terms.map(|terms| (terms.dtype, terms.count)))
        };
        let [highest, high, medium] = [Precision::Highest, Precision::High, Precision::Medium];
        let in_full = |dtype| [Some((dtype, 1)), Some((dtype, 1)), None];
        for precision in [highest, high, medium] {
            assert_eq!(terms(F64, precision, &all), in_full(F64));
            // Nothing to gain: no unit multiplies what would be rounded to.
            assert_eq!(terms(F32, precision, &[F16]), in_full(F32));
            assert_eq!(terms(BF16, precision, &[F16]), in_full(F32));
            assert_eq!(terms(F16, precision, &[]), in_full(F32));
        }
        assert_eq!(terms(F32, highest, &all), in_full(F32));
        assert_eq!(terms(F32, high, &all), [Some((BF16, 2)); 3]);
        assert_eq!(terms(F32, medium, &all), [Some((BF16, 1)); 3]);
        // Embeddings of half precision are exact at every level, coefficients as good as f32 at
        // the highest.
        let exact = |dtype| Some((dtype, 1));
        assert_eq!(
            terms(BF16, highest, &all),
            [exact(BF16), exact(BF16), Some((BF16, 3))]
        );
        assert_eq!(terms(BF16, medium, &all), [exact(BF16); 3]);
        assert_eq!(
            terms(F16, highest, &all),
            [exact(F16), Some((BF16, 2)), Some((BF16, 3))]
        );
        assert_eq!(terms(F16, highest, &[F16]), [exact(F16), exact(F32), None]);
    }

    #[test]
    fn small_terms_are_not_multiplied_with_one_another() {
        let multiplied = |left, right| Terms::multiplied(left, right).collect::<Vec<_>>();
        assert_eq!(multiplied(1, 1), [[0, 0]]);
        assert_eq!(multiplied(2, 2), [[0, 0], [0, 1], [1, 0]]);
        assert_eq!(multiplied(3, 1), [[0, 0], [1, 0], [2, 0]]);
        assert_eq!(multiplied(3, 2), [[0, 0], [0, 1], [1, 0], [1, 1], [2, 0]]);
    }
}
