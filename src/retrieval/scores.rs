//! Rankings by scores from elsewhere, such as the mean of two models' similarities.

use burn::tensor::Tensor;

use super::precision::{self, matches_within};
use super::shortlist::Nearest;
use super::{Ranks, Shortlist};

/// The score of every candidate for every query, greater for nearer ones.
///
/// The functions of [the module](super) that take embeddings never hold all pairs. This is for
/// scores that exist: those of an ensemble, of late interaction, or of an encoder of pairs. Ties
/// never help: a candidate that does not match and whose score differs by no more than
/// [`tie`](Self::with_tie) comes first. A query for which any score is a NaN or an infinity has no
/// rank, and its metrics are NaN.
///
/// # Example
///
/// ```
/// use burn_contrastive::retrieval::Scores;
///
/// // Two queries, three candidates.
/// let scores = Scores::new(vec![0.9, 0.5, 0.1, 0.2, 0.8, 0.8], 3);
/// let ranks = scores.ranks(|query, candidate| candidate == query + 1);
/// assert_eq!(ranks.as_slice(), [Some(2), Some(2)]);
/// assert_eq!(scores.shortlist(2).candidates(1), [1, 2]);
/// assert_eq!(scores.precision_at_k(&[0, 1], &[0, 0, 1], &[1, 2]), [50.0, 75.0]);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    candidates: usize,
    values: Vec<f64>,
    tie: f64,
}

impl Scores {
    /// Scores query by query, `candidates` of each.
    ///
    /// # Panics
    ///
    /// If there are none, or not `candidates` of each query.
    #[track_caller]
    pub fn new(values: Vec<f64>, candidates: usize) -> Self {
        assert!(
            candidates > 0 && !values.is_empty() && values.len().is_multiple_of(candidates),
            "Scores: `values` has {} scores: it needs a multiple of `candidates`, {candidates}",
            values.len()
        );
        Self {
            candidates,
            values,
            tie: 0.0,
        }
    }

    /// Scores `[queries, candidates]`, read from the device.
    ///
    /// # Panics
    ///
    /// If there are none.
    #[track_caller]
    pub fn from_tensor(scores: Tensor<2>) -> Self {
        let [_, candidates] = scores.dims();
        let values = scores.without_autodiff().into_data();
        Self::new(values.iter::<f64>().collect(), candidates)
    }

    /// Scores that differ by no more than `tie` are equal; 0 unless said. For cosines that were
    /// computed elsewhere, [the module](super) says what covers their rounding.
    ///
    /// # Panics
    ///
    /// If `tie` is negative or not finite.
    #[must_use]
    #[track_caller]
    pub fn with_tie(self, tie: f64) -> Self {
        assert!(
            tie >= 0.0 && tie.is_finite(),
            "Scores: `tie` is {tie}: it must be finite and at least 0"
        );
        Self { tie, ..self }
    }

    /// The number of queries.
    pub fn queries(&self) -> usize {
        self.values.len() / self.candidates
    }

    /// The number of candidates.
    pub fn candidates(&self) -> usize {
        self.candidates
    }

    /// The scores of each query.
    fn rows(&self) -> impl Iterator<Item = &[f64]> {
        self.values.chunks(self.candidates)
    }

    /// The rank of each query's best match; `is_match` says whether a query, the first argument,
    /// and a candidate belong together.
    ///
    /// # Panics
    ///
    /// If a query matches no candidate.
    #[track_caller]
    pub fn ranks(&self, is_match: impl Fn(usize, usize) -> bool) -> Ranks {
        let mut ranks = Vec::with_capacity(self.queries());
        for (query, row) in self.rows().enumerate() {
            let own = |&(candidate, _): &(usize, &f64)| is_match(query, candidate);
            let (own, others): (Vec<_>, Vec<_>) = row.iter().enumerate().partition(own);
            assert!(
                !own.is_empty(),
                "Scores: `is_match` gives query {query} no match: every query needs one"
            );
            let best = own
                .into_iter()
                .fold(f64::NEG_INFINITY, |best, (_, &score)| best.max(score));
            let ahead = others
                .into_iter()
                .filter(|(_, score)| **score >= best - self.tie);
            let defined = row.iter().all(|score| score.is_finite());
            ranks.push(defined.then(|| 1 + ahead.count()));
        }
        Ranks::new(ranks)
    }

    /// The `k` candidates with the greatest scores for each query, or all, as
    /// [`Shortlist::new`] lists them by cosine: of equal ones those with the lowest indices. A
    /// score that is a NaN or an infinity stands behind all others.
    ///
    /// # Panics
    ///
    /// If `k` is 0.
    #[track_caller]
    pub fn shortlist(&self, k: usize) -> Shortlist {
        assert!(
            k > 0,
            "Scores: `k` is 0: it needs at least the nearest candidate"
        );
        let k = k.min(self.candidates);
        let defined = self.rows().map(|row| row.iter().all(|s| s.is_finite()));
        let mut list = Shortlist::empty(k, defined.collect());
        for row in self.rows() {
            let mut nearest = Nearest::default();
            for (candidate, &score) in row.iter().enumerate() {
                let score = if score.is_finite() {
                    score
                } else {
                    f64::NEG_INFINITY
                };
                nearest.offer(candidate, score, k, self.tie);
            }
            list.push(nearest, self.tie);
        }
        list
    }

    /// Prec@k in percent, one for each of `ks`, as [`precision_at_k`](super::precision_at_k()) of
    /// embeddings.
    ///
    /// # Panics
    ///
    /// If the number of labels is another than that of queries or candidates, or a `k` is not in
    /// [1, candidates].
    #[track_caller]
    pub fn precision_at_k(
        &self,
        query_labels: &[usize],
        candidate_labels: &[usize],
        ks: &[usize],
    ) -> Vec<f64> {
        let dims = [self.queries(), self.candidates];
        precision::check("Scores", dims, query_labels, candidate_labels, ks);
        if !self.values.iter().all(|score| score.is_finite()) {
            return vec![f64::NAN; ks.len()];
        }
        let mut found = vec![0; ks.len()];
        for (row, label) in self.rows().zip(query_labels) {
            let labelled = row.iter().zip(candidate_labels);
            let (same, other): (Vec<_>, Vec<_>) = labelled.partition(|(_, other)| *other == label);
            let [same, other] = [same, other].map(descending);
            for (found, &k) in found.iter_mut().zip(ks) {
                *found += matches_within(&same, &other, k, self.tie);
            }
        }
        precision::percent(found, ks, dims[0])
    }
}

fn descending(labelled: Vec<(&f64, &usize)>) -> Vec<f64> {
    let mut scores: Vec<f64> = labelled.into_iter().map(|(score, _)| *score).collect();
    scores.sort_unstable_by(|a, b| b.total_cmp(a));
    scores
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_never_help() {
        let scores = Scores::new(vec![1.0; 12], 4);
        let ranks = scores.ranks(|query, candidate| query == candidate);
        assert_eq!(ranks.as_slice(), [Some(4); 3]);
        assert_eq!(scores.precision_at_k(&[0; 3], &[0, 1, 1, 1], &[3]), [0.0]);
        let near = Scores::new(vec![0.5, 0.5 - 1e-9], 2);
        let first = |_, candidate| candidate == 0;
        assert_eq!(near.ranks(first).as_slice(), [Some(1)]);
        assert_eq!(near.with_tie(1e-6).ranks(first).as_slice(), [Some(2)]);
    }

    #[test]
    fn what_is_not_finite_has_no_rank() {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let scores = Scores::new(vec![0.5, bad, 0.2, 0.1], 2);
            let ranks = scores.ranks(|query, candidate| query == candidate);
            assert_eq!(ranks.as_slice(), [None, Some(2)]);
            assert!(scores.precision_at_k(&[0, 1], &[0, 1], &[1])[0].is_nan());
            let list = scores.shortlist(2);
            assert_eq!(list.candidates(0), [0, 1]);
            assert!(list.similarities(0)[1].is_nan());
            let before = Ranks::new(vec![Some(1), Some(2)]);
            let after = list.reranked(&[0.0, 1.0, 0.0, 1.0], |q, c| q == c, &before);
            assert_eq!(after.as_slice(), [None, Some(1)]);
        }
    }

    #[test]
    #[should_panic(expected = "gives query 1 no match")]
    fn a_query_without_a_match_is_refused() {
        Scores::new(vec![1.0; 4], 2).ranks(|query, _| query == 0);
    }

    #[test]
    #[should_panic(expected = "`values` has 5 scores")]
    fn rows_of_different_lengths_are_refused() {
        Scores::new(vec![1.0; 5], 2);
    }

    #[test]
    #[should_panic(expected = "`query_labels` has 1 labels: it needs 2")]
    fn labels_must_be_as_many_as_queries() {
        Scores::new(vec![1.0; 4], 2).precision_at_k(&[0], &[0, 1], &[1]);
    }
}
