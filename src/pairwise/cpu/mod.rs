//! Passes on the CPU: blocks of similarities by `gemm`, tiles of them worked on while in cache.
//!
//! A pass goes over the matrix in blocks, one after the other, each by all threads:
//!
//! 1. *Tiles.* A task computes a tile of `S = A·Bᵀ`, evaluates the expressions on it
//!    ([`tile`]), takes the numbers into running reductions of its own, and writes the coefficients
//!    in the place of the similarities. The tasks' reductions are merged in the tasks' order.
//! 2. *Gradients*, where wanted. `dA += G·B` by bands of rows and `dB += Gᵀ·A` by bands of columns:
//!    every number is written by one task.
//!
//! So the memory beyond inputs and outputs is one block, whatever the number of threads (each adds
//! a tile), and the same input gives the same bits on the same number of threads.
#![allow(unsafe_code)]

mod backend;
#[cfg(feature = "flex")]
mod flex;
mod math;
mod memory;
#[cfg(feature = "ndarray")]
mod ndarray;
mod states;
#[cfg(test)]
mod tests;
mod tile;

pub(crate) use self::backend::{Number, Readable};
pub(crate) use self::math::{largest, sum};

use rayon::prelude::*;

use self::math::Real;
use self::memory::zeros;
use self::states::States;
use self::tile::{Context, STRIP, Scratch, Strips, Tile};
use super::form::{Axis, Pass, Teacher};

/// What a pass reads; all row-major.
struct Inputs<'a, T> {
    /// `[n, d]` and `[m, d]`.
    a: &'a [T],
    b: &'a [T],
    d: usize,
    /// Those of all teachers, side by side; empty where the pass reads none.
    teachers: [&'a [T]; 2],
    context: Context<'a, T>,
}

/// What a pass leaves.
struct Outputs<T> {
    /// Results one after the other.
    results: Vec<T>,
    /// `[n, d]` and `[m, d]`; empty where not wanted.
    left: Vec<T>,
    right: Vec<T>,
}

/// Sizes that steer a pass; they change results by rounding at most.
#[derive(Clone, Copy, Debug)]
struct Tiling {
    /// Rows and columns of a tile: the columns at most [`STRIP`], a symmetric matrix's tiles square.
    tile: [usize; 2],
    /// Rows and columns of a block; a symmetric matrix's blocks are square.
    block: [usize; 2],
    /// How many bands a block's part of a gradient is computed in.
    bands: usize,
}

impl Tiling {
    /// Large tiles make the products efficient, and enough of them keep all threads busy.
    fn new<T>(pass: &Pass, n: usize, m: usize, threads: usize) -> Self {
        let mut tile = [STRIP.min(n), STRIP.min(m)].map(|side| side.next_power_of_two().max(64));
        if pass.symmetric {
            tile = [tile[0]; 2];
        }
        while tile[0] > 64 && n.div_ceil(tile[0]) * m.div_ceil(tile[1]) < threads {
            // A symmetric matrix's tiles are square, and half of them do.
            tile[0] /= 2;
            tile[1] = if pass.symmetric { tile[0] } else { tile[1] };
        }
        // Whatever the number of threads: a backward pass finds kept blocks where the forward pass,
        // maybe of another thread pool, left them.
        const SIDE: usize = 64;
        let numbers = pass.memory / size_of::<T>();
        let multiple = |len: usize| (len / SIDE).max(1) * SIDE;
        let block = match pass.symmetric {
            true => [multiple((numbers + GAP * GAP / 4).isqrt() - GAP / 2); 2],
            false => {
                let width = multiple((numbers / SIDE).min(4096).min(m.next_multiple_of(SIDE)));
                [multiple(numbers / (width + GAP)), width]
            }
        };
        Self {
            tile,
            block,
            bands: threads,
        }
    }
}

/// A block of the matrix, and where it is kept.
#[derive(Clone, Copy, Debug)]
struct Block {
    i0: usize,
    rows: usize,
    j0: usize,
    columns: usize,
    kept_at: Option<usize>,
}

/// Numbers between the rows of a block: were the rows powers of two apart, those of a tile would compete
/// for a few lines of the cache.
const GAP: usize = 16;

impl Block {
    /// From one row to the next.
    fn stride(&self) -> usize {
        self.columns + GAP
    }

    fn len(&self) -> usize {
        self.rows * self.stride()
    }
}

/// The blocks in order; as many of the first are kept as there is room for, each with the
/// similarities of the teachers behind its own.
fn blocks<T>(tiling: &Tiling, pass: &Pass, n: usize, m: usize) -> Vec<Block> {
    let room = pass.keep / size_of::<T>();
    let mut blocks = Vec::new();
    let mut kept = 0;
    for i0 in (0..n).step_by(tiling.block[0]) {
        for j0 in (0..m).step_by(tiling.block[1]) {
            if pass.symmetric && j0 < i0 {
                continue;
            }
            let mut block = Block {
                i0,
                rows: tiling.block[0].min(n - i0),
                j0,
                columns: tiling.block[1].min(m - j0),
                kept_at: None,
            };
            let end = kept + block.len() * pass.matrices();
            if end <= room {
                block.kept_at = Some(kept);
                kept = end;
            }
            blocks.push(block);
        }
    }
    blocks
}

/// How many numbers of similarities a pass keeps.
fn kept_len<T: Real>(pass: &Pass, n: usize, m: usize) -> usize {
    let tiling = Tiling::new::<T>(pass, n, m, rayon::current_num_threads());
    let blocks = blocks::<T>(&tiling, pass, n, m);
    let kept = blocks.iter().filter(|block| block.kept_at.is_some());
    kept.map(|block| block.len() * pass.matrices()).sum()
}

/// A matrix that several tasks write to, each its own part.
#[derive(Clone, Copy)]
struct Shared<T>(*mut T);

// SAFETY: what tasks write to through it is disjoint, as each use says.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: likewise.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    fn at(self, offset: usize) -> *mut T {
        self.0.wrapping_add(offset)
    }
}

/// `dst [m, n] = keep·dst + lhs [m, k]·rhs [k, n]`, on one thread; the pairs are strides between rows
/// and between columns.
///
/// # Safety
///
/// The matrices lie in memory that the caller may read, and write for `dst`.
#[allow(clippy::too_many_arguments)]
unsafe fn gemm<T: Real>(
    [m, n, k]: [usize; 3],
    dst: *mut T,
    dst_stride: usize,
    accumulate: bool,
    lhs: *const T,
    (lhs_rows, lhs_columns): (usize, usize),
    rhs: *const T,
    (rhs_rows, rhs_columns): (usize, usize),
) {
    // SAFETY: the caller's promise.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            dst,
            1,
            dst_stride as isize,
            accumulate,
            lhs,
            lhs_columns as isize,
            lhs_rows as isize,
            rhs,
            rhs_columns as isize,
            rhs_rows as isize,
            T::ONE,
            T::ONE,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

impl<'a, T: Real> Inputs<'a, T> {
    fn n(&self) -> usize {
        self.context.n
    }

    fn m(&self) -> usize {
        self.context.m
    }

    fn factors(&self) -> Factors<'a, T> {
        Factors {
            a: self.a,
            b: self.b,
            width: self.d,
            apart: self.d,
        }
    }

    fn teacher(&self, teacher: &Teacher) -> Factors<'a, T> {
        let [a, b] = self.teachers;
        Factors {
            a: &a[teacher.at..],
            b: &b[teacher.at..],
            width: teacher.width,
            apart: a.len() / self.n(),
        }
    }
}

/// Two sets of embeddings whose products are similarities: `width` numbers a row, rows `apart`.
#[derive(Clone, Copy)]
struct Factors<'a, T> {
    a: &'a [T],
    b: &'a [T],
    width: usize,
    apart: usize,
}

impl<T> Factors<'_, T> {
    /// The same from row `i0` and row `j0` on.
    fn from(self, i0: usize, j0: usize) -> Self {
        Self {
            a: &self.a[i0 * self.apart..],
            b: &self.b[j0 * self.apart..],
            ..self
        }
    }
}

/// Runs a pass. `kept` holds [`kept_len`] numbers: the similarities of the kept blocks are written there
/// by a pass without coefficients, and used up by one with.
fn run<T: Real>(pass: &Pass, inputs: &Inputs<T>, kept: &mut [T]) -> Outputs<T> {
    let threads = rayon::current_num_threads();
    let tiling = Tiling::new::<T>(pass, inputs.n(), inputs.m(), threads);
    run_tiled(pass, inputs, kept, &tiling)
}

fn run_tiled<T: Real>(
    pass: &Pass,
    inputs: &Inputs<T>,
    kept: &mut [T],
    tiling: &Tiling,
) -> Outputs<T> {
    let (n, m, d) = (inputs.n(), inputs.m(), inputs.d);
    let mut rows = States::new(&pass.reductions, Axis::Rows, n);
    let mut columns = States::new(&pass.reductions, Axis::Columns, m);
    let mut left = zeros(if pass.left { n * d } else { 0 });
    let mut right = zeros(if pass.right { m * d } else { 0 });
    let with_gradient = pass.coefficient.is_some();
    let blocks = blocks::<T>(tiling, pass, n, m);
    let room = blocks
        .iter()
        .filter(|block| with_gradient && block.kept_at.is_none());
    let mut spare = zeros(room.map(Block::len).max().unwrap_or(0));

    for block in &blocks {
        let similarities = match block.kept_at {
            Some(at) => Shared(kept[at..at + block.len() * pass.matrices()].as_mut_ptr()),
            None => Shared(spare.as_mut_ptr()),
        };
        let stored = (block.kept_at.is_some() || with_gradient).then_some(similarities);
        let computed = block.kept_at.is_some() && with_gradient;
        for (task, mut part) in tiles(pass, inputs, tiling, block, stored, computed) {
            rows.merge(&pass.reductions, task.i0, &mut part.rows);
            columns.merge(&pass.reductions, task.j0, &mut part.columns);
        }
        if with_gradient {
            if pass.symmetric && block.i0 == block.j0 {
                mirror(similarities, block, tiling.tile[0]);
            }
            gradients(
                pass,
                inputs,
                tiling,
                block,
                similarities,
                &mut left,
                &mut right,
            );
        }
    }
    if pass.symmetric {
        rows.merge_transposed(&pass.reductions, &mut columns);
    }
    let mut results = Vec::with_capacity(pass.result_len([n, m]));
    for (k, reduction) in pass.reductions.iter().enumerate() {
        match reduction.axis {
            Axis::Rows => rows.results(&reduction.kind, k, &mut results),
            Axis::Columns if pass.symmetric => {}
            Axis::Columns => columns.results(&reduction.kind, k, &mut results),
        }
    }
    Outputs {
        results,
        left,
        right,
    }
}

/// A task's part of a block.
#[derive(Clone, Copy)]
struct Task {
    i0: usize,
    rows: usize,
    j0: usize,
    columns: usize,
}

/// A task's reductions.
struct Part<T> {
    rows: States<T>,
    columns: States<T>,
}

/// The first half of a block's work; `stored` is where its similarities belong, if anywhere, and
/// `computed` says that they are there.
fn tiles<T: Real>(
    pass: &Pass,
    inputs: &Inputs<T>,
    tiling: &Tiling,
    block: &Block,
    stored: Option<Shared<T>>,
    computed: bool,
) -> Vec<(Task, Part<T>)> {
    let triangle = pass.symmetric && block.i0 == block.j0;
    let tasks: Vec<Task> = (0..block.rows)
        .step_by(tiling.tile[0])
        .flat_map(|i| {
            (0..block.columns)
                .step_by(tiling.tile[1])
                .map(move |j| Task {
                    i0: block.i0 + i,
                    rows: tiling.tile[0].min(block.rows - i),
                    j0: block.j0 + j,
                    columns: tiling.tile[1].min(block.columns - j),
                })
        })
        .filter(|task| !triangle || task.i0 <= task.j0)
        .collect();
    let tile = tiling.tile[0].min(block.rows) * tiling.tile[1].min(block.columns);
    let named = pass.teachers.iter().filter(|teacher| teacher.named).count();
    let work = |(scratch, own, teachers): &mut (Scratch<T>, Vec<T>, Vec<T>), task: Task| {
        let Task {
            i0,
            rows,
            j0,
            columns,
        } = task;
        let mut part = Part {
            rows: States::new(&pass.reductions, Axis::Rows, rows),
            columns: States::new(&pass.reductions, Axis::Columns, columns),
        };
        // A tile of the block's matrix, or of a buffer of this thread's.
        let place = |matrix: Option<Shared<T>>, own: &mut [T]| match matrix {
            Some(start) => {
                let offset = (i0 - block.i0) * block.stride() + (j0 - block.j0);
                (start.at(offset), block.stride())
            }
            None => (own.as_mut_ptr(), columns),
        };
        let strips = |(start, stride), factors: Factors<T>| {
            if !computed {
                let factors = factors.from(i0, j0);
                // SAFETY: the tile is this task's, in a buffer of the block's or of a tile's size.
                unsafe { products(rows, columns, &factors, start, stride) };
            }
            // SAFETY: likewise; nothing else refers to the tile.
            unsafe { Strips::new(start, stride, rows, columns) }
        };
        let similarities = strips(place(stored, own), inputs.factors());
        let mut buffers = teachers.chunks_exact_mut(tile);
        let teacher = |(k, teacher): (usize, &Teacher)| {
            let buffer = if teacher.named {
                buffers.next()?
            } else {
                return None;
            };
            let kept = stored.filter(|_| block.kept_at.is_some());
            let kept = kept.map(|start| Shared(start.at((1 + k) * block.len())));
            Some(strips(place(kept, buffer), inputs.teacher(teacher)))
        };
        let teachers = pass.teachers.iter().enumerate().map(teacher).collect();
        tile::run(
            pass,
            &inputs.context,
            Tile {
                i0,
                j0,
                rows,
                columns,
                similarities,
                teachers,
                count_columns: !(triangle && i0 == j0),
            },
            scratch,
            &mut part.rows,
            &mut part.columns,
        );
        (task, part)
    };
    tasks
        .into_par_iter()
        .map_init(
            || {
                (
                    Scratch::new(pass),
                    vec![T::ZERO; if stored.is_none() { tile } else { 0 }],
                    vec![T::ZERO; named * tile],
                )
            },
            work,
        )
        .collect()
}

/// `dst = A·Bᵀ` of the first `n` rows of `a` and `m` rows of `b`.
///
/// # Safety
///
/// `dst` is the caller's, `n` rows of `m` numbers, `stride` apart.
unsafe fn products<T: Real>(n: usize, m: usize, factors: &Factors<T>, dst: *mut T, stride: usize) {
    let &Factors { a, b, width, apart } = factors;
    let end = |rows: usize| (rows - 1) * apart + width;
    assert!(a.len() >= end(n) && b.len() >= end(m));
    let (lhs, rhs) = (a.as_ptr(), b.as_ptr());
    // SAFETY: checked, and the caller's promise.
    unsafe {
        gemm(
            [n, m, width],
            dst,
            stride,
            false,
            lhs,
            (apart, 1),
            rhs,
            (1, apart),
        )
    };
}

/// Completes a symmetric block of which the tiles on and above the diagonal are computed.
fn mirror<T: Real>(similarities: Shared<T>, block: &Block, tile: usize) {
    let (side, stride) = (block.rows, block.stride());
    (0..side.div_ceil(tile)).into_par_iter().for_each(|t| {
        for i in t * tile..side.min((t + 1) * tile) {
            for j in 0..t * tile {
                // SAFETY: below the diagonal tiles each task writes its own rows, and nobody reads
                // there; above them nobody writes.
                unsafe { *similarities.at(i * stride + j) = *similarities.at(j * stride + i) };
            }
        }
    });
}

/// The second half of a block's work: what its coefficients add to the gradients.
fn gradients<T: Real>(
    pass: &Pass,
    inputs: &Inputs<T>,
    tiling: &Tiling,
    block: &Block,
    coefficients: Shared<T>,
    left: &mut [T],
    right: &mut [T],
) {
    let d = inputs.d;
    let bands = |wanted: bool, len: usize| {
        let band = len.div_ceil(tiling.bands).next_multiple_of(16);
        (0..if wanted { len } else { 0 })
            .step_by(band)
            .map(move |start| (start, band.min(len - start)))
    };
    // Off the diagonal, a symmetric matrix's block stands for its transpose too.
    let transposed = pass.right || (pass.left && pass.symmetric && block.i0 != block.j0);
    let tasks: Vec<_> = bands(pass.left, block.rows)
        .map(|band| (true, band))
        .chain(bands(transposed, block.columns).map(|band| (false, band)))
        .collect();
    let by_rows = Shared(left.as_mut_ptr());
    let by_columns = if pass.symmetric {
        by_rows
    } else {
        Shared(right.as_mut_ptr())
    };
    tasks.into_par_iter().for_each(|(is_left, (start, len))| {
        if is_left {
            let others = &inputs.b[block.j0 * d..][..block.columns * d];
            // SAFETY: the band's rows of the gradient are this task's; nobody writes the
            // coefficients any more.
            unsafe {
                let dst = by_rows.at((block.i0 + start) * d);
                let g = coefficients.at(start * block.stride());
                let shape = [len, d, block.columns];
                gemm(
                    shape,
                    dst,
                    d,
                    true,
                    g,
                    (block.stride(), 1),
                    others.as_ptr(),
                    (d, 1),
                );
            }
        } else {
            let others = &inputs.a[block.i0 * d..][..block.rows * d];
            // SAFETY: likewise; of one gradient for both sides, the block's rows and its columns
            // are different rows.
            unsafe {
                let dst = by_columns.at((block.j0 + start) * d);
                let g = coefficients.at(start);
                let shape = [len, d, block.rows];
                gemm(
                    shape,
                    dst,
                    d,
                    true,
                    g,
                    (1, block.stride()),
                    others.as_ptr(),
                    (d, 1),
                );
            }
        }
    });
}
