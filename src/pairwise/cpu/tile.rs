//! What happens to a tile of similarities while it is in cache: expressions are evaluated row by
//! row on strips of pairs, reductions take the values in, and the coefficients replace the
//! similarities.

use super::evaluate::{Context, Teachers, Values, evaluate};
use super::product::Strips;
use super::states::{States, take_columns, take_row};
use crate::host::Real;
use crate::pairwise::pass::Pass;
use crate::pairwise::reduction::{Axis, Kind};

/// Longest strip.
pub(super) const STRIP: usize = 512;

/// Room for the steps' values: of a strip, and of one pair on the diagonal.
pub(super) struct Scratch<T> {
    strip: Values<T>,
    diagonal: Values<T>,
}

impl<T: Real> Scratch<T> {
    pub fn new(pass: &Pass) -> Self {
        Self {
            strip: Values::new(&pass.off_diagonal, STRIP),
            diagonal: Values::new(&pass.on_diagonal, 1),
        }
    }

    /// What a reduction reads of a strip of `len` pairs: the first pair that counts, and the
    /// values. Its steps are those off and on the diagonal, which is at `diagonal` in the strip.
    #[inline(always)]
    fn read(
        &mut self,
        kind: Kind,
        [off, on]: [Option<[usize; 2]>; 2],
        diagonal: Option<usize>,
        len: usize,
    ) -> Option<(usize, &[T], &[T])> {
        match (off, diagonal) {
            (Some(steps), None) => {
                let (x, y) = self.strip.results(steps, len);
                Some((0, x, y))
            }
            (Some([x, y]), Some(p)) => {
                let [u, v] = match on {
                    Some(steps) => {
                        let (u, v) = self.diagonal.results(steps, 1);
                        [u[0], v[0]]
                    }
                    None => [T::of(kind.neutral()), T::ZERO],
                };
                self.strip.result(y, len)[p] = v;
                self.strip.result(x, len)[p] = u;
                let (x, y) = self.strip.results([x, y], len);
                Some((0, x, y))
            }
            (None, Some(p)) => {
                let (x, y) = self.diagonal.results(on?, 1);
                Some((p, x, y))
            }
            (None, None) => None,
        }
    }
}

/// One tile: rows `i0..` and columns `j0..` of the matrix.
pub(super) struct Tile<T> {
    pub i0: usize,
    pub j0: usize,
    pub rows: usize,
    /// At most [`STRIP`].
    pub columns: usize,
    /// Similarities in, coefficients out.
    pub similarities: Strips<T>,
    /// The similarities of the teachers that the pass reads.
    pub teachers: Vec<Option<Strips<T>>>,
    /// Whether reductions along columns take part (not on the diagonal tiles of a symmetric
    /// matrix).
    pub count_columns: bool,
}

/// Runs `pass` on a tile, with the best instructions of this processor. The states are those of the
/// tile's rows and columns.
pub(super) fn run<T: Real>(
    pass: &Pass,
    context: &Context<T>,
    tile: Tile<T>,
    scratch: &mut Scratch<T>,
    rows: &mut States<T>,
    columns: &mut States<T>,
) {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512bw")
        {
            // SAFETY: the processor has the instructions.
            return unsafe { run_avx512(pass, context, tile, scratch, rows, columns) };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the processor has the instructions.
            return unsafe { run_avx2(pass, context, tile, scratch, rows, columns) };
        }
    }
    run_with::<T, { cfg!(target_arch = "aarch64") }>(pass, context, tile, scratch, rows, columns);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx2,fma")]
fn run_avx512<T: Real>(
    pass: &Pass,
    context: &Context<T>,
    tile: Tile<T>,
    scratch: &mut Scratch<T>,
    rows: &mut States<T>,
    columns: &mut States<T>,
) {
    run_with::<T, true>(pass, context, tile, scratch, rows, columns);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn run_avx2<T: Real>(
    pass: &Pass,
    context: &Context<T>,
    tile: Tile<T>,
    scratch: &mut Scratch<T>,
    rows: &mut States<T>,
    columns: &mut States<T>,
) {
    run_with::<T, true>(pass, context, tile, scratch, rows, columns);
}

#[inline(always)]
fn run_with<T: Real, const FMA: bool>(
    pass: &Pass,
    context: &Context<T>,
    mut tile: Tile<T>,
    scratch: &mut Scratch<T>,
    row_states: &mut States<T>,
    column_states: &mut States<T>,
) {
    let (off, on) = (&pass.off_diagonal, &pass.on_diagonal);
    let len = tile.columns;
    for row in 0..tile.rows {
        let i = tile.i0 + row;
        let strip = tile.similarities.row_mut(row);
        let teachers = Teachers {
            strips: &tile.teachers,
            row,
            column: 0,
        };
        let (j0, values) = (tile.j0, &mut scratch.strip);
        evaluate::<T, FMA>(off, context, i, j0, strip, teachers, values);
        // Where in the strip the diagonal is: that one pair is evaluated by steps of its own.
        let j = pass.first_row + i;
        let diagonal = (tile.j0..tile.j0 + len).contains(&j).then(|| j - tile.j0);
        if let Some(p) = diagonal {
            let teachers = Teachers {
                column: p,
                ..teachers
            };
            let values = &mut scratch.diagonal;
            evaluate::<T, FMA>(on, context, i, j, &strip[p..p + 1], teachers, values);
        }
        for (k, reduction) in pass.reductions.iter().enumerate() {
            if reduction.axis == Axis::Columns && !tile.count_columns {
                continue;
            }
            let steps = [off.reductions[k], on.reductions[k]];
            let Some((start, x, y)) = scratch.read(reduction.kind, steps, diagonal, len) else {
                continue;
            };
            match reduction.axis {
                Axis::Rows => {
                    let mut state = row_states.at(k, row);
                    take_row::<T, FMA>(reduction.kind, x, y, tile.j0 + start, &mut state);
                    row_states.put(k, row, state);
                }
                Axis::Columns => {
                    let states = column_states.range(k, start, x.len());
                    take_columns::<T, FMA>(reduction.kind, x, y, i, states);
                }
            }
        }
        if let (Some(step), Some(special)) = (off.coefficient, on.coefficient) {
            strip.copy_from_slice(scratch.strip.result(step, len));
            if let Some(p) = diagonal {
                strip[p] = scratch.diagonal.result(special, 1)[0];
            }
        }
    }
}
