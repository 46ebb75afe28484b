//! What a pass will do on a device, decided before anything is launched. Nothing here touches a
//! device, so that any can be tested anywhere.

use burn::backend::TensorMetadata;
use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;

use super::kernels::Tiling;
use crate::check::compute_dtype;
use crate::pairwise::Precision;
use crate::pairwise::ops::Inputs;
use crate::pairwise::pass::Pass;
use crate::pairwise::reduction::{Axis, Kind};

/// Bytes that the matrices of a block take at most: 4,096 rows and columns of f32 and of bf16.
const BLOCK: usize = 96 << 20;

/// Bytes up to which one block is all: launches are the time of a small batch.
pub(super) const ALONE: usize = 256 << 20;

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
        let properties = x.client.properties();
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

/// A matrix as the sum of so many of this type: each is the rounded rest of those before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    pub dtype: DType,
    pub count: usize,
}

impl Terms {
    /// Of nothing.
    pub const NONE: Self = Self::new(DType::F32, 0);

    const fn new(dtype: DType, count: usize) -> Self {
        Self { dtype, count }
    }

    /// Which terms of two matrices are multiplied: products of two small ones are below the
    /// rounding of the others.
    pub fn multiplied(left: usize, right: usize) -> impl Iterator<Item = [usize; 2]> {
        let pairs = (0..left).flat_map(move |i| (0..right).map(move |j| [i, j]));
        pairs.filter(move |[i, j]| i + j < left.max(right))
    }
}

/// The factors of the products of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Factors {
    /// Embeddings, multiplied with one another.
    pub similarity: Terms,
    /// Embeddings, multiplied by coefficients.
    pub gradient: Terms,
    /// Coefficients; `None` where they take the place of the similarities, in their type.
    pub coefficient: Option<Terms>,
}

impl Factors {
    /// For embeddings of that dtype, on a device that multiplies `matrix_units`.
    ///
    /// A bf16 holds 8 significant bits: three make an f32, two an f16 or 16 bits of an f32. Without
    /// an instruction for a type rounding would cost time and digits, and gain nothing.
    pub fn new(embeddings: DType, precision: Precision, matrix_units: &[DType]) -> Self {
        let has_bf16 = matrix_units.contains(&DType::BF16);
        let wide = Terms::new(compute_dtype(embeddings), 1);
        let in_full = Self {
            similarity: wide,
            gradient: wide,
            coefficient: None,
        };
        // How many bf16 a coefficient is.
        let count = match precision {
            Precision::Highest => 3,
            Precision::High => 2,
            Precision::Medium => 1,
        };
        let bf16 = |count| Terms::new(DType::BF16, count);
        let rounded = |similarity, gradient| Self {
            similarity,
            gradient: bf16(gradient),
            coefficient: Some(bf16(count)),
        };
        match embeddings {
            DType::BF16 if has_bf16 => rounded(bf16(1), 1),
            DType::F16 if matrix_units.contains(&DType::F16) => {
                let exact = Terms::new(DType::F16, 1);
                if has_bf16 {
                    // Not as f16, whose range coefficients would leave.
                    rounded(exact, count.min(2))
                } else {
                    Self {
                        similarity: exact,
                        ..in_full
                    }
                }
            }
            DType::F64 => in_full,
            _ if has_bf16 && precision != Precision::Highest => rounded(bf16(count), count),
            _ => in_full,
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
        let width = inputs.a.shape()[1];
        // Products of similarities have so many elements that all multiprocessors are busy.
        let processors = hardware
            .processors
            .filter(|_| keeps || pass.coefficient.is_some());
        let part = |len, most| match processors {
            Some(processors) => full_waves(len, most, width, processors),
            None => equal_parts(len, most),
        };
        let block = if keeps {
            // The same in both passes, whatever they read and however they are tiled: the one
            // finds what the other left.
            let of_pair = dtype.size() * pass.teachers.len() + 6;
            let pairs = pairs_of(pass.limits.budget, BLOCK, of_pair, sizes);
            block_of(pairs, sizes, false, hardware.strips, part)
        } else {
            let coefficients = factors.coefficient.filter(|_| pass.coefficient.is_some());
            let teachers = pass.teachers.iter().filter(|teacher| teacher.named).count();
            let similarities = usize::from(!(is_fused && coefficients.is_some()));
            let of_coefficients = coefficients.map_or(0, |terms| terms.count * terms.dtype.size());
            let matrices = similarities + teachers + 2 * usize::from(pass.named.mask);
            let of_pair = dtype.size() * matrices + of_coefficients;
            let own = usize::max(dtype.size() * similarities, of_coefficients);
            let others = dtype.size() * teachers.max(usize::from(pass.named.mask));
            let most = largest(inputs, pass) / own;
            let most = most.min(BLOCK.max(gradient(inputs)) / others.max(1));
            let largest = most * of_pair;
            let most_rows = hardware.strips.saturating_mul(tiling.rows());
            let pairs = pairs_of(pass.limits.budget, largest, of_pair, sizes);
            block_of(pairs, sizes, pass.symmetric, most_rows, part)
        };
        let columns = block[1];
        let mut block = block;
        if pass.coefficient.is_none() && !keeps && !pass.symmetric {
            let most = largest(inputs, pass).min(pass.limits.budget.max(1 << 20));
            let together = merged_together(tiling, pass, block[0], dtype.size(), most);
            block[1] = (together / columns * columns).clamp(columns, sizes[1].max(columns));
        }
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

/// How many pairs a block has at most, of so many bytes each, in `largest` bytes.
fn pairs_of(budget: usize, largest: usize, of_pair: usize, [n, m]: [usize; 2]) -> usize {
    if n * m * of_pair <= budget.min(ALONE) {
        n * m
    } else {
        budget.min(largest) / of_pair
    }
}

/// The bytes of the larger of both gradients, as a sum over blocks.
fn gradient(inputs: &Inputs<CubeBackend>) -> usize {
    let elements = |x: &CubeTensor| x.shape().num_elements();
    elements(&inputs.a).max(elements(&inputs.b)) * inputs.dtype().size()
}

/// The bytes of the largest buffer of a block, where there are several blocks.
///
/// Pools of a device have pages as large as the largest allocation that there was, which is at least
/// a gradient, as a sum over blocks. A block has such a page for itself, as far as something small
/// may have to lie beside it, or half of one, if that is enough.
fn largest(inputs: &Inputs<CubeBackend>, pass: &Pass) -> usize {
    let gradient = gradient(inputs);
    if pass.coefficient.is_none() {
        // The pages of the gradients to come are free.
        BLOCK.max(gradient)
    } else if gradient >= 2 * BLOCK {
        BLOCK
    } else {
        BLOCK.max(gradient - gradient / 8)
    }
}

/// Columns of blocks whose states are merged at once: so many that what cubes find of them takes
/// `most` bytes.
fn merged_together(tiling: Tiling, pass: &Pass, rows: usize, size: usize, most: usize) -> usize {
    let strips = rows.div_ceil(tiling.rows());
    let of_column = components(pass, Axis::Columns) * strips * size;
    let of_span = components(pass, Axis::Rows) * rows * size;
    let of_span = of_span + of_column * tiling.span();
    most / of_span.max(1) * tiling.span()
}

fn components(pass: &Pass, axis: Axis) -> usize {
    let along = pass.reductions.iter().filter(|r| r.axis == axis);
    along.map(|r| r.kind.components()).sum()
}

/// Rows, and columns, of a block are multiples of this, where the sides allow.
const STEP: usize = 128;

/// Rows and columns of a block of so many pairs, at most `most_rows`: a launch has a cube for each
/// strip of them, along an axis that some devices limit to 65,535. A side that is cut is as long as
/// `part` makes it of its length and the most that there may be, which gives a multiple of [`STEP`].
fn block_of(
    pairs: usize,
    [n, m]: [usize; 2],
    square: bool,
    most_rows: usize,
    part: impl Fn(usize, usize) -> usize,
) -> [usize; 2] {
    if n * m <= pairs && n <= most_rows {
        return [n, m];
    }
    let side = (pairs as f64).sqrt() as usize;
    if square {
        return [part(n, side); 2];
    }
    // What one side does not need, the other may have.
    if n <= side {
        [n, part(m, pairs / n.max(1))]
    } else if m <= side {
        [part(n, (pairs / m.max(1)).min(most_rows)), m]
    } else {
        let rows = part(n, side);
        [rows, part(m, pairs / rows)]
    }
}

/// The length of equal parts of `len`, as few as there can be with at most `most` in each.
fn equal_parts(len: usize, most: usize) -> usize {
    let most = (most / STEP).max(1) * STEP;
    let parts = len.div_ceil(most);
    len.div_ceil(parts).next_multiple_of(STEP).min(most)
}

/// The same, but more parts where the product of gradients of fewer rows, `[part, width]`, leaves
/// fewer multiprocessors idle: each takes 128 × 128 elements at a time.
fn full_waves(len: usize, most: usize, width: usize, processors: usize) -> usize {
    let fill = |part: &usize| {
        let tiles = part / STEP * width.div_ceil(STEP);
        tiles as f64 / tiles.next_multiple_of(processors) as f64
    };
    let longest = equal_parts(len, most);
    let parts = len.div_ceil(longest);
    let candidates = || {
        let parts = (parts..=2 * parts).map(|parts| len.div_ceil(parts).next_multiple_of(STEP));
        parts.filter(|part| *part <= most.max(STEP))
    };
    let best = candidates().map(|part| fill(&part)).fold(0.0, f64::max);
    let full = candidates().find(|part| fill(part) >= FULL.min(best));
    full.unwrap_or(longest)
}

/// The share of multiprocessors that is enough: beyond it fewer blocks are worth more.
const FULL: f64 = 0.85;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_has_no_more_strips_than_a_launch_takes() {
        // A GPU's tiles have 32 rows, and grids of CUDA 65,535 cubes along their second axis.
        let rows = 65_535 * 32;
        let sizes = [10_000_000, 8];
        let block = |most_rows| {
            block_of((256 << 20) / 4, sizes, false, most_rows, |_, rows| {
                rows / STEP * STEP
            })
        };
        let [narrow, columns] = block(rows);
        assert_eq!([narrow, columns], [rows / 128 * 128, 8]);
        assert!(narrow.div_ceil(32) <= 65_535);
        // Where nothing limits them, all that the budget allows.
        let [all, _] = block(usize::MAX);
        assert_eq!(all, (256 << 20) / 4 / 8);
    }

    #[test]
    fn products_of_gradients_fill_their_waves() {
        // An H100, and 4 to 10 bytes a pair: coefficients in place, and as one to three bf16. (Less
        // wide embeddings would need blocks beyond the budget, and are a small part of the time.)
        let fill = |strips: usize, width: usize| {
            let tiles = strips / 128 * width.div_ceil(128);
            tiles as f64 / tiles.next_multiple_of(132) as f64
        };
        for width in [512, 640, 768, 1024, 1536] {
            for of_pair in [4, 6, 8, 10] {
                let pairs = (256 << 20) / of_pair;
                let part = |len, most| full_waves(len, most, width, 132);
                let block = block_of(pairs, [65_536; 2], false, usize::MAX, part);
                assert!(block[0] * block[1] <= pairs && 3 * block[0] * block[1] > pairs);
                for side in block {
                    assert!(fill(side, width) >= 0.85, "{side} of width {width}");
                }
            }
        }
    }

    #[test]
    fn a_small_matrix_is_one_block_and_a_large_one_has_small_ones() {
        let block = |n: usize, budget| {
            let pairs = pairs_of(budget, BLOCK, 10, [n, n]);
            block_of(pairs, [n, n], false, usize::MAX, equal_parts)
        };
        assert_eq!(block(4_100, 1 << 30), [4_100; 2]);
        let [rows, columns] = block(65_536, 1 << 30);
        assert!(rows * columns * 10 <= BLOCK && rows * columns * 20 > BLOCK);
        // Nor do small ones exceed the budget.
        let [rows, columns] = block(4_100, 20 << 20);
        assert!(rows * columns * 10 <= 20 << 20);
    }

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
