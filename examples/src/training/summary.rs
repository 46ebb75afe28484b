//! A run's measurements in the form that its report has.

use burn_contrastive::retrieval::CrossModal;

use super::evaluation::Embedded;
use super::history::{History, StepRecord, ValidationRecord};
use crate::data::EvaluationSet;
use crate::report::{
    CaptionQuery, Curve, Curves, Examples, ImageQuery, NamedCurve, RankedCaption, RankedImage,
    Validation,
};

/// Results shown for each query.
const RESULTS: usize = 5;

/// The curves of a run of a system with those losses and figures.
pub fn curves(history: &History, losses: &[&str], figures: &[&str]) -> Curves {
    let steps = || history.steps.iter();
    let validations = || history.validations.iter();
    let each = |names: &[&str], suffix: &str, curve: &dyn Fn(usize) -> Curve| {
        let names = names.iter().enumerate();
        let named = names.map(|(index, name)| NamedCurve {
            name: name.to_lowercase() + suffix,
            curve: curve(index),
            reference: None,
        });
        named.collect()
    };
    Curves {
        loss: steps()
            .map(|record| (record.step as u64, record.loss))
            .collect(),
        learning_rate: steps()
            .map(|record| (record.step as u64, record.learning_rate))
            .collect(),
        logit_scale: steps()
            .filter_map(|record| Some((record.step as u64, record.logit_scale?)))
            .collect(),
        validation_loss: validations()
            .map(|record| (record.step as u64, record.loss))
            .collect(),
        validation: validations()
            .filter_map(|record| {
                Some(Validation {
                    step: record.step as u64,
                    scores: record.retrieval.as_ref()?.into(),
                })
            })
            .collect(),
        losses: each(losses, "", &|index| {
            let of = |record: &StepRecord| Some((record.step as u64, *record.losses.get(index)?));
            steps().filter_map(of).collect()
        }),
        figures: each(figures, " on validation", &|index| {
            let of =
                |record: &ValidationRecord| Some((record.step as u64, *record.figures.get(index)?));
            validations().filter_map(of).collect()
        }),
    }
}

/// `count` queries each way, spread evenly over the set.
pub fn examples(
    set: &EvaluationSet,
    embedded: &Embedded,
    ranks: &CrossModal,
    count: usize,
) -> Examples {
    let captions: Vec<&str> = set.captions().collect();
    let image_of = set.image_of_caption();
    let path = |image: usize| set.image_path(image).to_path_buf();

    let text_to_image = spread(captions.len(), count).filter_map(|query| {
        let results = embedded.images_for(query, RESULTS).into_iter();
        Some(CaptionQuery {
            caption: captions[query].to_string(),
            image: path(image_of[query]),
            rank: ranks.text_to_image.as_slice()[query]? as u64,
            results: results
                .map(|(image, similarity)| RankedImage {
                    image: path(image),
                    similarity,
                    is_match: image == image_of[query],
                })
                .collect(),
        })
    });
    let image_to_text = spread(set.num_images(), count).filter_map(|query| {
        let results = embedded.captions_for(query, RESULTS);
        let own = embedded
            .captions_for(query, captions.len())
            .into_iter()
            .find(|(caption, _)| image_of[*caption] == query)?;
        Some(ImageQuery {
            image: path(query),
            caption: captions[own.0].to_string(),
            rank: ranks.image_to_text.as_slice()[query]? as u64,
            results: results
                .into_iter()
                .map(|(caption, similarity)| RankedCaption {
                    caption: captions[caption].to_string(),
                    similarity,
                    is_match: image_of[caption] == query,
                })
                .collect(),
        })
    });
    Examples {
        text_to_image: text_to_image.collect(),
        image_to_text: image_to_text.collect(),
    }
}

/// `count` indices below `total`, spread evenly.
pub(crate) fn spread(total: usize, count: usize) -> impl Iterator<Item = usize> {
    let count = count.min(total);
    (0..count).map(move |i| (2 * i + 1) * total / (2 * count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_spread_over_the_set() {
        assert_eq!(spread(10, 2).collect::<Vec<_>>(), [2, 7]);
        assert_eq!(spread(2, 8).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(spread(0, 8).count(), 0);
    }
}
