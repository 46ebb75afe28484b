//! Precision among the nearest candidates, by label.

use std::collections::BTreeMap;

use burn::tensor::Tensor;

use super::cosines::{BLOCK, Cosines};

/// Prec@k in percent, one for each of `ks`: the share of a query's `k` nearest candidates that have
/// its label, averaged over the queries.
///
/// ConVIRT and ReCo score the CheXpert 8×200 retrieval set so (k = 5, 10, 50; queries are images or
/// texts). Queries and candidates are two sets: a query that is also among the candidates finds
/// itself. A candidate of another label that is as similar as one of the query's label counts as
/// nearer; NaN if any embedding holds a NaN or an infinity (see [the module](super)).
///
/// # Shapes
///
/// - `queries`: `[N, D]`, any norm; `query_labels`: N labels
/// - `candidates`: `[M, D]`, any norm, on the same device; `candidate_labels`: M labels
/// - `ks`: each from 1 to M
///
/// # Panics
///
/// If an input is empty or has more than 2²⁴ rows, widths, dtypes or devices differ, or a `k` is
/// out of range.
///
/// # Example
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_contrastive::retrieval::precision_at_k;
///
/// let device = Device::default();
/// let query = Tensor::<2>::from_data([[1.0, 0.0]], &device);
/// let candidates = Tensor::<2>::from_data([[0.9, 0.1], [0.8, 0.2], [0.0, 1.0]], &device);
/// let precision = precision_at_k(query, &[7], candidates, &[7, 3, 7], &[1, 2]);
/// assert_eq!(precision, [100.0, 50.0]);
/// ```
#[track_caller]
pub fn precision_at_k(
    queries: Tensor<2>,
    query_labels: &[usize],
    candidates: Tensor<2>,
    candidate_labels: &[usize],
    ks: &[usize],
) -> Vec<f64> {
    let name = "precision_at_k";
    let sides = (("queries", queries), ("candidates", candidates));
    let mut cosines = Cosines::new(name, sides.0, sides.1);
    let [query_count, _] = cosines.dims();
    check(name, cosines.dims(), query_labels, candidate_labels, ks);
    let Some(&deepest) = ks.iter().max() else {
        return Vec::new();
    };
    if !cosines.all_finite() {
        return vec![f64::NAN; ks.len()];
    }
    let (query_labels, candidate_labels) = indices_of_labels(query_labels, candidate_labels);
    let is_same = cosines.same_label(&query_labels, &candidate_labels);
    let (pairs, cosine) = (&cosines.pairs, cosines.pairs.similarity());
    let mut found = vec![0; ks.len()];
    for (queries, spans) in cosines.blocks(BLOCK) {
        let [mut same, mut other] = [None, None];
        for candidates in spans {
            let block = pairs.block(&cosine, queries.clone(), candidates.clone());
            let is_same = pairs.block(&is_same, queries.clone(), candidates);
            let is_same = is_same.greater_elem(0.5);
            let is_other = is_same.clone().bool_not();
            let only_same = block.clone().mask_fill(is_other, f32::NEG_INFINITY);
            keep_nearest(&mut same, only_same, deepest);
            let only_other = block.mask_fill(is_same, f32::NEG_INFINITY);
            keep_nearest(&mut other, only_other, deepest);
        }
        let [same, other] = [same, other].map(|kept| rows_of(kept, queries.len()));
        for (same, other) in same.iter().zip(&other) {
            for (found, &k) in found.iter_mut().zip(ks) {
                *found += matches_within(same, other, k, cosines.tie);
            }
        }
    }
    percent(found, ks, query_count)
}

/// The mean Prec@k in percent of candidates in a random order, the same for every k: the share of
/// the candidates that have a query's label, averaged over the queries.
///
/// # Panics
///
/// If there are no queries or no candidates.
///
/// # Example
///
/// ```
/// use burn_contrastive::retrieval::precision_by_chance;
///
/// // Two of four candidates have the first query's label, one has the second's.
/// assert_eq!(precision_by_chance(&[7, 3], &[7, 3, 7, 1]), 37.5);
/// ```
#[track_caller]
pub fn precision_by_chance(query_labels: &[usize], candidate_labels: &[usize]) -> f64 {
    for (field, labels) in [
        ("query_labels", query_labels),
        ("candidate_labels", candidate_labels),
    ] {
        assert!(
            !labels.is_empty(),
            "precision_by_chance: `{field}` is empty: it needs at least one label"
        );
    }
    let mut counts = BTreeMap::new();
    for label in candidate_labels {
        *counts.entry(label).or_insert(0usize) += 1;
    }
    let own = query_labels.iter().filter_map(|label| counts.get(label));
    let pairs = (query_labels.len() * candidate_labels.len()) as f64;
    100.0 * own.sum::<usize>() as f64 / pairs
}

/// Checks the labels of queries and candidates, and the depths.
#[track_caller]
pub(super) fn check(
    name: &str,
    [query_count, candidate_count]: [usize; 2],
    query_labels: &[usize],
    candidate_labels: &[usize],
    ks: &[usize],
) {
    for (field, labels, count) in [
        ("query_labels", query_labels, query_count),
        ("candidate_labels", candidate_labels, candidate_count),
    ] {
        assert!(
            labels.len() == count,
            "{name}: `{field}` has {} labels: it needs {count}, one for each embedding",
            labels.len()
        );
    }
    for &k in ks {
        assert!(
            (1..=candidate_count).contains(&k),
            "{name}: `ks` holds {k}: each must lie in [1, {candidate_count}], \
             the number of candidates"
        );
    }
}

/// Prec@k in percent from the matches found by `queries` queries within each of `ks`.
pub(super) fn percent(found: Vec<usize>, ks: &[usize], queries: usize) -> Vec<f64> {
    let percent = |(found, &k): (usize, &usize)| 100.0 * found as f64 / (k * queries) as f64;
    found.into_iter().zip(ks).map(percent).collect()
}

/// How many of the `k` nearest candidates have the query's label. `same` are the similarities of
/// the nearest that have it, `other` those of the nearest that do not, in descending order.
///
/// Before the n-th match come n − 1 matches and every non-match that is not less similar.
pub(super) fn matches_within(same: &[f64], other: &[f64], k: usize, tie: f64) -> usize {
    same.iter()
        .take(k)
        .take_while(|similarity| similarity.is_finite())
        .enumerate()
        .take_while(|(nth, similarity)| {
            let ahead = other.partition_point(|other| *other >= *similarity - tie);
            nth + 1 + ahead <= k
        })
        .count()
}

/// Keeps each row's `k` largest values of those kept so far and of `block`.
fn keep_nearest(kept: &mut Option<Tensor<2>>, block: Tensor<2>, k: usize) {
    let all = match kept.take() {
        Some(kept) => Tensor::cat(vec![kept, block], 1),
        None => block,
    };
    let k = k.min(all.dims()[1]);
    *kept = Some(all.topk(k, 1));
}

/// The rows of the kept values, on the host and in descending order.
fn rows_of(kept: Option<Tensor<2>>, count: usize) -> Vec<Vec<f64>> {
    let data = kept.expect("at least one block of candidates").into_data();
    let width = data.num_elements() / count;
    let mut values: Vec<f64> = data.iter::<f64>().collect();
    let descending = |row: &mut [f64]| {
        row.sort_unstable_by(|a, b| b.total_cmp(a));
        row.to_vec()
    };
    values.chunks_mut(width).map(descending).collect()
}

/// The index of each label among the distinct labels, which f32 holds exactly.
fn indices_of_labels(queries: &[usize], candidates: &[usize]) -> (Vec<usize>, Vec<usize>) {
    let mut distinct: Vec<usize> = queries.iter().chain(candidates).copied().collect();
    distinct.sort_unstable();
    distinct.dedup();
    let index = |labels: &[usize]| {
        labels
            .iter()
            .map(|label| distinct.partition_point(|other| other < label))
            .collect()
    };
    (index(queries), index(candidates))
}

#[cfg(test)]
mod tests {
    use super::matches_within;

    #[test]
    fn non_matches_that_tie_come_first() {
        let none = f64::NEG_INFINITY;
        assert_eq!(matches_within(&[0.9, 0.5], &[0.7, 0.1], 1, 0.0), 1);
        assert_eq!(matches_within(&[0.9, 0.5], &[0.7, 0.1], 2, 0.0), 1);
        assert_eq!(matches_within(&[0.9, 0.5], &[0.7, 0.1], 3, 0.0), 2);
        assert_eq!(matches_within(&[0.9, none], &[0.9, 0.1], 1, 0.0), 0);
        assert_eq!(matches_within(&[0.9, none], &[0.9, 0.1], 2, 0.0), 1);
        assert_eq!(matches_within(&[0.9, 0.9], &[0.9 - 1e-9, 0.1], 2, 1e-6), 1);
        assert_eq!(matches_within(&[none], &[0.3], 1, 0.0), 0);
    }
}
