//! Passes on CubeCL's runtimes (CUDA, ROCm, Metal, Vulkan, WebGPU).
//!
//! A block of similarities comes from a matrix product, one kernel computes all expressions of its
//! pairs (see [`kernels`]), and two more products take its coefficients into the gradients.

mod kernels;
mod product;

use std::sync::Arc;

use burn::backend::TensorMetadata;
use burn::backend::cubecl::dtype_to_storage_type;
use burn::backend::ops::{BoolTensorOps, FloatTensorOps};
use burn::backend::tensor::{BoolTensor, FloatTensor};
use burn::tensor::{DType, FloatDType, Shape};
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl::prelude::{CubeCount, CubeDim};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::{empty_device_contiguous_dtype, zeros_client};
use burn_cubecl::tensor::CubeTensor;

use super::form::{Axis, Pass, Reduction, Steps, Teacher};
use super::ops::{Inputs, Outputs, PairwiseOps, without_autodiff};
use super::{Precision, chunked};
use kernels::{Program, Reducing, State, Tiling};
use product::{product, rounded};

/// Bytes that the matrices of a block take at most: more make no pass faster.
const BLOCK: usize = 256 << 20;

impl PairwiseOps for CubeBackend {
    fn pairwise_pass(inputs: Inputs<Self>, pass: Arc<Pass>) -> Outputs<Self> {
        match refusal(&inputs) {
            None => Sweep::new(inputs, &pass).run(),
            Some(_) => chunked::pass(inputs, &pass),
        }
    }

    without_autodiff!();
}

/// Why a device cannot run the kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// Cubes of 256 units.
    Units,
    /// The numbers that a cube shares.
    SharedMemory,
    /// The kernels' indices have 32 bits.
    Size,
}

fn tiling(x: &CubeTensor) -> Tiling {
    Tiling::of(x.client.properties().hardware.plane_size_max)
}

fn refusal(inputs: &Inputs<CubeBackend>) -> Option<Refusal> {
    let hardware = &inputs.a.client.properties().hardware;
    let [n, m] = inputs.sizes();
    let vectors = |x: &CubeTensor, len: usize| match x.rank() {
        2 if x.shape()[1] == len => x.shape().num_elements(),
        _ => 0,
    };
    // What kernels count in: bound vectors, states and results, and rows of gradients.
    let numbers = [
        vectors(&inputs.rows, n) + vectors(&inputs.columns, m),
        inputs.a.shape().num_elements(),
        inputs.b.shape().num_elements(),
    ];
    if (hardware.max_units_per_cube as usize) < kernels::UNITS {
        Some(Refusal::Units)
    } else if hardware.max_shared_memory_size < tiling(&inputs.a).shared() * inputs.a.dtype().size()
    {
        Some(Refusal::SharedMemory)
    } else if numbers.into_iter().any(|count| count > u32::MAX as usize) {
        Some(Refusal::Size)
    } else {
        None
    }
}

/// The reductions of a pass along one axis, and their states for all rows (or columns).
struct Side {
    /// Numbers of the reductions in the pass, and how each accumulates.
    reductions: Vec<(usize, Reducing)>,
    components: usize,
    len: usize,
    states: CubeTensor,
    /// Of each block of rows (or columns), whether its states have begun.
    begun: Vec<bool>,
}

/// One pass under way.
struct Sweep<'a> {
    pass: &'a Pass,
    /// As they are multiplied.
    a: CubeTensor,
    b: CubeTensor,
    /// The type of similarities, states and results.
    dtype: DType,
    /// That of the factors of products, where it is another.
    rounded: Option<DType>,
    /// Of the teachers that the pass reads, each.
    teachers: Vec<[CubeTensor; 2]>,
    mask: BoolTensor<CubeBackend>,
    /// The bound vectors of rows, those of columns, the scalars.
    vectors: CubeTensor,
    columns_at: usize,
    scalars_at: usize,
    /// Rows and columns of a block.
    side: [usize; 2],
    tiling: Tiling,
}

impl<'a> Sweep<'a> {
    fn new(inputs: Inputs<CubeBackend>, pass: &'a Pass) -> Self {
        let [n, m] = inputs.sizes();
        let flat = |x: CubeTensor| {
            let len = x.shape().num_elements();
            CubeBackend::float_reshape(x, Shape::new([len]))
        };
        let named = pass.named;
        let rows = named.rows.then(|| flat(inputs.rows));
        let columns = named.columns.then(|| flat(inputs.columns));
        let scalars = named.scalars.then(|| flat(inputs.scalars));
        let len = |x: &Option<CubeTensor>| x.as_ref().map_or(0, |x| x.shape().num_elements());
        // The vectors of a symmetric pass serve rows and columns.
        let columns_at = if pass.symmetric { 0 } else { len(&rows) };
        let scalars_at = len(&rows) + len(&columns);
        let mut vectors: Vec<_> = [rows, columns, scalars].into_iter().flatten().collect();
        let vectors = match vectors.len() {
            0 => empty(&inputs.a, [1], inputs.a.dtype),
            1 => vectors.remove(0),
            _ => CubeBackend::float_cat(vectors, 0),
        };
        let dtype = inputs.a.dtype;
        let rounded = rounded(pass.precision, &inputs.a);
        let factor = |x: CubeTensor| {
            into_contiguous(match rounded {
                Some(rounded) => CubeBackend::float_cast(x, rounded.into()),
                None => x,
            })
        };
        let teacher = |teacher: &Teacher| {
            let columns = teacher.at..teacher.at + teacher.width;
            [&inputs.teacher_a, &inputs.teacher_b].map(|x| match x.shape()[1] == teacher.width {
                true => factor(x.clone()),
                false => {
                    let rows = 0..x.shape()[0];
                    let part = [rows.into(), columns.clone().into()];
                    factor(CubeBackend::float_slice(x.clone(), &part))
                }
            })
        };
        let matrices = 1
            + pass.teachers.iter().filter(|t| t.named).count()
            + 2 * usize::from(named.mask)
            + usize::from(rounded.is_some() && pass.coefficient.is_some());
        Self {
            side: block_of(
                pass.budget.min(BLOCK),
                matrices * dtype.size(),
                [n, m],
                pass.symmetric,
            ),
            tiling: tiling(&inputs.a),
            pass,
            dtype,
            rounded,
            a: factor(inputs.a),
            b: factor(inputs.b),
            teachers: pass
                .teachers
                .iter()
                .filter(|t| t.named)
                .map(teacher)
                .collect(),
            mask: inputs.mask,
            vectors: into_contiguous(vectors),
            columns_at,
            scalars_at,
        }
    }

    fn run(self) -> Outputs<CubeBackend> {
        let pass = self.pass;
        let [n, m] = self.sizes();
        let starts =
            |len: usize, side: usize| (0..len).step_by(side).map(move |i| (i, side.min(len - i)));
        let mut rows = self.side_of(Axis::Rows);
        let mut columns = self.side_of(Axis::Columns);
        let mut left = pass.left.then(|| self.gradient(&self.a));
        let mut right = pass.right.then(|| self.gradient(&self.b));
        let anywhere = pass.anywhere();
        for (bi, (i0, r)) in starts(n, self.side[0]).enumerate() {
            for (bj, (j0, c)) in starts(m, self.side[1]).enumerate() {
                if pass.symmetric && j0 < i0 {
                    continue;
                }
                let meets_diagonal = i0 < j0 + c && j0 < i0 + r;
                let steps = if meets_diagonal {
                    &anywhere
                } else {
                    &pass.off_diagonal
                };
                // On the diagonal of a symmetric matrix the columns are the rows once more.
                let once = pass.symmetric && i0 == j0;
                let coefficients = self.block(
                    steps,
                    [(bi, i0, r), (bj, j0, c)],
                    once,
                    &mut rows,
                    &mut columns,
                );
                let Some(g) = coefficients else { continue };
                if let Some(left) = &mut left {
                    left.add(i0, g.clone(), self.rows_of(&self.b, j0, c));
                }
                let transposed = |g| CubeBackend::float_transpose(g);
                if pass.symmetric && !once {
                    let left = left.as_mut().expect("coefficients are for gradients");
                    left.add(j0, transposed(g), self.rows_of(&self.a, i0, r));
                } else if let Some(right) = &mut right {
                    right.add(j0, transposed(g), self.rows_of(&self.a, i0, r));
                }
            }
        }
        let results = self.results(&rows, &columns);
        let or_results = |gradient: Option<Gradient>| gradient.map_or(results.clone(), |g| g.sum);
        Outputs {
            left: or_results(left),
            right: or_results(right),
            kept: results.clone(),
            results,
        }
    }

    fn sizes(&self) -> [usize; 2] {
        [self.a.shape()[0], self.b.shape()[0]]
    }

    fn rows_of(&self, x: &CubeTensor, start: usize, len: usize) -> CubeTensor {
        if len == x.shape()[0] {
            return x.clone();
        }
        let width = x.shape()[1];
        into_contiguous(CubeBackend::float_slice(
            x.clone(),
            &[(start..start + len).into(), (0..width).into()],
        ))
    }

    fn side_of(&self, axis: Axis) -> Side {
        let mut components = 0;
        let along = |(k, reduction): (usize, &Reduction)| {
            if reduction.axis != axis {
                return None;
            }
            let state = State::of(&reduction.kind);
            let component = components;
            components += state.components();
            let steps = [0; 2];
            Some((
                k,
                Reducing {
                    state,
                    steps,
                    component,
                },
            ))
        };
        let reductions: Vec<_> = self
            .pass
            .reductions
            .iter()
            .enumerate()
            .filter_map(along)
            .collect();
        let len = axis.len(self.sizes());
        let side = axis.len(self.side);
        Side {
            reductions,
            components,
            len,
            states: empty(&self.a, [components.max(1) * len], self.dtype),
            begun: vec![false; len.div_ceil(side)],
        }
    }

    /// A gradient by `x`.
    fn gradient(&self, x: &CubeTensor) -> Gradient {
        let ([n, m], [rows, columns]) = (self.sizes(), self.side);
        let in_one = n <= rows && m <= columns;
        Gradient {
            sum: match in_one {
                true => empty(x, x.shape(), self.dtype),
                false => zeros(x, x.shape(), self.dtype),
            },
            in_one,
            precision: self.pass.precision,
        }
    }

    /// The product of rows of two sets of embeddings, with one another.
    fn similarities(
        &self,
        a: &CubeTensor,
        b: &CubeTensor,
        (i0, r): (usize, usize),
        (j0, c): (usize, usize),
    ) -> CubeTensor {
        let out = empty(a, [r, c], self.dtype);
        let b = CubeBackend::float_transpose(self.rows_of(b, j0, c));
        product(self.rows_of(a, i0, r), b, &out, self.pass.precision);
        out
    }

    /// The similarities of the teachers that the pass reads, one after the other.
    fn teacher_similarities(&self, rows: (usize, usize), columns: (usize, usize)) -> CubeTensor {
        let similarities = |[a, b]: &[CubeTensor; 2]| self.similarities(a, b, rows, columns);
        let mut each: Vec<_> = self.teachers.iter().map(similarities).collect();
        match each.len() {
            0 => self.vectors.clone(),
            1 => each.remove(0),
            _ => {
                // As vectors, which Burn does not pad.
                let len = Shape::new([rows.1 * columns.1]);
                let flat = each
                    .into_iter()
                    .map(|x| CubeBackend::float_reshape(x, len.clone()));
                unpadded(CubeBackend::float_cat(flat.collect(), 0))
            }
        }
    }

    /// Reduces a block; its coefficients, where the pass asks for them.
    #[allow(unsafe_code)]
    fn block(
        &self,
        steps: &Steps,
        [(bi, i0, r), (bj, j0, c)]: [(usize, usize, usize); 2],
        once: bool,
        rows: &mut Side,
        columns: &mut Side,
    ) -> Option<CubeTensor> {
        let (pass, named) = (self.pass, self.pass.named);
        let dtype = self.dtype;
        let counting = |side: &Side| -> Vec<Reducing> {
            let there = |&(k, reducing): &(usize, Reducing)| {
                Some(Reducing {
                    steps: steps.reductions[k]?,
                    ..reducing
                })
            };
            side.reductions.iter().filter_map(there).collect()
        };
        let program = Program {
            tiling: self.tiling,
            ops: steps
                .tape
                .ops
                .iter()
                .map(|op| self.pass.renumbered(*op))
                .collect(),
            rows: counting(rows),
            columns: if once { Vec::new() } else { counting(columns) },
            row_components: rows.components,
            coefficient: steps.coefficient,
            apart: self.rounded.is_some(),
        };
        let splits = c.div_ceil(self.tiling.span());
        let strips = r.div_ceil(self.tiling.rows());
        let columns_from = rows.components * splits * r;
        let partials = empty(
            &self.a,
            [(columns_from + columns.components * strips * c).max(1)],
            dtype,
        );
        let reduces = !(program.rows.is_empty() && program.columns.is_empty());
        let mut coefficients = None;
        let apart = match (program.coefficient, self.rounded) {
            (Some(_), Some(rounded)) => empty(&self.a, [r, c], rounded),
            _ => empty(&self.a, [1], dtype),
        };
        if reduces || program.coefficient.is_some() {
            let similarity = self.similarities(&self.a, &self.b, (i0, r), (j0, c));
            let teachers = self.teacher_similarities((i0, r), (j0, c));
            let mask = match named.mask {
                true => {
                    let block = [(i0..i0 + r).into(), (j0..j0 + c).into()];
                    let mask = CubeBackend::bool_slice(self.mask.clone(), &block);
                    into_contiguous(CubeBackend::bool_into_float(mask, FloatDType::from(dtype)))
                }
                false => self.vectors.clone(),
            };
            let [n, m] = self.sizes();
            // SAFETY: units beyond the block read and write at its last row and column or not at all; the vectors
            // have as many numbers as the steps' leaves name; `partials` has room for every state of every cube.
            unsafe {
                kernels::block::launch_unchecked(
                    &self.a.client,
                    CubeCount::Static(splits as u32, strips as u32, 1),
                    CubeDim::new_2d(kernels::LANES as u32, kernels::LINES as u32),
                    similarity.clone().into_buffer_arg(),
                    teachers.into_buffer_arg(),
                    mask.into_buffer_arg(),
                    self.vectors.clone().into_buffer_arg(),
                    partials.clone().into_buffer_arg(),
                    apart.clone().into_buffer_arg(),
                    kernels::PlaceLaunch::new(r, c, i0, j0, n, m, self.columns_at, self.scalars_at),
                    f32::INFINITY,
                    program.clone(),
                    named.mask,
                    [dtype, apart.dtype].map(dtype_to_storage_type),
                )
            };
            coefficients = program.coefficient.map(|_| {
                if self.rounded.is_some() {
                    apart
                } else {
                    similarity
                }
            });
        }
        self.merge(rows, &program.rows, &partials, (0, splits), (bi, i0, r));
        if pass.symmetric {
            if !once {
                // The columns' states of a block above the diagonal are the rows' of that below.
                self.merge(
                    rows,
                    &program.columns,
                    &partials,
                    (columns_from, strips),
                    (bj, j0, c),
                );
            }
        } else {
            self.merge(
                columns,
                &program.columns,
                &partials,
                (columns_from, strips),
                (bj, j0, c),
            );
        }
        coefficients
    }

    /// Takes what the cubes found into the states of a side.
    fn merge(
        &self,
        side: &mut Side,
        found: &[Reducing],
        partials: &CubeTensor,
        (from, parts): (usize, usize),
        (block, at, count): (usize, usize, usize),
    ) {
        let is_first = !std::mem::replace(&mut side.begun[block], true);
        if side.reductions.is_empty() || (found.is_empty() && !is_first) {
            return;
        }
        let reductions = side.reductions.iter().map(|&(_, reducing)| {
            let there = found.iter().any(|f| f.component == reducing.component);
            (reducing, there)
        });
        kernels::merge::launch(
            &self.a.client,
            CubeCount::Static(count.div_ceil(kernels::UNITS) as u32, 1, 1),
            CubeDim::new_1d(kernels::UNITS as u32),
            partials.clone().into_buffer_arg(),
            side.states.clone().into_buffer_arg(),
            from,
            parts,
            count,
            at,
            side.len,
            u32::from(is_first),
            f32::INFINITY,
            reductions.collect(),
            dtype_to_storage_type(self.dtype),
        );
    }

    /// All results, one after the other.
    fn results(&self, rows: &Side, columns: &Side) -> CubeTensor {
        let [n, m] = self.sizes();
        let results = empty(&self.a, [self.pass.result_len([n, m])], self.dtype);
        // How many vectors of rows and of columns come before a reduction's results.
        let mut before = [0; 2];
        let mut at = vec![None; self.pass.reductions.len()];
        for (k, reduction) in self.pass.reductions.iter().enumerate() {
            if self.pass.symmetric && reduction.axis == Axis::Columns {
                continue;
            }
            at[k] = Some(before);
            before[match reduction.axis {
                Axis::Rows => 0,
                Axis::Columns => 1,
            }] += reduction.kind.results();
        }
        for side in [rows, columns] {
            let reductions: Vec<_> = side
                .reductions
                .iter()
                .filter_map(|&(k, reducing)| Some((reducing, at[k]?)))
                .collect();
            if reductions.is_empty() {
                continue;
            }
            kernels::finish::launch(
                &self.a.client,
                CubeCount::Static(side.len.div_ceil(kernels::UNITS) as u32, 1, 1),
                CubeDim::new_1d(kernels::UNITS as u32),
                side.states.clone().into_buffer_arg(),
                results.clone().into_buffer_arg(),
                side.len,
                n,
                m,
                f32::INFINITY,
                reductions,
                dtype_to_storage_type(self.dtype),
            );
        }
        results
    }
}

/// A gradient, to which blocks add.
struct Gradient {
    sum: CubeTensor,
    /// Whether one product is all of it.
    in_one: bool,
    precision: Precision,
}

impl Gradient {
    /// Adds the product of coefficients and embeddings to the rows from `start` on.
    fn add(&mut self, start: usize, coefficients: CubeTensor, embeddings: CubeTensor) {
        if self.in_one {
            product(coefficients, embeddings, &self.sum, self.precision);
            return;
        }
        let shape = [coefficients.shape()[0], embeddings.shape()[1]];
        let part = empty(&self.sum, shape, self.sum.dtype);
        product(coefficients, embeddings, &part, self.precision);
        let len = part.shape().num_elements();
        kernels::accumulate::launch(
            &self.sum.client,
            CubeCount::Static(len.div_ceil(kernels::UNITS).min(1 << 15) as u32, 1, 1),
            CubeDim::new_1d(kernels::UNITS as u32),
            self.sum.clone().into_buffer_arg(),
            part.into_buffer_arg(),
            start * shape[1],
            len,
            dtype_to_storage_type(self.sum.dtype),
        );
    }
}

/// Rows and columns of a block whose pairs take so many bytes each.
fn block_of(bytes: usize, of_pair: usize, [n, m]: [usize; 2], square: bool) -> [usize; 2] {
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
        [down(pairs / m.max(1)), m]
    } else {
        [side; 2]
    }
}

fn empty(like: &CubeTensor, shape: impl Into<Shape>, dtype: DType) -> FloatTensor<CubeBackend> {
    unpadded(empty_device_contiguous_dtype(
        like.client.clone(),
        like.device.clone(),
        shape.into(),
        dtype,
    ))
}

/// Zeros without padding: Burn's own allocation of a matrix pads its rows on CUDA and ROCm, that of a
/// vector does not.
fn zeros(like: &CubeTensor, shape: Shape, dtype: DType) -> FloatTensor<CubeBackend> {
    let len = Shape::new([shape.num_elements()]);
    let flat = zeros_client(like.client.clone(), like.device.clone(), len, dtype);
    unpadded(CubeBackend::float_reshape(flat, shape))
}

/// A tensor that kernels may index by row and column alone.
fn unpadded(x: CubeTensor) -> CubeTensor {
    assert!(
        x.is_contiguous(),
        "a buffer of {:?} {:?} has gaps between its rows",
        x.dtype,
        x.shape()
    );
    x
}

#[cfg(all(test, feature = "wgpu"))]
mod tests {
    use burn::tensor::{TensorData, read_sync};
    use burn_cubecl::CubeDevice;

    use super::*;
    use crate::pairwise::expr::{Expr, Leaf};
    use crate::pairwise::form::{Form, Wanted, columns, rows};

    fn tensor(values: impl Fn(usize) -> f32, shape: [usize; 2]) -> CubeTensor {
        let data = TensorData::new((0..shape[0] * shape[1]).map(values).collect(), shape);
        CubeBackend::float_from_data(data, &CubeDevice::Wgpu(Default::default()))
    }

    fn numbers(x: CubeTensor) -> Vec<f32> {
        read_sync(CubeBackend::float_into_data(x))
            .unwrap()
            .try_to_vec()
            .unwrap()
    }

    /// The tiling of a GPU, which a software adapter does not choose, against plain tensor operations.
    #[test]
    fn every_tiling_gives_what_chunks_give() {
        let (n, m) = (70, 150);
        let c = Expr::leaf(Leaf::Similarity);
        let logit = &c * &Expr::leaf(Leaf::Row(0)) + &Expr::leaf(Leaf::Column(0));
        let form = Form {
            reductions: vec![
                rows().log_sum_exp(&logit.except(&Expr::diagonal())),
                columns().softmax_mean(&logit, &c),
                rows().max(&c),
                columns().sum(&logit.sigmoid()),
            ],
            rows: 1,
            columns: 1,
            scalars: 0,
            symmetric: false,
            teachers: Vec::new(),
            precision: Precision::Full,
            budget: 1 << 30,
            memory: 1 << 30,
            kept: 0,
        };
        let number = |seed: f32| move |k: usize| (k as f32 * seed).sin();
        let any = || tensor(number(1.0), [1, 1]);
        let mut inputs = Inputs {
            a: tensor(number(0.7), [n, 5]),
            b: tensor(number(0.9), [m, 5]),
            teacher_a: any(),
            teacher_b: any(),
            rows: tensor(number(1.1), [1, n]),
            columns: tensor(number(1.3), [1, m]),
            scalars: any(),
            mask: any(),
            kept: any(),
        };
        let wanted = Wanted {
            left: true,
            right: true,
            rows: true,
            columns: true,
            scalars: false,
        };
        let check = |inputs: &Inputs<CubeBackend>, pass: &Pass| {
            let plain = chunked::pass(inputs.clone(), pass);
            for plane in [8, 32] {
                let sweep = Sweep {
                    tiling: Tiling::of(plane),
                    ..Sweep::new(inputs.clone(), pass)
                };
                let own = sweep.run();
                let pairs = [
                    (own.results, plain.results.clone()),
                    (own.left, plain.left.clone()),
                    (own.right, plain.right.clone()),
                ];
                for (own, plain) in pairs.map(|(x, y)| (numbers(x), numbers(y))) {
                    let largest = plain.iter().fold(0f32, |l, x| l.max(x.abs()));
                    assert_eq!(own.len(), plain.len());
                    for (x, y) in own.iter().zip(&plain) {
                        assert!(
                            (x - y).abs() <= 1e-5 * largest,
                            "{x} against {y}, planes of {plane}"
                        );
                    }
                }
            }
            plain.results
        };
        let results = check(&inputs, &form.forward(0));
        let len = form.result_len([n, m]);
        let upstream = tensor(number(0.3), [1, len]);
        let upstream = CubeBackend::float_reshape(upstream, Shape::new([len]));
        crate::pairwise::autodiff::append_results(&mut inputs, results, upstream, &form);
        check(&inputs, &form.backward(wanted, 0));
    }
}
