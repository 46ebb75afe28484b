//! Products on matrix units: their arithmetic, and passes at each level of precision. Where the
//! processor has none they are emulated, to the bit.

use burn::tensor::{DType, bf16, f16};

use super::*;
use crate::pairwise::cpu::embeddings::has_tiny_row_of_bf16;
use crate::pairwise::cpu::matrix_units::{BLOCK, Multiplied, Product, SIDE, Units};
use crate::pairwise::cpu::packed::{Packed, multiplies_as_bf16};
use crate::pairwise::pass::Pass;

/// Those of the processor, and one that is emulated.
fn units() -> Vec<Units> {
    let mut all = units_of_bf16();
    all.extend(Units::of_f32());
    eprintln!("matrices are multiplied by {all:?}");
    all
}

fn units_of_bf16() -> Vec<Units> {
    let mut all = vec![Units::Emulated];
    all.extend(Units::of_processor());
    all
}

/// Embeddings in one of three types.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Single,
    F16,
    Bf16,
}

const KINDS: [Kind; 3] = [Kind::Single, Kind::F16, Kind::Bf16];

/// `A·Bᵀ` on matrix units, and the same in f64 of what the embeddings hold; `None` where it would
/// take longer than in f32.
fn similarities(
    units: Units,
    kind: Kind,
    precision: Precision,
    [n, m, d]: [usize; 3],
    [a, b]: [&[f32]; 2],
) -> Option<[Vec<f64>; 2]> {
    let half = [a, b].map(|x| x.iter().map(|&x| f16::from_f32(x)).collect::<Vec<_>>());
    let brain = [a, b].map(|x| x.iter().map(|&x| bf16::from_f32(x)).collect::<Vec<_>>());
    let sides = [0, 1].map(|k| match kind {
        Kind::Single => Rows::Own([a, b][k]),
        Kind::F16 => Rows::F16(&half[k]),
        Kind::Bf16 => Rows::Bf16(&brain[k]),
    });
    let held = |k: usize, at: usize| match kind {
        Kind::Single => [a, b][k][at] as f64,
        Kind::F16 => half[k][at].to_f64(),
        Kind::Bf16 => brain[k][at].to_f64(),
    };
    let none: &[f32] = &[];
    let inputs = Inputs {
        a: sides[0],
        b: sides[1],
        d,
        teachers: [none, none],
        context: Context {
            n,
            m,
            rows: none,
            columns: none,
            scalars: none,
            mask: &[],
        },
    };
    let pass = pass_at(precision);
    let tiling = whole();
    let block = blocks::<f32>(&tiling, &pass, n, m)[0];
    let mut packed = Packed::on(&[Some(units)], &pass, &inputs)?;
    packed.prepare(&pass, &inputs, (&block, &tiling), false);
    let mut found = vec![f32::NAN; n * m];
    // SAFETY: there are n rows of m elements.
    unsafe {
        let similarities = packed.similarities(None).expect("its own");
        similarities.multiply([0, 0], [n, m], (found.as_mut_ptr(), m));
    }
    let exact = (0..n * m).map(|k| {
        let (i, j) = (k / m, k % m);
        (0..d)
            .map(|c| held(0, i * d + c) * held(1, j * d + c))
            .sum()
    });
    Some([found.iter().map(|&x| x as f64).collect(), exact.collect()])
}

/// A pass over similarities alone.
fn pass_at(precision: Precision) -> Pass {
    let similarity = Expr::leaf(Leaf::Similarity);
    let form = &forms(false)[0];
    let limits = Limits {
        precision,
        ..LIMITS
    };
    let form = Form {
        reductions: vec![rows().sum(&similarity)],
        teachers: Vec::new(),
        limits,
        ..form.clone()
    };
    form.forward(false)
}

pub(super) fn random(len: usize, seed: u64) -> Vec<f32> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..len).map(|_| rng.random_range(-1.0..1.0)).collect()
}

#[test]
fn similarities_of_every_size_are_as_exact_as_their_level() {
    use Precision::{High, Highest, Medium};
    let cases = [
        // Relative to the product of the norms: what terms leave of a number, from both sides,
        // and sums in f32.
        (Kind::Single, High, 3.0 * 2f64.powi(-17)),
        (Kind::Single, Medium, 2.0 * 2f64.powi(-8)),
        // Nothing is rounded but sums.
        (Kind::Single, Highest, 1e-6),
        (Kind::Bf16, Highest, 1e-6),
        (Kind::Bf16, Medium, 1e-6),
        (Kind::F16, High, 1e-6),
        (Kind::F16, Medium, 1e-6),
    ];
    let norm = |x: &[f32]| x.iter().map(|x| (x * x) as f64).sum::<f64>().sqrt();
    let cases = cases
        .into_iter()
        .flat_map(|case| units().into_iter().map(move |u| (u, case)));
    let mut taken = 0;
    for (units, (kind, precision, bound)) in cases {
        for [n, m] in [
            [1, 1],
            [15, 17],
            [16, 16],
            [31, 33],
            [33, 31],
            [64, 65],
            [2, 100],
        ] {
            for d in [1, 31, 32, 33, 96] {
                let [a, b] = [random(n * d, 1), random(m * d, 2)];
                let trial = similarities(units, kind, precision, [n, m, d], [&a, &b]);
                let Some([found, exact]) = trial else {
                    continue;
                };
                taken += 1;
                for (k, (found, exact)) in found.iter().zip(exact).enumerate() {
                    let (i, j) = (k / m, k % m);
                    let norms = norm(&a[i * d..][..d]) * norm(&b[j * d..][..d]);
                    assert!(
                        (found - exact).abs() <= bound * norms,
                        "{units:?} {kind:?} {precision:?} {n} x {m} x {d}, {i} {j}: {found} for \
                         {exact}"
                    );
                }
            }
        }
    }
    assert!(taken >= 6 * 7 * 5, "{taken}");
}

#[test]
fn rounding_shows_so_that_the_bounds_of_the_other_test_are_of_use() {
    let [n, m, d] = [16, 16, 64];
    let [a, b] = [random(n * d, 1), random(m * d, 2)];
    let error = |precision| {
        let found = similarities(
            Units::Emulated,
            Kind::Single,
            precision,
            [n, m, d],
            [&a, &b],
        );
        let [found, exact] = found.expect("it gains");
        let errors = found.iter().zip(exact).map(|(x, y)| (x - y).abs());
        errors.fold(0.0, f64::max)
    };
    assert!(error(Precision::Medium) > 50.0 * error(Precision::High));
}

#[test]
fn what_is_not_finite_stays_in_its_rows() {
    let [n, m, d] = [20, 40, 33];
    for (units, kind) in units()
        .into_iter()
        .flat_map(|u| KINDS.map(|kind| (u, kind)))
    {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let [mut a, mut b] = [random(n * d, 3), random(m * d, 4)];
            a[17 * d + 32] = bad;
            b[5 * d] = bad;
            let found = similarities(units, kind, Precision::Medium, [n, m, d], [&a, &b]);
            for (k, x) in found.iter().flat_map(|[found, _]| found).enumerate() {
                let is_bad = k / m == 17 || k % m == 5;
                assert_eq!(
                    x.is_finite(),
                    !is_bad,
                    "{units:?} {kind:?} {bad} at {k}: {x}"
                );
            }
        }
    }
}

#[test]
fn zeros_and_very_long_and_short_rows() {
    let [n, m, d] = [3, 3, 8];
    let scaled = |scale: f32| {
        let elements = random(n * d, 5).into_iter().map(|x| x * scale);
        elements.collect::<Vec<_>>()
    };
    let zeros = vec![0f32; n * d];
    let lengths = [(1e20, 1e-20), (1e-28, 1e20), (1e18, 1e18), (1.0, 1e-28)];
    for (units, (left, right)) in units().into_iter().flat_map(|u| lengths.map(|l| (u, l))) {
        let run = |a: &[f32], b: &[f32]| {
            let found = similarities(units, Kind::Single, Precision::Medium, [n, m, d], [a, b]);
            found.expect("it gains")
        };
        let [found, exact] = run(&scaled(left), &scaled(right));
        let largest = exact.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
        for (x, y) in found.iter().zip(exact) {
            assert!(
                (x - y).abs() <= 0.01 * largest,
                "{left} {right}: {x} for {y}"
            );
        }
        let [found, _] = run(&scaled(left), &zeros);
        assert!(found.iter().all(|&x| x == 0.0));
    }
}

/// Matrix units take numbers below the normal range for zeros: such rows are multiplied in f32.
#[test]
fn rows_too_short_for_matrix_units_are_multiplied_without_them() {
    let problem = |scale: f64| {
        let mut problem = Problem::new(20, 30, 9);
        problem.a[7 * D..8 * D].iter_mut().for_each(|x| *x *= scale);
        problem
    };
    for form in forms(false) {
        let at = |precision| Form {
            limits: Limits {
                precision,
                ..form.limits
            },
            ..form.clone()
        };
        let same = |scale: f64| {
            let run = |precision| evaluate::<f32>(&at(precision), &problem(scale), None, 0);
            run(Precision::High) == run(Precision::Highest)
        };
        assert!(same(1e-38) && !same(1e-20) && !same(0.0));
    }
    let half = |x: f32| vec![bf16::from_f32(x); 8];
    assert!(has_tiny_row_of_bf16(&[half(1.0), half(1e-38)].concat(), 8));
    assert!(!has_tiny_row_of_bf16(&[half(1e-20), half(0.0)].concat(), 8));
}

#[test]
fn forms_at_every_level_agree_with_f64_by_the_bound_of_the_level() {
    // Similarities of three elements below 1: what a level leaves of each (2⁻¹⁷ or 2⁻⁹, on both
    // sides of a product), through expressions whose slopes are below 30, and once more of the
    // coefficients.
    let levels = [(Precision::High, 1e-3), (Precision::Medium, 0.3)];
    for symmetric in [false, true] {
        for [n, m] in [[1, 1], [15, 17], [33, 31], [65, 129]] {
            let problem = Problem::of(symmetric, n, m, 6);
            for form in forms(symmetric) {
                let exact = evaluate::<f64>(&form, &problem, None, 0);
                let in_full = evaluate::<f32>(&form, &problem, None, 0);
                for (precision, bound) in levels {
                    let limits = Limits {
                        precision,
                        block: 64 * 80 * 4,
                        ..form.limits
                    };
                    let form = Form {
                        limits,
                        ..form.clone()
                    };
                    let results = evaluate::<f32>(&form, &problem, None, 0);
                    let again = evaluate::<f32>(&form, &problem, None, n * m * 3);
                    for found in [&results, &again] {
                        let distance = distance(found, &exact);
                        assert!(
                            distance <= bound,
                            "{precision:?}, {n} x {m}, symmetric: {symmetric}: {distance:e} in \
                             {:?}",
                            form.reductions
                        );
                    }
                    let is_rounded = results != in_full;
                    assert!(
                        is_rounded || n * m == 1,
                        "{precision:?}: nothing was rounded"
                    );
                }
            }
        }
    }
}

#[test]
fn threads_do_not_change_a_bit_and_f64_is_never_rounded() {
    let problem = Problem::new(300, 200, 7);
    for form in forms(false) {
        let limits = Limits {
            precision: Precision::High,
            ..form.limits
        };
        let high = Form {
            limits,
            ..form.clone()
        };
        let tiling = |threads| Tiling {
            tile: [64, 128],
            block: [128, 192],
            threads,
        };
        let one = evaluate::<f32>(&high, &problem, Some(&tiling(1)), 0);
        let three = evaluate::<f32>(&high, &problem, Some(&tiling(3)), 0);
        assert!(one == three);
        let [high, highest] =
            [&high, &form].map(|form| evaluate::<f64>(form, &problem, Some(&tiling(1)), 0));
        assert!(high == highest);
    }
}

#[test]
fn bf16_takes_the_place_of_f32_where_that_gains() {
    use Precision::{High, Highest, Medium};
    for precision in [Highest, High, Medium] {
        let is_permitted = precision != Highest;
        assert!(multiplies_as_bf16(DType::BF16, precision));
        assert_eq!(multiplies_as_bf16(DType::F32, precision), is_permitted);
        assert_eq!(multiplies_as_bf16(DType::F16, precision), is_permitted);
        assert!(!multiplies_as_bf16(DType::F64, precision));
    }
}

/// How far sums may be from emulated ones.
fn tolerance(units: Units) -> f32 {
    match units {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        Units::Amx => 0.0,
        // It adds in another order.
        #[cfg(target_arch = "x86_64")]
        Units::Avx512Bf16 => 1e-3,
        #[cfg(target_arch = "x86_64")]
        Units::Avx512F32 => unreachable!("it multiplies f32"),
        Units::Emulated => 0.0,
    }
}

/// The instructions against their emulation.
#[test]
fn units_multiply_blocks_as_defined() {
    let mut rng = StdRng::seed_from_u64(8);
    let steps = 3;
    let terms = [[1, 1], [2, 2], [3, 1], [2, 1], [1, 2]];
    let cases = terms.map(|terms| [false, true].map(|is_tiny| (terms, is_tiny)));
    for ([left, right], is_tiny) in cases.into_iter().flatten() {
        let multiplied = Multiplied::new(left, right, false);
        let bits = |x: f32| bf16::from_f32(x).to_bits() as u32;
        // Two of the first make the smallest normal number; two of the second, taken from it, leave
        // what rounds to it on the grid of the numbers below, but not as if that went on.
        let powers = [2f32.powi(-63), 2f32.powi(-75)];
        let mut half = || match rng.random_range(0..4000) {
            at @ 0..2000 if is_tiny => bits(powers[at % 2]) | (at as u32 & 2) << 14,
            2000.. if is_tiny => bits(rng.random_range(-2.0..2.0) * powers[0]),
            0 => 0x7f80,                               // ∞
            1 => 0xffc1,                               // NaN
            2..200 => rng.random_range(0..0x80),       // below the normal range
            200..400 => rng.random_range(0x80..0x100), // next to it
            _ => bits(rng.random_range(-2.0..2.0)),
        };
        let mut strip = |terms: usize| -> Vec<u32> {
            (0..steps * terms * BLOCK)
                .map(|_| half() << 16 | half())
                .collect()
        };
        let lefts = [strip(left), strip(left)];
        let rights = [strip(right), strip(right)];
        let run = |units: Units, accumulate: bool| {
            let scale = if is_tiny {
                f32::MIN_POSITIVE / 64.0
            } else {
                1.0
            };
            let sums = (0..SIDE * SIDE).map(|k| (k as f32 - 500.0) * scale);
            let mut sums: Vec<f32> = sums.collect();
            // SAFETY: there are 32 rows of 32 elements.
            unsafe {
                units.ready().multiply(&Product {
                    multiplied: &multiplied,
                    steps,
                    left: lefts.each_ref().map(|x| &x[..]),
                    right: rights.each_ref().map(|x| &x[..]),
                    dst: sums.as_mut_ptr(),
                    stride: SIDE,
                    accumulate,
                    rows: SIDE,
                });
            }
            sums
        };
        for accumulate in [false, true] {
            let emulated = run(Units::Emulated, accumulate);
            assert!(emulated.iter().filter(|x| x.is_normal()).count() > 100);
            for units in units_of_bf16() {
                let found = run(units, accumulate);
                for (&x, &y) in found.iter().zip(&emulated) {
                    let is_same = x.to_bits() == y.to_bits() || x.is_nan() && y.is_nan();
                    let is_near = (x - y).abs() <= tolerance(units);
                    assert!(is_same || is_near, "{units:?}: {x} for {y}");
                }
            }
        }
    }
}
