//! The kernels against plain tensor operations.

use burn::backend::ops::FloatTensorOps;
use burn::tensor::{DType, Device, Shape, TensorData, read_sync};
use burn_cubecl::CubeDevice;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

use super::buffers::empty;
use super::kernels::Tiling;
use super::plan::{Factors, Terms};
use super::*;
use crate::pairwise::Precision;
use crate::pairwise::backward::append_results;
use crate::pairwise::evaluation::Limits;
use crate::pairwise::expr::{Expr, Leaf};
use crate::pairwise::form::{Form, Wanted};
use crate::pairwise::reduction::{columns, rows};

fn tensor(values: impl Fn(usize) -> f32, shape: [usize; 2]) -> CubeTensor {
    let data = TensorData::new((0..shape[0] * shape[1]).map(values).collect(), shape);
    CubeBackend::float_from_data(data, &CubeDevice::Wgpu(Default::default()))
}

fn elements(x: CubeTensor) -> Vec<f32> {
    read_sync(CubeBackend::float_into_data(x))
        .unwrap()
        .try_to_vec()
        .unwrap()
}

fn assert_same(own: &[f32], plain: &[f32], tolerance: f32, how: &str) {
    let largest = plain.iter().fold(0f32, |l, x| l.max(x.abs()));
    assert_eq!(own.len(), plain.len());
    for (x, y) in own.iter().zip(plain) {
        assert!(
            (x - y).abs() <= tolerance * largest,
            "{x} against {y}: {how}"
        );
    }
}

/// Reductions of every kind, along both axes; a maximum, whose index rounding may change, only
/// `with_max`.
fn form(with_max: bool) -> Form {
    let c = Expr::leaf(Leaf::Similarity);
    let scaled = &c * &Expr::leaf(Leaf::Scalar(0));
    let logit = &scaled * &Expr::leaf(Leaf::Row(0)) + &Expr::leaf(Leaf::Column(0));
    let mut reductions = vec![
        rows().log_sum_exp(&logit.except(&Expr::diagonal())),
        columns().softmax_mean(&logit, &c),
        columns().sum(&logit.sigmoid()),
    ];
    if with_max {
        reductions.insert(2, rows().max(&c));
    }
    Form {
        reductions,
        rows: 1,
        columns: 1,
        scalars: 1,
        symmetric: false,
        has_norms: false,
        has_scale: false,
        teachers: Vec::new(),
        tokens: [1, 1],
        limits: Limits {
            precision: Precision::Highest,
            budget: 1 << 30,
            block: 1 << 30,
            kept: 0,
        },
        workers: None,
    }
}

/// A way to run a pass, and how close it comes to plain tensor operations.
struct How {
    tiling: Tiling,
    factors: Factors,
    /// Bytes of a block, and of the similarities that are kept for the second pass.
    budget: usize,
    kept: usize,
    tolerance: f32,
}

fn inputs([n, m]: [usize; 2], width: usize) -> Inputs<CubeBackend> {
    let number = |seed: f32| move |k: usize| (k as f32 * seed).sin();
    let any = || tensor(|_| 1.5, [1, 1]);
    Inputs {
        a: tensor(number(0.7), [n, width]),
        b: tensor(number(0.9), [m, width]),
        teacher_a: any(),
        teacher_b: any(),
        rows: tensor(number(1.1), [1, n]),
        columns: tensor(number(1.3), [1, m]),
        scalars: any(),
        mask: any(),
        kept: any(),
    }
}

/// Runs a pass and the one that follows from it, with all gradients, in each of these ways.
fn check(form: &Form, ways: &[How]) {
    let (n, m) = (140, 150);
    let number = |seed: f32| move |k: usize| (k as f32 * seed).sin();
    let mut inputs = inputs([n, m], 5);
    let wanted = Wanted {
        left: true,
        right: true,
        rows: true,
        columns: true,
        scalars: true,
    };
    let mut kept = Vec::new();
    let mut check = |inputs: &Inputs<CubeBackend>, pass: &Pass| {
        let plain = chunked::pass(inputs.clone(), pass);
        let hardware = Hardware::of(&inputs.a);
        let before = std::mem::take(&mut kept);
        for (k, how) in ways.iter().enumerate() {
            let mut pass = pass.clone();
            (pass.limits.budget, pass.limits.kept) = (how.budget, how.kept);
            let inputs = Inputs {
                kept: before.get(k).unwrap_or(&inputs.kept).clone(),
                ..inputs.clone()
            };
            let factors = [how.factors; 2];
            let plan = Plan::with_factors(&hardware, how.tiling, &inputs, &pass, factors);
            assert_eq!(plan.keeps, how.kept > 0);
            assert!(!plan.is_fused);
            let own = Cubes::new(inputs, &pass, plan).run();
            kept.push(own.kept.clone());
            let pairs = [
                (own.results, plain.results.clone()),
                (own.left, plain.left.clone()),
                (own.right, plain.right.clone()),
            ];
            let said = format!("{:?}, {:?}", how.tiling, how.factors);
            for (own, plain) in pairs {
                assert_same(&elements(own), &elements(plain), how.tolerance, &said);
            }
        }
        plain.results
    };
    let results = check(&inputs, &form.forward(false));
    let len = form.result_len([n, m]);
    let upstream = tensor(number(0.3), [1, len]);
    let upstream = CubeBackend::float_reshape(upstream, Shape::new([len]));
    append_results(&mut inputs, results, upstream, form);
    check(&inputs, &form.backward(wanted));
}

/// Also tilings that a software adapter does not choose, against plain tensor operations.
#[test]
fn every_tiling_gives_what_chunks_give() {
    let small = Tiling {
        lanes: 2,
        lines: 1,
        each: 1,
        tiles: 8,
    };
    let tilings = [Tiling::of(8), Tiling::of(32), small];
    // In one block, and in several.
    for budget in [1 << 30, 1] {
        let ways = tilings.map(|tiling| How {
            tiling,
            factors: Factors::new(DType::F32, Precision::Highest, &[]),
            budget,
            kept: 0,
            tolerance: 1e-5,
        });
        check(&form(true), &ways);
    }
}

/// Products of the second pass would be of what the first one kept, and of nothing else.
#[test]
fn kept_similarities_are_those_of_the_first_pass() {
    let ways = [1 << 30, 1].map(|budget| How {
        tiling: Tiling::of(8),
        factors: Factors::new(DType::F32, Precision::Highest, &[]),
        budget,
        kept: 140 * 150 * 4,
        tolerance: 1e-5,
    });
    check(&form(true), &ways);
}

#[test]
fn nothing_is_kept_beyond_its_limit_or_of_a_few() {
    let mut pass = form(true).forward(true);
    pass.limits.kept = 140 * 150 * 4;
    assert!(pass.keeps_all([140, 150], DType::F32));
    assert!(!pass.keeps_all([140, 151], DType::F32));
    assert!(!pass.keeps_all([4, 4], DType::F32));
    assert!(!pass.keeps_all([usize::MAX, usize::MAX], DType::F32));
}

/// The backward pass of a form whose bound vectors are constants, and the one pass of a sum over all
/// pairs, of products that compute coefficients and totals themselves.
#[test]
fn fused_products_give_what_chunks_give() {
    let wanted = Wanted {
        left: true,
        right: true,
        rows: false,
        columns: false,
        scalars: true,
    };
    let several = form(false);
    let logit = several.reductions[1].exprs[0].clone();
    let cost = Expr::select(&Expr::diagonal(), &(-&logit).softplus(), &logit.softplus());
    let total = Form {
        reductions: vec![rows().sum(&cost)],
        ..form(false)
    };
    let in_full = (Factors::new(DType::F32, Precision::Highest, &[]), 1e-5);
    let half = Terms {
        dtype: DType::F16,
        count: 2,
    };
    let in_terms = Factors {
        similarity: half,
        gradient: half,
        coefficient: Some(half),
    };
    // Of 150 columns vectors have two elements, of 148 four, of 149 one. In several blocks, and in
    // one.
    let ways = [
        (150, 5, in_full, 1),
        (150, 5, in_full, 1 << 30),
        (148, 8, (in_terms, 1e-4), 1),
        (149, 4, in_full, 1),
    ];
    for (m, width, factors, budget) in ways {
        let (mut inputs, n) = (inputs([140, m], width), 140);
        check_fused(&inputs, &total.with_gradient(wanted), factors, budget);
        let results = chunked::pass(inputs.clone(), &several.forward(false)).results;
        let len = several.result_len([n, m]);
        let upstream = tensor(|k| (k as f32 * 0.3).sin(), [1, len]);
        let upstream = CubeBackend::float_reshape(upstream, Shape::new([len]));
        append_results(&mut inputs, results, upstream, &several);
        check_fused(&inputs, &several.backward(wanted), factors, budget);
    }
}

/// Runs a pass whose products compute coefficients.
fn check_fused(
    inputs: &Inputs<CubeBackend>,
    pass: &Pass,
    (factors, tolerance): (Factors, f32),
    budget: usize,
) {
    let plain = chunked::pass(inputs.clone(), pass);
    let mut pass = pass.clone();
    pass.limits.budget = budget;
    let hardware = Hardware::of(&inputs.a);
    let plan = Plan::with_factors(&hardware, Tiling::of(8), inputs, &pass, [factors; 2]);
    assert!(plan.is_fused);
    let own = Cubes::new(inputs.clone(), &pass, plan).run();
    let totals = |results: CubeTensor| -> Vec<f32> {
        let results = elements(results);
        let each = inputs.sizes()[0];
        results.chunks(each).map(|part| part.iter().sum()).collect()
    };
    let pairs = [
        (totals(own.results), totals(plain.results)),
        (elements(own.left), elements(plain.left)),
        (elements(own.right), elements(plain.right)),
    ];
    for (own, plain) in pairs {
        let said = format!("{factors:?}, budget {budget}, {:?}", inputs.b.meta.shape());
        assert_same(&own, &plain, tolerance, &said);
    }
}

/// In a copy of all rows, and in one of those of a block at a time.
#[test]
fn rows_are_multiplied_by_their_scales_first() {
    let form = Form {
        rows: 3,
        has_scale: true,
        ..form(false)
    };
    let wanted = Wanted {
        left: true,
        right: true,
        rows: false,
        columns: false,
        scalars: true,
    };
    let [n, m] = [140, 150];
    let mut inputs = inputs([n, m], 5);
    // The third vector of rows are powers of two.
    inputs.rows = tensor(
        |k| match k / n {
            2 => 2f32.powi((k % 3) as i32 - 1),
            _ => (k as f32 * 1.1).sin(),
        },
        [3, n],
    );
    let check = |inputs: &Inputs<CubeBackend>, pass: &Pass| {
        let plain = chunked::pass(scaled(inputs.clone(), pass), pass);
        let mut pass = pass.clone();
        pass.limits.budget = 1;
        let factors = Factors::new(DType::F32, Precision::Highest, &[]);
        let hardware = Hardware::of(&inputs.a);
        let plan = Plan::with_factors(&hardware, Tiling::of(8), inputs, &pass, [factors; 2]);
        let own = Cubes::new(inputs.clone(), &pass, plan).run();
        for (own, plain) in [(own.left, plain.left), (own.right, plain.right)] {
            assert_same(&elements(own), &elements(plain), 1e-5, "scaled rows");
        }
        plain.results
    };
    let results = check(&inputs, &form.forward(false));
    let len = form.result_len([n, m]);
    let upstream = tensor(|k| (k as f32 * 0.3).sin(), [1, len]);
    let upstream = CubeBackend::float_reshape(upstream, Shape::new([len]));
    append_results(&mut inputs, results, upstream, &form);
    check(&inputs, &form.backward(wanted));
}

/// The kernels over rows of half precision, of a width that no line of units divides.
#[test]
fn rows_of_half_precision_have_kernels_of_their_own() {
    let [n, width] = [70, 37];
    let half = |x: CubeTensor| CubeBackend::float_cast(x, DType::F16.into());
    let number = |seed: f32| move |k: usize| (k as f32 * seed).sin();
    let x = half(tensor(number(0.7), [n, width]));
    let norms = elements(super::rows::norms(x.clone()));
    let values = elements(CubeBackend::float_cast(x.clone(), DType::F32.into()));
    for (row, values) in values.chunks(width).enumerate() {
        let largest = values.iter().fold(0f32, |l, x| l.max(x.abs()));
        let norm = values.iter().map(|x| x * x).sum::<f32>().sqrt();
        assert_eq!(norms[row], largest);
        assert!((norms[n + row] - norm).abs() < 1e-5 * norm);
    }
    let not = half(tensor(|k| if k == 3 { f32::NAN } else { 0.5 }, [2, 5]));
    let norms = elements(super::rows::norms(not));
    assert!(norms[0].is_nan() && norms[2].is_nan() && norms[1] == 0.5);

    let scale = |row: usize| 2f32.powi(row as i32 % 3 - 1);
    let vectors = tensor(|k| if k < 2 * n { 0.2 } else { scale(k % n) }, [3, n]);
    let of = Unfinished::<CubeBackend> {
        gradient: tensor(number(0.9), [n, width]),
        x,
        vectors,
        factor: tensor(|_| 1.5, [1, 1]),
        has_norms: true,
        has_scale: false,
        has_factor: true,
        dtype: DType::F16,
    };
    let wide = |x| elements(CubeBackend::float_cast(x, DType::F32.into()));
    let plain = wide(of.clone().in_plain_operations());
    let own = wide(super::rows::finished(of.clone()));
    assert_same(&own, &plain, 1e-3, "without a scale");
    // Rows times their powers of two, and the gradient by what they were before.
    let upright = tensor(scale, [n, 1]);
    let x = CubeBackend::float_mul(of.x.clone(), half(upright.clone()));
    let plain = Unfinished { x, ..of.clone() }.in_plain_operations();
    let plain = CubeBackend::float_mul(plain, half(upright));
    let own = super::rows::finished(Unfinished {
        has_scale: true,
        ..of
    });
    assert_same(&wide(own), &wide(plain), 1e-3, "with a scale");
}

/// Rounded factors on a device without instructions for them, in f16 where there is no bf16: each
/// term more is worth the digits of its type.
#[test]
fn terms_add_up() {
    let supports = |dtype| Device::wgpu(Default::default()).supports_dtype(dtype);
    let half = [(DType::BF16, 8), (DType::F16, 11)];
    let found = half.into_iter().find(|&(dtype, _)| supports(dtype));
    let (dtype, bits) = found.expect("the adapter has half precision");
    for count in [1, 2, 3] {
        let terms = Terms { dtype, count };
        let tolerance = 8.0 * 2f32.powi(-bits * count as i32);
        let ways = [1, 1 << 30].map(|budget| How {
            tiling: Tiling::of(8),
            factors: Factors {
                similarity: terms,
                gradient: terms,
                coefficient: Some(terms),
            },
            budget,
            kept: if count == 2 { 1 << 30 } else { 0 },
            tolerance: tolerance.max(1e-5),
        });
        check(&form(false), &ways);
    }
}

#[test]
fn a_cube_with_less_memory_has_fewer_pairs_a_unit() {
    // Four components along either axis: 33 × 32 states of a GPU's cube, half as many, a quarter.
    let pass = form(true).forward(false);
    let each = [4 * 33 * 32, 4 * 33 * 32 - 1, 4 * 33 * 16 - 1].map(|values| {
        let hardware = Hardware {
            plane: 32,
            shared_memory: 4 * values,
            ..Hardware::of(&tensor(|_| 0.0, [1, 1]))
        };
        plan::tiling(&hardware, DType::F32, &pass, 4).each
    });
    assert_eq!(each, [4, 2, 1]);
}

/// The kernel that products try first, where no tile divides the sizes, and where one does.
#[test]
fn products_are_right_whatever_their_sizes() {
    let number = |seed: f32| move |k: usize| (k as f32 * seed).sin();
    for [m, n, k] in [[132, 256, 12], [131, 259, 7], [300, 20, 33]] {
        let (left, right) = (tensor(number(0.7), [m, k]), tensor(number(0.9), [k, n]));
        let (a, b) = (elements(left.clone()), elements(right.clone()));
        let element = |i: usize, j: usize| (0..k).map(|l| a[i * k + l] * b[l * n + j]).sum();
        let expected: Vec<f32> = (0..m * n).map(|at| element(at / n, at % n)).collect();
        let column_by_column = |x: &CubeTensor| {
            let rows = CubeBackend::float_transpose(x.clone());
            CubeBackend::float_transpose(into_contiguous(rows))
        };
        // As in similarities, and in the gradients by either side.
        let ways = [
            (left.clone(), column_by_column(&right)),
            (left.clone(), right.clone()),
            (column_by_column(&left), right.clone()),
        ];
        for (left, right) in ways {
            let out = empty(&left, [m, n], left.dtype);
            let first = &product::strategies([&left, &right], out.dtype)[0];
            product::launch(&first.clone().into(), [&left, &right, &out]).expect("the kernel runs");
            let how = format!("{m} x {n} of {k}, {first}");
            assert_same(&elements(out), &expected, 1e-5, &how);
        }
    }
}
