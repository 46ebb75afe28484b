//! What a model takes examples for, and how often it is right.

use std::collections::BTreeMap;

use crate::report::{Accuracy, KindAccuracy};

/// What a model takes an example for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Answer {
    /// The example.
    pub index: usize,
    /// Its class.
    pub expected: usize,
    /// The class that the model gives it.
    pub given: usize,
    /// The probability that the model gives to this class.
    pub confidence: f64,
}

impl Answer {
    /// Whether the model is right.
    pub fn is_right(&self) -> bool {
        self.given == self.expected
    }
}

/// What a model takes the examples of a split for, in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answers(pub Vec<Answer>);

impl Answers {
    /// The share of right ones in percent; NaN without any.
    pub fn accuracy(&self) -> f64 {
        percent(&self.0, |answer| answer.given)
    }

    /// The accuracy for a report. `kind` says of what kind an example is; without kinds, all have
    /// the same. `training` are the kinds and the classes of the examples that were trained on.
    pub fn report<'a>(
        &self,
        before: Option<&Self>,
        kind: impl Fn(usize) -> &'a str,
        training: impl Iterator<Item = (&'a str, usize)>,
    ) -> Accuracy {
        let mut frequencies: BTreeMap<&str, BTreeMap<usize, usize>> = BTreeMap::new();
        let mut all = BTreeMap::new();
        for (kind, class) in training {
            *all.entry(class).or_default() += 1;
            *frequencies
                .entry(kind)
                .or_default()
                .entry(class)
                .or_default() += 1;
        }
        let overall = most_frequent(&all);
        let mut kinds: BTreeMap<&str, Vec<Answer>> = BTreeMap::new();
        for answer in &self.0 {
            kinds.entry(kind(answer.index)).or_default().push(*answer);
        }
        let several = kinds.len() > 1;
        let by_kind = kinds.into_iter().filter(|_| several).map(|(kind, own)| {
            let majority = frequencies.get(kind).map_or(overall, most_frequent);
            KindAccuracy {
                kind: kind.to_string(),
                count: own.len() as u64,
                majority: percent(&own, |_| majority),
                after: percent(&own, |answer| answer.given),
            }
        });
        Accuracy {
            split: "test".to_string(),
            count: self.0.len() as u64,
            majority: percent(&self.0, |_| overall),
            before: before.map(Self::accuracy),
            after: self.accuracy(),
            by_kind: by_kind.collect(),
        }
    }
}

/// How many percent of the examples are of the class that `given` says.
fn percent(answers: &[Answer], given: impl Fn(&Answer) -> usize) -> f64 {
    let right = answers.iter().filter(|a| given(a) == a.expected).count();
    100.0 * right as f64 / answers.len() as f64
}

/// The most frequent class, the first of equals.
fn most_frequent(frequencies: &BTreeMap<usize, usize>) -> usize {
    let all = frequencies.iter().rev();
    all.max_by_key(|(_, count)| **count)
        .map_or(0, |(class, _)| *class)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(expected: &[usize], given: &[usize]) -> Answers {
        let both = expected.iter().zip(given).enumerate();
        let answers = both.map(|(index, (&expected, &given))| Answer {
            index,
            expected,
            given,
            confidence: 0.9,
        });
        Answers(answers.collect())
    }

    #[test]
    fn accuracies_are_beside_those_of_the_most_frequent_class_of_the_training() {
        let after = answers(&[1, 1, 0, 0, 1], &[1, 0, 0, 0, 1]);
        let before = answers(&[1, 1, 0, 0, 1], &[0; 5]);
        let kinds = ["count", "all", "count", "all", "new"];
        let training = [
            ("count", 0),
            ("count", 0),
            ("count", 1),
            ("all", 1),
            ("all", 0),
            ("all", 1),
            ("all", 1),
        ];
        let report = after.report(Some(&before), |index| kinds[index], training.into_iter());
        assert_eq!((report.count, report.before), (5, Some(40.0)));
        // Class 1 has 4 of 7.
        assert_eq!((report.majority, report.after), (60.0, 80.0));
        let kinds = report.by_kind.iter();
        let kinds: Vec<_> = kinds
            .map(|of| (of.kind.as_str(), of.count, of.majority, of.after))
            .collect();
        let expected = [
            ("all", 2, 50.0, 50.0),
            ("count", 2, 50.0, 100.0),
            ("new", 1, 100.0, 100.0),
        ];
        assert_eq!(kinds, expected);
    }

    #[test]
    fn examples_of_one_kind_have_no_table_of_kinds() {
        let after = answers(&[0, 1], &[0, 0]);
        let report = after.report(None, |_| "", [("", 0)].into_iter());
        assert!(report.by_kind.is_empty());
        assert_eq!((report.majority, report.after), (50.0, 50.0));
    }
}
