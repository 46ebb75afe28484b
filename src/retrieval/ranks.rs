//! Ranks and the metrics computed from them.

/// The rank of each query's best positive among its candidates, from 1.
///
/// A rank is one more than the number of negatives at least as similar to the query as its best
/// positive: other positives do not count, and negatives come first in ties. Percentages lie in
/// [0, 100].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranks {
    ranks: Vec<Option<usize>>,
}

impl Ranks {
    /// Ranks from elsewhere; [`None`] for a query without one because of a NaN.
    ///
    /// # Panics
    ///
    /// If `ranks` is empty or holds a 0.
    #[track_caller]
    pub fn new(ranks: Vec<Option<usize>>) -> Self {
        assert!(
            !ranks.is_empty(),
            "Ranks: `ranks` is empty: it needs at least one query"
        );
        assert!(
            !ranks.contains(&Some(0)),
            "Ranks: `ranks` holds a 0: ranks start from 1"
        );
        Self { ranks }
    }

    /// The rank of each query, in the order of the queries; [`None`] if a NaN left it undefined.
    pub fn as_slice(&self) -> &[Option<usize>] {
        &self.ranks
    }

    /// Percentage of queries with a positive among their `k` nearest candidates (R@k); NaN if any
    /// rank is undefined.
    ///
    /// # Panics
    ///
    /// If `k` is 0.
    #[track_caller]
    pub fn recall_at(&self, k: usize) -> f64 {
        assert!(
            k > 0,
            "recall: `k` is 0: it needs at least the nearest candidate"
        );
        match self.defined() {
            Some(ranks) => {
                let hits = ranks.iter().filter(|&&rank| rank <= k).count();
                100.0 * hits as f64 / ranks.len() as f64
            }
            None => f64::NAN,
        }
    }

    /// Median rank; for an even number of queries the mean of the two in the middle. NaN if any
    /// rank is undefined. (The widely copied script of VSE++ rounds that mean down.)
    pub fn median(&self) -> f64 {
        let Some(mut ranks) = self.defined() else {
            return f64::NAN;
        };
        ranks.sort_unstable();
        let upper = ranks.len() / 2;
        let lower = (ranks.len() - 1) / 2;
        (ranks[lower] + ranks[upper]) as f64 / 2.0
    }

    /// Mean rank; NaN if any rank is undefined.
    pub fn mean(&self) -> f64 {
        match self.defined() {
            Some(ranks) => ranks.iter().sum::<usize>() as f64 / ranks.len() as f64,
            None => f64::NAN,
        }
    }

    /// All ranks, if every query has one.
    fn defined(&self) -> Option<Vec<usize>> {
        self.ranks.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hand_worked_ranks() {
        let ranks = Ranks::new([1, 7, 2, 10].map(Some).to_vec());
        assert_eq!(ranks.recall_at(1), 25.0);
        assert_eq!(ranks.recall_at(5), 50.0);
        assert_eq!(ranks.recall_at(7), 75.0);
        assert_eq!(ranks.recall_at(10), 100.0);
        assert_eq!(ranks.median(), 4.5);
        assert_eq!(ranks.mean(), 5.0);
        assert_eq!(Ranks::new([3, 1, 2].map(Some).to_vec()).median(), 2.0);
        assert_eq!(Ranks::new(vec![Some(4)]).median(), 4.0);
    }

    #[test]
    fn one_undefined_rank_makes_every_metric_nan() {
        let ranks = Ranks::new(vec![Some(1), None, Some(1)]);
        assert!(ranks.recall_at(1).is_nan());
        assert!(ranks.median().is_nan());
        assert!(ranks.mean().is_nan());
    }

    #[test]
    #[should_panic(expected = "`k` is 0")]
    fn recall_at_zero_is_refused() {
        Ranks::new(vec![Some(1)]).recall_at(0);
    }

    #[test]
    #[should_panic(expected = "`ranks` is empty")]
    fn no_query_is_refused() {
        Ranks::new(vec![]);
    }
}
