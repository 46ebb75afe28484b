//! How well scores tell examples that have a label from those that do not.

use serde::{Deserialize, Serialize};

/// Area under the ROC curve: the chance that an example that has the label scores higher than one
/// that has not, in [0, 1]; equal scores count half. `None` unless there are both kinds.
///
/// An example whose label is `None`, unknown, is left out. NaN if the score of any other is NaN;
/// infinite scores are greater or less than all finite ones. Computed from the ranks of the scores
/// (Mann and Whitney, 1947), in O(N log N).
///
/// # Panics
///
/// If there are not as many labels as scores.
///
/// # Example
///
/// ```
/// use burn_contrastive::retrieval::auc;
///
/// let has = [false, true, false, true].map(Some);
/// assert_eq!(auc(&[0.1, 0.4, 0.35, 0.8], &has), Some(1.0));
/// assert_eq!(auc(&[0.5; 4], &has), Some(0.5));
/// assert_eq!(auc(&[0.5; 4], &[Some(true); 4]), None);
/// ```
#[track_caller]
pub fn auc(scores: &[f64], labels: &[Option<bool>]) -> Option<f64> {
    assert!(
        scores.len() == labels.len(),
        "auc: `labels` has {} labels: it needs {}, one for each score",
        labels.len(),
        scores.len()
    );
    let known = scores.iter().zip(labels);
    of(known
        .filter_map(|(&score, &label)| Some((score, label?)))
        .collect())
}

fn of(mut known: Vec<(f64, bool)>) -> Option<f64> {
    let positives = known.iter().filter(|(_, has)| *has).count();
    let negatives = known.len() - positives;
    if positives == 0 || negatives == 0 {
        return None;
    }
    if known.iter().any(|(score, _)| score.is_nan()) {
        return Some(f64::NAN);
    }
    known.sort_unstable_by(|(a, _), (b, _)| a.total_cmp(b));
    // Twice the number of pairs in which the one with the label is above, ties counted once.
    let (mut twice, mut below) = (0u128, 0);
    // Compared as numbers: −0 and 0 are equal.
    for equal in known.chunk_by(|(a, _), (b, _)| a == b) {
        let own = equal.iter().filter(|(_, has)| *has).count();
        let others = equal.len() - own;
        twice += own as u128 * (2 * below + others) as u128;
        below += others;
    }
    Some(twice as f64 / (2.0 * positives as f64 * negatives as f64))
}

/// Areas under the ROC curves of several labels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MultiLabelAuc {
    /// The area of each class; `None` for a class whose known labels are all of one kind.
    pub by_class: Vec<Option<f64>>,
}

impl MultiLabelAuc {
    /// The areas of `classes` classes.
    ///
    /// # Shapes
    ///
    /// - `scores`: N·C values, example by example, greater where the label is more likely
    /// - `labels`: N·C labels in the same order; `None` where it is unknown
    ///
    /// # Panics
    ///
    /// If `classes` is 0, or there are not as many labels as scores, for whole examples.
    ///
    /// # Example
    ///
    /// ```
    /// use burn_contrastive::retrieval::MultiLabelAuc;
    ///
    /// // Three examples, two classes; of the second all examples are.
    /// let labels = [true, true, false, true, false, true].map(Some);
    /// let found = MultiLabelAuc::new(&[0.9, 0.1, 0.3, 0.2, 0.9, 0.4], &labels, 2);
    /// assert_eq!(found.by_class, [Some(0.75), None]);
    /// assert_eq!(found.mean(), Some(0.75));
    /// ```
    #[track_caller]
    pub fn new(scores: &[f64], labels: &[Option<bool>], classes: usize) -> Self {
        assert!(
            classes > 0 && scores.len().is_multiple_of(classes),
            "MultiLabelAuc: `scores` has {} scores: it needs a multiple of `classes`, {classes}",
            scores.len()
        );
        assert!(
            scores.len() == labels.len(),
            "MultiLabelAuc: `labels` has {} labels: it needs {}, one for each score",
            labels.len(),
            scores.len()
        );
        let of_class = |class: usize| {
            let places = (class..scores.len()).step_by(classes);
            of(places
                .filter_map(|place| Some((scores[place], labels[place]?)))
                .collect())
        };
        Self {
            by_class: (0..classes).map(of_class).collect(),
        }
    }

    /// The mean over the classes that have an area; `None` if none has, NaN if one is NaN.
    pub fn mean(&self) -> Option<f64> {
        let areas: Vec<f64> = self.by_class.iter().copied().flatten().collect();
        (!areas.is_empty()).then(|| areas.iter().sum::<f64>() / areas.len() as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_labels_are_left_out() {
        let labels = [Some(true), None, Some(false)];
        assert_eq!(auc(&[0.9, f64::NAN, 0.1], &labels), Some(1.0));
        assert_eq!(auc(&[0.9, 0.5, 0.1], &[None; 3]), None);
        assert_eq!(auc(&[], &[]), None);
    }

    #[test]
    fn nan_in_nan_out_and_infinities_are_numbers() {
        let labels = [Some(true), Some(false)];
        assert!(auc(&[f64::NAN, 0.0], &labels).unwrap().is_nan());
        assert_eq!(auc(&[f64::INFINITY, 1e300], &labels), Some(1.0));
        assert_eq!(auc(&[f64::NEG_INFINITY; 2], &labels), Some(0.5));
        assert_eq!(auc(&[-0.0, 0.0], &labels), Some(0.5));
    }

    #[test]
    fn a_mean_over_no_class_is_none() {
        let found = MultiLabelAuc::new(&[0.5, 0.4], &[Some(true), None], 2);
        assert_eq!(
            (found.by_class.clone(), found.mean()),
            (vec![None; 2], None)
        );
        let found = MultiLabelAuc::new(&[f64::NAN, 0.4], &[Some(true), Some(false)], 1);
        assert!(found.mean().unwrap().is_nan());
    }

    #[test]
    #[should_panic(expected = "`scores` has 3 scores: it needs a multiple of `classes`, 2")]
    fn part_of_an_example_is_refused() {
        MultiLabelAuc::new(&[0.0; 3], &[None; 3], 2);
    }
}
