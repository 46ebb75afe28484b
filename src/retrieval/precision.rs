//! Precision among the nearest candidates, by label.

use burn::tensor::Tensor;

use super::blocks::{Blocks, Cosines};

/// Prec@k in percent, one for each of `ks`: the share of a query's `k` nearest candidates that carry its label, averaged over
/// the queries.
///
/// This is how ConVIRT and ReCo score the CheXpert 8×200 retrieval set (k = 5, 10, 50; queries are images or texts). Queries and
/// candidates are two sets: a query that is also among the candidates finds itself. A candidate of another label that is as
/// similar as one of the query's label counts as nearer; NaN where any embedding holds a NaN or an infinity (see
/// [the module](super)).
///
/// # Shapes
/// - `queries`: `[N, D]`, any norm; `query_labels`: N labels
/// - `candidates`: `[M, D]`, any norm, on the same device; `candidate_labels`: M labels
/// - `ks`: each from 1 to M
///
/// # Panics
/// On empty inputs, shapes or devices that differ, or a `k` out of range.
///
/// # Example
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
    Blocks::default().precision_at_k(queries, query_labels, candidates, candidate_labels, ks)
}

impl Blocks {
    /// [`precision_at_k`] with blocks of this shape, queries as rows.
    ///
    /// # Panics
    /// As [`precision_at_k`].
    #[track_caller]
    pub fn precision_at_k(
        &self,
        queries: Tensor<2>,
        query_labels: &[usize],
        candidates: Tensor<2>,
        candidate_labels: &[usize],
        ks: &[usize],
    ) -> Vec<f64> {
        let cosines = Cosines::new(("queries", queries), ("candidates", candidates));
        let [query_count, candidate_count] = cosines.dims();
        for (name, labels, count) in [
            ("query_labels", query_labels, query_count),
            ("candidate_labels", candidate_labels, candidate_count),
        ] {
            assert_eq!(
                labels.len(),
                count,
                "{name}: need {count} labels, got {}",
                labels.len()
            );
        }
        for &k in ks {
            assert!(
                (1..=candidate_count).contains(&k),
                "ks: need each k from 1 to the number of candidates, {candidate_count}, got {k}"
            );
        }
        let Some(&deepest) = ks.iter().max() else {
            return Vec::new();
        };
        if !cosines.all_finite() {
            return vec![f64::NAN; ks.len()];
        }

        let (query_labels, candidate_labels) = index_labels(query_labels, candidate_labels);
        let query_labels = cosines.int_column(query_labels);
        let candidate_labels = cosines.int_column(candidate_labels).transpose();
        let mut found = vec![0; ks.len()];
        for queries in self.row_spans(query_count) {
            let labels = query_labels.clone().narrow(0, queries.start, queries.len());
            let mut same: Option<Tensor<2>> = None;
            let mut other: Option<Tensor<2>> = None;
            for candidates in self.column_spans(candidate_count) {
                let block = cosines.block(&queries, &candidates);
                let is_same = labels.clone().equal(candidate_labels.clone().narrow(
                    1,
                    candidates.start,
                    candidates.len(),
                ));
                let only_same = block
                    .clone()
                    .mask_fill(is_same.clone().bool_not(), f32::NEG_INFINITY);
                keep_nearest(&mut same, only_same, deepest);
                keep_nearest(
                    &mut other,
                    block.mask_fill(is_same, f32::NEG_INFINITY),
                    deepest,
                );
            }
            let same = rows_of(same, queries.len());
            let other = rows_of(other, queries.len());
            for (same, other) in same.iter().zip(&other) {
                for (found, &k) in found.iter_mut().zip(ks) {
                    *found += matches_within(same, other, k, cosines.tie);
                }
            }
        }
        let percent =
            |(found, &k): (usize, &usize)| 100.0 * found as f64 / (k * query_count) as f64;
        found.into_iter().zip(ks).map(percent).collect()
    }
}

/// How many of the `k` nearest carry the query's label, from both kinds' nearest in descending order.
///
/// The n-th match has n − 1 matches before it and every non-match that is not less similar.
fn matches_within(same: &[f64], other: &[f64], k: usize, tie: f64) -> usize {
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

/// Keep each row's `k` greatest of those kept so far and of `block`.
fn keep_nearest(kept: &mut Option<Tensor<2>>, block: Tensor<2>, k: usize) {
    let all = match kept.take() {
        Some(kept) => Tensor::cat(vec![kept, block], 1),
        None => block,
    };
    let k = k.min(all.dims()[1]);
    *kept = Some(all.topk(k, 1));
}

/// The rows of a kept block, on the host and in descending order.
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

/// Labels as small numbers that fit any device's integers, equal where the labels are.
fn index_labels(queries: &[usize], candidates: &[usize]) -> (Vec<usize>, Vec<usize>) {
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
