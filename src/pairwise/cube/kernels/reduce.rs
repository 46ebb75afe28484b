//! The kernel of a block: its pairs' expressions, and what a cube reduces of them.

use burn_cubecl::cubecl::{self, prelude::*};

use super::expr::{Pair, Place, evaluate};
use super::state::{Components, empty, join, load, store, take};
use super::{PLANE, Program};

/// Blocks of the same rows whose states are merged together, and where one is among them.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(crate) struct Group {
    /// Cubes along a row of all of them, and of those before this one.
    pub splits: usize,
    pub split: usize,
    /// Columns of all of them, and of those before this one.
    pub columns: usize,
    pub column: usize,
}

/// Computes the expressions of every pair of a block, writes the coefficients and what the cubes
/// found.
///
/// A unit has the pairs of one of its columns in registers at a time: the loops over them are
/// unrolled, those over its columns and over tiles are not. All that it writes of them comes after
/// all that it reads, which therefore need not wait.
///
/// - `similarity`, `mask`: `[R, C]`
/// - `teachers`: `[teacher, R, C]`
/// - `vectors`: the bound vectors of rows, those of columns, the scalars
/// - `partials`: for the rows `[component, cube along the row, R]`, then for the columns
///   `[component, cube along the column, C]`, of all blocks of the group
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
    group: Group,
    infinity: f32,
    #[comptime] program: Program,
    #[comptime] with_mask: bool,
    #[define(F, H)] _dtypes: [ElemType; 2],
) {
    let each = comptime!(program.tiling.each);
    let lanes = comptime!(program.tiling.lanes);
    let lines = comptime!(program.tiling.lines);
    let infinity = F::cast_from(infinity);
    let lane = UNIT_POS_X as usize;
    let first_row = CUBE_POS_Y as usize * comptime!(program.tiling.rows()) + UNIT_POS_Y as usize;
    let plane = (place.rows * place.columns).div_ceil(PLANE) * PLANE;
    let mut shared = Shared::<[F]>::new_slice(comptime!(program.shared()));

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

    let start = CUBE_POS_X as usize * comptime!(program.tiling.span());
    let columns = comptime!(program.tiling.columns());
    let tiles = min(
        comptime!(program.tiling.tiles),
        (place.columns - start).div_ceil(columns),
    );
    for tile in 0..tiles {
        let c0 = start + tile * columns;
        for e in 0..each {
            let column = lane + e * lanes;
            let is_column = c0 + column < place.columns;
            // Units beyond the block read its last pair, which does not count.
            let c = min(c0 + column, place.columns - 1);
            let mut values = Sequence::<Sequence<F>>::new();
            #[unroll]
            for q in 0..each {
                let r = min(first_row + comptime!(q * lines), place.rows - 1);
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
                values.push(of_pair);
            }

            #[unroll]
            for q in 0..each {
                let r = first_row + comptime!(q * lines);
                let is_pair = is_column && r < place.rows;
                let of_pair = values.index(q);
                if comptime!(program.coefficient.is_some()) {
                    let g = *of_pair.index(comptime!(program.coefficient.unwrap()));
                    if is_pair {
                        let here = r * place.columns + c;
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
                #[unroll]
                for k in 0..comptime!(program.rows.len()) {
                    let reducing = comptime!(program.rows[k]);
                    take::<F>(
                        by_row.index_mut(comptime!(k * each + q)),
                        *of_pair.index(comptime!(reducing.steps[0])),
                        *of_pair.index(comptime!(reducing.steps[1])),
                        is_pair,
                        place.j0 + c,
                        infinity,
                        reducing.kind,
                    );
                }
            }

            #[unroll]
            for k in 0..comptime!(program.columns.len()) {
                let reducing = comptime!(program.columns[k]);
                let mut found = empty::<F>(infinity, reducing.kind);
                #[unroll]
                for q in 0..each {
                    let r = first_row + comptime!(q * lines);
                    let of_pair = values.index(q);
                    take::<F>(
                        &mut found,
                        *of_pair.index(comptime!(reducing.steps[0])),
                        *of_pair.index(comptime!(reducing.steps[1])),
                        is_column && r < place.rows,
                        place.i0 + r,
                        infinity,
                        reducing.kind,
                    );
                }
                let at = comptime!(program.column_at(k)) + UNIT_POS_Y as usize * columns + column;
                store::<F>(
                    &mut shared,
                    at,
                    comptime!(lines * columns),
                    &found,
                    reducing.kind,
                );
            }
        }
        if comptime!(!program.columns.is_empty()) {
            sync_cube();
            join_columns::<F>(
                &shared,
                partials,
                &place,
                &group,
                c0,
                comptime!(program.clone()),
            );
            sync_cube();
        }
    }
    if comptime!(!program.rows.is_empty()) {
        join_rows::<F>(
            &by_row,
            &mut shared,
            partials,
            &place,
            &group,
            comptime!(program.clone()),
        );
    }
}

/// Joins what the lines of a cube found of the columns of a tile, a unit for each column.
#[cube]
fn join_columns<F: Float>(
    shared: &Shared<[F]>,
    partials: &mut [F],
    place: &Place,
    group: &Group,
    c0: usize,
    #[comptime] program: Program,
) {
    let columns = comptime!(program.tiling.columns());
    let lines = comptime!(program.tiling.lines);
    let strips = CUBE_COUNT_Y as usize;
    let after_rows = comptime!(program.row_components) * group.splits * place.rows;
    let column = UNIT_POS as usize;
    if column < columns && c0 + column < place.columns {
        #[unroll]
        for k in 0..comptime!(program.columns.len()) {
            let reducing = comptime!(program.columns[k]);
            let at = comptime!(program.column_at(k)) + column;
            let apart = comptime!(lines * columns);
            let mut found = load::<F>(shared, at, apart, reducing.kind);
            for line in 1..lines {
                let next = load::<F>(shared, at + line * columns, apart, reducing.kind);
                join::<F>(&mut found, &next, reducing.kind);
            }
            let strip = reducing.component * strips + CUBE_POS_Y as usize;
            store::<F>(
                partials,
                after_rows + strip * group.columns + group.column + c0 + column,
                strips * group.columns,
                &found,
                reducing.kind,
            );
        }
    }
}

/// Joins what the lanes of a cube found of its rows: in each line a group of lanes for each row,
/// first each lane some, then by halves.
///
/// A row has a place more than lanes, so that the lanes of a line find their values in different
/// banks of the memory.
#[cube]
fn join_rows<F: Float>(
    by_row: &Sequence<Components<F>>,
    shared: &mut Shared<[F]>,
    partials: &mut [F],
    place: &Place,
    blocks: &Group,
    #[comptime] program: Program,
) {
    let each = comptime!(program.tiling.each);
    let lines = comptime!(program.tiling.lines);
    let group = comptime!(program.tiling.lanes / each);
    let width = comptime!(program.tiling.lanes + 1);
    let apart = comptime!(program.tiling.rows() * width);
    let (lane, line) = (UNIT_POS_X as usize, UNIT_POS_Y as usize);
    #[unroll]
    for k in 0..comptime!(program.rows.len()) {
        #[unroll]
        for q in 0..each {
            store::<F>(
                shared,
                comptime!(program.row_at(k)) + (line + comptime!(q * lines)) * width + lane,
                apart,
                by_row.index(comptime!(k * each + q)),
                comptime!(program.rows[k].kind),
            );
        }
    }
    sync_cube();
    let (row, part) = (line + lane / group * lines, lane % group);
    #[unroll]
    for k in 0..comptime!(program.rows.len()) {
        let kind = comptime!(program.rows[k].kind);
        let at = comptime!(program.row_at(k)) + row * width + part;
        let mut found = load::<F>(&*shared, at, apart, kind);
        for other in 1..each {
            let next = load::<F>(&*shared, at + other * group, apart, kind);
            join::<F>(&mut found, &next, kind);
        }
        store::<F>(shared, at, apart, &found, kind);
    }
    #[unroll]
    for halving in 0..comptime!(group.ilog2() as usize) {
        let half = comptime!(group >> (halving + 1));
        sync_cube();
        if part < half {
            #[unroll]
            for k in 0..comptime!(program.rows.len()) {
                let kind = comptime!(program.rows[k].kind);
                let at = comptime!(program.row_at(k)) + row * width + part;
                let mut found = load::<F>(&*shared, at, apart, kind);
                let next = load::<F>(&*shared, at + half, apart, kind);
                join::<F>(&mut found, &next, kind);
                store::<F>(shared, at, apart, &found, kind);
            }
        }
    }
    let r = CUBE_POS_Y as usize * comptime!(program.tiling.rows()) + row;
    if part == 0 && r < place.rows {
        let splits = blocks.splits;
        #[unroll]
        for k in 0..comptime!(program.rows.len()) {
            let reducing = comptime!(program.rows[k]);
            let at = comptime!(program.row_at(k)) + row * width;
            let found = load::<F>(&*shared, at, apart, reducing.kind);
            store::<F>(
                partials,
                (reducing.component * splits + blocks.split + CUBE_POS_X as usize) * place.rows + r,
                splits * place.rows,
                &found,
                reducing.kind,
            );
        }
    }
}
