//! l2 normalisation and cosine similarity.

use burn::tensor::{DType, Tensor};
use burn_contrastive::objective::{ReCo, ReCoConfig};
use burn_contrastive::pairwise::{Evaluation, Expr, Pairs, rows};
use burn_contrastive::similarity::{SimilarityConfig, l2_normalize, pairwise_cosine_similarity};

use super::*;
use crate::oracle::{self, Matrix};

on_every_backend! {
    rows_have_norm_one_at_any_magnitude,
    normalized_values_and_gradients_match_the_oracle,
    half_precision_normalizes_zero_small_and_large_rows,
    cosines_match_the_oracle,
    cosine_similarity_refuses_different_widths,
    half_precision_is_compared_beside_its_norms,
    half_precision_within_one_set_is_compared_beside_its_norms,
    half_precision_below_the_least_norm_is_shorter,
    one_side_may_come_without_norms,
}

fn rows_have_norm_one_at_any_magnitude(backend: &Backend) {
    let x = random(5, 7, 1);
    for magnitude in [1e-20, 1e-10, 1.0, 1e10, 1e20] {
        let scaled = Matrix::new(5, 7, x.values.iter().map(|v| v * magnitude).collect());
        let expected: Vec<f64> = (0..5).flat_map(|i| oracle::normalize(x.row(i))).collect();
        let actual = elements(l2_normalize(backend.tensor(&scaled, DType::F32)));
        assert_close(&actual, &expected, 1e-6);
    }
}

fn normalized_values_and_gradients_match_the_oracle(backend: &Backend) {
    let (x, weight) = (random(3, 5, 2), random(3, 5, 3));
    let device = backend.autodiff();
    let tracked = on(&device, &x, DType::F32).require_grad();
    let value = (l2_normalize(tracked.clone()) * on(&device, &weight, DType::F32)).sum();
    let objective = |values: &[f64]| -> f64 {
        let x = Matrix::new(3, 5, values.to_vec());
        (0..3)
            .map(|i| oracle::dot(&oracle::normalize(x.row(i)), weight.row(i)))
            .sum()
    };
    let gradients = value.backward();
    assert_close(&elements(value), &[objective(&x.values)], 1e-6);
    let expected = oracle::gradient(objective, &x.values, 1e-6);
    assert_close(&gradient(&tracked, &gradients), &expected, 1e-5);
}

fn half_precision_normalizes_zero_small_and_large_rows(backend: &Backend) {
    for dtype in backend.half_dtypes() {
        // Squares of 1e-3 vanish in f16, squares of 1e3 overflow.
        let x = Matrix::new(3, 2, vec![0.0, 0.0, 3e-3, 4e-3, -3e3, 4e3]);
        let device = backend.autodiff();
        let x = on(&device, &x, dtype).require_grad();
        let y = l2_normalize(x.clone());
        assert_eq!(y.dtype(), dtype);
        let gradient = elements(
            x.grad(&y.clone().cast(DType::F32).sum().backward())
                .unwrap(),
        );
        assert!(
            gradient.iter().all(|g| g.is_finite()),
            "{dtype:?}: {gradient:?}"
        );
        assert_eq!(gradient[..2], [0.0, 0.0]);
        assert_close(&elements(y), &[0.0, 0.0, 0.6, 0.8, -0.6, 0.8], 1e-2);
    }
}

fn cosines_match_the_oracle(backend: &Backend) {
    let (a, b) = (random(3, 5, 4), random(4, 5, 5));
    let expected: Vec<f64> = (0..3)
        .flat_map(|i| {
            (0..4)
                .map(|j| oracle::cosine(a.row(i), b.row(j)))
                .collect::<Vec<_>>()
        })
        .collect();
    let tensor = |m| backend.tensor(m, DType::F32);
    assert_close(
        &elements(pairwise_cosine_similarity(tensor(&a), tensor(&b))),
        &expected,
        1e-6,
    );
}

fn cosine_similarity_refuses_different_widths(backend: &Backend) {
    let zeros = |shape: [usize; 2]| Tensor::<2>::zeros(shape, &backend.device);
    assert_panics("`a` has width 3, `b` has width 4", || {
        pairwise_cosine_similarity(zeros([2, 3]), zeros([2, 4]));
    });
}

/// Rows of norms that half precision holds, zero among them; NaN in the sixth, if asked.
fn rows_of_any_norm(backend: &Backend, dtype: DType, with_nan: bool, seed: u64) -> Matrix {
    let mut x = random(7, 12, seed);
    let sixth = if with_nan { f64::NAN } else { 1.0 };
    let norms = match dtype {
        DType::BF16 => [1e20, 1.0, 1e-20, 0.0, 3e-4, sixth, 1e15],
        _ => [3e3, 1.0, 3e-3, 0.0, 3e-4, sixth, 7e-2],
    };
    for (row, norm) in x.values.chunks_mut(12).zip(norms) {
        row.iter_mut().for_each(|x| *x *= norm);
    }
    backend.rounded(&x, dtype)
}

/// The sum of `e^{3c}` along each row, and its weighted sum's gradients.
fn sums(pairs: Pairs, excluded: &Expr) -> Tensor<1> {
    let potential = (pairs.similarity() * 3.0).exp();
    let potential = Expr::select(excluded, &Expr::constant(0.0), &potential);
    pairs.reduce(&[rows().sum(&potential)]).remove(0)
}

/// The same of f64 that was normalised first, on the CPU.
fn expected_sums(sides: [&Matrix; 2], excluded: &Expr) -> (Vec<f64>, [Vec<f64>; 2]) {
    let device = Device::flex().autodiff();
    let [a, b] = sides.map(|x| on(&device, x, DType::F64).require_grad());
    let similarity = SimilarityConfig::new();
    let pairs = similarity.pairs(similarity.prepare(a.clone()), similarity.prepare(b.clone()));
    let sums = sums(pairs, excluded);
    let gradients = finite_sum(sums.clone()).backward();
    (elements(sums), [&a, &b].map(|x| gradient(x, &gradients)))
}

/// Of the rows without NaN.
fn finite_sum(x: Tensor<1>) -> Tensor<1> {
    let nan = x.clone().is_nan();
    x.mask_fill(nan, 0.0).sum()
}

/// The indices of NaN among values, and the values without them.
fn without_nan(values: [&[f64]; 2]) -> ([Vec<usize>; 2], [Vec<f64>; 2]) {
    let nan = |x: &[f64]| (0..x.len()).filter(|&i| x[i].is_nan()).collect();
    let others = |x: &[f64]| x.iter().copied().filter(|x| !x.is_nan()).collect();
    (values.map(nan), values.map(others))
}

/// Row by row, whose gradients differ by the orders of magnitude of their norms.
fn assert_rows_close(actual: &[f64], expected: &[f64], tolerance: f64) {
    for (actual, expected) in actual.chunks(12).zip(expected.chunks(12)) {
        if expected.iter().all(|x| !x.is_nan()) {
            assert_close(actual, expected, tolerance);
        }
    }
}

fn half_precision_is_compared_beside_its_norms(backend: &Backend) {
    for dtype in backend.half_dtypes() {
        let device = backend.autodiff();
        let rows_of = |with_nan, seed| rows_of_any_norm(backend, dtype, with_nan, seed);
        let ordinary = backend.rounded(&random(9, 12, 21), dtype);
        // NaN on one side, so that something is left of the sums.
        for (a, b, nan) in [
            (rows_of(true, 20), &ordinary, vec![5]),
            (ordinary.clone(), &rows_of(false, 24), vec![]),
            (rows_of(false, 25), &rows_of(false, 26), vec![]),
        ] {
            let [left, right] = [&a, b].map(|x| on(&device, x, dtype).require_grad());
            let similarity = SimilarityConfig::new();
            let [prepared, others] = [&left, &right].map(|x| similarity.prepare(x.clone()));
            let none = Expr::constant(0.0);
            let actual = sums(similarity.pairs(prepared, others), &none);
            assert_eq!(actual.dtype(), DType::F32);
            let gradients = finite_sum(actual.clone()).backward();
            let (expected, [by_a, by_b]) = expected_sums([&a, b], &none);
            // Products are exact: nothing but f32 is in the values.
            let (found, [actual, expected]) = without_nan([&elements(actual), &expected]);
            assert_eq!(found, [nan.clone(), nan]);
            assert_close(&actual, &expected, 1e-6);
            let ulp = ulp(dtype);
            for (x, own, by) in [(&left, &a, &by_a), (&right, b, &by_b)] {
                // Of small rows of f16 the gradient is beyond its range.
                if dtype == DType::BF16 || own.values == ordinary.values {
                    assert_rows_close(&gradient(x, &gradients), by, ulp);
                }
            }
        }
    }
}

/// What is compared as it is, is not divided by its norm, beside what is.
fn one_side_may_come_without_norms(backend: &Backend) {
    for dtype in backend.half_dtypes() {
        let x = backend.rounded(&Matrix::new(1, 12, vec![0.5; 12]), dtype);
        let x = on(&backend.device, &x, dtype);
        let similarity = SimilarityConfig::new();
        for [a, b] in [
            [x.clone().into(), similarity.prepare(x.clone())],
            [similarity.prepare(x.clone()), x.clone().into()],
        ] {
            let pairs = similarity.pairs(a, b);
            let cosine = pairs.similarity();
            let sum = pairs.reduce(&[rows().sum(&cosine)]).remove(0);
            assert_close(&elements(sum), &[3f64.sqrt()], 1e-6);
        }
    }
}

fn half_precision_within_one_set_is_compared_beside_its_norms(backend: &Backend) {
    for dtype in backend.half_dtypes() {
        let device = backend.autodiff();
        let x = backend.rounded(&random(150, 12, 22), dtype);
        let leaf = on(&device, &x, dtype).require_grad();
        // In several blocks on a device.
        let similarity = SimilarityConfig::new().with_memory_budget(1);
        let pairs = similarity.pairs_within(similarity.prepare(leaf.clone()));
        let actual = sums(pairs, &Expr::diagonal());
        let gradients = actual.clone().sum().backward();
        let (expected, [by_rows, by_columns]) = expected_sums([&x, &x], &Expr::diagonal());
        assert_close(&elements(actual), &expected, 1e-6);
        let both: Vec<f64> = by_rows
            .iter()
            .zip(&by_columns)
            .map(|(a, b)| a + b)
            .collect();
        assert_close(&gradient(&leaf, &gradients), &both, 2.0 * ulp(dtype));
    }
}

fn half_precision_below_the_least_norm_is_shorter(backend: &Backend) {
    for dtype in backend.half_dtypes() {
        // In bf16 also one that is multiplied by a power of two first.
        let small = if dtype == DType::BF16 { 1e-14 } else { 1e-4 };
        let x = [3e-4, 4e-4, 0.6, 0.8, 0.0, 0.0, 3.0 * small, 4.0 * small];
        let (x, text) = (Matrix::new(4, 2, x.to_vec()), random(4, 2, 23));
        let [x, text] = [x, text].map(|x| backend.rounded(&x, dtype));
        let config = ReCoConfig::new().with_epsilon(1e-2);
        let reco = config.init();
        let evaluate = |reco: &ReCo, device: &Device, dtype| {
            let [image, text] = [&x, &text].map(|x| on(device, x, dtype).require_grad());
            let loss = reco.forward(image.clone(), text.clone());
            let gradients = loss.backward();
            let by = [&image, &text].map(|x| gradient(x, &gradients));
            (elements(loss), by)
        };
        let (expected, expected_by) = evaluate(&reco, &Device::flex().autodiff(), DType::F64);
        // The reference normalises, and the others multiply by the norms.
        for evaluation in [Evaluation::Auto, Evaluation::Dense] {
            let similarity = SimilarityConfig::new().with_evaluation(evaluation);
            let reco = config.clone().with_similarity(similarity).init();
            let (loss, by) = evaluate(&reco, &backend.autodiff(), dtype);
            assert_close(&loss, &expected, 1e-6);
            for (actual, expected) in by.iter().zip(&expected_by) {
                assert_close(actual, expected, ulp(dtype));
            }
        }
    }
}
