//! The second half of a block's work: what its coefficients add to the gradients.

use rayon::prelude::*;

use super::Inputs;
use super::diagonal::Diagonal;
use super::packed::Packed;
use super::plan::{Stored, Tiling};
use super::product::{Shared, gemm};
use crate::host::Real;
use crate::pairwise::blocks::Part;
use crate::pairwise::pass::Pass;

/// Completes a symmetric block of which the tiles on and above the diagonal are computed.
pub(super) fn mirror<T: Real>(similarities: Shared<T>, block: &Stored, tiling: &Tiling) {
    let (side, stride) = (block.rows.len, block.stride());
    let tile = tiling.tile[0];
    let tiles = (0..side.div_ceil(tile)).into_par_iter();
    tiles.with_min_len(tiling.tasks_each()).for_each(|t| {
        for i in t * tile..side.min((t + 1) * tile) {
            for j in 0..t * tile {
                // SAFETY: below the diagonal tiles each task writes its own rows, and nobody reads
                // there; above them nobody writes.
                unsafe { *similarities.at(i * stride + j) = *similarities.at(j * stride + i) };
            }
        }
    });
}

/// Adds `G·B` to the rows of the left gradient, by bands of rows, and `Gᵀ·A` to those of the right,
/// by bands of columns; of a mirrored block the latter to the left one too.
pub(super) fn add<T: Real>(
    pass: &Pass,
    (inputs, packed): (&Inputs<T>, Option<&Packed>),
    (block, tiling): (&Stored, &Tiling),
    coefficients: Shared<T>,
    [left, right]: [&mut [T]; 2],
) {
    let (d, stride) = (inputs.d, block.stride());
    let (rows, columns) = (block.rows, block.columns);
    let rounded = packed.filter(|packed| packed.rounds());
    let diagonal = rounded.map(|_| {
        // SAFETY: no task has begun.
        unsafe { Diagonal::take(block, pass.first_row, (coefficients.cast(), stride)) }
    });
    let bands = |wanted: bool, len: usize| {
        let band = len.div_ceil(tiling.threads).next_multiple_of(16);
        (0..if wanted { len } else { 0 })
            .step_by(band)
            .map(move |start| (start, band.min(len - start)))
    };
    let transposed = pass.right || (pass.left && block.is_mirrored);
    let tasks: Vec<_> = bands(pass.left, rows.len)
        .map(|band| (true, band))
        .chain(bands(transposed, columns.len).map(|band| (false, band)))
        .collect();
    let by_rows = Shared::new(left);
    let by_columns = if pass.symmetric {
        by_rows
    } else {
        Shared::new(right)
    };
    let tasks = tasks.into_par_iter().with_min_len(tiling.tasks_each());
    tasks.for_each(|(is_left, (start, len))| {
        let (by, own) = if is_left {
            (by_rows, rows)
        } else {
            (by_columns, columns)
        };
        let dst = by.at((own.start + start) * d);
        // SAFETY: the band's rows of the gradient are this task's (of one gradient for both sides,
        // the block's rows and its columns are different rows); nobody writes the coefficients any
        // more.
        unsafe {
            if let Some(packed) = packed {
                let coefficients = (coefficients.cast(), stride);
                packed.add(block, is_left, [start, len], coefficients, (dst.cast(), d));
                if let Some(diagonal) = &diagonal {
                    let band = Part::from(own.start + start..own.start + start + len);
                    let gradient = std::slice::from_raw_parts_mut(dst.cast(), len * d);
                    diagonal.add(inputs, is_left, band, gradient);
                }
            } else if is_left {
                let others = inputs.b.own()[columns.start * d..][..columns.len * d].as_ptr();
                let g = coefficients.at(start * stride);
                let shape = [len, d, columns.len];
                gemm(shape, dst, d, true, g, (stride, 1), others, (d, 1));
            } else {
                let others = inputs.a.own()[rows.start * d..][..rows.len * d].as_ptr();
                let g = coefficients.at(start);
                let shape = [len, d, rows.len];
                gemm(shape, dst, d, true, g, (1, stride), others, (d, 1));
            }
        }
    });
}
