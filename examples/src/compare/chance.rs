//! What a random order of the candidates would retrieve, on average.

use serde::{Deserialize, Serialize};

use super::figures::{ByMeaning, Gains, Truth, discounted};

/// The figures of a random order, in percent; exact, not drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chance {
    /// R@1 of captions for an image.
    pub image_to_text: f64,
    /// R@1 of images for a caption.
    pub text_to_image: f64,
    /// R@1 + R@5 + R@10 of both directions.
    pub recall_sum: f64,
    /// By equal meaning.
    pub by_equality: ByMeaning,
    /// By the overlap of attributes, where these are known.
    pub by_overlap: Option<ByMeaning>,
}

impl Chance {
    /// That of a part.
    pub fn of(truth: &Truth) -> Self {
        let owners = truth.image_of_caption();
        let images = truth.equality().images();
        let mut captions = vec![0; images];
        owners.iter().for_each(|&image| captions[image] += 1);
        let to_text = |k| {
            let found = captions.iter().map(|&own| found(k, own, owners.len()));
            100.0 * found.sum::<f64>() / images as f64
        };
        let to_image = |k| 100.0 * found(k, 1, images);
        Self {
            image_to_text: to_text(1),
            text_to_image: to_image(1),
            recall_sum: [1, 5, 10].map(|k| to_text(k) + to_image(k)).iter().sum(),
            by_equality: by_meaning(truth.equality(), owners),
            by_overlap: truth.overlap().map(|gains| by_meaning(gains, owners)),
        }
    }
}

/// The chance that at least one of `own` candidates is among the first `k` of `all`.
fn found(k: usize, own: usize, all: usize) -> f64 {
    let missed = (0..k.min(all)).map(|place| {
        let others = (all - own).saturating_sub(place);
        others as f64 / (all - place) as f64
    });
    1.0 - missed.product::<f64>()
}

fn by_meaning(gains: &Gains, owners: &[usize]) -> ByMeaning {
    let scores = |candidates: Vec<f64>| {
        let mean = candidates.iter().sum::<f64>() / candidates.len() as f64;
        let relevant = gains.count_relevant(&candidates) as f64 / candidates.len() as f64;
        let even = discounted(&vec![mean; candidates.len()]);
        let mut best = candidates;
        best.sort_by(|a, b| b.total_cmp(a));
        [even / discounted(&best), relevant]
    };
    let of_images = (0..gains.images()).map(|image| {
        let row = gains.row(image);
        scores(owners.iter().map(|&owner| row[owner]).collect())
    });
    let of_texts: Vec<[f64; 2]> = (0..gains.images())
        .map(|image| scores(gains.row(image).to_vec()))
        .collect();
    let of_captions = owners.iter().map(|&owner| of_texts[owner]);
    let [to_text, to_image] = [mean(of_images.collect()), mean(of_captions.collect())];
    let both = |figure: usize| 100.0 * (to_text[figure] + to_image[figure]) / 2.0;
    ByMeaning {
        ndcg: both(0),
        r_precision: both(1),
    }
}

fn mean(scores: Vec<[f64; 2]>) -> [f64; 2] {
    [0, 1].map(|figure| {
        let sum: f64 = scores.iter().map(|score| score[figure]).sum();
        sum / scores.len() as f64
    })
}

#[cfg(test)]
mod tests {
    use super::super::data::Part;
    use super::*;

    #[test]
    fn a_random_order_finds_what_orders_find_on_average() {
        // Three images with one, one and two captions; the first two mean the same.
        let part = Part {
            image_of_caption: vec![0, 1, 2, 2],
            meanings: vec![7, 7, 8],
            ..Part::default()
        };
        let chance = Chance::of(&Truth::of(&part));
        assert!((chance.image_to_text - 100.0 * (0.25 + 0.25 + 0.5) / 3.0).abs() < 1e-9);
        assert!((chance.text_to_image - 100.0 / 3.0).abs() < 1e-9);
        // Beyond R@1 all are found.
        let sum = chance.image_to_text + chance.text_to_image + 400.0;
        assert!((chance.recall_sum - sum).abs() < 1e-9);
        // Of four captions each image has two of its meaning, of three images each of the first
        // two captions has two, and each of the others one.
        let precision = (0.5 + (2.0 / 3.0 + 2.0 / 3.0 + 1.0 / 3.0 + 1.0 / 3.0) / 4.0) / 2.0;
        assert!((chance.by_equality.r_precision - 100.0 * precision).abs() < 1e-9);
        let discounts = [1.0, 1.0 / 3.0_f64.log2(), 0.5, 1.0 / 5.0_f64.log2()];
        let sum = |count: usize| discounts[..count].iter().sum::<f64>();
        let to_text = 0.5 * sum(4) / sum(2);
        let to_image = (2.0 / 3.0 * sum(3) / sum(2) + sum(3) / 3.0) / 2.0;
        let ndcg = 100.0 * (to_text + to_image) / 2.0;
        assert!((chance.by_equality.ndcg - ndcg).abs() < 1e-9);
        assert_eq!(chance.by_overlap, None);
    }
}
