//! Retrieval on a device: the device's part (products, blocks, counting) against hand-worked cases.
//! What needs no device is in `tests/retrieval.rs`.

use burn::tensor::DType;
use burn_contrastive::retrieval::{
    Ranks, Shortlist, cross_modal, precision_at_k, similarity_histogram,
};

use super::*;
use crate::oracle::{self, Matrix};

on_every_backend! {
    ranks_match_naive_loops,
    equal_embeddings_have_zero_recall,
    a_nan_row_has_no_rank,
    precision_and_histogram_match_values_worked_by_hand,
    shortlists_match_naive_loops,
    what_is_nan_is_listed_last_and_has_no_rank,
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

fn shortlists_match_naive_loops(backend: &Backend) {
    let (images, mut texts) = (random(5, 6, 54), random(9, 6, 55));
    // The second half repeats the first.
    texts = Matrix::new(18, 6, texts.values.repeat(2));
    let image_of_text: Vec<usize> = (0..18).map(|text| (3 * text + text / 9) % 5).collect();
    let is_match = |image: usize, text: usize| image_of_text[text] == image;
    for dtype in [&[DType::F32], backend.dtypes.as_slice()].concat() {
        let tensor = |m| backend.tensor(m, dtype);
        let [images, texts] = [&images, &texts].map(|m| backend.rounded(m, dtype));
        let before = cross_modal(tensor(&images), tensor(&texts), &image_of_text).image_to_text;
        for k in [1, 4, 18, 30] {
            let list = Shortlist::new(tensor(&images), tensor(&texts), k);
            assert_eq!((list.queries(), list.k()), (5, k.min(18)));
            for image in 0..5 {
                let cosine = |text: usize| oracle::cosine(images.row(image), texts.row(text));
                let mut order: Vec<usize> = (0..18).collect();
                order.sort_by(|&a, &b| cosine(b).total_cmp(&cosine(a)));
                order.truncate(k);
                assert_eq!(list.candidates(image), order, "{k} of {image}, {dtype:?}");
                let expected: Vec<f64> = order.into_iter().map(cosine).collect();
                assert_close(list.similarities(image), &expected, 1e-6);
            }
            let scores: Vec<f64> = (0..5).flat_map(|i| list.similarities(i).to_vec()).collect();
            assert_eq!(list.reranked(&scores, is_match, &before), before, "{k}");
        }
    }
}

fn what_is_nan_is_listed_last_and_has_no_rank(backend: &Backend) {
    let clean = random(3, 4, 56);
    let mut broken = clean.clone();
    broken.values[5] = f64::NAN;
    let [clean, broken] = [&clean, &broken].map(|m| backend.tensor(m, DType::F32));
    let before = Ranks::new(vec![Some(1); 3]);
    let rerank = |list: &Shortlist| list.reranked(&[1.0; 9], |a, b| a == b, &before);

    let list = Shortlist::new(broken.clone(), clean.clone(), 3);
    assert_eq!(rerank(&list).as_slice(), [Some(3), None, Some(3)]);
    assert_eq!(list.candidates(1), [0, 1, 2]);
    assert!(list.similarities(1).iter().all(|one| one.is_nan()));
    assert!(list.similarities(0).iter().all(|one| one.is_finite()));

    let list = Shortlist::new(clean, broken, 3);
    assert_eq!(rerank(&list).as_slice(), [None; 3]);
    for query in 0..3 {
        assert_eq!(list.candidates(query)[2], 1);
        assert!(list.similarities(query)[2].is_nan());
        assert!(
            list.similarities(query)[..2]
                .iter()
                .all(|one| one.is_finite())
        );
    }
}
