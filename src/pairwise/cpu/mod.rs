//! Passes on the CPU: blocks of similarities, tiles of them worked on while in cache.
//!
//! A pass goes over the matrix in blocks, one after the other, each by all threads:
//!
//! 1. *Tiles* ([`tasks`]). A task computes a tile of `S = A·Bᵀ`, evaluates the expressions on it
//!    ([`tile`]), takes the values into running reductions of its own, and writes the coefficients
//!    in the place of the similarities. The tasks' reductions are merged in the tasks' order.
//! 2. *Gradients* ([`gradients`]), where wanted. `dA += G·B` by bands of rows and `dB += Gᵀ·A` by
//!    bands of columns: every element is written by one task.
//!
//! So the memory beyond inputs and outputs is one block and what is [packed] of its rows and columns,
//! for any count of threads (each adds a tile), and the same input gives the same bits on the same
//! count of threads.
#![allow(unsafe_code)]

mod backend;
mod diagonal;
mod embeddings;
mod evaluate;
mod gradients;
mod math;
mod matrix_units;
mod memory;
mod packed;
mod panels;
mod plan;
mod product;
mod states;
mod tasks;
#[cfg(test)]
mod tests;
mod tile;

use self::embeddings::Rows;
use self::evaluate::Context;
use self::memory::{Room, zeros};
use self::packed::Packed;
pub(super) use self::packed::multiplies_as_bf16;
use self::plan::{Stored, Tiling, blocks, kept_len};
use self::product::{Plain, Shared};
use self::states::Both;
use super::pass::{Pass, Teacher};
use crate::host::Real;

/// Multiplications and additions that outweigh waking a thread, which takes about as long as
/// 100 µs of products.
const WORK_OF_A_THREAD: usize = 1 << 23;

/// The width of embeddings whose products take as long as everything else that a pair costs.
const LEAST_WIDTH: usize = 64;

/// What a pass reads; all row-major.
struct Inputs<'a, T> {
    /// `[n, d]` and `[m, d]`.
    a: Rows<'a, T>,
    b: Rows<'a, T>,
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

impl<'a, T: Real> Inputs<'a, T> {
    fn sizes(&self) -> [usize; 2] {
        [self.context.n, self.context.m]
    }

    /// How many threads are worth waking for one product of the embeddings.
    fn threads(&self, pass: &Pass) -> usize {
        let teachers: usize = pass.teachers.iter().map(|teacher| teacher.width).sum();
        let [n, m] = self.sizes();
        let work = n * m * (self.d + teachers).max(LEAST_WIDTH);
        rayon::current_num_threads()
            .min(work / WORK_OF_A_THREAD)
            .max(1)
    }

    /// The embeddings, or those of a teacher.
    fn plain(&self, teacher: Option<&Teacher>) -> Plain<'a, T> {
        let Some(teacher) = teacher else {
            return Plain {
                a: self.a.own(),
                b: self.b.own(),
                width: self.d,
                apart: self.d,
            };
        };
        let [a, b] = self.teachers;
        Plain {
            a: &a[teacher.at..],
            b: &b[teacher.at..],
            width: teacher.width,
            apart: a.len() / self.context.n,
        }
    }
}

/// Runs a pass. `kept` holds [`kept_len`] elements: the similarities of the kept blocks are written
/// there by a pass without coefficients, and used up by one with.
fn run<T: Real>(pass: &Pass, inputs: &Inputs<T>, kept: &mut [T]) -> Outputs<T> {
    let [n, m] = inputs.sizes();
    let tiling = Tiling::new::<T>(pass, [n, m, inputs.d], inputs.threads(pass));
    if tiling.threads == 1 {
        run_tiled(pass, inputs, kept, &tiling)
    } else {
        // Enters the pool once. From outside it, every loop would wait for threads to wake up.
        rayon::scope(|_| run_tiled(pass, inputs, kept, &tiling))
    }
}

fn run_tiled<T: Real>(
    pass: &Pass,
    inputs: &Inputs<T>,
    kept: &mut [T],
    tiling: &Tiling,
) -> Outputs<T> {
    let ([n, m], d) = (inputs.sizes(), inputs.d);
    let mut states = Both::new(pass, [n, m]);
    let mut left = zeros(if pass.left { n * d } else { 0 });
    let mut right = zeros(if pass.right { m * d } else { 0 });
    let with_gradient = pass.coefficient.is_some();
    let blocks = blocks::<T>(tiling, pass, n, m);
    let forgotten = |block: &&Stored| with_gradient && block.kept_at.is_none();
    let len = blocks.iter().filter(forgotten).map(Stored::len).max();
    let mut room = Room::default();
    let spare = room.of::<T>(len.unwrap_or(0));
    let mut packed = Packed::new(pass, inputs);

    for block in &blocks {
        let similarities = match block.kept_at {
            Some(at) => Shared::new(&mut kept[at..at + block.len() * pass.matrices()]),
            None => Shared::new(spare),
        };
        let stored = (block.kept_at.is_some() || with_gradient).then_some(similarities);
        let computed = block.kept_at.is_some() && with_gradient;
        if let Some(packed) = &mut packed {
            packed.prepare(pass, inputs, (block, tiling), computed);
        }
        let work = tasks::Work {
            pass,
            inputs,
            packed: packed.as_ref(),
            block,
            stored,
            computed,
        };
        for (task, mut part) in work.run(tiling) {
            states.merge(pass, [task.i0, task.j0], &mut part);
        }
        if with_gradient {
            if block.is_own_transpose {
                gradients::mirror(similarities, block, tiling);
            }
            gradients::add(
                pass,
                (inputs, packed.as_ref()),
                (block, tiling),
                similarities,
                [&mut left, &mut right],
            );
        }
    }
    Outputs {
        results: states.results(pass),
        left,
        right,
    }
}
