//! l2 normalisation and cosine similarity.

use burn::tensor::{DType, Tensor};
use burn_contrastive::similarity::{l2_normalize, pairwise_cosine_similarity};

use super::{Backend, assert_close, numbers, on, random};
use crate::oracle::{self, Matrix};

pub fn rows_have_norm_one_whatever_their_size(backend: &Backend) {
    let x = random(5, 7, 1);
    for magnitude in [1e-20, 1e-10, 1.0, 1e10, 1e20] {
        let scaled = Matrix::new(5, 7, x.values.iter().map(|v| v * magnitude).collect());
        let expected: Vec<f64> = (0..5).flat_map(|i| oracle::normalize(x.row(i))).collect();
        let actual = numbers(l2_normalize(backend.tensor(&scaled, DType::F32)));
        assert_close(&actual, &expected, 1e-6);
    }
}

pub fn normalisation_matches_the_oracle_in_value_and_gradient(backend: &Backend) {
    let (x, weight) = (random(3, 5, 2), random(3, 5, 3));
    let device = backend.device.clone().autodiff();
    let tracked = on(&device, &x, DType::F32).require_grad();
    let value = (l2_normalize(tracked.clone()) * on(&device, &weight, DType::F32)).sum();
    let objective = |values: &[f64]| -> f64 {
        let x = Matrix::new(3, 5, values.to_vec());
        (0..3)
            .map(|i| oracle::dot(&oracle::normalize(x.row(i)), weight.row(i)))
            .sum()
    };
    let gradients = value.backward();
    assert_close(&numbers(value), &[objective(&x.values)], 1e-6);
    let expected = oracle::gradient(objective, &x.values, 1e-6);
    assert_close(&numbers(tracked.grad(&gradients).unwrap()), &expected, 1e-5);
}

pub fn half_precision_normalises_zero_and_small_rows(backend: &Backend) {
    for dtype in backend.half_dtypes() {
        // Squares of 1e-3 vanish in f16, squares of 1e3 overflow.
        let x = Matrix::new(3, 2, vec![0.0, 0.0, 3e-3, 4e-3, -3e3, 4e3]);
        let device = backend.device.clone().autodiff();
        let x = on(&device, &x, dtype).require_grad();
        let y = l2_normalize(x.clone());
        assert_eq!(y.dtype(), dtype);
        let gradient = numbers(
            x.grad(&y.clone().cast(DType::F32).sum().backward())
                .unwrap(),
        );
        assert!(
            gradient.iter().all(|g| g.is_finite()),
            "{dtype:?}: {gradient:?}"
        );
        assert_eq!(gradient[..2], [0.0, 0.0]);
        assert_close(&numbers(y), &[0.0, 0.0, 0.6, 0.8, -0.6, 0.8], 1e-2);
    }
}

pub fn cosines_match_the_oracle(backend: &Backend) {
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
        &numbers(pairwise_cosine_similarity(tensor(&a), tensor(&b))),
        &expected,
        1e-6,
    );
}

pub fn cosine_refuses_rows_of_different_width(backend: &Backend) {
    let zeros = |shape: [usize; 2]| Tensor::<2>::zeros(shape, &backend.device);
    super::info_nce::assert_panics("`a` has width 3, `b` has width 4", || {
        pairwise_cosine_similarity(zeros([2, 3]), zeros([2, 4]));
    });
}
