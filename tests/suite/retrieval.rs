//! Retrieval on a device: the device's part (products, blocks, counting) against hand-worked cases.
//! What needs no device is in `tests/retrieval.rs`.

use burn::tensor::DType;
use burn_contrastive::retrieval::{cross_modal, precision_at_k, similarity_histogram};

use super::*;
use crate::oracle::{self, Matrix};

on_every_backend! {
    ranks_match_naive_loops,
    equal_embeddings_have_zero_recall,
    a_nan_row_has_no_rank,
    precision_and_histogram_match_values_worked_by_hand,
}

/// Rank of each query's best positive: one more than the negatives at least as similar.
fn ranks(
    queries: &Matrix,
    candidates: &Matrix,
    positive: impl Fn(usize, usize) -> bool,
) -> Vec<Option<usize>> {
    (0..queries.rows)
        .map(|i| {
            let cosine = |j| oracle::cosine(queries.row(i), candidates.row(j));
            let (own, others): (Vec<usize>, Vec<usize>) =
                (0..candidates.rows).partition(|&j| positive(i, j));
            let best = own
                .into_iter()
                .map(cosine)
                .fold(f64::NEG_INFINITY, f64::max);
            Some(1 + others.into_iter().filter(|&j| cosine(j) >= best).count())
        })
        .collect()
}

fn ranks_match_naive_loops(backend: &Backend) {
    let image_of_text = [0, 0, 1, 2, 2, 2, 3, 4];
    let (images, texts) = (random(5, 6, 50), random(8, 6, 51));
    let tensor = |m| backend.tensor(m, DType::F32);
    let found = cross_modal(tensor(&images), tensor(&texts), &image_of_text);
    let expected = ranks(&images, &texts, |i, j| image_of_text[j] == i);
    assert_eq!(found.image_to_text.as_slice(), expected);
    let expected = ranks(&texts, &images, |i, j| image_of_text[i] == j);
    assert_eq!(found.text_to_image.as_slice(), expected);
}

fn equal_embeddings_have_zero_recall(backend: &Backend) {
    let x = equal_rows(20, 7, 52);
    let x = || backend.tensor(&x, DType::F32);
    let owners: Vec<_> = (0..20).collect();
    let metrics = cross_modal(x(), x(), &owners).metrics();
    assert_eq!(
        (
            metrics.image_to_text.recall_at_1,
            metrics.text_to_image.recall_at_10
        ),
        (0.0, 0.0)
    );
}

fn a_nan_row_has_no_rank(backend: &Backend) {
    let mut images = random(3, 4, 53);
    let texts = backend.tensor(&images, DType::F32);
    images.values[1] = f64::NAN;
    let found = cross_modal(backend.tensor(&images, DType::F32), texts, &[0, 1, 2]);
    assert_eq!(found.image_to_text.as_slice(), [None, Some(1), Some(1)]);
    assert!(found.metrics().recall_sum.is_nan());
}

fn precision_and_histogram_match_values_worked_by_hand(backend: &Backend) {
    let x = Matrix::new(4, 2, vec![1.0, 0.0, 0.9, 0.1, 0.0, 1.0, -1.0, 0.0]);
    let x = || backend.tensor(&x, DType::F32);
    let query = x().slice([0..1, 0..2]);
    // By similarity to the first row: itself, the second, the third, the fourth.
    assert_eq!(
        precision_at_k(query, &[7], x(), &[7, 7, 1, 7], &[1, 2, 4]),
        [100.0, 100.0, 75.0]
    );

    let histogram = similarity_histogram(x(), x(), &[0, 1, 2, 3], 4);
    assert_eq!(histogram.positive_counts, [0, 0, 0, 4]);
    assert_eq!(histogram.negative_counts.iter().sum::<u64>(), 12);
    assert!((histogram.positive.mean - 1.0).abs() < 1e-6);
}
