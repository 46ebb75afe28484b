//! One pass, block by block.

use burn::backend::TensorMetadata;
use burn::backend::cubecl::dtype_to_storage_type;
use burn::backend::ops::{BoolTensorOps, FloatTensorOps};
use burn::backend::tensor::BoolTensor;
use burn::tensor::{DType, FloatDType, Shape};
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl::prelude::{CubeCount, CubeDim};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

use super::buffers::{empty, rows_of, unpadded};
use super::gradient::Gradient;
use super::kernels::{self, Program, Tiling};
use super::product::{product, rounded};
use super::states::{Found, States, results};
use super::tiling;
use crate::pairwise::blocks::{self, Block, Part, Side, Sweep};
use crate::pairwise::ops::{Inputs, Outputs};
use crate::pairwise::pass::{Pass, Steps, Teacher};
use crate::pairwise::reduction::Axis;

/// Bytes that the matrices of a block take at most: more make no pass faster.
pub(super) const BLOCK: usize = 256 << 20;

/// One pass under way.
pub(super) struct Cubes<'a> {
    factors: Factors<'a>,
    rows: States,
    columns: States,
    left: Option<Gradient>,
    right: Option<Gradient>,
}

/// What a pass reads, ready for its products and kernels.
struct Factors<'a> {
    pass: &'a Pass,
    /// In the type of the products' factors.
    a: CubeTensor,
    b: CubeTensor,
    /// Of the teachers that the pass reads, each.
    teachers: Vec<[CubeTensor; 2]>,
    /// The type of similarities, states and results.
    dtype: DType,
    /// That of the factors of products, where it is another.
    rounded: Option<DType>,
    mask: BoolTensor<CubeBackend>,
    /// The bound vectors of rows, those of columns, the scalars.
    vectors: CubeTensor,
    columns_at: usize,
    scalars_at: usize,
    /// Rows and columns of a block.
    block: [usize; 2],
    tiling: Tiling,
}

impl<'a> Cubes<'a> {
    pub fn new(inputs: Inputs<CubeBackend>, pass: &'a Pass) -> Self {
        let tiling = tiling(&inputs.a);
        Self::with_tiling(inputs, pass, tiling)
    }

    pub fn with_tiling(inputs: Inputs<CubeBackend>, pass: &'a Pass, tiling: Tiling) -> Self {
        let like = inputs.a.clone();
        let factors = Factors::new(inputs, pass, tiling);
        let (sizes @ [n, m], block) = (factors.sizes(), factors.block);
        let units = tiling.units();
        let states = |axis| States::new(pass, axis, sizes, block, &like, units);
        let in_one = n <= block[0] && m <= block[1];
        let precision = pass.limits.precision;
        let gradient = |x| Gradient::new(x, factors.dtype, in_one, precision, units);
        Self {
            rows: states(Axis::Rows),
            columns: states(Axis::Columns),
            left: pass.left.then(|| gradient(&factors.a)),
            right: pass.right.then(|| gradient(&factors.b)),
            factors,
        }
    }

    pub fn run(mut self) -> Outputs<CubeBackend> {
        let (pass, sizes, block) = (self.factors.pass, self.factors.sizes(), self.factors.block);
        blocks::run(pass, sizes, block, &mut self);
        let results = results(pass, sizes, [&self.rows, &self.columns]);
        let or_results = |gradient: Option<Gradient>| gradient.map_or(results.clone(), |g| g.sum);
        Outputs {
            left: or_results(self.left),
            right: or_results(self.right),
            kept: results.clone(),
            results,
        }
    }
}

impl<'a> Factors<'a> {
    fn new(inputs: Inputs<CubeBackend>, pass: &'a Pass, tiling: Tiling) -> Self {
        let sizes = inputs.sizes();
        let named = pass.named;
        let dtype = inputs.a.dtype();
        let rounded = rounded(pass.limits.precision, &inputs.a);
        let factor = |x: CubeTensor| {
            into_contiguous(match rounded {
                Some(rounded) => CubeBackend::float_cast(x, rounded.into()),
                None => x,
            })
        };
        let teacher = |teacher: &Teacher| {
            [&inputs.teacher_a, &inputs.teacher_b].map(|x| {
                if x.shape()[1] == teacher.width {
                    return factor(x.clone());
                }
                let (rows, columns) = (0..x.shape()[0], teacher.at..teacher.at + teacher.width);
                let part = [rows.into(), columns.into()];
                factor(CubeBackend::float_slice(x.clone(), &part))
            })
        };
        let read = pass.teachers.iter().filter(|teacher| teacher.named);
        let teachers: Vec<_> = read.map(teacher).collect();
        let matrices = 1
            + teachers.len()
            + 2 * usize::from(named.mask)
            + usize::from(rounded.is_some() && pass.coefficient.is_some());
        let (vectors, [columns_at, scalars_at]) = vectors(
            pass,
            [&inputs.rows, &inputs.columns, &inputs.scalars],
            &inputs.a,
        );
        Self {
            block: block_of(
                pass.limits.budget.min(BLOCK),
                matrices * dtype.size(),
                sizes,
                pass.symmetric,
                most_rows(&inputs.a, tiling),
            ),
            tiling,
            pass,
            dtype,
            rounded,
            a: factor(inputs.a),
            b: factor(inputs.b),
            teachers,
            mask: inputs.mask,
            vectors: into_contiguous(vectors),
            columns_at,
            scalars_at,
        }
    }

    fn sizes(&self) -> [usize; 2] {
        [self.a.shape()[0], self.b.shape()[0]]
    }

    /// The products of rows of two sets of embeddings with one another.
    fn similarities(&self, a: &CubeTensor, b: &CubeTensor, block: &Block) -> CubeTensor {
        let out = empty(a, [block.rows.len, block.columns.len], self.dtype);
        let b = CubeBackend::float_transpose(rows_of(b, block.columns));
        product(rows_of(a, block.rows), b, &out, self.pass.limits.precision);
        out
    }

    /// The similarities of the teachers that the pass reads, one after the other.
    fn teacher_similarities(&self, block: &Block) -> CubeTensor {
        let similarities = |[a, b]: &[CubeTensor; 2]| self.similarities(a, b, block);
        let mut each: Vec<_> = self.teachers.iter().map(similarities).collect();
        match each.len() {
            0 => self.vectors.clone(),
            1 => each.remove(0),
            _ => {
                // As vectors, which Burn does not pad.
                let len = Shape::new([block.rows.len * block.columns.len]);
                let flat = each
                    .into_iter()
                    .map(|x| CubeBackend::float_reshape(x, len.clone()));
                unpadded(CubeBackend::float_cat(flat.collect(), 0))
            }
        }
    }

    fn mask(&self, block: &Block) -> CubeTensor {
        if !self.pass.named.mask {
            return self.vectors.clone();
        }
        let [rows, columns] = [block.rows, block.columns].map(|part| part.start..part.end());
        let mask = CubeBackend::bool_slice(self.mask.clone(), &[rows.into(), columns.into()]);
        into_contiguous(CubeBackend::bool_into_float(
            mask,
            FloatDType::from(self.dtype),
        ))
    }

    /// Runs the kernel of a block; its coefficients, where the program has some.
    #[allow(unsafe_code)]
    fn launch(
        &self,
        block: &Block,
        program: &Program,
        [splits, strips]: [usize; 2],
        partials: &CubeTensor,
    ) -> Option<CubeTensor> {
        let ([n, m], dtype) = (self.sizes(), self.dtype);
        let (rows, columns) = (block.rows, block.columns);
        let apart = match (program.coefficient, self.rounded) {
            (Some(_), Some(rounded)) => empty(&self.a, [rows.len, columns.len], rounded),
            _ => empty(&self.a, [1], dtype),
        };
        let reduces = !(program.rows.is_empty() && program.columns.is_empty());
        if !reduces && program.coefficient.is_none() {
            return None;
        }
        let similarity = self.similarities(&self.a, &self.b, block);
        let teachers = self.teacher_similarities(block);
        let (at, to) = (
            [rows.start, columns.start],
            [self.columns_at, self.scalars_at],
        );
        // SAFETY: units beyond the block read and write at its last row and column or not at all;
        // the vectors have as many elements as the steps' leaves name; `partials` has room for
        // every state of every cube.
        unsafe {
            kernels::block::launch_unchecked(
                &self.a.client,
                CubeCount::Static(splits as u32, strips as u32, 1),
                CubeDim::new_2d(self.tiling.lanes as u32, self.tiling.lines as u32),
                similarity.clone().into_buffer_arg(),
                teachers.into_buffer_arg(),
                self.mask(block).into_buffer_arg(),
                self.vectors.clone().into_buffer_arg(),
                partials.clone().into_buffer_arg(),
                apart.clone().into_buffer_arg(),
                kernels::PlaceLaunch::new(
                    rows.len,
                    columns.len,
                    at[0],
                    at[1],
                    n,
                    m,
                    self.pass.first_row,
                    to[0],
                    to[1],
                ),
                f32::INFINITY,
                program.clone(),
                self.pass.named.mask,
                [dtype, apart.dtype].map(dtype_to_storage_type),
            )
        };
        let coefficients = if self.rounded.is_some() {
            apart
        } else {
            similarity
        };
        program.coefficient.map(|_| coefficients)
    }
}

impl Sweep for Cubes<'_> {
    type Coefficients = CubeTensor;

    fn reduce(&mut self, block: &Block, steps: &Steps) -> Option<CubeTensor> {
        let factors = &self.factors;
        let ops = steps.tape.ops.iter();
        let program = Program {
            tiling: factors.tiling,
            ops: ops.map(|op| factors.pass.renumbered(*op)).collect(),
            rows: self.rows.reducing(steps),
            columns: if block.is_own_transpose {
                Vec::new()
            } else {
                self.columns.reducing(steps)
            },
            row_components: self.rows.components,
            coefficient: steps.coefficient,
            apart: factors.rounded.is_some(),
        };
        let (rows, columns) = (block.rows, block.columns);
        let splits = columns.len.div_ceil(factors.tiling.span());
        let strips = rows.len.div_ceil(factors.tiling.rows());
        let by_row = Found {
            from: 0,
            parts: splits,
        };
        let by_column = Found {
            from: self.rows.components * splits * rows.len,
            parts: strips,
        };
        let len = by_column.from + self.columns.components * strips * columns.len;
        let partials = empty(&factors.a, [len.max(1)], factors.dtype);
        let coefficients = factors.launch(block, &program, [splits, strips], &partials);
        self.rows.merge(rows, &program.rows, &partials, by_row);
        if block.is_mirrored {
            // The columns of this block are rows below the diagonal.
            self.rows
                .merge(columns, &program.columns, &partials, by_column);
        } else if !block.is_own_transpose {
            self.columns
                .merge(columns, &program.columns, &partials, by_column);
        }
        coefficients
    }

    fn transposed(coefficients: CubeTensor) -> CubeTensor {
        CubeBackend::float_transpose(coefficients)
    }

    fn add(
        &mut self,
        (to, part): (Side, Part),
        coefficients: CubeTensor,
        (from, others): (Side, Part),
    ) {
        let embeddings = match from {
            Side::Left => &self.factors.a,
            Side::Right => &self.factors.b,
        };
        let gradient = match to {
            Side::Left => &mut self.left,
            Side::Right => &mut self.right,
        };
        let gradient = gradient.as_mut().expect("the pass wants this gradient");
        gradient.add(part.start, coefficients, rows_of(embeddings, others));
    }
}

/// The bound values that a pass reads in one buffer, and where those of columns and the scalars
/// begin.
fn vectors(
    pass: &Pass,
    [rows, columns, scalars]: [&CubeTensor; 3],
    like: &CubeTensor,
) -> (CubeTensor, [usize; 2]) {
    let named = pass.named;
    let flat = |is_read: bool, x: &CubeTensor| {
        is_read.then(|| {
            let len = x.shape().num_elements();
            CubeBackend::float_reshape(x.clone(), Shape::new([len]))
        })
    };
    // The vectors of a symmetric pass serve rows and columns.
    let rows = flat(named.rows || (pass.symmetric && named.columns), rows);
    let columns = flat(named.columns && !pass.symmetric, columns);
    let scalars = flat(named.scalars, scalars);
    let len = |x: &Option<CubeTensor>| x.as_ref().map_or(0, |x| x.shape().num_elements());
    let columns_at = if pass.symmetric { 0 } else { len(&rows) };
    let scalars_at = len(&rows) + len(&columns);
    let mut vectors: Vec<_> = [rows, columns, scalars].into_iter().flatten().collect();
    let vectors = match vectors.len() {
        0 => empty(like, [1], like.dtype()),
        1 => vectors.remove(0),
        _ => CubeBackend::float_cat(vectors, 0),
    };
    (vectors, [columns_at, scalars_at])
}

/// The rows of a block, at most: a launch has a cube for each strip of them, along an axis that
/// some devices limit to 65,535.
fn most_rows(like: &CubeTensor, tiling: Tiling) -> usize {
    let (_, strips, _) = like.client.properties().hardware.max_cube_count;
    (strips as usize).saturating_mul(tiling.rows())
}

/// Rows and columns of a block whose pairs take so many bytes each.
fn block_of(
    bytes: usize,
    of_pair: usize,
    [n, m]: [usize; 2],
    square: bool,
    most_rows: usize,
) -> [usize; 2] {
    const STEP: usize = 128;
    let pairs = bytes / of_pair;
    let down = |x: usize| (x / STEP).max(1) * STEP;
    let side = down((pairs as f64).sqrt() as usize);
    if square {
        return [side; 2];
    }
    // What one side does not need, the other may have.
    if n <= side {
        [n, down(pairs / n.max(1))]
    } else if m <= side {
        [down((pairs / m.max(1)).min(most_rows)), m]
    } else {
        [side; 2]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_has_no_more_strips_than_a_launch_takes() {
        // A GPU's tiles have 32 rows, and grids of CUDA 65,535 cubes along their second axis.
        let rows = 65_535 * 32;
        let sizes = [5_000_000, 8];
        let [narrow, columns] = block_of(256 << 20, 4, sizes, false, rows);
        assert_eq!([narrow, columns], [rows / 128 * 128, 8]);
        assert!(narrow.div_ceil(32) <= 65_535);
        // Where nothing limits them, all that the budget allows.
        let [all, _] = block_of(256 << 20, 4, sizes, false, usize::MAX);
        assert_eq!(all, (256 << 20) / 4 / 8);
    }
}
