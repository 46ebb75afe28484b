//! The kernels over rows of embeddings that stay beside their norms: a line of units a row.

use burn_cubecl::cubecl::{self, prelude::*};

use super::Tiling;

/// What the rows of embeddings are: their largest magnitudes, and their norms, `[2, rows]`.
///
/// Where rows `may_be_scaled`, the norm is that of a row times 2⁻⁸⁰ where its largest magnitude is
/// above 2⁴⁰, and times 2⁸⁰ where it is below 2⁻⁴⁰.
#[cube(launch)]
pub(crate) fn norms<F: Float, H: Float>(
    x: &[H],
    norms: &mut [F],
    rows: usize,
    width: usize,
    #[comptime] tiling: Tiling,
    #[comptime] may_be_scaled: bool,
    #[define(F, H)] _dtypes: [ElemType; 2],
) {
    let lanes = comptime!(tiling.lanes);
    let lane = UNIT_POS_X as usize;
    let mut shared = Shared::<[F]>::new_slice(comptime!(tiling.units()));
    let lines = comptime!(tiling.lines);
    let mut first = CUBE_POS * lines;
    while first < rows {
        // Units beyond the last row compute what nobody reads.
        let row = first + UNIT_POS_Y as usize;
        let start = min(row, rows - 1) * width;
        let mut largest = F::new(0.0);
        let mut c = lane;
        while c < width {
            largest = larger::<F>(largest, F::cast_from(x[start + c]).abs());
            c += lanes;
        }
        largest = joined::<F>(largest, &mut shared, tiling, true);
        let mut scale = F::new(1.0);
        if comptime!(may_be_scaled) {
            let (low, high) = comptime!((2f32.powi(-40), 2f32.powi(40)));
            scale = select(
                largest > F::new(high),
                F::new(comptime!(2f32.powi(-80))),
                scale,
            );
            scale = select(
                largest < F::new(low),
                F::new(comptime!(2f32.powi(80))),
                scale,
            );
        }
        let mut sum = F::new(0.0);
        let mut c = lane;
        while c < width {
            let value = F::cast_from(x[start + c]) * scale;
            sum += value * value;
            c += lanes;
        }
        sum = joined::<F>(sum, &mut shared, tiling, false);
        if lane == 0 && row < rows {
            norms[row] = largest;
            norms[rows + row] = sum.sqrt();
        }
        first += CUBE_COUNT * lines;
    }
}

/// A gradient in the type of its embeddings, times `factor`; where these are `with_norms` without
/// its part along the direction `u` of each, `g − (g·u)·u`.
///
/// `with_scale` it is that of rows times a power of two.
///
/// - `vectors`: those of the side, of which the second is `1/‖x‖`, of a row times its power of two,
///   and the third the powers
#[cube(launch)]
pub(crate) fn gradients<F: Float, H: Float>(
    gradient: &[F],
    x: &[H],
    vectors: &[F],
    factor: &[F],
    finished: &mut [H],
    rows: usize,
    width: usize,
    #[comptime] tiling: Tiling,
    #[comptime] with_norms: bool,
    #[comptime] with_scale: bool,
    #[comptime] with_factor: bool,
    #[define(F, H)] _dtypes: [ElemType; 2],
) {
    let lanes = comptime!(tiling.lanes);
    let lane = UNIT_POS_X as usize;
    let mut shared = Shared::<[F]>::new_slice(comptime!(tiling.units()));
    let lines = comptime!(tiling.lines);
    let mut times = F::new(1.0);
    if comptime!(with_factor) {
        times = factor[0];
    }
    let mut first = CUBE_POS * lines;
    while first < rows {
        let row = first + UNIT_POS_Y as usize;
        let start = min(row, rows - 1) * width;
        let mut along = F::new(0.0);
        let mut reciprocal = F::new(0.0);
        let mut scale = F::new(1.0);
        if comptime!(with_scale) {
            scale = vectors[2 * rows + min(row, rows - 1)];
        }
        if comptime!(with_norms) {
            reciprocal = vectors[rows + min(row, rows - 1)] * scale;
            let mut c = lane;
            while c < width {
                let direction = F::cast_from(x[start + c]) * reciprocal;
                along += gradient[start + c] * times * direction;
                c += lanes;
            }
            along = joined::<F>(along, &mut shared, tiling, false);
        }
        let mut c = lane;
        while c < width {
            let mut value = gradient[start + c] * times;
            if comptime!(with_norms) {
                value -= F::cast_from(x[start + c]) * reciprocal * along;
            }
            if row < rows {
                finished[start + c] = H::cast_from(value * scale);
            }
            c += lanes;
        }
        first += CUBE_COUNT * lines;
    }
}

/// The larger of two, NaN if one is.
#[cube]
fn larger<F: Float>(x: F, y: F) -> F {
    let is_nan = bool::cast_from(y.is_nan());
    select(y > x || is_nan, y, x)
}

/// The sum of what the units of a line have, or the largest, for each of them.
#[cube]
fn joined<F: Float>(
    own: F,
    shared: &mut Shared<[F]>,
    #[comptime] tiling: Tiling,
    #[comptime] is_largest: bool,
) -> F {
    let lanes = comptime!(tiling.lanes);
    let (lane, start) = (UNIT_POS_X as usize, UNIT_POS_Y as usize * lanes);
    shared[start + lane] = own;
    #[unroll]
    for halving in 0..comptime!(lanes.ilog2() as usize) {
        let half = comptime!(lanes >> (halving + 1));
        sync_cube();
        if lane < half {
            let (x, y) = (shared[start + lane], shared[start + lane + half]);
            if comptime!(is_largest) {
                shared[start + lane] = larger::<F>(x, y);
            } else {
                shared[start + lane] = x + y;
            }
        }
    }
    sync_cube();
    let all = shared[start];
    // What comes next is written there.
    sync_cube();
    all
}
