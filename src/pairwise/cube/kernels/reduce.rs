//! The kernel of a block: its pairs' expressions, and what a cube reduces of them.
//!
//! It is one long function on purpose: all of it works on registers and shared memory of one cube,
//! between barriers that every unit must reach.

use burn_cubecl::cubecl::{self, prelude::*};

use super::expr::{Pair, Place, evaluate};
use super::state::{Components, empty, gather, join, load, store};
use super::{PLANE, Program};

/// Computes the expressions of every pair of a block, writes the coefficients and what the cubes
/// found.
///
/// - `similarity`, `mask`: `[R, C]`
/// - `teachers`: `[teacher, R, C]`
/// - `vectors`: the bound vectors of rows, those of columns, the scalars
/// - `partials`: for the rows `[component, cube along the row, R]`, then for the columns
///   `[component, cube along the column, C]`
#[allow(unused_mut)] // A kernel must declare so what it assigns to, even where Rust does not.
#[cube(launch_unchecked)]
pub(crate) fn block<F: Float, H: Float>(
    similarity: &mut [F],
    teachers: &[F],
    mask: &[F],
    vectors: &[F],
    partials: &mut [F],
    coefficients: &mut [H],
    place: Place,
    infinity: f32,
    #[comptime] program: Program,
    #[comptime] with_mask: bool,
    #[define(F, H)] _dtypes: [ElemType; 2],
) {
    let each = comptime!(program.tiling.each);
    let lanes = comptime!(program.tiling.lanes);
    let lines = comptime!(program.tiling.lines);
    let rows = comptime!(program.tiling.rows());
    let columns = comptime!(program.tiling.columns());
    let infinity = F::cast_from(infinity);
    let lane = UNIT_POS_X as usize;
    let line = UNIT_POS_Y as usize;
    let (split, strip) = (CUBE_POS_X as usize, CUBE_POS_Y as usize);
    let (splits, strips) = (CUBE_COUNT_X as usize, CUBE_COUNT_Y as usize);
    let plane = (place.rows * place.columns).div_ceil(PLANE) * PLANE;
    let columns_at = comptime!(program.row_components) * splits * place.rows;
    let mut shared = Shared::<[F]>::new_slice(comptime!(program.tiling.shared()));

    // The states of this unit's rows, until the strip ends.
    let mut by_row = Sequence::<Components<F>>::new();
    #[unroll]
    for k in 0..comptime!(program.rows.len()) {
        #[unroll]
        for _ in 0..each {
            let mut nothing = empty::<F>(infinity, comptime!(program.rows[k].kind));
            by_row.push(nothing);
        }
    }

    let start = split * comptime!(program.tiling.span());
    let tiles = min(
        comptime!(program.tiling.tiles),
        (place.columns - start).div_ceil(columns),
    );
    for tile in 0..tiles {
        let c0 = start + tile * columns;
        let mut values = Sequence::<Sequence<F>>::new();
        let mut there = Sequence::<bool>::new();
        #[unroll]
        for e in 0..comptime!(each * each) {
            let r = strip * rows + line + comptime!(e / each * lines);
            let c = c0 + lane + comptime!(e % each * lanes);
            let inside = r < place.rows && c < place.columns;
            // Units beyond the block read its last pair, which does not count.
            let r = min(r, place.rows - 1);
            let c = min(c, place.columns - 1);
            let here = r * place.columns + c;
            let pair = Pair::<F> {
                similarity: similarity[here],
                mask: if comptime!(with_mask) {
                    mask[here]
                } else {
                    F::new(0.0)
                },
                here,
                i: place.i0 + r,
                j: place.j0 + c,
                infinity,
            };
            let of_pair = evaluate::<F>(
                &pair,
                teachers,
                vectors,
                &place,
                comptime!(program.ops.clone()),
            );
            if comptime!(program.coefficient.is_some()) {
                let g = *of_pair.index(comptime!(program.coefficient.unwrap()));
                if inside {
                    if comptime!(program.terms == 0) {
                        similarity[here] = g;
                    }
                    let mut rest = g;
                    #[unroll]
                    for k in 0..comptime!(program.terms) {
                        let term = H::cast_from(rest);
                        coefficients[k * plane + here] = term;
                        rest -= F::cast_from(term);
                    }
                }
            }
            values.push(of_pair);
            there.push(inside);
        }

        #[unroll]
        for k in 0..comptime!(program.rows.len()) {
            let reducing = comptime!(program.rows[k]);
            #[unroll]
            for e in 0..each {
                let (x, y, counts) = line_of::<F>(
                    &values,
                    &there,
                    reducing.steps,
                    comptime!(e * each),
                    1usize,
                    each,
                );
                let first = place.j0 + c0 + lane;
                let new = gather::<F>(&x, &y, &counts, first, infinity, lanes, reducing.kind);
                join::<F>(
                    by_row.index_mut(comptime!(k * each + e)),
                    &new,
                    reducing.kind,
                );
            }
        }

        #[unroll]
        for k in 0..comptime!(program.columns.len()) {
            let reducing = comptime!(program.columns[k]);
            #[unroll]
            for e in 0..each {
                let (x, y, counts) = line_of::<F>(&values, &there, reducing.steps, e, each, each);
                let first = place.i0 + strip * rows + line;
                let found = gather::<F>(&x, &y, &counts, first, infinity, lines, reducing.kind);
                let column = lane + comptime!(e * lanes);
                store::<F>(
                    &mut shared,
                    line * columns + column,
                    comptime!(lines * columns),
                    &found,
                    reducing.kind,
                );
            }
            sync_cube();
            let column = line * lanes + lane;
            if column < columns && c0 + column < place.columns {
                let mut found =
                    load::<F>(&shared, column, comptime!(lines * columns), reducing.kind);
                for other in 1..lines {
                    let next = load::<F>(
                        &shared,
                        other * columns + column,
                        comptime!(lines * columns),
                        reducing.kind,
                    );
                    join::<F>(&mut found, &next, reducing.kind);
                }
                store::<F>(
                    partials,
                    columns_at
                        + (reducing.component * strips + strip) * place.columns
                        + c0
                        + column,
                    strips * place.columns,
                    &found,
                    reducing.kind,
                );
            }
            sync_cube();
        }
    }

    #[unroll]
    for k in 0..comptime!(program.rows.len()) {
        let reducing = comptime!(program.rows[k]);
        #[unroll]
        for e in 0..each {
            let row = line + comptime!(e * lines);
            store::<F>(
                &mut shared,
                lane * rows + row,
                comptime!(lanes * rows),
                by_row.index(comptime!(k * each + e)),
                reducing.kind,
            );
        }
        sync_cube();
        let row = line * lanes + lane;
        if row < rows && strip * rows + row < place.rows {
            let mut found = load::<F>(&shared, row, comptime!(lanes * rows), reducing.kind);
            for other in 1..lanes {
                let next = load::<F>(
                    &shared,
                    other * rows + row,
                    comptime!(lanes * rows),
                    reducing.kind,
                );
                join::<F>(&mut found, &next, reducing.kind);
            }
            store::<F>(
                partials,
                (reducing.component * splits + split) * place.rows + strip * rows + row,
                splits * place.rows,
                &found,
                reducing.kind,
            );
        }
        sync_cube();
    }
}

/// What a reduction reads of one of a unit's rows, or of one of its columns.
#[cube]
fn line_of<F: Float>(
    values: &Sequence<Sequence<F>>,
    there: &Sequence<bool>,
    #[comptime] steps: [usize; 2],
    #[comptime] first: usize,
    #[comptime] apart: usize,
    #[comptime] count: usize,
) -> (Sequence<F>, Sequence<F>, Sequence<bool>) {
    let mut x = Sequence::<F>::new();
    let mut y = Sequence::<F>::new();
    let mut counts = Sequence::<bool>::new();
    #[unroll]
    for k in 0..count {
        let of_pair = values.index(comptime!(first + k * apart));
        x.push(*of_pair.index(comptime!(steps[0])));
        y.push(*of_pair.index(comptime!(steps[1])));
        counts.push(*there.index(comptime!(first + k * apart)));
    }
    (x, y, counts)
}
