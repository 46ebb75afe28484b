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

use super::buffers::{Planes, empty, matrix_at};
use super::factors::{Embeddings, one_after_the_other, similarities, similarity_factors};
use super::gradient::Gradient;
use super::kernels::{self, Epilogue, GroupLaunch, Program};
use super::onto::{At, Onto, Sums, product_onto};
use super::plan::{Plan, Terms};
use super::states::States;
use crate::pairwise::blocks::{self, Block, Part, Side, Sweep};
use crate::pairwise::ops::{Inputs, Outputs};
use crate::pairwise::pass::{Pass, Steps, Teacher};

/// One pass under way.
pub(super) struct Cubes<'a> {
    read: Read<'a>,
    states: States,
    left: Option<Gradient>,
    right: Option<Gradient>,
    /// Of a pass whose products compute the coefficients, in the place of states.
    sums: Sums,
}

/// What a pass reads, ready for its products and kernels.
struct Read<'a> {
    pass: &'a Pass,
    plan: Plan,
    a: Embeddings,
    b: Embeddings,
    /// Of the teachers that the pass reads, each.
    teachers: Vec<[Embeddings; 2]>,
    /// All similarities, block after block, where they are kept for the next pass or from the last.
    kept: Option<CubeTensor>,
    /// The type of similarities, states and results.
    dtype: DType,
    mask: BoolTensor<CubeBackend>,
    /// The bound vectors of rows, those of columns, the scalars.
    vectors: CubeTensor,
    columns_at: usize,
    scalars_at: usize,
}

impl<'a> Cubes<'a> {
    pub fn new(inputs: Inputs<CubeBackend>, pass: &'a Pass, plan: Plan) -> Self {
        let (like, dtype) = (inputs.a.clone(), inputs.dtype());
        let shapes = [inputs.a.shape(), inputs.b.shape()];
        let (sizes @ [n, m], block) = (inputs.sizes(), plan.block);
        let in_one = n <= block[0] && m <= block[1];
        let gradient = |shape| Gradient::new(&like, shape, dtype, in_one);
        let [a, b] = shapes;
        Self {
            states: States::new(pass, sizes, block, (&like, dtype), plan.tiling),
            left: pass.left.then(|| gradient(a)),
            right: pass.right.then(|| gradient(b)),
            sums: Sums::new(pass.reductions.len()),
            read: Read::new(inputs, pass, plan),
        }
    }

    pub fn run(mut self) -> Outputs<CubeBackend> {
        let (pass, sizes, block) = (self.read.pass, self.read.sizes(), self.read.plan.block);
        blocks::run(pass, sizes, block, &mut self);
        let results = if self.read.plan.is_fused {
            let like = (&self.read.vectors, self.read.dtype);
            self.sums.results(pass.result_len(sizes), like)
        } else {
            self.states.results(pass, sizes)
        };
        let or_results = |gradient: Option<Gradient>| gradient.map_or(results.clone(), |g| g.sum);
        let kept = self.read.kept.filter(|_| pass.coefficient.is_none());
        Outputs {
            left: or_results(self.left),
            right: or_results(self.right),
            kept: kept.unwrap_or_else(|| results.clone()),
            results,
        }
    }
}

impl<'a> Read<'a> {
    fn new(inputs: Inputs<CubeBackend>, pass: &'a Pass, plan: Plan) -> Self {
        let dtype = inputs.dtype();
        let teacher = |teacher: &Teacher| {
            [&inputs.teacher_a, &inputs.teacher_b].map(|x| {
                let (rows, columns) = (0..x.shape()[0], teacher.at..teacher.at + teacher.width);
                let own = if x.shape()[1] == teacher.width {
                    x.clone()
                } else {
                    CubeBackend::float_slice(x.clone(), &[rows.into(), columns.into()])
                };
                Embeddings::new(own, &plan.teachers, false)
            })
        };
        let named = pass.teachers.iter().filter(|teacher| teacher.named);
        let (vectors, [columns_at, scalars_at]) = vectors(
            pass,
            [&inputs.rows, &inputs.columns, &inputs.scalars],
            (&inputs.a, dtype),
        );
        let kept = plan.keeps.then(|| match pass.coefficient {
            Some(_) => into_contiguous(inputs.kept.clone()),
            None => empty(&inputs.a, [inputs.sizes().iter().product::<usize>()], dtype),
        });
        // The gradient of either side is a product with the other.
        let own = |x, with_gradient| Embeddings::new(x, &plan.factors, with_gradient);
        let mut a = own(inputs.a, pass.right || pass.symmetric && pass.left);
        if pass.has_scale {
            // Beside gradients there is no room for a copy of all rows.
            a = a.times(scale_of(&inputs.rows), pass.coefficient.is_none());
        }
        Self {
            teachers: named.map(teacher).collect(),
            b: if pass.symmetric {
                a.clone()
            } else {
                own(inputs.b, pass.left)
            },
            a,
            kept,
            pass,
            plan,
            dtype,
            mask: inputs.mask,
            vectors: into_contiguous(vectors),
            columns_at,
            scalars_at,
        }
    }

    fn sizes(&self) -> [usize; 2] {
        [self.a.count(), self.b.count()]
    }

    /// The similarities of a block, which coefficients may take the place of.
    fn similarities(&self, block: &Block) -> CubeTensor {
        let shape = [block.rows.len, block.columns.len];
        let Some(kept) = &self.kept else {
            let out = empty(&self.vectors, shape, self.dtype);
            similarities([&self.a, &self.b], block, &out);
            return out;
        };
        // Its row of blocks comes after all rows above, its own after those to its left.
        let at = block.rows.start * self.sizes()[1] + block.rows.len * block.columns.start;
        let kept = matrix_at(kept, at, shape);
        if self.pass.coefficient.is_none() {
            similarities([&self.a, &self.b], block, &kept);
        }
        kept
    }

    /// The similarities of the teachers that the pass reads, one after the other.
    fn teacher_similarities(&self, block: &Block) -> CubeTensor {
        if self.teachers.is_empty() {
            return self.vectors.clone();
        }
        let shape = [block.rows.len, block.columns.len];
        let each = self.teachers.iter().map(|[a, b]| {
            let out = empty(&self.vectors, shape, self.dtype);
            similarities([a, b], block, &out);
            out
        });
        one_after_the_other(each.collect())
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

    fn at(&self, block: &Block) -> At {
        let [n, m] = self.sizes();
        At {
            rows: block.rows.len,
            columns: block.columns.len,
            i0: block.rows.start,
            j0: block.columns.start,
            n,
            m,
            first_row: self.pass.first_row,
            columns_at: self.columns_at,
            scalars_at: self.scalars_at,
        }
    }

    /// The coefficients of a block, computed by the product of its similarities.
    fn fused(&self, block: &Block, program: Program, sums: &mut Sums) -> Vec<CubeTensor> {
        let at = self.at(block);
        let in_place = Terms {
            dtype: self.dtype,
            count: 1,
        };
        let terms = self.plan.factors.coefficient.unwrap_or(in_place);
        let planes = Planes::new(&self.vectors, [at.rows, at.columns], terms);
        let (teachers, mask) = (self.teacher_similarities(block), self.mask(block));
        let mut onto = Onto {
            epilogue: Epilogue::Coefficients(program),
            to: &planes.buffer,
            reads: [&teachers, &mask, &self.vectors],
            with_mask: self.pass.named.mask,
            sums,
        };
        product_onto(similarity_factors([&self.a, &self.b], block), at, &mut onto);
        planes.each()
    }

    /// Runs the kernel of a block; its coefficients, where the program has some.
    #[allow(unsafe_code)]
    fn launch(
        &self,
        block: &Block,
        program: &Program,
        (cubes, group): ([usize; 2], GroupLaunch),
        partials: &CubeTensor,
    ) -> Option<Vec<CubeTensor>> {
        let dtype = self.dtype;
        let reduces = !(program.rows.is_empty() && program.columns.is_empty());
        if !reduces && program.coefficient.is_none() {
            return None;
        }
        let similarity = self.similarities(block);
        let terms = self.plan.factors.coefficient;
        let terms = terms.filter(|_| program.coefficient.is_some());
        let apart = Planes::new(
            &similarity,
            [block.rows.len, block.columns.len],
            terms.unwrap_or(Terms::NONE),
        );
        let teachers = self.teacher_similarities(block);
        // SAFETY: units beyond the block read and write at its last row and column or not at all;
        // the vectors have as many elements as the steps' leaves name; `partials` has room for
        // every state of every cube.
        unsafe {
            kernels::block::launch_unchecked(
                &similarity.client,
                CubeCount::Static(cubes[0] as u32, cubes[1] as u32, 1),
                CubeDim::new_2d(self.plan.tiling.lanes as u32, self.plan.tiling.lines as u32),
                similarity.clone().into_buffer_arg(),
                teachers.into_buffer_arg(),
                self.mask(block).into_buffer_arg(),
                self.vectors.clone().into_buffer_arg(),
                partials.clone().into_buffer_arg(),
                apart.buffer.clone().into_buffer_arg(),
                self.at(block).launch(),
                group,
                f32::INFINITY,
                program.clone(),
                self.pass.named.mask,
                [dtype, apart.buffer.dtype].map(dtype_to_storage_type),
            )
        };
        program.coefficient.map(|_| {
            if terms.is_some() {
                apart.each()
            } else {
                vec![similarity]
            }
        })
    }
}

impl Sweep for Cubes<'_> {
    /// Their terms.
    type Coefficients = Vec<CubeTensor>;

    fn reduce(&mut self, block: &Block, steps: &Steps) -> Option<Vec<CubeTensor>> {
        let read = &self.read;
        let tiling = read.plan.tiling;
        let ops = steps.tape.ops.iter();
        let [rows, columns] = self.states.reducing(steps);
        let program = Program {
            tiling,
            ops: ops.map(|op| read.pass.renumbered(*op)).collect(),
            rows,
            columns: if block.is_own_transpose {
                Vec::new()
            } else {
                columns
            },
            row_components: self.states.row_components(),
            coefficient: steps.coefficient,
            terms: read.plan.factors.coefficient.map_or(0, |terms| terms.count),
        };
        if read.plan.is_fused {
            return program
                .coefficient
                .map(|_| read.fused(block, program, &mut self.sums));
        }
        let parts = || {
            let range = block.columns.start..block.columns.end();
            Part::all(range.len(), read.plan.columns).map(move |part| Part {
                start: range.start + part.start,
                ..part
            })
        };
        let splits_of = |part: Part| part.len.div_ceil(tiling.span());
        let cubes = [
            parts().map(splits_of).sum(),
            block.rows.len.div_ceil(tiling.rows()),
        ];
        let partials = self.states.partials(block, cubes);
        let (mut split, mut coefficients) = (0, None);
        for columns in parts() {
            let own = [splits_of(columns), cubes[1]];
            let column = columns.start - block.columns.start;
            let group = GroupLaunch::new(cubes[0], split, block.columns.len, column);
            let part = Block { columns, ..*block };
            coefficients = read.launch(&part, &program, (own, group), &partials);
            split += own[0];
        }
        self.states.merge(block, &program, partials, cubes);
        coefficients
    }

    fn transposed(coefficients: Vec<CubeTensor>) -> Vec<CubeTensor> {
        let terms = coefficients.into_iter();
        terms.map(CubeBackend::float_transpose).collect()
    }

    fn add(
        &mut self,
        (to, part): (Side, Part),
        coefficients: Vec<CubeTensor>,
        (from, others): (Side, Part),
    ) {
        let embeddings = match from {
            Side::Left => &self.read.a,
            Side::Right => &self.read.b,
        };
        let gradient = match to {
            Side::Left => &mut self.left,
            Side::Right => &mut self.right,
        };
        let gradient = gradient.as_mut().expect("the pass wants this gradient");
        gradient.add(part.start, &coefficients, &embeddings.gradient(others));
    }
}

/// What rows are multiplied by, `[n, 1]`: the third of their vectors.
pub(super) fn scale_of(vectors: &CubeTensor) -> CubeTensor {
    let len = vectors.shape()[1];
    let third = CubeBackend::float_slice(vectors.clone(), &[(2..3).into(), (0..len).into()]);
    CubeBackend::float_reshape(third, Shape::new([len, 1]))
}

/// The bound values that a pass reads in one buffer, and where those of columns and the scalars
/// begin.
fn vectors(
    pass: &Pass,
    [rows, columns, scalars]: [&CubeTensor; 3],
    (like, dtype): (&CubeTensor, DType),
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
        0 => empty(like, [1], dtype),
        1 => vectors.remove(0),
        _ => CubeBackend::float_cat(vectors, 0),
    };
    (vectors, [columns_at, scalars_at])
}
